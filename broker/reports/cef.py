r"""Events as lines of the Common Event Format, for a log collector.

Whatever a value holds, an event is one line: in the header `\` and `|` are escaped, in the extension `\` and `=`, and
every line break and control character of either; so nothing that was typed can add a field or a line.
Source: ArcSight Common Event Format (CEF) Implementation Standard, version 26.
"""

from __future__ import annotations

from typing import Final

from broker.reports.fhir import outcome_of
from broker.reports.reading import persons
from broker.reports.table import OpenedEvent

HEADER: Final = "CEF:0"
SEVERITIES: Final = {"0": "2", "4": "5", "8": "8"}
BREAK_GLASS: Final = "7"


def line(one: OpenedEvent, *, origin: str) -> str:
    """An event as one line, without its line break.  `origin`: the log's."""
    event = one.event
    severity = BREAK_GLASS if event.break_glass else SEVERITIES[outcome_of(event.type)]
    head = ("Safeguarding broker", "broker", "1", event.type, event.type.replace(".", " ").replace("_", " "), severity)
    labelled = {
        "cs1": ("case", event.case),
        "cs2": ("clauses", " ".join(map(str, one.body("why").get("clauses") or ()))),
        "cs3": ("subjects", " ".join(persons(one.texts("subjects")))),
        "cs4": ("recipients", " ".join(str(each.get("organisation", "")) for each in one.recipients)),
        "cs5": ("log", origin),
        "cs6": ("role", event.role),
        "cn1": ("log index", str(one.index)),
    }
    pairs = {
        "rt": str(round(event.at.timestamp() * 1000)), "externalId": event.event_id, "act": event.op,
        "suser": event.person, "sourceServiceName": event.organisation, "reason": event.purpose,
        "outcome": event.outcome,
    }  # fmt: skip
    for key, (label, value) in labelled.items():
        if value:
            pairs |= {f"{key}Label": label, key: value}
    told = " ".join(f"{key}={extension_value(value)}" for key, value in pairs.items() if value)
    return f"{HEADER}|{'|'.join(map(header_value, head))}|{told}"


def header_value(value: str) -> str:
    r"""A field of the header.

    >>> header_value("a|b\\c\nd")
    'a\\|b\\\\c d'
    """
    return _printable(value).replace("\\", "\\\\").replace("|", "\\|")


def extension_value(value: str) -> str:
    r"""A value of the extension.

    >>> extension_value("a=b\nc")
    'a\\=b c'
    """
    return _printable(value).replace("\\", "\\\\").replace("=", "\\=")


def _printable(value: str) -> str:
    """The value on one line: what breaks one, or is not seen, becomes a blank."""
    return "".join(character if character.isprintable() else " " for character in value)

"""What the partnership tells the public: its agreements in force, in plain words, and two counts of a quarter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from agreements import VOCABULARY, Agreement, words
from broker import clock, register
from broker.store import Reading
from broker.store.agencies import AgencyRow
from broker.store.log_search import count_of

LONDON: Final = ZoneInfo("Europe/London")
FEWEST: Final = 10
NEAREST: Final = 10
DISCLOSED: Final = ("disclosure.authorised",)
REFUSED: Final = ("disclosure.refused", "search.refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One clause as the public reads it: in the words that were signed, then from whom, to whom, for what, how much."""

    text: str
    sources: tuple[str, ...]
    recipients: tuple[str, ...]
    roles: tuple[str, ...]
    purposes: tuple[str, ...]
    shown: tuple[tuple[str, str], ...]  # kind of information, how much


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One agreement in force."""

    ref: str
    title: str
    parties: tuple[str, ...]
    first: date
    last: date
    notice: str
    flows: tuple[Flow, ...]
    kept: tuple[str, ...]
    rights: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The whole page.  A count is None where it is below `FEWEST`."""

    agreements: tuple[Told, ...]
    quarter: str
    disclosed: int | None
    refused: int | None
    prohibited: tuple[str, ...] = tuple(one.label for one in VOCABULARY.prohibited.values())


def published(reading: Reading, kept: dict[str, Any], *, at: datetime) -> Published:
    """The page as it stands, made once for one state of the register and one quarter; `kept` holds the last one."""
    mine = tuple((one.ref, one.digest) for one in register.snapshot(reading).agreements)
    first, last, name = _last_quarter(at)
    live = [one for one in register.documents(reading, at=at) if one.state.name == "active"]
    key = (mine, tuple(one.ref for one in live), name)
    if kept.get("published", (None, None))[0] != key:
        names = {row.id: row.name for row in reading.all(AgencyRow)}
        told = tuple(
            _told(one.document, names) for one in live if isinstance(one.document, Agreement) and one.document.grants
        )
        made = Published(
            agreements=told, quarter=name, disclosed=_rounded(count_of(reading, DISCLOSED, first, last)),
            refused=_rounded(count_of(reading, REFUSED, first, last)),
        )  # fmt: skip
        kept["published"] = (key, made)
    shown: Published = kept["published"][1]
    return shown


def _told(agreement: Agreement, names: Mapping[str, str]) -> Told:
    def named(parties: Any) -> tuple[str, ...]:
        return tuple(names.get(one, one) for one in sorted(parties))

    body = agreement.body
    return Told(
        ref=agreement.ref, title=agreement.title, parties=named(agreement.parties),
        first=words.first_day(agreement.period), last=words.last_day(agreement.period),
        notice=str((body.get("assurance") or {}).get("notice", "")),
        flows=tuple(
            Flow(
                text=grant.text, sources=named(grant.sources), recipients=named(grant.organisations),
                roles=tuple(VOCABULARY.roles[role].label for role in sorted(grant.roles)),
                purposes=tuple(VOCABULARY.purposes[code].label for code in sorted(grant.purposes)),
                shown=tuple(
                    (words.category(name, VOCABULARY), words.shown(name, mode, VOCABULARY))
                    for name, mode in sorted(grant.modes.items())
                ),
            )
            for grant in agreement.grants
        ),
        kept=_said(body.get("retention")), rights=_said(body.get("rights")),
    )  # fmt: skip


def _said(part: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a part of a document says, each under its name, in the order of its paragraphs."""
    found = [(str(text), name.replace("_", " ")) for name, text in (part or {}).items()]
    return tuple(f"{name[:1].upper()}{name[1:]}: {text}" for text, name in sorted(found))


def _last_quarter(at: datetime) -> tuple[int, int, str]:
    """The last calendar quarter in London that is over: its bounds in unix milliseconds, and its name."""
    today = at.astimezone(LONDON).date()
    end = date(today.year, 3 * ((today.month - 1) // 3) + 1, 1)
    begin = date(end.year - 1, 10, 1) if end.month == 1 else date(end.year, end.month - 3, 1)
    first, last = (clock.milliseconds(datetime.combine(day, time(), LONDON)) for day in (begin, end))
    months = ("January to March", "April to June", "July to September", "October to December")
    return first, last, f"{months[begin.month // 3]} {begin.year}"


def _rounded(number: int) -> int | None:
    """To the nearest ten; None below ten.

    >>> _rounded(9), _rounded(14), _rounded(15), _rounded(1234)
    (None, 10, 20, 1230)
    """
    return None if number < FEWEST else (number + NEAREST // 2) // NEAREST * NEAREST

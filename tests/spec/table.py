"""Reads the decision table: its world, its cases, and `RULES.md` rendered from them."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from agreements import (
    VOCABULARY,
    Agreement,
    Basis,
    BreakGlass,
    Facts,
    Held,
    Link,
    Mode,
    Request,
    Signature,
    Snapshot,
    StatusEvent,
    Threshold,
    read,
)
from agreements.agreement import Document
from agreements.vocabulary import Vocabulary, of_lists, shipped

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "agreements" / "RULES.md"
SIGNED = datetime(2025, 1, 1, tzinfo=UTC)
TABLE: dict[str, Any] = tomllib.loads((HERE / "decision_cases.toml").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = TABLE["case"]


@dataclass(frozen=True)
class World:
    """What a case is decided in."""

    documents: tuple[Document, ...]
    snapshot: Snapshot
    texts: Mapping[str, str]
    at: datetime
    vocabulary: Vocabulary = VOCABULARY


def fixture(name: str) -> dict[str, Any]:
    """The table of one of the fixture's documents."""
    return tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))


def toml(value: Any) -> str:
    """A TOML text of a table; tables inside are inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date | int | float):
        return value.isoformat() if isinstance(value, date) else str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"


def text_of(body: Mapping[str, Any]) -> str:
    """A document's table as TOML."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in body.items())


def edited(body: dict[str, Any], path: str, value: Any) -> None:
    """Change one place of a table: a step of a path is a key, a list's index, or `+` to append; "-" takes it out."""
    *steps, last = path.split(".")
    place: Any = body
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    if last == "+":
        place.append(value)
    elif value == "-":
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value


def instant(text: str) -> datetime:
    """An instant of the table; one without `Z` is naive on purpose."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def world(case: Mapping[str, Any]) -> World:
    """The documents and signatures of a case."""
    bodies = {name: fixture(name) for name in ("northshire-tier1", "northshire-mash")}
    for edit in case.get("edit", ()):
        edited(bodies[edit["document"]], edit["path"], edit["value"])
    if "second" in case:
        bodies["northshire-second"] = _second(case["second"])
    if "restriction" in case:
        bodies["standing"] = _standing(case["restriction"])
    if case.get("court_order"):
        bodies["northshire-icb-r12"] = fixture("northshire-icb-r12")
    texts = {name: text_of(body) for name, body in bodies.items()}
    vocabulary = commencing(case.get("commences"))
    umbrella = _read(texts["northshire-tier1"], vocabulary)
    assert isinstance(umbrella, Agreement)
    under = texts["northshire-tier1"]
    documents = (umbrella, *(_read(text, vocabulary, under) for text in texts.values() if text != under))
    unsigned = {(party, name) for party, name in case.get("unsigned", ())}
    signatures = [
        Signature(party, document.digest, f"{party}/1", SIGNED)
        for document in documents
        for party in (document.parties if isinstance(document, Agreement) else [document.owner])
        if (party, document.id) not in unsigned
    ]
    by_id = {document.id: document for document in documents}
    events = [
        StatusEvent(
            event["party"],
            by_id[event["document"]].digest,
            event["do"],
            instant(event["at"]),
            f"{event['party']}/1",
        )
        for event in case.get("events", ())
    ]
    at = instant(case.get("at", TABLE["world"]["at"]))
    return World(documents, Snapshot.of(documents, signatures, events), texts, at, vocabulary)


@cache
def commencing(day: str | None) -> Vocabulary:
    """The lists, with a day on which section 16LA of the Children Act 2004 comes into force."""
    if day is None:
        return VOCABULARY
    lists = shipped()
    lists["gateways"]["ca2004-s16la"]["commences"] = day
    return of_lists(lists)


@cache
def _read(text: str, vocabulary: Vocabulary, under: str | None = None) -> Document:
    umbrella = _read(under, vocabulary) if under is not None else None
    return read(text, umbrellas=[umbrella] if isinstance(umbrella, Agreement) else [], vocabulary=vocabulary)


def request(case: Mapping[str, Any]) -> Request:
    """The question of a case."""
    said = TABLE["world"]["request"] | case.get("request", {})
    mode: Any = said["ask_raw"] if "ask_raw" in said else Mode.parse(said.get("ask_at", "detail"))
    asked = {name: mode for name in VOCABULARY.shareable if name.startswith(f"{said['ask']}.")}
    if "ask_only" in said:
        asked = {full(name, said["ask"]): Mode.parse(one) for name, one in said["ask_only"].items()}
    session = said.get("break_glass")
    return Request(
        organisation=said["organisation"],
        role=said["role"],
        purpose=said["purpose"],
        basis=Basis(art6=said["art6"], conditions=frozenset(said["conditions"]), gateways=frozenset(said["gateways"])),
        case=said["case"] or None,
        threshold=Threshold(level=said["threshold"], decided_by=said["threshold_by"]) if said["threshold"] else None,
        break_glass=BreakGlass(reason=said.get("reason", "IMMEDIATE_DANGER"), started=instant(session))
        if session
        else None,
        asked=asked,
    )


def facts(case: Mapping[str, Any]) -> Facts:
    """The facts of a case."""
    said = TABLE["world"]["facts"] | case.get("facts", {})
    held = (Held(said["recorded_on"], said["regime"]),)
    return Facts(
        source=said["source"],
        record=said["record"],
        relation=said["relation"],
        case=said["case"],
        link=Link[said["link"].upper()],
        tags=frozenset(said.get("tags", ())),
        tags_unknown=frozenset(said.get("tags_unknown", ())),
        held=dict.fromkeys(VOCABULARY.shareable, held),
    )


def expected(case: Mapping[str, Any], asked: Mapping[str, Mode]) -> dict[str, Mode]:
    """The mode of every category asked for, as the case says."""
    modes = case["only"] if "only" in case else TABLE["expect"][case["expect"]]
    sector = next(iter(asked)).partition(".")[0]
    named = {full(name, sector): Mode.parse(mode) for name, mode in modes.items()}
    return {category: named.get(category, Mode.NONE) for category in asked}


def full(name: str, sector: str) -> str:
    """A category's name, which a case may give without its sector."""
    return name if "." in name else f"{sector}.{name}"


def rules() -> str:
    """The table as a page to read."""
    lines = [
        "# Rules of decision",
        "",
        "Rendered from `tests/spec/decision_cases.toml`, which both evaluators run; to render it again: "
        "`python -m tests.spec.table`.",
        "",
        "The question: a social worker of northshire-la asks for S47 about a child's health record, on northshire-mash",
        "3.0.0. Each row changes one thing. A code is what the holder and information governance read.",
        "",
        "| # | what is changed | what follows |",
        "|---|---|---|",
    ]
    lines += [f"| {case['n']} | {case['what']} | {_outcome(case)} |" for case in CASES]
    from tests.spec import scenarios

    return "\n".join(lines) + "\n\n" + scenarios.rendered()


def _outcome(case: Mapping[str, Any]) -> str:
    if "refused" in case:
        return f"refused as input, {case['refused']}"
    if case.get("documents"):
        return "each refused with its place and its fix"
    modes = case["only"] if "only" in case else TABLE["expect"][case["expect"]]
    by_mode: dict[str, list[str]] = {}
    for category, mode in modes.items():
        by_mode.setdefault(mode, []).append(category)
    words = "; ".join(f"{', '.join(names)} at {mode}" for mode, names in by_mode.items()) or "silent"
    for key, said in (("code", "{}"), ("outcome", "outcome {}"), ("witness", "under {}"), ("deletes", "delete in {}")):
        if key in case:
            words += f"; {said.format(case[key])}"
    words += "".join(f"; {category} {code}" for category, code in case.get("codes", {}).items())
    words += "; unconfirmed" if case.get("unconfirmed") else ""
    return words + "".join(f"; {warning}" for warning in case.get("warnings", ()))


def _second(said: Mapping[str, Any]) -> dict[str, Any]:
    body = copy.deepcopy(fixture("northshire-mash"))
    body |= {"id": "northshire-second", "version": "1.0.0", "title": "A second agreement"}
    body["grants"] = [grant for grant in body["grants"] if grant["id"] in said["grants"]]
    body["limits"] = said.get("limits", body["limits"])
    for grant in body["grants"]:
        grant["disclose"] = said.get("disclose", grant["disclose"])
        grant["duties"] = said.get("duties", grant["duties"])
    return body


def _standing(said: Mapping[str, Any]) -> dict[str, Any]:
    body = fixture("northshire-icb-r12")
    for key in ("subject", "for"):
        del body[key]
    return body | {"id": "northshire-icb-standing", "authority": "own_rule"} | said


if __name__ == "__main__":
    RULES.write_text(rules(), encoding="utf-8")

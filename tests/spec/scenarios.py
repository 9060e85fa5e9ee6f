"""Reads the acceptance scenarios of policy: their world, questions, facts, and their part of `RULES.md`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
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
from tests.spec.table import instant

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "deploy" / "demo" / "agreements"
TABLE: dict[str, Any] = tomllib.loads((HERE / "scenarios.toml").read_text(encoding="utf-8"))
SCENARIOS: list[dict[str, Any]] = TABLE["scenario"]
HELD: list[dict[str, str]] = TABLE["held"]
SIGNED = datetime(2026, 3, 20, tzinfo=UTC)
PAUSED = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)


@cache
def _documents() -> tuple[Agreement, ...]:
    umbrella = read((DEMO / "northshire-tier1.toml").read_bytes())
    assert isinstance(umbrella, Agreement)
    paths = [*sorted(set(DEMO.glob("*.toml")) - {DEMO / "northshire-tier1.toml"}), HERE / "northshire-identify.toml"]
    under = [read(path.read_bytes(), umbrellas=[umbrella]) for path in paths]
    return umbrella, *(one for one in under if isinstance(one, Agreement))


def snapshot(scenario: Mapping[str, Any]) -> Snapshot:
    """What is signed, and what a party has stopped since."""
    documents = [one for one in _documents() if scenario.get("identify") or one.id != "northshire-identify"]
    signatures = [Signature(party, one.digest, f"{party}/1", SIGNED) for one in documents for party in one.parties]
    party = scenario.get("suspends")
    events = [
        StatusEvent(party, one.digest, "suspend", PAUSED, f"{party}/1") for one in documents if party in one.parties
    ]
    return Snapshot.of(documents, signatures, events)


def asked(scenario: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The question of a scenario, once for each source and person that it names."""
    said = TABLE["ask"] | scenario.get("ask", {})
    for source in scenario.get("each_of", [said["of"]]):
        for relation in scenario.get("each_about", [said["about"]]):
            yield said | {"of": source, "about": relation}


def request(said: Mapping[str, Any]) -> Request:
    """Who asks what."""
    level, session = said["threshold"], said.get("break_glass")
    setter = said.get("threshold_by", "MASH_DECISION_MAKER")
    purpose = VOCABULARY.purposes.get(said["purpose"])
    return Request(
        organisation=said["organisation"],
        role=said["role"],
        purpose=said["purpose"],
        basis=Basis(art6=said["art6"], conditions=frozenset(said["conditions"]), gateways=frozenset(said["gateways"])),
        case=said["case"],
        threshold=Threshold(level=level, decided_by=setter) if level else None,
        break_glass=BreakGlass(reason=said.get("reason", "IMMEDIATE_DANGER"), started=instant(session))
        if session
        else None,
        asked=VOCABULARY.everything(purpose.code) if purpose else {},
    )


def facts(said: Mapping[str, Any], *, held: bool = True) -> Facts:
    """A record of the source that holds something of everything, or of nothing."""
    regime = "LE" if said["of"] == "northshire-police" else "GENERAL"
    items = dict.fromkeys(VOCABULARY.shareable, (Held(said["recorded_on"], regime),))
    return Facts(
        source=said["of"],
        record="r_1",
        relation=said["about"],
        case=said["belongs_to"],
        link=Link[said["link"].upper()],
        tags=frozenset(said.get("tags", ())),
        held=items if held else {},
    )


def at(said: Mapping[str, Any]) -> datetime:
    """When."""
    return instant(said["at"])


def shown(scenario: Mapping[str, Any]) -> dict[str, Mode]:
    """The modes that a scenario names."""
    return {category: Mode.parse(word) for category, word in scenario.get("shows", {}).items()}


def rendered() -> str:
    """The scenarios as a part of a page."""
    lines = [
        "## Acceptance scenarios",
        "",
        "Rendered from `tests/spec/scenarios.toml`, which both evaluators run on the demonstration's agreements.",
        "",
        "| scenario | what happens | what follows |",
        "|---|---|---|",
        *(f"| {one['n']} | {one['what']} | {_outcome(one)} |" for one in SCENARIOS),
        "",
        "Scenarios of policy that are no decision on a record, each with the test that holds it:",
        "",
        "| scenario | what happens | what follows | held by |",
        "|---|---|---|---|",
        *(f"| {one['n']} | {one['what']} | {one['follows']} | {_tests(one)} |" for one in HELD),
    ]
    return "\n".join(lines) + "\n"


def _tests(one: Mapping[str, Any]) -> str:
    return ", ".join(f"`{one[name]}`" for name in ("test", "also") if name in one)


def _outcome(one: Mapping[str, Any]) -> str:
    if "refused" in one:
        return f"refused as input, {one['refused']}"
    parts = [f"{category} at {mode}" for category, mode in one.get("shows", {}).items()]
    parts += [f"never shown: {', '.join(one['hides'])}"] if "hides" in one else []
    parts += [one["outcome"]] if one.get("outcome") in ("silent", "existence") else []
    parts += [f"the asker reads {code}{f' on {name}' if name else ''}" for name, code in one.get("asker", {}).items()]
    parts += [f"“{one['says']}”"] if "says" in one else []
    parts += [f"holder and IG read {one['code']}"] if "code" in one else []
    parts += [f"duties {', '.join(one['duties'])}"] if "duties" in one else []
    for key, words in (
        ("unconfirmed", "marked unconfirmed"),
        ("consider", "an item *consider sharing* at the holder, nothing before the asker"),
        ("equals_no_record", "equal to the answer without a record"),
    ):
        parts += [words] if one.get(key) else []
    return "; ".join(parts)

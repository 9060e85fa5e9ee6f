"""Every acceptance scenario of policy, by both evaluators, on the agreements that the demonstration runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    VOCABULARY,
    Decision,
    Facts,
    Item,
    Mode,
    RequestRefused,
    Snapshot,
    decide,
    explain_for_asker,
    explain_for_holder,
    make_receipt,
    reference,
    render,
)
from agreements.analysis.whatif import what_if
from agreements.receipts import PastDecision
from agreements.statistics import Counted, too_alike
from agreements.vocabulary import CASEWORK
from tests.spec import scenarios

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
DECIDED = [one for one in scenarios.SCENARIOS if "refused" not in one]
REFUSED = [one for one in scenarios.SCENARIOS if "refused" in one]


def _n(scenario: Mapping[str, Any]) -> str:
    return str(scenario["n"])


@pytest.mark.parametrize("evaluate", [decide, reference.decide], ids=["compiled", "literal"])
@pytest.mark.parametrize("scenario", DECIDED, ids=_n)
def test_a_scenario_is_decided_as_it_says(scenario: Mapping[str, Any], evaluate: Callable[..., Decision]) -> None:
    snapshot = scenarios.snapshot(scenario)
    for said in scenarios.asked(scenario):
        decision = evaluate(snapshot, VOCABULARY, scenarios.request(said), scenarios.facts(said), scenarios.at(said))
        for category, mode in scenarios.shown(scenario).items():
            assert decision.mode(category) is mode, category
        assert not set(scenario.get("hides", ())) & set(decision.shown)
        assert bool(decision.shown) is (scenario.get("outcome") != "silent")
        assert scenario.get("outcome", decision.outcome) == decision.outcome
        assert decision.unconfirmed is scenario.get("unconfirmed", False)
        if "duties" in scenario:
            assert [duty.do for duty in decision.duties] == scenario["duties"]


@pytest.mark.parametrize("scenario", DECIDED, ids=_n)
def test_the_asker_reads_what_would_unlock_it_and_the_holder_the_true_reason(scenario: Mapping[str, Any]) -> None:
    snapshot = scenarios.snapshot(scenario)
    for said in scenarios.asked(scenario):
        request, at = scenarios.request(said), scenarios.at(said)
        reasons = explain_for_asker(snapshot, VOCABULARY, request, said["of"], at, names={}, desks={})
        codes = {one.category or "": one.code for one in reasons}
        assert scenario.get("asker", {}).items() <= codes.items()
        assert scenario.get("says") in {None, *(one.sentence for one in reasons)}
        view = explain_for_holder(
            snapshot, VOCABULARY, decide(snapshot, VOCABULARY, request, scenarios.facts(said), at)
        )
        assert scenario.get("code", view.code) == view.code
        assert view.consider_sharing or not scenario.get("consider")


@pytest.mark.parametrize("scenario", [one for one in DECIDED if one.get("equals_no_record")], ids=_n)
def test_what_the_asker_keeps_equals_what_would_be_kept_without_a_record(scenario: Mapping[str, Any]) -> None:
    snapshot = scenarios.snapshot(scenario)
    for said in scenarios.asked(scenario):
        hidden, none = scenarios.facts(said), []
        assert _kept(snapshot, said, [hidden]) == _kept(snapshot, said, none)


def _kept(snapshot: Any, said: Mapping[str, Any], records: list[Facts]) -> bytes:
    request, at = scenarios.request(said), scenarios.at(said)
    decisions = [decide(snapshot, VOCABULARY, request, facts, at) for facts in records]
    receipt = make_receipt(
        snapshot, VOCABULARY, request, decisions, source=said["of"], at=at, salt=bytes(32), kid="broker/1", key=KEY
    )
    return rfc8785.dumps({name: value for name, value in receipt.asker.body.items() if name != "commitment"})


@pytest.mark.parametrize("evaluate", [decide, reference.decide], ids=["compiled", "literal"])
@pytest.mark.parametrize("scenario", REFUSED, ids=_n)
def test_what_can_not_be_asked_is_refused_by_name(
    scenario: Mapping[str, Any], evaluate: Callable[..., Decision]
) -> None:
    snapshot = scenarios.snapshot(scenario)
    for said in scenarios.asked(scenario):
        with pytest.raises(RequestRefused) as refused:
            evaluate(snapshot, VOCABULARY, scenarios.request(said), scenarios.facts(said), scenarios.at(said))
        assert refused.value.code == scenario["refused"]


def test_identification_gives_a_status_at_most_and_only_what_the_asker_is_granted() -> None:
    scenario = next(one for one in DECIDED if one["n"] == "27a")
    (said,) = scenarios.asked(scenario)
    decision = decide(
        scenarios.snapshot(scenario), VOCABULARY, scenarios.request(said), scenarios.facts(said), scenarios.at(said)
    )
    assert set(decision.shown) == {"health.developmental_review"}
    assert max(decision.modes.values()) is Mode.STATUS


def test_every_scenario_of_policy_is_rendered_and_every_test_that_is_cited_is_there() -> None:
    root = Path(__file__).resolve().parents[2]
    for one in scenarios.HELD:
        for name in filter(None, (one["test"], one.get("also"))):
            file, _, function = name.partition("::")
            assert f"def {function}(" in (root / file).read_text("utf-8")
            assert name in scenarios.rendered()
    numbers = {one["n"].rstrip("abc") for one in (*scenarios.SCENARIOS, *scenarios.HELD)}
    policy = {"1", "2", "3", "4", "5", "6", "9", "10", "12", "16", "18", "20", "24", "25", "27"}
    assert policy <= numbers


@pytest.mark.parametrize("mode", CASEWORK)
def test_scenario_16_a_victims_record_says_victim_at_every_mode_and_nothing_else(mode: Mode) -> None:
    day = date(2026, 5, 1)
    seen = 0
    for category, system, code in (
        ("police.domestic_abuse", "dash_grade", "HIGH"),
        ("police.missing_episode", "missing_risk", "LOW"),
        ("police.custody", "custody", "ARREST"),
    ):
        told = {}
        for role in ("victim", "suspect", None):
            item = Item(
                category=category, code_system=system, code=code, occurred_on=day, recorded_on=day, role=role,
                regime="LE",
            )  # fmt: skip
            told[role] = render(category, mode, [item], on=date(2026, 6, 1))
        victim = told["victim"]
        assert victim is not None and told[None] is None
        assert "suspect" not in repr(victim)
        roles = {one.role for one in victim.items} | ({victim.status.role} if victim.status is not None else set())
        assert roles <= {"victim"}
        seen += len(roles)
        if mode >= Mode.STATUS:
            assert victim != told["suspect"]
    assert seen == (0 if mode is Mode.EXISTENCE else 3)


def test_scenario_18_a_table_that_differs_from_an_earlier_one_by_one_child_is_refused() -> None:
    def counted(release: str, children: range, period: str) -> Counted:
        return Counted(
            release=release, period=period, dimensions=("age",), members=frozenset(map(str, children)),
            counts=np.array([len(children) - 40, 40]),
        )  # fmt: skip

    before = counted("first", range(100), "2026-Q2")
    for period in ("2026-Q2", "2026-Q3"):
        one_more = too_alike(counted("second", range(101), period), [before], threshold=10)
        assert one_more is not None and (one_more.release, one_more.by) == ("first", "population")
        assert too_alike(counted("second", range(109), period), [before], threshold=10) is not None
        assert too_alike(counted("second", range(110), period), [before], threshold=10) is None
    assert VOCABULARY.results["SDC_SUPPRESSED"].asker == "Not published, so that no child can be recognised."


def test_scenario_20_a_dry_run_names_exactly_the_past_questions_that_would_change() -> None:
    today = scenarios.snapshot({})
    hub = next(one for one in today.agreements if one.id == "northshire-mash")
    grants = tuple(replace(one, threshold="L4") if one.break_glass is None else one for one in hub.grants)
    draft = replace(hub, version="4.0.0", grants=grants, canonical=b"a draft that asks for L4 everywhere")
    past, due = [], {}
    for scenario in DECIDED:
        if scenario.get("identify") or scenario.get("suspends"):
            continue
        for number, said in enumerate(scenarios.asked(scenario)):
            request, facts, at = scenarios.request(said), scenarios.facts(said), scenarios.at(said)
            name = f"{scenario['n']}/{number}"
            was = reference.decide(today, VOCABULARY, request, facts, at)
            under = {category: str(shown.under) for category, shown in was.shown.items()}
            past.append((name, PastDecision(request=request, facts=facts, at=at, modes=was.modes, witnesses=under)))
            signed = [*today.signatures, *(replace(one, digest=draft.digest) for one in today.signatures
                                           if one.digest == hub.digest)]  # fmt: skip
            documents = [draft if one is hub else one for one in today.agreements]
            would = reference.decide(Snapshot.of(documents, signed), VOCABULARY, request, facts, at)
            if would.modes != was.modes:
                due[name] = {c: (m, would.modes[c]) for c, m in was.modes.items() if would.modes[c] is not m}
    found = what_if(past, today, draft, VOCABULARY)
    assert {one.id: {c: (m, one.would[c]) for c, m in one.was.items()} for one in found.changed} == due
    assert found.looked_at == len(past) and 0 < len(due) < len(past)
    assert "1/0" in due and "6b/0" not in due  # who screens would now need a threshold; section 47 has one

"""Every case of the decision table, by both evaluators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    VOCABULARY,
    Decision,
    Mode,
    Outcome,
    RequestRefused,
    Snapshot,
    check,
    decide,
    explain_for_asker,
    explain_for_holder,
    make_receipt,
    reference,
)
from agreements.agreement import Agreement
from tests.spec import table

DECIDED = [case for case in table.CASES if "expect" in case or "only" in case]
REFUSED = [case for case in table.CASES if "refused" in case]
EVALUATORS = [decide, reference.decide]


def _n(case: Mapping[str, Any]) -> str:
    return str(case["n"])


@pytest.mark.parametrize("evaluate", EVALUATORS, ids=["compiled", "literal"])
@pytest.mark.parametrize("case", DECIDED, ids=_n)
def test_a_case_is_decided_as_the_table_says(case: Mapping[str, Any], evaluate: Callable[..., Decision]) -> None:
    world, request, facts = table.world(case), table.request(case), table.facts(case)
    decision = evaluate(world.snapshot, world.vocabulary, request, facts, world.at)
    due = table.expected(case, request.asked)
    assert {name: mode.word for name, mode in decision.modes.items() if name in due} == {
        name: mode.word for name, mode in due.items()
    }
    assert set(decision.modes) == set(request.asked)
    _says(case, decision)
    if "absent" in case:
        assert case["absent"] not in decision.modes


def _says(case: Mapping[str, Any], decision: Decision) -> None:
    if "witness" in case:
        assert {str(one.under) for one in decision.shown.values()} == {case["witness"]}
    if "outcome" in case:
        assert decision.outcome == case["outcome"]
    if "duties" in case:
        assert [duty.do for duty in decision.duties] == case["duties"]
    if "deletes" in case:
        assert [str(duty.within) for duty in decision.duties if duty.do == "DELETE"] == [case["deletes"]]
    if "warnings" in case:
        assert list(decision.warnings) == case["warnings"]
    if "unknown" in case:
        assert list(decision.unknown) == case["unknown"]
    assert decision.unconfirmed is case.get("unconfirmed", False)
    if case.get("expect") == "silent":
        assert decision.outcome is Outcome.SILENT
        assert not decision.shown and not decision.duties and not decision.warnings


@pytest.mark.parametrize("case", [one for one in DECIDED if "code" in one or "codes" in one], ids=_n)
def test_holder_and_ig_read_the_true_code(case: Mapping[str, Any]) -> None:
    world = table.world(case)
    decision = decide(world.snapshot, world.vocabulary, table.request(case), table.facts(case), world.at)
    view = explain_for_holder(world.snapshot, world.vocabulary, decision)
    if "code" in case:
        assert view.code == case["code"]
    for category, code in case.get("codes", {}).items():
        assert view.categories[f"health.{category}"].code == code
    if "near" in case:
        assert list(view.categories["health.not_brought"].near[0].failed) == case["near"]
    assert view.shielded is (case.get("shielded", False) or "SHIELDED" in case.get("codes", {}).values())


@pytest.mark.parametrize("case", [one for one in DECIDED if "asker" in one], ids=_n)
def test_the_asker_is_told_what_would_unlock_it(case: Mapping[str, Any]) -> None:
    world = table.world(case)
    reasons = explain_for_asker(
        world.snapshot, world.vocabulary, table.request(case), "northshire-icb", world.at, names={}, desks={}
    )
    assert case["asker"] in {reason.sentence for reason in reasons}


@pytest.mark.parametrize("evaluate", EVALUATORS, ids=["compiled", "literal"])
@pytest.mark.parametrize("case", REFUSED, ids=_n)
def test_a_request_that_cannot_be_decided_is_refused_by_name(
    case: Mapping[str, Any], evaluate: Callable[..., Decision]
) -> None:
    world = table.world(case)
    with pytest.raises(RequestRefused) as refused:
        evaluate(world.snapshot, world.vocabulary, table.request(case), table.facts(case), world.at)
    assert refused.value.code == case["refused"]
    assert refused.value.term in str(refused.value)


@pytest.mark.parametrize("case", [one for one in DECIDED if "lint" in one], ids=_n)
def test_what_loads_and_should_be_looked_at_is_found(case: Mapping[str, Any]) -> None:
    world = table.world(case)
    umbrella = next(one for one in world.documents if one.id == "northshire-tier1")
    assert isinstance(umbrella, Agreement)
    findings = check(world.texts["northshire-mash"], umbrellas=[umbrella])
    assert case["lint"] in {finding.path for finding in findings if finding.severity == "lint"}


@pytest.mark.parametrize("case", [one for one in DECIDED if one.get("shuffled")], ids=_n)
def test_order_and_repetition_of_agreements_leave_the_receipt_identical(case: Mapping[str, Any]) -> None:
    world, request, facts = table.world(case), table.request(case), table.facts(case)
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    receipts = []
    for documents in itertools.permutations(world.documents):
        snapshot = Snapshot.of([*documents, *documents], world.snapshot.signatures, world.snapshot.events)
        decision = decide(snapshot, VOCABULARY, request, facts, world.at)
        receipts.append(
            make_receipt(
                snapshot,
                VOCABULARY,
                request,
                [decision],
                source=facts.source,
                at=world.at,
                salt=bytes(32),
                kid="broker/1",
                key=key,
            )
        )
    assert all(receipt == receipts[0] for receipt in receipts)


@pytest.mark.parametrize("case", [one for one in DECIDED if one.get("equals_absence")], ids=_n)
def test_a_silent_record_leaves_the_askers_copy_as_if_there_were_none(case: Mapping[str, Any]) -> None:
    world, request, facts = table.world(case), table.request(case), table.facts(case)
    decision = decide(world.snapshot, world.vocabulary, request, facts, world.at)
    copies = [
        dict(
            make_receipt(
                world.snapshot,
                VOCABULARY,
                request,
                decisions,
                source=facts.source,
                at=world.at,
                salt=bytes(32),
                kid="broker/1",
                key=Ed25519PrivateKey.from_private_bytes(bytes(32)),
            ).asker.body
        )
        for decisions in ([decision], [])
    ]
    for body in copies:
        assert len(body.pop("commitment")) == 64
    assert copies[0] == copies[1]


def test_every_case_of_the_semantics_stands_in_the_table() -> None:
    numbers = {int("".join(letter for letter in case["n"] if letter.isdigit())) for case in table.CASES}
    assert numbers == set(range(1, 61))


def test_the_table_is_not_vacuous() -> None:
    shown = [case for case in DECIDED if case.get("expect") != "silent"]
    assert len(shown) >= 30


def test_the_rendered_rules_are_current() -> None:
    assert table.RULES.read_text(encoding="utf-8") == table.rules()


def test_a_mode_asked_above_the_ceiling_never_widens() -> None:
    case = table.CASES[0]
    world, request, facts = table.world(case), table.request(case), table.facts(case)
    low = replace(request, asked=dict.fromkeys(request.asked, Mode.STATUS))
    decision = decide(world.snapshot, world.vocabulary, low, facts, world.at)
    assert max(decision.modes.values()) is Mode.STATUS

"""Every acceptance scenario of policy, by both evaluators, on the agreements that the demonstration runs on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agreements import (
    VOCABULARY,
    Decision,
    Facts,
    Mode,
    RequestRefused,
    decide,
    explain_for_asker,
    explain_for_holder,
    make_receipt,
    reference,
)
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

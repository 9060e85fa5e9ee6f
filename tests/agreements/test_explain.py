"""What the asker and what the holder is told, on the demonstration's own agreements."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from agreements import (
    VOCABULARY,
    Agreement,
    Basis,
    Facts,
    Held,
    Link,
    Mode,
    Request,
    Signature,
    Snapshot,
    StatusEvent,
    Threshold,
    decide,
    explain_for_asker,
    explain_for_holder,
    read,
)

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "demo" / "agreements"
UMBRELLA = read((FOLDER / "northshire-tier1.toml").read_bytes())
assert isinstance(UMBRELLA, Agreement)
DOCUMENTS = [
    UMBRELLA,
    *(
        read((FOLDER / f"northshire-{name}.toml").read_bytes(), umbrellas=[UMBRELLA])
        for name in ("mash", "early-help", "planning")
    ),
]
SIGNED = [
    Signature(party, document.digest, f"{party}/1", datetime(2026, 3, 20, tzinfo=UTC))
    for document in DOCUMENTS
    if isinstance(document, Agreement)
    for party in document.parties
    if party != "northshire-family-hubs"
]
SNAPSHOT = Snapshot.of(DOCUMENTS, SIGNED)
AT = datetime(2026, 11, 22, 9, tzinfo=UTC)
NAMES = {"northshire-police": "Northshire Police", "northshire-icb": "NHS Northshire"}
DESKS = {"northshire-police": "the police desk", "northshire-icb": "the health desk"}
L4 = Threshold(level="L4", decided_by="MASH_DECISION_MAKER")


def a_request(role: str, purpose: str, gateway: str, **more: object) -> Request:
    values: dict[str, object] = {"organisation": "northshire-council", "asked": VOCABULARY.everything(purpose)} | more
    basis = Basis(art6="public_task", conditions=frozenset({"dpa18-sch1-18"}), gateways=frozenset({gateway}))
    return Request(**({"role": role, "purpose": purpose, "basis": basis, "case": "c1"} | values))  # type: ignore[arg-type]


def the_facts(source: str, **more: object) -> Facts:
    regime = "LE" if source == "northshire-police" else "GENERAL"
    held = {name: (Held(date(2026, 5, 1), regime),) for name in VOCABULARY.shareable}
    values = {"source": source, "record": "r", "relation": "subject_child", "case": "c1", "link": Link.CERTAIN}
    return Facts(**(values | {"held": held} | more))  # type: ignore[arg-type]


def told(request: Request, source: str, snapshot: Snapshot = SNAPSHOT) -> dict[str | None, tuple[str, str]]:
    reasons = explain_for_asker(snapshot, VOCABULARY, request, source, AT, names=NAMES, desks=DESKS)
    return {one.category: (one.code, one.sentence) for one in reasons}


def test_an_analyst_who_screens_sees_which_services_know_the_child_and_nothing_dated() -> None:
    request = a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11")
    for source, number in (("northshire-police", 4), ("northshire-icb", 6), ("northshire-council", 13)):
        decision = decide(SNAPSHOT, VOCABULARY, request, the_facts(source), AT)
        assert len(decision.shown) == number
        assert max(decision.modes.values()) is Mode.STATUS
        assert told(request, source) == {}


def test_an_analyst_who_asks_police_for_detail_is_told_who_can_change_the_threshold() -> None:
    request = a_request("MASH_ANALYST", "S47", "ca1989-s47")
    codes = told(request, "northshire-police")
    assert set(codes) == {name for name in VOCABULARY.shareable if name.startswith("police.")}
    assert set(codes.values()) == {
        (
            "THRESHOLD_NOT_MET",
            "Needs threshold L4 child protection, decided by a MASH decision-maker. Ask them to decide.",
        )
    }


def test_a_decision_maker_at_l4_gets_summaries_and_may_ask_police_about_custody() -> None:
    request = a_request("MASH_DECISION_MAKER", "S47", "ca1989-s47", threshold=L4)
    decision = decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-police"), AT)
    assert decision.mode("police.custody") is Mode.DETAIL
    assert decision.mode("police.domestic_abuse") is Mode.SUMMARY
    assert told(request, "northshire-police") == {}


def test_early_help_never_sees_police_or_child_protection() -> None:
    request = a_request("EH_COORDINATOR", "EARLY_HELP", "ca2004-s10")
    council = decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-council"), AT)
    assert council.mode("early_help.episode") is Mode.SUMMARY
    assert council.mode("social_care.child_in_need") is Mode.NONE
    assert not decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-police"), AT).shown


def test_family_hubs_wait_for_their_signature_and_the_others_do_not() -> None:
    basis = Basis(art6="recognised_legitimate_interest", conditions=frozenset({"dpa18-sch1-18"}))
    request = a_request(
        "EH_COORDINATOR", "EARLY_HELP", "ca2004-s10", organisation="northshire-family-hubs", basis=basis
    )
    assert told(request, "northshire-icb") == {
        None: ("DSA_UNSIGNED", "NHS Northshire's agreement is not fully signed yet. Ring the health desk.")
    }
    all_signed = [
        *SIGNED,
        *(replace(SIGNED[0], party="northshire-family-hubs", digest=document.digest) for document in DOCUMENTS),
    ]
    joined = Snapshot.of(DOCUMENTS, all_signed)
    assert decide(joined, VOCABULARY, request, the_facts("northshire-icb"), AT).shown


def test_a_pause_is_said_with_its_day() -> None:
    mash = DOCUMENTS[1]
    pause = StatusEvent(
        "northshire-police", mash.digest, "suspend", datetime(2026, 3, 7, tzinfo=UTC), "northshire-police/1"
    )
    planning = StatusEvent("northshire-police", DOCUMENTS[3].digest, "suspend", pause.at, pause.kid)
    paused = Snapshot.of(DOCUMENTS, SIGNED, [pause, planning])
    request = a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11")
    assert told(request, "northshire-police", paused) == {
        None: ("DSA_SUSPENDED", "Northshire Police has paused its sharing since 7 Mar 2026. Ring the police desk.")
    }
    assert told(request, "northshire-icb", paused) == {}


def paused_by_police(document: object) -> Snapshot:
    assert isinstance(document, Agreement)
    return Snapshot.of(
        DOCUMENTS,
        SIGNED,
        [
            StatusEvent(
                "northshire-police", document.digest, "suspend", datetime(2026, 3, 7, tzinfo=UTC), "northshire-police/1"
            )
        ],
    )


def test_a_paused_agreement_is_named_where_another_that_is_live_does_not_cover_the_request() -> None:
    """Planning stays live between the two, and is about none of what is asked."""
    request = a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11")
    sentence = "Northshire Police has paused its sharing since 7 Mar 2026. Ring the police desk."
    listed = told(request, "northshire-police", paused_by_police(DOCUMENTS[1]))
    assert set(listed) <= {name for name in VOCABULARY.shareable if name.startswith("police.")}
    assert listed["police.domestic_abuse"] == listed["police.missing_episode"] == ("DSA_SUSPENDED", sentence)
    assert {code for code, _ in listed.values()} <= {"DSA_SUSPENDED", "CATEGORY_NOT_IN_DSA", "PURPOSE_NOT_IN_DSA"}


def test_an_agreement_that_does_not_cover_the_request_is_not_named_when_it_is_paused() -> None:
    request = a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11")
    assert (
        told(request, "northshire-police", paused_by_police(DOCUMENTS[3])) == told(request, "northshire-police") == {}
    )
    unplanned = told(replace(request, purpose="S47"), "northshire-police", paused_by_police(DOCUMENTS[3]))
    assert "DSA_SUSPENDED" not in {code for code, _ in unplanned.values()}


@pytest.mark.parametrize("missing", ["signature", "term"])
def test_an_agreement_that_is_not_signed_or_has_ended_is_named_as_that(missing: str) -> None:
    mash = DOCUMENTS[1]
    assert isinstance(mash, Agreement)
    planning_stays = [
        one for one in SIGNED if missing != "signature" or (one.party, one.digest) != ("northshire-police", mash.digest)
    ]
    left = StatusEvent("northshire-police", mash.digest, "withdraw", datetime(2026, 9, 30, 12, tzinfo=UTC), "k")
    snapshot = Snapshot.of(DOCUMENTS, planning_stays, [left] if missing == "term" else [])
    code, sentence = told(a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11"), "northshire-police", snapshot)[
        "police.domestic_abuse"
    ]
    expected = {
        "signature": ("DSA_UNSIGNED", "Northshire Police's agreement is not fully signed yet. Ring the police desk."),
        "term": ("DSA_EXPIRED", "The agreement ended on 30 Sep 2026. Ring the police desk."),
    }
    assert (code, sentence) == expected[missing]


def test_what_a_new_version_left_out_is_left_out_and_not_ended() -> None:
    text = (FOLDER / "northshire-mash.toml").read_text(encoding="utf-8")
    newer = text.replace('version = "3.0.0"', 'version = "3.1.0"').replace('"police.domestic_abuse", ', "")
    document = read(newer.encode(), umbrellas=[UMBRELLA])
    assert isinstance(document, Agreement) and document.ref == "northshire-mash@3.1.0"
    mash = DOCUMENTS[1]
    signed = [*SIGNED, *(replace(one, digest=document.digest) for one in SIGNED if one.digest == mash.digest)]
    left = [
        StatusEvent(party, mash.digest, "supersede", datetime(2026, 9, 30, 12, tzinfo=UTC), "k")
        for party in mash.parties
    ]
    snapshot = Snapshot.of([*DOCUMENTS, document], signed, left)
    listed = told(a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11"), "northshire-police", snapshot)
    assert listed["police.domestic_abuse"][0] == "CATEGORY_NOT_IN_DSA"


def test_the_holder_reads_that_it_was_paused() -> None:
    request = a_request("MASH_ANALYST", "MASH_SCREEN", "ca2004-s11")
    snapshot = paused_by_police(DOCUMENTS[1])
    decision = decide(snapshot, VOCABULARY, request, the_facts("northshire-police"), AT)
    assert explain_for_holder(snapshot, VOCABULARY, decision).code == "DSA_SUSPENDED"


def test_planning_gets_aggregates_alone() -> None:
    basis = Basis(art6="public_task", conditions=frozenset({"dpa18-sch1-4"}), gateways=frozenset({"ca2004-s10"}))
    request = a_request("SERVICE_PLANNER", "PLAN", "ca2004-s10", basis=basis, case=None)
    decision = decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-icb"), AT)
    assert {one.mode for one in decision.shown.values()} == {Mode.AGGREGATE}


def test_the_holder_reads_which_clause_which_limit_and_what_was_near() -> None:
    request = a_request("MASH_ANALYST", "S47", "ca1989-s47")
    decision = decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-police"), AT)
    view = explain_for_holder(SNAPSHOT, VOCABULARY, decision)
    custody = view.categories["police.custody"]
    assert custody.code == "THRESHOLD_NOT_MET"
    assert custody.near[0].failed == ("threshold", "role")
    assert "would need threshold L4 child protection" in custody.sentence
    assert view.consider_sharing and not view.shielded
    hidden = decide(SNAPSHOT, VOCABULARY, request, the_facts("northshire-police", tags=frozenset({"shield_full"})), AT)
    view = explain_for_holder(SNAPSHOT, VOCABULARY, hidden)
    assert (view.code, view.shielded, view.consider_sharing) == ("SHIELDED", True, False)


@pytest.mark.parametrize("source", ["northshire-police", "northshire-icb", "northshire-council"])
def test_a_shielded_address_hides_every_category_that_tells_a_place(source: str) -> None:
    request = a_request("MASH_DECISION_MAKER", "S47", "ca1989-s47", threshold=L4)
    decision = decide(SNAPSHOT, VOCABULARY, request, the_facts(source, tags=frozenset({"shield_address"})), AT)
    assert not any(VOCABULARY.categories[name].place for name in decision.shown)

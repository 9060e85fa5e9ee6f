"""The closed lists: whole, coherent, and as the domain's tables have them."""

from __future__ import annotations

import json

import pytest
import rfc8785

from agreements import VOCABULARY, Mode
from agreements.vocabulary import codes_for_agencies, of_lists, shipped

TABLE = {  # domain specification section 4: MASH, S47, CIN, EH, PLAN
    "ED1": "XSSSA", "ED2": "TSSTA", "ED3": "XSSTA", "ED4": "XTTTA", "ED5": "XDX--", "HE1": "XTTXA", "HE2": "XSX-A",
    "HE3": "XSSTA", "HE4": "TSSTA", "HE5": "XDD--", "HE7": "TTT-A", "PO1": "XSX-A", "PO2": "XSX-A", "PO3": "XSS-A",
    "PO4": "TSX--", "PO5": "-D---", "SC1": "TSSXA", "SC2": "TSSXA", "SC3": "TSS-A", "SC4": "TST-A", "SC5": "TTTT-",
    "EH1": "TSSSA", "HO1": "XSXXA", "HO2": "XSSTA",
}  # fmt: skip
SEALED = {"HE6", "PO6", "SC6", "HO3"}
LETTERS = dict(zip("-XTSDA", Mode, strict=True))
RESULTS = """NO_SESSION ROLE_NOT_PERMITTED TRAINING_LAPSED NO_CASE_REF PURPOSE_UNKNOWN PURPOSE_PROHIBITED PURPOSE_NOT_IN_DSA
THRESHOLD_NOT_MET THRESHOLD_UNAUTHORISED NO_DSA DSA_SUSPENDED DSA_EXPIRED DSA_UNSIGNED NO_DPIA NO_APD NO_BASIS
BASIS_INVALID_FOR_PARTY NO_NOTICE REGIME_MISMATCH CATEGORY_NOT_IN_DSA MODE_EXCEEDS RECIPIENT_NOT_NAMED LINK_UNCERTAIN
LINK_VETOED SHIELDED SEALED OUT_OF_RETENTION COHORT_EXCLUDED RATE_LIMIT POLICY_STALE LOG_UNAVAILABLE SELF_OR_FAMILY
SDC_SUPPRESSED CUSTODIAN_DECLINED"""
OURS = {"APPROVED_BY_ASKER"}  # separation of duties, which the specification asks for without a code
NEVER_SAY = ("score", "risk level", "flagged family", "no record", "troubled", "suspect", "denied", "invalid", "oops")


@pytest.mark.parametrize(("alias", "row"), TABLE.items())
def test_ceilings_are_those_of_the_domains_table(alias: str, row: str) -> None:
    (category,) = (one for one in VOCABULARY.categories.values() if one.alias == alias)
    purposes = ("MASH_SCREEN", "S47", "CIN_S17", "EARLY_HELP", "PLAN")
    assert [VOCABULARY.ceiling(purpose, category.name) for purpose in purposes] == [LETTERS[one] for one in row]
    assert VOCABULARY.ceiling("EMERGENCY", category.name) == VOCABULARY.ceiling("S47", category.name)


def test_every_row_of_the_table_is_a_category_and_the_sealed_ones_are_never_sent() -> None:
    assert {one.alias for one in VOCABULARY.categories.values()} == TABLE.keys() | SEALED
    assert {one.alias for one in VOCABULARY.categories.values() if one.never_ingest} == SEALED
    assert len(VOCABULARY.shareable) == 24


def test_a_groups_ceiling_is_the_lowest_of_its_members_and_identity_purposes_show_nothing() -> None:
    for name in VOCABULARY.shareable:
        for group in ("CHILD_PROTECTION", "SAFEGUARDING"):
            members = [one for one in VOCABULARY.down(group) if not VOCABULARY.purposes[one].group]
            assert VOCABULARY.ceiling(group, name) == min(VOCABULARY.ceiling(one, name) for one in members)
        assert VOCABULARY.ceiling("HEALTH_STATUS", name) <= Mode.STATUS
        assert {VOCABULARY.ceiling(one, name) for one in ("LINK_QA", "IG_AUDIT", "SUBJECT_RIGHTS")} == {Mode.NONE}


def test_groups_hold_the_purposes_that_the_semantics_name() -> None:
    assert VOCABULARY.down("CHILD_PROTECTION") == {"CHILD_PROTECTION", "S47", "EMERGENCY"}
    outside = {"PLAN", "EH_IDENTIFY", "LINK_QA", "IG_AUDIT", "SUBJECT_RIGHTS"}
    assert VOCABULARY.down("SAFEGUARDING") == VOCABULARY.purposes.keys() - outside


def test_every_result_code_has_both_sentences_and_none_says_a_forbidden_word() -> None:
    assert set(RESULTS.split()) | OURS == set(VOCABULARY.results)
    for result in VOCABULARY.results.values():
        assert result.asker and result.ig
        assert not any(word in result.asker.lower() for word in NEVER_SAY)
    hidden = {"SHIELDED", "SEALED", "LINK_VETOED", "COHORT_EXCLUDED", "OUT_OF_RETENTION"}
    assert {VOCABULARY.results[code].asker for code in hidden} == {"Nothing to show"}


def test_obligations_of_the_domain_are_duties() -> None:
    due = """NOTIFY_CUSTODIAN NOTIFY_IG REDACT EXPIRE_AT WATERMARK NO_ONWARD TELL_FAMILY_OR_RECORD_WHY SECOND_APPROVER
    VERIFY_IDENTITY RECORD_IN_CASE_FILE DELETE ASK_BEFORE_ONWARD"""
    assert set(due.split()) <= VOCABULARY.duties.keys()


@pytest.mark.parametrize(
    ("category", "system", "codes"),
    [
        ("education.attendance", "attendance_code", "/ \\ L K V P W B D C C1 C2 E I J1 M R S T Q Y1 Y7 G N O U X Z #"),
        ("education.sen", "sen_provision", "N E K"),
        ("health.developmental_review", "hv_review", "C1 C2 C3 C8i"),
        ("health.cp_is", "cp_is", "CPP LAC UCPP"),
        ("social_care.contact", "referral_source", "1A 1B 1C 1D 2A 2B 3A 3F 4 5A 5D 6 7 8 9 10"),
        ("social_care.child_in_need", "cin_need", "N1 N9 N0"),
        ("social_care.child_in_need", "cin_factor", "1A 10A 24A"),
        ("social_care.child_protection", "cp_category", "NEG PHY SAB EMO MUL"),
        ("social_care.looked_after", "legal_status", "C1 C2 D1 V2 V4 L1 L3 J1 J3"),
        ("social_care.looked_after", "placement", "H5 K1 K2 P1 P3 R1 R3 R5 S1 T0 T4 U1 U6 Z1"),
    ],
)
def test_the_codes_that_the_domain_names_are_listed(category: str, system: str, codes: str) -> None:
    assert set(codes.split()) <= VOCABULARY.categories[category].codes[system].keys()


def test_codes_that_tell_of_an_adoption_are_refused_by_every_encoder() -> None:
    codes = codes_for_agencies()
    assert set(codes["denied"]["placement"]) == {"A3", "A4", "A5", "A6"}
    assert codes["denied"]["legal_status"] == ["E1"]
    looked_after = codes["categories"]["social_care.looked_after"]
    assert not {"A3", "A4", "A5", "A6"} & set(looked_after["codes"]["placement"])
    assert not {"E11", "E12"} & set(looked_after["outcomes"]) and looked_after["outcome_system"] == "episode_ceased"
    in_need = codes["categories"]["social_care.child_in_need"]
    assert codes["denied"][in_need["outcome_system"]] == ["RC1"] and "RC1" not in in_need["outcomes"]
    assert codes["categories"]["health.sealed"]["never_ingest"] is True
    assert json.loads(rfc8785.dumps(codes)) == codes


def test_the_digest_is_of_the_lists_themselves() -> None:
    assert of_lists(shipped()).digest == VOCABULARY.digest
    assert len(VOCABULARY.digest) == 64


def test_everything_a_purpose_could_show_is_asked_at_its_ceiling() -> None:
    asked = VOCABULARY.everything("MASH_SCREEN")
    assert asked["police.domestic_abuse"] is Mode.EXISTENCE and "police.custody" not in asked
    assert set(VOCABULARY.everything("PLAN").values()) == {Mode.AGGREGATE}

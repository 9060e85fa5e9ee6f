"""Plain English, Article 30 records, the DfE's rule shape, JSON Schemas: what leaves says what was signed."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agreements import VOCABULARY, Agreement, DocumentRefused, Mode, check, from_canonical, json_schema, read
from agreements.agreement import Restriction, london_day, london_midnight
from agreements.assurance import gaps
from agreements.export import article30, prose
from agreements.export.dfe import dfe
from agreements.export.dfe_draft import RuleRefused, draft
from agreements.vocabulary import RECORD
from tests.spec import table

DEMO = Path(__file__).parents[2] / "deploy" / "demo" / "agreements"
SPEC = Path(table.__file__).parent
TEXTS = {path.stem: path.read_bytes() for folder in (DEMO, SPEC) for path in sorted(folder.glob("northshire-*.toml"))}


def loaded(folder: Path, name: str) -> Agreement:
    umbrella = read((folder / "northshire-tier1.toml").read_bytes())
    assert isinstance(umbrella, Agreement)
    document = umbrella if name == umbrella.id else read((folder / f"{name}.toml").read_bytes(), umbrellas=[umbrella])
    assert isinstance(document, Agreement)
    return document


MASH = loaded(DEMO, "northshire-mash")
TIER1 = loaded(DEMO, "northshire-tier1")


# --- plain English ---------------------------------------------------------------------------------------------------


def test_a_schedule_says_every_clause_limit_and_duty_in_the_words_that_were_signed() -> None:
    text = _flat(prose.text(prose.schedule(MASH, VOCABULARY, umbrella=TIER1)))
    for grant in MASH.grants:
        assert grant.text in text
        for duty in grant.duties:
            assert VOCABULARY.duties[duty.do].label.removesuffix(".") in text
        for name in grant.modes:
            assert VOCABULARY.categories[name].label in text
    for limit in (*MASH.limits, *TIER1.limits):
        assert limit.text in text
    assert all(party in text for party in MASH.parties)
    assert MASH.digest in text


def test_a_schedule_says_when_it_ends_is_reviewed_and_what_is_never_shown() -> None:
    text = _flat(prose.text(prose.schedule(MASH, VOCABULARY, umbrella=TIER1)))
    assert "1 April 2026 to the end of 31 March 2028, London time" in text
    assert "by 31 March 2027; if it is overdue, each answer carries a warning" in text
    assert "no name, address or identifier in clear" in text
    assert all(term.label in text for term in VOCABULARY.prohibited.values())
    for rule in VOCABULARY.baseline:
        assert rule.text in text


def test_a_clause_says_who_for_what_under_which_basis_and_only_if() -> None:
    parts = {part.heading: part for part in prose.schedule(MASH, VOCABULARY, umbrella=TIER1)}
    facts = dict(parts["Clause police-s47"].facts)
    assert facts["From"] == "northshire-police"
    assert facts["To"].startswith("MASH decision-maker or social worker at")
    assert "that includes Immediate danger and Section 47 enquiry" in facts["For"]
    assert facts["Lawful basis"] == "public task, Article 6(1)(e)"
    assert facts["Law-enforcement data"] == (
        "may leave that regime under Children Act 1989 s.47 or Children Act 2004 s.11"
    )
    assert "L4 child protection is recorded by a MASH decision-maker" in facts["Only if"]
    assert "the record is surely about this person" in facts["Only if"]
    assert "within 28 days after the case is closed" in facts["Duties"]
    emergency = dict(parts["Clause emergency"].facts)
    assert "ends after 60 minutes" in emergency["Emergency"]


def test_what_is_signed_and_never_evaluated_is_listed_as_it_was_written() -> None:
    text = _flat(prose.text(prose.described(MASH)))
    body = MASH.body
    assert all(str(value) in text for value in body["retention"].values())
    assert all(row["statute"] in text for row in body["legal"])
    assert all(row["what"] in text for row in body["change_log"])


@pytest.mark.parametrize(
    "name", ["northshire-mash", "northshire-tier1", "northshire-planning", "northshire-early-help"]
)
def test_nothing_that_is_signed_is_left_out_of_the_pages(name: str) -> None:
    document = loaded(DEMO, name)
    text = _flat(prose.text(prose.schedule(document, VOCABULARY) + prose.described(document)))
    descriptive = {key: value for key, value in document.body.items() if key not in ("limits", "grants", "period")}
    for value in _leaves(descriptive):
        assert str(value) in text, value


def test_an_umbrella_and_a_restriction_have_schedules_as_well() -> None:
    assert "it shows nothing itself" in prose.text(prose.schedule(TIER1, VOCABULARY))
    rule = read((SPEC / "northshire-icb-r12.toml").read_bytes())
    assert isinstance(rule, Restriction)
    text = _flat(prose.text(prose.schedule(rule, VOCABULARY)))
    assert rule.text in text and "shown at status at most" in text and rule.digest in text


def test_the_same_document_always_gives_the_same_words() -> None:
    again = loaded(DEMO, "northshire-mash")
    assert prose.schedule(again, VOCABULARY, umbrella=TIER1) == prose.schedule(MASH, VOCABULARY, umbrella=TIER1)
    assert all(len(line) <= prose.WIDTH for line in prose.text(prose.schedule(MASH, VOCABULARY)).splitlines())


# --- Article 30 ------------------------------------------------------------------------------------------------------


def test_each_controller_has_an_entry_for_what_it_discloses_and_one_for_what_it_receives() -> None:
    record = article30.entries([MASH], VOCABULARY)
    assert {(one.controller, one.activity.rpartition(": ")[2]) for one in record} == {
        (party, direction) for party in MASH.parties for direction in ("discloses", "receives")
    }
    (police,) = (one for one in record if one.controller == "northshire-police" and one.activity.endswith("discloses"))
    assert all("(police)" in one for one in police.personal_data)
    assert "Domestic abuse incident (police)" in police.criminal_offence_data
    assert any(one.startswith("northshire-council: ") for one in police.recipients)
    assert police.transfers.startswith("none")
    assert "a carer" in police.data_subjects
    assert any("28 days" in one for one in police.time_limits)
    assert (police.impact_assessment, police.agreement) == ("DPIA-2026-014", MASH.ref)
    assert police.data_protection_officer == article30.UNSAID  # nothing is made up


def test_what_an_agreement_does_not_say_of_its_parties_is_as_its_umbrella_has_it() -> None:
    for record in (
        article30.entries([TIER1, MASH], VOCABULARY),
        article30.entries([MASH], VOCABULARY, umbrellas=[TIER1]),
    ):
        (police,) = (one for one in record if one.controller.endswith("Police") and one.activity.endswith("discloses"))
        assert police.data_protection_officer == "Data Protection Officer"
        assert police.joint_controllers == ("Northshire Council", "NHS Northshire Integrated Care Board")
        assert any(one.startswith("7.1 Data Security and Protection Toolkit") for one in police.security)
        assert {one.agreement for one in record} == {MASH.ref}


def test_a_record_is_json_a_spreadsheet_without_formulas_and_a_page() -> None:
    record = article30.entries([MASH], VOCABULARY)
    rows = list(csv.DictReader(io.StringIO(article30.as_csv(record))))
    assert len(rows) == len(record) == len(article30.as_json(record))
    assert rows[0]["agreement"] == MASH.ref
    assert not any(cell[:1] in ("=", "+", "-", "@") for row in rows for cell in row.values())
    assert article30.as_markdown(record).count("\n## ") == len(record)
    assert article30.entries([MASH], VOCABULARY, "northshire-icb") == tuple(
        one for one in record if one.controller == "northshire-icb"
    )


def test_what_was_written_stays_text_on_a_page_of_a_record() -> None:
    title = "Hub <script>alert(1)</script> [here](javascript:x) | *all* `code` & more"
    body = MASH.body | {"title": title, "assurance": MASH.body["assurance"] | {"dpia": "<img src=x onerror=y> | z"}}
    page = article30.as_markdown(
        article30.entries([replace(MASH, title=title, canonical=json.dumps(body).encode())], VOCABULARY)
    )
    assert "<" not in page and "](" not in page.replace("\\](", "") and "`" not in page.replace("\\`", "")
    assert "Hub &lt;script&gt;alert(1)&lt;/script&gt; \\[here\\](javascript:x) \\| \\*all\\*" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(re.sub(r"\\.", "", line).count("|") == 3 for line in rows)


# --- the DfE's shape -------------------------------------------------------------------------------------------------


def test_a_dfe_policy_never_says_content_where_less_than_detail_was_granted() -> None:
    policies = dfe([TIER1, MASH], VOCABULARY)
    assert [one["orgId"] for one in policies] == sorted(MASH.parties)
    for policy in policies:
        for rule in policy["defaults"]:
            clause = MASH.grant(rule["reason"].partition("#")[2].partition(":")[0])
            detail = {name for name, mode in clause.modes.items() if mode is Mode.DETAIL}
            assert ("CONTENT" in rule["modes"]) is (set(rule["recordTypes"]) <= detail)
            assert rule["effect"] == "allow" and policy["orgId"] not in rule["destOrgIds"]
            sectors = MASH.parties[policy["orgId"]].discloses
            assert all(name == RECORD or VOCABULARY.categories[name].sector in sectors for name in rule["recordTypes"])
            assert any(one.startswith("roles: ") for one in rule["notLimitedBy"])
        assert all(rule["effect"] == "deny" for rule in policy["exceptions"])


def test_a_dfe_policy_ends_with_the_last_instant_and_names_flat_purposes() -> None:
    (rule, *_) = dfe([MASH], VOCABULARY)[0]["defaults"]
    assert (rule["validFrom"], rule["validUntil"]) == ("2026-03-31T23:00:00.000Z", "2028-03-31T22:59:59.999Z")
    assert not any(VOCABULARY.purposes[code].group for code in rule["purposes"])


def test_a_dfe_policy_allows_nothing_under_a_statute_before_it_is_in_force_and_names_what_it_rests_on() -> None:
    basis = replace(MASH.grants[0].basis, gateways=frozenset({"ca2004-s16la"}))
    waiting = replace(MASH, grants=(replace(MASH.grants[0], basis=basis),))
    assert not any(policy["defaults"] for policy in dfe([waiting], table.commencing(None)))
    day = london_day(MASH.period.start) + timedelta(days=9)
    rules = [rule for policy in dfe([waiting], table.commencing(day.isoformat())) for rule in policy["defaults"]]
    assert rules
    for rule in rules:
        assert datetime.fromisoformat(rule["validFrom"]) == london_midnight(day)
        assert "statutes: ca2004-s16la" in rule["notLimitedBy"]


def test_the_article_30_record_says_of_a_statute_from_when_it_counts() -> None:
    basis = replace(MASH.grants[0].basis, gateways=frozenset({"ca2004-s16la"}))
    waiting = replace(MASH, grants=(replace(MASH.grants[0], basis=basis),))
    for day, said in ((None, "(once it is in force: its day is not set yet)"), ("2027-04-01", "(from 1 April 2027)")):
        for entry in article30.entries([waiting], table.commencing(day)):
            assert [one.endswith(said) for one in entry.statutes] == [True]


def test_an_emergency_clause_and_statistics_have_no_place_in_the_dfe_shape() -> None:
    reasons = [rule["reason"] for policy in dfe([MASH], VOCABULARY) for rule in policy["defaults"]]
    assert reasons and not any("#emergency:" in reason for reason in reasons)
    assert not any(policy["defaults"] for policy in dfe([loaded(DEMO, "northshire-planning")], VOCABULARY))


def test_a_policy_begins_an_agreement_that_loads_only_once_somebody_has_written_the_rest() -> None:
    (policy,) = (one for one in dfe([MASH], VOCABULARY) if one["orgId"] == "northshire-icb")
    text = draft(policy, VOCABULARY, name="from-rules")
    findings = check(text)
    assert {finding.path.partition(".")[0].partition("[")[0] for finding in findings} >= {"title", "parties", "grants"}
    agreement = read(table.text_of(_completed(tomllib.loads(text))))
    assert isinstance(agreement, Agreement)
    assert not [gap for gap in gaps(agreement, VOCABULARY, on=date(2026, 4, 1)) if gap.code == "NO_LEGAL_ROW"]
    assert (agreement.period, set(agreement.parties)) == (MASH.period, set(MASH.parties))
    for grant in agreement.grants:
        theirs = MASH.grant(grant.text.partition("#")[2].partition(":")[0])
        assert grant.purposes == frozenset(
            code for one in theirs.purposes for code in VOCABULARY.down(one) if not VOCABULARY.purposes[code].group
        )
        assert all(mode <= theirs.modes[name] for name, mode in grant.modes.items())
        assert (grant.sources, grant.organisations) == ({"northshire-icb"}, theirs.organisations - {"northshire-icb"})
    assert {limit.at_most for limit in agreement.limits} <= {Mode.NONE, Mode.EXISTENCE}


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "effective", "expires"),
    [
        ("2026-03-31T23:00:00Z", "2027-03-31T22:59:59.999Z", date(2026, 4, 1), date(2027, 3, 31)),
        ("2026-04-01T09:00:00Z", "2027-03-31T12:00:00Z", date(2026, 4, 2), date(2027, 3, 30)),
    ],
)
def test_a_draft_counts_only_days_that_a_rule_covers_whole(
    valid_from: str, valid_until: str, effective: date, expires: date
) -> None:
    body = tomllib.loads(draft(_policy(validFrom=valid_from, validUntil=valid_until), VOCABULARY, name="a"))
    assert body["period"] == {"effective": effective, "expires": expires}


@pytest.mark.parametrize(
    ("changed", "place", "fix"),
    [
        ({"recordTypes": ["crime-justice.details"]}, "recordTypes", "one of"),
        ({"recordTypes": ["health.not-brought"]}, "recordTypes", "write health.not_brought"),
        ({"recordTypes": []}, "recordTypes", "name at least one"),
        ({"recordTypes": ["record"], "modes": ["EXISTENCE", "CONTENT"]}, "recordTypes", "EXISTENCE alone"),
        ({"purposes": ["IMMIGRATION"]}, "purposes", "one of"),
        ({"purposes": []}, "purposes", "name at least one"),
        ({"destOrgIds": []}, "destOrgIds", "name each organisation"),
        ({"destOrgTypes": ["POLICE"]}, "destOrgTypes", "name each organisation"),
        ({"destOrgIds": ["icb"]}, "destOrgIds", "take it out"),
        ({"effect": "deny"}, "effect", 'write "allow"'),
        ({"validUntil": None}, "validUntil", "write what is due"),
        ({"modes": None}, "modes", "write what is due"),
        ({"modes": ["EXISTENCE", "METADATA"]}, "modes[1]", '"CONTENT"'),
        ({"modes": []}, "modes", "name at least one"),
        ({"modes": ["CONTENT"]}, "modes", "EXISTENCE"),
        ({"validFrom": "2026-04-01T00:00:00"}, "validFrom", "offset"),
        ({"validFrom": "2028-04-01T00:00:00Z"}, "validUntil", "after validFrom"),
        ({"conditions": ["daytime"]}, "<unknown key>", "the keys here are"),
        ({"purpose": ["S47"]}, "<unknown key>", "write purposes, if that is meant"),
        ({"reason": "a\u202eb"}, "reason", "plain letters"),
    ],
)
def test_a_rule_that_can_not_become_a_clause_is_refused_with_its_place_and_what_to_write(
    changed: dict[str, Any], place: str, fix: str
) -> None:
    with pytest.raises(RuleRefused) as refused:
        draft(_policy(**changed), VOCABULARY, name="a")
    assert [(one.path, fix in one.fix) for one in refused.value.findings] == [(f"defaults[0].{place}", True)]


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"modes": ["READ"]}, "modes[0]"),  # as existence it would let all the content through
        ({"modes": []}, "modes"),
        ({"effect": "allow"}, "effect"),
        ({"destOrgTypes": ["CHARITY"]}, "destOrgTypes"),
        ({"recordTypes": ["health.details"]}, "recordTypes"),
        ({"unless": "case"}, "<unknown key>"),
        ({"validFrom": "today"}, "validFrom"),
    ],
)
def test_an_exception_with_a_word_nobody_knows_is_refused_and_not_weakened(changed: dict[str, Any], place: str) -> None:
    policy = _policy()
    policy["exceptions"] = [policy["defaults"][0] | {"effect": "deny"} | changed]
    with pytest.raises(RuleRefused) as refused:
        draft(policy, VOCABULARY, name="a")
    assert [one.path for one in refused.value.findings] == [f"exceptions[0].{place}"]


def test_a_policy_with_a_key_nobody_knows_or_rules_that_never_meet_is_refused() -> None:
    with pytest.raises(RuleRefused, match="<unknown key>: no such key is read here; the keys here are"):
        draft(_policy() | {"precedence": "defaults"}, VOCABULARY, name="a")
    with pytest.raises(RuleRefused, match="defaults: it is empty"):
        draft(_policy() | {"defaults": []}, VOCABULARY, name="a")
    later = _policy(validFrom="2027-04-01T00:00:00Z", validUntil="2028-04-01T00:00:00Z")["defaults"]
    with pytest.raises(RuleRefused, match="no whole day"):
        draft(_policy() | {"defaults": [*_policy()["defaults"], *later]}, VOCABULARY, name="a")


def test_what_a_rule_could_not_say_stands_beside_its_clause_for_whoever_writes_the_rest() -> None:
    (policy,) = (one for one in dfe([MASH], VOCABULARY) if one["orgId"] == "northshire-icb")
    text = draft(policy, VOCABULARY, name="from-rules")
    assert "# The rule does not say, and was meant: threshold: L4" in text.splitlines()


def _policy(**changed: object) -> dict[str, Any]:
    rule = {
        "effect": "allow",
        "modes": ["EXISTENCE"],
        "recordTypes": ["health.not_brought"],
        "destOrgTypes": [],
        "destOrgIds": ["council"],
        "purposes": ["S47"],
        "validFrom": "2026-03-31T23:00:00Z",
        "validUntil": "2027-03-31T22:59:59.999Z",
    }
    return {"orgId": "icb", "defaults": [rule | changed], "exceptions": []}


def _completed(body: dict[str, Any]) -> dict[str, Any]:
    """What a person writes into a draft."""
    body |= {"title": "Completed", "assurance": {"dpia": "D-1", "apd": "A-1", "notice": "N-1"}}
    body["period"] |= {"review_by": date(2027, 3, 31), "if_review_overdue": "warn"}
    for party in body["parties"]:
        party["signs_as"] = "Caldicott Guardian"
    for grant in body["grants"]:
        grant["to"]["roles"], grant["about"] = ["SOCIAL_WORKER"], ["subject_child"]
        grant["basis"] = {"art6": ["public_task"], "condition": ["dpa18-sch1-18"]}
    for row in body["legal"]:
        row |= {"art6": "6(1)(e) public task", "statute": "Children Act 1989 s.47"}
    return body


# --- JSON Schemas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_the_schema_takes_every_document_of_the_demo_and_the_spec(name: str) -> None:
    body = _as_json(tomllib.loads(TEXTS[name].decode()))
    jsonschema.Draft202012Validator(json_schema()[body["kind"]]).validate(body)


STRUCTURAL = {
    "an unknown key": lambda body: body.update(owner_name="x"),
    "an unknown key in a clause": lambda body: body["grants"][0].update(when="always"),
    "a missing title": lambda body: body.pop("title"),
    "a version that is a number": lambda body: body.update(version=3.0),
    "a version of two parts": lambda body: body.update(version="3.0"),
    "one party": lambda body: body.update(parties=body["parties"][:1]),
    "a mode nobody knows": lambda body: body["limits"][0].update(at_most="some"),
    "a truth for a mode": lambda body: body["limits"][0].update(at_most=False),
    "an emergency without a reason": lambda body: body["grants"][3]["break_glass"].update(reason="optional"),
    "a duration of two units": lambda body: body["grants"][0]["given"].update(recorded_within="P1Y6M"),
    "a truth that is a word": lambda body: body["parties"][0].update(public_authority="yes"),
    "nothing for a text": lambda body: body.update(owner=None),
    "nothing for a table": lambda body: body["grants"][0].update(break_glass=None),
    "an empty list": lambda body: body["grants"][0].update({"from": []}),
    "format 2": lambda body: body.update(format=2),
}


@pytest.mark.parametrize("what", STRUCTURAL)
def test_the_schema_refuses_what_the_loader_refuses_for_its_structure(what: str) -> None:
    body = tomllib.loads(TEXTS_OF_SPEC)
    STRUCTURAL[what](body)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()["agreement"]).validate(_as_json(body))
    if what.startswith("nothing"):  # TOML has no word for it
        with pytest.raises(DocumentRefused, match="there is nothing there"):
            from_canonical(json.dumps(_as_json(body)).encode(), umbrellas=[loaded(SPEC, "northshire-tier1")])
        return
    with pytest.raises(DocumentRefused):
        read(table.text_of(body), umbrellas=[loaded(SPEC, "northshire-tier1")])


TEXTS_OF_SPEC = (SPEC / "northshire-mash.toml").read_text("utf-8")


def _as_json(value: Any) -> Any:
    """As an editor hands it to a validator: days are text."""
    if isinstance(value, Mapping):
        return {key: _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    return json.loads(json.dumps(value, default=lambda day: day.isoformat() if isinstance(day, date) else str(day)))


def _flat(text: str) -> str:
    """Lines joined again, as they were before wrapping."""
    return " ".join(text.split())


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() if key not in ("format", "kind") for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value] if isinstance(value, str) else []

"""Every word of a document is a term of a closed list, a reference, or prose; an unknown term is refused everywhere."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from agreements import (
    VOCABULARY,
    Agreement,
    BreakGlass,
    DocumentRefused,
    Facts,
    Held,
    RequestRefused,
    Snapshot,
    Threshold,
    check,
    decide,
    read,
    reference,
)
from agreements.agreement import Duration, InvalidAgreement, Period
from agreements.decision import view
from agreements.document.declared import declared_tables
from agreements.document.parsing import UNKNOWN
from agreements.document.text import AgreementText, RestrictionText
from agreements.export.dfe_draft import RuleRefused, draft
from agreements.statistics import shipped
from agreements.vocabulary import of_lists
from agreements.vocabulary import shipped as lists
from tests.agreements.worlds import AT, EARLY, World, world
from tests.spec import table

SPEC = Path(__file__).resolve().parents[1] / "spec"
UMBRELLA = read((SPEC / "northshire-tier1.toml").read_bytes())
assert isinstance(UMBRELLA, Agreement)
FULL: dict[str, Any] = tomllib.loads((SPEC / "northshire-mash.toml").read_text("utf-8")) | {
    "purposes": [{"code": "S47", "necessity": "It is needed."}],
    "legal": [
        {"purpose": "S47", "party": "northshire-icb", "categories": ["health.cp_is"], "regime": "GENERAL",
         "art6": "6(1)(e)", "statute": "CA 1989"},
    ],
    "flows": [
        {"source": "northshire-icb", "categories": ["health.cp_is"], "frequency": "nightly", "channel": "batch",
         "destination": ["northshire-la"], "modes": ["status"], "lookback": "P2Y"},
    ],
    "statistics": {"tables": ["attendance-by-age"]},
    "change_log": [{"version": "3.0.0", "on": date(2026, 2, 1), "what": "First"}],
}  # fmt: skip
FULL["limits"][0]["for"] = ["S47"]
FULL["grants"][0]["but_not_for"] = ["EMERGENCY"]
FULL["grants"][2]["disclose"] = {"summary": ["police.missing_episode"], "detail": ["police.custody"]}
RULE: dict[str, Any] = tomllib.loads((SPEC / "northshire-icb-r12.toml").read_text("utf-8")) | {
    "when": {"tag": "deceased"}
}

SHORT = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 10

TERMS = {
    "kind", "vocabulary", "under", "period.if_review_overdue", "parties.discloses", "parties.role",
    "limits.when.tag", "limits.for", "limits.categories", "limits.at_most", "limits.lift",
    "grants.from", "grants.to.orgs", "grants.to.roles", "grants.for", "grants.but_not_for", "grants.basis.art6",
    "grants.basis.condition", "grants.basis.gateway", "grants.basis.le_authority", "grants.about",
    "grants.given.threshold", "grants.given.link", "grants.break_glass.reason", "grants.break_glass.notify",
    "grants.disclose.existence", "grants.disclose.status", "grants.disclose.summary", "grants.disclose.detail",
    "grants.disclose.aggregate", "grants.duties.do", "grants.duties.after", "purposes.code", "legal.purpose",
    "legal.party", "legal.categories", "legal.regime", "flows.source", "flows.categories", "flows.destination",
    "flows.modes", "statistics.tables",
    "authority", "when.tag", "for", "categories", "at_most", "lift",
}  # fmt: skip
"""Words of a closed list, of the parties, or a document at hand: refused if unknown."""

REFERENCES = {
    "id", "version", "parties.id", "limits.id", "grants.id", "owner", "subject.record_ref", "change_log.version",
    "assurance.dpia", "assurance.apd", "assurance.notice", "assurance.eqia", "parties.ods", "parties.urn",
    "parties.force", "parties.la_code", "parties.ico_reg_no", "legal.apd_ref", "transparency.notice",
    "transparency.child_friendly",
}  # fmt: skip
"""Names that others give: of this document, of papers, of registers, of a record."""

SPANS = {"grants.given.recorded_within", "grants.break_glass.ends_after", "grants.duties.within", "flows.lookback"}


def texts(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """The path of every field that holds text."""
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        inner = _model(field.annotation)
        if inner is not None:
            yield from texts(inner, f"{path}.")
        elif _texts_in(field.annotation):
            yield path


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model(part))), None)


def _texts_in(annotation: Any) -> bool:
    return annotation is str or isinstance(annotation, str) or any(map(_texts_in, get_args(annotation)))


def test_every_text_of_the_grammar_is_a_term_a_reference_a_length_of_time_or_prose() -> None:
    every = {*texts(AgreementText), *texts(RestrictionText)}
    assert every >= TERMS | REFERENCES | SPANS
    prose = every - TERMS - REFERENCES - SPANS
    groups = ("population.", "recipients.", "linkage.", "obligations.", "retention.", "security.", "rights.",
              "breach.", "termination.")  # fmt: skip
    assert {one for one in prose if not one.startswith(groups)} == {
        "title", "text", "disputes", "liability", "foi", "limits.text", "grants.text", "assurance.audit_cadence",
        "assurance.sampling", "parties.signs_as", "parties.legal_entity", "parties.dpo", "parties.caldicott_guardian",
        "parties.siro", "parties.operational_lead", "parties.breach_contact_24h", "parties.signatory.post",
        "parties.signatory.method", "purposes.necessity", "purposes.benefits", "purposes.proportionality",
        "purposes.alternatives_considered", "legal.art6", "legal.statute", "legal.art9", "legal.sch1_para",
        "legal.art10", "legal.s36_4_authority", "legal.confidence_limb", "flows.frequency", "flows.channel",
        "flows.format", "flows.trigger", "change_log.what",
    }  # fmt: skip


def spoilt(body: dict[str, Any], path: str) -> bool:
    """Put a word that no list holds where a term stands, or may; False if there is no such place."""
    model = AgreementText if body["kind"] == "agreement" else RestrictionText
    if path.partition(".")[0] not in {field.alias or name for name, field in model.model_fields.items()}:
        return False
    *steps, last = path.split(".")
    tables = [body]
    for step in steps:
        found = [one[step] for one in tables if step in one]
        tables = [inner for one in found for inner in (one if isinstance(one, list) else [one])]
    if not tables:
        return False
    there = next((one for one in tables if last in one), tables[0])
    several = isinstance(there[last], list) if last in there else last in ("aggregate", "for")
    there[last] = ["no-such-term"] if several else "no-such-term"
    return True


@pytest.mark.parametrize("path", sorted(TERMS))
def test_an_unknown_term_is_refused_wherever_a_term_may_stand(path: str) -> None:
    tried = 0
    for good in (FULL, RULE):
        body = copy.deepcopy(good)
        if not spoilt(body, path):
            continue
        tried += 1
        found = check(table.text_of(body), umbrellas=[UMBRELLA])  # type: ignore[list-item]
        last = path.rpartition(".")[2]
        assert any(one.severity == "refused" and last in one.path for one in found), found
        assert not any(one.path.endswith(UNKNOWN) for one in found), found
    assert tried, "no document has one to spoil"


def test_the_full_document_loads() -> None:
    for body in (FULL, RULE):
        found = check(table.text_of(body), umbrellas=[UMBRELLA])  # type: ignore[list-item]
        assert not [one for one in found if one.severity == "refused"], found


def test_the_tables_that_may_be_named_are_those_of_the_catalogue() -> None:
    assert declared_tables() == {one.id for one in shipped().asked()}


def test_a_document_of_the_earliest_lists_is_read_by_those_lists() -> None:
    earliest = {name: body for name, body in lists().items() if name not in ("occasions", "notified")}
    old = of_lists(earliest)
    umbrella = read((SPEC / "northshire-tier1.toml").read_bytes(), vocabulary=old)
    body = copy.deepcopy(FULL)
    body["grants"][3]["break_glass"]["notify"] = ["whom-they-had-then"]
    assert read(table.text_of(body), umbrellas=[umbrella], vocabulary=old)  # type: ignore[list-item]


# --- facts: a word that no list holds is refused, as in a request ------------------------------------------------------


def told(w: World, facts: Facts) -> list[str]:
    """The refusals of both evaluators."""
    codes = []
    for evaluate in (decide, reference.decide):
        with pytest.raises(RequestRefused) as refused:
            evaluate(w.snapshot, VOCABULARY, w.request, facts, w.at)
        codes.append(f"{refused.value.code} {refused.value.term}")
    return codes


def test_a_word_that_no_list_holds_among_the_facts_is_refused_by_both_evaluators_in_every_world() -> None:
    seen = 0
    for seed in range(1000 // SHORT):
        w = world(seed)
        decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)  # what is remembered of good facts vouches for no bad
        wrong: Mapping[str, Facts] = {
            "sheild_full": replace(w.facts, tags=w.facts.tags | {"sheild_full"}),
            "sheild_address": replace(w.facts, tags_unknown=w.facts.tags_unknown | {"sheild_address"}),
            "cousin": replace(w.facts, relation="cousin"),
            "health.shoe_size": replace(w.facts, held={**w.facts.held, "health.shoe_size": (Held(date(2026, 5, 1)),)}),
        }
        for term, facts in wrong.items():
            one, other = told(w, facts)
            assert one == other and term in one
            try:
                assert not view(w.snapshot, VOCABULARY, w.request, [facts], w.at)[0]
            except RequestRefused as refused:
                assert term in str(refused)
                seen += 1
    assert seen >= 1000 // SHORT
    with pytest.raises(RequestRefused, match="REGIME"):
        Held(date(2026, 5, 1), "LAW")


# --- totality: whatever loads is decided on, whenever ------------------------------------------------------------------


SPANNING = ("P1D", "P9999D", "P1M", "P1800M", "P9999M", "P1Y", "P150Y", "P151Y", "P9999Y", "PT60M")
DAYS = (
    date(1, 1, 1), date(1989, 12, 31), date(1990, 1, 1), date(2026, 4, 1), date(2027, 3, 31), date(2199, 12, 31),
    date(2200, 1, 1), date(9999, 12, 30), date(9999, 12, 31),
)  # fmt: skip


def test_no_document_that_loads_makes_an_evaluator_raise() -> None:
    draw, loaded, shown = Random(1), 0, 0
    good = table.request(table.CASES[0])
    for _ in range(2400 // SHORT):
        body, rule = copy.deepcopy(FULL), copy.deepcopy(RULE)
        for period in (body["period"], rule["period"]):
            for name in period.keys() & {"effective", "expires", "review_by"}:
                if draw.random() < 0.3:
                    period[name] = draw.choice(DAYS)
        for grant in body["grants"]:
            if draw.random() < 0.5:
                grant.setdefault("given", {})["recorded_within"] = draw.choice(SPANNING)
            if draw.random() < 0.2:
                grant["duties"] = [{"do": "DELETE", "after": "case_closed", "within": draw.choice(SPANNING)}]
        documents = []
        for one in (body, rule):
            try:
                documents.append(read(table.text_of(one), umbrellas=[UMBRELLA]))  # type: ignore[list-item]
            except DocumentRefused:
                continue
        if not documents:
            continue
        loaded += 1
        signed = [*documents, UMBRELLA]
        signatures = [
            replace(world(0).signatures[0], party=party, digest=one.digest, signed_at=EARLY)
            for one in signed
            for party in (one.parties if isinstance(one, Agreement) else (one.owner,))
        ]
        snapshot = Snapshot.of(signed, signatures)
        for at in (
            AT, AT.replace(year=1990, month=1, day=1, hour=0), datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            *(one.period.end - timedelta(microseconds=1) for one in documents),
        ):  # fmt: skip
            request = draw.choice((good, replace(good, break_glass=BreakGlass(reason="MISSING_NOW", started=at))))
            facts = replace(
                table.facts(table.CASES[0]),
                held={"health.not_brought": (Held(draw.choice((*DAYS, None))),), "health.cp_is": (Held(at.date()),)},
            )
            decision = decide(snapshot, VOCABULARY, request, facts, at)
            assert decision == reference.decide(snapshot, VOCABULARY, request, facts, at)
            shown += bool(decision.shown)
    assert loaded >= 1000 // SHORT and shown >= 500 // SHORT, (loaded, shown)


@pytest.mark.parametrize("year", [1, 1989, 2200, 9999])
def test_an_instant_in_a_year_that_no_agreement_names_is_refused_by_both(year: int) -> None:
    w = world(0)
    at = AT.replace(year=year, month=12, day=31, hour=23, minute=59, second=59)
    for evaluate in (decide, reference.decide):
        with pytest.raises(RequestRefused, match="POLICY_STALE: at"):
            evaluate(w.snapshot, VOCABULARY, w.request, w.facts, at)
        begun = replace(w.request, break_glass=BreakGlass(reason="MISSING_NOW", started=at))
        with pytest.raises(RequestRefused, match=r"POLICY_STALE: break_glass\.started"):
            evaluate(w.snapshot, VOCABULARY, begun, w.facts, w.at)
    with pytest.raises(RequestRefused, match="POLICY_STALE: at"):
        view(w.snapshot, VOCABULARY, w.request, [w.facts], at)


def test_a_length_of_time_reaches_no_further_back_than_the_calendar() -> None:
    for text, unit in ((9999, "Y"), (9999, "M"), (9_999_999, "D")):
        assert Duration(text, unit).before(date(500, 3, 1)) == date.min  # type: ignore[arg-type]
    assert Duration(1, "Y").before(date(2024, 2, 29)) == date(2023, 2, 28)
    assert Duration(30, "D").before(date(2024, 3, 30)) == date(2024, 2, 29)
    with pytest.raises(InvalidAgreement):
        Period.of_days(date(2026, 4, 1), date.max)
    grant = next(one for one in world(0).documents if isinstance(one, Agreement) and one.grants).grants[0]
    with pytest.raises(InvalidAgreement, match="days or more"):
        replace(grant, recorded_within=Duration(60, "TM"))


@pytest.mark.parametrize("case", ["", " ", "\t\n"])
def test_an_empty_case_is_no_case_reference(case: str) -> None:
    w = world(0)
    for evaluate in (decide, reference.decide):
        with pytest.raises(RequestRefused, match="NO_CASE_REF: case: it is empty"):
            evaluate(w.snapshot, VOCABULARY, replace(w.request, case=case), w.facts, w.at)
    with pytest.raises(RequestRefused, match="NO_CASE_REF"):
        view(w.snapshot, VOCABULARY, replace(w.request, case=case), [w.facts], w.at)


@pytest.mark.parametrize(
    ("since", "until"),
    [("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"), ("0001-01-01T00:00:00+14:00", "2200-01-01T00:00:00Z")],
)
def test_a_policy_for_ever_is_drafted_within_the_days_that_an_agreement_may_name(since: str, until: str) -> None:
    rule = {
        "effect": "allow", "modes": ["EXISTENCE"], "recordTypes": ["health.cp_is"], "destOrgTypes": [],
        "destOrgIds": ["northshire-council"], "purposes": ["S47"], "validFrom": since, "validUntil": until,
    }  # fmt: skip
    text = draft({"orgId": "northshire-icb", "version": "1", "defaults": [rule]}, VOCABULARY, name="drafted")
    assert "effective = 1990-01-01" in text and "expires = 2199-12-30" in text
    with pytest.raises(RuleRefused, match="no year"):
        draft({"orgId": "a", "defaults": [rule | {"validFrom": until}]}, VOCABULARY, name="drafted")


WRONG: Mapping[str, Any] = {
    "organisation": (None, 1, ["northshire-la"]), "role": (None, 7, ["MASH_ANALYST"], {"MASH_ANALYST"}),
    "purpose": (None, b"S47", ["S47"]), "basis": (None, "public_task", {}), "asked": (None, "health.cp_is", [], {1: 2}),
    "case": (1, b"C1", ["C1"], "", "\u200b", "\u3164", "C1\u200b", " C1"), "threshold": ("L4", 4, {}),
    "break_glass": ("MISSING_NOW", AT, True),
}  # fmt: skip
UNFACTUAL: Mapping[str, Any] = {
    "source": (None, 1, ["health"]), "record": (1, b"r1", ["r1"], "", " ", "\u200b", "\u3164", "r1\u200b", "r1 "),
    "case": (1, ["C1"], "", "\t", "\u200b", "\u2060C1"), "relation": (1, ["parent"]), "link": (3, "certain"),
    "tags": (None, [], {"deceased"}, frozenset({1, None})), "tags_unknown": (None, "deceased", frozenset({1, "a"})),
    "held": (
        None, [], "health.cp_is", {"health.cp_is": None}, {"health.cp_is": [None]}, {"health.cp_is": (None,)},
        {"health.cp_is": Held(None)}, {"health.cp_is": ("2026-05-01",)}, {None: (), 1: ()},
    ),
}  # fmt: skip


def test_a_field_of_another_type_is_refused_by_its_name_and_never_decided_on() -> None:
    w = world(0)
    for what, wrong, term in ((w.request, WRONG, "{}"), (w.facts, UNFACTUAL, "facts.{}")):
        for name, values in wrong.items():
            for value in values:
                with pytest.raises(RequestRefused) as refused:
                    replace(what, **{name: value})
                assert refused.value.term.startswith(term.format(name)), (name, value)
    for value in ("2026-05-01", AT, 20260501, ""):
        with pytest.raises(RequestRefused, match="recorded_on"):
            Held(value)  # type: ignore[arg-type]
    bases: list[tuple[str, Any]] = [("art6", ["a"]), ("conditions", "a"), ("conditions", ["a"]), ("gateways", None)]
    for name, value in bases:
        with pytest.raises(RequestRefused, match=f"NO_BASIS: basis.{name}"):
            replace(w.request.basis, **{name: value})
    with pytest.raises(RequestRefused, match=r"threshold\.level"):
        Threshold(level=4, decided_by="MASH_DECISION_MAKER")  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match=r"threshold\.decided_by"):
        Threshold(level="L4", decided_by=None)  # type: ignore[arg-type]
    with pytest.raises(RequestRefused, match=r"break_glass\.reason"):
        BreakGlass(reason=["MISSING_NOW"], started=AT)  # type: ignore[arg-type]

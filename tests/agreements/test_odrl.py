"""The ODRL export says what was signed: a separate evaluator decides from it alone, and it reads back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from rdflib import Graph

from agreements import VOCABULARY, Mode, Snapshot, decide
from agreements.agreement import Agreement, Grant
from agreements.export.linked import vocabulary_jsonld
from agreements.export.odrl import odrl, odrl_of
from agreements.vocabulary import Vocabulary
from tests.agreements.mutants import FAULTS, altered, mutant
from tests.agreements.odrl_evaluator import Evaluator, Question, Triple, triples
from tests.agreements.odrl_reader import agreement_of, restriction_of
from tests.agreements.worlds import LONG, World, disclosing, world
from tests.spec import table

WORLDS = 2_000 if LONG else 130
ROUND_TRIPS = 1_000

OPERANDS = {
    "role": "skip role",
    "basis": "skip basis",
    "condition": "skip condition",
    "gateway": "skip gateway",
    "relation": "skip about",
    "case": "skip case",
    "threshold": "skip threshold",
    "link": "skip link",
    "regime": "skip regime",
    "breakGlass": "skip break-glass",
}
"""The fault of the engine that leaves the same thing out, to find a world in which it matters."""


def test_the_odrl_oracle_finds_no_mismatch_in_worlds_that_disclose_something() -> None:
    shown, seen = 0, set[str]()
    for seed in range(WORLDS):
        w = world(seed)
        by_odrl = evaluator(odrl(w.snapshot)).modes(question_of(w))
        ours = _modes(w)
        assert by_odrl == ours, f"world {seed}"
        shown += any(mode != "none" for mode in ours.values())
        seen |= set(ours.values())
    assert shown >= WORLDS // 5, "too few worlds disclose anything"
    assert seen == {mode.word for mode in Mode}


@pytest.mark.parametrize(
    "case", [c for c in table.CASES if "expect" in c or "only" in c], ids=lambda case: str(case["n"])
)
def test_the_odrl_oracle_agrees_on_a_case_of_the_decision_table(case: Any) -> None:
    at_hand = table.world(case)
    w = World(
        documents=at_hand.documents,
        signatures=(),
        events=(),
        request=table.request(case),
        facts=table.facts(case),
        at=at_hand.at,
    )
    by_odrl = evaluator(odrl(at_hand.snapshot), at_hand.vocabulary).modes(question_of(w))
    decision = decide(at_hand.snapshot, at_hand.vocabulary, w.request, w.facts, w.at)
    assert by_odrl == {name: mode.word for name, mode in decision.modes.items()}


@pytest.mark.parametrize("operand", OPERANDS)
def test_the_odrl_oracle_notices_a_constraint_that_is_left_out(operand: str) -> None:
    w = next(altered(mutant(*FAULTS[OPERANDS[operand]])))
    assert _without(w, f"dsa:{operand}") != _modes(w) == evaluator(odrl(w.snapshot)).modes(question_of(w))


def test_p18_an_export_and_back_preserves_every_clause_limit_and_rule_of_what_discloses() -> None:
    for seed in disclosing()[:ROUND_TRIPS]:
        w = world(seed)
        shown = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at).shown
        relied_on = {one.under.agreement for one in shown.values()}
        assert relied_on
        for agreement in w.snapshot.agreements:
            if agreement.ref in relied_on:
                graph = Graph().parse(data=json.dumps(odrl_of(agreement, w.snapshot)), format="json-ld")
                back = agreement_of(graph, agreement.ref)
                assert back.grants == _ordered(agreement)
                assert back.limits == tuple(sorted(agreement.limits, key=lambda limit: limit.id))
                for name in ("period", "review", "parties", "under", "if_review_overdue"):
                    assert getattr(back, name) == getattr(agreement, name), name


def test_rules_and_umbrellas_are_exported_and_back_as_well() -> None:
    for seed in range(40):
        w = world(seed)
        graph = Graph().parse(data=json.dumps(odrl(w.snapshot)), format="json-ld")
        for restriction in w.snapshot.restrictions:
            back = restriction_of(graph, restriction.ref)
            for name in ("owner", "period", "record", "tag", "purposes", "categories", "at_most", "lift", "text"):
                assert getattr(back, name) == getattr(restriction, name), name
        for agreement in w.snapshot.agreements:
            umbrella = agreement_of(graph, agreement.ref)
            assert umbrella.limits == tuple(sorted(agreement.limits, key=lambda limit: limit.id))
            assert (umbrella.period, umbrella.parties) == (agreement.period, agreement.parties)


def test_one_document_is_an_odrl_agreement_with_a_permission_a_clause_and_mode() -> None:
    at_hand = table.world({})
    mash = next(one for one in at_hand.documents if one.id == "northshire-mash")
    assert isinstance(mash, Agreement)
    body = odrl_of(mash, at_hand.snapshot)
    assert body["type"] == "odrl:Agreement"
    assert len(body["odrl:permission"]) == sum(len(set(grant.modes.values())) for grant in mash.grants)
    graph = Graph().parse(data=json.dumps(body), format="json-ld")
    assert len(graph) > 150
    assert agreement_of(graph, mash.ref).grants == _ordered(mash)


def test_the_vocabulary_defines_every_term_that_an_export_uses_and_ties_it_to_dpv() -> None:
    graph = Graph().parse(data=json.dumps(vocabulary()), format="json-ld")
    defined = {str(subject) for subject in graph.subjects()}
    for seed in range(30):
        used = Graph().parse(data=json.dumps(odrl(world(seed).snapshot)), format="json-ld")
        ours = "https://data-sharing-agreements.example/uk-safeguarding/"
        lists = (
            "action",
            "basis",
            "category",
            "condition",
            "duty",
            "gateway",
            "link",
            "purpose",
            "relation",
            "role",
            "tag",
            "threshold",
        )
        for term in {str(value) for value in used.objects()}:
            if term.startswith(tuple(f"{ours}{name}/" for name in lists)):
                assert term in defined, term
    text = json.dumps(vocabulary())
    assert all(name in text for name in ("eu-gdpr:A6-1-e", "eu-gdpr:A9-2-g", "dpv:PublicBenefit", "dpv:Purpose"))


def test_reading_an_export_fetches_nothing() -> None:
    for body in (vocabulary(), odrl(Snapshot.of(()))):
        assert isinstance(body["@context"], dict), "a context by its address would be fetched"


def _ordered(agreement: Agreement) -> tuple[Grant, ...]:
    """An RDF graph keeps no order, and none of ours has a meaning."""
    grants = (replace(one, duties=tuple(sorted(set(one.duties), key=repr))) for one in agreement.grants)
    return tuple(sorted(grants, key=lambda grant: grant.id))


@cache
def vocabulary() -> dict[str, Any]:
    return vocabulary_jsonld(VOCABULARY)


@cache
def _terms(lists: Vocabulary) -> list[Triple]:
    return triples(vocabulary_jsonld(lists))


def evaluator(exported: dict[str, Any], lists: Vocabulary = VOCABULARY) -> Evaluator:
    """It knows an export, and the vocabulary's."""
    return Evaluator(_terms(lists), triples(exported))


def _without(w: World, operand: str) -> dict[str, str]:
    body = odrl(w.snapshot)
    for policy in body["@graph"]:
        left_out = {
            one["uid"]
            for rule in policy.get("odrl:permission", ())
            for one in rule["odrl:constraint"]
            if one.get("odrl:leftOperand") == operand
        }
        for rule in policy.get("odrl:permission", ()):
            rule["odrl:constraint"] = [one for one in rule["odrl:constraint"] if one["uid"] not in left_out]
    return evaluator(body).modes(question_of(w))


def _modes(w: World) -> dict[str, str]:
    decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    return {name: mode.word for name, mode in decision.modes.items()}


def question_of(w: World) -> Question:
    """A world's question, as the evaluator takes one."""
    request, facts = w.request, w.facts
    return Question(
        at=w.at,
        organisation=request.organisation,
        role=request.role,
        purpose=request.purpose,
        basis=request.basis.art6,
        conditions=request.basis.conditions,
        gateways=request.basis.gateways,
        case=request.case,
        threshold=request.threshold.level if request.threshold else None,
        session=request.break_glass.started if request.break_glass else None,
        source=facts.source,
        record=facts.record,
        relation=facts.relation,
        subject_case=facts.case,
        link=facts.link.name.lower() if facts.link is not None else None,
        tags=facts.tags | facts.tags_unknown,
        asked={name: mode.word for name, mode in request.asked.items()},
        held={name: tuple((one.recorded_on, one.regime) for one in held) for name, held in facts.held.items()},
    )

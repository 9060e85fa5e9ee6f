"""A statute that waits for its commencement opens nothing before that day, whoever asks the question."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from itertools import count
from random import Random
from typing import Any

import pytest

from agreements import Agreement, Mode, Signature, Snapshot, decide, explain_for_asker, reference
from agreements.agreement import Document, Grant, london_midnight
from agreements.analysis import as_if_always, diff
from agreements.analysis.lint import lint
from agreements.analysis.whatif import what_if
from agreements.document.lint import lint as remarks
from agreements.explain.words import words_for
from agreements.export.cedar import cedar
from agreements.export.odrl import odrl
from agreements.export.prose import schedule, text
from agreements.receipts import PastDecision
from agreements.vocabulary import Vocabulary, of_lists, shipped
from tests.agreements.cedar_oracle import Authoriser
from tests.agreements.cedar_oracle import modes as modes_by_cedar
from tests.agreements.test_analysis import modes_by_boxes
from tests.agreements.test_odrl import evaluator, question_of
from tests.agreements.worlds import SCALE, World, world
from tests.spec import table

S16LA = "ca2004-s16la"
DAY = date(2026, 6, 2)
LISTS: dict[str, Vocabulary] = {
    "never": table.commencing(None), "later": table.commencing("2026-06-02"), "before": table.commencing("2026-05-31")
}  # fmt: skip


def relying(w: World, draw: Random) -> World:
    """The world, some of whose clauses and whose question rest on section 16LA, beside another statute or alone."""
    ways = (frozenset({S16LA}), frozenset({S16LA}), frozenset({S16LA, "ca1989-s47"}), frozenset({"ca1989-s47"}))

    def clause(grant: Grant) -> Grant:
        basis = replace(grant.basis, gateways=draw.choice(ways), le_authority=draw.choice((*ways, frozenset())))
        return replace(grant, basis=basis)

    documents = tuple(
        replace(one, grants=tuple(clause(grant) for grant in one.grants)) if isinstance(one, Agreement) else one
        for one in w.documents
    )
    basis = replace(w.request.basis, gateways=draw.choice(ways[1:3]))
    return replace(w, documents=documents, request=replace(w.request, basis=basis))


def both(w: World, lists: Vocabulary) -> dict[str, Mode]:
    """What the engine decides, which is what the literal evaluator does."""
    due = reference.decide(w.snapshot, lists, w.request, w.facts, w.at)
    assert decide(w.snapshot, lists, w.request, w.facts, w.at) == due
    return dict(due.modes)


def test_engine_reference_and_boxes_agree_before_on_and_after_the_day() -> None:
    seen: Counter[str] = Counter()
    for seed in range(120 * SCALE):
        w = relying(world(seed), Random(seed))
        found = {name: both(w, lists) for name, lists in LISTS.items()}
        if seed < 30:
            assert {name: modes_by_boxes(w, lists) for name, lists in LISTS.items()} == found
        turned = replace(w, at=london_midnight(DAY))
        assert both(turned, LISTS["later"]) == both(turned, LISTS["before"])
        assert found["never"] == found["later"]
        assert all(found["never"][name] <= most for name, most in found["before"].items())
        seen[str(any(found["before"].values()))] += 1
        seen["more"] += found["before"] != found["never"]
    assert seen["True"] >= 30 and seen["more"] >= 20, seen


def test_cedar_and_odrl_agree_on_what_is_in_force() -> None:
    left = 5 * SCALE
    for seed in count():
        w = relying(world(seed), Random(seed))
        found = {when: both(w, lists) for when, lists in LISTS.items()}
        if found["before"] == found["never"]:
            continue
        exported = odrl(w.snapshot)
        for when, lists in LISTS.items():
            assert modes_by_cedar(w, Authoriser(cedar(w.snapshot, lists))) == found[when], seed
            by_odrl = evaluator(exported, lists).modes(question_of(w))
            assert by_odrl == {name: mode.word for name, mode in found[when].items()}, seed
        if not (left := left - 1):
            break


def test_what_is_remembered_of_a_question_turns_with_the_day() -> None:
    edit = {"document": "northshire-mash", "path": "grants.1.basis.gateway", "value": [S16LA]}
    case = {"edit": [edit], "request": {"gateways": [S16LA]}, "commences": DAY.isoformat()}
    w, request, facts = table.world(case), table.request(case), table.facts(case)
    told, shown = [], []
    for at in (london_midnight(DAY) - timedelta(microseconds=1), london_midnight(DAY)):
        reasons = explain_for_asker(w.snapshot, w.vocabulary, request, "northshire-icb", at, names={}, desks={})
        told.append({one.code for one in reasons})
        shown.append(bool(decide(w.snapshot, w.vocabulary, request, facts, at).shown))
        both(World(documents=w.documents, signatures=tuple(w.snapshot.signatures), events=(), request=request,
                   facts=facts, at=at), w.vocabulary)  # fmt: skip
    assert shown == [False, True]
    assert "NO_BASIS" in told[0] and "NO_BASIS" not in told[1]


WAITING: dict[str, dict[str, Any]] = {
    "gateway": {
        "edit": [{"document": "northshire-mash", "path": "grants.1.basis.gateway", "value": [S16LA]}],
        "request": {"gateways": [S16LA]},
    },
    "le_authority": {
        "edit": [{"document": "northshire-mash", "path": "grants.2.basis.le_authority", "value": [S16LA]}],
        "request": {"ask": "police"},
        "facts": {"source": "northshire-police", "regime": "LE"},
    },
}  # fmt: skip


@pytest.mark.parametrize("waiting", WAITING)
def test_boxes_cedar_and_odrl_turn_with_the_midnight_that_the_day_begins_in_london(waiting: str) -> None:
    case = WAITING[waiting] | {"commences": DAY.isoformat()}
    found = table.world(case)
    lists, begins = found.vocabulary, london_midnight(DAY)
    exported, authoriser = odrl(found.snapshot), Authoriser(cedar(found.snapshot, lists))
    for at, opens in ((begins - timedelta(microseconds=1), False), (begins, True)):
        w = World(documents=found.documents, signatures=tuple(found.snapshot.signatures), events=(),
                  request=table.request(case), facts=table.facts(case), at=at)  # fmt: skip
        due = both(w, lists)
        assert any(due.values()) is opens
        assert modes_by_boxes(w, lists) == due
        assert modes_by_cedar(w, authoriser) == due
        by_odrl = evaluator(exported, lists).modes(question_of(w))
        assert by_odrl == {name: mode.word for name, mode in due.items()}


@pytest.mark.parametrize("more", [False, True])
def test_a_preview_changes_its_answer_with_the_midnight_that_the_day_begins(*, more: bool) -> None:
    """A clause that rested on section 47 is to rest on section 16LA, or the reverse: till the day the two differ."""
    case: dict[str, Any] = {"commences": DAY.isoformat(), "request": {"gateways": [S16LA, "ca1989-s47"]}}
    (old, new), lists = _mash_on(case, S16LA, "ca1989-s47") if more else _mash_on(case, "ca1989-s47", S16LA)
    estate = table.world(case)
    before = Snapshot.of(
        [*(one for one in estate.documents if one.id != old.id), old], _signed([*estate.documents, old])
    )
    after = as_if_always(before, new)
    request, facts, begins = table.request(case), table.facts(case), london_midnight(DAY)
    past = []
    for name, at in (("the day before", begins - timedelta(microseconds=1)), ("the day", begins)):
        found = decide(before, lists, request, facts, at)
        past.append((name, PastDecision(request=request, facts=facts, at=at, modes=found.modes, witnesses={})))
        assert diff(before, after, lists).touches(request, facts, at) is (name == "the day before")
    changes = what_if(past, before, new, lists)
    assert (changes.looked_at, [one.id for one in changes.changed]) == (2, ["the day before"])
    (one,) = changes.changed
    assert all((one.would[name] > one.was[name]) is more for name in one.was)


def _mash_on(case: dict[str, Any], *gateways: str) -> tuple[list[Agreement], Vocabulary]:
    """The hub's agreement in two versions, whose clause on health rests on one statute each; and the lists."""
    found = []
    for number, gateway in enumerate(gateways):
        edit = {"document": "northshire-mash", "path": "grants.1.basis.gateway", "value": [gateway]}
        w = table.world(case | {"edit": [edit]})
        mash = next(one for one in w.documents if isinstance(one, Agreement) and one.id == "northshire-mash")
        found.append(replace(mash, version=f"9.0.{number}"))
    return found, w.vocabulary


def _signed(documents: list[Document]) -> list[Signature]:
    early = london_midnight(date(2026, 3, 1))
    return [
        Signature(party, one.digest, f"{party}/1", early)
        for one in documents
        if isinstance(one, Agreement)
        for party in one.parties
    ]


def test_what_is_signed_and_what_is_looked_over_say_that_a_statute_is_awaited() -> None:
    edit = {"document": "northshire-mash", "path": "grants.1.basis.gateway", "value": [S16LA]}
    for day, words in ((None, "once it is in force: its day is not set yet"), ("2026-06-02", "from 2 June 2026")):
        w = table.world({"edit": [edit], "commences": day})
        mash = next(one for one in w.documents if one.id == "northshire-mash")
        assert words in " ".join(text(schedule(mash, w.vocabulary)).split())
        said = [one.message for one in lint(w.snapshot, w.vocabulary, at=w.at, kinds=["unreachable"])]
        awaited = "it can't apply before Children Act 2004 s.16LA is in force"
        assert said == ([awaited] if day is None else [])


def test_what_a_clause_for_police_items_still_wants_is_the_statute_that_is_awaited() -> None:
    case = WAITING["le_authority"]
    w = table.world(case)
    q = reference.Question(w.snapshot, w.vocabulary, table.request(case), None, "northshire-police", w.at)
    mash = next(one for one in w.documents if isinstance(one, Agreement) and one.id == "northshire-mash")
    assert words_for(q, mash.grants[2], "regime") == "Children Act 2004 s.16LA once in force (its day is not set yet)"


@pytest.mark.parametrize(("commences", "paths"), [("2026-04-01", []), ("2026-04-02", ["grants[1].basis.gateway"])])
def test_a_document_is_remarked_on_whose_statute_is_not_in_force_on_its_first_day(
    commences: str, paths: list[str]
) -> None:
    w = table.world(WAITING["gateway"] | {"commences": commences})
    mash = next(one for one in w.documents if isinstance(one, Agreement) and one.id == "northshire-mash")
    said = [one.path for one in remarks(mash, w.vocabulary) if "from the start" in one.message]
    assert said == paths


@pytest.mark.parametrize(
    ("path", "case", "awaited"),
    [
        ("grants.1.basis.gateway", {"commences": "2026-06-02", "ends": date(2026, 6, 1)}, "it can't apply before"),
        ("grants.1.basis.gateway", {"unsigned": [["northshire-icb", "northshire-mash"]]}, "it can't apply before"),
        ("grants.2.basis.le_authority", {}, "items of law enforcement: not shown before"),
    ],
    ids=["umbrella-ends-first", "unsigned", "authority-alone"],
)
def test_a_waiting_statute_is_the_cause_that_is_named(path: str, case: dict[str, Any], awaited: str) -> None:
    case = dict(case)
    edits: list[dict[str, Any]] = [{"document": "northshire-mash", "path": path, "value": [S16LA]}]
    if (ends := case.pop("ends", None)) is not None:
        edits += [
            {"document": "northshire-tier1", "path": f"period.{key}", "value": ends} for key in ("expires", "review_by")
        ]
    w = table.world({"commences": None, "edit": edits, **case})
    said = [one.message for one in lint(w.snapshot, w.vocabulary, at=w.at, kinds=["unreachable"])]
    assert f"{awaited} Children Act 2004 s.16LA is in force" in said


def test_a_day_without_the_flag_that_it_counts_is_refused() -> None:
    lists = shipped()
    lists["gateways"]["ca1989-s47"]["commences"] = "2026-06-02"
    with pytest.raises(ValueError, match="ca1989-s47: a commencement"):
        of_lists(lists)


def test_a_list_of_before_that_only_named_the_flag_decides_as_it_did() -> None:
    lists = shipped()
    lists["gateways"][S16LA]["flags"] = ["commencement_dated"]
    assert of_lists(lists).in_force(frozenset({S16LA}), DAY) == {S16LA}


@pytest.mark.parametrize(
    ("part", "code", "change", "said"),
    [
        ("gateways", S16LA, {"flags": ["from_comencement"]}, "unknown flag from_comencement"),
        ("gateways", S16LA, {"commences": "20270401"}, "as 2027-04-01"),
        ("conditions", None, {"flags": ["from_commencement"]}, "only a gateway"),
    ],
)
def test_lists_that_would_open_by_a_slip_are_refused(
    part: str, code: str | None, change: dict[str, object], said: str
) -> None:
    lists = copy.deepcopy(shipped())
    lists[part][code or next(iter(lists[part]))].update(change)
    with pytest.raises(ValueError, match=said):
        of_lists(lists)

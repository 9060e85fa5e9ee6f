"""Analysis is exact: what it says of an estate is what deciding shows, and what it does not say is not shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from agreements import (
    VOCABULARY,
    Agreement,
    Facts,
    Held,
    Link,
    Mode,
    Request,
    Signature,
    Snapshot,
    StatusEvent,
    decide,
)
from agreements.agreement import Document, DocumentRef, Duration, Grant, GrantBasis, Limit, Period
from agreements.analysis import (
    Difference,
    Estate,
    Space,
    alone,
    as_if_always,
    diff,
    succession,
    with_candidate,
    witness,
)
from agreements.analysis.boxes import EVER, Axis, Box, live_periods, merged, without
from agreements.analysis.lint import Kind, Remark, lint, pairs_of, shadowed
from agreements.analysis.sight import COLUMNS, Filter, in_prose, rows, to_csv, to_json, who_can_see
from agreements.analysis.usage import near_misses, unused
from agreements.analysis.whatif import replayed, what_if
from agreements.receipts import PastDecision
from agreements.vocabulary import RECORD, Vocabulary
from tests.agreements import estates
from tests.agreements.worlds import (
    AT,
    EARLY,
    SCALE,
    World,
    a_grant,
    a_question,
    a_restriction,
    an_agreement,
    an_event,
    disclosing,
    world,
)
from tests.sizes import LONG
from tests.spec import table

FIELDS = (
    "roles", "purposes", "threshold", "recorded_within", "link", "modes", "about", "not_purposes", "basis", "sources",
    "organisations", "break_glass", "case_reference",
)  # fmt: skip


def changed(w: World, draw: Random) -> Snapshot:
    """The world with one thing made different: a clause, a limit, a document, an event."""
    documents, signatures, events = list(w.documents), list(w.signatures), list(w.events)
    agreements = [one for one in documents if isinstance(one, Agreement) and one.grants]
    one = draw.choice(agreements)
    kind = draw.randrange(8)
    if kind <= 3:
        one, grant = a_relied_on_clause(w, draw)
        other = a_grant(draw, grant.id)
        field = draw.choice(FIELDS)
        edited = replace(grant, **{field: getattr(other, field)})
        grants = tuple(edited if each is grant else each for each in one.grants)
        documents[documents.index(one)] = replace(one, grants=grants)
    elif kind == 4:
        rule = a_restriction(draw, "new")
        documents.append(rule)
        signatures.append(Signature(rule.owner, rule.digest, f"{rule.owner}/1", EARLY))
    elif kind == 5:
        documents.remove(draw.choice(documents[1:]))
    elif kind == 6:
        events.append(an_event(draw, draw.choice(documents[1:])))
    else:
        documents[documents.index(one)] = replace(one, limits=an_agreement(draw, "other", grants=0).limits)
    return Snapshot.of(documents, signatures, events)


def a_relied_on_clause(w: World, draw: Random) -> tuple[Agreement, Grant]:
    """A clause that the world's own decision cites, if it cites any."""
    decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
    every = [(one, grant) for one in w.documents if isinstance(one, Agreement) for grant in one.grants]
    cited = {str(shown.under) for shown in decision.shown.values()}
    return draw.choice([(one, grant) for one, grant in every if f"{one.ref}#{grant.id}" in cited] or every)


def one_item(draw: Random, request: Request, facts: Facts) -> Iterator[tuple[Request, Facts, str]]:
    """The same question of records that hold one item each."""
    for category, several in facts.held.items():
        asked = {category: request.asked.get(category, Mode.NONE)}
        yield replace(request, asked=asked), replace(facts, held={category: (draw.choice(several),)}), category


def modes(snapshot: Snapshot, request: Request, facts: Facts, at: datetime) -> dict[str, Mode]:
    return dict(decide(snapshot, VOCABULARY, request, facts, at).modes)


def is_true(difference: Difference, before: Snapshot, after: Snapshot, draw: Random, most: int) -> int:
    """Whether some witnesses of a difference hold; how many there were."""
    found = list(difference.witnesses())
    sample = draw.sample(found, min(most, len(found)))
    for change, one in sample:
        was = decide(before, VOCABULARY, one.request, one.facts, one.at).mode(one.category)
        will = decide(after, VOCABULARY, one.request, one.facts, one.at).mode(one.category)
        less, more = (was, will) if change.more else (will, was)
        assert less < one.mode <= more
    return len(sample)


def modes_by_boxes(w: World, vocabulary: Vocabulary = VOCABULARY) -> dict[str, Mode]:
    """What a world's estate, as boxes, allows of its own question."""
    space = Space.of(vocabulary, w.snapshot)
    estate = Estate(space, w.snapshot)
    pair = (w.facts.source, w.request.organisation)
    cuts = [cut.box for cut in estate.cuts(pair[0])]
    region = [box for clause in estate.given(pair) for box in without(clause.allows(), cuts)]
    point = space.of_request(w.request, w.facts, w.at)
    allowed = dict.fromkeys(w.request.asked, Mode.NONE)
    for (age, regime), cells in space.of_items(w.request, w.facts, w.at).items():
        for category, mode in space.cells_of(cells):
            axes = list(point)
            axes[Axis.CELLS], axes[Axis.AGES], axes[Axis.REGIMES] = space.cell(category, mode), age, regime
            here = Box(tuple(axes), w.at, w.at + timedelta(microseconds=1))
            if any(here.meet(box) for box in region):
                allowed[category] = max(allowed[category], mode)
    return allowed


# --- boxes ----------------------------------------------------------------------------------------------------------


ESTATES = 1_000 if LONG else 60


def test_the_boxes_of_an_estate_allow_exactly_what_deciding_shows() -> None:
    shown = 0
    for seed in disclosing()[:ESTATES]:
        w = world(seed)
        allowed = modes_by_boxes(w)
        assert allowed == modes(w.snapshot, w.request, w.facts, w.at), seed
        shown += any(allowed.values())
    assert shown == ESTATES


def test_boxes_taken_from_a_box_leave_it_whole_together_with_what_was_taken() -> None:
    draw = Random(1)
    size = len(Axis)

    def a_box() -> Box:
        start = AT + timedelta(days=draw.randrange(4))
        axes = tuple(draw.randrange(1, 8) for _ in range(size))
        return Box(axes, start, start + timedelta(days=draw.randint(1, 4)))

    for _ in range(200):
        one, other = a_box(), a_box()
        pieces = one.minus(other)
        for _ in range(20):
            axes = tuple(1 << draw.randrange(3) for _ in range(size))
            at = AT + timedelta(days=draw.randrange(8))
            point = Box(axes, at, at + timedelta(microseconds=1))
            inside = [piece for piece in pieces if point.meet(piece)]
            assert len(inside) == (point.meet(one) is not None and point.meet(other) is None)
            assert bool(inside) == any(point.meet(piece) for piece in merged(pieces))


@pytest.mark.parametrize(
    "windows",
    [(), (Duration(30, "D"), Duration(1, "M")), (Duration(2, "Y"), Duration(24, "M"), Duration(5, "Y"))],
    ids=["none", "one that is now the longer, now the shorter", "two that are one"],
)
def test_whatever_an_items_date_it_has_an_age(windows: tuple[Duration, ...]) -> None:
    w = world(disclosing()[0])
    agreement = next(one for one in w.snapshot.agreements if one.grants)
    grants = tuple(replace(agreement.grants[0], id=str(window), recorded_within=window) for window in windows)
    space = Space.of(VOCABULARY, Snapshot.of([replace(agreement, grants=grants)]))
    ages = set()
    for days in range(0, 1500, 3):
        at = datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=days)
        for back in (0, 27, 28, 29, 30, 31, 800, 1900):
            facts = replace(w.facts, held={"health.cp_is": (Held(at.date() - timedelta(days=back)),)})
            (key,) = space.of_items(replace(w.request, asked={"health.cp_is": Mode.STATUS}), facts, at)
            ages.add(key[0])
    assert len(ages) == len(space.ages)


def test_an_agreement_is_live_in_its_periods_and_at_no_other_time() -> None:
    for seed in range(60):
        snapshot = world(seed).snapshot
        for agreement in snapshot.agreements:
            for pair in {pair for grant in agreement.grants for pair in pairs_of(grant)}:
                periods = live_periods(snapshot, agreement, pair)
                for at in (AT, AT - timedelta(hours=1), AT + timedelta(hours=1), EARLY, agreement.period.end):
                    standing = snapshot.standing(agreement, *pair, at)
                    assert standing.live is any(period.start <= at < period.end for period in periods)


# --- difference: P13 ------------------------------------------------------------------------------------------------


def test_p13_inside_the_boxes_of_a_difference_decisions_differ_and_outside_they_are_equal() -> None:
    differing = witnessed = inside = outside = 0
    for seed in disclosing():
        w, draw = world(seed), Random(seed)
        after = changed(w, draw)
        difference = diff(w.snapshot, after, VOCABULARY)
        differing += bool(difference)
        witnessed += is_true(difference, w.snapshot, after, draw, 3)
        grants = [grant for one in (*w.snapshot.agreements, *after.agreements) for grant in one.grants]
        another = [a_question(draw, draw.choice(grants))] if seed % 2 else []
        for request, facts in [(w.request, w.facts), *another]:
            for asked, held, category in list(one_item(draw, request, facts))[:2]:
                was = modes(w.snapshot, asked, held, w.at)[category]
                will = modes(after, asked, held, w.at)[category]
                assert difference.touches(asked, held, w.at) is (was is not will), seed
                inside, outside = inside + (was is not will), outside + (was is will)
            if not difference.touches(request, facts, w.at):
                assert modes(w.snapshot, request, facts, w.at) == modes(after, request, facts, w.at), seed
    floors = [scaled * SCALE for scaled in (450, 1000, 60, 1500)]
    assert all(found >= floor for found, floor in zip((differing, witnessed, inside, outside), floors, strict=True))


def test_a_difference_has_each_point_in_one_box() -> None:
    for seed in disclosing()[:40]:
        w = world(seed)
        difference = diff(w.snapshot, changed(w, Random(seed)), VOCABULARY)
        for more in (True, False):
            mine = [one for one in difference.changes if one.more is more]
            for index, one in enumerate(mine):
                assert not any(one.pair == other.pair and one.box.meet(other.box) for other in mine[:index])


def test_nothing_changes_where_nothing_did_whatever_the_order() -> None:
    for seed in disclosing()[:50]:
        w = world(seed)
        shuffled = Snapshot.of(reversed(w.documents), w.signatures, w.events)
        difference = diff(w.snapshot, shuffled, VOCABULARY)
        assert not difference and difference.lines() == [] and difference.to_json() == []


def test_what_is_new_one_way_is_gone_the_other_way() -> None:
    for seed in disclosing()[:60]:
        w = world(seed)
        after = changed(w, Random(seed))
        there, back = diff(w.snapshot, after, VOCABULARY), diff(after, w.snapshot, VOCABULARY)
        assert bool(there) is bool(back)
        for change, one in there.witnesses():
            assert back.touches(one.request, one.facts, one.at)
            assert any(other.more is not change.more for other in back.changes)


# --- in words -------------------------------------------------------------------------------------------------------


@pytest.fixture
def screening() -> Agreement:
    """One clause: health shows the hub that appointments were missed."""
    grant = Grant(
        id="screen",
        text="Health shows the hub.",
        sources=frozenset({"health"}),
        organisations=frozenset({"police"}),
        roles=frozenset({"MASH_ANALYST"}),
        purposes=frozenset({"S47"}),
        basis=GrantBasis(art6=frozenset({"public_task"}), conditions=frozenset({"dpa18-sch1-18"})),
        about=frozenset({"subject_child"}),
        case_reference=True,
        link="possible",
        modes={"health.not_brought": Mode.EXISTENCE},
    )
    made = an_agreement(Random(3), "mash", grants=0)
    return replace(
        made,
        version="1.0.0",
        limits=(),
        grants=(grant,),
        review=None,
        period=Period.of_days(date(2026, 4, 1), date(2028, 3, 31)),
        canonical=b"mash 1",
    )


def amended(
    agreement: Agreement, version: str = "1.1.0", effective: date = date(2027, 4, 1), **changes: object
) -> Agreement:
    (grant,) = agreement.grants
    return replace(
        agreement,
        version=version,
        period=Period.of_days(effective, date(2028, 3, 31)),
        grants=(replace(grant, **changes),),  # type: ignore[arg-type]
        canonical=f"mash {version}".encode(),
    )


def test_a_difference_is_said_in_words_with_its_first_day_and_its_clause(screening: Agreement) -> None:
    new = amended(screening, modes={"health.not_brought": Mode.STATUS})
    (line,) = diff(*succession(screening, new), VOCABULARY).lines()
    assert line.startswith(
        "newly: police MASH_ANALYST may see health.not_brought at status (so far existence) for S47, of health, "
        "from 1 April 2027 until 31 March 2028 (with the child's case reference; "
    )
    assert line.endswith("[mash@1.1.0#screen]")


def test_what_is_no_longer_shown_is_said_with_what_still_is(screening: Agreement) -> None:
    more = amended(screening, version="1.0.1", effective=date(2026, 4, 1), modes={"health.not_brought": Mode.STATUS})
    less = amended(screening, version="1.0.2", effective=date(2026, 4, 1))
    (line,) = diff(*succession(more, less), VOCABULARY).lines()
    assert line.startswith("no longer: police MASH_ANALYST may see health.not_brought at status (still existence)")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roles": frozenset({"MASH_ANALYST", "SOCIAL_WORKER"})}, "newly: police SOCIAL_WORKER may see"),
        ({"purposes": frozenset({"CHILD_PROTECTION"})}, "for CHILD_PROTECTION and EMERGENCY"),
        ({"threshold": "L4"}, "below threshold L4"),
        ({"case_reference": False}, "without the child's case reference"),
        ({"about": frozenset({"subject_child", "sibling"})}, "about a record of sibling"),
        ({"recorded_within": Duration(2, "Y")}, "recorded longer than 2 years ago"),
        ({"link": "match"}, "on a possible match"),
        ({"organisations": frozenset({"police", "council"})}, "newly: council MASH_ANALYST may see"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_change_of_what_a_clause_asks_for_is_said_as_that(
    screening: Agreement, change: dict[str, object], words: str
) -> None:
    (line,) = diff(*succession(screening, amended(screening, **change)), VOCABULARY).lines()
    assert words in line


def test_lists_are_said_once(screening: Agreement) -> None:
    grant = screening.grants[0]
    several = {"health.not_brought": Mode.STATUS, "health.registration": Mode.STATUS}
    new = amended(screening, modes=several, roles=grant.roles | {"SOCIAL_WORKER", "DSL"})
    lines = diff(*succession(screening, new), VOCABULARY).lines()
    assert len(lines) <= 4 and len(" ".join(lines)) < 1500


def test_what_is_told_in_words_holds_every_change_and_nothing_without_one() -> None:
    marked = 0
    for seed in disclosing()[:60]:
        w = world(seed)
        difference = diff(w.snapshot, changed(w, Random(seed)), VOCABULARY)
        for told in difference.told:
            mine = [one.box for one in difference.changes if (one.pair, one.more) == (told.pair, told.more)]
            assert any(told.box.meet(box) for box in mine)
            marked += told.partly
        for change in difference.changes:
            same = [told.box for told in difference.told if (told.pair, told.more) == (change.pair, change.more)]
            assert not without([change.box], same)
    assert marked


# --- candidates -----------------------------------------------------------------------------------------------------


def test_a_candidate_takes_the_place_of_its_older_version_from_its_first_day(screening: Agreement) -> None:
    new = amended(screening, modes={"health.not_brought": Mode.STATUS})
    before = alone(screening)
    after = with_candidate(before, new, at=AT)
    request, facts = a_question(Random(5), screening.grants[0])
    request = replace(
        request, asked={"health.not_brought": Mode.DETAIL}, purpose="S47", break_glass=None, threshold=None,
        basis=replace(request.basis, conditions=frozenset({"dpa18-sch1-18"})), case="C1", role="MASH_ANALYST",
        organisation="police",
    )  # fmt: skip
    facts = replace(
        facts, source="health", relation="subject_child", case="C1", tags=frozenset(), tags_unknown=frozenset()
    )
    day = new.period.start
    facts = replace(facts, held={"health.not_brought": (Held(day.date()),)})
    facts = replace(facts, link=Link.CERTAIN)
    assert modes(after, request, facts, day - timedelta(seconds=1)) == {"health.not_brought": Mode.EXISTENCE}
    assert modes(after, request, facts, day) == {"health.not_brought": Mode.STATUS}
    assert modes(as_if_always(before, new), request, facts, AT) == {"health.not_brought": Mode.STATUS}


def test_who_is_no_party_to_a_candidate_stays_in_the_older_version(screening: Agreement) -> None:
    others = {party: one for party, one in screening.parties.items() if party not in ("health", "police")}
    new = replace(amended(screening), parties=others, grants=())
    assert not diff(alone(screening), with_candidate(alone(screening), new, at=AT), VOCABULARY)


def test_agreements_follow_a_candidate_umbrella() -> None:
    snapshot = estates.estate(agreements=20, agencies=12)
    umbrella = next(one for one in snapshot.agreements if not one.grants)
    limit = Limit(
        id="nothing", text="Nothing more.", tag=None, categories=frozenset({"education.attendance"}), at_most=Mode.NONE
    )
    new = replace(umbrella, version="9.0.0", limits=(limit,), canonical=b"umbrella 9")
    difference = diff(snapshot, with_candidate(snapshot, new, at=AT), VOCABULARY, period=Period(AT, EVER.end))
    assert difference and not any(change.more for change in difference.changes)
    categories = {
        category for one in difference.to_json() for category in (cell["category"] for cell in one["categories"])
    }
    assert categories == {"education.attendance"}


# --- who can see ----------------------------------------------------------------------------------------------------


def test_whoever_is_shown_something_is_named_and_whoever_is_named_can_be_shown_it() -> None:
    for seed in disclosing()[:30]:
        w = world(seed)
        sights = who_can_see(w.snapshot, VOCABULARY, at=w.at)
        told = {
            (row["source"], row["organisation"], row["role"], row["purpose"], row["category"], row["clause"]): row[
                "mode"
            ]
            for row in rows(sights)
        }
        decision = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at)
        if not VOCABULARY.purposes[w.request.purpose].group:
            for category, shown in decision.shown.items():
                assert (
                    w.facts.source, w.request.organisation, w.request.role, w.request.purpose, category, str(shown.under)
                ) in told  # fmt: skip
        space = Space.of(VOCABULARY, w.snapshot)
        estate = Estate(space, w.snapshot)
        for pair in estate.pairs:
            for clause in estate.given(pair):
                for box in without(clause.allows(), [cut.box for cut in estate.cuts(pair[0])])[:2]:
                    one = witness(space, pair, box)
                    assert one is not None
                    assert decide(w.snapshot, VOCABULARY, one.request, one.facts, one.at).mode(one.category) >= one.mode


def test_filters_leave_what_they_name() -> None:
    snapshot = estates.estate(agreements=40, agencies=12)
    everything = list(rows(who_can_see(snapshot, VOCABULARY, at=AT)))
    one = everything[len(everything) // 2]
    for wanted, column in (
        (Filter(organisation=one["organisation"]), "organisation"), (Filter(role=one["role"]), "role"),
        (Filter(source=one["source"]), "source"), (Filter(category=one["category"]), "category"),
        (Filter(purpose=one["purpose"]), "purpose"),
    ):  # fmt: skip
        found = list(rows(who_can_see(snapshot, VOCABULARY, wanted, at=AT)))
        key = ("organisation", "role", "source", "purpose", "category", "clause")
        due = {tuple(row[name] for name in key) for row in everything if row[column] == one[column]}
        assert {tuple(row[name] for name in key) for row in found} == due
    group = who_can_see(snapshot, VOCABULARY, Filter(purpose="CHILD_PROTECTION"), at=AT)
    assert {row["purpose"] for row in rows(group)} <= {"S47", "EMERGENCY"}


def test_a_term_nobody_knows_is_named_rather_than_answered_with_nothing() -> None:
    parties = ("northshire-icb", "northshire-police")
    for wanted, term, near in (
        (Filter(role="MANAGER"), "MANAGER", None), (Filter(role="mash analyst"), "mash analyst", "MASH_ANALYST"),
        (Filter(organisation="northshire-polce"), "northshire-polce", "northshire-police"),
        (Filter(source="a-charity"), "a-charity", None), (Filter(organisation=""), "", None),
        (Filter(category="health.not-brought"), "health.not-brought", "health.not_brought"),
    ):  # fmt: skip
        unknown = wanted.unknown(VOCABULARY, parties)
        assert unknown is not None and (unknown.term, unknown.near) == (term, near)
        assert (near or unknown.known[0]) in unknown.words
    fine = Filter(role="DSL", purpose="S47", category=RECORD, organisation=parties[0], source=parties[1])
    assert fine.unknown(VOCABULARY, parties) is None


def test_who_can_see_is_told_as_csv_as_data_and_in_prose(screening: Agreement) -> None:
    limit = Limit(
        id="shielded",
        text="Not where shielded.",
        tag="shield_address",
        categories=frozenset({RECORD}),
        at_most=Mode.NONE,
    )
    capped = Limit(
        id="capped",
        text="Existence at most.",
        tag=None,
        categories=frozenset({"health.registration"}),
        at_most=Mode.EXISTENCE,
    )
    both = {"health.not_brought": Mode.STATUS, "health.registration": Mode.STATUS}
    grants = (replace(screening.grants[0], modes=both),)
    snapshot = alone(replace(screening, grants=grants, limits=(limit, capped)))
    sights = who_can_see(snapshot, VOCABULARY, at=AT)
    table = list(csv.DictReader(io.StringIO(to_csv(sights))))
    assert tuple(table[0]) == COLUMNS
    assert {(row["category"], row["mode"]) for row in table} == {
        ("health.not_brought", "status"),
        ("health.registration", "existence"),
    }
    assert all("shielded: Not where shielded." in row["unless"] and "capped" not in row["unless"] for row in table)
    assert all("with the child's case reference" in row["needs"] for row in table)
    assert {row["clause"] for row in table} == {"mash@1.0.0#screen"}
    told = "\n".join(in_prose(Space.of(VOCABULARY, snapshot), sights))
    assert "police, MASH_ANALYST may see:" in told and "of health, for S47: health.not_brought at status" in told
    assert to_json(sights)[0]["text"] == "Health shows the hub."
    assert who_can_see(snapshot, VOCABULARY, at=datetime(2029, 1, 1, tzinfo=UTC)) == ()


# --- lint -----------------------------------------------------------------------------------------------------------


def remarks(snapshot: Snapshot, kind: Kind, at: datetime = AT, **known: object) -> tuple[Remark, ...]:
    return lint(snapshot, VOCABULARY, at=at, kinds=[kind], **known)  # type: ignore[arg-type]


def test_without_all_shadowed_clauses_together_as_much_is_shown() -> None:
    named = 0
    for seed in disclosing()[:80]:
        w = world(seed)
        doubled = doubled_up(w)
        estate = Estate(Space.of(VOCABULARY, doubled), doubled)
        gone = shadowed(estate)
        named += len(gone)
        left = Snapshot.of(
            [
                replace(
                    one,
                    grants=tuple(
                        grant
                        for grant in one.grants
                        if (one.ref, grant.id) not in {(r.agreement, r.clause) for r in gone}
                    ),
                )
                if isinstance(one, Agreement)
                else one
                for one in (*doubled.agreements, *doubled.restrictions)
            ],
            doubled.signatures,
            doubled.events,
        )
        assert not diff(doubled, left, VOCABULARY), seed
        for ref, by in gone.items():
            assert ref not in by and not set(by) & gone.keys()
    assert named >= 60


def doubled_up(w: World) -> Snapshot:
    """The world with one clause written twice, the second time narrower."""
    documents: list[Document] = list(w.documents)
    index, one = next((i, d) for i, d in enumerate(documents) if isinstance(d, Agreement) and d.grants)
    assert isinstance(one, Agreement)
    grant = one.grants[0]
    narrower = replace(grant, id="narrower", roles=frozenset({min(grant.roles)}), recorded_within=Duration(30, "D"))
    if grant.recorded_within is not None:
        narrower = replace(narrower, recorded_within=grant.recorded_within)
    documents[index] = replace(one, grants=(*one.grants, narrower))
    return Snapshot.of(documents, w.signatures, w.events)


def test_of_two_equal_clauses_one_is_named() -> None:
    w = world(disclosing()[0])
    one = next(each for each in w.snapshot.agreements if each.grants)
    twin = replace(one, id="zz-twin", canonical=b"twin")
    snapshot = Snapshot.of([one, twin], [Signature(p, d.digest, "x/1", EARLY) for d in (one, twin) for p in d.parties])
    snapshot = Snapshot.of(
        [replace(each, under=None, if_review_overdue="warn") for each in snapshot.agreements], snapshot.signatures
    )
    gone = shadowed(Estate(Space.of(VOCABULARY, snapshot), snapshot))
    live = [grant.id for grant in one.grants if any(alone_boxes(snapshot, one, grant))]
    assert {ref.clause for ref in gone if ref.agreement.startswith("zz-twin")} >= set(live)
    assert all(not ref.agreement.startswith("zz-twin") for by in gone.values() for ref in by)


def alone_boxes(snapshot: Snapshot, agreement: Agreement, grant: Grant) -> Iterator[bool]:
    estate = Estate(Space.of(VOCABULARY, snapshot), snapshot)
    found = next(one for one in snapshot.agreements if one.id == agreement.id)
    yield from (bool(estate.given_by(found, grant, pair).boxes) for pair in pairs_of(grant))


def test_a_clause_that_can_never_apply_is_unreachable(screening: Agreement) -> None:
    assert remarks(alone(screening), "unreachable") == ()
    (ended,) = remarks(alone(screening), "unreachable", datetime(2029, 1, 1, tzinfo=UTC))
    assert ended.ref == "mash@1.0.0" and "ended on 2028-03-31" in ended.message
    no_flow: dict[str, frozenset[str]] = {"health": frozenset()}
    assert remarks(alone(screening), "unreachable", datetime(2029, 1, 1, tzinfo=UTC), flows=no_flow) == (ended,)
    (unsigned,) = remarks(Snapshot.of([screening]), "unreachable")
    assert unsigned.message == "none of its clauses can apply: health has not signed mash@1.0.0"
    assert unsigned.fix == "have it signed"
    (unfed,) = remarks(alone(screening), "unreachable", feeds={"health": {"health.cp_is"}})
    assert unfed.message == "nobody sends health.not_brought"
    (flowless,) = remarks(
        alone(screening), "unreachable", flows={"health": frozenset[str](), "police": frozenset[str]()}
    )
    assert flowless.message == "health discloses health under it, and no flow for that is enrolled"
    (absent,) = remarks(alone(screening), "unreachable", staff={"police": {"SOCIAL_WORKER"}})
    assert (absent.message, absent.severity) == ("nobody at police is MASH_ANALYST", "warning")
    both = replace(screening, grants=(replace(screening.grants[0], roles=frozenset({"MASH_ANALYST", "DSL"})),))
    (partly,) = remarks(alone(both), "unreachable", staff={"police": {"DSL"}})
    assert partly.severity == "note"
    assert partly.message == "nobody at police is MASH_ANALYST; it serves DSL alone"
    fine = {"feeds": {"health": {"health.not_brought"}}, "staff": {"police": {"MASH_ANALYST"}}}
    assert remarks(alone(screening), "unreachable", **fine) == ()


def test_of_a_version_in_whose_place_a_newer_one_stands_nothing_is_said(screening: Agreement) -> None:
    wide = amended(screening, purposes=frozenset({"SAFEGUARDING"}))
    begins, end = wide.period.start, wide.period.end
    after = Period(end, end + timedelta(days=300))
    following = replace(wide, version="1.2.0", canonical=b"following", period=after)
    replaced = with_candidate(alone(screening), wide, at=AT)
    for at, refs in ((begins - timedelta(days=1), {screening.ref, wide.ref}), (begins, {wide.ref})):
        assert {one.ref.partition("#")[0] for one in lint(replaced, VOCABULARY, at=at)} >= refs
    assert screening.ref not in {one.ref.partition("#")[0] for one in lint(replaced, VOCABULARY, at=begins)}
    both = with_candidate(alone(wide), following, at=AT)
    for at, refs in ((end - timedelta(days=1), {wide.ref, following.ref}), (end, {following.ref})):
        assert {one.ref.partition("#")[0] for one in lint(both, VOCABULARY, at=at, kinds=("over-broad",))} == refs


def test_an_agreement_under_an_umbrella_that_was_renewed_is_told_of(screening: Agreement) -> None:
    first = replace(screening, id="tier1", grants=(), canonical=b"tier1")
    under = replace(screening, under=DocumentRef(first.ref, first.digest))
    renewed = replace(first, version="2.0.0", canonical=b"tier1 renewed")
    documents = (under, first, renewed)
    signed = [Signature(party, one.digest, "x/1", EARLY) for one in documents for party in one.parties]
    (told,) = remarks(Snapshot.of(documents, signed), "calendar")
    assert (told.ref, told.severity) == (under.ref, "note")
    assert told.message == "it stands under tier1@1.0.0, of which a newer version is in force"


def test_a_party_that_has_suspended_or_not_signed_is_named_and_no_ceiling_is_blamed(screening: Agreement) -> None:
    (grant,) = screening.grants
    own = replace(grant, id="own", sources=frozenset({"police"}), modes={"police.custody": Mode.STATUS})
    two = replace(
        screening,
        grants=(
            replace(grant, sources=frozenset({"health", "police"}), modes={**grant.modes, **own.modes}),
            replace(own, organisations=frozenset({"health"})),
        ),
    )
    whole = alone(two)
    assert remarks(whole, "unreachable") == remarks(whole, "ceiling-dead") == ()
    pause = StatusEvent("police", two.digest, "suspend", AT, "police/1")
    suspended = Snapshot.of([two], whole.signatures, [pause])
    assert remarks(suspended, "ceiling-dead") == ()
    said = {(one.ref.partition("#")[2], one.message, one.severity) for one in remarks(suspended, "unreachable")}
    assert said == {
        ("screen", "police.custody: not shown, for police has suspended mash@1.0.0", "note"),
        ("own", "it can't apply: police has suspended mash@1.0.0", "note"),
    }
    assert all("resume" in one.fix for one in remarks(suspended, "unreachable"))
    unsigned = Snapshot.of([two], [one for one in whole.signatures if one.party != "health"])
    assert {one.severity for one in remarks(unsigned, "unreachable")} == {"warning"}
    assert all("health has not signed mash@1.0.0" in one.message for one in remarks(unsigned, "unreachable"))
    assert remarks(unsigned, "ceiling-dead") == ()


def test_a_mode_that_is_never_shown_is_ceiling_dead(screening: Agreement) -> None:
    summary = replace(screening, grants=(replace(screening.grants[0], modes={"health.not_brought": Mode.SUMMARY}),))
    assert remarks(alone(summary), "ceiling-dead") == ()
    limit = Limit(
        id="cap", text="Existence.", tag=None, categories=frozenset({"health.not_brought"}), at_most=Mode.EXISTENCE
    )
    (capped,) = remarks(alone(replace(summary, limits=(limit,))), "ceiling-dead")
    assert capped.message == "health.not_brought: never shown above existence, for cap"
    tagged = replace(limit, tag="deceased")
    assert remarks(alone(replace(summary, limits=(tagged,))), "ceiling-dead") == ()
    purpose = replace(summary.grants[0], purposes=frozenset({"MASH_SCREEN"}))
    (purposed,) = remarks(alone(replace(summary, grants=(purpose,))), "ceiling-dead")
    assert "the ceilings of its purposes" in purposed.message


def test_a_restriction_that_meets_a_clause_is_a_conflict(screening: Agreement) -> None:
    rule = replace(
        a_restriction(Random(1), "order"), owner="health", record="r1", tag=None, purposes=None,
        categories=frozenset({"health.not_brought"}), at_most=Mode.NONE,
    )  # fmt: skip
    signed = Signature("health", rule.digest, "health/1", EARLY)
    snapshot = Snapshot.of([screening, rule], [*alone(screening).signatures, signed])
    (found,) = remarks(snapshot, "conflict")
    assert found.ref == "order@1.0.0" and "mash@1.0.0#screen" in found.message and "one record" in found.message
    other = replace(rule, categories=frozenset({"health.cp_is"}), canonical=b"other")
    signed = Signature("health", other.digest, "health/1", EARLY)
    assert remarks(Snapshot.of([screening, other], [*alone(screening).signatures, signed]), "conflict") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"purposes": frozenset({"SAFEGUARDING"})}, "every safeguarding purpose"),
        ({"modes": {"health.mental_health_open": Mode.DETAIL}, "threshold": "L4"}, "detail of special-category"),
        ({"case_reference": False}, "no case reference"),
        ({"organisations": frozenset(f"org-{n}" for n in range(7))}, "gives to 7 organisations"),
        ({"modes": {"health.not_brought": Mode.SUMMARY}}, "no threshold for more than a status"),
        ({"modes": {"police.custody": Mode.STATUS}}, "no authority for items of law enforcement"),
        ({"roles": frozenset({"MASH_ANALYST", "DATA_STEWARD"})}, "DATA_STEWARD: nobody in such a role sees"),
        ({"roles": frozenset({"SERVICE_PLANNER"})}, "SERVICE_PLANNER: nobody in such a role sees"),
    ],
    ids=["purpose", "detail", "case", "organisations", "threshold", "police", "no items", "planner"],
)
def test_a_clause_that_is_too_wide_is_remarked_on(screening: Agreement, change: dict[str, object], words: str) -> None:
    plain = replace(screening.grants[0].basis, le_authority=frozenset())
    grant = replace(screening.grants[0], basis=plain)
    narrow = replace(screening, grants=(grant,), review=datetime(2027, 3, 1, tzinfo=UTC))
    assert remarks(alone(narrow), "over-broad") == ()
    wide = replace(narrow, grants=(replace(grant, **change),))  # type: ignore[arg-type]
    parties = {**wide.parties, **{f"org-{n}": replace(wide.parties["police"], id=f"org-{n}") for n in range(7)}}
    (found,) = remarks(alone(replace(wide, parties=parties)), "over-broad")
    assert words in found.message


def test_an_agreement_that_runs_too_long_or_is_not_reviewed_is_remarked_on(screening: Agreement) -> None:
    def told(**changes: object) -> list[str]:
        reviewed = replace(screening, review=datetime(2027, 3, 1, tzinfo=UTC))
        one = replace(reviewed, **changes)  # type: ignore[arg-type]
        return [remark.message for remark in remarks(alone(one), "over-broad") if "#" not in remark.ref]

    first = date(2026, 4, 1)
    assert told() == []
    assert told(period=Period.of_days(first, date(2028, 4, 1))) == ["it runs for more than 24 months"]
    assert told(period=Period.of_days(first, date(2029, 4, 1))) == ["it runs for three years or more"]
    assert told(review=None) == ["it is not reviewed within 12 months"]
    assert told(review=datetime(2027, 4, 2, tzinfo=UTC)) == ["it is not reviewed within 12 months"]


def test_an_agreement_that_outlives_its_umbrella_is_remarked_on() -> None:
    by_id = {one.id: one for one in table.world(table.CASES[0]).documents}
    umbrella, longer = by_id["northshire-tier1"], by_id["northshire-mash"]
    assert isinstance(umbrella, Agreement) and isinstance(longer, Agreement)
    for last, expected in ((date(2029, 3, 31), 0), (date(2029, 4, 1), 1)):
        one = replace(longer, period=Period.of_days(date(2027, 4, 1), last))
        found = remarks(alone(one, umbrella=umbrella), "over-broad")
        assert sum("ends first" in remark.message for remark in found if remark.ref == one.ref) == expected


def test_what_a_purpose_would_allow_and_nobody_gives_is_a_gap(screening: Agreement) -> None:
    (gap,) = remarks(alone(screening), "gap")
    assert gap.ref == "health -> police" and gap.severity == "note"
    assert "for S47: " in gap.message and "health.not_brought existence, could be summary" in gap.message
    full = {
        name: VOCABULARY.ceiling("S47", name)
        for name in VOCABULARY.shareable
        if VOCABULARY.categories[name].sector == "health"
    }
    assert remarks(alone(replace(screening, grants=(replace(screening.grants[0], modes=full),))), "gap") == ()


def test_the_calendar_tells_what_falls_due(screening: Agreement) -> None:
    (due,) = remarks(alone(screening), "calendar", datetime(2028, 3, 20, tzinfo=UTC))
    assert due.severity == "warning" and "it ends on 2028-03-31" in due.message


# --- past decisions -------------------------------------------------------------------------------------------------


def past_of(snapshot: Snapshot, several: list[tuple[Request, Facts, datetime]]) -> list[tuple[str, PastDecision]]:
    found = []
    for number, (request, facts, at) in enumerate(several):
        decision = decide(snapshot, VOCABULARY, request, facts, at)
        witnesses = {category: str(shown.under) for category, shown in decision.shown.items()}
        past = PastDecision(request=request, facts=facts, at=at, modes=decision.modes, witnesses=witnesses)
        found.append((str(number), past))
    return found


def test_what_if_names_exactly_the_decisions_that_deciding_each_anew_finds() -> None:
    named = 0
    for seed in disclosing()[:100]:
        w, draw = world(seed), Random(seed)
        after = changed(w, draw)
        grants = [grant for one in (*w.snapshot.agreements, *after.agreements) for grant in one.grants]
        asked = [(w.request, w.facts, w.at), *((*a_question(draw, draw.choice(grants)), AT) for _ in range(8))]
        found = replayed(past_of(w.snapshot, asked), w.snapshot, after, VOCABULARY)
        due = {
            str(number): {name: (was, will[name]) for name, was in one.items() if will[name] is not was}
            for number, question in enumerate(asked)
            for one, will in [(modes(w.snapshot, *question), modes(after, *question))]
        }
        told = {one.id: {name: (was, one.would[name]) for name, was in one.was.items()} for one in found.changed}
        assert told == {number: changes for number, changes in due.items() if changes}, seed
        assert found.looked_at == len(asked)
        named += len(told)
    assert named >= 30


def test_changed_decisions_are_grouped_by_who_whom_and_category() -> None:
    snapshot = estates.estate(agreements=30, agencies=12)
    asked = [(one.request, one.facts, one.at) for one in estates.requests(snapshot, 600)]
    agreement = next(one for one in snapshot.agreements if one.grants)
    draft = replace(agreement, version="9.0.0", grants=agreement.grants[1:], canonical=b"draft")
    found = what_if(past_of(snapshot, asked), snapshot, draft, VOCABULARY)
    assert 0 < len(found.changed) < 60 and found.looked_at == 600
    groups = found.groups()
    assert sum(group.count for group in groups) == sum(len(one.was) for one in found.changed)
    assert all(group.would < group.was for group in groups)
    assert groups[0].line.endswith("times") or groups[0].line.endswith("once")
    body = found.to_json()
    assert body["changed"] == len(found.changed)
    assert {one for group in body["groups"] for one in group["ids"]} == {one.id for one in found.changed}


def test_a_clause_that_no_receipt_cites_is_unused_and_one_that_is_new_is_not_yet() -> None:
    snapshot = estates.estate(agreements=30, agencies=12)
    past = [one for _, one in past_of(snapshot, [(a.request, a.facts, a.at) for a in estates.requests(snapshot, 400)])]
    period = Period(AT - timedelta(days=90), AT)
    found = {str(one.clause) for one in unused(snapshot, past, period)}
    cited = {clause for one in past for clause in one.witnesses.values()}
    every = {f"{one.ref}#{grant.id}" for one in snapshot.agreements for grant in one.grants}
    assert cited and found == every - cited
    assert unused(snapshot, past, Period(EARLY - timedelta(days=1), AT)) == ()
    earlier = [replace(one, at=AT - timedelta(days=100)) for one in past]
    again = unused(snapshot, earlier, period)
    assert {str(one.clause) for one in again} == every
    assert {one.last for one in again} == {None, AT - timedelta(days=100)}


def test_refusals_that_one_thing_would_have_undone_are_counted_by_it(screening: Agreement) -> None:
    clause = replace(screening.grants[0], threshold="L4")
    snapshot = alone(replace(screening, grants=(clause,)))
    space = Space.of(VOCABULARY, snapshot)
    estate = Estate(space, snapshot)
    pair = ("health", "police")
    one = witness(space, pair, estate.given(pair)[0].boxes[0])
    assert one is not None
    refused = replace(one.request, threshold=None)
    twice = replace(refused, role="DSL")
    asked = [(refused, one.facts, one.at), (refused, one.facts, one.at), (twice, one.facts, one.at)]
    asked.append((one.request, one.facts, one.at))
    past = [past for _, past in past_of(snapshot, asked)]
    (found,) = near_misses(snapshot, VOCABULARY, past)
    assert (found.test, found.count, found.categories) == ("threshold", 2, ("health.not_brought",))
    assert near_misses(snapshot, VOCABULARY, past, least=3) == ()

"""A view of many records at once shows of each what deciding on it alone shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from agreements import VOCABULARY, Facts, Mode, RequestRefused, Snapshot, decide, reference
from agreements.agreement import Period, Restriction
from agreements.decision import Modes, view
from agreements.signing import Signature
from agreements.vocabulary import RECORD
from tests.agreements.estates import estate, views
from tests.agreements.worlds import PIN, World, world


def test_a_view_shows_of_each_record_what_deciding_on_it_alone_shows() -> None:
    shown = 0
    for seed in range(400):
        w, draw = world(seed), Random(seed)
        records = list(_records(w, draw, 8))
        for facts, modes in zip(records, view(w.snapshot, VOCABULARY, w.request, records, w.at), strict=True):
            due = reference.decide(w.snapshot, VOCABULARY, w.request, facts, w.at).modes
            assert _of(modes, due) == due == decide(w.snapshot, VOCABULARY, w.request, facts, w.at).modes
            assert bool(modes) is any(due.values())
            shown += bool(modes)
    assert shown >= 200


def test_a_seal_on_one_record_hides_that_one_in_a_view_and_no_other() -> None:
    for w in _telling():
        source = w.facts.source
        seal = Restriction(
            id="seal", version="1.0.0", vocabulary=PIN, owner=source, authority="court_order", text="Sealed.",
            period=Period.of_days(date(2000, 1, 1), date(2100, 12, 31)), record="sealed", tag=None, purposes=None,
            categories=frozenset((*VOCABULARY.categories, RECORD)), at_most=Mode.NONE, lift="never", canonical=b"seal",
        )  # fmt: skip
        signed = Signature(source, seal.digest, "k", datetime(2000, 1, 2, tzinfo=UTC))
        snapshot = replace(
            w.snapshot, restrictions=(*w.snapshot.restrictions, seal), signatures=w.snapshot.signatures | {signed}
        )
        records = [replace(w.facts, record=record) for record in ("sealed", "open", None)]
        hidden, open_, unknown = view(snapshot, VOCABULARY, w.request, records, w.at)
        assert not hidden
        assert not unknown  # it may be the sealed one
        assert _of(open_, modes := decide(snapshot, VOCABULARY, w.request, records[1], w.at).modes) == modes
        for facts, told in zip(records, (hidden, open_, unknown), strict=True):
            due = reference.decide(snapshot, VOCABULARY, w.request, facts, w.at).modes
            assert _of(told, due) == due


def test_who_signs_a_text_again_later_has_signed_it_from_the_first_time() -> None:
    for w in _telling():
        again = {replace(one, signed_at=w.at + timedelta(days=30)) for one in w.snapshot.signatures}
        snapshot = replace(w.snapshot, signatures=w.snapshot.signatures | again)
        due = decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at).modes
        assert any(due.values())
        assert decide(snapshot, VOCABULARY, w.request, w.facts, w.at).modes == due


@pytest.mark.parametrize("agencies", [12, 50])
def test_a_view_of_an_estate_shows_what_deciding_shows(agencies: int) -> None:
    snapshot = estate(200, agencies)
    shown = 0
    for one in views(snapshot, 6, records=60):
        for facts, modes in zip(one.records, view(snapshot, VOCABULARY, one.request, one.records, one.at), strict=True):
            due = decide(snapshot, VOCABULARY, one.request, facts, one.at).modes
            assert _of(modes, due) == due
            shown += bool(modes)
    assert shown >= 10


def test_a_view_of_a_request_that_can_not_be_decided_is_refused_before_any_record() -> None:
    w = world(1)
    with pytest.raises(RequestRefused):
        view(w.snapshot, VOCABULARY, replace(w.request, role="HEAD_TEACHER"), (), w.at)
    with pytest.raises(RequestRefused):
        view(w.snapshot, VOCABULARY, w.request, (), w.at.replace(tzinfo=None))
    assert view(Snapshot.of(()), VOCABULARY, w.request, [w.facts], w.at)[0].mode("health.cp_is") is Mode.NONE


def _telling() -> list[World]:
    """Some worlds that disclose something."""
    told = [w for w in map(world, range(200)) if decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at).shown]
    assert len(told) >= 20
    return told


def _records(w: World, draw: Random, count: int) -> list[Facts]:
    """The world's own record, and others that share some of its facts."""
    records = [w.facts]
    for _ in range(count):
        name = draw.choice([field.name for field in fields(Facts)])
        records.append(replace(draw.choice(records), **{name: getattr(world(draw.randrange(400)).facts, name)}))
    return records


def _of(modes: Modes, due: Mapping[str, Mode]) -> dict[str, Mode]:
    return {category: modes.mode(category) for category in due}


def test_what_is_remembered_of_a_kind_of_request_holds_for_another_case_and_until_anything_turns() -> None:
    shown = turned = 0
    for seed in range(150):
        w, draw = world(seed), Random(seed)
        ends = [one.period for one in (*w.snapshot.agreements, *w.snapshot.restrictions)]
        instants = {
            w.at,
            *(event.at for event in w.snapshot.events),
            *(signature.signed_at for signature in w.snapshot.signatures),
            *(instant for period in ends for instant in (period.start, period.end)),
            *(one.review for one in w.snapshot.agreements if one.review is not None),
        }
        if (session := w.request.break_glass) is not None:
            instants |= {session.started + timedelta(minutes=minutes) for minutes in (0, 30, 60)}
        several = [at + timedelta(seconds=draw.choice((-1, 0))) for at in instants] + [w.at + timedelta(days=200)]
        seen = set()
        for at in draw.sample(several, len(several)):
            request = replace(w.request, case=draw.choice((w.request.case, "another")))
            due = reference.decide(w.snapshot, VOCABULARY, request, w.facts, at)
            assert decide(w.snapshot, VOCABULARY, request, w.facts, at) == due
            (modes,) = view(w.snapshot, VOCABULARY, request, [w.facts], at)
            assert _of(modes, due.modes) == due.modes
            shown += bool(due.shown)
            seen.add(bool(due.shown))
        turned += len(seen) > 1
    assert shown >= 100 and turned >= 20

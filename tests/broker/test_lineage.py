"""What became of persons: an old id leads on, a split says so and who saw the mixture."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import count, product
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from audit.events import Section, SectionName
from broker import lineage, splits
from broker.lineage import Followed
from broker.store import Store, Transaction
from broker.store.agencies import AgencyRow
from broker.store.log import EventRow
from broker.store.runs import LinkRunRow, PersonEventRow
from broker.store.searches import SearchCandidateRow, SearchRow, ViewPersonRow, ViewRow
from broker.trail import Trail
from linkage.matching.link import ClusterEvent

START = datetime(2026, 3, 1, tzinfo=UTC)
OPENED: Final[tuple[SectionName, ...]] = ("what",)
WHO = {"organisation": "northshire", "method": "nightly"}


def a_run(tx: Transaction, name: str) -> str:
    tx.add(
        LinkRunRow(
            id=name, night=START.date(), state="published", segments={}, counts={}, holder="here:1", lease_until=START,
            started_at=START,
        )
    )  # fmt: skip
    tx.flush()
    return name


def happened(trail: Trail, tx: Transaction, seq: int, *events: ClusterEvent) -> None:
    run = a_run(tx, f"run-{seq}")
    splits.keep(trail, tx, events, run=run, seq=seq, who=WHO, at=START + timedelta(days=seq))


def merge(into: str, *others: str) -> ClusterEvent:
    return ClusterEvent(kind="merge", before=(into, *others), after=(into,))


def split(one: str, *new: str) -> ClusterEvent:
    return ClusterEvent(kind="split", before=(one,), after=(one, *new))


def test_an_id_that_nothing_happened_to_is_itself(store: Store) -> None:
    with store.reading() as tx:
        assert lineage.successors(tx, "a") == Followed(ids=("a",), became="same")


def test_a_merged_id_leads_to_the_one_that_has_its_records(store: Store, trail: Trail) -> None:
    with store.transaction() as tx:
        happened(trail, tx, 1, merge("a", "b"))
        happened(trail, tx, 2, merge("c", "a"))
        assert lineage.successors(tx, "b") == Followed(ids=("c",), became="merged")
        assert lineage.successors(tx, "c") == Followed(ids=("c",), became="merged")


def test_a_split_id_leads_to_all_that_it_became_though_one_of_them_bears_its_name(store: Store, trail: Trail) -> None:
    with store.transaction() as tx:
        happened(trail, tx, 1, split("a", "b", "c"))
        happened(trail, tx, 2, merge("d", "c"))
        assert lineage.successors(tx, "a") == Followed(ids=("a", "b", "d"), became="split")
        after_the_split = START + timedelta(days=1)
        assert lineage.successors(tx, "a", since=after_the_split) == Followed(ids=("a",), became="same")
        assert lineage.successors(tx, "c", since=after_the_split) == Followed(ids=("d",), became="merged")


def test_what_came_of_a_person_before_a_reference_was_made_does_not_count(store: Store, trail: Trail) -> None:
    """`b` that came of `a` is another than the `b` that `a` was merged with once."""
    with store.transaction() as tx:
        happened(trail, tx, 1, merge("a", "b"))
        happened(trail, tx, 2, split("a", "e"))
        assert lineage.successors(tx, "b") == Followed(ids=("a", "e"), became="split")
        assert lineage.successors(tx, "e") == Followed(ids=("e",), became="same")


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), max_size=4))
def test_following_an_id_loses_none_of_its_records_and_is_exact_where_nothing_was_split(
    nights: list[list[int]],
) -> None:
    """An oracle: records move between persons night by night, and each knows where it is."""
    records = range(6)
    where = {record: f"p{record % 3}" for record in records}
    first, fresh = dict(where), count()
    events: dict[str, list[PersonEventRow]] = {}
    for seq, groups in enumerate(nights, 1):
        now = _named(dict(enumerate(groups)), where, fresh)
        for event in _events(where, now):
            for before, after in product(event.before, event.after):
                row = PersonEventRow(seq=seq, run="", kind=event.kind, before=before, after=after, at=START)
                events.setdefault(before, []).append(row)
        where = now
    for person in set(first.values()):
        held = {where[record] for record in records if first[record] == person}
        led = lineage.led_to(person, events)
        assert held <= set(led.ids)
        assert led.became == "split" or held == set(led.ids)


def _named(groups: dict[int, int], before: dict[int, str], fresh: count[int]) -> dict[int, str]:
    taken: set[str] = set()
    names: dict[int, str] = {}
    for group in sorted(set(groups.values())):
        olds = sorted({before[record] for record, its in groups.items() if its == group} - taken)
        names[group] = olds[0] if olds else f"n{next(fresh)}"
        taken.add(names[group])
    return {record: names[group] for record, group in groups.items()}


def _events(before: dict[int, str], now: dict[int, str]) -> list[ClusterEvent]:
    pairs = {(before[record], now[record]) for record in before}
    events = []
    for after in {after for _, after in pairs}:
        olds = tuple(sorted(old for old, new in pairs if new == after))
        if len(olds) > 1:
            events.append(ClusterEvent(kind="merge", before=olds, after=(after,)))
    for old in {old for old, _ in pairs}:
        news = tuple(sorted(new for one, new in pairs if one == old))
        if len(news) > 1:
            events.append(ClusterEvent(kind="split", before=(old,), after=news))
    return events


def seen(tx: Transaction, person: str, *, by: str, opened: bool, at: datetime) -> None:
    """A search of `by` listed a person, and perhaps a view showed something of them."""
    if tx.one(AgencyRow, id="council") is None:
        tx.add(
            AgencyRow(
                id="council", name="Council", party_type="local_authority", sector="social_care", state="active",
                partnership="northshire", key_epoch="1", key_fingerprint="f", canaries=[], roles=[], contacts={},
                enrolled_at=START, changed_at=START,
            )
        )  # fmt: skip
        tx.flush()
    search = f"search-{by}-{person}"
    tx.add(
        SearchRow(
            id=search, agency="council", person=by, role="MASH_ANALYST", session="s", purpose="S47", basis={},
            case_hmac="c", household=[], family_informed="yes", event_id=f"searched-{search}", outcome="searched",
            created_at=at, expires_at=at,
        )
    )  # fmt: skip
    tx.flush()
    tx.add(
        SearchCandidateRow(
            search=search, candidate="1", person_id=person, band="match", upper=True, agreed=[], differs=[], records=[]
        )
    )
    if opened:
        tx.add(
            ViewRow(
                id=f"view-{search}", search=search, candidate="1", agency="council", person=by,
                event_id=f"viewed-{search}", outcome="disclosed", at=at, ends_at=at,
            )
        )  # fmt: skip
        tx.flush()
        tx.add(ViewPersonRow(view=f"view-{search}", person_id=person))
    tx.flush()


def test_a_split_lists_everyone_who_was_shown_the_mixture(store: Store, trail: Trail) -> None:
    with store.transaction() as tx:
        seen(tx, "a", by="ann", opened=True, at=START)
        seen(tx, "a", by="bob", opened=False, at=START + timedelta(hours=1))
        seen(tx, "z", by="cat", opened=True, at=START)
        told = [(one.organisation, one.person, one.kind) for one in splits.who_saw(tx, "a")]
        assert sorted(told) == [
            ("council", "ann", "search"), ("council", "ann", "view"), ("council", "bob", "search"),
        ]  # fmt: skip
        assert splits.who_saw(tx, "a", until=START - timedelta(days=1)) == ()
        happened(trail, tx, 1, split("a", "b"), merge("y", "z"))
    trail.advance_pending()
    with store.reading() as tx:
        [event] = tx.all(EventRow, type="link.split")
    what = trail.opening(event.event_id, show=OPENED).sections["what"]
    assert isinstance(what, Section)
    said = dict(what.body)  # type: ignore[arg-type]
    assert (said["persons"], said["seen_persons"], said["shown"]) == (1, 1, 3)
    assert said["organisations"] == ["council"]
    [[before, after, saw]] = json.loads(trail.blob(event.event_id, "saw"))
    assert (before, after) == ("a", ["a", "b"])
    assert {entry[1] for entry in saw} == {"ann", "bob"}

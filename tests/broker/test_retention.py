"""What the log says of people expires when it should, not before, and never while a hold lies on it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
import rfc8785

from audit.events import EVENT_TYPES, SECTIONS, Event
from broker import erasure, retention
from broker.errors import NotFound, WrongState
from broker.keys import Keys
from broker.settings import LogRetention
from broker.store import Store, erasing
from broker.store.event_keys import EventKeyRow, SubjectKeyRow
from broker.store.log import EventRow, SubjectRow
from broker.trail import Trail, new_event_id
from tests.broker.test_erasure import CHILD, RECORD, SIBLING, officer

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
WHO = {"organisation": "northshire", "method": "schedule"}
TERMS = LogRetention()


def years(count: float) -> datetime:
    return START + timedelta(days=365.25 * count)


def happened(store: Store, trail: Trail, type_: str, *about: str, at: datetime = START) -> str:
    event = Event(
        id=new_event_id(), type=type_, who={"organisation": "northshire-icb"}, what={}, why={"case": "c" * 64},
        subjects=sorted(about), detail={},
    )  # fmt: skip
    with store.transaction() as tx:
        trail.record(tx, event, about=about, blobs={"more": b"more"}, at=at)
    trail.advance_pending()
    return event.id


def ran(store: Store, trail: Trail, at: datetime, born: Mapping[str, int] | None = None, **terms: Any) -> set[str]:
    """The events whose bodies a run took."""
    done = retention.run(store, trail, TERMS.model_copy(update=terms), lambda: born or {}, who=WHO, at=at)
    trail.advance_pending()
    with store.reading() as reading:
        row = reading.all(EventRow, type="retention.run", order=["-seq"])[0]
        gone = {one.event_id for one in reading.all(EventRow, erased_under=row.event_id)}
    assert len(gone) == done.events
    assert done.sha256 == sha256(rfc8785.dumps(sorted(gone))).hexdigest()
    what = trail.opening(row.event_id, show=SECTIONS).body("what")
    assert isinstance(what, dict)
    assert (what["sha256"], what["by_type"], what["held"]) == (done.sha256, dict(done.by_type), done.held)
    return gone


def test_the_last_contact_counts_and_not_the_event(store: Store, trail: Trail, keys: Keys) -> None:
    first = happened(store, trail, "search.authorised", CHILD)
    last = happened(store, trail, "disclosure.authorised", CHILD, RECORD, at=years(3))
    assert ran(store, trail, years(8.9)) == set()
    assert ran(store, trail, years(9.1)) == {first, last}
    with pytest.raises(NotFound):
        trail.opening(first, show=SECTIONS)
    with store.reading() as reading:
        assert reading.all(SubjectRow) == []
        assert reading.all(SubjectKeyRow, idx_hmac=keys.subject_index(CHILD)) == []
        assert reading.all(EventKeyRow, event_id=first) == []


def test_a_child_is_kept_until_twenty_five(store: Store, trail: Trail, keys: Keys) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)
    born = {keys.subject_index(CHILD): 2017}
    assert ran(store, trail, datetime(2042, 12, 31, tzinfo=UTC), born) == set()
    assert ran(store, trail, datetime(2043, 1, 1, 1, tzinfo=UTC), born) == {seen}


def test_whose_decade_of_birth_is_told_is_taken_for_the_youngest_of_it(store: Store, trail: Trail, keys: Keys) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)
    born = {keys.subject_index(CHILD): 1990}
    assert ran(store, trail, datetime(2059, 12, 31, tzinfo=UTC), born, until_age=60) == set()
    assert ran(store, trail, datetime(2060, 1, 1, 1, tzinfo=UTC), born, until_age=60) == {seen}


def test_an_event_about_two_stays_for_the_later_of_them(store: Store, trail: Trail, keys: Keys) -> None:
    both = happened(store, trail, "disclosure.authorised", CHILD, SIBLING)
    later = happened(store, trail, "search.authorised", SIBLING, at=years(4))
    assert ran(store, trail, years(9)) == set()
    assert ran(store, trail, years(10.1)) == {both, later}


def test_where_nobody_is_known_the_plain_years_count_and_technical_events_go_sooner(store: Store, trail: Trail) -> None:
    plain, technical = happened(store, trail, "audit.searched"), happened(store, trail, "auth.login")
    for_good = happened(store, trail, "key.rotated")
    assert ran(store, trail, years(1.9)) == set()
    assert ran(store, trail, years(2.1)) == {technical}
    assert ran(store, trail, years(6.9)) == set()
    assert ran(store, trail, years(7.1)) == {plain}
    assert for_good not in ran(store, trail, years(90))
    assert trail.opening(for_good, show=("who",)).body("who")


def test_a_type_may_have_years_of_its_own(store: Store, trail: Trail) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)
    assert ran(store, trail, years(0.9), by_type={"search.authorised": 1}) == set()
    assert ran(store, trail, years(1.1), by_type={"search.authorised": 1}) == {seen}
    with pytest.raises(WrongState, match=r"log_retention\.by_type"):
        ran(store, trail, years(1), by_type={"search.authorized": 1})


def test_what_a_legal_hold_lies_on_stays_and_is_counted(store: Store, trail: Trail, keys: Keys) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)
    held = erasure.hold(store, trail, keys, officer(), ids=[CHILD], reason="public_inquiry", at=START).answer
    done = retention.run(store, trail, TERMS, dict, who=WHO, at=years(40))
    assert (done.held, seen in ran(store, trail, years(41))) == (1, False)
    erasure.release(store, trail, officer(), hold=held.hold, at=years(41))
    assert seen in ran(store, trail, years(42))


def test_a_hold_that_comes_while_a_run_looks_still_counts(store: Store, trail: Trail, keys: Keys) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)

    def born() -> Mapping[str, int]:  # asked for after the first look, before anything goes
        erasure.hold(store, trail, keys, officer(), ids=[CHILD], reason="complaint", at=years(20))
        return {}

    done = retention.run(store, trail, TERMS, born, who=WHO, at=years(20))
    assert (done.events, done.held) == (0, 1)
    assert trail.opening(seen, show=("who",)).body("who")


def test_a_dry_run_says_what_would_go_and_takes_nothing(store: Store, trail: Trail) -> None:
    seen = happened(store, trail, "search.authorised", CHILD)
    done = retention.run(store, trail, TERMS, dict, who=WHO, at=years(20), dry=True)
    assert done.by_type == {"search.authorised": 1}
    assert trail.opening(seen, show=("who",)).body("who")
    with store.reading() as reading:
        assert reading.all(EventRow, type="retention.run") == []


def test_of_very_much_a_part_goes_at_a_time_the_oldest_first(
    store: Store, trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_MOST", 2)
    monkeypatch.setattr(erasing, "AT_ONCE", 2)
    events = [happened(store, trail, "auth.login", at=START + timedelta(hours=n // 2)) for n in range(5)]
    gone: list[str] = []
    for more in (True, True, False):
        done = retention.run(store, trail, TERMS, dict, who=WHO, at=years(3))
        assert done.more == more
        gone.append(done.sha256)
    assert len(set(gone)) == 3
    with store.reading() as reading:
        assert {row.event_id for row in reading.all(EventRow, type="auth.login") if row.erased_at} == set(events)


def test_every_type_of_event_has_its_years() -> None:
    terms = {name: retention.kept_years(TERMS, name) for name in EVENT_TYPES}
    assert set(terms.values()) == {None, 2, 7}
    assert json.dumps(sorted(name for name, count in terms.items() if count is None)).count("search") == 0
    assert not retention.FOR_GOOD & retention.TECHNICAL
    assert set(EVENT_TYPES) >= (retention.FOR_GOOD | retention.TECHNICAL)

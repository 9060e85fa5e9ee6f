"""Whoever asks too much is stopped, whatever the order of the calls, and two at one moment don't pass as one."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.budgets import RATE_LIMIT, exceeded
from broker.callers import Caller
from broker.settings import Budgets
from broker.store import Store, Transaction
from broker.store.agencies import AgencyRow
from broker.store.searches import SearchCandidateRow, SearchRow, ViewRow
from broker.trail import new_event_id
from tests.builders_area import ANALYST
from tests.sizes import LONG

Kind = Literal["searches", "views"]
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
BUDGETS = Budgets(
    person_searches_hour=2, person_searches_day=4, organisation_searches_hour=3, organisation_searches_day=6,
    person_views_hour=1, person_views_day=3, organisation_views_hour=2, organisation_views_day=4,
)  # fmt: skip
WINDOWS = (("hour", timedelta(hours=1)), ("day", timedelta(days=1)))
Done = tuple[Kind, str, str, datetime]


def caller(organisation: str, person: str) -> Caller:
    return Caller(kind="person", organisation=organisation, person=person, role=ANALYST, method="gateway-assertion")


def an_agency(tx: Transaction, name: str) -> None:
    if tx.one(AgencyRow, id=name) is None:
        tx.add(
            AgencyRow(
                id=name, name=name, party_type="nhs", sector="health", state="active", partnership="northshire",
                key_epoch="1", key_fingerprint="f", canaries=[], roles=[], contacts={}, enrolled_at=START,
                changed_at=START,
            )
        )  # fmt: skip
        tx.flush()


def written(tx: Transaction, kind: Kind, who: Caller, at: datetime, *, outcome: str = "searched") -> None:
    """What an answer leaves behind."""
    an_agency(tx, who.organisation)
    search = new_event_id()
    long_ago = START - timedelta(days=9)
    tx.add(
        SearchRow(
            id=search, agency=who.organisation, person=who.person, role=ANALYST, session="s", purpose="S47", basis={},
            case_hmac="c", household=[], family_informed="yes", event_id=new_event_id(), outcome=outcome,
            created_at=at if kind == "searches" else long_ago, expires_at=at,
        )
    )  # fmt: skip
    tx.flush()
    if kind == "views":
        tx.add(
            SearchCandidateRow(
                search=search, candidate="1", person_id="p", band="match", upper=True, agreed=[], differs=[], records=[]
            ),
            ViewRow(
                id=new_event_id(), search=search, candidate="1", agency=who.organisation, person=who.person,
                event_id=new_event_id(), outcome="disclosed", at=at, ends_at=at,
            ),
        )  # fmt: skip
    tx.flush()


def free_again(done: list[Done], kind: Kind, organisation: str, person: str, at: datetime) -> datetime | None:
    """By counting one by one: when the last full window has lost its first; None where none is full."""
    full = []
    for whose in ("person", "organisation"):
        for window, within in WINDOWS:
            mine = [
                when
                for what, where, who, when in done
                if (what, where) == (kind, organisation) and when > at - within and (whose != "person" or who == person)
            ]
            if len(mine) >= getattr(BUDGETS, f"{whose}_{kind}_{window}"):
                full.append(min(mine) + within)
    return max(full, default=None)


@settings(deadline=None, max_examples=150 if LONG else 12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(
            st.integers(0, 200), st.sampled_from(["searches", "views"]), st.sampled_from(["council", "icb"]),
            st.sampled_from(["ann", "bo"]), st.booleans(),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_nobody_gets_past_a_budget_by_any_order_of_calls(
    store: Store, calls: list[tuple[int, Kind, str, str, bool]]
) -> None:
    done: list[Done] = []
    prefix = new_event_id()[:8]  # each example has organisations of its own
    now = START
    for minutes, kind, organisation, person, refused_otherwise in calls:
        now += timedelta(minutes=minutes)
        who = caller(f"{prefix}-{organisation}", person)
        with store.transaction() as tx:
            over = exceeded(tx, who, kind, BUDGETS, at=now)
            due = free_again(done, kind, organisation, person, now)
            assert (None if over is None else now + over[1]) == due
            if over is None:
                written(tx, kind, who, now)
                done.append((kind, organisation, person, now))
            elif kind == "searches" and refused_otherwise:
                written(tx, kind, who, now, outcome=RATE_LIMIT)


def test_of_many_at_one_moment_no_more_pass_than_may(store: Store) -> None:
    passed = []

    def ask(person: str) -> None:
        with store.transaction() as tx:
            if exceeded(tx, caller("icb", person), "searches", BUDGETS, at=START) is None:
                written(tx, "searches", caller("icb", person), START)
                passed.append(person)

    with store.transaction() as tx:
        an_agency(tx, "icb")
    threads = [threading.Thread(target=ask, args=(f"p-{n % 4}",)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == BUDGETS.organisation_searches_hour
    assert max(map(passed.count, passed)) <= BUDGETS.person_searches_hour

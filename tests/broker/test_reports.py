"""Searching the log and opening it: who may, what is recorded, what fits."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from audit.events import Event
from broker import reports
from broker.callers import Caller
from broker.errors import Malformed, NotAllowed, NotFound
from broker.reports import LogFilter
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.log import EventRow, FlagRow
from broker.trail import Trail

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
OFFICER = Caller(
    kind="officer", organisation="northshire", person="ig-1", role="IG_OFFICER", session="s-1", method="oidc"
)
CHILD = "3b86a628-b8e2-4ccd-8d76-3988c53787e9"
SIBLING = "9fe4e60e-2e56-4eb4-b027-a85b93444770"
RECORD = f"northshire-icb/health/{'a' * 64}"
CLAUSE = "northshire-mash@3.0.0#attendance-s47"


def logged(store: Store, trail: Trail, type_: str = "disclosure.authorised", *, at: datetime = AT, **parts: Any) -> str:
    """An event of the log, by default a disclosure of a child to an analyst."""
    given: dict[str, Any] = {
        "who": {"organisation": "northshire-council", "person": "p-81", "role": "MASH_ANALYST"},
        "what": {"outcome": "disclosed", "categories": {"northshire-icb": {"health.registration": "status"}}},
        "why": {"purpose": "S47", "case": "c" * 64, "threshold": "L4", "clauses": [CLAUSE], "art6": "public_task"},
        "subjects": [CHILD, RECORD],
        "recipients": [{"organisation": "northshire-council", "person": "p-81"}],
        "detail": {"hidden": {"SHIELDED": 1}},
    } | parts
    about = given.pop("about", given["subjects"])
    event = Event(id=secrets.token_hex(16), type=type_, **given)
    with store.transaction() as tx:
        trail.record(tx, event, about=about, at=at)
    trail.advance_pending()
    return event.id


def an_organisation(store: Store, organisation: str, sector: str) -> None:
    with store.transaction() as tx:
        tx.add(
            AgencyRow(
                id=organisation, name=organisation.title(), party_type=sector, sector=sector, partnership="northshire",
                key_epoch="2026-1", key_fingerprint="f" * 64, canaries=[], roles=[], contacts={}, enrolled_at=AT,
                changed_at=AT,
            )
        )  # fmt: skip


def searched(store: Store, trail: Trail, *, at: datetime = AT + timedelta(hours=1), **wanted: Any) -> reports.LogSearch:
    search = reports.search_log(store, trail, OFFICER, reason="lawfulness", wanted=LogFilter(**wanted), at=at)
    return reports.found(store, trail, OFFICER, search=search, at=at)


def ids(found: reports.LogSearch) -> list[str]:
    return [event.event_id for event in found.events]


ON_SQLITE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
"""For what is the same whatever the database."""


def types(store: Store) -> list[str]:
    with store.reading() as reading:
        return [row.type for row in reading.all(EventRow, order=["seq"])]


@pytest.fixture
def four(store: Store, trail: Trail) -> Mapping[str, str]:
    """Four events that differ in everything a search can ask."""
    an_organisation(store, "northshire-council", "council")
    an_organisation(store, "northshire-icb", "health")
    other = {"organisation": "northshire-icb", "person": "p-7", "role": "SOCIAL_WORKER"}
    made = {
        "shown": logged(store, trail),
        "sibling": logged(store, trail, subjects=[SIBLING], at=AT + timedelta(minutes=1)),
        "refused": logged(
            store, trail, "search.refused", who=other, what={"outcome": "NO_CASE_REF"}, why={"purpose": "MASH_SCREEN"},
            subjects=[], at=AT + timedelta(minutes=2),
        ),
        "broken": logged(
            store, trail, who=other, what={"outcome": "disclosed", "break_glass": True}, why={"purpose": "S47"},
            subjects=[CHILD], at=AT + timedelta(minutes=3),
        ),
    }  # fmt: skip
    with store.transaction() as tx:
        tx.add(FlagRow(id="f-1", event_id=made["sibling"], rule="out_of_hours", raised_at=AT))
    return made


FITS: Final[tuple[tuple[dict[str, Any], str], ...]] = (
    ({}, "broken refused sibling shown"),
    ({"since": AT + timedelta(minutes=2)}, "broken refused"),
    ({"until": AT + timedelta(minutes=1)}, "shown"),
    ({"organisation": "northshire-icb"}, "broken refused"),
    ({"person": "p-81"}, "sibling shown"),
    ({"type": "search.refused"}, "refused"),
    ({"types": ("search.refused", "disclosure.authorised")}, "broken refused sibling shown"),
    ({"op": "consultation", "until": AT + timedelta(minutes=30)}, "refused"),
    ({"purpose": "MASH_SCREEN"}, "refused"),
    ({"case": "c" * 64}, "sibling shown"),
    ({"subject": CHILD, "op": "disclosure"}, "broken shown"),
    ({"subject": RECORD, "op": "disclosure"}, "shown"),
    ({"outcome": "NO_CASE_REF"}, "refused"),
    ({"break_glass": True}, "broken"),
    ({"flagged": True}, "sibling"),
    ({"flagged": False, "op": "disclosure"}, "broken shown"),
    ({"subject": CHILD, "organisation": "northshire-council", "purpose": "S47"}, "shown"),
)


def test_a_search_finds_what_fits_each_of_its_filters_newest_first(
    store: Store, trail: Trail, four: Mapping[str, str]
) -> None:
    names = {event: name for name, event in four.items()}
    for wanted, fits in FITS:
        found = searched(store, trail, **{"until": AT + timedelta(hours=1)} | wanted)
        assert [names[event] for event in ids(found)] == fits.split(), wanted


def test_who_saw_a_child_when_why_and_under_which_clause(store: Store, trail: Trail, four: Mapping[str, str]) -> None:
    *_, shown = searched(store, trail, subject=CHILD).found
    event = shown.event
    assert (event.person, event.role, event.organisation, event.at) == (
        "p-81",
        "MASH_ANALYST",
        "northshire-council",
        AT,
    )
    assert (event.purpose, shown.threshold, shown.clauses) == ("S47", "L4", (CLAUSE,))
    assert shown.sources == ("northshire-icb",)


def test_a_gateways_case_token_finds_what_was_logged_under_its_keyed_form(store: Store, trail: Trail) -> None:
    token = "d" * 64
    event = logged(store, trail, why={"purpose": "S47", "case": trail.keys.case_index(token)})
    found = searched(store, trail, case=token)
    assert ids(found) == [event]
    assert found.filter.case == trail.keys.case_index(token)  # what the log keeps of it


def test_an_audit_search_is_itself_logged_once_and_leads_to_no_further_entry(
    store: Store, trail: Trail, four: Mapping[str, str]
) -> None:
    """Attack 38."""
    before = len(types(store))
    search = reports.search_log(
        store, trail, OFFICER, reason="integrity", wanted=LogFilter(op="disclosure"), at=AT + timedelta(hours=1)
    )
    for _ in range(3):
        reports.found(store, trail, OFFICER, search=search, at=AT + timedelta(hours=1))
    trail.advance_pending()
    assert types(store)[before:] == ["audit.searched"]
    opened = trail.opening(search, show=("who", "what", "why"))
    assert opened.body("why") == {"reason": "integrity"}
    assert opened.body("what")["filter"] == {"op": "disclosure"}  # type: ignore[index,call-overload]


def test_a_search_shows_the_log_as_it_stood_before_it_and_the_next_one_finds_it(store: Store, trail: Trail) -> None:
    logged(store, trail)
    first = searched(store, trail, op="consultation")
    assert first.found == ()
    logged(store, trail, "search.authorised", at=AT + timedelta(hours=2))
    again = reports.found(store, trail, OFFICER, search=first.search, at=AT + timedelta(hours=1))
    assert again.found == ()
    assert first.search in ids(searched(store, trail, op="consultation", at=AT + timedelta(hours=3)))


def test_pages_follow_one_another_without_a_gap_or_a_repeat_however_the_log_grows(store: Store, trail: Trail) -> None:
    made = [logged(store, trail, at=AT) for _ in range(7)]  # all of one millisecond
    search = reports.search_log(
        store, trail, OFFICER, reason="lawfulness", wanted=LogFilter(subject=CHILD), at=AT + timedelta(minutes=1)
    )
    read: list[str] = []
    after = ""
    while True:
        page = reports.found(store, trail, OFFICER, search=search, after=after, limit=3, at=AT + timedelta(minutes=2))
        read += ids(page)
        logged(store, trail, at=AT + timedelta(minutes=2))
        if page.next is None:
            break
        after = page.next
    assert read == made[::-1]


@ON_SQLITE
@pytest.mark.parametrize("field", ["person", "subject", "organisation", "case", "outcome"])
def test_what_somebody_typed_and_the_log_does_not_know_is_not_recorded(store: Store, trail: Trail, field: str) -> None:
    """Attack 45, at this door: a name typed where a reference is due."""
    logged(store, trail)
    found = searched(store, trail, **{field: "Wilhelmina"})
    assert found.found == ()
    opened = trail.opening(found.search, show=("who", "what", "why", "subjects"))
    assert "Wilhelmina" not in str(opened.to_json())
    assert opened.body("what")["filter"] == {field: None}  # type: ignore[index,call-overload]


@ON_SQLITE
def test_a_search_for_a_child_is_among_what_the_log_holds_on_that_child(store: Store, trail: Trail) -> None:
    logged(store, trail)
    found = searched(store, trail, subject=CHILD)
    assert trail.opening(found.search, show=("subjects",)).body("subjects") == [CHILD]
    assert found.search in ids(searched(store, trail, subject=CHILD, at=AT + timedelta(hours=2)))


@ON_SQLITE
@pytest.mark.parametrize(
    "caller",
    [
        Caller(kind="officer", organisation="northshire", person="l-1", role="LINK_REVIEWER", method="oidc"),
        Caller(kind="officer", organisation="northshire", person="o-1", role="OPERATOR", method="oidc"),
        Caller(kind="person", organisation="northshire-council", person="p-1", role="IG_OFFICER", method="gateway"),
        Caller(kind="agency", organisation="northshire-council", role="IG_OFFICER", method="private_key_jwt"),
    ],
)
def test_nobody_but_information_governance_at_the_broker_reads_the_log(
    store: Store, trail: Trail, caller: Caller
) -> None:
    event = logged(store, trail)
    search = searched(store, trail).search
    for look in (
        lambda: reports.search_log(store, trail, caller, reason="lawfulness", wanted=LogFilter(), at=AT),
        lambda: reports.found(store, trail, caller, search=search, at=AT),
        lambda: reports.event_page(store, trail, caller, event_id=event, at=AT),
        lambda: reports.opening_of(store, trail, caller, event, at=AT),
        lambda: reports.proof_of(trail, caller, event),
    ):
        before = len(types(store))
        with pytest.raises(NotAllowed):
            look()
        assert len(types(store)) == before


@ON_SQLITE
def test_another_officer_does_not_read_the_pages_of_a_search(store: Store, trail: Trail) -> None:
    search = searched(store, trail).search
    other = Caller(kind="officer", organisation="northshire", person="ig-2", role="IG_OFFICER", method="oidc")
    with pytest.raises(NotFound):
        reports.found(store, trail, other, search=search, at=AT)


@ON_SQLITE
def test_a_search_says_why_in_the_words_of_the_act(store: Store, trail: Trail) -> None:
    before = types(store)
    with pytest.raises(Malformed, match="lawfulness, self_monitoring, integrity, criminal_proceedings"):
        reports.search_log(store, trail, OFFICER, reason="curiosity", wanted=LogFilter(), at=AT)
    assert types(store) == before

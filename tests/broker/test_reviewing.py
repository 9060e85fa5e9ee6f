"""Reviews of the log: what waits, who may decide and who may not, the second look, and that a look is logged once."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest
from fastapi.testclient import TestClient

from audit.events import Event
from broker import anomalies, reviewing, signin
from broker import clock as wall
from broker.callers import Caller
from broker.errors import Conflict, Malformed, NotAllowed, NotFound, WrongState
from broker.reviewing import bank_holidays, due
from broker.settings import DemoPerson
from broker.store import Store
from broker.store.audit_reviews import CaseRow, waiting_cases
from broker.store.log import EventRow, FlagRow
from broker.store.log_search import count_of
from broker.trail import Trail
from broker.wiring import Broker
from tests.broker.platform import an_app

AT: Final = datetime(2026, 11, 19, 10, 0, tzinfo=UTC)  # a Thursday
COUNCIL: Final = "northshire-council"
ON_SQLITE = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
NOTE: Final = "The team manager confirms the allocation"


def officer(person: str, role: str = "IG_OFFICER") -> Caller:
    return Caller(kind="officer", organisation="northshire", person=person, role=role, method="demo")


ONE, TWO, THREE = officer("ig-1"), officer("ig-2"), officer("ig-3")


def logged(
    store: Store, trail: Trail, type_: str = "disclosure.authorised", *, at: datetime = AT, person: str = "p-81",
    flagged: bool = True, **parts: Any,
) -> str:  # fmt: skip
    """An event of the log, flagged by hand unless told otherwise; its id."""
    given: dict[str, Any] = {
        "who": {"organisation": COUNCIL, "person": person, "role": "SOCIAL_WORKER"}, "what": {"outcome": "disclosed"},
        "why": {"purpose": "S47", "case": "c" * 64}, "subjects": ["child-1"], "recipients": [], "detail": {},
    } | parts  # fmt: skip
    event = Event(id=secrets.token_hex(16), type=type_, **given)
    with store.transaction() as tx:
        trail.record(tx, event, about=given["subjects"], at=at)
        if flagged:
            tx.add(FlagRow(id=f"f-{event.id}", event_id=event.id, rule="out_of_hours", raised_at=at))
    trail.advance_pending()
    return event.id


def types(store: Store, trail: Trail, after: int = 0) -> list[str]:
    trail.advance_pending()
    with store.reading() as reading:
        return [row.type for row in reading.all(EventRow, order=["seq"]) if row.seq >= after]


def waiting(store: Store, trail: Trail, caller: Caller = ONE, **given: Any) -> list[str]:
    found = reviewing.queue(store, trail, caller, reason="lawfulness", at=AT, **given)
    return [one.event.event_id for one in found]


def taken(store: Store, trail: Trail, event: str, caller: Caller = ONE) -> None:
    waiting(store, trail, caller)
    reviewing.take(store, trail, caller, event_id=event, at=AT)


def decided(
    store: Store, trail: Trail, event: str, caller: Caller = ONE, decision: str = "training", at: datetime = AT
) -> None:
    taken(store, trail, event, caller)
    reviewing.decide(store, trail, caller, event_id=event, decision=decision, words=NOTE, at=at)


# --- The way of a review --------------------------------------------------------------------------------------------


def test_one_decides_with_a_note_and_another_signs_it_off(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    size = trail.advance_pending()
    decided(store, trail, event)
    done = reviewing.sign_off(store, trail, TWO, event_id=event, agrees=True, at=AT).answer
    assert (done.state, done.reviews[-1].decision, done.reviews[-1].second) == ("closed", "training", "agreed")
    assert types(store, trail, size) == ["audit.searched", "audit.reviewed", "audit.signed_off"]
    assert waiting(store, trail) == []
    found = reviewing.case_of(store, trail, THREE, event_id=event, reason="lawfulness", at=AT)
    assert [one.note for one in found.reviews] == [NOTE]
    assert found.rules == ("out_of_hours",)
    recorded = trail.opening(found.reviews[0].recorded, show=("what", "detail"))
    assert recorded.body("detail") == {"note": NOTE}
    assert NOTE not in str(recorded.body("what"))


def test_what_waits_is_counted_without_ones_own_and_a_breach_is_listed_once_decided(store: Store, trail: Trail) -> None:
    first, second = logged(store, trail), logged(store, trail, person="ig-2")
    assert waiting(store, trail) == sorted([first, second])
    late = due(AT, "flag") + timedelta(seconds=1)
    with store.reading() as reading:
        assert [one[:4] for one in waiting_cases(reading, states=("open",), not_by="", at=AT)] == [
            ("flag", "open", 2, 0)
        ]
        (left,) = waiting_cases(reading, states=("open",), not_by="ig-2", at=late)
        assert count_of(reading, ("disclosure.authorised",), 0, 1 << 50) == 2
    assert (left.cases, left.late, left.first_due) == (1, 1, due(AT, "flag"))
    decided(store, trail, first, decision="breach")
    since = AT - timedelta(days=1)
    found = reviewing.breaches(store, trail, TWO, since=since, reason="lawfulness", at=AT)
    assert [one.event.event_id for one in found] == [first]
    assert reviewing.breaches(store, trail, officer("p-81"), since=since, reason="lawfulness", at=AT) == ()


@ON_SQLITE
def test_a_note_is_nowhere_in_clear_in_the_database(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    decided(store, trail, event)
    with store.engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr]
    assert event in dump
    assert NOTE not in dump
    assert NOTE.encode().hex().upper() not in dump.upper()


@ON_SQLITE
def test_a_decision_sent_back_is_reviewed_anew_and_both_reviews_stay(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    decided(store, trail, event, decision="justified")
    sent = reviewing.sign_off(store, trail, TWO, event_id=event, agrees=False, words="Which case?", at=AT).answer
    assert (sent.state, sent.taken_by) == ("open", "")
    decided(store, trail, event, TWO, decision="breach", at=AT + timedelta(hours=1))
    done = reviewing.sign_off(store, trail, ONE, event_id=event, agrees=True, at=AT).answer
    assert [(one.reviewer, one.decision, one.second) for one in done.reviews] == [
        ("ig-1", "justified", "sent_back"), ("ig-2", "breach", "agreed"),
    ]  # fmt: skip


@ON_SQLITE
def test_every_step_is_taken_once_and_in_its_order(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    with pytest.raises(NotFound):
        reviewing.decide(store, trail, ONE, event_id="0" * 32, decision="justified", at=AT)
    waiting(store, trail)
    with pytest.raises(WrongState):
        reviewing.decide(store, trail, ONE, event_id=event, decision="justified", at=AT)  # it is not taken
    with pytest.raises(WrongState):
        reviewing.sign_off(store, trail, TWO, event_id=event, agrees=True, at=AT)
    reviewing.take(store, trail, ONE, event_id=event, at=AT)
    with pytest.raises(WrongState):
        reviewing.take(store, trail, TWO, event_id=event, at=AT)
    with pytest.raises(NotAllowed):
        reviewing.decide(store, trail, TWO, event_id=event, decision="justified", at=AT)
    for wrong in ({"decision": "fine"}, {"decision": "breach"}, {"decision": "training", "words": "a\x07b"},
                  {"decision": "breach", "words": "x" * 1001}):  # fmt: skip
        with pytest.raises(Malformed):
            reviewing.decide(store, trail, ONE, event_id=event, at=AT, **wrong)
    given = reviewing.take(store, trail, ONE, event_id=event, to="ig-2", at=AT)
    assert given.taken_by == "ig-2"
    reviewing.decide(store, trail, TWO, event_id=event, decision="justified", at=AT)
    with pytest.raises(WrongState):
        reviewing.take(store, trail, THREE, event_id=event, at=AT)
    reviewing.sign_off(store, trail, ONE, event_id=event, agrees=True, at=AT)
    with pytest.raises(WrongState):
        reviewing.sign_off(store, trail, THREE, event_id=event, agrees=True, at=AT)


def test_what_somebody_took_and_left_until_it_is_overdue_another_takes_over(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    waiting(store, trail)
    due = reviewing.take(store, trail, ONE, event_id=event, to="ig-who-left", at=AT).due_at
    with pytest.raises(WrongState, match="once it is overdue"):
        reviewing.take(store, trail, TWO, event_id=event, at=due)
    assert reviewing.take(store, trail, TWO, event_id=event, at=due + timedelta(seconds=1)).taken_by == "ig-2"


# --- Who may not (attack 37) ----------------------------------------------------------------------------------------


@ON_SQLITE
@pytest.mark.parametrize(
    "parts",
    [
        {"who": {"organisation": "northshire", "person": "ig-1", "role": "IG_OFFICER"}},
        {"who": {"organisation": COUNCIL, "person": "p-81", "delegate": "ig-1"}},
        {"recipients": [{"organisation": "northshire", "person": "ig-1"}]},
        {"what": {"outcome": "erased", "proposed_by": "ig-1"}},
    ],
)
def test_nobody_reviews_or_signs_off_an_event_in_which_they_acted_37(
    store: Store, trail: Trail, parts: dict[str, Any]
) -> None:
    event = logged(store, trail, **parts)
    waiting(store, trail, TWO)
    size = trail.advance_pending()
    with pytest.raises(NotAllowed):
        reviewing.take(store, trail, ONE, event_id=event, at=AT)
    with pytest.raises(NotAllowed):
        reviewing.case_of(store, trail, ONE, event_id=event, reason="lawfulness", at=AT)
    reviewing.take(store, trail, TWO, event_id=event, at=AT)
    with pytest.raises(NotAllowed):
        reviewing.take(store, trail, TWO, event_id=event, to="ig-1", at=AT)
    with pytest.raises(NotAllowed):
        reviewing.decide(store, trail, ONE, event_id=event, decision="justified", at=AT)
    reviewing.decide(store, trail, TWO, event_id=event, decision="justified", at=AT)
    with pytest.raises(NotAllowed):
        reviewing.sign_off(store, trail, ONE, event_id=event, agrees=True, at=AT)
    # whoever tried is in the log with what they tried
    tried = [kind for kind in types(store, trail, size) if kind != "audit.reviewed"]
    assert tried == ["auth.denied"] * 5
    with store.reading() as reading:  # four by whoever acted, one by a colleague who would give it to them
        denied = [row.actor_ref for row in reading.all(EventRow, type="auth.denied")]
    assert sorted(denied) == ["ig-1"] * 4 + ["ig-2"]
    assert reviewing.sign_off(store, trail, THREE, event_id=event, agrees=True, at=AT).answer.state == "closed"


def test_whoever_decided_does_not_sign_that_off_37(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    decided(store, trail, event)
    size = trail.advance_pending()
    with pytest.raises(NotAllowed):
        reviewing.sign_off(store, trail, ONE, event_id=event, agrees=True, at=AT)
    assert types(store, trail, size) == ["auth.denied"]
    assert reviewing.sign_off(store, trail, TWO, event_id=event, agrees=True, at=AT).answer.state == "closed"


@ON_SQLITE
def test_the_queue_shows_nobody_what_waits_about_themselves(store: Store, trail: Trail) -> None:
    own = logged(store, trail, who={"organisation": "northshire", "person": "ig-1", "role": "IG_OFFICER"})
    other = logged(store, trail)
    assert waiting(store, trail, ONE) == [other]
    assert set(waiting(store, trail, TWO)) == {own, other}
    listed = reviewing.flags(
        store, trail, ONE, since=AT - timedelta(days=1), until=AT + timedelta(days=1), reason="lawfulness", at=AT
    )
    assert [one.event.event_id for one in listed] == [other]


@ON_SQLITE
def test_nobody_but_information_governance_does_any_of_it(store: Store, trail: Trail) -> None:
    event = logged(store, trail)
    for caller in (officer("op-1", "OPERATOR"), officer("links-1", "LINK_REVIEWER"),
                   Caller(kind="person", organisation=COUNCIL, person="p-1", role="IG_OFFICER", method="x")):  # fmt: skip
        for attempt in (
            lambda who=caller: waiting(store, trail, who),
            lambda who=caller: reviewing.take(store, trail, who, event_id=event, at=AT),
            lambda who=caller: reviewing.decide(store, trail, who, event_id=event, decision="justified", at=AT),
            lambda who=caller: reviewing.sign_off(store, trail, who, event_id=event, agrees=True, at=AT),
            lambda who=caller: anomalies.flag(store, trail, who, event_id=event, why="pattern", at=AT),
            lambda who=caller: anomalies.change(
                store, trail, who, rule="burst", name="an_hour", value=9, why="trial", at=AT
            ),
        ):  # fmt: skip
            with pytest.raises(NotAllowed):
                attempt()


# --- What waits -----------------------------------------------------------------------------------------------------


@ON_SQLITE
def test_every_break_glass_waits_without_a_flag_and_for_one_working_day(store: Store, trail: Trail) -> None:
    opened = logged(store, trail, "breakglass.opened", flagged=False)
    shown = logged(store, trail, what={"outcome": "disclosed", "break_glass": True}, flagged=False)
    logged(store, trail, flagged=False)
    plain = logged(store, trail, at=AT - timedelta(days=1))
    found = reviewing.queue(store, trail, ONE, reason="lawfulness", at=AT)
    assert [(one.event.event_id, one.kind) for one in found[2:]] == [(plain, "flag")]
    assert {one.event.event_id: one.kind for one in found[:2]} == {opened: "break_glass", shown: "break_glass"}
    assert {one.due_at for one in found[:2]} == {datetime(2026, 11, 21, tzinfo=UTC)}  # the end of Friday
    assert not found[0].overdue
    late = reviewing.queue(store, trail, ONE, reason="lawfulness", at=datetime(2026, 11, 21, 0, 1, tzinfo=UTC))
    assert [one.overdue for one in late] == [True, True, False]
    size = trail.advance_pending()
    decided(store, trail, opened, decision="justified")
    assert types(store, trail, size)[-1] == "breakglass.reviewed"


def test_working_days_know_weekends_and_bank_holidays() -> None:
    assert due(datetime(2026, 11, 20, 18, 0, tzinfo=UTC), "break_glass") == datetime(2026, 11, 24, tzinfo=UTC)
    assert due(datetime(2026, 12, 24, 18, 0, tzinfo=UTC), "break_glass") == datetime(2026, 12, 30, tzinfo=UTC)
    assert bank_holidays(2026) == {  # gov.uk/bank-holidays, England and Wales
        date(2026, 1, 1), date(2026, 4, 3), date(2026, 4, 6), date(2026, 5, 4), date(2026, 5, 25), date(2026, 8, 31),
        date(2026, 12, 25), date(2026, 12, 28),
    }  # fmt: skip
    assert bank_holidays(2021) >= {date(2021, 12, 27), date(2021, 12, 28), date(2021, 4, 2), date(2021, 4, 5)}
    assert bank_holidays(2022) >= {date(2022, 12, 26), date(2022, 12, 27), date(2022, 1, 3)}


# --- A look is logged once (attack 38) ------------------------------------------------------------------------------


def test_a_look_at_the_queue_is_logged_once_and_leads_to_no_look_of_its_own_38(store: Store, trail: Trail) -> None:
    logged(store, trail)
    size = trail.advance_pending()
    waiting(store, trail)
    assert types(store, trail, size) == ["audit.searched"]
    waiting(store, trail)
    assert types(store, trail, size) == ["audit.searched"] * 2  # the first did not come into the queue
    later = wall.now() + timedelta(hours=2)
    assert anomalies.run(store, trail, who={"organisation": "northshire"}, at=later).flagged == 0
    assert anomalies.run(store, trail, who={"organisation": "northshire"}, at=later).events == 0
    assert types(store, trail, size) == ["audit.searched"] * 2


@ON_SQLITE
def test_a_reason_that_the_act_does_not_have_opens_nothing(store: Store, trail: Trail) -> None:
    size = trail.advance_pending()
    with pytest.raises(Malformed):
        reviewing.queue(store, trail, ONE, reason="curiosity", at=AT)
    assert types(store, trail, size) == []


@ON_SQLITE
def test_a_flag_by_hand_is_an_event_and_stands_once_for_each_reason(store: Store, trail: Trail) -> None:
    event = logged(store, trail, flagged=False)
    size = trail.advance_pending()
    anomalies.flag(store, trail, ONE, event_id=event, why="complaint", at=AT)
    with pytest.raises(Conflict):
        anomalies.flag(store, trail, TWO, event_id=event, why="complaint", at=AT)
    with pytest.raises(NotFound):
        anomalies.flag(store, trail, ONE, event_id="0" * 32, why="complaint", at=AT)
    with pytest.raises(Malformed):
        anomalies.flag(store, trail, ONE, event_id=event, why="dislike", at=AT)
    assert types(store, trail, size) == ["audit.flagged"]
    assert waiting(store, trail) == [event]


# --- By HTTP --------------------------------------------------------------------------------------------------------


def test_a_review_by_http_and_the_own_event_refused_with_403(tmp_path: Any) -> None:
    people = tuple(DemoPerson(person=f"ig-{n}", label=f"IG {n}", role="IG_OFFICER") for n in (1, 2))
    site = TestClient(
        an_app(tmp_path, base_url="https://testserver", demo_people=people), base_url="https://testserver"
    )
    broker: Broker = site.app.state.broker  # type: ignore[attr-defined]

    def acting(person: str) -> Any:
        cookie, session = signin.sign_in_to_demo(broker.store, broker.settings, person, at=wall.now())
        headers = {"X-CSRF-Token": session.csrf, "Origin": "https://testserver", "Cookie": f"{signin.COOKIE}={cookie}"}

        def call(method: str, path: str, **body: Any) -> Any:
            site.cookies.clear()
            return site.request(method, f"/audit{path}", json=body or None, headers=headers)

        return call

    one, two = acting("ig-1"), acting("ig-2")
    event = logged(broker.store, broker.trail, flagged=False)
    assert one("POST", "/flags", event=event, why="reported").status_code == 201
    listed = one("GET", "/reviews?purpose=lawfulness").json()
    assert [case["event"]["event_id"] for case in listed["cases"]] == [event]
    assert one("POST", f"/reviews/{event}/take", to="").json()["taken_by"] == "ig-1"
    done = one("POST", f"/reviews/{event}/decision", decision="justified", note="")
    assert (done.status_code, done.json()["state"]) == (201, "decided")
    assert one("POST", f"/reviews/{event}/signoff", agrees=True, note="").status_code == 403
    assert two("POST", f"/reviews/{event}/signoff", agrees=True, note="").json()["state"] == "closed"
    assert one("GET", "/reviews").status_code == 422  # without a reason
    flags = one("GET", f"/flags?purpose=integrity&first={date(2026, 1, 1)}&last={date(2036, 1, 1)}").json()["flags"]
    assert [flag["rule"] for flag in flags] == ["by_hand.reported"]
    assert one("GET", "/flags?purpose=integrity&first=2026-01-01&last=2026-01-02&rule=robin").status_code == 400

    register = one("GET", "/rules").json()
    unmeasured = {rule["rule"]: rule["not_measured_because"] for rule in register["rules"] if not rule["measured"]}
    assert "own_family" in unmeasured
    assert all(unmeasured.values())
    changed = one("POST", "/rules/burst/thresholds", name="an_hour", value=30, why="trial")
    assert (changed.status_code, changed.json()["before"]) == (201, 60)
    assert one("POST", "/rules/burst/thresholds", name="an_hour", value=0, why="trial").status_code == 400
    (only,) = one("GET", "/rules").json()["changes"]
    assert {key: only[key] for key in ("rule", "name", "before", "value", "why", "by")} == {
        "rule": "burst", "name": "an_hour", "before": 60, "value": 30, "why": "trial", "by": "ig-1",
    }  # fmt: skip


def test_whoever_takes_an_event_while_it_is_being_queued_has_it_and_it_is_queued_once(
    store: Store, trail: Trail
) -> None:
    event = logged(store, trail)
    said: list[str] = []
    other = threading.Thread(
        target=lambda: said.append(reviewing.take(store, trail, ONE, event_id=event, at=AT).state)
    )  # fmt: skip
    with store.transaction() as tx:
        assert reviewing.admit(tx, at=AT) == 1
        other.start()
        other.join(0.3)
    other.join(20)
    assert said == ["taken"]
    with store.reading() as reading:
        assert [row.state for row in reading.all(CaseRow)] == ["taken"]

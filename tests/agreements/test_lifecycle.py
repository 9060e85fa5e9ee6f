"""In which state a document is: from signatures, events and days, and from nothing that anybody wrote down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import permutations
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agreements import Agreement, Signature, Snapshot, StatusEvent
from agreements.agreement import DocumentRef, Period
from agreements.lifecycle import STEPS, HostStatus, State, last_day, newest_first, standings, state, warnings
from agreements.signing import ACTS
from tests.agreements.worlds import AT, PARTIES, a_restriction, an_agreement

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Life:
    """An agreement, perhaps under an umbrella, and all that happened to either."""

    agreement: Agreement
    umbrella: Agreement | None
    signatures: tuple[Signature, ...]
    events: tuple[StatusEvent, ...]
    host: HostStatus = "active"
    above: HostStatus = "active"

    def state(self, at: datetime) -> State:
        return state(
            self.agreement, self.signatures, self.events, host_status=self.host, at=at, umbrella=self.umbrella,
            umbrella_status=self.above,
        )  # fmt: skip


@pytest.mark.parametrize(
    "at",
    [
        datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
    ],
)  # fmt: skip
def test_at_the_ends_of_the_calendar_what_falls_due_is_told_without_a_fault(at: datetime) -> None:
    life = a_life(3)
    due = warnings([life.agreement], at, within=10**7)
    assert bool(due) is (at.year == 1) and all(one.days > 365_000 and one.words for one in due)
    assert warnings([life.agreement], at) == ()


def a_life(seed: int) -> Life:
    """Two years of one agreement: most parties sign, some late; now and then one pauses, goes on, leaves."""
    draw = Random(seed)
    umbrella = an_agreement(draw, "umbrella", grants=0) if draw.random() < 0.4 else None
    agreement = an_agreement(draw, "dsa", grants=1, under=umbrella)
    documents = [document for document in (agreement, umbrella) if document is not None]
    instants = [AT + timedelta(days=draw.randint(-90, 400), hours=draw.randint(0, 23)) for _ in range(6)]
    signatures = tuple(
        Signature(party, document.digest, f"{party}/1", draw.choice([AT - 200 * DAY, AT - 200 * DAY, *instants]))
        for document in documents
        for party in PARTIES
        if draw.random() < 0.8
    )
    events = tuple(
        StatusEvent(
            draw.choice(PARTIES), draw.choice([agreement, *documents]).digest,
            draw.choice(("suspend", "suspend", "suspend", "resume", "resume", "withdraw", "supersede")),
            draw.choice(instants), "k/1",
        )
        for _ in range(draw.choice((0, 0, 1, 2, 3, 5, 8)))
    )  # fmt: skip
    return Life(agreement=agreement, umbrella=umbrella, signatures=signatures, events=events)


def instants_of(life: Life) -> list[datetime]:
    """Every instant at which something changes, the moment before it, and some between."""
    turns = {one.signed_at for one in life.signatures} | {event.at for event in life.events}
    for document in (life.agreement, life.umbrella):
        if document is not None:
            turns |= {document.period.start, document.period.end} | ({document.review} if document.review else set())
    return sorted({each for turn in turns for each in (turn - timedelta(seconds=1), turn, turn + timedelta(hours=5))})


def pairs_live(life: Life, at: datetime) -> bool:
    documents = [life.agreement, *([life.umbrella] if life.umbrella else [])]
    snapshot = Snapshot.of(documents, life.signatures, life.events)
    return any(snapshot.standing(life.agreement, *pair, at).live for pair in permutations(PARTIES, 2))


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32))
def test_an_agreement_is_active_exactly_when_it_is_live_for_some_two_of_its_parties(seed: int) -> None:
    life = a_life(seed)
    for at in instants_of(life):
        assert (life.state(at).name == "active") == pairs_live(life, at), (at, life.state(at))


def test_the_lives_drawn_come_through_every_state() -> None:
    names = Counter(life.state(at).name for life in map(a_life, range(300)) for at in instants_of(life))
    assert set(names) == {"in_signature", "agreed", "active", "suspended", "expired", "terminated", "superseded"}
    assert min(names.values()) > 50


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), shuffled=st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_makes_a_difference(seed: int, shuffled: Random) -> None:
    life = a_life(seed)
    signatures, events = list(life.signatures) * 2, list(life.events) * 2
    shuffled.shuffle(signatures)
    shuffled.shuffle(events)
    other = replace(life, signatures=tuple(signatures), events=tuple(events))
    for at in instants_of(life):
        assert other.state(at) == life.state(at)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_each_party_stands_where_its_signature_and_events_say(seed: int) -> None:
    life = a_life(seed)
    for at in instants_of(life):
        found = standings(life.agreement, life.signatures, life.events, at)
        said = party_states(life, at)
        assert {party: one.state for party, one in found.items()} == said
        assert all((one.since is None) == (one.state == "unsigned") for one in found.values())
        assert all(one.since is None or one.since <= at for one in found.values())


def party_states(life: Life, at: datetime) -> dict[str, str]:
    """The same, told event by event."""
    mine = life.agreement.digest
    signed = {one.party for one in life.signatures if one.digest == mine and one.signed_at <= at}
    states = {party: "signed" if party in signed else "unsigned" for party in life.agreement.parties}
    words = {"suspend": "suspended", "resume": "signed", "withdraw": "withdrawn", "supersede": "superseded"}
    for event in sorted(life.events, key=lambda event: (event.at, event.do)):
        if event.digest == mine and event.at <= at and states.get(event.party) in ("signed", "suspended"):
            states[event.party] = words[event.do]
    return states


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_what_happens_later_changes_nothing_before(seed: int) -> None:
    life = a_life(seed)
    for at in instants_of(life)[::3]:
        known = replace(
            life,
            signatures=tuple(one for one in life.signatures if one.signed_at <= at),
            events=tuple(event for event in life.events if event.at <= at),
        )
        assert known.state(at) == life.state(at)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
@example(seed=3520)  # terminated, and then the next party leaves for a newer version
def test_what_has_ended_stays_ended_unless_another_party_joins(seed: int) -> None:
    life = a_life(seed)
    before: tuple[datetime, State] | None = None
    for at in instants_of(life):
        now = life.state(at)
        if before is not None and before[1].ended:
            joined = any(before[0] < one.signed_at <= at for one in life.signatures)
            assert joined or (now.name, now.since) == (before[1].name, before[1].since)
        before = (at, now)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), party=st.sampled_from(PARTIES))
def test_a_party_that_joins_later_moves_no_other_party(seed: int, party: str) -> None:
    life = a_life(seed)
    joins = AT + 30 * DAY
    before = replace(life, signatures=tuple(one for one in life.signatures if one.party != party))
    joined = Signature(party, life.agreement.digest, f"{party}/1", joins)
    after = replace(before, signatures=(*before.signatures, joined))
    for at in (joins - DAY, joins, joins + 100 * DAY):
        then, now = before.state(at).parties, after.state(at).parties
        assert {name: one for name, one in then.items() if name != party} == {
            name: one for name, one in now.items() if name != party
        }
        assert (party in after.state(at).awaited) == (at < joins)


# --- One life, told ----------------------------------------------------------------------------------------------


def plain(**changes: object) -> Agreement:
    """An agreement of 1 April 2026 to 31 March 2028, to be reviewed by 31 March 2027."""
    made = an_agreement(Random(1), "dsa", grants=1)
    known = {
        "period": Period.of_days(date(2026, 4, 1), date(2028, 3, 31)),
        "review": Period.of_days(date(2027, 3, 31), date(2027, 3, 31)).end,
        "if_review_overdue": "warn", "under": None,
    }  # fmt: skip
    return replace(made, **(known | changes))  # type: ignore[arg-type]


def signed(document: Agreement, *parties: str, at: datetime = datetime(2026, 3, 1, tzinfo=UTC)) -> list[Signature]:
    return [Signature(party, document.digest, f"{party}/1", at) for party in parties]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_from_draft_to_the_end() -> None:
    document = plain()
    both = signed(document, "council", "health")

    def name(at: str, signatures: list[Signature], host: HostStatus = "active", *events: StatusEvent) -> str:
        return state(document, signatures, events, host_status=host, at=utc(at)).name

    def event(party: str, do: str, at: str) -> StatusEvent:
        assert do in ACTS
        return StatusEvent(party, document.digest, do, utc(at), f"{party}/1")

    assert name("2026-03-02", [], "draft") == "draft"
    assert name("2026-03-02", both, "draft") == "in_signature"
    assert name("2026-03-02", both[:1]) == "in_signature"
    assert name("2026-03-31T22:59:59", both) == "agreed"
    assert name("2026-03-31T23:00:00", both) == "active"  # midnight in London, in summer time
    assert name("2026-06-01", both, "suspended") == "suspended"
    one = event("health", "suspend", "2026-06-01")
    assert name("2026-06-02", both, "active", one) == "active"  # the council's own disclosures go on
    every = (one, event("council", "suspend", "2026-06-01"))
    assert name("2026-06-02", both, "active", *every) == "suspended"
    assert name("2026-06-04", both, "active", *every, event("health", "resume", "2026-06-03")) == "active"
    assert name("2026-06-02", both, "active", event("health", "withdraw", "2026-06-01")) == "terminated"
    assert name("2026-06-02", both, "active", event("health", "supersede", "2026-06-01")) == "superseded"
    assert name("2028-03-31T22:59:59", both) == "active"
    assert name("2028-03-31T23:00:00", both) == "expired"
    gone = event("health", "withdraw", "2026-06-01")
    assert name("2030-01-01", both, "active", gone) == "terminated"  # it had ended before its last day came


def test_what_is_suspended_says_by_whom_and_since_when() -> None:
    umbrella = replace(plain(), id="umbrella", canonical=b"umbrella", grants=())
    document = plain(under=DocumentRef(umbrella.ref, umbrella.digest), canonical=b"under")
    signatures = [*signed(umbrella, "council", "health"), *signed(document, "council", "health")]

    def said(at: str, *events: StatusEvent, above: Agreement | None = umbrella, **more: HostStatus) -> State:
        return state(
            document, signatures, events, host_status=more.get("host", "active"), at=utc(at), umbrella=above,
            umbrella_status=more.get("umbrella", "active"),
        )  # fmt: skip

    assert said("2026-06-01").name == "active"
    assert (said("2026-06-01", umbrella="suspended").name, said("2026-06-01", above=None).why) == (
        "suspended",
        "umbrella",
    )
    short = replace(umbrella, period=Period.of_days(date(2026, 4, 1), date(2026, 5, 31)))
    ended = said("2026-06-01", above=short)
    assert (ended.name, ended.why, ended.since) == ("expired", "umbrella", utc("2026-05-31T23:00:00"))
    strict = replace(document, if_review_overdue="suspend")
    at = utc("2027-03-31T23:00:00")
    overdue = state(strict, signatures, (), host_status="active", at=at, umbrella=umbrella)
    assert (overdue.name, overdue.why, overdue.since) == ("suspended", "review", at)
    alone = StatusEvent("health", umbrella.digest, "withdraw", utc("2026-06-01"), "health/1")
    assert (said("2026-07-01", alone).name, said("2026-07-01", alone).parties["health"].state) == (
        "terminated",
        "signed",
    )


def test_a_restriction_is_its_owners_alone_and_a_pause_does_not_lift_it() -> None:
    rule = replace(a_restriction(Random(1), "r12"), owner="health")
    by_owner = [Signature("health", rule.digest, "health/1", utc("2026-04-01"))]
    by_other = [Signature("police", rule.digest, "police/1", utc("2026-04-01"))]

    def name(at: str, signatures: list[Signature], *events: StatusEvent, host: HostStatus = "active") -> str:
        return state(rule, signatures, events, host_status=host, at=utc(at)).name

    assert name("2026-06-01", by_other, host="draft") == "draft"
    assert name("2026-06-01", by_other) == "in_signature"
    assert name("2026-04-30T22:59:59", by_owner) == "agreed"
    assert name("2026-06-01", by_owner) == "active"
    pause = StatusEvent("health", rule.digest, "suspend", utc("2026-05-20"), "health/1")
    assert name("2026-06-01", by_owner, pause) == "active"
    lifted = StatusEvent("health", rule.digest, "withdraw", utc("2026-05-20"), "health/1")
    assert name("2026-06-01", by_owner, lifted) == "terminated"
    assert name("2027-05-01", by_owner) == "expired"
    for events in ((), (pause,), (lifted,)):
        for at in ("2026-04-30T22:59:59", "2026-06-01", "2027-05-01"):
            snapshot = Snapshot.of([rule], by_owner, events)
            assert (name(at, by_owner, *events) == "active") == snapshot.in_force(rule, utc(at))


# --- The calendar ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "days", "step"),
    [
        ("2027-12-31T23:59:59", None, None),
        ("2028-01-01T00:00:00", 90, 90),
        ("2028-01-31T00:00:00", 60, 60),
        ("2028-03-01T00:00:00", 30, 30),
        ("2028-03-23T23:59:59", 8, 30),
        ("2028-03-24T00:00:00", 7, 7),
        ("2028-03-26T23:30:00", 4, 7),  # summer time has begun: in London it is the 27th
        ("2028-03-31T22:59:59", 0, 7),
        ("2028-03-31T23:00:00", None, None),  # it has ended, and is no warning any more
    ],
)
def test_a_last_day_is_warned_of_at_90_60_30_and_7_days(at: str, days: int | None, step: int | None) -> None:
    document = plain(review=None)
    found = warnings([document, document], utc(at))
    assert [(one.kind, one.days, one.step) for one in found] == ([] if days is None else [("expiry", days, step)])
    assert all(one.due == date(2028, 3, 31) == last_day(document) and one.stops for one in found)


def test_the_end_of_a_restriction_stops_nothing_and_lets_more_be_shown() -> None:
    (due,) = warnings([a_restriction(Random(1), "r12")], utc("2027-04-29T12:00:00"))
    assert (due.kind, due.days, due.stops) == ("expiry", 1, False)
    assert due.words == "r12@1.0.0: its last day is 30 Apr 2027, in 1 day; then it holds nothing back any more."


def test_a_review_is_warned_of_and_then_overdue_until_the_end() -> None:
    document = plain()
    (near,) = warnings([document], utc("2027-03-01"))
    assert (near.kind, near.due, near.days, near.step, near.stops) == ("review", date(2027, 3, 31), 30, 30, False)
    (last,) = warnings([document], utc("2027-03-31T22:59:59"))
    assert (last.kind, last.days) == ("review", 0)
    (over,) = warnings([document], utc("2027-03-31T23:00:00"))
    assert (over.kind, over.days, over.step, over.stops) == ("review_overdue", -1, None, False)
    (stops,) = warnings([replace(document, if_review_overdue="suspend")], utc("2027-04-30"))
    assert (stops.kind, stops.days, stops.stops) == ("review_overdue", -30, True)


@given(day=st.dates(date(2026, 1, 1), date(2030, 1, 1)))
def test_the_step_is_the_latest_that_has_come(day: date) -> None:
    document = plain(period=Period.of_days(date(2025, 1, 1), date(2028, 12, 31)))
    for one in warnings([document], datetime(day.year, day.month, day.day, 12, tzinfo=UTC)):
        if one.step is not None:
            assert 0 <= one.days <= one.step
            assert not any(one.days <= step < one.step for step in STEPS)
            assert one.days == (one.due - day).days


def test_warnings_come_by_day_and_versions_as_people_count() -> None:
    later, sooner = plain(id="a"), plain(id="b", period=Period.of_days(date(2026, 4, 1), date(2028, 3, 30)))
    refs = [one.ref.partition("@")[0] for one in warnings([later, sooner], utc("2028-03-25")) if one.kind == "expiry"]
    assert refs == ["b", "a"]
    assert newest_first(["m@3.9.0", "m@3.10.0", "a@1.0.0", "m@10.0.0"]) == [
        "a@1.0.0",
        "m@10.0.0",
        "m@3.10.0",
        "m@3.9.0",
    ]

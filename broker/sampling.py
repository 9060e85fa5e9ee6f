"""Draw the sample of a period that has ended: by a seed that a witness fixed, so that nobody chose whom to check.

All of break-glass, of sensitive categories in detail, and by lot of the rest.  The draw is an event: the checkpoint it
is by, the digest of its candidates and of what was drawn; the candidates lie sealed beside it, so that an officer can
hand them to whoever wants to draw again (`auditor sample`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import rfc8785

from agreements import VOCABULARY
from agreements.vocabulary import Mode
from audit.checkpoint import Signature, SignedCheckpoint
from audit.events import Event, Json
from audit.policy import QuorumMissing
from audit.sampling import LEAST, PERCENT, Candidate, SampleInvalid, Seed, digest, draw, seed_of
from broker import reviewing, witnesses
from broker.callers import Caller
from broker.deciding import Released
from broker.errors import Malformed, NotFound, WrongState
from broker.reports.looking import check_reader, note
from broker.reports.reading import Source
from broker.reports.register import BREAK_GLASS, DISCLOSURES
from broker.reports.table import About, OpenedEvent, Period, utc
from broker.shards import log_keys
from broker.store import Reading, Store
from broker.store.audit_reviews import SampleRow, first_lines_since, first_signed_since, oldest_ms, shown_between
from broker.store.shards import every_shard
from broker.store.witnesses import checkpoint_at, cosignatures, enrolled_at, newest_cosigned
from broker.trail import Trail, Who, new_event_id

SENSITIVE: Final = 3  # the tier of categories whose detail is always looked at
WEEK: Final = timedelta(days=7)
YEAR: Final = timedelta(days=366)
NOT_MEASURED: Final[Mapping[str, str]] = {
    "staff_linked": "The broker does not know which children are linked to members of staff: no organisation tells it.",
}
"""What ought to be drawn in any case, and can't be told here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A sample, as listed.  `by_reason`: how many by lot, and how many for what they are."""

    sample: str
    since: datetime
    until: datetime
    percent: int
    least: int
    candidates: int
    drawn: int
    by_reason: Mapping[str, int]
    candidates_sha256: str
    witnessed: bool
    note: str
    drawn_by: str
    drawn_at: datetime
    event_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A week of which no sample was drawn.  `why` it can't be; empty where it can.  `late`: for a week or more."""

    since: datetime
    until: datetime
    why: str
    late: bool

    @property
    def period(self) -> Period:
        """What a sample is to be drawn of."""
        return Period(self.since, self.until)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"since": utc(self.since), "until": utc(self.until), "why": self.why, "late": self.late}


@dataclass(frozen=True, slots=True, kw_only=True)
class Redraw:
    """All that it takes to draw a sample again: `auditor sample` reads it."""

    sample: Drawn
    candidates: tuple[Candidate, ...]
    ids: Mapping[str, str]  # what was drawn, and why each

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "since": utc(self.sample.since), "until": utc(self.sample.until), "percent": self.sample.percent,
            "least": self.sample.least, "note": self.sample.note, "witnessed": self.sample.witnessed,
            "candidates_sha256": self.sample.candidates_sha256,
            "candidates": [asdict(one) for one in self.candidates], "drawn": dict(self.ids),
        }  # fmt: skip


def take(
    store: Store,
    trail: Trail,
    period: Period,
    *,
    who: Who,
    percent: int = PERCENT,
    least: int = LEAST,
    at: datetime,
) -> Released[Drawn]:
    """Draw the sample of a period, and put what is drawn into the queue of reviews.

    Raises Malformed for a period that has not ended or terms that are none, WrongState if it was drawn before, if
    nothing was disclosed, or if it waits for witnesses (a log that has none says so in the sample's record),
    LogUnavailable.
    """
    if period.until > at:
        raise Malformed("period: it has not ended")
    if not 1 <= percent <= 100 or not 0 <= least <= 10_000:
        raise Malformed("percent, least: 1 to 100, and at least 0")
    trail.advance_pending()
    with store.reading() as reading:
        if reading.one(SampleRow, since=period.since, until=period.until) is not None:
            raise WrongState("the sample of this period was drawn")
        seed = _seed(reading, period.until, at=at)
        left_out = _left_out(reading, period.until)
    candidates = tuple(_candidates(store, trail, period, at=at))
    if not candidates:
        raise WrongState("nothing was disclosed in this period: there is nothing to draw")
    try:
        sample = draw(candidates, seed.value, percent=percent, least=least)
    except SampleInvalid as wrong:
        raise Malformed(str(wrong)) from None
    by_reason = dict(sorted(Counter(sample.drawn.values()).items()))
    listed = digest(candidates).hex()
    what: dict[str, Json] = {
        "kind": "sample", "since": utc(period.since), "until": utc(period.until), "percent": percent, "least": least,
        "candidates": len(candidates), "candidates_sha256": listed, "drawn": len(sample.drawn), "by_reason": by_reason,
        "drawn_sha256": sha256(rfc8785.dumps(dict(sample.drawn))).hexdigest(), "witnessed": seed.witnessed,
        "checkpoint": seed.note, "logs_left_out": left_out, "not_measured": sorted(NOT_MEASURED),
    }  # fmt: skip
    event = Event(id=new_event_id(), type="audit.flagged", who=who, what=what, why={}, detail={})
    beside = rfc8785.dumps({"candidates": [asdict(one) for one in candidates], "drawn": dict(sample.drawn)})
    with store.transaction() as tx:
        entry = trail.record(tx, event, blobs={"sample": beside}, at=at)
        row = SampleRow(
            id=new_event_id(), since=period.since, until=period.until, percent=percent, least=least,
            candidates=len(candidates), drawn=len(sample.drawn), candidates_sha256=listed, note=seed.note,
            witnessed=seed.witnessed, drawn_by=str(who.get("person", "")), drawn_at=at, event_id=event.id,
            by_reason=by_reason,
        )  # fmt: skip
        tx.add(row)
        reviewing.queue_up(tx, sample.drawn, kind="sample", at=at)
        drawn = _listed(row)
    return Released(drawn, trail.receipt(entry))


def samples(store: Store, caller: Caller) -> tuple[Drawn, ...]:
    """Every sample, newest first.  Raises NotAllowed."""
    check_reader(caller)
    with store.reading() as reading:
        return tuple(_listed(row) for row in reading.all(SampleRow, order=["-until", "id"]))


def owed(reading: Reading, *, at: datetime) -> tuple[Owed, ...]:
    """The whole weeks of the last year in which somebody was shown something and that no sample covers; oldest first.

    A week stays owed until it is drawn, however long a host, or witnesses that are gone, put that off.
    """
    found, week = [], due_week(at)
    rows = [row for row in reading.all(SampleRow, order=["since", "id"]) if row.until > at - YEAR]
    begun = oldest_ms(reading)
    first = at - YEAR if begun is None else max(at - YEAR, datetime.fromtimestamp(begun / 1000, UTC))
    while week.until > first:
        shown = shown_between(reading, week.since, week.until, types=(*DISCLOSURES, *BREAK_GLASS))
        if shown and not _covered(week, rows):
            why, late = _waits_for(reading, week, at=at), at >= week.until + WEEK
            found.append(Owed(since=week.since, until=week.until, why=why, late=late))
        week = due_week(week.since)
    return tuple(reversed(found))


def redraw(store: Store, trail: Trail, caller: Caller, *, sample: str, reason: str, at: datetime) -> Redraw:
    """A sample with its candidates, to draw it again; the look is recorded first.

    Raises NotAllowed, NotFound (also once its event has expired), LogUnavailable.
    """
    check_reader(caller)
    with store.reading() as reading:
        row = reading.one(SampleRow, id=sample)
    if row is None:
        raise NotFound("there is no such sample")
    beside = json.loads(trail.blob(row.event_id, "sample"))
    note(
        store, trail, caller, "audit.searched", what={"searched": "sample", "of": sample}, why={"reason": reason}, at=at
    )
    return Redraw(
        sample=_listed(row), candidates=tuple(Candidate(**one) for one in beside["candidates"]), ids=beside["drawn"]
    )


def due_week(at: datetime) -> Period:
    """The last whole week in London, from Monday on."""
    today = at.astimezone(reviewing.LONDON).date()
    monday = today - timedelta(days=today.weekday())
    return Period.of_days(monday - WEEK, monday - timedelta(days=1))


def _covered(week: Period, rows: Sequence[SampleRow]) -> bool:
    """Whether samples, by their begin, leave nothing of a week out."""
    reached = week.since
    for row in rows:
        if row.since <= reached:
            reached = max(reached, row.until)
    return reached >= week.until


def _waits_for(reading: Reading, period: Period, *, at: datetime) -> str:
    """Why the sample of a period can't be drawn; empty where it can."""
    try:
        _seed(reading, period.until, at=at)
    except WrongState as wrong:
        return str(wrong)
    return ""


# --- Seed and candidates ---------------------------------------------------------------------------------------------


def _seed(reading: Reading, ended: datetime, *, at: datetime) -> Seed:
    """Of the first line that a witness put since the end: nobody chooses among several.

    The witnesses are those of the period's end: whoever was enrolled or removed after it moves nothing.  The logs are
    those of the policy: what stands in a compromised one anybody may have signed, who has its key.
    """
    rows = enrolled_at(reading, ended)
    keys = log_keys(reading)
    logs = {key.name for key in keys}
    policy = witnesses.policy_of(reading, keys, then=ended)
    ended_s = int(ended.timestamp())
    if not rows:
        found = first_signed_since(reading, ended, logs)
        if found is None:
            raise WrongState("the log has no checkpoint since the period's end: the sample waits for it")
        return seed_of(SignedCheckpoint.parse(found.note.decode()), policy, ended_s=ended_s)
    ids = {row.id: row.name for row in rows}
    left = sum(row.removed_at is None for row in rows)  # whose lines are still taken
    lines = first_lines_since(reading, ended, ids, logs)
    if len(lines) < len(rows) and at < ended + witnesses.AMBER:
        raise WrongState("a witness has yet to sign since the period's end: it is waited for a quarter of an hour")
    first = min(lines, key=lambda row: (row.first_t_s, ids[row.witness]), default=None)
    if (
        first is None
        or (newest_cosigned(reading, first.log_id, ids, by=witnesses.quorum_of(left or len(ids))) or 0) < first.size
    ):
        gone = len(ids) - left
        removed = f"; {gone} of the {len(ids)} who witnessed then were removed since, and sign no more" if gone else ""
        raise WrongState(
            f"no quorum of witnesses has cosigned a checkpoint since the period's end: the sample waits for it{removed}"
        )
    row = checkpoint_at(reading, first.log_id, first.size)
    if row is None:
        raise WrongState("the checkpoint by which the sample is to be drawn is not in the database")
    signed = SignedCheckpoint.parse(row.note.decode())
    for one in cosignatures(reading, row.log_id, row.size, ids):
        signed = signed.with_signature(Signature.parse(one.first_line))
    try:
        return seed_of(signed, policy, ended_s=ended_s)
    except QuorumMissing as wrong:
        raise WrongState(str(wrong)) from None


def _left_out(reading: Reading, ended: datetime) -> list[Json]:
    """The logs that still grew at the period's end and fix no sample, as their key is compromised."""
    trusted = {key.name for key in log_keys(reading)}
    return [
        shard.log_id
        for shard in every_shard(reading)
        if shard.log_id not in trusted and (shard.closed_at is None or shard.closed_at >= ended)
    ]


def _candidates(store: Store, trail: Trail, period: Period, *, at: datetime) -> Iterator[Candidate]:
    """Whatever showed somebody's information to another, and every opening of glass."""
    source = Source(store=store, trail=trail, period=period, about=About(), at=at)
    for one in source.events(source.wanted(sorted({*DISCLOSURES, *BREAK_GLASS}))):
        event = one.event
        if event.type == "search.authorised" and not one.sections.get("subjects"):
            continue  # a search that listed nobody showed nothing
        yield Candidate(
            event_id=event.event_id, organisation=event.organisation, role=event.role, purpose=event.purpose,
            always=_always(one),
        )  # fmt: skip


def _always(one: OpenedEvent) -> str:
    """Why an event is looked at in any case."""
    if one.event.break_glass or one.event.type in BREAK_GLASS:
        return "break_glass"
    shown = one.body("what").get("categories")
    modes = [dict(each) for each in shown.values() if isinstance(each, Mapping)] if isinstance(shown, Mapping) else []
    category, mode = one.body("what").get("category"), one.body("what").get("mode")
    for categories in [*modes, {category: mode}]:
        for name, word in categories.items():
            known = VOCABULARY.categories.get(name) if isinstance(name, str) else None
            if known is not None and known.tier >= SENSITIVE and word == Mode.DETAIL.word:
                return "sensitive_detail"
    return ""


def _listed(row: SampleRow) -> Drawn:
    return Drawn(
        sample=row.id, since=row.since, until=row.until, percent=row.percent, least=row.least,
        candidates=row.candidates, drawn=row.drawn, by_reason=row.by_reason, candidates_sha256=row.candidates_sha256,
        witnessed=row.witnessed, note=row.note, drawn_by=row.drawn_by, drawn_at=row.drawn_at, event_id=row.event_id,
    )  # fmt: skip

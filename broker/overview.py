"""What information governance and operators see first: how the log stands, what waits, what is late, what falls due.

Counts, states and days: nothing here is about anybody, so that looking is no event of the log.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from agreements.lifecycle import Due
from broker import agencies, expiry, register, witnesses
from broker.callers import Caller
from broker.errors import NotAllowed
from broker.family_view import Feed
from broker.register import Listed
from broker.reports.looking import check_looker
from broker.reviewing import WAITING, admit
from broker.reviews.said import STATES
from broker.settings import Settings
from broker.store import Reading, Store, migrate
from broker.store.audit_reviews import waiting_cases
from broker.store.erasures import ErasureRow, LiftRow
from broker.store.reviews import doubted
from broker.store.runs import LinkRunRow
from broker.trail import Trail
from broker.witnesses import Standing

DAYS: Final = 90  # how far ahead what falls due is told
RUNS: Final = 14
OPERATOR: Final = "OPERATOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """How the log stands at an instant, in one word and in figures."""

    state: Literal["whole", "unwitnessed", "late", "conflict", "stopped"]
    standing: Standing
    at: datetime

    @property
    def late_since(self) -> datetime:
        """Since when the witness that is furthest behind is."""
        return self.at - timedelta(seconds=max((one.behind_s for one in self.standing.witnesses), default=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits for a person.  `since`: the oldest, where that is known; `due`: when the first is due, where it is."""

    name: str
    waiting: int
    late: int = 0
    since: datetime | None = None
    due: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The first page of information governance."""

    log: Log
    queues: tuple[Queue, ...]
    feeds: tuple[Feed, ...]  # those that are not current
    unsigned: tuple[Listed, ...]  # agreements that wait for a signature
    due: tuple[Due, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The page of operators: runs, feeds, the log, room."""

    log: Log
    unsequenced: int
    runs: tuple[LinkRunRow, ...]  # the newest first
    feeds: tuple[Feed, ...]
    free_bytes: int
    schema_current: bool
    pairs: int  # that wait for a link reviewer


def overview(store: Store, trail: Trail, caller: Caller, *, at: datetime) -> Overview:
    """What waits for this officer, and how the log stands.  Never what waits about themselves.  Raises NotAllowed."""
    check_looker(caller)
    with store.transaction() as tx:
        admit(tx, at=at)
    with store.reading() as reading:
        standing = witnesses.standing(reading, trail.origin, at=at)
        documents = [one for one in register.documents(reading, at=at) if not one.state.ended]
        return Overview(
            log=Log(state=_state(trail, standing), standing=standing, at=at),
            queues=tuple(_queues(reading, caller, at)),
            feeds=tuple(one for one in agencies.feeds(reading, at=at) if one.state != "CURRENT"),
            unsigned=tuple(one for one in documents if one.state.awaited),
            due=tuple(due for _, due in expiry.calendar(reading, at=at, within=DAYS)),
        )  # fmt: skip


def operation(store: Store, trail: Trail, settings: Settings, caller: Caller, *, at: datetime) -> Operation:
    """How nights, feeds, the log and the disk stand.  Raises NotAllowed for whoever is no operator."""
    if caller.kind != "officer" or caller.role != OPERATOR:
        raise NotAllowed("this is for operators")
    with store.reading() as reading:
        standing = witnesses.standing(reading, trail.origin, at=at)
        return Operation(
            log=Log(state=_state(trail, standing), standing=standing, at=at), unsequenced=trail.unsequenced(),
            runs=tuple(reading.all(LinkRunRow, order=("-started_at", "id"), limit=RUNS)),
            feeds=agencies.feeds(reading, at=at), free_bytes=shutil.disk_usage(settings.data_dir).free,
            schema_current=migrate.at_head(store), pairs=doubted(reading, states=STATES).pairs,
        )  # fmt: skip


def _state(trail: Trail, log: Standing) -> Literal["whole", "unwitnessed", "late", "conflict", "stopped"]:
    if trail.broken() is not None or log.signed_at is None:
        return "stopped"
    if log.conflicts:
        return "conflict"
    if not log.witnesses:
        return "unwitnessed"
    return "whole" if all(one.state == "green" for one in log.witnesses) else "late"


def _queues(reading: Reading, caller: Caller, at: datetime) -> Iterator[Queue]:
    me = caller.person
    cases = waiting_cases(reading, states=WAITING, not_by=me, at=at)
    for kind in ("break_glass", "flag", "sample"):
        some = [one for one in cases if one.kind == kind and one.state != "decided"]
        yield Queue(
            name=kind, waiting=sum(one.cases for one in some), late=sum(one.late for one in some),
            due=min((one.first_due for one in some), default=None),
        )  # fmt: skip
    yield Queue(name="second", waiting=sum(one.cases for one in cases if one.state == "decided"))
    wrong = doubted(reading, states=STATES, reason="wrong_person")
    yield Queue(name="wrong_person", waiting=wrong.pairs, since=wrong.since)
    asked = {row.id: row.proposed_at for row in reading.all(ErasureRow, state="proposed") if row.proposed_by != me}
    asked |= {row.id: row.proposed_at for row in reading.all(LiftRow, state="proposed") if row.proposed_by != me}
    yield Queue(name="erasure", waiting=len(asked), since=min(asked.values(), default=None))

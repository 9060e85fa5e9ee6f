"""Searches, the candidates they found, views opened and thresholds recorded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final, Literal
from zlib import crc32

from sqlalchemy import func, true
from sqlmodel import Field, col, select

from broker.store.columns import Row, instant, json_value
from broker.store.runs import LinkRunRow
from broker.store.statements import Statement
from broker.store.transaction import Reading, Transaction

_ASKED_AT_ONCE: Final = 500  # ids in one question: SQLite takes no more than 32,766 values


class SearchRow(Row, table=True):
    """One search.  The query itself is not kept here: it is sealed beside the event in the log."""

    __tablename__ = "search"

    id: str = Field(primary_key=True)
    agency: str = Field(foreign_key="agency.id")
    person: str = Field(index=True)
    role: str
    session: str
    purpose: str
    basis: dict[str, Any] = json_value()
    case_hmac: str = Field(index=True)
    household: list[list[str]] = json_value()  # [person id, relation as typed] of members who surely match
    family_informed: str
    run: str | None = Field(default=None)  # the link run that answered
    event_id: str
    outcome: str
    created_at: datetime = instant(index=True)
    expires_at: datetime = instant()


class SearchCandidateRow(Row, table=True):
    """A candidate that was listed, under the name the asker knows it by."""

    __tablename__ = "search_candidate"

    search: str = Field(primary_key=True, foreign_key="search.id")
    candidate: str = Field(primary_key=True)
    person_id: str = Field(index=True)
    band: str
    upper: bool  # passed the higher bar, for summary and detail
    agreed: list[str] = json_value()
    differs: list[str] = json_value()
    records: list[list[str]] = json_value()  # [agency, flow, record_ref] of those that passed the higher bar themselves


class ViewRow(Row, table=True):
    """A family view that was authorised."""

    __tablename__ = "view"

    id: str = Field(primary_key=True)
    search: str = Field(foreign_key="search.id", index=True)
    candidate: str
    agency: str
    person: str = Field(index=True)
    event_id: str
    outcome: str
    at: datetime = instant(index=True)
    ends_at: datetime = instant()


class ViewPersonRow(Row, table=True):
    """Somebody of whom a family view showed something: the child, or one of the family."""

    __tablename__ = "view_person"

    view: str = Field(primary_key=True, foreign_key="view.id")
    person_id: str = Field(primary_key=True, index=True)


class ThresholdRow(Row, table=True):
    """A level of need that a manager recorded for a case and a candidate."""

    __tablename__ = "threshold"

    id: str = Field(primary_key=True)
    agency: str
    case_hmac: str = Field(index=True)
    person_id: str
    search: str = Field(foreign_key="search.id")
    level: str
    grounds: str
    set_by: str
    role: str  # of whoever set it: a clause may ask who decided
    event_id: str
    at: datetime = instant()


_ASKING: Final = 0x6173_6B73  # a class of PostgreSQL's locks by number; no other part of the broker takes one of it
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


@cache
def _alone(agency: str) -> Statement:
    of = crc32(agency.encode()) - (1 << 31)  # two organisations of one number wait for one another; no harm
    return Statement(f"SELECT CAST(pg_advisory_xact_lock({_ASKING}, {of}) AS text)", sqlite="SELECT 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How often somebody has asked in the time up to now, and when first."""

    whose: Literal["person", "organisation"]
    within: timedelta
    count: int
    first: datetime | None


def used(
    tx: Transaction, kind: Literal["searches", "views"], *, agency: str, person: str, at: datetime, but: str
) -> tuple[Used, ...]:
    """What a person and their organisation have used, but for what ended in `but`.

    Until this transaction ends nobody else of the organisation is counted: of two at the same moment the second waits,
    and sees the first.
    """
    tx.run(_alone(agency)).one_or_none()
    when, row = (col(SearchRow.created_at), SearchRow) if kind == "searches" else (col(ViewRow.at), ViewRow)
    windows = [(whose, within) for whose in ("person", "organisation") for within in (HOUR, DAY)]
    columns = []
    for whose, within in windows:
        mine = (when > at - within) & ((col(row.person) == person) if whose == "person" else true())
        columns += [func.count().filter(mine), func.min(when).filter(mine)]
    query = select(*columns).where(col(row.agency) == agency, when > at - DAY, col(row.outcome) != but)  # type: ignore[call-overload]
    found = tuple(tx.session.exec(query).one())
    return tuple(
        Used(whose=whose, within=within, count=found[2 * n], first=found[2 * n + 1])  # type: ignore[arg-type]
        for n, (whose, within) in enumerate(windows)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A search under a case of which a match was opened; `people` are the persons of all its matches, since two may be
    one child whose records nobody has joined.  Opening a merely possible match binds no case: it may well be the wrong
    child.  The ids are those of the run put in service at `since`."""

    search: str
    people: frozenset[str]
    since: datetime


def opened_under(tx: Reading, *, agency: str, case_hmac: str) -> tuple[Opened, ...]:
    """What an organisation has opened under a case, each search once, in the order in which it was first opened."""
    opened = (
        select(ViewRow.search, func.min(col(ViewRow.at)), func.min(col(ViewRow.id)))
        .join(
            SearchCandidateRow,
            (col(SearchCandidateRow.search) == ViewRow.search)
            & (col(SearchCandidateRow.candidate) == ViewRow.candidate),
        )
        .join(SearchRow, col(SearchRow.id) == ViewRow.search)
        .where(
            col(SearchRow.agency) == agency,
            col(SearchRow.case_hmac) == case_hmac,
            col(SearchCandidateRow.band) == "match",
        )
        .group_by(ViewRow.search)
        .order_by(func.min(col(ViewRow.at)), func.min(col(ViewRow.id)))
    )
    listed = [search for search, _, _ in tx.session.exec(opened)]
    since = answered_by(tx, listed)
    people: dict[str, set[str]] = {search: set() for search in listed}
    for start in range(0, len(listed), _ASKED_AT_ONCE):
        matches = select(SearchCandidateRow.search, SearchCandidateRow.person_id).where(
            col(SearchCandidateRow.search).in_(listed[start : start + _ASKED_AT_ONCE]),
            col(SearchCandidateRow.band) == "match",
        )
        for search, person_id in tx.session.exec(matches):
            people[search].add(person_id)
    return tuple(Opened(search=one, people=frozenset(people[one]), since=since[one]) for one in listed)


def answered_by(tx: Reading, searches: Iterable[str]) -> dict[str, datetime]:
    """Of each of these searches, when the run that answered it was put in service: its person ids count from then."""
    asked = sorted(set(searches))
    found: dict[str, datetime] = {}
    for start in range(0, len(asked), _ASKED_AT_ONCE):
        runs = (
            select(SearchRow.id, SearchRow.created_at, LinkRunRow.published_at)
            .join(LinkRunRow, col(LinkRunRow.id) == SearchRow.run, isouter=True)
            .where(col(SearchRow.id).in_(asked[start : start + _ASKED_AT_ONCE]))
        )
        found |= {search: published or created for search, created, published in tx.session.exec(runs)}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Somebody was shown a person: listed as a candidate, or in a family view, as the child or of the family."""

    person_id: str
    organisation: str
    person: str
    event_id: str
    kind: Literal["search", "view"]
    at: datetime


def shown_of(tx: Reading, person_ids: Iterable[str], *, until: datetime | None = None) -> list[Shown]:
    """Who was shown these persons, oldest first."""
    found: list[Shown] = []
    ids = sorted(set(person_ids))
    for start in range(0, len(ids), _ASKED_AT_ONCE):
        some = ids[start : start + _ASKED_AT_ONCE]
        listed = (
            select(SearchCandidateRow, SearchRow)
            .join(SearchRow, col(SearchRow.id) == SearchCandidateRow.search)
            .where(col(SearchCandidateRow.person_id).in_(some))
        )
        found += [
            Shown(
                person_id=one.person_id, organisation=row.agency, person=row.person, event_id=row.event_id,
                kind="search", at=row.created_at,
            )
            for one, row in tx.session.exec(listed)
        ]  # fmt: skip
        opened = (
            select(ViewPersonRow, ViewRow)
            .join(ViewRow, col(ViewRow.id) == ViewPersonRow.view)
            .where(col(ViewPersonRow.person_id).in_(some))
        )
        found += [
            Shown(
                person_id=one.person_id, organisation=view.agency, person=view.person, event_id=view.event_id,
                kind="view", at=view.at,
            )
            for one, view in tx.session.exec(opened)
        ]  # fmt: skip
    return sorted((one for one in found if until is None or one.at <= until), key=lambda one: (one.at, one.event_id))

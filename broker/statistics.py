"""Planning statistics: one declared table of one quarter, decided record by record, protected, checked by two people.

A planner asks, and a release is prepared: every record is decided on for purpose PLAN, what counts is tabulated, what
would tell of a child is hidden, and the ledger refuses what a few children would stand out of beside an earlier
release.  Nobody sees a figure before information governance has approved it.  Who asks again gets the same figures;
where nothing could be published, it is counted anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import rfc8785

from agreements import VOCABULARY, Facts, Item, Link, Mode, Request, RequestRefused, Snapshot, decide, explain_for_asker
from agreements.agreement import Agreement, GrantRef, london_day
from agreements.statistics import (
    Catalogue,
    Child,
    Counted,
    Protected,
    Quarter,
    Table,
    Tabulation,
    Terms,
    protect,
    shipped,
    tabulate,
    too_alike,
)
from agreements.statistics.writing import as_csv, as_json, figures_of
from audit.events import Event, Json
from broker import activation, agencies, family_view, lineage, register
from broker.callers import Caller
from broker.deciding import Released, hidden_code, newest, refused, unanswerable
from broker.errors import Conflict, Malformed, NotAllowed, NotFound, TooMany, WrongState
from broker.family_view import Feed, Refusal
from broker.keys import Keys
from broker.linked import InService
from broker.settings import GOVERNANCE
from broker.store import Reading, Store, Transaction
from broker.store.releases import ReleaseRow, items_in, open_counted, prepared_since, seal_counted
from broker.trail import EntryRef, Trail, new_event_id

PLANNER: Final = "SERVICE_PLANNER"
CHECKERS: Final = GOVERNANCE
PURPOSE: Final = "PLAN"
QUARTERS_BACK: Final = 8
A_QUARTER: Final = timedelta(days=91)
USUAL_BUDGET: Final = 24
REJECTED: Final[Mapping[str, str]] = {
    "figures_wrong": "The figures can't be right",
    "too_telling": "It tells more than it should, whatever the rules say",
    "not_needed": "It is not needed for the purpose",
}
"""Why a release is not approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A release as listed, without its figures."""

    release: str
    organisation: str
    table: str
    published_as: str
    period: str
    state: str
    prepared_at: datetime
    checked_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a planner reads: the release and, once approved, its figures; or why there is none."""

    release: Listed | None
    figures: Mapping[str, Any] | None
    refusals: tuple[Refusal, ...] = ()


def declared() -> list[dict[str, Any]]:
    """Every table that may be asked for, with its dimensions and levels."""
    return [
        {
            "table": table.id,
            "title": table.title,
            "dimensions": [
                {"id": one.id, "label": one.label, "levels": [level.label for level in one.levels]}
                for one in table.dimensions
            ],
        }
        for table in shipped().asked()
    ]


def ask(
    store: Store,
    trail: Trail,
    keys: Keys,
    service: InService,
    caller: Caller,
    *,
    table: str,
    period: str,
    at: datetime,
    catalogue: Catalogue | None = None,
) -> Released[Answer]:
    """One declared table of one quarter: prepared if it has not been, shown if a second person has approved it.

    Raises NotAllowed for anybody but a service planner and for a table that the agreement does not name, NotFound for
    one that is not declared, Malformed for a quarter that is none, is not over or too long ago, TooMany past the
    agreement's releases a quarter, WrongState before anything has been linked, LogUnavailable.
    """
    _may_plan(caller)
    lists = catalogue or shipped()
    declared_table = lists.tables.get(table)
    if declared_table is None or not declared_table.asked:
        raise NotFound("there is no such table: statistics are of declared tables alone")
    quarter = _quarter(period, at=at)
    with store.reading() as reading:
        found = _stands(_latest(reading, caller.organisation, table, quarter))
        counted = (
            None if found else count_children(reading, keys, service, caller, lists, declared_table, quarter, at=at)
        )
    with store.transaction() as tx:
        row = _stands(_latest(tx, caller.organisation, table, quarter))
        refusals: tuple[Refusal, ...] = ()
        if row is None and counted is not None:
            row, entry, refusals = _prepare(tx, trail, keys, caller, lists, declared_table, quarter, counted, at=at)
        elif row is None:
            raise Conflict("the release was rejected meanwhile: ask again")
        else:
            own = _own_refusals(tx, caller, lists, row)
            entry = _seen(tx, trail, caller, row, at=at, refusals=own)
            refusals = own or _of_withheld(row)
    figures = _shown(lists, row) if row is not None and row.state == "approved" and not refusals else None
    answer = Answer(release=_listed(row) if row is not None else None, figures=figures, refusals=refusals)
    return Released(answer, trail.receipt(entry))


def releases(store: Store, caller: Caller) -> tuple[Listed, ...]:
    """The releases of the caller's organisation, newest first; information governance sees everybody's.

    Raises NotAllowed.
    """
    where: dict[str, Any] = {"organisation": caller.organisation} if _may_look(caller) == "planner" else {}
    with store.reading() as reading:
        return tuple(_listed(row) for row in reading.all(ReleaseRow, order=("-prepared_at", "id"), **where))


def opened(
    store: Store, trail: Trail, caller: Caller, *, release: str, at: datetime, catalogue: Catalogue | None = None
) -> Released[Answer]:
    """One release with its figures: for its planners once approved, for information governance to check it.

    Raises NotAllowed, NotFound alike for another organisation's and an invented one, LogUnavailable.
    """
    planner = _may_look(caller) == "planner"
    lists = catalogue or shipped()
    with store.transaction() as tx:
        row = tx.one(ReleaseRow, id=release)
        if row is None or (planner and row.organisation != caller.organisation):
            raise NotFound("there is no such release")
        own = _own_refusals(tx, caller, lists, row) if planner else ()
        entry = _seen(tx, trail, caller, row, at=at, refusals=own)
    visible = row.figures and not own and (row.state == "approved" or not planner)
    figures = _shown(lists, row) if visible else None
    answer = Answer(release=_listed(row), figures=figures, refusals=own or _of_withheld(row))
    return Released(answer, trail.receipt(entry))


def check(
    store: Store, trail: Trail, caller: Caller, *, release: str, agree: bool, reason: str = "", at: datetime
) -> Released[Listed]:
    """A second person's word on a prepared release: from now on it is published as it is, or never.

    Raises NotAllowed for whoever prepared it or is not of information governance, Malformed for a refusal without a
    reason of the list, NotFound, WrongState if it does not wait for anybody, LogUnavailable.
    """
    if caller.kind != "officer" or caller.role not in CHECKERS:
        raise NotAllowed("releases are checked by information governance")
    if agree == bool(reason) or (reason and reason not in REJECTED):
        raise Malformed(f"reason: one of {', '.join(REJECTED)} for a refusal, and none otherwise")
    with store.transaction() as tx:
        row = tx.locked_one(ReleaseRow, id=release)
        if row is None:
            raise NotFound("there is no such release")
        if row.state != "prepared":
            raise WrongState("this release does not wait to be checked")
        if row.prepared_by == caller.person:
            raise NotAllowed("who asked for a release can't approve it")
        row.state, row.reason = ("approved", "") if agree else ("rejected", reason)
        row.checked_by, row.checked_at = caller.person, at
        tx.add(row)
        entry = _record(
            tx, trail, caller, "statistics.approved" if agree else "statistics.rejected", at=at,
            what={**_what(row), "outcome": row.state}, why={"reason": reason} if reason else {},
        )  # fmt: skip
    return Released(_listed(row), trail.receipt(entry))


def csv_of(answer: Answer, catalogue: Catalogue | None = None) -> str:
    """The figures of an answer as CSV, notes at the end.  Raises WrongState if it has none."""
    if answer.figures is None or answer.release is None:
        raise WrongState("there are no figures to write")
    figures = answer.figures
    table = (catalogue or shipped()).tables[figures["table"]]
    terms = Terms(**figures["terms"])
    return as_csv(table, Quarter.parse(figures["period"]), figures["figures"], terms, more=_late(figures["feeds"]))


# --- Counting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What was counted for one question, over one published run."""

    run: str
    children: Mapping[str, Child]
    clauses: frozenset[GrantRef]
    hidden: Mapping[str, int]  # true result codes of what was not counted: for the log alone
    snapshot: Snapshot
    feeds: tuple[Feed, ...]
    refusals: tuple[Refusal, ...]  # what no live agreement gives: nothing was counted then


def count_children(
    tx: Reading,
    keys: Keys,
    service: InService,
    caller: Caller,
    catalogue: Catalogue,
    table: Table,
    quarter: Quarter,
    *,
    at: datetime,
) -> Counting:
    """The children that a table and those in its stead may count, each record decided on by itself."""
    area = service.area()
    if area is None:
        raise WrongState("nothing has been linked yet")
    snapshot, barred = activation.snapshot_for(tx, caller.person)
    every = register.snapshot(tx)
    feeds = agencies.feeds(tx, at=at)
    nothing = Counting(
        run=area.run, children={}, clauses=frozenset(), hidden={}, snapshot=snapshot, feeds=feeds, refusals=()
    )
    request = _request(caller, catalogue, table)
    if own := activation.barring(tx, barred, request, at=at):
        # Without them fewer children might be counted than there are, and everybody would read that figure.
        return replace(nothing, refusals=(refused("APPROVED_BY_ASKER", agreements=" and ".join(own)),))
    try:
        missing = _missing(snapshot, every, request.checked(VOCABULARY), feeds, at=at)
    except RequestRefused as wrong:
        missing = (unanswerable(wrong),)
    if missing:
        return replace(nothing, refusals=missing)
    sharing = {(feed.organisation, feed.flow) for feed in feeds if feed.state != "PAUSED"}
    held = {record: items for record, items in items_in(tx, request.asked, keys=keys).items() if record[:2] in sharing}
    persons: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for record in held:
        owner = area.index.person_of(record)
        if owner is not None and area.person_role([record]) == "child":
            persons[owner].append(record)
    children: dict[str, Child] = {}
    clauses: set[GrantRef] = set()
    hidden: Counter[str] = Counter()
    for person in sorted(persons):
        tags = area.tags(person)
        counted: list[Item] = []
        shown: list[tuple[str, str, str]] = []
        for record in sorted(persons[person]):
            for source, items in _by_source(record, held[record]).items():
                facts = Facts(
                    source=source, record=record[2], relation="subject_child", link=Link.MATCH, tags=tags,
                    held=newest(items),
                )  # fmt: skip
                decision = decide(snapshot, VOCABULARY, request, facts, at)
                given = [item for item in items if decision.reach(item.category, item.recorded_on, item.regime)]
                if given:
                    clauses |= {shown_.under for shown_ in decision.shown.values()}
                    shown.append(record)
                    counted += given
                elif not decision.shown:
                    hidden[hidden_code(snapshot, decision)] += 1
        if counted:
            children[person] = Child(
                birth_year=area.birth_year(shown), sex=area.sex(shown), items=tuple(counted),
                shielded="shield_address" in tags,
            )  # fmt: skip
    return replace(nothing, children=children, clauses=frozenset(clauses), hidden=hidden)


def _request(caller: Caller, catalogue: Catalogue, table: Table) -> Request:
    """What a table and those in its stead may count, asked for at once."""
    categories = frozenset().union(*(one.categories for one in catalogue.attempts(table)))
    return Request(
        organisation=caller.organisation, role=caller.role, purpose=PURPOSE, basis=catalogue.basis,
        asked=dict.fromkeys(sorted(categories), Mode.AGGREGATE),
    )  # fmt: skip


def _own_refusals(reading: Reading, caller: Caller, catalogue: Catalogue, row: ReleaseRow) -> tuple[Refusal, ...]:
    """Why a planner who put in force what a release was counted under does not read it: a colleague does."""
    table = catalogue.tables.get(row.asked)
    if table is None or not activation.approved_by(reading, caller.person):
        return ()
    then = register.ever_in_force(reading)  # to suspend what one has put in force lets one read no more
    barred = activation.barred_from(reading, caller.person, then)
    own = activation.barring(reading, barred, _request(caller, catalogue, table), at=row.prepared_at, among=then)
    return (refused("APPROVED_BY_ASKER", agreements=" and ".join(own)),) if own else ()


def _by_source(record: tuple[str, str, str], items: Iterable[tuple[Item, str | None]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item, origin in items:
        found[origin or record[0]].append(item)
    return found


def _missing(
    snapshot: Snapshot, every: Snapshot, request: Request, feeds: Sequence[Feed], *, at: datetime
) -> tuple[Refusal, ...]:
    """Why a table can't be counted whole: what no live agreement gives of a source that owns a category of it.

    Who owns what is as in `every` agreement in force, whoever asks.  A count from which an organisation is left out
    would be read as its having nothing.
    """
    sectors = {VOCABULARY.categories[category].sector for category in request.asked}
    owners = {
        party.id for agreement in every.agreements for party in agreement.parties.values() if party.discloses & sectors
    }
    names = {feed.organisation: feed.name for feed in feeds}
    desks = {feed.organisation: family_view.desk_of(feed) for feed in feeds}
    if not owners & names.keys():
        return (refused("NO_DSA", sentence="No agreement in force covers this table."),)
    return tuple(
        family_view.refusal_of(reason)
        for source in sorted(owners & names.keys())
        for reason in explain_for_asker(
            snapshot, VOCABULARY, _of_source(request, every, source), source, at, names=names, desks=desks
        )
    )


def _of_source(request: Request, snapshot: Snapshot, source: str) -> Request:
    """The request as far as it concerns what one source owns."""
    owned = {
        sector for agreement in snapshot.agreements if source in agreement.parties
        for sector in agreement.parties[source].discloses
    }  # fmt: skip
    asked = {c: mode for c, mode in request.asked.items() if VOCABULARY.categories[c].sector in owned}
    return replace(request, asked=asked)


# --- Preparing -------------------------------------------------------------------------------------------------------


def _prepare(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    catalogue: Catalogue,
    table: Table,
    quarter: Quarter,
    counting: Counting,
    *,
    at: datetime,
) -> tuple[ReleaseRow | None, EntryRef, tuple[Refusal, ...]]:
    """A new release, or why there is none; either is in the log."""
    asked: dict[str, Json] = {"table": table.id, "period": str(quarter), "run": counting.run}
    why: dict[str, Json] = {"purpose": PURPOSE, "art6": catalogue.basis.art6}

    def refuse(*refusals: Refusal, **detail: Json) -> tuple[None, EntryRef, tuple[Refusal, ...]]:
        what: dict[str, Json] = {**asked, "outcome": "refused", "codes": sorted({one.code for one in refusals})}
        return (
            None,
            _record(tx, trail, caller, "statistics.refused", at=at, what=what, why=why, detail=detail),
            refusals,
        )

    if counting.refusals:
        return refuse(*counting.refusals)
    if not counting.clauses:  # nobody holds anything of it yet: nothing to keep, and nothing that would stand later
        return refuse(refused("SDC_SUPPRESSED"))
    agreements = _relied_on(counting)
    terms, budget, allowed = terms_of(agreements)
    if allowed is not None and table.id not in allowed:
        raise NotAllowed("the agreement under which this would be counted does not name this table")
    earlier = _latest(tx, caller.organisation, table.id, quarter)  # withheld, if any: what is there stands
    if prepared_since(tx, organisation=caller.organisation, since=at - A_QUARTER) >= budget:
        raise TooMany("the agreement allows no more releases in a quarter", retry_after=86_400)
    first = tabulate(table, counting.children, quarter.last_day)
    release = new_event_id()
    before = _ledger(tx, keys, first.members)
    if alike := too_alike(_counted(release, table, quarter, first), before, threshold=terms.threshold):
        return refuse(refused("SDC_SUPPRESSED"), earlier=alike.release, by=alike.by)
    made, used, withheld = _first_safe(catalogue.attempts(table), counting.children, quarter, terms)
    figures: list[Any] = figures_of(made.published) if made is not None else []
    ledgered = _counted(release, used, quarter, tabulate(used, counting.children, quarter.last_day))
    if made is not None and (alike := too_alike(ledgered, before, threshold=terms.threshold)):
        return refuse(refused("SDC_SUPPRESSED"), earlier=alike.release, by=alike.by)
    if made is None and earlier is not None and earlier.reason == withheld:
        return earlier, _seen(tx, trail, caller, earlier, at=at), _of_withheld(earlier)
    sealed, wrapped = seal_counted(keys, ledgered)
    why["clauses"] = sorted(map(str, counting.clauses))
    row = ReleaseRow(
        id=release, organisation=caller.organisation, asked=table.id, period=str(quarter),
        attempt=len(tx.all(ReleaseRow, organisation=caller.organisation, asked=table.id, period=str(quarter))),
        published_as=used.id, catalogue=catalogue.id, run=counting.run, state="prepared" if made else "withheld",
        terms={
            "threshold": terms.threshold, "rounding": terms.rounding, "minimum_population": terms.minimum_population,
        },
        figures=figures, feeds=[_feed(feed) for feed in counting.feeds], sealed=sealed, key_wrapped=wrapped,
        prepared_by=caller.person, prepared_at=at, reason=withheld, event_id="",
    )  # fmt: skip
    entry = _record(
        tx, trail, caller, "statistics.prepared", at=at, why=why,
        what={**asked, **_what(row), "outcome": row.state, "terms": row.terms, "catalogue": row.catalogue},
        detail={"not_counted": dict(sorted(counting.hidden.items())), "withheld": withheld},
    )  # fmt: skip
    row.event_id = entry.event_id
    tx.add(row)
    tx.flush()
    return row, entry, _of_withheld(row)


def _first_safe(
    attempts: Sequence[Table], children: Mapping[str, Child], quarter: Quarter, terms: Terms
) -> tuple[Protected | None, Table, str]:
    """The finest of several tables that may be published, or none and why not even the coarsest."""
    why = ""
    for table in attempts:
        counts = tabulate(table, children, quarter.last_day).counts
        made = protect(counts, terms, impossible=table.impossible, known=table.known)
        if isinstance(made, Protected):
            return made, table, ""
        why = made.reason
    return None, attempts[-1], why


def _relied_on(counting: Counting) -> list[Agreement]:
    by_ref = {agreement.ref: agreement for agreement in counting.snapshot.agreements}
    return [by_ref[ref] for ref in sorted({clause.agreement for clause in counting.clauses})]


def terms_of(relied_on: Sequence[Agreement]) -> tuple[Terms, int, frozenset[str] | None]:
    """The strictest terms of the agreements relied on, the fewest releases a quarter, the tables that all allow."""
    terms, budget = Terms(), USUAL_BUDGET
    allowed: frozenset[str] | None = None
    for number, agreement in enumerate(relied_on):
        said = agreement.body.get("statistics") or {}
        own = Terms.agreed(said)
        terms = own if number == 0 else terms.stricter(own)
        budget = min(budget, said.get("releases_a_quarter", USUAL_BUDGET))
        if "tables" in said:
            allowed = frozenset(said["tables"]) & (allowed if allowed is not None else frozenset(said["tables"]))
    return terms, budget, allowed


def _ledger(tx: Reading, keys: Keys, members: frozenset[str]) -> list[Counted]:
    """Every release that was or may be published, those counted then under the ids they have today."""
    found = []
    for row in tx.all(ReleaseRow, state=("prepared", "approved"), order=("prepared_at", "id")):
        before = open_counted(keys, row)
        gone = before.members - members
        followed = lineage.follow(tx, gone, since=row.prepared_at)
        today = {successor for one in followed.values() for successor in one.ids}
        found.append(replace(before, members=(before.members & members) | today))
    return found


def _counted(release: str, table: Table, quarter: Quarter, tabulation: Tabulation) -> Counted:
    return Counted(
        release=release, period=str(quarter), dimensions=tuple(one.id for one in table.dimensions),
        counts=tabulation.counts, members=tabulation.members,
    )  # fmt: skip


def _feed(feed: Feed) -> dict[str, Any]:
    return {
        "organisation": feed.organisation, "flow": feed.flow, "state": feed.state,
        "as_of": feed.as_of.isoformat() if feed.as_of is not None else None,
    }  # fmt: skip


# --- Common ----------------------------------------------------------------------------------------------------------


def _may_plan(caller: Caller) -> None:
    if caller.kind != "officer" or caller.role != PLANNER:
        raise NotAllowed("statistics are asked for by service planners")


def _may_look(caller: Caller) -> str:
    if caller.kind == "officer" and caller.role == PLANNER:
        return "planner"
    if caller.kind == "officer" and caller.role in CHECKERS:
        return "checker"
    raise NotAllowed("statistics are for service planners, and for information governance to check")


def _quarter(period: str, *, at: datetime) -> Quarter:
    try:
        quarter = Quarter.parse(period)
    except ValueError as wrong:
        raise Malformed(f"period: {wrong}") from None
    today = london_day(at)
    if quarter.last_day >= today or quarter.last_day < today - QUARTERS_BACK * A_QUARTER:
        raise Malformed("period: a quarter that is over, and not longer ago than two years")
    return quarter


def _latest(tx: Reading, organisation: str, table: str, quarter: Quarter) -> ReleaseRow | None:
    """The release of a table and quarter, unless it was rejected."""
    found = tx.all(
        ReleaseRow, organisation=organisation, asked=table, period=str(quarter), order=("-attempt",), limit=1
    )
    return found[0] if found and found[0].state != "rejected" else None


def _stands(row: ReleaseRow | None) -> ReleaseRow | None:
    """The release that everybody who asks gets: none where nothing could be published, since nothing was shown then,
    and another day's count may be published."""
    return row if row is not None and row.state != "withheld" else None


def _seen(
    tx: Transaction, trail: Trail, caller: Caller, row: ReleaseRow, *, at: datetime, refusals: Sequence[Refusal] = ()
) -> EntryRef:
    """Record that figures are about to be shown, or that somebody asked for what there is not, or may not read it."""
    if refusals:
        what: dict[str, Json] = {**_what(row), "outcome": "refused", "codes": sorted({one.code for one in refusals})}
        return _record(tx, trail, caller, "statistics.refused", at=at, what=what)
    disclosed = row.state == "approved" and caller.role == PLANNER
    type_ = "statistics.disclosed" if disclosed else "statistics.opened"
    return _record(tx, trail, caller, type_, at=at, what={**_what(row), "outcome": row.state})


def _what(row: ReleaseRow) -> dict[str, Json]:
    digest = sha256(rfc8785.dumps(row.figures)).hexdigest()
    return {"release": row.id, "table": row.asked, "published_as": row.published_as, "period": row.period,
            "figures_sha256": digest}  # fmt: skip


def _of_withheld(row: ReleaseRow) -> tuple[Refusal, ...]:
    return (refused("SDC_SUPPRESSED"),) if row.state == "withheld" else ()


def _shown(catalogue: Catalogue, row: ReleaseRow) -> dict[str, Any]:
    """Figures as they were released."""
    table, terms = catalogue.tables[row.published_as], Terms(**row.terms)
    body = as_json(table, Quarter.parse(row.period), row.figures, terms, more=_late(row.feeds))
    return {**body, "figures": row.figures, "terms": row.terms, "feeds": row.feeds}


def _late(feeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know of feeds that were not up to date: what they lack is not that there was nothing."""
    words = {"STALE": "was late, last sent {as_of}", "PAUSED": "was paused, and not counted",
             "NOT_CONNECTED": "is not connected, and not counted"}  # fmt: skip
    return [
        f"{feed['organisation']} {feed['flow']} {words[feed['state']].format(as_of=(feed['as_of'] or 'never')[:10])}."
        for feed in feeds
        if feed["state"] in words
    ]


def _listed(row: ReleaseRow) -> Listed:
    return Listed(
        release=row.id, organisation=row.organisation, table=row.asked, published_as=row.published_as,
        period=row.period, state=row.state, prepared_at=row.prepared_at, checked_at=row.checked_at,
        reason=row.reason if row.state == "rejected" else "",
    )  # fmt: skip


def _record(
    tx: Transaction,
    trail: Trail,
    caller: Caller,
    type_: str,
    *,
    what: Mapping[str, Json],
    at: datetime,
    why: Mapping[str, Json] | None = None,
    detail: Mapping[str, Json] | None = None,
) -> EntryRef:
    event = Event(
        id=new_event_id(), type=type_, who=caller.who(), what=what, why=why or {"purpose": PURPOSE},
        detail=detail or {},
    )  # fmt: skip
    return trail.record(tx, event, at=at)

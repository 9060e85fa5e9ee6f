"""A report, or what a search of the log found, as a file that leaves: made whole, recorded with its SHA-256, and only
then let out.

The file of a search is not kept: it is made again when it is fetched, and does not leave if it is not the one recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import BinaryIO, Final

from audit.events import Json
from broker.callers import Caller
from broker.errors import Malformed, NotFound, WrongState
from broker.reports.catalogue import report
from broker.reports.formats import MEDIA, SUFFIX, write
from broker.reports.looking import OPEN_SECTIONS, bodies, check_looker, check_reason, instant, note
from broker.reports.search import SEARCH_LASTS, FoundEvent, LogSearch, found
from broker.reports.table import About, Period, Report, Row, utc
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.log_search import head_of_event, is_known
from broker.trail import Trail

FOUND: Final = "log"
"""What a file of a search is called, where another has the code of its report."""
MOST: Final = 20_000  # events of one such file
AT_ONCE: Final = 500
COLUMNS: Final = (
    "event_id", "utc", "type", "op", "org", "actor", "role", "purpose", "threshold", "case_ref", "outcome",
    "break_glass", "clauses", "source_orgs", "flags", "erased",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was recorded, and may leave."""

    event_id: str
    report: str
    format: str
    sha256: str
    rows: int
    bytes: int

    @property
    def media_type(self) -> str:
        """What kind of file it is."""
        return MEDIA[self.format]

    @property
    def filename(self) -> str:
        """A name for it: by its event, so that whoever finds the file finds who made it."""
        return f"{self.report}-{self.event_id}.{SUFFIX[self.format]}"


def export(
    store: Store,
    trail: Trail,
    caller: Caller,
    *,
    code: str,
    period: Period,
    about: About | None = None,
    fmt: str,
    reason: str,
    sink: BinaryIO,
    at: datetime,
) -> Exported:
    """Write a report into `sink` and record that: of what is there, nothing may leave unless this returns.

    Raises NotAllowed for a role that may not, Malformed, NotFound for a report that is none, or a person or an
    organisation the log does not know, LogUnavailable.
    """
    check_looker(caller)
    check_reason(reason)
    about = about or About()
    _known(store, trail, about, at)
    written = write(report(code, store, trail, period, about=about, at=at), fmt, origin=trail.origin)
    digest, size = sha256(), 0
    for piece in written.pieces:
        digest.update(piece)
        size += len(piece)
        sink.write(piece)
    sink.flush()
    what: dict[str, Json] = {
        "report": code, "format": fmt, "sha256": digest.hexdigest(), "rows": written.rows, "bytes": size,
        "since": utc(period.since), "until": utc(period.until), "made_at": utc(at), "sections": list(OPEN_SECTIONS),
    }  # fmt: skip
    if about.organisation:
        what["of"] = about.organisation
    if about.discovered is not None:
        what["discovered"] = utc(about.discovered)
    event_id = note(
        store, trail, caller, "audit.exported", what=what, why={"reason": reason},
        subjects=[about.subject] if about.subject else [], at=at,
    )  # fmt: skip
    return Exported(
        event_id=event_id, report=code, format=fmt, sha256=digest.hexdigest(), rows=written.rows, bytes=size
    )


def export_found(
    store: Store, trail: Trail, caller: Caller, *, search: str, fmt: str, reason: str, at: datetime
) -> Exported:
    """Record what a search of the caller's own found as a file, with its rows and SHA-256: `found_file` gives it.

    Raises NotAllowed, Malformed for another form or reason, or for more events than a file holds, NotFound for a search
    that is not the caller's own or has ended, LogUnavailable.
    """
    check_looker(caller)
    check_reason(reason)
    made, wanted = _of_search(store, trail, caller, search, at)
    content, rows = _written(made, fmt, trail.origin)
    what: dict[str, Json] = {
        "report": FOUND, "search": search, "format": fmt, "sha256": sha256(content).hexdigest(), "rows": rows,
        "bytes": len(content), "since": utc(made.period.since), "until": utc(made.period.until),
        "made_at": utc(made.made_at), "sections": list(OPEN_SECTIONS),
    }  # fmt: skip
    event_id = note(
        store, trail, caller, "audit.exported", what=what, why={"reason": reason},
        subjects=[wanted.filter.subject] if wanted.filter.subject else [], at=at,
    )  # fmt: skip
    return Exported(
        event_id=event_id, report=FOUND, format=fmt, sha256=sha256(content).hexdigest(), rows=rows, bytes=len(content)
    )


def exported_found(store: Store, trail: Trail, caller: Caller, *, event: str, at: datetime) -> tuple[Exported, str]:
    """A file of a search that the caller recorded within the last quarter of an hour, and the search's id.

    Raises NotFound alike for another's, an invented and an expired one.
    """
    check_looker(caller)
    with store.reading() as reading:
        head = head_of_event(reading, event)
    if (
        head is None
        or (head.type, head.actor_ref, head.org) != ("audit.exported", caller.person, caller.organisation)
        or instant(head.t_ms) + SEARCH_LASTS <= at
    ):
        raise NotFound("there is no such file, or it has ended")
    what = bodies(trail, event, ("what",)).get("what", {})
    if what.get("report") != FOUND:
        raise NotFound("there is no such file, or it has ended")
    made = Exported(
        event_id=event, report=FOUND, **{name: what[name] for name in ("format", "sha256", "rows", "bytes")}
    )
    return made, str(what["search"])


def found_file(store: Store, trail: Trail, caller: Caller, *, event: str, at: datetime) -> tuple[Exported, bytes]:
    """The file that was recorded, byte for byte.

    Raises NotFound as `exported_found` does, or once its search has ended; WrongState if what the log says of these
    events has changed since (one was flagged, or erased), so that it is no longer that file.
    """
    recorded, search = exported_found(store, trail, caller, event=event, at=at)
    content, _ = _written(_of_search(store, trail, caller, search, at)[0], recorded.format, trail.origin)
    if sha256(content).hexdigest() != recorded.sha256:
        raise WrongState("an event of this file was flagged or erased since it was recorded: export it again")
    return recorded, content


def _of_search(store: Store, trail: Trail, caller: Caller, search: str, at: datetime) -> tuple[Report, LogSearch]:
    page = found(store, trail, caller, search=search, limit=AT_ONCE, at=at)
    events = list(page.found)
    while page.next is not None and len(events) <= MOST:
        page = found(store, trail, caller, search=search, after=page.next, limit=AT_ONCE, at=at)
        events += page.found
    if len(events) > MOST:
        raise Malformed(f"search: more than {MOST} events fit; narrow the search, or take a report")
    with store.reading() as reading:
        own = head_of_event(reading, search)
    if own is None:
        raise NotFound("there is no such search, or it has ended")
    searched = instant(own.t_ms)
    since = page.filter.since or (events[-1].event.at if events else searched)
    period = Period(since, page.filter.until or searched + timedelta(milliseconds=1))
    made = Report(
        code=FOUND, title="What a search of the log found", period=period, made_at=searched, columns=COLUMNS,
        rows=lambda: map(_row, events),
    )  # fmt: skip
    return made, page


def _row(one: FoundEvent) -> Row:
    event = one.event
    return (
        event.event_id, event.at, event.type, event.op, event.organisation, event.person, event.role, event.purpose,
        one.threshold, event.case, event.outcome, event.break_glass, one.clauses, one.sources, one.flags, one.erased,
    )  # fmt: skip


def _written(made: Report, fmt: str, origin: str) -> tuple[bytes, int]:
    if fmt not in ("csv", "json"):
        raise Malformed("format: csv or json is due")
    written = write(made, fmt, origin=origin)
    content = b"".join(written.pieces)
    return content, written.rows


def _known(store: Store, trail: Trail, about: About, at: datetime) -> None:
    """Return if the log knows whom a report is about: what somebody mistyped is not written into an event."""
    with store.reading() as reading:
        if about.subject and not is_known(reading, subject_hmac=trail.keys.subject_index(about.subject)):
            raise NotFound("subject: the log knows nobody by this reference")
        if about.organisation and reading.one(AgencyRow, id=about.organisation) is None:
            raise NotFound("organisation: none of this id is enrolled")
    if about.discovered is not None and about.discovered > at:
        raise Malformed("discovered: this is later than now")

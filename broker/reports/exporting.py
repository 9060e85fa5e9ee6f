"""A report as a file that leaves: made whole, recorded with its SHA-256, and only then let out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import BinaryIO, Final

from audit.events import Json
from broker.callers import Caller
from broker.errors import Malformed, NotFound
from broker.reports.catalogue import report
from broker.reports.formats import MEDIA, SUFFIX, write
from broker.reports.looking import OPEN_SECTIONS, check_reader, check_reason, note
from broker.reports.table import About, Period, utc
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.log_search import is_known
from broker.trail import Trail

BUFFER: Final = 1 << 16


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
    check_reader(caller)
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


def _known(store: Store, trail: Trail, about: About, at: datetime) -> None:
    """Return if the log knows whom a report is about: what somebody mistyped is not written into an event."""
    with store.reading() as reading:
        if about.subject and not is_known(reading, subject_hmac=trail.keys.subject_index(about.subject)):
            raise NotFound("subject: the log knows nobody by this reference")
        if about.organisation and reading.one(AgencyRow, id=about.organisation) is None:
            raise NotFound("organisation: none of this id is enrolled")
    if about.discovered is not None and about.discovered > at:
        raise Malformed("discovered: this is later than now")

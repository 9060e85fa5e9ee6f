"""The reports of information governance by their codes.

R4, the ledger of one subject, is the subject access pack: `broker.access` makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from broker.errors import Malformed, NotFound
from broker.reports import breach, estate, register, running
from broker.reports.reading import Source
from broker.reports.table import About, OpenedEvent, Period, Report, Row
from broker.store import Store
from broker.trail import Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A report that can be asked for.  `about`: what of `About` it takes."""

    code: str
    title: str
    columns: tuple[str, ...]
    rows: Callable[[Source], Iterator[Row]]
    events: Callable[[Source], Iterator[OpenedEvent]] | None = None
    about: frozenset[str] = frozenset()


_KINDS: Final = (
    Kind(code="R1", title="Disclosure register", columns=register.R1, rows=register.disclosures,
         events=register.disclosed),
    Kind(code="R2", title="Refusals", columns=register.R2, rows=register.refusals, events=register.refused),
    Kind(code="R3", title="Break-glass", columns=register.R3, rows=register.break_glass,
         events=register.broken_glass),
    Kind(code="R5", title="Register of agreements", columns=estate.R5, rows=estate.documents),
    Kind(code="R6", title="Record of processing activities (Article 30)", columns=estate.R6, rows=estate.processing),
    Kind(code="R7", title="Breach pack", columns=breach.R7, rows=breach.pack, events=breach.received,
         about=frozenset({"subject", "organisation", "discovered"})),
    Kind(code="R8", title="Retention certificate", columns=running.R8, rows=running.deleted,
         events=running.erasures),
    Kind(code="R9", title="Link quality", columns=running.R9, rows=running.linkage),
    Kind(code="R10", title="Section 62 log extract", columns=register.R10, rows=register.extract,
         events=register.extracted, about=frozenset({"organisation"})),
)  # fmt: skip
REPORTS: Final[Mapping[str, Kind]] = {kind.code: kind for kind in _KINDS}


def kind_of(code: str) -> Kind:
    """A kind of report.  Raises NotFound."""
    if code not in REPORTS:
        raise NotFound(
            "R4 is one subject's ledger, a pack with proofs: `broker subjects report`"
            if code == "R4"
            else f"there is no report of this code; there are {', '.join(REPORTS)}; and R4, `broker subjects report`"
        )
    return REPORTS[code]


def report(
    code: str, store: Store, trail: Trail, period: Period, *, about: About | None = None, at: datetime
) -> Report:
    """A report over a period, made at an instant; nothing is read before its rows are.

    Who calls this records it: `export` does, for a file; whatever shows rows otherwise has to.  Raises NotFound for a
    code that is none, Malformed for something the report can't be about.
    """
    kind, about = kind_of(code), about or About()
    given = {name for name in ("subject", "organisation", "discovered") if getattr(about, name)}
    if wrong := given - kind.about:
        raise Malformed(f"{code} is not of one {', '.join(sorted(wrong))}")
    if code == "R7" and bool(about.subject) == bool(about.organisation):
        raise Malformed("R7 is of one person (subject), or of one organisation whose key was compromised")
    source = Source(store=store, trail=trail, period=period, about=about, at=at)
    return Report(
        code=code, title=kind.title, period=period, made_at=at, columns=kind.columns, rows=partial(kind.rows, source),
        events=partial(kind.events, source) if kind.events is not None else None,
    )  # fmt: skip

"""R5 the register of agreements, and R6 the record of processing activities: as they stand when the report is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Set
from dataclasses import fields, replace
from datetime import datetime
from typing import Final

from agreements import VOCABULARY, Agreement
from agreements.export import article30
from agreements.lifecycle import PartyStanding
from broker import agencies, register
from broker.reports.reading import CHUNK, Source
from broker.reports.table import Row
from broker.store.log_search import newest

R5: Final = (
    "dsa_id@ver", "kind", "title", "status", "since", "why", "effective", "last_day", "review_due", "signatories",
    "unsigned", "live_flows", "last_used", "approved_by", "due", "sha256",
)  # fmt: skip
R6: Final = tuple(one.name for one in fields(article30.Entry))
_DISCLOSED: Final = ("disclosure.authorised", "statistics.disclosed")


def documents(source: Source) -> Iterator[Row]:
    """R5: every document of the register, by its ref; `last_used` is within the period."""
    with source.store.reading() as reading:
        listed = register.documents(reading, at=source.at)
        feeds = agencies.feeds(reading, at=source.at)
    used = _last_used(source, {one.ref for one in listed if one.kind == "agreement"})
    flows: dict[str, list[str]] = defaultdict(list)
    for feed in feeds:
        if feed.state in ("CURRENT", "STALE"):
            flows[feed.organisation].append(f"{feed.organisation}/{feed.flow}")
    for one in sorted(listed, key=lambda each: each.ref):
        grants = one.document.grants if isinstance(one.document, Agreement) else ()
        givers = {party for grant in grants for party in grant.sources}
        yield (
            one.ref, one.kind, one.title, one.state.name, one.state.since, one.state.why, one.effective, one.last_day,
            one.review_by, tuple(_standing(party, each) for party, each in sorted(one.state.parties.items())),
            one.state.awaited, tuple(sorted(flow for party in givers for flow in flows[party])), used.get(one.ref),
            one.approved_by or "", tuple(due.words for due in one.due), one.digest,
        )  # fmt: skip


def processing(source: Source) -> Iterator[Row]:
    """R6: the record of UK GDPR Article 30 of all agreements that are in force at the end of the period."""
    with source.store.reading() as reading:
        listed = register.documents(reading, at=min(source.at, source.period.until))
    live = [one.document for one in listed if one.state.name == "active" and isinstance(one.document, Agreement)]
    for entry in article30.entries(live, VOCABULARY):
        yield tuple(getattr(entry, name) for name in R6)


def _standing(party: str, standing: PartyStanding) -> str:
    if standing.since is None:
        return f"{party} {standing.state}"
    return f"{party} {standing.state} {standing.since:%Y-%m-%d}"


def _last_used(source: Source, refs: Set[str]) -> dict[str, datetime]:
    """When something was last disclosed under each agreement in the period: newest first, until each is found."""
    found: dict[str, datetime] = {}
    wanted = source.wanted(_DISCLOSED)
    while len(found) < len(refs):
        with source.store.reading() as reading:
            heads = newest(reading, wanted, limit=CHUNK)
        if not heads:
            break
        for one in source.open(heads):
            clauses = one.body("why").get("clauses") or ()
            for ref in {str(clause).partition("#")[0] for clause in clauses} & refs:
                found.setdefault(ref, one.event.at)
        wanted = replace(wanted, before=heads[-1].place)
    return found

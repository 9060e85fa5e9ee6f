"""R8 what was deleted, and R9 how well records were linked: of the broker's own work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.reports.reading import Source
from broker.reports.table import OpenedEvent, Row
from broker.store.runs import LinkRunRow

ERASURES: Final = ("retention.run", "subject.erased", "subject.lifted")
_EXPIRED: Final = "_expired"  # after the number of events, in the outcome of a run

R8: Final = (
    "event_id", "utc", "type", "actor", "org", "authority", "what", "count", "sha256", "log", "log_index",
)  # fmt: skip
R9: Final = (
    "run", "night", "published_at", "state", "why", "failure", "records", "persons", "linked_records",
    "candidate_pairs", "match_pairs", "possible_pairs", "reviews", "merges", "splits", "model_sha256", "group", "value",
    "group_records", "rate_percent", "others_percent", "finding",
)  # fmt: skip
_COUNTED: Final = (
    "records", "persons", "linked_records", "candidate_pairs", "match_pairs", "possible_pairs", "reviews", "merges",
    "splits",
)  # fmt: skip
_NO_COUNTS: Final = frozenset({"v", "authority", "terms"})


def deleted(source: Source) -> Iterator[Row]:
    """R8: a row for each count of each deletion, with the digests it gives; never what was deleted.

    A run in which nothing was due says so, with 0 events.  A lift of an erasure is told too.
    """
    for one in erasures(source):
        event, what = one.event, one.body("what")
        counts = list(_counts({name: value for name, value in what.items() if name not in _NO_COUNTS}))
        if event.outcome.endswith(_EXPIRED):
            counts.insert(0, ("events", int(event.outcome.removesuffix(_EXPIRED)), ""))
        for name, count, digest in counts or [("", None, "")]:
            yield (
                event.event_id, event.at, event.type, event.person, event.organisation, _authority(what), name, count,
                digest, one.log, one.index,
            )  # fmt: skip


def erasures(source: Source) -> Iterator[OpenedEvent]:
    """The events of R8."""
    return source.events(source.wanted(ERASURES))


def linkage(source: Source) -> Iterator[Row]:
    """R9: each run that ended in the period, then a row for each group it reports, small groups hidden."""
    with source.store.reading() as reading:
        runs = reading.all(LinkRunRow, order=("started_at", "id"))
    for run in runs:
        if run.finished_at is None or not source.period.since <= run.finished_at < source.period.until:
            continue
        about = (
            run.id, run.night, run.published_at, run.state, run.why, run.failure or "",
            *(run.counts.get(name) for name in _COUNTED), run.model_sha256 or "",
        )  # fmt: skip
        yield (*about, "", "", None, None, None, None)
        for rate in run.counts.get("rates") or ():
            yield (
                *about, rate["group"], rate["value"], rate["records"], _percent(rate["rate"]),
                _percent(rate["others"]), rate["finding"],
            )  # fmt: skip


def _authority(what: Mapping[str, Any]) -> tuple[str, ...]:
    """By what right something was deleted: the request's code, or the terms of the schedule in their order."""
    terms = what.get("terms")
    if isinstance(terms, Mapping):
        return tuple(f"{name} {value}" for name, value in sorted(terms.items()) if isinstance(value, int))
    return tuple(str(what[name]) for name in ("authority", "reason") if name in what)


def _counts(what: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, int | None, str]]:
    """Every whole number and every digest of a body, under the dotted name of where it stands."""
    for name, value in sorted(what.items()):
        place = f"{above}.{name}" if above else name
        if isinstance(value, Mapping):
            yield from _counts(value, place)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield place, value, ""
        elif isinstance(value, str) and name.endswith("sha256"):
            yield place, None, value


def _percent(share: float | None) -> int | None:
    return None if share is None else round(100 * share)

"""The night: what was sealed is decided, what was accepted is linked, and one transaction puts the result in service.

    claim -> gather -> link -> build -> check -> publish -> tidy

A run writes new segments and changes none.  Until the pointer is flipped, in one transaction with its event, searches
see the last good run; a run that was killed is discarded by the next one, with its segments; one that a gate refuses
leaves everything as it was.  Running twice is once: without a new batch there is nothing to do.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from hashlib import sha256
from typing import Any

import pyarrow as pa
import structlog

from broker import overrides
from broker.errors import WrongState
from broker.gates import WARN_CHILDREN, RunRefused, check, check_input, counts_of
from broker.gathering import Inputs, gather, inputs_of
from broker.reception import Reception
from broker.runs import Site, claim, discard_unfinished, fail, put_in_service, stage
from broker.store import Reading
from broker.store.batches import BatchRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.validation import validate_sealed
from broker.vault import SegmentId, Vault
from linkage.matching.families import families
from linkage.matching.link import link
from linkage.matching.model import BadModel, Model

log = structlog.get_logger()


def run(
    site: Site,
    *,
    night: date,
    at: datetime,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    exception: bool = False,
) -> dict[str, Any]:
    """Decide what is sealed, link what is accepted, publish; what was done, as plain data.

    `exception`: the partnership has agreed in writing to more than 200,000 children under one key.
    Raises WrongState if another run is at work, RunRefused if a gate refuses the result.  Killed anywhere, it leaves
    the last good run in service and is begun again by the next call.
    """
    reception = Reception.of(site.settings, site.store, site.keys, site.trail)
    with _alone(site):
        decided = validate_sealed(reception)
        done: dict[str, Any] = {"night": night.isoformat(), "batches": _counted(decided.values())}
        discard_unfinished(site)
        with site.store.reading() as tx:
            inputs = inputs_of(tx, reception)
            published = tx.one(PublishedRow)
            before = tx.one(LinkRunRow, id=published.run) if published else None
            by_hand = overrides.fingerprint(tx, at=at)
        if not inputs.sources:
            done |= {"state": "nothing", "run": before.id if before else None}
        elif before is not None and (before.counts.get("inputs"), before.counts.get("overrides")) == (
            inputs.fingerprint,
            by_hand,
        ):
            done |= {"state": "unchanged", "run": before.id}
        else:
            done |= _one_run(site, reception, inputs, before, night=night, at=at, new_id=new_id, exception=exception)
        _tidy(site, reception)
        site.trail.advance_pending()
        return done


def _counted(states: Any) -> dict[str, int]:
    listed = sorted(states)
    return {state: listed.count(state) for state in listed}


@contextmanager
def _alone(site: Site) -> Iterator[None]:
    """One run a machine: the system lets go of the lock when the process ends, however it ends."""
    place = site.settings.data_dir / "nightly.lock"
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongState("another run is at work") from None
        yield


def _one_run(
    site: Site,
    reception: Reception,
    inputs: Inputs,
    before: LinkRunRow | None,
    *,
    night: date,
    at: datetime,
    new_id: Callable[[], str],
    exception: bool,
) -> dict[str, Any]:
    row = claim(site, inputs, before, night=night, at=at)
    try:
        persons, relationships = gather(site.vault, reception, inputs, before)
        check_input(persons)
        stage(site, row, "link")
        model, previous = _from_before(site, before)
        by_hand, said = overrides.for_run(site.store, site.trail, site.keys, persons, previous, at=at)
        linkage = link(
            persons, duplicates=inputs.duplicates, model=model, previous=previous, households=relationships,
            overrides=by_hand, new_id=new_id,
        )  # fmt: skip
        counts = counts_of(persons, linkage, inputs) | {"overrides": said}
        check(counts, before, linkage, exception=exception)
        stage(site, row, "build")
        tables = {
            "persons": persons,
            "relationships": relationships,
            "clusters": linkage.clusters,
            "family": families(linkage.clusters, relationships, overrides=by_hand),
            "pairs": linkage.pairs,
            "reviews": linkage.reviews,
            "severed": by_hand.severed_table(),
            "model": pa.table({"model": pa.array([linkage.model.canonical()], pa.binary())}),
        }
        segments = _build(site.vault, row.id, tables)
        model_sha256 = sha256(linkage.model.canonical()).hexdigest()
        put_in_service(site, row, inputs, segments=segments, counts=counts, model_sha256=model_sha256)
    except RunRefused as refused:
        fail(site, row, refused.code)
        raise
    except Exception as wrong:
        fail(site, row, type(wrong).__name__)
        raise
    log.info("linkage published", run=row.id, counts={name: counts[name] for name in ("records", "persons")})
    warnings = ["population"] if counts["children"] > WARN_CHILDREN else []
    return {"state": "published", "run": row.id, "counts": counts, "warnings": warnings}


def _from_before(site: Site, before: LinkRunRow | None) -> tuple[Model | None, pa.Table | None]:
    """The frozen model and the clusters of the run in service; a model of another version is trained anew."""
    if before is None:
        return None, None
    clusters = site.vault.read(SegmentId(before.segments["clusters"]))
    try:
        return Model.parse(site.vault.read(SegmentId(before.segments["model"]))["model"][0].as_py()), clusters
    except BadModel:
        return None, clusters


def _build(vault: Vault, run_id: str, tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Write the run's segments; on return each is on disk and was read back, equal."""
    segments: dict[str, str] = {}
    for name, table in tables.items():
        segments[name] = vault.write(f"{name}-{run_id[:12]}", table)
    for name, segment in segments.items():
        if not vault.read(SegmentId(segment)).equals(tables[name]):
            raise RunRefused("unreadable_segment", f"segment {name} does not read back as it was written")
    return segments


def _tidy(site: Site, reception: Reception) -> None:
    """Delete segments that neither the run in service nor the one before needs, and spooled tables now in service.

    A batch that was accepted, or waits, keeps its chunks until a run that holds it is published.
    """
    with site.store.reading() as tx:
        published = tx.one(PublishedRow)
        keep: set[str] = set()
        run_id: str | None = published.run if published else None
        for _ in range(2):
            row = tx.one(LinkRunRow, id=run_id) if run_id else None
            if row is not None:
                keep.update(row.segments.values())
                run_id = row.previous
        spooled = sorted(reception.spool.batches())
        needed = {
            row.id
            for row in _rows_of(tx, spooled)
            if row.state in ("open", "sealed", "validating", "quarantined", "accepted")
        }
    site.vault.sweep(frozenset(keep))
    for batch in spooled:
        if batch not in needed:
            reception.spool.drop(batch)


def _rows_of(tx: Reading, batches: Sequence[str]) -> list[BatchRow]:
    return [row for batch in batches if (row := tx.one(BatchRow, id=batch)) is not None]

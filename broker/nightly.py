"""The night: what was sealed is decided, what was accepted is linked, and one transaction puts the result in service.

    claim -> gather -> link -> build -> check -> publish -> tidy

A run writes new segments and changes none; where a flow says nothing new it shares one with the run before.  Until the
pointer is flipped, in one transaction with its event, searches see the last good run; a run that was killed is
discarded by the next one, with its segments; one that a gate refuses leaves everything as it was.  Running twice is
once: without a new batch there is nothing to do.
"""

from __future__ import annotations

import fcntl
import gc
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
import structlog

from broker import clock, epochs, ledger, models, overrides, reviews
from broker.errors import WrongState
from broker.gates import WARN_CHILDREN, RunRefused, check, check_input, counts_of, rates_of
from broker.gathering import Gathered, Inputs, gather, inputs_of
from broker.linked import clusters_read_when_asked
from broker.reception import Reception
from broker.runs import Site, claim, discard_unfinished, fail, keep_model, put_in_service, stage
from broker.store import Reading, Transaction
from broker.store.batches import BatchRow
from broker.store.items import records_with
from broker.store.runs import LinkRunRow, PublishedRow
from broker.validation import validate_sealed
from broker.vault import Vault
from linkage.matching.facts import Facts, facts_of
from linkage.matching.families import severed_persons
from linkage.matching.keeping import KEPT, RECORDS, before_of
from linkage.matching.kin import KEPT_KIN, EarlierKin, Kin, Rows, kin
from linkage.matching.lazily import Lazy
from linkage.matching.link import Carried, Engine, Linkage, link
from linkage.matching.members import Placed
from linkage.matching.model import BadModel, Model
from linkage.matching.overrides import Overrides

log = structlog.get_logger()

KEPT_FACTS: Final = "kept_facts"  # by row of persons, which of the combinations it has that are
KEPT_KINDS: Final = "kept_kinds"
LOOKED_AFTER: Final = "social_care.looked_after"  # the category whose records the standing report tells apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Relink:
    """What a person asks of a run beyond a night: it is made though nothing new came in.

    `full` compares every pair anew, `engine` where another than DuckDB does.  `retrain` trains a model, links by it
    beside the one in service, and takes it if the link rate does not jump.  `accept` is the digest of a kept model that
    the operator `by` takes in against that gate.
    """

    full: bool = False
    engine: Engine | None = None
    retrain: bool = False
    accept: str = ""
    by: str = ""

    @property
    def whole(self) -> bool:
        """Whether every pair is compared, and every edge drawn."""
        return self.full or self.engine is not None

    @property
    def why(self) -> str:
        """As the run's row says it."""
        return "accepted" if self.accept else "retrain" if self.retrain else "full" if self.full else "relink"


class ModelRefused(RunRefused):
    """A newly trained model moves the link rate: it is kept, and waits for a person."""

    def __init__(self, message: str, comparison: models.Comparison) -> None:
        super().__init__("model_link_rate", message)
        self.comparison = comparison


def run(
    site: Site,
    *,
    night: date,
    at: datetime,
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    exception: bool = False,
    relink: Relink | None = None,
) -> dict[str, Any]:
    """Decide what is sealed, link what is accepted, publish; what was done, as plain data.

    Only records that differ from those of the run in service are compared, and the result is that of a full relink.
    `exception`: the partnership has agreed in writing to more than 200,000 children under one key.
    Raises WrongState if another run is at work, RunRefused if a gate refuses the result, NotFound for a model to accept
    that is not kept.  Killed anywhere, it leaves the last good run in service and is begun again by the next call.
    """
    reception = Reception.of(site.settings, site.store, site.keys, site.trail)
    with alone(site), unswept():
        decided = validate_sealed(reception)
        done: dict[str, Any] = {"night": night.isoformat(), "batches": _counted(decided.values())}
        discard_unfinished(site)
        with site.store.reading() as tx:
            inputs = inputs_of(tx, reception)
            published = tx.one(PublishedRow)
            before = tx.one(LinkRunRow, id=published.run) if published else None
            by_hand = overrides.fingerprint(tx, at=at)
            due = relink is None and models.retraining_due(tx, days=site.settings.retrain_days, at=at)
            accepted = models.to_accept(tx, relink.accept) if relink is not None and relink.accept else None
        known = (before.counts.get("inputs"), before.counts.get("overrides")) if before is not None else None
        if not inputs.sources:
            done |= {"state": "nothing", "run": before.id if before else None}
        elif before is not None and known == (inputs.fingerprint, by_hand) and relink is None and not due:
            done |= {"state": "unchanged", "run": before.id}
        else:
            one = Run(
                site=site, reception=reception, inputs=inputs, before=before, night=night, at=at, new_id=new_id,
                exception=exception, relink=relink, accepted=accepted, due=due,
            )  # fmt: skip
            done |= one.publish()
            reviews.take_in_published(site.store, site.keys, site.vault, at=at)
        who = {"organisation": site.settings.partnership, "method": "nightly"}
        if recalled := ledger.recall_due(site.store, site.trail, who=who, at=at):  # of a run before too, if that died
            done["recalled"] = recalled
        purge_held(site, reception)
        tidy(site, reception)
        site.trail.advance_pending()
        return done


def _counted(states: Any) -> dict[str, int]:
    listed = sorted(states)
    return {state: listed.count(state) for state in listed}


@contextmanager
def alone(site: Site) -> Iterator[None]:
    """One run a machine: the system lets go of the lock when the process ends, however it ends."""
    place = site.settings.data_dir / "nightly.lock"
    with place.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongState("another run is at work") from None
        yield


@contextmanager
def unswept() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: a night makes millions of values and no cycles worth the looking.

    That took a twelfth of the processor time of a million records; what is not in a cycle is freed as ever.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What linking gave, before anything of it is written."""

    held: Held
    gathered: Gathered
    by_hand: Overrides
    linkage: Linkage
    placed: Placed
    facts: Facts
    counts: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run, from what is accepted to what is in service."""

    site: Site
    reception: Reception
    inputs: Inputs
    before: LinkRunRow | None
    night: date
    at: datetime
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    exception: bool = False
    relink: Relink | None = None
    accepted: Model | None = None
    due: bool = False

    @property
    def why(self) -> str:
        """What asked for it, as its row says."""
        return self.relink.why if self.relink else "nightly"

    def yardstick(self) -> LinkRunRow | None:
        """The run whose rates this one's must be near to."""
        return self.before

    def begin(self) -> LinkRunRow:
        """Claim it."""
        return claim(self.site, self.inputs, self.before, night=self.night, at=self.at, why=self.why)

    @contextmanager
    def failing(self, row: LinkRunRow) -> Iterator[None]:
        """Say of the run why it came to nothing, if it does."""
        try:
            yield
        except RunRefused as refused:
            fail(self.site, row, refused.code)
            raise
        except Exception as wrong:
            fail(self.site, row, type(wrong).__name__)
            raise

    def publish(
        self,
        judge: Callable[[Found], None] = lambda _: None,
        beside: Callable[[Transaction, LinkRunRow], None] = lambda *_: None,
    ) -> dict[str, Any]:
        """Make the run and put it in service.  Raises RunRefused, having left everything as it was.

        `judge` may raise it, too; `beside` does what belongs into the transaction that puts it in service.
        """
        site, before = self.site, self.before
        row = self.begin()
        with self.failing(row):
            found = self.link(row)
            gathered, counts, linkage = found.gathered, found.counts, found.linkage
            check(counts, self.yardstick(), linkage, exception=self.exception, accepted=self.accepted is not None)
            judge(found)
            counts["rates"] = self._rates(found.facts, found.placed)
            stage(site, row, "build")
            family = self._family(found)
            counts["family"] = family.counts()
            tables = {
                **gathered.new, "reviews": linkage.reviews, "severed": found.by_hand.severed_table(), **linkage.kept,
                **family.kept(), KEPT_FACTS: pa.table({"kind": found.facts.of}), KEPT_KINDS: found.facts.kinds,
            }  # fmt: skip
            segments = dict(gathered.unchanged)
            if found.held.model is not None and found.held.model == linkage.model and before is not None:
                segments["model"] = before.segments["model"]
            else:
                tables["model"] = pa.table({"model": pa.array([linkage.model.canonical()], pa.binary())})
            segments |= build(site.vault, row.id, tables)
            by = self.relink.by if self.relink else ""
            put_in_service(
                site, row, self.inputs, segments=segments, counts=counts, linkage=linkage,
                accepted_by=by if self.accepted is not None else None, beside=beside,
            )  # fmt: skip
        log.info("linkage published", run=row.id, counts={name: counts[name] for name in ("records", "persons")})
        warnings = found.warnings + (["population"] if counts["children"] > WARN_CHILDREN else [])
        return {"state": "published", "run": row.id, "counts": counts, "warnings": warnings}

    def sources(self) -> tuple[Held, Gathered]:
        """What the run in service leaves to this one, and the rows to link."""
        held = Held.of(self.site.vault, self.before)
        return held, gather(self.site.vault, self.reception, self.inputs, self.before, before_of(held.kept))

    def binding(self, gathered: Gathered, held: Held) -> tuple[Overrides, str]:
        """What people have decided that binds this run, and its fingerprint."""
        site = self.site
        return overrides.for_run(site.store, site.trail, site.keys, gathered.persons, held.clusters, at=self.at)

    def link(self, row: LinkRunRow) -> Found:
        """Gather and link, and count what came of it.  Raises RunRefused if there is nobody."""
        held, gathered = self.sources()
        check_input(gathered.persons)
        stage(self.site, row, "link")
        by_hand, said = self.binding(gathered, held)
        linkage, warnings = self._linked(row, gathered, held, by_hand)
        placed = Placed.of_run(linkage)
        facts = facts_of(gathered.persons, gathered.carried.persons if gathered.carried else None, held.facts)
        counts = counts_of(facts, linkage, self.inputs, placed)
        counts |= {"overrides": said, "contents": dict(gathered.contents), "profile": self.reception.profile}
        counts |= {"key_epoch": self.inputs.epoch, "lengths": [list(one) for one in gathered.lengths]}
        return Found(
            held=held, gathered=gathered, by_hand=by_hand, linkage=linkage, placed=placed, facts=facts, counts=counts,
            warnings=warnings,
        )  # fmt: skip

    def _linked(self, row: LinkRunRow, gathered: Gathered, held: Held, by_hand: Overrides) -> tuple[Linkage, list[str]]:
        """Linked by the model in service, or by the one that takes its place; what the operator should know of it."""
        whole = self.relink is not None and self.relink.whole
        given = partial(
            link, gathered.persons, duplicates=self.inputs.duplicates, previous=held.clusters,
            households=gathered.relationships, overrides=by_hand, new_id=self.new_id,
            engine=self.relink.engine if self.relink else None,
        )  # fmt: skip
        if self.accepted is not None:
            return given(model=self.accepted), []
        linkage = given(
            model=held.model, kept=None if whole else held.kept, carried=None if whole else gathered.carried
        )
        asked = self.due or (self.relink is not None and self.relink.retrain)
        if held.model is None or not asked:
            return linkage, []
        stage(self.site, row, "retrain")
        shadow = given(model=None)
        compared = models.comparison(linkage, shadow)
        refusal = models.refusal(compared)
        keep_model(self.site, row, shadow.model, compared, refused=refusal is not None, at=self.at)
        if refusal is None:
            return shadow, []
        if self.relink is not None:
            raise ModelRefused(refusal, compared)
        return linkage, ["model_refused"]  # a night is not lost for it

    def _rates(self, facts: Facts, placed: Placed) -> list[dict[str, Any]]:
        """The standing report of this run: how often records of each group share a person with another flow's."""
        with self.site.store.reading() as tx:
            looked_after = records_with(tx, LOOKED_AFTER)
        return rates_of(facts, placed, looked_after, year=self.night.year)

    def _family(self, found: Found) -> Kin:
        """The family network: of a night, drawn where anything is new, and else that of the run in service."""
        linkage, placed = found.linkage, found.placed
        if linkage.ends is None:
            raise ValueError("a run is given its relationships")
        earlier = None
        if self.relink is None or not self.relink.whole:
            earlier = found.held.kin(linkage, found.gathered.carried)
        sources = tuple(sorted(self.inputs.sources))
        return kin(
            placed.members.person, sources, found.gathered.relationships, linkage.ends,
            Rows(record=placed.record, facts=found.facts), severed_persons(placed.members, found.by_hand.sever),
            earlier,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the run in service leaves to the next: the frozen model, its clusters, and what it kept to compare with."""

    model: Model | None
    clusters: Lazy | None
    kept: Mapping[str, pa.Table] | None
    facts: Facts | None = None
    family: Mapping[str, pa.Table] | None = None

    @classmethod
    def of(cls, vault: Vault, before: LinkRunRow | None) -> Held:
        """Nothing before the first run; a model of another version is none, and is trained anew."""
        if before is None:
            return cls(model=None, clusters=None, kept=None)
        clusters = clusters_read_when_asked(vault, before)
        kept, family, facts = (
            {name: vault.read(before.segments[name]) for name in names} if before.segments.keys() >= {*names} else None
            for names in (KEPT, KEPT_KIN, (KEPT_FACTS, KEPT_KINDS))
        )
        try:
            model = Model.parse(vault.read(before.segments["model"])["model"][0].as_py())
        except BadModel:
            return cls(model=None, clusters=clusters, kept=None)
        said = Facts(kinds=facts[KEPT_KINDS], of=facts[KEPT_FACTS]["kind"].to_numpy()) if facts else None
        return cls(model=model, clusters=clusters, kept=kept, facts=said, family=family)

    def kin(self, linkage: Linkage, carried: Carried | None) -> EarlierKin | None:
        """The network of the run in service by tonight's numbers; None where rows are not known again."""
        before = before_of(self.kept)
        if before is None or self.kept is None or self.family is None or carried is None or linkage.now is None:
            return None
        gone = np.ones(len(before.rec), np.bool_)
        gone[carried.persons[carried.persons >= 0]] = False
        then = linkage.now[before.rec[gone]]
        changed = np.concatenate([linkage.placed[carried.persons < 0].astype(np.int64), then[then >= 0]])
        return EarlierKin(
            kept=self.family, person=self.kept[RECORDS]["person"].to_numpy().astype(np.int64), ends=before.ends,
            now=linkage.now, carried=carried.relationships, changed=changed,
        )  # fmt: skip


def build(vault: Vault, run_id: str, tables: Mapping[str, pa.Table]) -> dict[str, str]:
    """Write the run's segments; on return each is on disk, and was opened again to its last byte."""
    segments: dict[str, str] = {}
    for name, table in tables.items():
        segment = vault.write(f"{name.partition('/')[0].replace('_', '-')}-{run_id[:12]}", table)
        if not vault.check(segment, table):
            raise RunRefused("unreadable_segment", f"segment {name} does not read back as it was written")
        segments[name] = segment
    return segments


def purge_held(site: Site, reception: Reception) -> None:
    """Write anew what is held of an epoch that was in service, without whom was erased since: nobody comes back."""
    at = clock.now()
    with site.store.reading() as tx:
        held = epochs.held(tx)
        if held is None:
            return
        inputs = inputs_of(tx, reception, back_to=held.last)
    if not inputs.barred.since(held.run.started_at):
        return
    gathered = gather(site.vault, reception, inputs, held.run)
    if not gathered.new:  # none of them was there
        return
    segments = dict(gathered.unchanged) | build(site.vault, held.run.id, gathered.new)
    with site.store.transaction() as tx:
        epochs.keep_held(tx, held, segments, since=at)


def tidy(site: Site, reception: Reception) -> None:
    """Delete segments that neither the run in service, the one before nor a held epoch needs, and spooled tables.

    A batch that was accepted, or waits, keeps its chunks until a run that holds it is published.
    """
    with site.store.reading() as tx:
        published = tx.one(PublishedRow)
        keep = set(epochs.held_segments(tx).values())
        run_id: str | None = published.run if published else None
        for _ in range(2):
            row = tx.one(LinkRunRow, id=run_id) if run_id else None
            if row is not None and epochs.state_of(tx, row.counts.get("key_epoch", "")) != "dropped":
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

"""Rotation of the linkage key: the set of a new epoch is linked by itself, judged, and takes the place of the old one.

    open -> batches -> link -> flip (proposed by one, confirmed by another) -> drop          stop: back, or given up

To link is to try: what came of it is a report, and nothing of it is kept.  A flip links again, by what holds at that
moment, so that whoever was erased or severed since is; the gate judges that run; and one transaction puts run, epoch,
flows and agencies in service.  Killed anywhere, it leaves the old epoch or the new one whole, as a night does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from agreements.agreement import LONDON
from audit.events import Json
from broker import clock, epochs, ledger, nightly, overrides, reviews, shadow
from broker.errors import NotAllowed, WrongState
from broker.gates import RunRefused, check
from broker.gathering import Flow, Gathered, Since, gather, inputs_of
from broker.nightly import Found, Held, Run, alone, tidy, unswept
from broker.reception import Reception
from broker.runs import Site, discard_unfinished
from broker.shadow import EpochHeld, Reason
from broker.store import Reading, Transaction
from broker.store.agencies import AgencyFlowRow
from broker.store.epochs import EpochRow
from broker.store.runs import LinkRunRow, PublishedRow
from broker.trail import Who, record_change
from broker.validation import validate_sealed
from linkage.matching.overrides import Overrides

SAID: Final = 20  # reasons that an event names; the report has them all


def link(site: Site, name: str, *, who: Who, at: datetime, exception: bool = False) -> dict[str, Any]:
    """Link the set of an epoch by itself, set it beside what is in service, and say why it may not take its place.

    Nothing in service changes, and nothing is kept but the report.  `exception` as for a night.  Raises NotFound,
    WrongState for an epoch that is not prepared, while another run is at work, or while nothing is in service or in the
    set.
    """
    with _at_work(site) as reception:
        with site.store.reading() as tx:
            one, reasons = _prepared(site, reception, tx, name, at)
        row = one.begin()
        one = replace(one, exception=exception)
        with one.failing(row):
            found = one.link(row)
            report = _judged(site, one, found, reasons)
        with site.store.transaction() as tx:
            held, epoch = tx.locked_one(LinkRunRow, id=row.id), tx.locked_one(EpochRow, name=name)
            if held is None or epoch is None or epoch.state != "prepared":
                raise WrongState("the epoch is not being prepared any more")
            held.state, held.stage, held.counts, held.finished_at = "compared", "", report["all"], clock.now()
            epoch.report = report | {"run": row.id, "at": at.isoformat()}
            tx.add(held, epoch)
            record_change(
                tx, site.trail, "epoch.linked", who, at, epoch=name, run=row.id, **_told(report),
                records=report["all"]["records"], persons=report["all"]["persons"],
                pairs_lost=report["all"]["pairs"]["lost"], pairs_gained=report["all"]["pairs"]["gained"],
            )  # fmt: skip
        return {"epoch": name, "run": row.id} | report


def propose(site: Site, name: str, *, who: Who, at: datetime) -> dict[str, Any]:
    """Propose to put an epoch in service.  Raises NotFound, WrongState, EpochHeld if its report names a reason."""
    with site.store.transaction() as tx:
        row = tx.locked_one(EpochRow, name=epochs.found(tx, name).name)
        if row is not None and row.state == "in_service":
            return {"epoch": name, "state": row.state}
        if row is None or row.state != "prepared":
            raise WrongState("only an epoch that is being prepared can be put in service")
        if row.report is None:
            raise WrongState(f"its set has not been linked yet: broker epochs link {name}")
        if row.report["reasons"]:
            refused = row.report["reasons"]
        else:
            refused = []
            row.proposed_by, row.proposed_at = str(who.get("person", "")), at
            tx.add(row)
            record_change(tx, site.trail, "epoch.proposed", who, at, epoch=name, outcome="proposed")
    if refused:
        _refused(site, name, refused, who=who, at=at)
    return {"epoch": name, "state": "proposed", "by": who.get("person", "")}


def confirm(site: Site, name: str, *, who: Who, at: datetime, exception: bool = False) -> dict[str, Any]:
    """Put an epoch in service that somebody else has proposed: linked anew, judged, and published in one transaction.

    Raises NotFound, NotAllowed for whoever proposed it, WrongState, EpochHeld naming each reason, RunRefused; then
    everything is as it was.
    """
    with _at_work(site) as reception:
        with site.store.reading() as tx:
            epoch = epochs.found(tx, name)
            if epoch.state == "in_service":  # said again, perhaps because its answer was lost
                return {"epoch": name, "state": epoch.state}
            if not epoch.proposed_by:
                raise WrongState(f"nobody has proposed it yet: broker epochs flip {name} --by YOU")
            if epoch.proposed_by == who.get("person", ""):
                raise NotAllowed("a second person is due: not the one who proposed it")
            one, reasons = _prepared(site, reception, tx, name, at)
        one = replace(one, for_good=True, exception=exception)
        before = one.before
        assert before is not None

        def judge(found: Found) -> None:
            report = _judged(site, one, found, reasons)
            if report["reasons"]:
                raise EpochHeld(report["reasons"])

        def switch(tx: Transaction, run: LinkRunRow) -> None:
            was, replaced = epochs.switch(
                tx, reception, name, one.inputs, before, hold=timedelta(days=site.settings.epoch_hold_days),
                by=str(who.get("person", "")), at=clock.now(),
            )  # fmt: skip
            record_change(
                tx, site.trail, "epoch.flipped", who, at, epoch=name, before=was, run=run.id,
                proposed_by=epoch.proposed_by, outcome="in_service",
            )  # fmt: skip
            if replaced is not None:
                gone, counts = replaced
                record_change(tx, site.trail, "epoch.dropped", who, at, epoch=gone, outcome="replaced", **counts)

        try:
            if reasons:  # the set is not whole: nobody waits for it to be linked
                raise EpochHeld([reason.told() for reason in reasons])
            done = one.publish(judge, switch)
        except EpochHeld as refused:
            _refused(site, name, refused.reasons, who=who, at=at)
        _afterwards(site, reception, at=at)
        return {"epoch": name, "state": "in_service", "before": before.counts.get("key_epoch", "")} | _short(done)


def stop(site: Site, name: str, *, who: Who, at: datetime, exception: bool = False) -> dict[str, Any]:
    """Stop an epoch at once: one that is prepared is given up; from the one in service back to the one that is held.

    To go back is a run of its own over what is held, so that whoever was erased or severed since stays so.  What came
    in since is superseded, and each flow says how old what it shows is.  Raises NotFound, WrongState if none is held.
    """
    with site.store.transaction() as tx:
        row = tx.locked_one(EpochRow, name=epochs.found(tx, name).name)
        assert row is not None
        state = row.state
        if state == "prepared":
            epochs.stop_preparing(tx, row, at=at)
            record_change(tx, site.trail, "epoch.stopped", who, at, epoch=name, outcome="given_up")
    if state in ("prepared", "stopped"):
        return {"epoch": name, "state": "stopped"}
    if state != "in_service":
        raise WrongState("only an epoch that is prepared or in service can be stopped")
    with _at_work(site) as reception:
        with site.store.reading() as reading:
            kept = epochs.held(reading)
            if kept is None:
                raise WrongState("no epoch is held to go back to: agencies can be suspended (broker agencies suspend)")
            inputs = replace(inputs_of(reading, reception, back_to=kept.last), epoch=kept.epoch)
            before = _in_service(reading)
        one = _Apart(
            site=site, reception=reception, inputs=inputs, before=before, night=at.astimezone(LONDON).date(), at=at,
            exception=exception, epoch=kept.epoch, base=kept.run, for_good=True,
        )  # fmt: skip

        def back(tx: Transaction, run: LinkRunRow) -> None:
            epochs.switch_back(tx, name, kept, inputs, at=clock.now())
            record_change(
                tx, site.trail, "epoch.stopped", who, at, epoch=name, back_to=kept.epoch, run=run.id, outcome="back"
            )

        done = one.publish(beside=back)
        _afterwards(site, reception, at=at)
        return {"epoch": name, "state": "stopped", "back_to": kept.epoch} | _short(done)


def drop(site: Site, name: str, *, who: Who, at: datetime) -> dict[str, Any]:
    """Destroy what is kept of an epoch that is stopped, or was held for its time: segments, chunks and their keys.

    Raises NotFound, WrongState for one in service or prepared, and while it is held.
    """
    with _at_work(site, decide=False) as reception:
        with site.store.transaction() as tx:
            row = tx.locked_one(EpochRow, name=epochs.found(tx, name).name)
            assert row is not None
            if row.state in ("prepared", "in_service"):
                raise WrongState(f"the epoch is {row.state.replace('_', ' ')}: stop it first")
            if row.state == "held" and row.held_until is not None and row.held_until > at:
                raise WrongState(f"the epoch is held until {row.held_until:%d %B %Y}, so that a return is possible")
            gone = {}
            if row.state != "dropped":
                gone = epochs.forget(tx, row, at=at)
                record_change(tx, site.trail, "epoch.dropped", who, at, epoch=name, outcome="dropped", **gone)
        tidy(site, reception)
        site.trail.advance_pending()
        return {"epoch": name, "state": "dropped"} | gone


# --- A run over another set than the nights' -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Apart(Run):
    """A run of which no row is that of the run in service: every pair is compared, under the frozen model.

    `base`: the run whose segments are gathered; without it all comes from batches, as `since` has them.  `for_good`:
    severs that its markers say are kept; else they bind this run alone.
    """

    epoch: str
    base: LinkRunRow | None = None
    since: Since = lambda _, *tables: tables
    for_good: bool = False

    @property
    def why(self) -> str:
        return f"epoch {self.epoch}"

    def yardstick(self) -> None:
        """Of none: a set that is put in service is judged flow by flow, and a return must not wait for a rate."""

    def sources(self) -> tuple[Held, Gathered]:
        held = Held.of(self.site.vault, self.before)
        gathered = gather(self.site.vault, self.reception, self.inputs, self.base, since=self.since)
        return Held(model=held.model, clusters=held.clusters, kept=None), replace(gathered, carried=None)

    def binding(self, gathered: Gathered, held: Held) -> tuple[Overrides, str]:
        if self.for_good:
            return Run.binding(self, gathered, held)
        with self.site.store.reading() as tx:
            by_hand = overrides.overrides_of(tx, self.site.keys, at=self.at)
            return by_hand.with_markers(gathered.persons), overrides.fingerprint(tx, at=self.at)


def _prepared(site: Site, reception: Reception, tx: Reading, name: str, at: datetime) -> tuple[_Apart, list[Reason]]:
    """A run over the set of an epoch, and what of the set is not there."""
    epoch, before = epochs.found(tx, name), _in_service(tx)
    if epoch.state != "prepared":
        raise WrongState("only an epoch that is being prepared has a set to link")
    inputs = inputs_of(tx, reception, shadow=name)
    as_of: Mapping[Flow, datetime | None] = {(row.agency, row.flow): row.as_of for row in tx.all(AgencyFlowRow)}
    batches = {(batch.agency, batch.flow): batch for batch in inputs.batches}
    lag = timedelta(days=site.settings.epoch_lag_days)
    reasons = shadow.not_there(tx, epoch, batches, as_of, lag=lag)
    return _Apart(
        site=site, reception=reception, inputs=inputs, before=before, night=at.astimezone(LONDON).date(), at=at,
        epoch=name, since=epochs.since_then(site.vault, before, as_of),
    ), reasons  # fmt: skip


def _in_service(tx: Reading) -> LinkRunRow:
    published = tx.one(PublishedRow)
    run = tx.one(LinkRunRow, id=published.run) if published else None
    if run is None:
        raise WrongState("nothing is in service yet: enrol the agencies under the new key")
    return run


def _judged(site: Site, one: _Apart, found: Found, reasons: list[Reason]) -> dict[str, Any]:
    """The report: what is in service and what was found beside each other, and every reason against a flip."""
    assert one.before is not None
    was, now = shadow.both(site.vault, one.before, found.placed.members, found.linkage.reviews)
    report = shadow.compared(was, now)
    missing = {reason.flow for reason in reasons if reason.code == "missing"}
    against = [*reasons, *shadow.not_alike(report, site.settings, missing=missing)]
    against += shadow.not_bound(found.by_hand, was, now, missing=missing)
    try:
        check(found.counts, None, found.linkage, exception=one.exception)
    except RunRefused as refused:
        if refused.code not in {reason.code for reason in against}:
            against.append(Reason(code=refused.code, words=str(refused)))
    return report | {"reasons": [reason.told() for reason in against]}


def _told(report: Mapping[str, Any]) -> dict[str, Json]:
    """What an event says of a report's reasons: codes, and which flows they are about."""
    reasons = [f"{reason['code']} {reason['flow']}".strip() for reason in report["reasons"]]
    return {"reasons": reasons[:SAID], "outcome": "held" if reasons else "may_flip"}


def _refused(site: Site, name: str, reasons: Any, *, who: Who, at: datetime) -> None:
    """Record that an epoch may not be put in service, and raise EpochHeld."""
    with site.store.transaction() as tx:
        told = _told({"reasons": reasons})
        record_change(tx, site.trail, "epoch.refused", who, at, epoch=name, **told)
    site.trail.advance_pending()
    raise EpochHeld(reasons)


@contextmanager
def _at_work(site: Site, *, decide: bool = True) -> Iterator[Reception]:
    """No night meanwhile; what was sealed is decided, and what a killed run left is closed."""
    reception = Reception.of(site.settings, site.store, site.keys, site.trail)
    with alone(site), unswept():
        if decide:
            validate_sealed(reception)
            discard_unfinished(site)
        yield reception
        site.trail.advance_pending()


def _afterwards(site: Site, reception: Reception, *, at: datetime) -> None:
    """As after a night: reviews that wait for a person, answers that are recalled, and what nobody needs any more."""
    reviews.take_in_published(site.store, site.keys, site.vault, at=at)
    ledger.recall_due(
        site.store, site.trail, who={"organisation": site.settings.partnership, "method": "nightly"}, at=at
    )
    nightly.purge_held(site, reception)
    tidy(site, reception)


def _short(done: Mapping[str, Any]) -> dict[str, Any]:
    counts = {name: done["counts"][name] for name in ("records", "persons", "match_pairs", "reviews")}
    return {"run": done["run"], "counts": counts, "warnings": done["warnings"]}

"""Epochs of the linkage key: under which one batches and searches are taken, and what passes from one to the next.

    prepared -> in_service -> held -> dropped          prepared, in_service -> stopped -> dropped

While an epoch is prepared, agencies send full batches under its key beside their nights: its *shadow set*, which is
checked and receipted as any batch, and neither served nor linked with anything of another epoch.  To put it in service
(`broker.rotation`) changes encodings alone.  Items, the order of nights, references and what people have decided are of
no epoch, and stay; so nothing that was erased, withdrawn or expired meanwhile can come back with the set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import Conflict, Malformed, NotFound, WrongState
from broker.gathering import Flow, Inputs, Since, inputs_of, without
from broker.reception import Reception
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.batches import BatchRow
from broker.store.epochs import EpochRow, supersede_but
from broker.store.erasures import hold_batches, hold_erasures
from broker.store.runs import LinkRunRow
from broker.trail import EntryRef, Trail, Who, record_change
from broker.vault import GONE, Vault

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,31}")
ENCODINGS: Final = ("persons/", "relationships/", f"{GONE}persons/", f"{GONE}relationships/")
UNDECIDED: Final = ("open", "sealed", "validating", "quarantined")
UNSEEN: Final = timedelta(hours=1)  # an erasure is dated before it is committed: so far back it is looked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """By what a linkage key is known without being told: its epoch, its fingerprint, what it makes of three words."""

    name: str
    fingerprint: str
    canaries: tuple[str, ...]
    prepared: bool = False

    @classmethod
    def parse(cls, body: Any, *, partnership: str, profile: str) -> Key:
        """From the file that `agency link-key next` makes.  Raises Malformed, which names the member that is wrong."""
        if not isinstance(body, Mapping):
            raise Malformed("the file of `agency link-key next` is due: an object")
        for name, due in (("partnership", partnership), ("profile", profile)):
            if body.get(name) != due:
                raise Malformed(f"{name}: {due} is due")
        epoch, fingerprint, canaries = (body.get(one) for one in ("key_epoch", "key_fingerprint", "canaries"))
        if not isinstance(epoch, str) or not NAME.fullmatch(epoch):
            raise Malformed("key_epoch: letters, digits, '.' and '-' are due, such as 2027-1")
        if not isinstance(fingerprint, str) or not re.fullmatch(r"[0-9a-f]{16,64}", fingerprint):
            raise Malformed("key_fingerprint: hexadecimal digits are due")
        if not isinstance(canaries, list) or len(canaries) != 3 or not all(isinstance(one, str) for one in canaries):
            raise Malformed("canaries: three tokens are due")
        return cls(name=epoch, fingerprint=fingerprint, canaries=tuple(canaries))


# --- Asked while batches come in -------------------------------------------------------------------------------------


def prepared(tx: Reading) -> EpochRow | None:
    """The epoch that is being prepared, if one is."""
    return tx.one(EpochRow, state="prepared")


def shadow_of(tx: Reading, epoch: str) -> str:
    """The set that a batch under an epoch is of: the epoch's name while it is prepared, "" for a night."""
    row = prepared(tx)
    return epoch if row is not None and row.name == epoch else ""


def state_of(tx: Reading, epoch: str) -> str:
    """The state of an epoch; "" for none, and for the one that agencies were enrolled under and no other followed."""
    row = tx.one(EpochRow, name=epoch) if epoch else None
    return row.state if row is not None else ""


def key_due(tx: Reading, agency: AgencyRow, epoch: str) -> Key:
    """What the key of a batch under `epoch` must be: that of the epoch prepared, or else of the one in use."""
    row = prepared(tx)
    if row is not None and row.name == epoch:
        return Key(name=row.name, fingerprint=row.fingerprint, canaries=tuple(row.canaries), prepared=True)
    return Key(name=agency.key_epoch, fingerprint=agency.key_fingerprint, canaries=tuple(agency.canaries))


def closed_to(tx: Reading, row: BatchRow, agency: AgencyRow | None) -> str | None:
    """Why a batch that has arrived can't be taken any more, as a code: its epoch was changed or given up meanwhile."""
    if row.shadow:
        return None if state_of(tx, row.shadow) == "prepared" else "epoch_closed"
    return "old_epoch" if agency is not None and row.key_epoch != agency.key_epoch else None


def check_open(tx: Transaction, row: BatchRow) -> None:
    """Raise Conflict for a batch whose epoch was closed to it since it was judged: asked once that can't change."""
    if closed_to(tx, row, tx.one(AgencyRow, id=row.agency)) is not None:
        raise Conflict("another epoch was put in service, or this one given up, while the batch was judged")


def take_in(tx: Transaction, row: BatchRow) -> None:
    """Take a batch into its shadow set: it replaces an earlier one of its flow, and moves nothing of the nights."""
    hold_erasures(tx)
    check_open(tx, row)
    for earlier in tx.all(BatchRow, agency=row.agency, flow=row.flow, shadow=row.shadow, state="accepted"):
        if earlier.id != row.id:
            earlier.state = "superseded"
            tx.add(earlier)


def check_enrolled(tx: Reading, epoch: str, fingerprint: str, canaries: Sequence[str]) -> None:
    """Raise WrongState if an agency would be enrolled under another key than the one that was put in service."""
    row = tx.one(EpochRow, state="in_service")
    if row is not None and (row.name, row.fingerprint, row.canaries) != (epoch, fingerprint, list(canaries)):
        raise WrongState(f"key_epoch: {row.name} is in service, and this is another key than its: enrol it under that")


# --- Opened, and as it stands ----------------------------------------------------------------------------------------


def open_epoch(store: Store, trail: Trail, key: Key, *, who: Who, at: datetime) -> EntryRef | None:
    """Begin to prepare an epoch; None if it is being prepared already.

    Raises Conflict if the name is or was another key's, WrongState while another is prepared, or if agencies are
    enrolled under different keys.
    """
    with store.transaction() as tx:
        known = tx.locked_one(EpochRow, name=key.name)
        if known is not None:
            same = (known.fingerprint, tuple(known.canaries)) == (key.fingerprint, key.canaries)
            if known.state == "prepared" and same:
                return None
            raise Conflict(f"the epoch {key.name} is known already, and {_STATES[known.state]}: take another name")
        if (other := prepared(tx)) is not None:
            raise WrongState(f"the epoch {other.name} is being prepared: stop it first")
        _present(tx, key, who=who, at=at)
        tx.add(_row(key, "prepared", who, at))
        return record_change(
            tx, trail, "epoch.opened", who, at, epoch=key.name, fingerprint=key.fingerprint, outcome="prepared"
        )


_STATES: Final = {
    "prepared": "being prepared", "in_service": "in service", "held": "held for a return", "stopped": "stopped",
    "dropped": "destroyed",
}  # fmt: skip


def _present(tx: Transaction, key: Key, *, who: Who, at: datetime) -> None:
    """Make the row of the epoch that agencies were enrolled under, if there is none yet."""
    now = {
        (row.key_epoch, row.key_fingerprint, tuple(row.canaries)) for row in tx.all(AgencyRow) if row.state != "revoked"
    }
    if len(now) != 1:
        raise WrongState("agencies are enrolled under different keys, or none is: enrol them under one first")
    [(name, fingerprint, canaries)] = now
    if name == key.name or fingerprint == key.fingerprint:
        raise Conflict(f"this is the key in service, {name}: take another, under another name")
    if tx.one(EpochRow, state="in_service") is None:
        present = _row(Key(name=name, fingerprint=fingerprint, canaries=canaries), "in_service", who, at)
        tx.add(present)
        tx.flush()


def _row(key: Key, state: str, who: Who, at: datetime) -> EpochRow:
    return EpochRow(
        name=key.name, state=state, fingerprint=key.fingerprint, canaries=list(key.canaries),
        opened_by=str(who.get("person", "")), opened_at=at,
    )  # fmt: skip


def found(tx: Reading, name: str) -> EpochRow:
    """An epoch by its name.  Raises NotFound."""
    row = tx.one(EpochRow, name=name)
    if row is None:
        raise NotFound("there is no such epoch: `broker epochs status` lists them")
    return row


def listed(tx: Reading) -> list[dict[str, Any]]:
    """Every epoch, oldest first, as plain data; of one that is prepared how each flow stands."""
    rows = tx.all(EpochRow, order=("opened_at", "name"))
    return [
        {
            "epoch": row.name, "state": row.state, "fingerprint": row.fingerprint, "opened_by": row.opened_by,
            "opened_at": row.opened_at.isoformat(), "proposed_by": row.proposed_by or None,
            "flipped_by": row.flipped_by or None, "in_service_from": _iso(row.in_service_from),
            "held_until": _iso(row.held_until), "report": row.report,
            "flows": flows_of(tx, row.name) if row.state == "prepared" else {},
        }
        for row in rows
    ]  # fmt: skip


def flows_of(tx: Reading, shadow: str) -> dict[str, str]:
    """By flow how its batch of a shadow set stands: the state of its last one, or `missing`."""
    partners = {row.id for row in tx.all(AgencyRow) if row.state != "revoked"}
    flows = [
        row for row in tx.all(AgencyFlowRow, order=("agency", "flow")) if row.agency in partners and row.last_batch
    ]
    stands: dict[str, str] = {}
    for flow in flows:
        rows = tx.all(BatchRow, agency=flow.agency, flow=flow.flow, shadow=shadow, order=("sequence",))
        states = [row.state for row in rows]
        stands[f"{flow.agency}/{flow.flow}"] = "accepted" if "accepted" in states else (states or ["missing"])[-1]
    return stands


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


# --- What passes to the next epoch -----------------------------------------------------------------------------------


def since_then(vault: Vault, before: LinkRunRow, as_of: Mapping[Flow, datetime | None]) -> Since:
    """A batch of a shadow set as the nights since have made it: who was withdrawn is out, a raised shield is up.

    Where the batch is newer than what is in service of its flow, it is taken as it is.
    """

    def taken(batch: BatchRow, people: pa.Table, relations: pa.Table) -> tuple[pa.Table, pa.Table]:
        flow = (batch.agency, batch.flow)
        then = as_of.get(flow)
        part = f"persons/{batch.agency}/{batch.flow}"
        mine = {
            name: one for name, one in before.segments.items() if f"{name}/".startswith((f"{part}/", f"{GONE}{part}/"))
        }
        if then is None or then <= batch.extracted_at or not mine:
            return people, relations
        now = vault.read_parts(mine, "persons", ["record_ref", "shield"])
        refs = people["record_ref"]
        withdrawn = pc.unique(refs.filter(pc.invert(pc.is_in(refs, value_set=_set(now["record_ref"])))))
        if len(withdrawn):
            people, relations = without(people, relations, withdrawn)
        shield = people["shield"]
        for level, weaker in (("address", ("none",)), ("full", ("none", "address"))):
            raised = _set(now["record_ref"].filter(pc.equal(now["shield"], level)))
            up = pc.and_(
                pc.is_in(people["record_ref"], value_set=raised),
                pc.is_in(pc.fill_null(shield, "none"), value_set=pa.array(weaker, pa.string())),
            )
            shield = pc.if_else(up, level, shield)
        at = people.column_names.index("shield")
        return people.set_column(at, people.field(at), shield.cast(people.field(at).type)), relations

    return taken


def _set(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(pc.unique(column).to_pylist(), pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What is held of an epoch that was in service: `run` has its encodings, `last` the last batch of each flow."""

    epoch: str
    run: LinkRunRow
    last: Mapping[Flow, str]
    as_of: Mapping[Flow, datetime]


def held(tx: Reading) -> Kept | None:
    """What is held of the epoch before, if one is.  Its run is no row: only what the next one would be made from."""
    row = tx.one(EpochRow, state="held")
    if row is None or row.held is None:
        return None
    flows: dict[Flow, list[str]] = {
        (name.split("/")[0], name.split("/")[1]): said for name, said in row.held["flows"].items()
    }
    since = datetime.fromisoformat(row.held["since"])
    run = LinkRunRow(
        id=row.held["run"], night=since.date(), state="held", segments=row.held["segments"], holder="",
        counts={"profile": row.held["profile"]}, lease_until=since, started_at=since,
    )  # fmt: skip
    return Kept(
        epoch=row.name, run=run, last={flow: batch for flow, (batch, _) in flows.items()},
        as_of={flow: datetime.fromisoformat(at) for flow, (_, at) in flows.items()},
    )  # fmt: skip


def held_segments(tx: Reading) -> Mapping[str, str]:
    """The segments that hold the encodings of a held epoch."""
    kept = held(tx)
    return kept.run.segments if kept is not None else {}


def keep_held(tx: Transaction, kept: Kept, segments: Mapping[str, str], *, since: datetime) -> None:
    """Hold these segments in place of those before, out of which everyone erased until `since` was left."""
    row = tx.locked_one(EpochRow, name=kept.epoch)
    if row is None or row.held is None or row.state != "held":
        raise Conflict("the epoch is not held any more")
    row.held = {**row.held, "segments": dict(segments), "since": (since - UNSEEN).isoformat()}
    tx.add(row)


# --- Put in service, in the transaction of the run's publishing ------------------------------------------------------


def switch(
    tx: Transaction, reception: Reception, name: str, inputs: Inputs, before: LinkRunRow, *, hold: timedelta, by: str,
    at: datetime,
) -> tuple[str, tuple[str, dict[str, int]] | None]:  # fmt: skip
    """The epoch prepared is in service, the one before held; the name of that one, and which was held until now.

    Of that one nothing is kept: one return is possible at a time.  Searches and nights are taken under the new epoch
    alone; of each flow a full batch is due next.  Raises Conflict if the set, or who was erased, is not as it was
    linked.
    """
    hold_batches(tx)
    new, old = tx.locked_one(EpochRow, name=name), tx.locked_one(EpochRow, state="in_service")
    if new is None or old is None or new.state != "prepared":
        raise Conflict("the epoch is not being prepared any more")
    if inputs_of(tx, reception, shadow=name).fingerprint != inputs.fingerprint:
        raise Conflict("a batch came in, or somebody was erased, while the set was being linked: try again")
    flows = {}
    for row in tx.all(AgencyFlowRow, order=("agency", "flow")):
        if row.last_batch is not None and row.as_of is not None:
            flows[f"{row.agency}/{row.flow}"] = [row.last_batch, row.as_of.isoformat()]
    earlier, replaced = tx.locked_one(EpochRow, state="held"), None
    if earlier is not None:
        replaced = earlier.name, forget(tx, earlier, at=at)
        tx.flush()
    old.state, old.ended_at, old.held_until = "held", at, at + hold
    old.held = {
        "run": before.id, "profile": before.counts["profile"], "flows": flows,
        "since": (before.started_at - UNSEEN).isoformat(),
        "segments": {part: one for part, one in before.segments.items() if part.startswith(ENCODINGS)},
    }  # fmt: skip
    tx.add(old)
    tx.flush()  # of two rows one is in service at any moment
    new.state, new.flipped_by, new.in_service_from = "in_service", by, at
    tx.add(new)
    _under(tx, new)
    mine = {(batch.agency, batch.flow): batch for batch in inputs.batches}
    for row in tx.all(AgencyFlowRow):
        if (batch := mine.get((row.agency, row.flow))) is not None:
            as_of = min(batch.extracted_at, row.as_of) if row.as_of is not None else batch.extracted_at
            _restart(tx, row, batch.id, as_of)
    supersede_but(tx, {batch.id for batch in inputs.batches})
    return old.name, replaced


def switch_back(tx: Transaction, name: str, kept: Kept, inputs: Inputs, *, at: datetime) -> None:
    """The epoch in service is stopped, and the one held is in service again, with the flows as they were then."""
    hold_batches(tx)
    bad, good = tx.locked_one(EpochRow, name=name), tx.locked_one(EpochRow, name=kept.epoch)
    if bad is None or good is None or (bad.state, good.state) != ("in_service", "held"):
        raise Conflict("the epochs have changed meanwhile")
    bad.state, bad.ended_at = "stopped", at
    tx.add(bad)
    tx.flush()
    good.state, good.held, good.held_until, good.in_service_from = "in_service", None, None, at
    tx.add(good)
    _under(tx, good)
    for row in tx.all(AgencyFlowRow):
        flow = (row.agency, row.flow)
        if flow in inputs.sources:
            _restart(tx, row, kept.last[flow], kept.as_of[flow])
            batch = tx.one(BatchRow, id=kept.last[flow])
            if batch is not None:
                batch.state = "linked"
                tx.add(batch)
        elif row.last_batch is not None:  # began under the epoch that is stopped: nothing of it is in service
            row.last_batch, row.last_manifest_sha256, row.as_of = None, "", None
            tx.add(row)
    supersede_but(tx, set(kept.last.values()))


def stop_preparing(tx: Transaction, row: EpochRow, *, at: datetime) -> None:
    """Take no more batches of an epoch that was being prepared, and link none of it."""
    hold_batches(tx)
    row.state, row.ended_at = "stopped", at
    tx.add(row)
    for batch in tx.all(BatchRow, shadow=row.name, state="accepted"):
        batch.state = "superseded"
        tx.add(batch)


def forget(tx: Transaction, row: EpochRow, *, at: datetime) -> dict[str, int]:
    """Keep nothing of an epoch that would open one of its encodings: how many segments, and batches, that was.

    The keys of its shadow batches are destroyed here; segments and chunks that nothing names are deleted after.
    """
    segments = len((row.held or {}).get("segments", {}))
    row.state, row.held, row.held_until, row.ended_at = "dropped", None, None, row.ended_at or at
    tx.add(row)
    batches = [batch for batch in tx.all(BatchRow, shadow=row.name) if batch.state not in UNDECIDED]
    for batch in batches:
        batch.dek_wrapped = b""
        tx.add(batch)
    return {"segments": segments, "batches": len(batches)}


def _under(tx: Transaction, epoch: EpochRow) -> None:
    for agency in tx.all(AgencyRow):
        if agency.state != "revoked":
            agency.key_epoch, agency.key_fingerprint = epoch.name, epoch.fingerprint
            agency.canaries = list(epoch.canaries)
            tx.add(agency)


def _restart(tx: Transaction, row: AgencyFlowRow, batch: str, as_of: datetime) -> None:
    """Go on from a batch that no delta can follow: what a flow sends next is full."""
    row.last_batch, row.last_manifest_sha256, row.as_of = batch, "", as_of
    tx.add(row)

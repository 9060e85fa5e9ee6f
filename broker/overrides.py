"""What people and agencies have decided about records, kept for good: sever, must-not-link, must-link, in this order.

    sever          an agency's `sever_ref` on two of its records (an adoption): apart for ever, by every path
    must-not-link  a link reviewer's "different": two persons, until it is withdrawn
    must-link      a link reviewer's "same": one person, until it is withdrawn

A sever outlives the marker that made it and the records it names.  It is kept the first time its marker is seen, binds
all that was one person with either record the night before, and there is no function here, no route and no command
that ends one; the database refuses to change or delete its row.  The other two are dated, and withdrawn by a reviewer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import combinations, product
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from audit.events import Event
from broker.errors import NotAllowed, NotFound, WrongState
from broker.keys import Keys
from broker.store import Reading, Store, Transaction
from broker.store.reviews import OverrideRecordRow, OverrideRow, SeverMarkRow, in_force
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.lazily import rows_where
from linkage.matching.overrides import Overrides, RecordKey, RecordPair

Kind = Literal["sever", "must_not_link", "must_link"]
Scope = Literal["records", "persons"]
EVENT_OF: Final[Mapping[str, str]] = {
    "sever": "override.sever", "must_not_link": "override.must_not_link", "must_link": "override.must_link",
}  # fmt: skip
MARKED: Final = "agency_marker"  # the reason of every sever
LISTED: Final = 50  # ids an event names


@dataclass(frozen=True, slots=True)
class Sides:
    """The two sides of an override: a record each, or all records of two persons."""

    left: tuple[RecordKey, ...]
    right: tuple[RecordKey, ...]

    @classmethod
    def of(cls, left: Iterable[RecordKey], right: Iterable[RecordKey]) -> Sides:
        """Two sides in the one order that their pair has."""
        return cls(*sorted((tuple(sorted(left)), tuple(sorted(right)))))

    @property
    def records(self) -> tuple[RecordKey, ...]:
        """Every record of either side."""
        return (*self.left, *self.right)

    def pairs(self) -> Iterable[RecordPair]:
        """Every record of one side with every record of the other."""
        return product(self.left, self.right)


def overrides_of(tx: Reading, keys: Keys, *, at: datetime) -> Overrides:
    """The overrides in force at an instant, as a link run takes them.  Of sever and must-link on one pair sever wins.

    Those of markers that came with tonight's records are `for_run`'s to add.
    """
    pairs: dict[str, set[RecordPair]] = defaultdict(set)
    for row in in_force(tx, at=at):
        pairs[row.kind].update(sides_of(keys, row).pairs())
    return Overrides(
        must_link=frozenset(pairs["must_link"]),
        must_not_link=frozenset(pairs["must_not_link"]),
        sever=frozenset(pairs["sever"]),
    )


def for_run(
    store: Store, trail: Trail, keys: Keys, persons: pa.Table, previous: pa.Table | None, *, at: datetime
) -> tuple[Overrides, str]:
    """What binds tonight's run, and its fingerprint; new sever markers are kept first, in the same transaction.

    `persons` are tonight's records of every flow, `previous` the clusters of the run in service.
    """
    with store.transaction() as tx:
        keep_severs(tx, trail, keys, persons, previous, at=at)
        return overrides_of(tx, keys, at=at).with_markers(persons), fingerprint(tx, at=at)


def fingerprint(tx: Reading, *, at: datetime) -> str:
    """Changes whenever what `overrides_of` gives does: a night with no new batch still has this to link by."""
    said = "\n".join(f"{row.id} {row.kind}" for row in in_force(tx, at=at))
    return sha256(said.encode()).hexdigest()


def sides_of(keys: Keys, row: OverrideRow) -> Sides:
    """The records that an override is about.  Raises Undecipherable if the row was altered."""
    return open_sides(keys, row.sealed, row.key_wrapped, row.id)


# --- Severs ----------------------------------------------------------------------------------------------------------


def keep_severs(
    tx: Transaction, trail: Trail, keys: Keys, persons: pa.Table, previous: pa.Table | None, *, at: datetime
) -> int:
    """Keep the severs that tonight's markers say, and those that a severed record leaves behind as it goes; how many.

    Two records that ever bore one marker of an agency are severed.  So is everyone who was one person with either of
    them the night before: what was linked to the old name must not find the new one once the record between is gone.
    """
    kept: dict[str, list[OverrideRow]] = defaultdict(list)
    for agency, members in _marked_anew(tx, keys, persons, at=at):
        kept[agency] += _sever_all(tx, trail, keys, members, previous, at=at)
    for agency, row in _left_behind(tx, keys, persons, previous, at=at):
        kept[agency].append(row)
    for agency, rows in sorted(kept.items()):
        if not rows:
            continue
        # Nobody is named: an event that named both would lead from one name to the other.
        entry = trail.record(
            tx,
            Event(
                id=new_event_id(), type="override.sever", who={"organisation": agency, "method": "sever_marker"},
                what={"outcome": "active", "overrides": len(rows)}, why={"reason": MARKED},
                detail={"overrides": [row.id for row in rows[:LISTED]]},
            ),
            at=at,
        )  # fmt: skip
        for row in rows:
            row.event_id = entry.event_id
            _add(tx, keys, row)
    return sum(map(len, kept.values()))


def _marked_anew(
    tx: Transaction, keys: Keys, persons: pa.Table, *, at: datetime
) -> Iterable[tuple[str, tuple[list[RecordKey], list[RecordKey]]]]:
    """By marker of which a record is new: the agency, its records known before, and the new ones."""
    marked = rows_where(persons, pc.is_valid(persons["sever_ref"]), ("agency", "flow", "record_ref", "sever_ref"))
    groups: dict[tuple[str, str], set[RecordKey]] = defaultdict(set)
    for row in marked.to_pylist():
        groups[row["agency"], row["sever_ref"]].add((row["agency"], row["flow"], row["record_ref"]))
    for (agency, marker), records in sorted(groups.items()):
        index = keys.subject_index(f"sever|{agency}|{marker}")
        known = {mark.record_index: mark for mark in tx.all(SeverMarkRow, marker_index=index)}
        new = sorted(record for record in records if record_index(keys, record) not in known)
        for record in new:
            mark = SeverMarkRow(
                marker_index=index, record_index=record_index(keys, record), seen_at=at, sealed=b"", key_wrapped=b""
            )
            mark.sealed, mark.key_wrapped = seal_sides(keys, Sides((record,), ()), _mark_name(mark))
            tx.add(mark)
        if new:
            before = [open_sides(keys, m.sealed, m.key_wrapped, _mark_name(m)).left[0] for m in known.values()]
            yield agency, (before, new)


def _sever_all(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    members: tuple[list[RecordKey], list[RecordKey]],
    previous: pa.Table | None,
    *,
    at: datetime,
) -> list[OverrideRow]:
    before, new = members
    pairs = [*product(before, new), *combinations(new, 2)]
    together = _together(previous, {record for pair in pairs for record in pair})
    rows = []
    for one, other in pairs:
        ours, theirs = together.get(one, frozenset({one})), together.get(other, frozenset({other}))
        if other in ours:  # they were one person: which of its records belong to which side nobody here knows
            _void(tx, trail, keys, ours, agency=one[0], at=at)
            ours, theirs = frozenset({one}), frozenset({other})
        rows.append(_severed(keys, Sides.of(ours, theirs), one[0], at=at))
    return rows


def _void(
    tx: Transaction, trail: Trail, keys: Keys, records: Iterable[RecordKey], *, agency: str, at: datetime
) -> None:
    """End what reviewers had joined within a person who turns out to be two: they decided about a mixture."""
    for row in touching(tx, keys, records):
        if row.kind == "must_link" and row.state != "withdrawn":
            row.state, row.valid_to, row.changed_at = "withdrawn", at, at
            tx.add(row)
            who = {"organisation": agency, "method": "sever_marker"}
            _record(tx, trail, "override.withdrawn", row, who=who, about=(), at=at, reason=MARKED)


def _left_behind(
    tx: Reading, keys: Keys, persons: pa.Table, previous: pa.Table | None, *, at: datetime
) -> Iterable[tuple[str, OverrideRow]]:
    """For each severed record that is gone tonight: a sever of those who were one person with it."""
    if previous is None:
        return
    sides = [sides_of(keys, row) for row in tx.all(OverrideRow, kind="sever", order=("id",))]
    records = {record for pair in sides for record in pair.records}
    there = _among(persons, records)
    together = _together(previous, records)
    bound = {frozenset(pair) for each in sides for pair in each.pairs()}
    for each in sides:
        for mine, others in ((each.left, each.right), (each.right, each.left)):
            gone = [record for record in mine if record in together and record not in there]
            rest = {record for left in gone for record in together[left]} - set(mine)
            far = {record for other in others for record in together.get(other, {other})} - rest - set(mine)
            new = {record for record in rest if any(frozenset((record, other)) not in bound for other in far)}
            if new and far:
                bound |= {frozenset(pair) for pair in product(new, far)}
                yield gone[0][0], _severed(keys, Sides.of(new, far), gone[0][0], at=at)


def _severed(keys: Keys, sides: Sides, agency: str, *, at: datetime) -> OverrideRow:
    return _row(
        keys, "sever", sides, reason=MARKED, evidence=(), organisation=agency, person="", state="active",
        second_due=False, review=None, at=at,
    )  # fmt: skip


def _together(clusters: pa.Table | None, records: Iterable[RecordKey]) -> dict[RecordKey, frozenset[RecordKey]]:
    """For each of these records that a run knew: all that were one person with it, itself too."""
    wanted = set(records)
    if clusters is None or not wanted:
        return {}
    refs = pa.array(sorted({ref for _, _, ref in wanted}), pa.string())
    near = clusters.filter(pc.is_in(clusters["record_ref"], value_set=refs)).to_pylist()
    owners = {key: row["person_id"] for row in near if (key := _key(row)) in wanted}
    ids = pa.array(sorted(set(owners.values())), pa.string())
    members: dict[str, set[RecordKey]] = defaultdict(set)
    for row in clusters.filter(pc.is_in(clusters["person_id"], value_set=ids)).to_pylist():
        members[row["person_id"]].add(_key(row))
    return {record: frozenset(members[owner]) for record, owner in owners.items()}


def _among(persons: pa.Table, records: Iterable[RecordKey]) -> set[RecordKey]:
    wanted = set(records)
    if not wanted:
        return set()
    refs = pa.array(sorted({ref for _, _, ref in wanted}), pa.string())
    near = rows_where(persons, pc.is_in(persons["record_ref"], value_set=refs), ("agency", "flow", "record_ref"))
    return {_key(row) for row in near.to_pylist()} & wanted


def _key(row: Mapping[str, Any]) -> RecordKey:
    return row["agency"], row["flow"], row["record_ref"]


# --- What reviewers decide -------------------------------------------------------------------------------------------


def propose(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    kind: Literal["must_link", "must_not_link"],
    sides: Sides,
    *,
    who: Mapping[str, str],
    reason: str,
    evidence: Sequence[str],
    second_due: bool,
    review: str | None,
    at: datetime,
    about: Iterable[str] = (),
    until: datetime | None = None,
) -> tuple[OverrideRow, EntryRef]:
    """A reviewer's decision: in force at once for the next run, or `proposed` until a second reviewer confirms."""
    row = _row(
        keys, kind, sides, reason=reason, evidence=evidence, organisation=who["organisation"],
        person=who.get("person", ""), state="proposed" if second_due else "active", second_due=second_due,
        review=review, at=at, until=until,
    )  # fmt: skip
    entry = _record(tx, trail, EVENT_OF[kind], row, who=who, about=about, at=at)
    row.event_id = entry.event_id
    _add(tx, keys, row)
    return row, entry


def confirm(
    tx: Transaction, trail: Trail, override: str, *, who: Mapping[str, str], at: datetime, about: Iterable[str] = ()
) -> tuple[OverrideRow, EntryRef]:
    """Put a proposed override in force.  Raises NotAllowed for whoever proposed it, WrongState if it is not open."""
    row = _open(tx, override, who)
    row.state, row.second, row.valid_from, row.changed_at = "active", who.get("person", ""), at, at
    tx.add(row)
    return row, _record(tx, trail, "link.confirmed", row, who=who, about=about, at=at)


def refuse(
    tx: Transaction, trail: Trail, override: str, *, who: Mapping[str, str], at: datetime, about: Iterable[str] = ()
) -> tuple[OverrideRow, EntryRef]:
    """Close a proposed override that the second reviewer does not share.  Raises as `confirm` does."""
    row = _open(tx, override, who)
    row.state, row.second, row.valid_to, row.changed_at = "withdrawn", who.get("person", ""), at, at
    tx.add(row)
    return row, _record(tx, trail, "link.rejected", row, who=who, about=about, at=at)


def withdraw(
    tx: Transaction,
    trail: Trail,
    override: str,
    *,
    who: Mapping[str, str],
    reason: str,
    at: datetime,
    about: Iterable[str] = (),
) -> tuple[OverrideRow, EntryRef]:
    """End a must-link or must-not-link from now on.

    Raises NotAllowed for a sever, whoever asks, and for whoever made an override that needed a second person; NotFound;
    WrongState if it has ended.
    """
    row = tx.locked_one(OverrideRow, id=override)
    if row is None:
        raise NotFound("there is no such override")
    if row.kind == "sever":
        raise NotAllowed("nobody undoes a sever")
    if row.state != "active":
        raise WrongState("this override is not in force")
    if row.second_due and who.get("person", "") == row.person:
        raise NotAllowed("somebody else than who made it withdraws this override")
    row.state, row.valid_to, row.changed_at = "withdrawn", at, at
    tx.add(row)
    return row, _record(tx, trail, "override.withdrawn", row, who=who, about=about, at=at, reason=reason)


def listed(tx: Reading) -> list[dict[str, Any]]:
    """Every override, oldest first, as plain data; whose records they are about is not told."""
    return [
        {
            "override": row.id, "kind": row.kind, "scope": row.scope, "state": row.state, "reason": row.reason,
            "evidence": row.evidence, "organisation": row.organisation, "by": row.person, "second": row.second,
            "from": row.valid_from.isoformat(), "to": row.valid_to.isoformat() if row.valid_to else None,
        }
        for row in tx.all(OverrideRow, order=("made_at", "id"))
    ]  # fmt: skip


def touching(tx: Reading, keys: Keys, records: Iterable[RecordKey]) -> list[OverrideRow]:
    """The overrides that name one of these records, by id."""
    indices = [record_index(keys, record) for record in records]
    named = {row.override for row in tx.all(OverrideRecordRow, record_index=indices)}
    return tx.all(OverrideRow, id=sorted(named), order=("id",))


def severs(tx: Reading, keys: Keys, sides: Sides) -> bool:
    """Whether a sever keeps a record of one side from one of the other."""
    bound = {
        frozenset(pair)
        for row in touching(tx, keys, sides.left)
        if row.kind == "sever"
        for pair in sides_of(keys, row).pairs()
    }
    return any(frozenset(pair) in bound for pair in sides.pairs())


def _open(tx: Transaction, override: str, who: Mapping[str, str]) -> OverrideRow:
    row = tx.locked_one(OverrideRow, id=override)
    if row is None:
        raise NotFound("there is no such override")
    if row.state != "proposed":
        raise WrongState("this override does not wait for a second reviewer")
    if who.get("person", "") in ("", row.person):
        raise NotAllowed("a second reviewer is due: not the one who decided")
    return row


def _record(
    tx: Transaction, trail: Trail, type_: str, row: OverrideRow, *, who: Mapping[str, str], about: Iterable[str],
    at: datetime, reason: str | None = None,
) -> EntryRef:  # fmt: skip
    event = Event(
        id=new_event_id(),
        type=type_,
        who=dict(who),
        what={"override": row.id, "kind": row.kind, "scope": row.scope, "outcome": row.state, "review": row.review},
        why={"reason": reason or row.reason, "evidence": list(row.evidence)},
        detail={},
    )
    return trail.record(tx, event, about=about, at=at)


def _row(
    keys: Keys,
    kind: Kind,
    sides: Sides,
    *,
    reason: str,
    evidence: Sequence[str],
    organisation: str,
    person: str,
    state: str,
    second_due: bool,
    review: str | None,
    at: datetime,
    until: datetime | None = None,
) -> OverrideRow:
    override = new_event_id()
    sealed, wrapped = seal_sides(keys, sides, override)
    return OverrideRow(
        id=override, kind=kind, scope="records" if len(sides.records) == 2 else "persons", state=state,
        pair_index=pair_index(keys, sides), sealed=sealed, key_wrapped=wrapped, reason=reason,
        evidence=sorted(set(evidence)), organisation=organisation, person=person, second_due=second_due,
        review=review, event_id="", valid_from=at, valid_to=until, made_at=at, changed_at=at,
    )  # fmt: skip


def _add(tx: Transaction, keys: Keys, row: OverrideRow) -> None:
    records = sorted({record_index(keys, record) for record in sides_of(keys, row).records})
    tx.add(row)
    tx.flush()
    tx.add(*(OverrideRecordRow(override=row.id, record_index=index) for index in records))


# --- Blinding --------------------------------------------------------------------------------------------------------


def record_index(keys: Keys, record: RecordKey) -> str:
    """Under what the tables keep a record that something was decided about."""
    return keys.subject_index(f"override|{'|'.join(record)}")


def pair_index(keys: Keys, sides: Sides) -> str:
    """Under what the tables keep a pair, whichever side comes first."""
    return keys.subject_index(f"pair|{_json(Sides.of(sides.left, sides.right)).decode()}")


def seal_sides(keys: Keys, sides: Sides, name: str) -> tuple[bytes, bytes]:
    """Both sides, sealed for the row of this name, and the key they are sealed under, wrapped."""
    key, wrapped = keys.new_data_key(f"sides|{name}")
    return key.seal(_json(sides), bound_to=f"sides-1|{name}".encode()), wrapped


def open_sides(keys: Keys, sealed: bytes, wrapped: bytes, name: str) -> Sides:
    """What `seal_sides` sealed.  Raises Undecipherable if it is another row's."""
    body = json.loads(keys.data_key(wrapped, f"sides|{name}").open(sealed, bound_to=f"sides-1|{name}".encode()))
    left, right = (tuple((agency, flow, ref) for agency, flow, ref in side) for side in body)
    return Sides(left, right)


def _json(sides: Sides) -> bytes:
    return json.dumps([sides.left, sides.right], separators=(",", ":")).encode()


def _mark_name(mark: SeverMarkRow) -> str:
    return f"{mark.marker_index}|{mark.record_index}"

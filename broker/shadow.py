"""The set of an epoch that is being prepared, beside what is in service: numbers, and why it may not take its place.

Both name records by the agencies' own references, which no key of the partnership changes; so pairs can be followed
from one to the other though no encoding can.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from broker import epochs
from broker.gates import RunRefused
from broker.gathering import Flow
from broker.linked import clusters_of
from broker.settings import Settings
from broker.store import Reading
from broker.store.agencies import AgencyRow
from broker.store.batches import BatchRow
from broker.store.epochs import EpochRow
from broker.store.runs import LinkRunRow
from broker.vault import Vault
from linkage.matching.members import Members
from linkage.matching.overrides import Overrides, RecordKey, RecordPair
from linkage.matching.rates import RECORD
from linkage.records import Manifest

FEW: Final = 5  # records of a flow: so many more or fewer are no sign of anything
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an epoch may not be put in service: a code, the flow it is about if it is about one, and a sentence."""

    code: str
    words: str
    flow: str = ""

    def told(self) -> dict[str, str]:
        """As plain data."""
        return {"code": self.code, "flow": self.flow, "words": self.words}


class EpochHeld(RunRefused):
    """An epoch may not be put in service.  The message names every reason."""

    def __init__(self, reasons: Iterable[Mapping[str, str]]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("epoch_held", "; ".join(reason["words"] for reason in self.reasons))


# --- Before anything is linked ---------------------------------------------------------------------------------------


def not_there(
    tx: Reading,
    row: EpochRow,
    batches: Mapping[Flow, BatchRow],
    as_of: Mapping[Flow, datetime | None],
    *,
    lag: timedelta,
) -> list[Reason]:
    """For each flow in service whether its batch of the set is there, under the right key, and recent.

    A paused flow is waited for like any other, since its batches come in as ever.  Nor is a suspended agency left out,
    whose records would leave the persons they belong to: the host lets it in again, or revokes it.
    """
    reasons = []
    suspended = {one.id for one in tx.all(AgencyRow, state="suspended")}
    for name, stands in epochs.flows_of(tx, row.name).items():
        agency, flow = name.split("/")
        batch = batches.get((agency, flow))
        if batch is None:
            waits = "" if stands == "missing" else f" (its last is {stands})"
            waits += f", and {agency} can send none while it is suspended" if agency in suspended else ""
            reasons.append(Reason(code="missing", flow=name, words=f"{name} has no full batch under {row.name}{waits}"))
            continue
        manifest = Manifest.parse(batch.manifest)
        said = (manifest.key_epoch, manifest.key_fingerprint, list(map(str, manifest.canaries)))
        if said != (row.name, row.fingerprint, row.canaries):
            reasons.append(Reason(code="wrong_key", flow=name, words=f"{name} was encoded under another key"))
        then = as_of.get((agency, flow))
        if then is not None and then - batch.extracted_at > lag:
            behind = (then - batch.extracted_at).days
            reasons.append(
                Reason(code="old", flow=name, words=f"the batch of {name} is {behind} days behind its nights")
            )
    return reasons


# --- After -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A run: whose each record is, its reviews, and for the records of the run in service where they are in it."""

    members: Members
    reviews: pa.Table
    at: Ints

    def persons(self, some: npt.NDArray[np.bool_]) -> Ints:
        """Whose some of the records of the run in service are."""
        return self.members.person[self.at[some]].astype(np.int64)


def both(vault: Vault, before: LinkRunRow, members: Members, reviews: pa.Table) -> tuple[Side, Side]:
    """The run in service, and the one of the set."""
    clusters = clusters_of(vault, before)
    was = Members.of(clusters)
    return (
        Side(members=was, reviews=vault.read(before.segments["reviews"]), at=np.arange(len(was.person))),
        Side(members=members, reviews=reviews, at=members.places(clusters).astype(np.int64)),
    )


def compared(was: Side, now: Side) -> dict[str, Any]:
    """By flow, and of all together: records, linked records, persons, reviews before and now; pairs kept, lost, gained.

    A pair is two records of one person; it is followed where the set has both, and is of a flow if either of them is.
    """
    there = now.at >= 0
    names = ["/".join(flow) for flow in was.members.sources]
    source = was.members.source[there]
    before, after = was.persons(there), now.persons(there)
    whole = _pairs(before, after)
    flows = {}
    for name in sorted({*names, *("/".join(flow) for flow in now.members.sources)}):
        mine = source == names.index(name) if name in names else np.zeros(len(source), np.bool_)
        rest = _pairs(before[~mine], after[~mine])
        flows[name] = _figures(was, now, there, name) | {
            "pairs": {which: whole[which] - rest[which] for which in whole}
        }
    return {"flows": flows, "all": _figures(was, now, there) | {"pairs": whole}}


def _figures(was: Side, now: Side, there: npt.NDArray[np.bool_], flow: str = "") -> dict[str, Any]:
    told: dict[str, Any] = {name: [] for name in ("records", "linked", "persons", "reviews")}
    for side in (was, now):
        members = side.members
        mine = _of(members, flow)
        shared = np.bincount(members.person, minlength=len(members.people))[members.person] > 1
        told["records"].append(int(mine.sum()))
        told["linked"].append(int((mine & shared).sum()))
        told["persons"].append(len(np.unique(members.person[mine])))
        told["reviews"].append(_reviews(side.reviews, flow))
    return told | {"gone": int((_of(was.members, flow) & ~there).sum())}


def _of(members: Members, flow: str) -> npt.NDArray[np.bool_]:
    if not flow:
        return np.ones(len(members.person), np.bool_)
    sources = ["/".join(one) for one in members.sources]
    mine: npt.NDArray[np.bool_] = members.source == (sources.index(flow) if flow in sources else -1)
    return mine


def _reviews(reviews: pa.Table, flow: str) -> int:
    if not flow:
        return int(reviews.num_rows)
    sides = []
    for side in "lr":
        agency, name = (pc.cast(reviews[f"{column}_{side}"], pa.string()) for column in ("agency", "flow"))
        sides.append(pc.fill_null(pc.equal(pc.binary_join_element_wise(agency, name, "/"), flow), False))
    return int(pc.sum(pc.or_(*sides)).as_py() or 0)


def _pairs(before: Ints, after: Ints) -> dict[str, int]:
    width = int(after.max(initial=0)) + 1
    kept, was, now = (_two_of(codes) for codes in (before * width + after, before, after))
    return {"kept": kept, "lost": was - kept, "gained": now - kept}


def _two_of(codes: Ints) -> int:
    counts = np.unique(codes, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def not_alike(report: Mapping[str, Any], settings: Settings, *, missing: Collection[str]) -> list[Reason]:
    """Where the set links, or holds, so much more or less than what is in service that the key must be wrong.

    Where a flow is `missing` nothing is said of it, nor of how the others link, which have lost their partner.
    """
    reasons = []
    for name, said in [*report["flows"].items(), *([] if missing else [("", report["all"])])]:
        words = name or "all together"
        (records, records_now), (linked, linked_now) = said["records"], said["linked"]
        if not records or name in missing:  # a flow may begin with this epoch
            continue
        if said["gone"] > max(settings.epoch_records_band * records, FEW):
            told = f"{words}: {said['gone']:,} of {records:,} records in service are not in the set"
            reasons.append(Reason(code="records", flow=name, words=told))
        was, now = linked / records, linked_now / max(records_now, 1)
        if not missing and abs(now - was) * records > max(settings.epoch_rate_band * records, FEW):
            told = f"{words}: {now:.1%} of records share a person, and {was:.1%} in service"
            reasons.append(Reason(code="link_rate", flow=name, words=told))
    return reasons


def not_bound(by_hand: Overrides, was: Side, now: Side, *, missing: Collection[str]) -> list[Reason]:
    """What people have decided that the set would break, or, where no flow is `missing`, whose records it has lost."""
    joined = _places(by_hand.must_link, was, now)
    apart = _places(by_hand.must_not_link, was, now)
    severed = _places(by_hand.sever, was, now)
    together = {name: int(_together(one[1], now).sum()) for name, one in (("severs", severed), ("apart", apart))}
    there = (joined[1] >= 0).all(axis=0)
    parted = int((_together(joined[0], was) & there & ~_together(joined[1], now)).sum())
    lost = sum(int(((then >= 0) & (ends < 0)).any(axis=0).sum()) for then, ends in (joined, apart, severed))
    return [
        Reason(code=code, words=words)
        for code, count, words in (
            ("severed_joined", together["severs"], f"{together['severs']} severed pairs share a person"),
            (
                "kept_apart_joined",
                together["apart"],
                f"{together['apart']} pairs kept apart by a reviewer share one",
            ),
            ("must_link_parted", parted, f"{parted} pairs that a reviewer has joined share none"),
            ("overrides_lost", lost, f"{lost} pairs that somebody has decided about have a record that the set lacks"),
        )
        if count and not (missing and code == "overrides_lost")
    ]


def _places(pairs: Iterable[RecordPair], was: Side, now: Side) -> tuple[Ints, Ints]:
    """Both ends of each pair, as records of the run in service and of the set's; -1 where they are not there."""
    listed = sorted({(min(pair), max(pair)) for pair in pairs})
    found = []
    for side in (was, now):
        ends = [side.members.places(_named([pair[end] for pair in listed])) for end in (0, 1)]
        found.append(np.stack(ends).astype(np.int64))
    return found[0], found[1]


def _named(records: Sequence[RecordKey]) -> pa.Table:
    return pa.table({name: pa.array([key[n] for key in records], pa.string()) for n, name in enumerate(RECORD)})


def _together(ends: Ints, side: Side) -> npt.NDArray[np.bool_]:
    there = (ends >= 0).all(axis=0)
    one, other = side.members.person[ends] if len(side.members.person) else ends
    return np.asarray(there & (one == other), np.bool_)

"""Every model that a run has trained: kept by its digest, and set beside the one in service before it takes its place.

A model is a prior and, for each field and level, two probabilities: parameters alone, nobody's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import NotFound, WrongState
from broker.store import Reading, Transaction
from broker.store.runs import LinkageModelRow
from linkage.matching.link import Linkage
from linkage.matching.model import Model

RATE_JUMP: Final = 0.02  # share of records that share a person: a model that moves it by more waits for a person
ENOUGH: Final = 200  # records: below this no rate is judged
_PAIR: Final = ("agency_l", "flow_l", "record_ref_l", "agency_r", "flow_r", "record_ref_r")

Comparison = dict[str, Any]
"""Two models on the same records: parameters side by side, and what each made of them.  Numbers alone."""


def digest_of(model: Model) -> str:
    """By what a model is known: the SHA-256 (hex) of its canonical form."""
    return sha256(model.canonical()).hexdigest()


def comparison(now: Linkage, new: Linkage) -> Comparison:
    """The model in service and another, on the same records: what each is, and what would change."""
    merged, split = _clusters_changed(now.clusters, new.clusters)
    return {
        "models": [digest_of(now.model), digest_of(new.model)],
        "prior_weight": [round(linkage.model.prior_weight, 2) for linkage in (now, new)],
        "weights": {
            field: [[round(weight, 2) for weight in linkage.model.weights(field)] for linkage in (now, new)]
            for field in new.model.levels
            if field in now.model.levels
        },
        "records": new.report.records,
        "persons": [linkage.report.persons for linkage in (now, new)],
        "link_rate": [round(link_rate(linkage.clusters), 4) for linkage in (now, new)],
        "persons_merged": merged,
        "persons_split": split,
        "pairs_moved": _pairs_moved(now.pairs, new.pairs),
    }


def refusal(compared: Mapping[str, Any]) -> str | None:
    """Why a model should wait for a person's word, in a sentence; None if it may take the other's place."""
    was, would = compared["link_rate"]
    if compared["records"] < ENOUGH or abs(would - was) <= RATE_JUMP:
        return None
    return f"under the new model {would:.1%} of records share a person, under the one in service {was:.1%}"


def words(compared: Mapping[str, Any]) -> str:
    """A comparison as a table to read."""
    lines = [
        f"{'':28}{'in service':>24}{'new':>24}",
        f"{'digest':28}{compared['models'][0][:16]:>24}{compared['models'][1][:16]:>24}",
        f"{'prior weight':28}{compared['prior_weight'][0]:>24}{compared['prior_weight'][1]:>24}",
    ]
    for field, (before, after) in compared["weights"].items():
        for level, (one, other) in enumerate(zip(before, after, strict=False)):
            lines.append(f"{f'{field}, level {level}':28}{one:>24}{other:>24}")
    lines += [
        f"{'records that share a person':28}{compared['link_rate'][0]:>24.2%}{compared['link_rate'][1]:>24.2%}",
        f"{'persons':28}{compared['persons'][0]:>24,}{compared['persons'][1]:>24,}",
        f"persons merged {compared['persons_merged']:,}, split {compared['persons_split']:,}",
        *(f"pairs from {step}: {count:,}" for step, count in sorted(compared["pairs_moved"].items())),
    ]
    return "\n".join(lines)


def link_rate(clusters: pa.Table) -> float:
    """The share of records whose person has another record."""
    return float(linked_records(clusters) / max(clusters.num_rows, 1))


def linked_records(clusters: pa.Table) -> int:
    """How many records share their person with another."""
    sizes = clusters["person_id"].value_counts().field("counts").to_numpy(zero_copy_only=False)
    return int(sizes[sizes > 1].sum())


def _clusters_changed(now: pa.Table, new: pa.Table) -> tuple[int, int]:
    """How many persons of the new have records of several of the old; how many of the old are several of the new.

    Both hold the same records in the same order: those of one run's input.
    """
    codes = [table["person_id"].combine_chunks().dictionary_encode().indices.to_numpy() for table in (now, new)]
    pairs = np.unique(np.stack(codes).astype(np.int64), axis=1)
    merged, split = (int((np.unique(pairs[side], return_counts=True)[1] > 1).sum()) for side in (1, 0))
    return merged, split


def _pairs_moved(now: pa.Table, new: pa.Table) -> dict[str, int]:
    """Pairs in another band than before, as `match to possible`."""
    before, after = (
        pa.table({"pair": pc.binary_join_element_wise(*(table[name] for name in _PAIR), "|"), band: table["band"]})
        for table, band in ((now, "was"), (new, "is"))
    )
    joined = before.join(after, "pair", join_type="full outer")
    counted = (
        pa.table({band: pc.fill_null(joined[band], "none") for band in ("was", "is")})
        .group_by(["was", "is"])
        .aggregate([([], "count_all")])
    )
    rows = counted.to_pylist()
    return {f"{row['was']} to {row['is']}": row["count_all"] for row in rows if row["was"] != row["is"]}


# --- Kept ------------------------------------------------------------------------------------------------------------


def keep(
    tx: Transaction, model: Model, *, why: str, run: str, at: datetime, compared: Comparison | None = None
) -> LinkageModelRow:
    """Keep a model that was trained just now, as `shadow`; one that is known already stays as it was."""
    digest = digest_of(model)
    row = tx.one(LinkageModelRow, digest=digest)
    if row is None:
        row = LinkageModelRow(
            digest=digest, profile=model.profile, version=model.version, body=model.canonical(), why=why,
            state="shadow", run=run, comparison=compared, trained_at=at,
        )  # fmt: skip
        tx.add(row)
        tx.flush()
    return row


def put_in_service(tx: Transaction, model: Model, *, run: str, at: datetime, accepted_by: str | None = None) -> None:
    """Say that a model scores from now on, and the one before no more."""
    first = not tx.all(LinkageModelRow, limit=1)
    row = keep(tx, model, why="first" if first else "version", run=run, at=at)
    if row.state == "in_service":
        return
    for older in tx.all(LinkageModelRow, state="in_service"):
        older.state = "retired"
        tx.add(older)
    row.state, row.in_service_from = "in_service", at
    row.accepted_by = accepted_by or row.accepted_by
    tx.add(row)


def to_accept(tx: Reading, digest: str) -> Model:
    """A kept model, by its digest or the first 12 digits or more.

    Raises NotFound, WrongState if it is in service already or several begin so, BadModel if this version of the broker
    compares by other levels.
    """
    found = [row for row in tx.all(LinkageModelRow) if len(digest) >= 12 and row.digest.startswith(digest)]
    if not found:
        raise NotFound("there is no such model: `broker linkage models` lists them")
    if len(found) > 1 or found[0].state == "in_service":
        raise WrongState("this model is in service already" if len(found) == 1 else "several models begin so")
    return Model.parse(found[0].body)


def retraining_due(tx: Reading, *, days: int, at: datetime) -> bool:
    """Whether the newest model was trained `days` ago or longer; never with 0, or before the first."""
    trained = [row.trained_at for row in tx.all(LinkageModelRow)]
    return bool(days and trained and max(trained) + timedelta(days=days) <= at)


def listed(tx: Reading) -> list[dict[str, Any]]:
    """Every model, oldest first, as plain data."""
    return [
        {
            "digest": row.digest, "profile": row.profile, "version": row.version, "why": row.why, "state": row.state,
            "trained_at": row.trained_at.isoformat(), "accepted_by": row.accepted_by, "comparison": row.comparison,
            "in_service_from": row.in_service_from.isoformat() if row.in_service_from else None, "run": row.run,
        }
        for row in tx.all(LinkageModelRow, order=("trained_at", "digest"))
    ]  # fmt: skip

"""Person ids that last, for a whole run at once: the rules of `persons.keep_ids` and `persons.changes`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from linkage.matching.arrays import Flags, Ints, ends_of, groups_of, packed
from linkage.matching.numbering import Numbered
from linkage.matching.persons import Move, keep_ids
from linkage.matching.texts import texts_at


@dataclass(frozen=True, kw_only=True)
class Lasting:
    """The ids of persons, the place of each record's among them, and the persons that became one or several."""

    people: pa.Array
    person: Ints
    merges: tuple[Move, ...]
    splits: tuple[Move, ...]


def lasting_ids(
    rows: Numbered, person: Ints, old: Ints, old_ids: pa.Array, new_id: Callable[[], str], near: Flags | None = None
) -> Lasting:
    """Name persons; `person` is the least record of each record's, `old` its id before, by place in `old_ids`, or -1.

    Most persons have records of one old person and are the only ones who do: they keep its id.  Only the others are
    weighed against each other.  Of `near` are all records of whichever person has one of them, now or before; the
    others are persons as before.
    """
    heads = person == np.arange(len(person))
    number = np.cumsum(heads) - 1
    of = number[person]
    count = int(heads.sum())
    given = np.full(count, -1, np.int64)
    known = old >= 0
    if near is not None and _apart(known, old, len(old_ids), near):
        given[number[heads & ~near]] = old[heads & ~near]
        known &= near
    some = np.flatnonzero(known)
    both = np.sort(packed(of[some], old[some]))
    now, before = ends_of(both[groups_of(both)[0]])
    alone = (np.bincount(now, minlength=count)[now] == 1) & (np.bincount(before, minlength=len(old_ids))[before] == 1)
    given[now[alone]] = before[alone]
    contested = np.zeros(count, np.bool_)
    contested[now[~alone]] = True
    _weigh(rows, of, old, old_ids, contested, given)
    fresh = np.flatnonzero(given < 0)
    given[fresh] = len(old_ids) + np.arange(len(fresh))
    every = pa.concat_arrays([old_ids, pa.array([new_id() for _ in range(len(fresh))], pa.string())])
    people = texts_at(every, given)
    merges, splits = _moves(now[~alone], before[~alone], people, old_ids)
    return Lasting(people=people, person=of, merges=merges, splits=splits)


def _apart(known: Flags, old: Ints, ids: int, near: Flags) -> bool:
    """Whether the records that are not near had ids, and none that a near record had."""
    if not known[~near].all():
        return False
    theirs = np.zeros(ids, np.bool_)
    theirs[old[~near]] = True
    return not theirs[old[near & known]].any()


def _weigh(rows: Numbered, of: Ints, old: Ints, old_ids: pa.Array, contested: Flags, given: Ints) -> None:
    """Give contested persons the ids that `keep_ids` gives them."""
    recs = np.flatnonzero(contested[of])
    if not len(recs):
        return
    place = {old_ids[code].as_py(): code for code in np.unique(old[recs][old[recs] >= 0]).tolist()}
    name = {code: old_id for old_id, code in place.items()}
    clusters: dict[int, list[tuple[str, str, str]]] = defaultdict(list)
    previous: dict[tuple[str, str, str], str] = {}
    for key, number, code in zip(rows.keys(recs), of[recs].tolist(), old[recs].tolist(), strict=True):
        clusters[number].append(key)
        if code >= 0:
            previous[key] = name[code]
    for number, kept in zip(clusters, keep_ids(list(clusters.values()), previous, str), strict=True):
        if kept:
            given[number] = place[kept]


def _moves(now: Ints, before: Ints, ids: pa.Array, old_ids: pa.Array) -> tuple[tuple[Move, ...], tuple[Move, ...]]:
    into: dict[str, set[str]] = defaultdict(set)
    out_of: dict[str, set[str]] = defaultdict(set)
    for new, old in zip(ids.take(pa.array(now)).to_pylist(), old_ids.take(pa.array(before)).to_pylist(), strict=True):
        into[new].add(old)
        out_of[old].add(new)
    return (
        tuple((tuple(sorted(olds)), (new,)) for new, olds in sorted(into.items()) if len(olds) > 1),
        tuple(((old,), tuple(sorted(news))) for old, news in sorted(out_of.items()) if len(news) > 1),
    )

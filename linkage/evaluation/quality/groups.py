"""Who is served worse: missed links and false ones by group, each beside everyone else's, small groups hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linkage.evaluation.quality.labelled import Labelled
from linkage.matching.rates import Cell, table


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Of each record, by place: its true partners that were found, and the wrong ones it was given."""

    found: Sequence[int]
    said: Sequence[int]


def links(labelled: Labelled, persons: Iterable[Iterable[int]]) -> Links:
    """What a partition makes of each record; records that it does not name are by themselves."""
    found, said = [0] * len(labelled.records), [0] * len(labelled.records)
    for group in persons:
        members = list(group)
        alike = Counter(labelled.persons[place] for place in members)
        for place in members:
            said[place] = len(members) - 1
            found[place] = alike[labelled.persons[place]] - 1
    return Links(found=found, said=said)


def match_rates(labelled: Labelled, partitions: Mapping[str, Iterable[Iterable[int]]]) -> list[dict[str, Any]]:
    """A row a group and value: how many records, and by side (`encoded`, `clear_text`) `recall` and `false`.

    Each holds the group's rate, everyone else's, and whether it is a finding: over five points worse.  A pair counts
    for each of its two records.  Values that fewer than ten records have are named, and nothing more is said of them.
    """
    by_side = {side: links(labelled, partition) for side, partition in partitions.items()}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for side, found in by_side.items():
        for measure in ("recall", "false"):
            counted = table((name, _cells(labelled, found, name, measure)) for name in labelled.groups)
            for row in counted.to_pylist():
                entry = rows.setdefault(
                    (row["group"], row["value"]),
                    {"group": row["group"], "value": row["value"], "records": row["records"]},
                )
                of_side = entry.setdefault(side, {})
                of_side[measure] = {"rate": row["rate"], "others": row["others"], "finding": row["finding"]}
                if measure == "false":  # what was counted are the right ones, so that less is worse there, too
                    of_side[measure] |= {
                        name: None if row[name] is None else round(1 - row[name], 2) for name in ("rate", "others")
                    }
    return [rows[key] for key in sorted(rows)]


def _cells(labelled: Labelled, found: Links, name: str, measure: str) -> dict[str, Cell]:
    values = labelled.groups[name]
    sizes: Counter[str] = Counter()
    chances: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    for place, key in enumerate(labelled.records):
        value = values.get(key, "not known")
        sizes[value] += 1
        chances[value] += labelled.partners[place] if measure == "recall" else found.said[place]
        hits[value] += found.found[place]
    return {value: Cell(size=size, chances=chances[value], hits=hits[value]) for value, size in sizes.items()}

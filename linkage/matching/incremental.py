"""What a night compares: everything, or what differs from the run before, to the same end.

A pair's levels and weight hang on its two records alone: on their rows, on the model, and on whether a block or a
number that both have is in use.  So the pairs of two records that have not changed in any of these are taken from the
run before, and all others are blocked and scored anew:

- records that are new or withdrawn, or whose rows, numbers or households differ, by a digest of each;
- records in a block that has crossed the cap, either way;
- everything, if the model, the rules, the flows that may repeat a person, or this code are others (`settings_of`).

A number that others share, supersede or spread acts through the numbers that carry weight, which are in the digest, or
later, in `settle`, as do twins, swapped names, ties and whatever people have decided.  What a pair was judged is kept,
and judged anew for everyone whom pairs, shared numbers or decisions lead to from a record that anything is new about.
How rare a name is (`accurate`) is frozen with the model, as a count that grows by one would touch everyone: `compare`
takes the frequencies that were kept under the same model, also where nothing else was kept.

Pairs that no rule could ever make matter (`settling.worth_keeping`) are not kept: four of five.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from linkage.matching.arrays import Flags, Ints, Places, packed_pairs
from linkage.matching.bands import banded
from linkage.matching.blocking import BLOCK_CAP, blocking_columns
from linkage.matching.blocks import BY_TOKEN, blocks_of, candidates, capped_of, capped_rows, keys_of_rows
from linkage.matching.comparing import SCORED, frequencies_of, frequency_of, scored_pairs
from linkage.matching.comparisons import DOB_EQUAL, NAME_CLOSE
from linkage.matching.digests import Digests
from linkage.matching.holders import Bits, Holders, Numbers, numbers_of
from linkage.matching.homes import Homes, homes_of
from linkage.matching.keeping import (
    ALTERED,
    FREQUENCIES,
    HOMES,
    NAMES,
    NO_FREQUENCIES,
    NUMBERS,
    PAIRS,
    PAIRS_SCHEMA,
    PEOPLE,
    RECORDS,
    ROWS,
    SETTINGS,
    SPREAD_AS,
    VERSION,
    before_of,
    digests_in,
    ends_table,
    frequencies_in,
    names_in,
    names_table,
    numbers_table,
    settled_under,
    tokens_in,
    written_in,
)
from linkage.matching.lazily import values_at
from linkage.matching.model import Model
from linkage.matching.numbering import KEY, Numbered, content_columns
from linkage.matching.scoring import columns_compared, scored_sides
from linkage.matching.settling import JUDGED, RULES, ByHand, Earlier, Settled, worth_keeping
from linkage.records import FILTERS, TOKENS, filter_columns

if TYPE_CHECKING:
    import duckdb

Engine = Callable[[pa.Table, Model], pa.Table]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The scored pairs of a run: of SCORED with `one_home`, in order; and what the next run needs beside them.

    `judged` is of these what they were judged before (JUDGED), if anything was kept, and `open` whom that may not hold
    for, by what is known here: records compared, and those that a record which is gone or changed was paired with.
    """

    pairs: pa.Table
    judged: pa.Table | None
    open: Flags
    numbers: Numbers
    homes: Homes
    agreed: tuple[Ints, Bits] | None  # of the numbers that carry weight; None where all was not compared
    capped: Mapping[str, Ints]
    records: int  # compared
    candidates: int
    old: Ints  # by record: its place in the records kept before, or -1
    digest: Digests
    frequencies: Mapping[str, pa.Table]
    settings: str
    model: str

    @property
    def holders(self) -> Holders:
        """The numbers that carry weight."""
        return self.numbers.holders

    def earlier(self, person: Ints, by_hand: ByHand) -> Earlier | None:
        """What the run before came to, if it was kept; `person` is by record the person's place in it."""
        if self.judged is None:
            return None
        opened = self.open.copy()
        opened[by_hand.records()] = True
        return Earlier(person=person, judged=self.judged, open=opened)

    def kept(
        self, rows: Numbered, people: pa.Array, person: Ints, settled: Settled, by_hand: ByHand, altered: Ints
    ) -> dict[str, pa.Table]:
        """The tables of KEPT; `people` are the ids of persons, `person` the place of each record's in them.

        `altered` are the rows that were put otherwise than given.
        """
        first, second = rows.name
        decided = np.zeros(rows.records, np.bool_)
        decided[by_hand.records()] = True
        records = {"name": first, "name_too": second, "digest": self.digest}
        named = [(key, n, one) for n, source in enumerate(rows.sources) for key, one in zip(KEY, source, strict=False)]
        frequencies = [
            table.append_column("field", pa.array([field] * table.num_rows, pa.string()))
            for field, table in self.frequencies.items()
        ]
        listed = {**self.capped, **{f"{SPREAD_AS}{scheme}": np.sort(one) for scheme, one in settled.spread.items()}}
        tokens = [
            pa.table({"key": pa.array([key] * len(values), pa.string()), "token": pa.array(values)})
            for key, values in sorted(listed.items())
        ]
        settings = {
            "key": pa.array(["version", "settings", "model", *(key for key, _, _ in named)]),
            "token": pa.array([None, None, None, *(n for _, n, _ in named)], pa.int64()),
            "digest": pa.array([VERSION, self.settings, self.model, *(one for _, _, one in named)]),
        }  # fmt: skip
        return {
            RECORDS: pa.table(
                {name: pa.array(values.view(np.int64)) for name, values in records.items()}
                | {
                    "source": pa.array(rows.source),
                    "person": pa.array(person.astype(np.int32)),
                    "by_hand": pa.array(decided),
                }
            ),
            ROWS: pa.table({"rec": pa.array(rows.rec), "digest": pa.array(rows.digest.view(np.int64))}),
            ALTERED: pa.table({"row": pa.array(altered)}),
            HOMES: ends_table(self.homes.ends),
            PEOPLE: pa.table({"person_id": people}),
            PAIRS: pa.table(
                {
                    **{name: self.pairs[name] for name in self.pairs.column_names},
                    **{name: pa.array(column) for name, column in settled.columns().items()},
                },
                schema=PAIRS_SCHEMA,
            ),
            NUMBERS: numbers_table(self.numbers),
            NAMES: names_table(self.numbers),
            FREQUENCIES: pa.concat_tables([*frequencies, NO_FREQUENCIES]),
            SETTINGS: pa.concat_tables([pa.table(settings), *tokens], promote_options="default"),
        }


def compare(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    model: Model,
    households: pa.Table | None,
    *,
    kept: Mapping[str, pa.Table] | None = None,
    carried: Ints | None = None,
    engine: Engine | None = None,
    cap: int = BLOCK_CAP,
) -> Compared:
    """The scored pairs that could come to matter: all compared, or those that `kept` does not hold.

    `carried` is of the rows of `households`: see numbering.Carried.
    """
    earlier = before_of(kept)
    homes = homes_of(rows, households, earlier, carried)
    settings, frozen = settings_of(connection, rows, model, cap), _sha256(connection, model.canonical().decode())
    digest = rows.content() + homes.digest(rows.records)
    kept = kept or {}
    whole = engine is None and earlier is not None
    usable = kept if whole and settled_under(kept, "settings") == settings else None
    frequencies = (
        frequencies_in(kept) if settled_under(kept, "model") == frozen else frequencies_of(rows.persons, model)
    )
    old = np.full(rows.records, -1, np.int64)
    touched: Flags | None = None
    before = np.zeros(0, np.int64)
    shared: tuple[Ints, Bits] | None = None
    if usable is not None:
        before = rows.found_again(*(digests_in(usable[RECORDS], name) for name in ("name", "name_too")))
        old[before[before >= 0]] = np.flatnonzero(before >= 0)
        was = digests_in(usable[RECORDS], "digest")
        changed = (old < 0) | (was[old] != digest if len(was) else True)
        numbers = numbers_of(rows, written_in(usable, before), changed)
        changed[numbers.renamed(names_in(usable))] = True
        holders = numbers.holders
        touched, blocks = _touched(rows, holders, model, changed, tokens_in(usable, BY_TOKEN), cap)
        sharing = holders.agreed(holders.around(touched))
    else:
        numbers = numbers_of(rows)
        holders = numbers.holders
        blocks = blocks_of(rows, holders, model.profile, cap=cap)
        shared = sharing = holders.agreed()
    capped = capped_of(blocks)

    def finished(pairs: pa.Table) -> pa.Table:
        left, right = (pairs[f"rec_{side}"].to_numpy() for side in "lr")
        return pairs.append_column("one_home", pa.array(homes.shared(left, right, rows.records)))

    def wanted(pairs: pa.Table) -> Flags:
        return worth_keeping(connection, finished(pairs), sharing)

    if engine is not None:
        found = engine(engine_rows(rows, holders, model, capped, frequencies), model).cast(SCORED)
        count = found.num_rows
        found = found.filter(pa.array(wanted(found)))
    else:
        chosen = candidates(rows, blocks.values(), None if touched is None else touched[rows.rec])
        count = len(chosen)
        found = scored_pairs(connection, rows, chosen, model, frequencies, wanted)
    found = finished(found)
    judged: pa.Table | None = None
    opened = np.ones(rows.records, np.bool_) if touched is None else touched.copy()
    if usable is not None and touched is not None:
        stay, left, right, left_over = _still(usable[PAIRS], before, touched)
        opened[left_over] = True
        decided = usable[RECORDS]["by_hand"].to_numpy()
        opened[before[decided & (before >= 0)]] = True
        opened[holders.holding(tokens_in(usable, SPREAD_AS))] = True
        found, judged = _together(usable[PAIRS], stay, left, right, found)
    return Compared(
        pairs=found.select([*SCORED.names, "one_home"]).combine_chunks(),
        judged=judged,
        open=opened,
        numbers=numbers,
        homes=homes,
        agreed=shared,
        capped=capped,
        records=rows.records if touched is None else int(touched.sum()),
        candidates=count,
        old=old,
        digest=digest,
        frequencies=frequencies,
        settings=settings,
        model=frozen,
    )


def _together(pairs: pa.Table, stay: Ints, left: Places, right: Places, found: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Kept pairs that stay, by tonight's numbers, and pairs that are new, in order; and what the former were judged."""
    old = packed_pairs(left, right)
    new = packed_pairs(found["rec_l"].to_numpy(), found["rec_r"].to_numpy())
    come = np.searchsorted(old, new) + np.arange(len(new))  # both are in order: merged, not sorted
    is_old = np.ones(len(old) + len(new), np.bool_)
    is_old[come] = False
    at = np.flatnonzero(is_old)
    columns: dict[str, pa.Array] = {}
    for field in PAIRS_SCHEMA:
        if field.name in ("rec_l", "rec_r"):
            mine, valid = (left if field.name == "rec_l" else right), None
        else:
            mine, valid = values_at(pairs[field.name], stay)
        every = np.zeros(len(is_old), mine.dtype)
        every[at] = mine
        missing = np.zeros(len(is_old), np.bool_) if valid is not None else None
        if missing is not None and valid is not None:
            missing[at] = ~valid
        if field.name in found.column_names:
            theirs, there = values_at(found[field.name], np.arange(len(new)))
            every[come] = theirs
            if there is not None:
                missing = np.zeros(len(is_old), np.bool_) if missing is None else missing
                missing[come] = ~there
        columns[field.name] = pa.array(every, field.type, mask=missing)
    table = pa.table(columns, schema=PAIRS_SCHEMA)
    return table.drop_columns(list(JUDGED.names)), table.select(list(JUDGED.names))


def settings_of(connection: duckdb.DuckDBPyConnection, rows: Numbered, model: Model, cap: int) -> str:
    """A digest of whatever else scored pairs hang on: with another, nothing kept may be used."""
    import duckdb

    repeat = [source for source, may in zip(rows.sources, rows.may_repeat.tolist(), strict=True) if may]
    parts = (
        model.canonical(), duckdb.__version__, repeat, cap, blocking_columns(model.profile),
        content_columns(model.profile), scored_sides(model, "sides"), banded("pairs"), RULES, NAME_CLOSE, DOB_EQUAL,
        VERSION,
    )  # fmt: skip
    return _sha256(connection, repr(parts))


def _sha256(connection: duckdb.DuckDBPyConnection, text: str) -> str:
    return str(connection.execute("SELECT sha256(?)", [text]).fetchall()[0][0])


def engine_rows(
    rows: Numbered, holders: Holders, model: Model, capped: Mapping[str, Ints], frequencies: Mapping[str, pa.Table]
) -> pa.Table:
    """All rows as an engine takes them: see `link.Engine`."""
    persons, profile = rows.persons, model.profile
    source = rows.source[rows.rec]
    columns: dict[str, Any] = {
        "unique_id": pa.array(rows.place), "rec": pa.array(rows.rec), "src": pa.array(source),
        "dup": pa.array(rows.may_repeat[source]), "birth_year": persons["birth_year"], "sex": persons["sex"],
    }  # fmt: skip
    columns |= {column: persons[column] for name in FILTERS[profile] for column in filter_columns(name)}
    columns |= {f"t_{name}": persons[f"t_{name}"] for name in TOKENS[profile]}
    for name in columns_compared(model):
        if name.startswith("k_"):
            columns[name] = persons[f"t_{name.removeprefix('k_')}"]
        elif name.startswith("f_"):
            columns[name] = frequency_of(frequencies[name.removeprefix("f_")], persons[f"t_{name.removeprefix('f_')}"])
    return pa.table(columns | keys_of_rows(rows, holders, profile, capped))


def _touched(
    rows: Numbered, holders: Holders, model: Model, changed: Flags, was_capped: Mapping[str, Ints], cap: int
) -> tuple[Flags, dict[str, Any]]:
    """The records to compare anew, and the blocks they are in: those changed, and those whose block crossed the cap.

    A block can only have grown over the cap by a row that is new, and only have shrunk below it if it was over.
    """
    blocks = blocks_of(rows, holders, model.profile, cap=cap, touched=changed[rows.rec], capped=was_capped)
    is_capped = capped_of(blocks)
    crossed = {
        key: np.setxor1d(is_capped.get(key, np.zeros(0, np.int64)), was_capped.get(key, np.zeros(0, np.int64)))
        for key in is_capped.keys() | was_capped.keys()
    }
    more = capped_rows(rows, model.profile, crossed)
    if not more.any():
        return changed, blocks
    touched = changed.copy()
    touched[rows.rec[more]] = True
    return touched, blocks_of(rows, holders, model.profile, cap=cap, touched=touched[rows.rec], capped=was_capped)


def _still(pairs: pa.Table, before: Ints, touched: Flags) -> tuple[Ints, Places, Places, Ints]:
    """The kept pairs of which neither record is gone or touched, and these by tonight's numbers; and whom the others
    leave."""
    left, right = (before[pairs[f"rec_{side}"].to_numpy()] for side in "lr")
    gone = np.append(touched, True)  # the last is for -1: one that is gone
    stays = ~(gone[left] | gone[right])
    stay = np.flatnonzero(stays)
    left_over = np.concatenate([side[~stays] for side in (left, right)])
    return stay, left[stay].astype(np.int32), right[stay].astype(np.int32), left_over[left_over >= 0]

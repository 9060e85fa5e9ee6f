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
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.bands import banded
from linkage.matching.blocking import BLOCK_CAP, blocking_columns
from linkage.matching.blocks import BY_TOKEN, blocks_of, candidates, capped_of, capped_rows, keys_of_rows
from linkage.matching.comparing import SCORED, frequencies_of, frequency_of, gathered, scored_pairs
from linkage.matching.comparisons import DOB_EQUAL, NAME_CLOSE
from linkage.matching.holders import Bits, Holders, holders_of
from linkage.matching.model import Model
from linkage.matching.numbering import (
    KEY,
    Before,
    Digests,
    Flags,
    Ints,
    Numbered,
    content_columns,
    groups_of,
    mixed,
    name_digests,
    packed_pairs,
    ramp,
)
from linkage.matching.scoring import columns_compared, scored_sides
from linkage.matching.settling import JUDGED, RULES, ByHand, Earlier, Settled, worth_keeping
from linkage.records import FILTERS, TOKENS, filter_columns

if TYPE_CHECKING:
    import duckdb

Engine = Callable[[pa.Table, Model], pa.Table]

RECORDS: Final = "kept_records"
ROWS: Final = "kept_rows"
HOMES: Final = "kept_homes"
PEOPLE: Final = "kept_people"
PAIRS: Final = "kept_pairs"
FREQUENCIES: Final = "kept_frequencies"
SETTINGS: Final = "kept_settings"
VERSION: Final = "kept-4"  # what blocks, scores or chooses pairs in other ways than by SQL or settings has another
KEPT: Final = (RECORDS, ROWS, HOMES, PEOPLE, PAIRS, FREQUENCIES, SETTINGS)
"""The tables of `Linkage.kept`."""
SPREAD_AS: Final = "s_"  # how the keys of SETTINGS begin that hold the numbers of a scheme that too many persons hold
_UNJUDGED: Final = pa.scalar(0, pa.int8())  # of a pair that is new: its records are open, so it is judged anew
PAIRS_SCHEMA: Final = pa.schema([*SCORED, ("one_home", pa.bool_()), *JUDGED])


@dataclass(frozen=True, kw_only=True)
class Homes:
    """The household tokens of records, each once: in order of record, then token."""

    rec: Ints
    token: Ints
    of: Ints  # by row of the relationships that says a household, as they came: whose, or -1

    def digest(self, records: int) -> Digests:
        """By record: a digest of its households."""
        total = np.zeros(records, np.uint64)
        np.add.at(total, self.rec, mixed(self.token, 77))
        return total

    def shared(self, left: Ints, right: Ints, records: int) -> Flags:
        """Whether two records share a household, for each pair."""
        count = np.bincount(self.rec, minlength=records)
        start = np.cumsum(count) - count
        one = np.zeros(len(left), np.bool_)
        both = np.flatnonzero((count[left] > 0) & (count[right] > 0))
        if not len(both):
            return one
        one[both] = self.token[start[left[both]]] == self.token[start[right[both]]]
        for pair in both[((count[left] > 1) | (count[right] > 1))[both] & ~one[both]].tolist():
            a, b = int(left[pair]), int(right[pair])
            mine = self.token[start[a] : start[a] + count[a]].tolist()
            one[pair] = not set(mine).isdisjoint(self.token[start[b] : start[b] + count[b]].tolist())
        return one


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The scored pairs of a run: of SCORED with `one_home`, in order; and what the next run needs beside them.

    `judged` is of these what they were judged before (JUDGED), if anything was kept, and `open` whom that may not hold
    for, by what is known here: records compared, and those that a record which is gone or changed was paired with.
    """

    pairs: pa.Table
    judged: pa.Table | None
    open: Flags
    holders: Holders
    homes: Homes
    agreed: tuple[Ints, Bits]  # of holders
    over_shared: Mapping[str, int]
    capped: Mapping[str, Ints]
    records: int  # compared
    candidates: int
    old: Ints  # by record: its place in the records kept before, or -1
    digest: Digests
    frequencies: Mapping[str, pa.Table]
    settings: str
    model: str

    def earlier(self, person: Ints, by_hand: ByHand) -> Earlier | None:
        """What the run before came to, if it was kept; `person` is by record the person's place in it."""
        if self.judged is None:
            return None
        opened = self.open.copy()
        opened[by_hand.records()] = True
        return Earlier(person=person, judged=self.judged, open=opened)

    def kept(
        self, rows: Numbered, people: pa.Array, person: Ints, settled: Settled, by_hand: ByHand
    ) -> dict[str, pa.Table]:
        """The tables of KEPT; `people` are the ids of persons, `person` the place of each record's in them."""
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
            "key": pa.array(["settings", "model", *(key for key, _, _ in named)]),
            "token": pa.array([None, None, *(n for _, n, _ in named)], pa.int64()),
            "digest": pa.array([self.settings, self.model, *(one for _, _, one in named)]),
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
            ROWS: pa.table({"rec": pa.array(rows.rec)}),
            HOMES: pa.table({"rec": pa.array(self.homes.of.astype(np.int32))}),
            PEOPLE: pa.table({"person_id": people}),
            PAIRS: pa.table(
                {
                    **{name: self.pairs[name] for name in self.pairs.column_names},
                    **{name: pa.array(column) for name, column in settled.columns().items()},
                },
                schema=PAIRS_SCHEMA,
            ),
            FREQUENCIES: pa.concat_tables([*frequencies, _NO_FREQUENCIES]),
            SETTINGS: pa.concat_tables([pa.table(settings), *tokens], promote_options="default"),
        }


_NO_FREQUENCIES: Final = pa.table(
    {"token": pa.array([], pa.int64()), "frequency": pa.array([], pa.float64()), "field": pa.array([], pa.string())}
)


def compare(
    connection: duckdb.DuckDBPyConnection,
    rows: Numbered,
    model: Model,
    households: pa.Table | None,
    *,
    kept: Mapping[str, pa.Table] | None = None,
    engine: Engine | None = None,
    cap: int = BLOCK_CAP,
) -> Compared:
    """The scored pairs that could come to matter: all compared, or those that `kept` does not hold."""
    holders, over_shared = holders_of(rows)
    homes = homes_of(connection, rows, households, before_of(kept))
    settings, frozen = settings_of(connection, rows, model, cap), _sha256(connection, model.canonical().decode())
    digest = np.zeros(rows.records, np.uint64)
    np.add.at(digest, rows.rec, mixed(rows.digest, 1))
    digest += holders.digest() + homes.digest(rows.records)
    kept = kept or {}
    whole = engine is None and all(name in kept for name in KEPT)
    usable = kept if whole and _digest(kept, "settings") == settings else None
    frequencies = _frequencies(kept) if _digest(kept, "model") == frozen else frequencies_of(rows.persons, model)
    old = np.full(rows.records, -1, np.int64)
    touched: Flags | None = None
    known = before = np.zeros(0, np.int64)
    if usable is not None:
        before = rows.found_again(*(_digests(usable[RECORDS], name) for name in ("name", "name_too")))
        known = np.flatnonzero(before >= 0)
        old[before[known]] = known
        was = _digests(usable[RECORDS], "digest")
        changed = (old < 0) | (was[old] != digest if len(was) else True)
        touched, blocks = _touched(rows, holders, model, changed, _tokens(usable, BY_TOKEN), cap)
    else:
        blocks = blocks_of(rows, holders, model.profile, cap=cap)
    capped = capped_of(blocks)
    shared = holders.agreed()

    def finished(pairs: pa.Table) -> pa.Table:
        left, right = (pairs[f"rec_{side}"].to_numpy() for side in "lr")
        return pairs.append_column("one_home", pa.array(homes.shared(left, right, rows.records)))

    def wanted(pairs: pa.Table) -> Flags:
        return worth_keeping(connection, finished(pairs), shared)

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
        stay, left_over = _still(usable[PAIRS], before, touched)
        opened[left_over] = True
        decided = usable[RECORDS]["by_hand"].to_numpy()
        opened[before[decided & (before >= 0)]] = True
        opened[holders.holding(_tokens(usable, SPREAD_AS))] = True
        found = pa.concat_tables([stay, found], promote_options="default").combine_chunks()
        both = packed_pairs(found["rec_l"].to_numpy(), found["rec_r"].to_numpy())
        found = found.take(pa.array(np.argsort(both, kind="stable")))  # two runs in order: merged, not sorted
        judged = found.select(JUDGED.names)
        judged = pa.table(
            {name: pc.fill_null(judged[name], pa.scalar(0, pa.int8()).cast(judged[name].type)) for name in JUDGED.names}
        )
    return Compared(
        pairs=found.select([*SCORED.names, "one_home"]).combine_chunks(),
        judged=judged,
        open=opened,
        holders=holders,
        homes=homes,
        agreed=shared,
        over_shared=over_shared,
        capped=capped,
        records=rows.records if touched is None else int(touched.sum()),
        candidates=count,
        old=old,
        digest=digest,
        frequencies=frequencies,
        settings=settings,
        model=frozen,
    )


def before_of(kept: Mapping[str, pa.Table] | None) -> Before | None:
    """Records and rows as what was kept numbers them; None if not all is there."""
    if kept is None or not all(name in kept for name in KEPT) or "source" not in kept[RECORDS].column_names:
        return None
    named = kept[SETTINGS].filter(pc.is_in(kept[SETTINGS]["key"], value_set=pa.array(KEY[:2])))["digest"].to_pylist()
    return Before(
        sources=tuple(zip(named[::2], named[1::2], strict=True)),
        name=(_digests(kept[RECORDS], "name"), _digests(kept[RECORDS], "name_too")),
        source=kept[RECORDS]["source"].to_numpy(),
        rec=kept[ROWS]["rec"].to_numpy(),
        homes=kept[HOMES]["rec"].to_numpy(),
    )


def homes_of(
    connection: duckdb.DuckDBPyConnection, rows: Numbered, households: pa.Table | None, before: Before | None = None
) -> Homes:
    """The households of records, by relationships of the wire with `agency` and `flow`."""
    nothing = np.zeros(0, np.int64)
    if households is None or households.num_rows == 0:
        return Homes(rec=nothing, token=nothing, of=nothing)
    said = pc.and_(pc.equal(households["type"], "household"), pc.is_valid(households["household"]))
    lived = np.flatnonzero(pc.fill_null(said, False).to_numpy())
    first, second = (
        digests[lived]
        for digests in name_digests(connection, households["agency"], households["flow"], households["ref_a"])
    )
    of = rows.placed_as(before, first, second)
    rec = of[of >= 0]
    token = gathered(households["household"], lived)[0][of >= 0]
    count = np.bincount(rec, minlength=rows.records)
    place = (np.cumsum(count) - count)[rec]
    some = np.flatnonzero(count[rec] > 1)
    if len(some):
        some = some[np.lexsort((token[some], rec[some]))]
        starts, ends = groups_of(rec[some])
        place[some] += ramp(ends - starts)
    ordered = np.empty((2, len(rec)), np.int64)
    ordered[0, place], ordered[1, place] = rec, token
    rec, token = ordered
    again = np.zeros(len(rec), np.bool_)
    again[1:] = (rec[1:] == rec[:-1]) & (token[1:] == token[:-1])
    return Homes(rec=rec[~again], token=token[~again], of=of)


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


def _digests(table: pa.Table, name: str) -> Digests:
    return np.ascontiguousarray(table[name].to_numpy()).view(np.uint64)


def _still(pairs: pa.Table, before: Ints, touched: Flags) -> tuple[pa.Table, Ints]:
    """The kept pairs of which neither record is gone or touched, by tonight's numbers; and whom the others leave."""
    left, right = (before[pairs[f"rec_{side}"].to_numpy()] for side in "lr")
    stay = (left >= 0) & (right >= 0)
    stay[stay] = ~(touched[left[stay]] | touched[right[stay]])
    kept = pairs.filter(pa.array(stay))
    for n, side in enumerate((left, right)):
        kept = kept.set_column(n, pairs.schema.field(n), pa.array(side[stay].astype(np.int32)))
    left_over = np.concatenate([side[~stay] for side in (left, right)])
    return kept.cast(PAIRS_SCHEMA), left_over[left_over >= 0]


def _digest(kept: Mapping[str, pa.Table], name: str) -> str | None:
    """A digest under which something was kept."""
    if SETTINGS not in kept or FREQUENCIES not in kept:
        return None
    found = kept[SETTINGS].filter(pc.equal(kept[SETTINGS]["key"], name))["digest"].to_pylist()
    return found[0] if len(found) == 1 else None


def _tokens(kept: Mapping[str, pa.Table], prefix: str) -> dict[str, Ints]:
    """By key of this beginning, what was kept: the blocks that were skipped, or the numbers of too many persons."""
    listed = kept[SETTINGS].filter(
        pc.and_(pc.is_valid(kept[SETTINGS]["token"]), pc.starts_with(kept[SETTINGS]["key"], prefix))
    )
    found: dict[str, list[int]] = {}
    for key, token in zip(listed["key"].to_pylist(), listed["token"].to_pylist(), strict=True):
        found.setdefault(key if prefix == BY_TOKEN else key.removeprefix(prefix), []).append(token)
    return {key: np.array(sorted(tokens), np.int64) for key, tokens in found.items()}


def _frequencies(kept: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    table = kept[FREQUENCIES]
    return {
        field: table.filter(pc.equal(table["field"], field)).select(["token", "frequency"])
        for field in table["field"].unique().to_pylist()
    }

"""What one run keeps for the next, as tables: what they are called, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from linkage.matching.arrays import Ints
from linkage.matching.blocks import BY_TOKEN
from linkage.matching.comparing import SCORED
from linkage.matching.digests import Digests
from linkage.matching.holders import Held, Numbers
from linkage.matching.identifiers import ALL_SCHEMES
from linkage.matching.numbering import KEY, Before, Ends
from linkage.matching.settling import JUDGED

RECORDS: Final = "kept_records"
ROWS: Final = "kept_rows"
ALTERED: Final = "kept_altered"
HOMES: Final = "kept_homes"
PEOPLE: Final = "kept_people"
PAIRS: Final = "kept_pairs"
NUMBERS: Final = "kept_numbers"
NAMES: Final = "kept_names"
FREQUENCIES: Final = "kept_frequencies"
SETTINGS: Final = "kept_settings"
VERSION: Final = "kept-7"  # what blocks, scores or chooses pairs in other ways than by SQL or settings has another
CLUSTERS: Final = pa.schema(
    [("agency", pa.string()), ("flow", pa.string()), ("record_ref", pa.string()), ("person_id", pa.string())]
)
"""Every record, once, and whose it is."""
KEPT: Final = (RECORDS, ROWS, ALTERED, HOMES, PEOPLE, PAIRS, NUMBERS, NAMES, FREQUENCIES, SETTINGS)
"""The tables of `Linkage.kept`."""
SPREAD_AS: Final = "s_"  # how the keys of SETTINGS begin that hold the numbers of a scheme that too many persons hold
PAIRS_SCHEMA: Final = pa.schema([*SCORED, ("one_home", pa.bool_()), *JUDGED])
NO_FREQUENCIES: Final = pa.table(
    {"token": pa.array([], pa.int64()), "frequency": pa.array([], pa.float64()), "field": pa.array([], pa.string())}
)


def before_of(kept: Mapping[str, pa.Table] | None) -> Before | None:
    """Records and rows as what was kept numbers them; None if not all is there."""
    if kept is None or not all(name in kept for name in KEPT):
        return None
    if kept[SETTINGS]["key"].to_pylist()[:1] != ["version"] or kept[SETTINGS]["digest"][0].as_py() != VERSION:
        return None
    named = kept[SETTINGS].filter(pc.is_in(kept[SETTINGS]["key"], value_set=pa.array(KEY[:2])))["digest"].to_pylist()
    return Before(
        sources=tuple(zip(named[::2], named[1::2], strict=True)),
        name=(digests_in(kept[RECORDS], "name"), digests_in(kept[RECORDS], "name_too")),
        source=kept[RECORDS]["source"].to_numpy(),
        rec=kept[ROWS]["rec"].to_numpy(),
        digest=digests_in(kept[ROWS], "digest"),
        ends=ends_in(kept[HOMES]),
        altered=kept[ALTERED]["row"].to_numpy(),
    )


def ends_table(ends: Ends) -> pa.Table:
    """Of each row of relationships the records of both ends, and the home that it says."""
    home = pa.array(ends.home, mask=~ends.lived)
    return pa.table({"a": pa.array(ends.a), "b": pa.array(ends.b), "home": home})


def ends_in(table: pa.Table) -> Ends:
    """What `ends_table` kept."""
    home = table["home"]
    return Ends(
        a=table["a"].to_numpy(), b=table["b"].to_numpy(), home=pc.fill_null(home, 0).to_numpy(),
        lived=np.asarray(pc.is_valid(home).to_numpy(), np.bool_),
    )  # fmt: skip


def digests_in(table: pa.Table, name: str) -> Digests:
    return np.ascontiguousarray(table[name].to_numpy()).view(np.uint64)


def settled_under(kept: Mapping[str, pa.Table], name: str) -> str | None:
    """A digest under which something was kept."""
    if SETTINGS not in kept or FREQUENCIES not in kept:
        return None
    found = kept[SETTINGS].filter(pc.equal(kept[SETTINGS]["key"], name))["digest"].to_pylist()
    return found[0] if len(found) == 1 else None


def tokens_in(kept: Mapping[str, pa.Table], prefix: str) -> dict[str, Ints]:
    """By key of this beginning, what was kept: the blocks that were skipped, or the numbers of too many persons."""
    listed = kept[SETTINGS].filter(
        pc.and_(pc.is_valid(kept[SETTINGS]["token"]), pc.starts_with(kept[SETTINGS]["key"], prefix))
    )
    found: dict[str, list[int]] = {}
    for key, token in zip(listed["key"].to_pylist(), listed["token"].to_pylist(), strict=True):
        found.setdefault(key if prefix == BY_TOKEN else key.removeprefix(prefix), []).append(token)
    return {key: np.array(sorted(tokens), np.int64) for key, tokens in found.items()}


def frequencies_in(kept: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    table = kept[FREQUENCIES]
    return {
        field: table.filter(pc.equal(table["field"], field)).select(["token", "frequency"])
        for field in table["field"].unique().to_pylist()
    }


def numbers_table(numbers: Numbers) -> pa.Table:
    """The tokens that records have, by place of the scheme in ALL_SCHEMES, in order."""
    parts = [
        pa.table({
            "scheme": pa.array(np.full(len(numbers.written[scheme].rec), n, np.int8)),
            "token": pa.array(numbers.written[scheme].number),
            "rec": pa.array(numbers.written[scheme].rec.astype(np.int32)),
        })
        for n, scheme in enumerate(ALL_SCHEMES)
    ]  # fmt: skip
    return pa.concat_tables(parts).combine_chunks()


def names_table(numbers: Numbers) -> pa.Table:
    """The tokens that have another name than themselves, or no weight."""
    parts = [
        pa.table(
            {"scheme": pa.array(np.full(len(tokens), n, np.int8)), "token": pa.array(tokens), "name": pa.array(names)}
        )
        for n, scheme in enumerate(ALL_SCHEMES)
        for tokens, names in [numbers.weights()[scheme]]
    ]
    return pa.concat_tables(parts).combine_chunks()


def written_in(kept: Mapping[str, pa.Table], now: Ints) -> dict[str, Held]:
    """What `numbers_table` kept, by tonight's numbers of the records: -1 for one that is gone."""
    table = kept[NUMBERS]
    return {
        scheme: Held(number=table["token"].to_numpy()[some], rec=now[table["rec"].to_numpy()[some]])
        for scheme, some in _by_scheme(table)
    }


def names_in(kept: Mapping[str, pa.Table]) -> dict[str, tuple[Ints, Ints]]:
    """What `names_table` kept."""
    table = kept[NAMES]
    return {
        scheme: (table["token"].to_numpy()[some], table["name"].to_numpy()[some]) for scheme, some in _by_scheme(table)
    }


def _by_scheme(table: pa.Table) -> list[tuple[str, slice]]:
    ends = np.searchsorted(table["scheme"].to_numpy(), np.arange(len(ALL_SCHEMES) + 1))
    return [(scheme, slice(*ends[n : n + 2].tolist())) for n, scheme in enumerate(ALL_SCHEMES)]

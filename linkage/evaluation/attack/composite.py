"""Alignment of blocking tokens with the public joint frequency of their composites; block sizes as a fingerprint.

Sources: *IJPDS* 1345 (frequencies of match keys); Christen et al., PAKDD 2017 (rank alignment).  A composite counts as
re-identified when all its parts are right: the soundex and the day, the day and the sector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from linkage.evaluation.attack.alignment import aligned, aligned_within, bold, components, table_of
from linkage.evaluation.attack.bench import Bench, Target
from linkage.evaluation.attack.frequency import PLACES, Place, name_encodings, public_table
from linkage.evaluation.attack.plain import DATED, Composite, Plain, Tables, likeliest, part_tables, parts_of
from linkage.evaluation.attack.population import MISSING, Curve, Ints, NameTable, word_soundexes
from linkage.evaluation.attack.results import AttackResult

SINGLE: Final = 1  # tokens of so many parts are not composites


def composite(bench: Bench, places: Sequence[Place] = PLACES[:3]) -> Iterator[AttackResult]:
    """Each token by rank; by rank within the birth year; by a register; and as a tie between encodings of a name."""
    for place, how in places:
        target = bench.target(**how)
        tables = part_tables(target.truth, how.get("curve", "fitted"))
        plain = Plain(target.truth)
        for name in target.tokens:
            meant, codes = plain[name], target.token(name)
            if len(meant.parts) == SINGLE or not (codes >= 0).any():
                continue  # no composite: `frequency` aligns names, `matchkey` the rest
            yield _judged(
                bench, target, f"{name}, {place}", meant, _by_rank(codes, meant, tables), "public joint frequency"
            )
            if set(meant.parts) & set(DATED):
                yield _judged(
                    bench, target, f"{name} within birth year, {place}", meant,
                    _by_rank_within_year(target, codes, meant, tables),
                    "public joint frequency; birth year, which is in clear",
                )  # fmt: skip
        yield from _relinked(bench, target, place, how.get("curve", "fitted"))
    target = bench.target()
    yield from _by_register(
        bench,
        target,
        [name for name in target.tokens if len(parts_of(name)) > SINGLE and (target.token(name) >= 0).any()],
        "composite",
    )


def _by_register(bench: Bench, target: Target, names: Sequence[str], attack: str) -> Iterator[AttackResult]:
    for overlap in bench.setting.overlaps:
        known = bench.register(target, overlap)
        plain = Plain(target.truth, known)
        for name in names:
            meant = plain[name]
            here, there = plain.split(meant.index)
            meant = Composite(meant.parts, meant.distinct, here)
            codes = target.token(name)
            if set(meant.parts) & set(DATED):
                years = np.unique(target.birth_year[target.birth_year >= 0])
                group = np.searchsorted(years, target.birth_year)
                group[target.birth_year < 0] = MISSING
                tables = [table_of(there[known.born // 10_000 == year]) for year in years]
                claims = aligned_within(group, codes, tables)
            else:
                claims = aligned(codes, table_of(there))
            yield _judged(
                bench, target, f"{name} by a register", meant, claims,
                "how often each value occurs in the register, within the birth year if dated",
                overlap=overlap, attack=attack,
            )  # fmt: skip


def _by_rank(codes: Ints, meant: Composite, tables: Tables) -> Ints:
    distinct = int(codes.max()) + 1
    return aligned(codes, _expected(likeliest(meant.parts, tables, distinct), _numbers(meant)))


def _by_rank_within_year(target: Target, codes: Ints, meant: Composite, tables: Tables) -> Ints:
    claims = np.full(len(codes), MISSING, np.int64)
    numbers = _numbers(meant)
    for year in np.unique(target.birth_year[target.birth_year >= 0]).tolist():
        rows = np.flatnonzero(target.birth_year == year)
        of_year = dict(tables)
        for part in set(meant.parts) & set(DATED):
            kept = np.array([value.startswith(str(year)) for value in tables[part][0]])
            shares = tables[part][1][kept]
            of_year[part] = ([v for v, keep in zip(tables[part][0], kept, strict=True) if keep], shares / shares.sum())
        distinct = len(np.unique(codes[rows]))
        _, local = np.unique(codes[rows], return_inverse=True)
        local = np.where(codes[rows] < 0, MISSING, local)
        claims[rows] = aligned(local, _expected(likeliest(meant.parts, of_year, distinct), numbers))
    return claims


def _numbers(meant: Composite) -> dict[tuple[str, ...], int]:
    return {text: at for at, text in enumerate(meant.distinct)}


def _expected(texts: list[tuple[str, ...]], numbers: dict[tuple[str, ...], int]) -> NameTable:
    """Plaintexts in order of expected frequency, as numbers; one that nobody has gets a number nobody has."""
    words = np.array([numbers.get(text, len(numbers)) for text in texts], np.int64)
    return NameTable(words=words, shares=np.full(len(words), 1 / max(1, len(words))))


def _relinked(bench: Bench, target: Target, place: str, curve: Curve) -> Iterator[AttackResult]:
    """Encodings of a name tied together by all composites that hold its soundex, and components ranked by name."""
    for field in ("family", "given"):
        table = public_table(field, curve)
        own = list(name_encodings(target, field).values())
        ties = [name for name in target.tokens if f"{field}_soundex" in parts_of(name)]
        linked = components([*own, *(target.token(name) for name in ties)], len(target))
        _, codes = np.unique(linked, return_inverse=True)
        truth = target.truth.surname if field == "family" else target.truth.given
        yield bench.judge_values(
            target, aligned(codes, table), truth, attack="composite", case=f"{field} names re-linked, {place}",
            knowledge=f"public table of names; encodings tied by {', '.join(ties)}",
            what="surname" if field == "family" else "given name",
            note=f"largest component {int(np.bincount(linked).max()):,} records",
        )  # fmt: skip
        if "dob" not in target.tokens or place != "fitted":
            continue
        soundexes, of_word = word_soundexes()
        shares = np.bincount(of_word[table.words] + 1, weights=table.shares, minlength=len(soundexes) + 1)[1:].astype(
            float
        )
        order = np.argsort(-shares, kind="stable")
        public = NameTable(words=order, shares=shares[order])
        for name in ties:
            groups = target.token("dob" if "dob" in name else "postcode")
            yield bench.judge_values(
                target, bold(groups, target.token(name), public), of_word[truth], attack="composite",
                case=f"{name} within its groups, bold", what="soundex",
                knowledge="public table of soundexes; who shares a date or postcode; claims what is likelier right",
            )  # fmt: skip


def matchkey(bench: Bench) -> Iterator[AttackResult]:
    """Keys of one value by rank; and sizes of blocks and of candidate sets as a fingerprint of a record."""
    target = bench.target()
    single = [name for name in target.tokens if parts_of(name) in {("date_of_birth",), ("postcode",)}]
    yield from _by_register(bench, target, single, "matchkey")
    names = list(target.tokens)
    mine = _sizes([target.token(name) for name in names], len(target))
    for overlap in bench.setting.overlaps:
        known = bench.register(target, overlap)
        plain = Plain(known)
        theirs = _sizes([plain[name].index for name in names], len(known))
        for case, columns in (("candidate-set size", None), ("block sizes", names)):
            left = mine.sum(axis=1, keepdims=True) if columns is None else mine
            right = theirs.sum(axis=1, keepdims=True) if columns is None else theirs
            claims = matched_once(
                np.column_stack([left, target.birth_year, target.sex]),
                np.column_stack([right, known.born // 10_000, known.sex]),
            )
            yield bench.judge(
                target, overlap, claims, attack="matchkey", case=case,
                knowledge="register; sizes of the blocks a record is in; birth year and sex, which are in clear",
                clear=True, note=f"largest block {int(mine.max()):,}",
            )  # fmt: skip


def _sizes(columns: list[Ints], rows: int) -> Ints:
    """The number of rows that share each row's code, by column; 0 where it has none."""
    made = np.zeros((rows, len(columns)), np.int64)
    for at, codes in enumerate(columns):
        present = codes >= 0
        if present.any():
            made[present, at] = np.bincount(codes[present])[codes[present]]
    return made


def matched_once(mine: Ints, theirs: Ints) -> Ints:
    """For each row of `mine` the row of `theirs` that is equal to it, if both occur once on their side; else -1."""
    both = np.concatenate([mine, theirs])
    _, index, counts = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    left, right = index[: len(mine)], index[len(mine) :]
    here = np.bincount(left, minlength=len(counts))
    there = np.bincount(right, minlength=len(counts))
    row_of = np.full(len(counts), MISSING, np.int64)
    row_of[right] = np.arange(len(right))
    once = (here == 1) & (there == 1)
    return np.asarray(np.where(once[left], row_of[left], MISSING), np.int64)


def _judged(
    bench: Bench,
    target: Target,
    case: str,
    meant: Composite,
    claims: Ints,
    knowledge: str,
    *,
    overlap: float | None = None,
    attack: str = "composite",
) -> AttackResult:
    return bench.judge_values(
        target, claims, meant.index, attack=attack, case=case, knowledge=knowledge,
        what=" and ".join(part.replace("_", " ") for part in meant.parts), overlap=overlap,
    )  # fmt: skip

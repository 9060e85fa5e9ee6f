"""Frequency alignment of name encodings: each alone, both salts chained through records, and through sibling and moves.

Sources: Kuzu, Kantarcioglu, Durham and Malin 2011 (frequent encodings are frequent names); Christen et al., PAKDD 2017
and 2018 (rank alignment); Smith 2008 in `linkage.md` (a record with two salted encodings of one name ties two salt
groups together: whoever chains them gathers all bearers of a name).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from linkage.evaluation.attack.alignment import aligned, aligned_within, bold, components, table_of
from linkage.evaluation.attack.bench import Bench, Target
from linkage.evaluation.attack.population import (
    MISSING,
    SEXES,
    Curve,
    Ints,
    NameTable,
    public_given_names,
    public_surnames,
)
from linkage.evaluation.attack.results import AttackResult

FIELDS: Final = ("family", "given")
WHAT: Final = {"family": "surname", "given": "given name"}
CURVES: Final[tuple[Curve, ...]] = ("fitted", "steep")
Place = tuple[str, dict[str, Any]]
PLACES: Final[tuple[Place, ...]] = (
    ("fitted", {}),
    ("steep", {"curve": "steep"}),
    ("regional", {"regional": True}),
    ("blank", {"blank": 0.2}),
)
"""Names as fitted; a steeper head; customs clustered by place; a fifth of dates and of postcodes missing."""


def frequency(bench: Bench, places: Sequence[Place] = PLACES) -> Iterator[AttackResult]:
    """Every encoding of a name, alone: by rank, by rank within sex, and within known salt groups."""
    for place, how in places:
        target = bench.target(**how)
        for field in FIELDS:
            table = public_table(field, how.get("curve", "fitted"))
            for name, codes in name_encodings(target, field).items():
                yield _judged(
                    bench, target, "frequency", f"{name} alone, {place}", field, aligned(codes, table),
                    "public table of names",
                )  # fmt: skip
            if place != "fitted":
                continue
            yield from _with_more(bench, target, field, table)


def _with_more(bench: Bench, target: Target, field: str, table: NameTable) -> Iterator[AttackResult]:
    groups = {name: target.token(name) for name in ("dob", "postcode") if name in target.tokens}
    for name, codes in name_encodings(target, field).items():
        if name.startswith("t_"):
            continue
        if field == "given":
            tables = [public_given_names("fitted", sex) for sex in range(len(SEXES))]
            yield _judged(
                bench, target, "frequency", f"{name} by sex", field, aligned_within(target.sex, codes, tables),
                "public table of names by sex; sex, which is in clear",
            )  # fmt: skip
        for group, members in groups.items():
            yield _judged(
                bench, target, "frequency", f"{name} within {group} groups, bold", field, bold(members, codes, table),
                f"public table of names; who shares a {group} token; claims what is likelier right than wrong",
            )  # fmt: skip
        for overlap in bench.setting.overlaps:
            known = bench.register(target, overlap)
            column = known.surname if field == "family" else known.given
            yield _judged(
                bench, target, "frequency", f"{name} by a register", field, aligned(codes, table_of(column)),
                "name counts of the register", overlap=overlap,
            )  # fmt: skip


def chained(bench: Bench, places: Sequence[Place] = PLACES) -> Iterator[AttackResult]:
    """All encodings of a name chained through the records that hold them; components ranked by size."""
    for place, how in places:
        target = bench.target(**how)
        for field in FIELDS:
            table = public_table(field, how.get("curve", "fitted"))
            linked = components(list(name_encodings(target, field).values()), len(target))
            yield _judged(
                bench, target, "chained", f"{field}, {place}", field, aligned(_present(target, field, linked), table),
                "public table of names; which encodings lie in one record",
                note=_largest(linked),
            )  # fmt: skip


def siblings(bench: Bench) -> Iterator[AttackResult]:
    """The same, with the siblings of every child told to the attacker, and with two linked records a child."""
    for curve in CURVES:
        table = public_table("family", curve)
        target = bench.target(curve=curve)
        edges = [*name_encodings(target, "family").values(), target.truth.family]  # an oracle: truth is told
        linked = components(edges, len(target))
        yield _judged(
            bench, target, "siblings", f"family, siblings known, {curve}", "family",
            aligned(_present(target, "family", linked), table),
            "public table of names; all sibling groups", note=_largest(linked),
        )  # fmt: skip
    for share in (0.0, 0.12, 0.5):
        target = bench.target(records=2, moved=share)
        for field in FIELDS:
            edges = [*name_encodings(target, field).values(), target.truth.person]
            for told in (False, True) if field == "family" else (False,):
                linked = components([*edges, target.truth.family] if told else edges, len(target))
                case = f"{field}, two records, {100 * share:.0f} % moved" + (", siblings known" if told else "")
                knowledge = "public table of names; which records are one child" + ("; sibling groups" if told else "")
                yield _judged(
                    bench, target, "siblings", case, field,
                    aligned(_present(target, field, linked), public_table(field, "fitted")), knowledge,
                    note=_largest(linked),
                )  # fmt: skip


def public_table(field: str, curve: Curve) -> NameTable:
    """The national table of a name field."""
    return public_surnames(curve) if field == "family" else public_given_names(curve)


def name_encodings(target: Target, field: str) -> dict[str, Ints]:
    """Every column that holds nothing but one name (salted or not), as codes: filters, and tokens as `t_...`.

    A later filter or token of a name is found by how it is called.
    """
    made = {name: target.encoding(name) for name in target.filters if name.split("_")[0] == field}
    made |= {f"t_{name}": target.token(name) for name in target.tokens if name.startswith(f"{field}_name")}
    return {name: codes for name, codes in made.items() if (codes >= 0).any()}


def _present(target: Target, field: str, linked: Ints) -> Ints:
    """Components as codes; a record without any encoding of the name has none."""
    some = np.zeros(len(target), bool)
    for codes in name_encodings(target, field).values():
        some |= codes >= 0
    _, index = np.unique(linked, return_inverse=True)
    return np.where(some, index, MISSING).astype(np.int64)


def _largest(linked: Ints) -> str:
    return f"largest component {int(np.bincount(linked).max()):,} records"


def _judged(
    bench: Bench,
    target: Target,
    attack: str,
    case: str,
    field: str,
    claims: Ints,
    knowledge: str,
    *,
    overlap: float | None = None,
    note: str = "",
) -> AttackResult:
    truth = target.truth.surname if field == "family" else target.truth.given
    return bench.judge_values(
        target,
        claims,
        truth,
        attack=attack,
        case=case,
        knowledge=knowledge,
        what=WHAT[field],
        overlap=overlap,
        note=note,
    )

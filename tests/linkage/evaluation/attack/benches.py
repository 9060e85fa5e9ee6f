"""Small benches for attacks, and targets that are badly encoded on purpose: what an attack must break."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from linkage.evaluation.attack.bench import Bench, Setting, Target
from linkage.evaluation.attack.command import full_name
from linkage.evaluation.attack.results import AttackResult


@lru_cache(maxsize=8)
def a_bench(
    profile: str = "guarded",
    children: int = 1_000,
    overlaps: tuple[float, ...] = (0.8,),
    errors: bool = True,
    seed: int = 1,
) -> Bench:
    return Bench(Setting(profile=full_name(profile), children=children, overlaps=overlaps, errors=errors, seed=seed))


def with_tokens(target: Target, tokens: Mapping[str, np.ndarray[Any, Any]]) -> Target:
    """The target with some token columns replaced: equal numbers, equal tokens."""
    wire = target.wire
    for name, codes in tokens.items():
        column = pa.array(codes.astype(np.int64), mask=codes < 0)
        wire = wire.set_column(wire.schema.get_field_index(f"t_{name}"), f"t_{name}", column)
    return replace(target, wire=wire)


def case(results: list[AttackResult], name: str, *, overlap: float | None = None) -> AttackResult:
    """The one result of that case."""
    found = [result for result in results if result.case == name and overlap in (None, result.overlap)]
    assert len(found) == 1, [result.case for result in results]
    return found[0]

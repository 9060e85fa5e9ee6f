"""The linkage model: a prior and, per field and level, m and u; trained without labels, then frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What scores a pair.  Frozen: retraining makes another one, compared with this before it takes its place.

    `levels` is, for each field, (m, u) per level, best first, as `comparisons` lists them.  `prior` is the
    probability that two random records are one person.  `origin` says where the figures came from.
    """

    profile: str
    version: str
    prior: float
    levels: Mapping[str, tuple[tuple[float, float], ...]]
    origin: Mapping[str, str]

    def canonical(self) -> bytes:
        """RFC 8785 bytes: what is kept, and what the broker puts its digest of into each run's audit event."""
        raise NotImplementedError

    @classmethod
    def parse(cls, raw: bytes) -> Model:
        """Read back what `canonical` wrote.  Raises BadModel."""
        raise NotImplementedError


class BadModel(ValueError):
    """A model file does not hold what this version of the comparisons needs."""


@cache
def default_model(profile: str) -> Model:
    """The model that ships: trained on the synthetic area, for inputs too small to train on."""
    raise NotImplementedError

"""The linkage model: a prior and, per field and level, m and u; trained without labels, then frozen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import rfc8785

from linkage.matching.blocking import blocking_rules
from linkage.matching.comparisons import comparisons
from linkage.records import Profile

if TYPE_CHECKING:  # and in the functions that train: who only searches by a model never waits for Splink to load
    import duckdb
    from splink import Linker

VERSION: Final = "levels-2"

Levels = tuple[tuple[float, float], ...]


class BadModel(ValueError):
    """A model file does not hold what this version of the comparisons needs; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What scores a pair.  Frozen: retraining makes another one, compared with this before it takes its place.

    `levels` is, for each field, (m, u) of each level, best first, as `comparisons` lists them.  `prior` is the
    probability that two random records are one person.  `origin` says of each figure whether it was trained on these
    records or is the default's.
    """

    profile: Profile
    version: str
    prior: float
    levels: Mapping[str, Levels]
    origin: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise BadModel(f"version: {VERSION!r} is due")
        if not 0 < self.prior < 1:
            raise BadModel("prior: a probability is due")
        for comparison in comparisons(self.profile):
            levels = self.levels.get(comparison.field, ())
            if len(levels) != comparison.size or not all(0 < p <= 1 for level in levels for p in level):
                raise BadModel(f"{comparison.field}: {comparison.size} levels of (m, u) above 0 are due")

    def weights(self, field: str) -> tuple[float, ...]:
        """The match weight (log2 of m over u) of each level of a field, best first."""
        return tuple(math.log2(m / u) for m, u in self.levels[field])

    @property
    def prior_weight(self) -> float:
        """log2 of the prior odds."""
        return math.log2(self.prior / (1 - self.prior))

    def canonical(self) -> bytes:
        """RFC 8785 bytes: what is kept, and what each run's audit event holds the digest of."""
        return rfc8785.dumps(json.loads(json.dumps(asdict(self))))

    @classmethod
    def parse(cls, raw: bytes) -> Model:
        """Read back what `canonical` wrote.  Raises BadModel."""
        try:
            body = json.loads(raw)
            levels = {field: tuple((m, u) for m, u in levels) for field, levels in body["levels"].items()}
            return cls(**{**body, "levels": levels})
        except BadModel:
            raise
        except (ValueError, TypeError, KeyError, AttributeError):
            raise BadModel("the model is not one that `canonical` wrote") from None


@cache
def default_model(profile: Profile) -> Model:
    """The model that ships: trained on 20,000 children of the synthetic area, for inputs too small to train on."""
    return Model.parse((resources.files("linkage.matching") / f"{profile}.model.json").read_bytes())


def linker(connection: duckdb.DuckDBPyConnection, profile: Profile, model: Model | None) -> Linker:
    """A Splink linker over the working table `rows`: with a model, ready to predict; without, to train."""
    from splink import DuckDBAPI, Linker, SettingsCreator

    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[
            comparison.for_splink(model.levels[comparison.field] if model else None)
            for comparison in comparisons(profile)
        ],
        blocking_rules_to_generate_predictions=blocking_rules(profile),
        probability_two_random_records_match=model.prior if model else 0.0001,
        retain_matching_columns=False,
        retain_intermediate_calculation_columns=False,
    )
    api = DuckDBAPI(connection)
    return Linker(api.register("rows"), settings, validate_settings=False, log_level=None)

"""The linkage model: a prior and, per field and level, m and u; trained without labels, then frozen."""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import rfc8785

from linkage.matching.blocking import APART, blocking_rules
from linkage.matching.comparisons import FieldComparison, comparisons
from linkage.records import Profile

if TYPE_CHECKING:  # and in the functions that train: who only searches by a model never waits for Splink to load
    import duckdb
    from splink import Linker

VERSION: Final = "levels-1"
SALTED: Final = ("given_name", "family_name")
LEAST_PAIRS: Final = 1_000  # fewer pairs than this under an EM block or in a sample teach nothing: the default stands
LEAST_EQUAL: Final = 0.3  # a model in which fewer true pairs than this are equal in a field has learnt something else
FLOOR: Final = 1e-6  # no level is impossible
EM_PAIRS: Final = 4_000_000  # about so many pairs are enough to learn m from; a million records have twenty times more
SAMPLE: Final = 2_000_000
STRANGERS: Final = 1_000_000  # pairs of two records of one flow, at least, to count coincidences in
NAME_SAMPLE: Final = 400_000

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


def train(connection: duckdb.DuckDBPyConnection, profile: Profile, *, seed: int, fallback: Model | None) -> Model:
    """A model of the working tables, by no label: u from pairs that can't be one person, m by EM, prior from rules.

    What these records are too few to teach is taken from `fallback`; `origin` says which.  Raises BadModel if there
    is nothing to fall back on.
    """
    compared = comparisons(profile)
    origin: dict[str, str] = {}
    us: dict[str, tuple[float, ...]] = {}
    sampled = _random_u(connection, profile, seed) if _count(connection, "rows") ** 2 / 2 >= LEAST_PAIRS * 100 else {}
    sampled = {field: _with_strangers(connection, field, levels) for field, levels in sampled.items()}
    if profile == "guarded-2":
        # Random pairs share no salt, so names can't be compared on them: see _name_u.
        sampled = {**sampled, **_name_u(connection, compared, fallback)}
    for comparison in compared:
        us[comparison.field], origin[f"{comparison.field}.u"] = _or_default(sampled, comparison, fallback, 1)
    learnt = _expectation_maximisation(connection, profile, us)
    levels: dict[str, Levels] = {}
    for comparison in compared:
        ms, origin[f"{comparison.field}.m"] = _or_default(learnt, comparison, fallback, 0)
        levels[comparison.field] = tuple(zip(ms, us[comparison.field], strict=True))
    recall = math.prod(levels[field][0][0] for field in ("given_name", "family_name", "date_of_birth"))
    prior, origin["prior"] = _prior(connection, profile, max(recall, LEAST_EQUAL), fallback)
    return Model(profile=profile, version=VERSION, prior=prior, levels=levels, origin=origin)


def _or_default(
    found: Mapping[str, tuple[float, ...]], comparison: FieldComparison, fallback: Model | None, which: int
) -> tuple[tuple[float, ...], str]:
    if comparison.field in found:
        return _smoothed(found[comparison.field]), "trained"
    if fallback is None:
        raise BadModel(f"{comparison.field}: too few pairs to train on, and no model to fall back on")
    return tuple(level[which] for level in fallback.levels[comparison.field]), "default"


def _smoothed(probabilities: tuple[float, ...]) -> tuple[float, ...]:
    floored = [max(p, FLOOR) for p in probabilities]
    return tuple(round(p / sum(floored), 9) for p in floored)


def _count(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0])


def _with_strangers(connection: duckdb.DuckDBPyConnection, field: str, levels: tuple[float, ...]) -> tuple[float, ...]:
    """u of a field with its equal level counted exactly, where that can be done without matches among the pairs.

    A random sample holds matches, which for a date of birth may be as many as the coincidences.  Two records of one
    flow that holds each person once are two people, so all of those pairs are counted instead.
    """
    token = {"date_of_birth": "k_dob", "postcode": "k_postcode"}.get(field)
    if token is None:
        return levels
    equal, pairs = connection.execute(f"""
        WITH held AS (SELECT DISTINCT src, rec, {token} AS token FROM rows WHERE NOT dup AND {token} IS NOT NULL)
        SELECT (SELECT coalesce(sum(n * (n - 1) / 2), 0) FROM (SELECT count(*) AS n FROM held GROUP BY src, token)),
               (SELECT coalesce(sum(n * (n - 1) / 2), 0) FROM (SELECT count(*) AS n FROM held GROUP BY src))
    """).fetchall()[0]
    if pairs < STRANGERS:
        return levels
    counted = max(float(equal) / float(pairs), FLOOR)
    rest = sum(levels[1:])
    return (counted, *(level * (1 - counted) / rest for level in levels[1:]))


def _trained(splink: Linker, name: str) -> dict[str, dict[int, float]]:
    """Per field, level number -> what Splink has learnt of `name` (m_probability or u_probability)."""
    found: dict[str, dict[int, float]] = {}
    for comparison in splink.misc.save_model_to_json()["comparisons"]:
        levels = [level for level in comparison["comparison_levels"] if not level.get("is_null_level")]
        found[comparison["output_column_name"]] = {
            len(levels) - 1 - n: level[name] for n, level in enumerate(levels) if level.get(name) is not None
        }
    return found


def _random_u(connection: duckdb.DuckDBPyConnection, profile: Profile, seed: int) -> dict[str, tuple[float, ...]]:
    splink = linker(connection, profile, None)
    splink.training.estimate_u_using_random_sampling(max_pairs=SAMPLE, seed=seed, min_count_per_level=None)
    found = _trained(splink, "u_probability")
    skip = SALTED if profile == "guarded-2" else ()
    return {
        comparison.field: _best_first(found[comparison.field], comparison)
        for comparison in comparisons(profile)
        if comparison.field not in skip and found[comparison.field]
    }


def _name_u(
    connection: duckdb.DuckDBPyConnection, compared: tuple[FieldComparison, ...], fallback: Model | None
) -> dict[str, tuple[float, ...]]:
    """u of salted names: two records of one flow that holds each person once are two people, whatever they share.

    Pairs with one date of birth and two postcodes: those with one postcode are a family, and share a name for that.
    """
    names = [comparison for comparison in compared if comparison.field in SALTED]
    wanted = ", ".join(f"{comparison.level_sql()} AS {comparison.field}" for comparison in names)
    columns = [row[0] for row in connection.execute("DESCRIBE rows").fetchall()]
    sides = ", ".join(f"{side}.{column} AS {column}_{side}" for side in "lr" for column in columns)
    # Each row with its next few of the same flow and date: enough, deterministic, and never quadratic.
    connection.execute("""
        CREATE OR REPLACE TEMP TABLE strangers AS
        WITH ordered AS (
            SELECT unique_id, rec, src, t_dob, t_postcode,
                   row_number() OVER (PARTITION BY src, t_dob ORDER BY unique_id) AS n
            FROM rows WHERE t_dob IS NOT NULL AND t_postcode IS NOT NULL AND NOT dup
        )
        SELECT l.unique_id AS id_l, r.unique_id AS id_r
        FROM ordered l JOIN ordered r
          ON l.src = r.src AND l.t_dob = r.t_dob AND r.n BETWEEN l.n + 1 AND l.n + 8
        WHERE l.rec <> r.rec AND l.t_postcode <> r.t_postcode
    """)
    found: dict[str, tuple[float, ...]] = {}
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE stranger_levels AS
        SELECT {wanted} FROM (
            SELECT {sides}
            FROM (FROM strangers ORDER BY id_l, id_r LIMIT {NAME_SAMPLE}) s
            JOIN rows l ON l.unique_id = s.id_l JOIN rows r ON r.unique_id = s.id_r
        )
    """)
    for comparison in names:
        counts = dict(
            connection.execute(f"""
                SELECT {comparison.field}, count(*) FROM stranger_levels WHERE {comparison.field} >= 0 GROUP BY 1
            """).fetchall()
        )
        if counts and fallback is not None:  # a few pairs move the default, many replace it
            for n, (_, u) in enumerate(fallback.levels[comparison.field]):
                counts[comparison.size - 1 - n] = counts.get(comparison.size - 1 - n, 0) + u * LEAST_PAIRS
        if (total := sum(counts.values())) >= LEAST_PAIRS:
            found[comparison.field] = _best_first({level: n / total for level, n in counts.items()}, comparison)
    return found


def _prior(
    connection: duckdb.DuckDBPyConnection, profile: Profile, recall: float, fallback: Model | None
) -> tuple[float, str]:
    """How often two rows that may be one person are: by a rule that is hardly ever wrong, and finds `recall` of them.

    Splink counts all pairs, also those of one flow that holds each person once: they are taken out again.
    """
    from splink.blocking_rule_library import CustomRule

    splink = linker(connection, profile, None)
    certain = {
        "guarded-2": "l.t_given_name_d = r.t_given_name_d AND l.t_family_name_d = r.t_family_name_d",
        "accurate-2": "l.t_given_name = r.t_given_name AND l.t_family_name = r.t_family_name AND l.t_dob = r.t_dob",
    }[profile]
    rules: list[Any] = [CustomRule(f"{certain} AND {APART}", sql_dialect="duckdb")]
    splink.training.estimate_probability_two_random_records_match(rules, recall=recall)
    prior = float(splink.misc.save_model_to_json()["probability_two_random_records_match"])
    every, comparable = connection.execute("""
        WITH counts AS (SELECT any_value(dup) AS dup, count(*) AS n FROM rows GROUP BY src)
        SELECT sum(n) * (sum(n) - 1) / 2,
               (sum(n) * sum(n) - sum(n * n)) / 2 + coalesce(sum(n * (n - 1) / 2) FILTER (dup), 0)
        FROM counts
    """).fetchall()[0]
    prior *= float(every) / float(comparable) if comparable else 0.0
    if 0 < prior < 0.5:
        return prior, "trained"
    if fallback is None:
        raise BadModel("prior: the certain rule finds no pair, and there is no model to fall back on")
    return fallback.prior, "default"


@dataclass(frozen=True, slots=True)
class _Session:
    """One round of EM: the columns whose equality blocks, and the fields that it teaches."""

    blocked_on: tuple[str, ...]
    teaches: tuple[str, ...]


def _sessions(profile: Profile) -> tuple[_Session, _Session]:
    # Under a postcode alone EM takes families for matches; with the given name too it sees one person, or nearly.
    given = {"guarded-2": "t_given_name_p", "accurate-2": "t_given_name"}[profile]
    return (
        _Session(("k_dob",), ("given_name", "family_name", "postcode", "sex")),
        _Session(("k_postcode", given), ("date_of_birth",)),
    )


def _expectation_maximisation(
    connection: duckdb.DuckDBPyConnection, profile: Profile, us: Mapping[str, tuple[float, ...]]
) -> dict[str, tuple[float, ...]]:
    """m of each field, from two sessions: blocked on date of birth, and on postcode."""
    from splink.blocking_rule_library import CustomRule

    learnt: dict[str, tuple[float, ...]] = {}
    for session in _sessions(profile):
        columns = ", ".join(session.blocked_on)
        held = " AND ".join(f"{column} IS NOT NULL" for column in session.blocked_on)
        pairs = connection.execute(f"""
            SELECT coalesce(sum(n * (n - 1) / 2), 0)
            FROM (SELECT count(*) AS n FROM rows WHERE {held} GROUP BY {columns})
        """).fetchall()[0][0]
        if pairs < LEAST_PAIRS:
            continue
        rule = " AND ".join(f"l.{column} = r.{column}" for column in session.blocked_on)
        if pairs > EM_PAIRS:  # every so many blocks: tokens are as good as random, so these are like the rest
            rule += f" AND l.{session.blocked_on[0]} % {math.ceil(pairs / EM_PAIRS)} = 0"
        splink = _with_u(connection, profile, us)
        splink.training.estimate_parameters_using_expectation_maximisation(
            CustomRule(f"{rule} AND {APART}", sql_dialect="duckdb"), fix_u_probabilities=True
        )
        found = _trained(splink, "m_probability")
        for comparison in comparisons(profile):
            levels = found[comparison.field]
            taught = comparison.field in session.teaches and len(levels) == comparison.size
            if taught and levels[comparison.size - 1] > LEAST_EQUAL:
                learnt[comparison.field] = _best_first(levels, comparison)
    return learnt


def _with_u(connection: duckdb.DuckDBPyConnection, profile: Profile, us: Mapping[str, tuple[float, ...]]) -> Linker:
    from splink import DuckDBAPI, Linker, SettingsCreator

    settings: dict[str, Any] = linker(connection, profile, None).misc.save_model_to_json()
    for comparison in settings["comparisons"]:
        levels = [level for level in comparison["comparison_levels"] if not level.get("is_null_level")]
        for level, u in zip(levels, us[comparison["output_column_name"]], strict=True):
            level["u_probability"] = u
    learner = SettingsCreator.from_path_or_dict(settings)
    return Linker(DuckDBAPI(connection).register("rows"), learner, validate_settings=False, log_level=None)


def _best_first(levels: Mapping[int, float], comparison: FieldComparison) -> tuple[float, ...]:
    return tuple(levels.get(number, 0.0) for number in range(comparison.size - 1, -1, -1))

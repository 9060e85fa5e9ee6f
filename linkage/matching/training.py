"""A model from records without labels: m by expectation maximisation, u from pairs of strangers, prior from a rule.

EM (Fellegi and Sunter 1969 as in Winkler 1988) runs over the counts of patterns of levels, a session for each set of
columns whose equality makes the pairs, so that no field teaches itself.  Two records of one flow that holds each person
once are two people, whatever they share: they are known to be no match, and teach u.  Under `guarded` two people at
random share no salt and can't be compared, so what such pairs would teach of names is learnt within a session, held to
the shipped model by as many made-up pairs as a small input needs.
"""

# ruff: noqa: S608 - what SQL is built of here are constants of this package, never input

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from linkage.matching.blocking import APART
from linkage.matching.comparisons import FieldComparison, comparisons
from linkage.matching.model import Levels, Model, linker
from linkage.records import Profile

if TYPE_CHECKING:
    import duckdb
    from splink import Linker

LEAST_PAIRS: Final = 1_000  # fewer pairs than this in a session or a sample teach nothing: the default stands
LEAST_ROWS: Final = 450  # fewer rows than this have too few pairs at random
LEAST_EQUAL: Final = 0.3  # a model in which fewer true pairs than this are equal in a field has learnt something else
FLOOR: Final = 1e-6  # no level is impossible
SAMPLE: Final = 2_000_000
STRANGERS: Final = 1_000_000  # pairs of two records of one flow, at least, to count coincidences in
SESSION_PAIRS: Final = 1_000_000  # of a session with more, the pairs of some of its blocks are taken
HELD_M: Final = 30.0  # pairs of the shipped model that m starts from
HELD_U: Final = 2_000.0
ROUNDS: Final = 500
DAYS: Final = 365.25

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Session:
    """One run of EM: the columns whose equality makes the pairs, the fields compared, and what it teaches."""

    blocked_on: tuple[str, ...]
    fields: tuple[str, ...]
    m: tuple[str, ...] = ()
    u: Mapping[str, float] | None = None  # a field, and how many pairs of the shipped model hold it


_SESSIONS: Final[dict[Profile, tuple[_Session, ...]]] = {
    "guarded-3": (
        _Session(("t_dob_family",), ("given_name", "postcode", "sex"), ("given_name", "postcode", "sex"),
                 {"given_name": HELD_U}),
        _Session(("t_dob_given",), ("family_name", "postcode", "sex"), ("family_name",),
                 {"family_name": HELD_U}),
        # Who errs in one name errs in the other: pairs found by neither tell better how often.
        _Session(("t_dob_sector",), ("given_name", "family_name", "postcode", "sex"), ("given_name", "family_name")),
        # Under a postcode alone EM takes families for matches; with the given name too it sees one person, or nearly.
        _Session(("t_given_name_p",), ("family_name", "date_of_birth", "sex"), ("date_of_birth",)),
    ),
    "accurate-2": (
        _Session(("t_dob",), ("given_name", "family_name", "postcode", "sex"),
                 ("given_name", "family_name", "postcode", "sex")),
        _Session(("t_postcode", "t_given_name"), ("family_name", "date_of_birth", "sex"), ("date_of_birth",)),
    ),
}  # fmt: skip
_CERTAIN: Final[dict[Profile, str]] = {
    "guarded-3": "l.t_given_name_d = r.t_given_name_d AND l.t_family_name_d = r.t_family_name_d",
    "accurate-2": "l.t_given_name = r.t_given_name AND l.t_family_name = r.t_family_name AND l.t_dob = r.t_dob",
}
"""A rule that is hardly ever wrong."""


def train(connection: duckdb.DuckDBPyConnection, profile: Profile, *, seed: int, fallback: Model) -> Model:
    """A model of the working tables, by no label.

    What these records are too few to teach is taken from `fallback`; `origin` says which.
    """
    compared = {comparison.field: comparison for comparison in comparisons(profile)}
    origin = {f"{field}.{part}": "default" for field in compared for part in "mu"} | {"prior": "default"}
    m = {field: _worst_first(fallback.levels[field], 0) for field in compared}
    u = {field: _worst_first(fallback.levels[field], 1) for field in compared}

    def learnt(part: str, field: str, probabilities: Floats) -> None:
        (m if part == "m" else u)[field] = _floored(probabilities)
        origin[f"{field}.{part}"] = "trained"

    sampled = {field: np.array(found) for field, found in _coincidences(connection, profile, seed).items()}
    for field, found in sampled.items():
        learnt("u", field, found)
    for field, share in _shares(connection, profile).items():
        learnt("u", field, _with_equal(u[field], share))
    sessions = [*_SESSIONS[profile]]
    seen = [
        (session, patterns)
        for session in sessions
        if (patterns := _patterns(connection, [compared[f] for f in session.fields], session.blocked_on)) is not None
    ]
    prior: float | None = None
    for _ in range(2 if sampled else 1):
        for session, patterns in seen:
            new_m, new_u = _maximised(patterns, session, m, u)
            for field in session.m:
                if new_m[field][-1] > LEAST_EQUAL and _seen(patterns, session, field):
                    learnt("m", field, new_m[field])
            for field in session.u or ():
                learnt("u", field, new_u[field])
        recall = math.prod(float(m[field][-1]) for field in ("given_name", "family_name", "date_of_birth"))
        prior = _prior(connection, profile, max(recall, LEAST_EQUAL))
        for field, found in sampled.items():  # pairs at random hold matches, too
            matches = (prior or 0.0) * _among_all(connection) * m[field][-1]
            learnt("u", field, _with_equal(found, max(found[-1] - matches, found[-1] / 10)))
    levels: dict[str, Levels] = {
        field: tuple(
            (round(float(a), 9), round(float(b), 9)) for a, b in zip(m[field][::-1], u[field][::-1], strict=True)
        )
        for field in compared
    }
    if prior is not None:
        origin["prior"] = "trained"
    return Model(profile=profile, version=fallback.version, prior=prior or fallback.prior, levels=levels, origin=origin)


def _worst_first(levels: Levels, part: int) -> Floats:
    return _floored(np.array([level[part] for level in reversed(levels)]))


def _floored(probabilities: Floats) -> Floats:
    floored = np.maximum(probabilities, FLOOR)
    return np.asarray(floored / floored.sum())


def _with_equal(probabilities: Floats, equal: float) -> Floats:
    """The same with another probability of the equal level; the others keep their proportions."""
    return np.append(probabilities[:-1] / probabilities[:-1].sum() * (1 - equal), equal)


def _count(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0])


# --- Expectation maximisation ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Patterns:
    """Combinations of levels (-1 is not comparable), how many pairs show each, and which pairs are of strangers."""

    levels: npt.NDArray[np.int64]  # patterns x fields
    counts: Floats
    strangers: npt.NDArray[np.bool_]


def _patterns(
    connection: duckdb.DuckDBPyConnection, compared: Sequence[FieldComparison], blocked_on: Sequence[str]
) -> _Patterns | None:
    """The patterns of the pairs whose `blocked_on` are equal, of all blocks or, if they are many, of some."""
    columns = ", ".join(blocked_on)
    held = " AND ".join(f"{column} IS NOT NULL" for column in blocked_on)
    pairs = connection.execute(f"""
        SELECT coalesce(sum(n * (n - 1) / 2), 0)
        FROM (SELECT count(*) AS n FROM rows WHERE {held} GROUP BY {columns})
    """).fetchall()[0][0]
    if pairs < LEAST_PAIRS:
        return None
    taken = f"({blocked_on[0]} & 9223372036854775807) % {math.ceil(float(pairs) / SESSION_PAIRS)} = 0"
    names = [row[0] for row in connection.execute("DESCRIBE rows").fetchall()]
    sides = ", ".join(f"{side}.{name} AS {name}_{side}" for side in "lr" for name in names)
    levels = ", ".join(f"{comparison.level_sql()} AS level_{n}" for n, comparison in enumerate(compared))
    equal = " AND ".join(f"l.{column} = r.{column}" for column in blocked_on)
    found = connection.execute(f"""
        SELECT *, count(*) FROM (
            SELECT src_l = src_r AND NOT dup_l AS strangers, {levels}
            FROM (SELECT {sides} FROM (FROM rows WHERE {taken}) l JOIN rows r ON {equal}
                  WHERE l.unique_id < r.unique_id AND l.rec <> r.rec)
        ) GROUP BY ALL ORDER BY ALL
    """).fetchall()
    table = np.array(found, np.float64).reshape(len(found), -1)
    fields = [comparison.field for comparison in compared]
    if "postcode" in fields:  # twins are strangers who share a name for a reason
        home = table[:, 1 + fields.index("postcode")]
        table = table[~((table[:, 0] > 0) & (home == compared[fields.index("postcode")].size - 1))]
    if table[:, -1].sum() < LEAST_PAIRS / 2:
        return None
    return _Patterns(table[:, 1:-1].astype(np.int64), table[:, -1], table[:, 0] > 0)


def _seen(patterns: _Patterns, session: _Session, field: str) -> bool:
    """Whether enough of a session's pairs that may be matches could be compared in a field."""
    comparable = (patterns.levels[:, session.fields.index(field)] >= 0) & ~patterns.strangers
    return float(patterns.counts[comparable].sum()) >= LEAST_PAIRS / 2


def _maximised(
    patterns: _Patterns, session: _Session, m: Mapping[str, Floats], u: Mapping[str, Floats]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """m of every field of a session, and u of those whose u it teaches; the other u stay as they are."""
    start = {field: (m[field], u[field]) for field in session.fields}
    now = {field: (m[field], u[field]) for field in session.fields}
    free = session.u or {}
    apart = patterns.strangers
    # Few of a session's pairs are of two people: a little doubt about each match would outweigh them.  Strangers teach
    # u where there are any, less those that look like one person whom a flow holds twice after all.
    teaching = apart if apart.any() else ~apart
    shares = {False: 0.5, True: 0.01}  # of matches, among pairs that may be matches and among strangers
    for _ in range(ROUNDS):
        prior = np.where(apart, _log_odds(shares[True]), _log_odds(shares[False]))
        odds = prior
        for at, field in enumerate(session.fields):
            weights = np.append(np.log(now[field][0] / now[field][1]), 0.0)  # level -1 is the last, and weighs nothing
            odds += weights[patterns.levels[:, at]]
        looks = 1 / (1 + np.exp(-odds))
        match = np.where(apart, 0.0, looks)
        moved = 0.0
        for kind, those in ((False, ~apart), (True, apart)):
            found_share = (float((patterns.counts * looks)[those].sum()) + 1) / (
                float(patterns.counts[those].sum()) + 2
            )
            moved, shares[kind] = max(moved, abs(found_share - shares[kind])), found_share
        for at, field in enumerate(session.fields):
            known = patterns.levels[:, at] >= 0
            level = patterns.levels[known, at]
            size = len(now[field][0])
            found = np.bincount(level, (patterns.counts * match)[known], size) + HELD_M * start[field][0]
            new_m = _floored(found / found.sum())
            new_u = now[field][1]
            if field in free:
                strange = patterns.counts * teaching * (1 - looks)
                found = np.bincount(level, strange[known], size) + free[field] * start[field][1]
                new_u = _floored(found / found.sum())
            moved = max(moved, float(np.abs(new_m - now[field][0]).max()), float(np.abs(new_u - now[field][1]).max()))
            now[field] = (new_m, new_u)
        if moved < 1e-7:
            break
    return {field: now[field][0] for field in session.fields}, {field: now[field][1] for field in free}


def _log_odds(share: float) -> float:
    return math.log(share) - math.log1p(-share)


# --- Coincidence -----------------------------------------------------------------------------------------------------


# Of those long grown up the decade is told, by its first year: none of the other nine is then there.
_YEARS: Final = """CASE WHEN value % 10 = 0 AND NOT EXISTS
    (SELECT 1 FROM told other WHERE other.value BETWEEN one.value + 1 AND one.value + 9) THEN 10 ELSE 1 END"""


def _shares(connection: duckdb.DuckDBPyConnection, profile: Profile) -> dict[str, float]:
    """How often two people at random agree in what need not be compared to know it."""
    found: dict[str, float] = {}
    (rows, same_year), (sexed, same_sex) = (
        connection.execute(f"""
            WITH told AS (SELECT {column} AS value, count(*) AS n FROM rows WHERE {column} IS NOT NULL GROUP BY ALL)
            SELECT coalesce(sum(n), 0), coalesce(sum(n * n / {of}), 0) FROM told one
        """).fetchall()[0]
        for column, of in (("birth_year", _YEARS), ("sex", "1"))
    )
    if profile == "guarded-3" and rows >= LEAST_ROWS:
        found["date_of_birth"] = max(float(same_year) / float(rows) ** 2 / DAYS, FLOOR)
    if sexed >= LEAST_ROWS:
        found["sex"] = float(same_sex) / float(sexed) ** 2
    return found


def _coincidences(connection: duckdb.DuckDBPyConnection, profile: Profile, seed: int) -> dict[str, tuple[float, ...]]:
    """u of each field that two rows at random can be compared in, worst level first: none of salted ones."""
    if profile == "guarded-3" or _count(connection, "rows") ** 2 / 2 < LEAST_PAIRS * 100:
        return {}
    splink = linker(connection, profile, None)
    splink.training.estimate_u_using_random_sampling(max_pairs=SAMPLE, seed=seed, min_count_per_level=None)
    found: dict[str, tuple[float, ...]] = {}
    for comparison in comparisons(profile):
        levels = _trained(splink, comparison.field)
        if levels and comparison.field != "sex":
            found[comparison.field] = _with_strangers(
                connection, comparison.field, tuple(levels.get(number, 0.0) for number in range(comparison.size))
            )
    return found


def _trained(splink: Linker, field: str) -> dict[int, float]:
    """Level number -> the u that Splink has found."""
    for comparison in splink.misc.save_model_to_json()["comparisons"]:
        if comparison["output_column_name"] == field:
            levels = [level for level in comparison["comparison_levels"] if not level.get("is_null_level")]
            return {
                len(levels) - 1 - n: level["u_probability"]
                for n, level in enumerate(levels)
                if level.get("u_probability") is not None
            }
    return {}


def _with_strangers(connection: duckdb.DuckDBPyConnection, field: str, levels: tuple[float, ...]) -> tuple[float, ...]:
    """u of a field with its equal level counted exactly, where that can be done without matches among the pairs.

    A random sample holds matches, which for a date of birth may be as many as the coincidences.  Two records of one
    flow that holds each person once are two people, so all of those pairs are counted instead.
    """
    token = {"date_of_birth": "t_dob", "postcode": "t_postcode"}.get(field)
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
    rest = sum(levels[:-1])
    return (*(level * (1 - counted) / rest for level in levels[:-1]), counted)


def _prior(connection: duckdb.DuckDBPyConnection, profile: Profile, recall: float) -> float | None:
    """How often two rows that may be one person are: by a rule that is hardly ever wrong, and finds `recall` of them.

    Splink counts all pairs, also those of one flow that holds each person once: they are taken out again.  None if the
    rule finds nobody, or nearly everybody.
    """
    from splink.blocking_rule_library import CustomRule

    splink = linker(connection, profile, None)
    rules: list[Any] = [CustomRule(f"{_CERTAIN[profile]} AND {APART}", sql_dialect="duckdb")]
    splink.training.estimate_probability_two_random_records_match(rules, recall=recall)
    prior = float(splink.misc.save_model_to_json()["probability_two_random_records_match"])
    prior /= _among_all(connection)
    return prior if 0 < prior < 0.5 else None


def _among_all(connection: duckdb.DuckDBPyConnection) -> float:
    """The share of all pairs of rows that may be one person: not of one flow that holds each person once."""
    return float(
        connection.execute("""
            WITH counts AS (SELECT any_value(dup) AS dup, count(*) AS n FROM rows GROUP BY src)
            SELECT ((sum(n) * sum(n) - sum(n * n)) / 2 + coalesce(sum(n * (n - 1) / 2) FILTER (dup), 0))
                   / (sum(n) * (sum(n) - 1) / 2)
            FROM counts
        """).fetchall()[0][0]
        or 1.0
    )

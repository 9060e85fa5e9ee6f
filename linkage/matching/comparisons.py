"""How two rows compare, field by field: likeness of filters in levels, written once for Splink and for the search.

Likeness is dice where filters have no salt, and the share of bits that are the same where they have one: a pad, which
hangs on the salt, changes what two filters have in common but not in how many bits they differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from linkage.records import FILTER_BITS, FILTER_WORDS, Profile

Dialect = Literal["duckdb", "spark", "atoms"]
"""`atoms` is SQL over what two rows were found to have: booleans `same_<column>` (equal), `both_<filter or column>`
(neither is null), and `<filter>_alike`, per cent rounded down."""

FIELDS: Final = ("given_name", "family_name", "date_of_birth", "postcode", "sex")
NAME_BARS: Final = (68, 62, 56)  # per cent of dice; 99.9 % of random surname pairs lie below the last
DOB_BARS: Final = (70, 58)
POSTCODE_BARS: Final = (62, 55)
SALTED_NAME_BARS: Final = (69, 64, 58)  # per cent of 512 bits; as many random pairs reach them as reach those of dice
SALTED_DOB_BARS: Final = (69, 58)
SALTED_POSTCODE_BARS: Final = (64, 57)
NAME_EQUAL: Final = 6
NAME_CLOSE: Final = 4  # the second bar or better
NAME_ALIKE: Final = 3  # the last bar or better
NAME_ONES: Final = NAME_CLOSE  # given names below it may be two twins': one letter parts Ada from Ida
SOUNDS: Final = 2  # no bar reached, but one soundex
STARTS: Final = 1  # nor that, but one first letter
DOB_EQUAL: Final = 3
POSTCODE_EQUAL: Final = 3
FAR: Final = 0
NOT_COMPARABLE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldComparison:
    """The levels of one field, best first, as SQL over columns `_l` and `_r`; the rest is the last level, `else`.

    A level's number, as in the columns `gamma_<field>`, is the count of levels below it; a null level is -1 and carries
    no weight.
    """

    field: str
    null_when: str
    levels: tuple[str, ...]
    bars: tuple[int, ...] = ()  # per cent of likeness of the levels after the first, best first
    tf_column: str | None = None  # the token whose term frequency adjusts the first level: `accurate` only

    @property
    def size(self) -> int:
        """Levels that carry weight, `else` included."""
        return len(self.levels) + 1

    def level_sql(self) -> str:
        """SQL: the number of the first level that holds."""
        whens = [f"WHEN {sql} THEN {self.size - 1 - n}" for n, sql in enumerate(self.levels)]
        return f"CASE WHEN {self.null_when} THEN {NOT_COMPARABLE} {' '.join(whens)} ELSE {FAR} END"

    def for_splink(self, probabilities: tuple[tuple[float, float], ...] | None = None) -> Any:
        """This comparison for Splink, with its m and u if they are known."""
        import splink.comparison_level_library as cll  # here: a search compares without Splink, which takes a second
        import splink.comparison_library as cl

        levels: list[Any] = [cll.CustomLevel(self.null_when, "not comparable").configure(is_null_level=True)]
        for n, sql in enumerate([*self.levels, None]):
            level: Any = cll.ElseLevel() if sql is None else cll.CustomLevel(sql, f"level {self.size - 1 - n}")
            if probabilities is not None:
                level = level.configure(m_probability=probabilities[n][0], u_probability=probabilities[n][1])
            if n == 0 and self.tf_column:
                level = level.configure(tf_adjustment_column=self.tf_column, disable_tf_exact_match_detection=True)
            levels.append(level)
        return cl.CustomComparison(
            comparison_levels=levels, output_column_name=self.field, comparison_description=self.field
        )


def comparisons(profile: Profile, dialect: Dialect = "duckdb") -> tuple[FieldComparison, ...]:
    """The five comparisons of a profile, in the order of FIELDS.  A dialect says what levels are made of."""
    if dialect == "atoms":
        sex = FieldComparison(field="sex", null_when="NOT both_sex", levels=("same_sex",))
    else:
        sex = FieldComparison(field="sex", null_when="sex_l IS NULL OR sex_r IS NULL", levels=("sex_l = sex_r",))
    if profile == "guarded-3":
        names = (_salted_name("given_name", "given", "family", dialect),
                 _salted_name("family_name", "family", "given", dialect))  # fmt: skip
        return (*names, _salted_date(dialect), _salted_postcode(dialect), sex)
    return (
        _name("given_name", "given", dialect),
        _name("family_name", "family", dialect),
        _filter("date_of_birth", "dob", "t_dob", DOB_BARS, dialect),
        _filter("postcode", "postcode", "t_postcode", POSTCODE_BARS, dialect),
        sex,
    )


def dice(filter_name: str, per_cent: int, dialect: Dialect = "duckdb") -> str:
    """SQL: 2·|l ∧ r| / (|l| + |r|) of a filter is at least this; integers throughout, and null if a filter is.

    For Spark |l ∧ r| is a column, `<filter>_common`, that holds `common_bits`: the JVM compiles no method over 64 KB,
    and eight words at every level are more.  Source: Schnell, Bachteler and Reiher 2009, doi:10.1186/1472-6947-9-41.
    """
    if dialect == "atoms":
        return f"{filter_name}_alike >= {per_cent}"
    common = f"({common_bits(filter_name, dialect)})" if dialect == "duckdb" else f"{filter_name}_common"
    return f"200 * {common} >= {per_cent} * ({filter_name}_n_l + {filter_name}_n_r)"


def same_bits(filter_name: str, per_cent: int, dialect: Dialect = "duckdb") -> str:
    """SQL: of a filter's 512 bits at least this share is the same on both sides; null if a filter is.

    For Spark the number that differs is a column, `<filter>_apart`, that holds `bits_apart`.
    """
    if dialect == "atoms":
        return f"{filter_name}_alike >= {per_cent}"
    apart = f"({bits_apart(filter_name, dialect)})" if dialect == "duckdb" else f"{filter_name}_apart"
    return f"{apart} <= {most_apart(per_cent)}"


def most_apart(per_cent: int) -> int:
    """In how many of 512 bits two filters may differ if this share is to be the same.

    >>> most_apart(100), most_apart(58)
    (0, 215)
    """
    return FILTER_BITS * (100 - per_cent) // 100


def bits_apart(filter_name: str, dialect: Dialect = "duckdb") -> str:
    """SQL: the number of bits in which the two sides of a filter differ (Hamming): laid out as `common_bits`."""
    if dialect == "duckdb":
        words = [f"bit_count(xor({filter_name}_h{i}_l, {filter_name}_h{i}_r))" for i in range(FILTER_WORDS // 2)]
        return " + ".join(["0::INTEGER", *words])
    return " + ".join(f"bit_count({filter_name}_w{i}_l ^ {filter_name}_w{i}_r)" for i in range(FILTER_WORDS))


def common_bits(filter_name: str, dialect: Dialect = "duckdb") -> str:
    """SQL: the number of bits that both sides of a filter have set: of four HUGEINT, or for Spark eight BIGINT."""
    if dialect == "duckdb":  # its bit_count gives a TINYINT, which overflows at 127
        words = [f"bit_count({filter_name}_h{i}_l & {filter_name}_h{i}_r)" for i in range(FILTER_WORDS // 2)]
        return " + ".join(["0::INTEGER", *words])
    return " + ".join(f"bit_count({filter_name}_w{i}_l & {filter_name}_w{i}_r)" for i in range(FILTER_WORDS))


# --- Unsalted: `accurate` --------------------------------------------------------------------------------------------


def _filter(field: str, filter_name: str, token: str, bars: tuple[int, ...], dialect: Dialect) -> FieldComparison:
    return FieldComparison(
        field=field,
        null_when=f"NOT ({_both(filter_name, dialect)})",
        levels=(_equal(token, dialect), *(dice(filter_name, bar, dialect) for bar in bars)),
        bars=bars,
    )


def _name(field: str, stem: str, dialect: Dialect) -> FieldComparison:
    compared = _filter(field, stem, f"t_{field}", NAME_BARS, dialect)
    alike = (_equal(f"t_{stem}_{what}", dialect) for what in ("soundex", "initial"))
    levels = (*compared.levels, *alike)
    return FieldComparison(
        field=field, null_when=compared.null_when, levels=levels, bars=compared.bars, tf_column=f"t_{field}"
    )


# --- Salted: `guarded` -----------------------------------------------------------------------------------------------
# A filter says nothing across two salts: it counts only where the salts agree, and that is known only from tokens of
# two fields, one of which is the salt.  Whoever shares a date of birth and neither name nor sector is not compared.

SAME_DATE: Final = ("dob_given", "dob_family", "dob_sector")
"""Tokens of which an equal one shows that two dates of birth are the same."""
SAME_POSTCODE: Final = ("postcode_given_family1", "postcode_family_given1")
"""The same of postcodes; either shows that both names begin alike too, which `_p` filters are salted by."""
SOUNDS_ALIKE: Final = {
    "given": ("dob_given", "postcode_given_family1"),
    "family": ("dob_family", "postcode_family_given1"),
}
"""Tokens of which an equal one shows that two names sound alike."""
NUMBERS: Final = ("n", "u")  # the suffix of tokens that an NHS number, or a UPN, salts


def sent(profile: Profile, field: str) -> tuple[str, ...]:
    """The columns of a row of which one is there if anything of a field was sent, and none if nothing was."""
    if field == "sex":
        return ("sex",)
    stem = {"given_name": "given", "family_name": "family", "date_of_birth": "dob"}.get(field, field)
    if profile != "guarded-3":
        return (f"{stem}_n",)
    filters = {"given": ("given_d", "given_p"), "family": ("family_d", "family_p"), "dob": ("dob_p",)}
    tokens = {"date_of_birth": SAME_DATE, "postcode": SAME_POSTCODE}.get(field, (f"{field}_d", f"{field}_p"))
    numbered = () if field == "postcode" else tuple(f"{stem if stem == 'dob' else field}_{n}" for n in NUMBERS)
    return (
        *(f"{name}_n" for name in filters.get(stem, ("postcode_d",))), *(f"t_{name}" for name in (*tokens, *numbered))
    )  # fmt: skip


def _salted_name(field: str, stem: str, other: str, dialect: Dialect) -> FieldComparison:
    salts = {"d": _any(SAME_DATE, dialect), "p": _any(SAME_POSTCODE, dialect)}
    comparable = {salt: f"({agree} AND {_both(f'{stem}_{salt}', dialect)})" for salt, agree in salts.items()}
    equal = _any((f"{field}_{salt}" for salt in (*salts, *NUMBERS)), dialect)
    close = [
        " OR ".join(f"({held} AND {same_bits(f'{stem}_{salt}', bar, dialect)})" for salt, held in comparable.items())
        for bar in SALTED_NAME_BARS
    ]
    sounds = _any(SOUNDS_ALIKE[stem], dialect)
    starts = _any((f"dob_{other}_{stem}1", f"postcode_{other}_{stem}1"), dialect)
    return FieldComparison(
        field=field,
        null_when=f"NOT ({' OR '.join(comparable.values())} OR {equal})",
        levels=(equal, *close, sounds, starts),
        bars=SALTED_NAME_BARS,
    )


def _salted_date(dialect: Dialect) -> FieldComparison:
    equal = _any((*SAME_DATE, *(f"dob_{number}" for number in NUMBERS)), dialect)
    comparable = f"({_any(SAME_POSTCODE, dialect)} AND {_both('dob_p', dialect)})"
    return FieldComparison(
        field="date_of_birth",
        null_when=f"NOT ({comparable} OR {equal})",
        levels=(equal, *(f"{comparable} AND {same_bits('dob_p', bar, dialect)}" for bar in SALTED_DOB_BARS)),
        bars=SALTED_DOB_BARS,
    )


def _salted_postcode(dialect: Dialect) -> FieldComparison:
    same = _any(SAME_POSTCODE, dialect)
    comparable = f"({_any(SAME_DATE, dialect)} AND {_both('postcode_d', dialect)})"
    bars = (100, *SALTED_POSTCODE_BARS)  # two filters under one salt with the same bits are of one postcode
    exact, *close = (f"{comparable} AND {same_bits('postcode_d', bar, dialect)}" for bar in bars)
    return FieldComparison(
        field="postcode",
        null_when=f"NOT ({comparable} OR {same})",
        levels=(f"{same} OR ({exact})", *close),
        bars=SALTED_POSTCODE_BARS,
    )


def _equal(column: str, dialect: Dialect) -> str:
    return f"same_{column}" if dialect == "atoms" else f"coalesce({column}_l = {column}_r, false)"


def _any(tokens: Iterable[str], dialect: Dialect) -> str:
    """SQL: one of these tokens is equal; never null."""
    return f"({' OR '.join(_equal(f't_{token}', dialect) for token in tokens)})"


def _both(filter_name: str, dialect: Dialect) -> str:
    if dialect == "atoms":
        return f"both_{filter_name}"
    return f"{filter_name}_n_l IS NOT NULL AND {filter_name}_n_r IS NOT NULL"

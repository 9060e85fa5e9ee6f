"""How two rows compare, field by field: dice of encodings in levels, written once for Splink and for the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from linkage.records import FILTER_WORDS, Profile

Dialect = Literal["duckdb", "spark"]

FIELDS: Final = ("given_name", "family_name", "date_of_birth", "postcode", "sex")
NAME_BARS: Final = (68, 62, 56)  # per cent of dice; 99.9 % of random surname pairs lie below the last
DOB_BARS: Final = (70, 58)
POSTCODE_BARS: Final = (62, 55)
NAME_EQUAL: Final = 4
NAME_CLOSE: Final = 2  # dice >= .62 or better
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
    """The five comparisons of a profile, in the order of FIELDS.  What differs by dialect is `dice` alone."""
    if profile == "guarded-2":
        names = [_salted_name("given_name", "given", dialect), _salted_name("family_name", "family", dialect)]
    else:
        names = [_name("given_name", "given", dialect), _name("family_name", "family", dialect)]
    # k_dob and k_postcode are copies of the tokens: Splink leaves out of an EM session each comparison that reads the
    # column blocked on, and the salted names read t_dob and t_postcode.
    return (
        *names,
        _filter("date_of_birth", "dob", "k_dob", DOB_BARS, dialect),
        _filter("postcode", "postcode", "k_postcode", POSTCODE_BARS, dialect),
        FieldComparison(field="sex", null_when="sex_l IS NULL OR sex_r IS NULL", levels=("sex_l = sex_r",)),
    )


def dice(filter_name: str, per_cent: int, dialect: Dialect = "duckdb") -> str:
    """SQL: 2·|l ∧ r| / (|l| + |r|) of a filter is at least this; integers throughout, and null if a filter is.

    For Spark |l ∧ r| is a column, `<filter>_common`, that holds `common_bits`: the JVM compiles no method over 64 KB,
    and eight words at every level are more.  Source: Schnell, Bachteler and Reiher 2009, doi:10.1186/1472-6947-9-41.
    """
    common = f"({common_bits(filter_name, dialect)})" if dialect == "duckdb" else f"{filter_name}_common"
    return f"200 * {common} >= {per_cent} * ({filter_name}_n_l + {filter_name}_n_r)"


def common_bits(filter_name: str, dialect: Dialect = "duckdb") -> str:
    """SQL: the number of bits that both sides of a filter have set: of four HUGEINT, or for Spark eight BIGINT."""
    if dialect == "duckdb":  # its bit_count gives a TINYINT, which overflows at 127
        words = [f"bit_count({filter_name}_h{i}_l & {filter_name}_h{i}_r)" for i in range(FILTER_WORDS // 2)]
        return " + ".join(["0::INTEGER", *words])
    return " + ".join(f"bit_count({filter_name}_w{i}_l & {filter_name}_w{i}_r)" for i in range(FILTER_WORDS))


def _filter(field: str, filter_name: str, token: str, bars: tuple[int, ...], dialect: Dialect) -> FieldComparison:
    return FieldComparison(
        field=field,
        null_when=f"{filter_name}_n_l IS NULL OR {filter_name}_n_r IS NULL",
        levels=(f"{token}_l = {token}_r", *(dice(filter_name, bar, dialect) for bar in bars)),
    )


def _name(field: str, filter_name: str, dialect: Dialect) -> FieldComparison:
    token = f"t_{field}"
    compared = _filter(field, filter_name, token, NAME_BARS, dialect)
    return FieldComparison(field=field, null_when=compared.null_when, levels=compared.levels, tf_column=token)


def _salted_name(field: str, stem: str, dialect: Dialect) -> FieldComparison:
    # A filter says nothing across two salts: it counts only where the salt's own token agrees.
    salts = {"d": "t_dob_l = t_dob_r", "p": "t_postcode_l = t_postcode_r"}
    held = {salt: f"{stem}_{salt}_n_l IS NOT NULL AND {stem}_{salt}_n_r IS NOT NULL" for salt in salts}
    comparable = " OR ".join(f"coalesce({agree} AND {held[salt]}, false)" for salt, agree in salts.items())
    equal = " OR ".join(f"coalesce(t_{field}_{salt}_l = t_{field}_{salt}_r, false)" for salt in salts)
    close = (
        " OR ".join(
            f"coalesce({agree} AND {dice(f'{stem}_{salt}', bar, dialect)}, false)" for salt, agree in salts.items()
        )
        for bar in NAME_BARS
    )
    return FieldComparison(field=field, null_when=f"NOT ({comparable})", levels=(equal, *close))

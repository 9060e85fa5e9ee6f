"""Names, dates and postcodes in comparable form; what stands for "missing" is missing."""

import unicodedata
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from anyascii import anyascii
from hypothesis import given
from hypothesis import strategies as st

from linkage.agency import standardise
from linkage.agency.people import Person
from linkage.agency.standardise import AmbiguousDates, Rules, Standardised

TODAY = date(2026, 11, 22)


def standard(rules: Rules | None = None, **columns: list[str | None]) -> Standardised:
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return standardise.standardise_people(table, rules or Rules(), today=TODAY)


def only(rules: Rules | None = None, **fields: str | None) -> dict[str, Any]:
    made = standard(rules, **{name: [value] for name, value in fields.items()})
    return {
        **made.people.to_pylist()[0], "birth_year": made.birth_year[0].as_py(), "sex": made.sex[0].as_py(),
        "flags": (bool(made.default_dob[0]), bool(made.baby_name[0]), bool(made.bad_identifier[0])),
        "codes": [finding.code for _, finding in made.findings],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("written", "comparable"),
    [
        ("Zoë", "zoe"),
        ("Łukasz", "lukasz"),
        ("O'Brien-Jones", "obrienjones"),
        ("ﬁona", "fiona"),
        ("김", "gim"),
        ("Ａｎｎ", "ann"),
    ],
)
def test_a_name_is_brought_to_ascii_letters(written: str, comparable: str) -> None:
    assert standardise.comparable(written) == comparable


@given(st.one_of(st.text(st.characters(max_codepoint=127)), st.text()))
def test_what_is_ascii_already_goes_the_same_way_only_quicker(text: str) -> None:
    """Property: the short cut gives what NFKC, transliteration and lower case give."""
    slowly = anyascii(unicodedata.normalize("NFKC", text)).lower()
    assert standardise.comparable(text) == "".join(
        sign for sign in slowly if sign in "abcdefghijklmnopqrstuvwxyz0123456789"
    )


def test_each_row_has_the_form_the_flags_and_the_findings_it_has_alone() -> None:
    """Distinct values are standardised once; rows that share one, or have none, are told apart all the same."""
    rows: list[dict[str, str | None]] = [
        {"given_name": name, "date_of_birth": day, "dob_quality": quality, "postcode": place}
        for name in ("Zoë", "Baby", None)
        for day, quality in (("2015-01-01", "default"), ("2015-01-01", "full"), ("bad", None), (None, "odd"))
        for place in ("ZZ99 3VZ", "no", None)
    ]
    made = standard(None, **{name: [row[name] for row in rows] for name in rows[0]})
    people, years = made.people.to_pylist(), made.birth_year.to_pylist()
    for n, row in enumerate(rows):
        alone = only(None, **row)
        assert (*people[n].values(), years[n]) == (*(alone[name] for name in people[n]), alone["birth_year"])
        assert (bool(made.default_dob[n]), bool(made.baby_name[n]), bool(made.bad_identifier[n])) == alone["flags"]
        assert sorted(finding.code for at, finding in made.findings if at == n) == sorted(alone["codes"])


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Zoe Anne Marie", "zoe"), ("Dr. Mary", "mary"), ("Miss Ann", "ann"), ("Mohammed (known as Mo)", "mohammed"),
        ("Anne-Marie", "annemarie"), ("[prev] Ann", "ann"), ("Ann (unclosed", "ann"),
    ],
)  # fmt: skip
def test_the_first_given_name_counts_without_title_or_remark(written: str, kept: str) -> None:
    assert standardise.given_name(written).value == kept


@pytest.mark.parametrize(
    "written",
    [
        "Baby",
        "Baby Boy",
        "BABY GIRL",
        "Twin 1",
        "Twin2",
        "Infant",
        "Unborn",
        "Male",
        "female",
        "Boy",
        "girl",
        "Mr",
        "Miss",
    ],
)
def test_a_name_that_says_there_is_none_yet_is_missing_and_flagged(written: str) -> None:
    assert standardise.given_name(written) == standardise.Text(None, flagged=True)


@pytest.mark.parametrize("written", ["Unknown", "not known", "N/A", "none", "TEST", "xxx", "Refused", "-", "  "])
def test_a_word_for_nothing_is_missing_in_names(written: str) -> None:
    assert standardise.given_name(written).value is None
    assert standardise.family_name(written).value is None


@pytest.mark.parametrize(
    ("name", "code"),
    [("robert", "r163"), ("rupert", "r163"), ("ashcraft", "a261"), ("zoe", "z000"), ("tymczak", "t522"), ("pfister", "p236"),
     ("h3nry", "h560"), ("smith", "s530"), ("7", None), ("", None)],
)  # fmt: skip
def test_soundex(name: str, code: str | None) -> None:
    assert standardise.soundex(name) == code


def test_a_date_of_birth_is_read_in_its_format() -> None:
    assert only(Rules(date_format="%d/%m/%Y"), date_of_birth="14/03/2015")["date_of_birth"] == "20150314"
    assert only(date_of_birth="2015-03-14")["birth_year"] == 2015
    assert only(date_of_birth="2015-03-14 00:00:00")["date_of_birth"] == "20150314"


@pytest.mark.parametrize(
    ("written", "code"),
    [("2015-02-30", "bad_date"), ("14/03/2015", "bad_date"), ("20150314", "bad_date"), ("2029-01-01", "date_in_future"),
     ("1899-12-31", "date_too_early")],
)  # fmt: skip
def test_a_date_of_birth_that_can_not_be_is_left_out_and_the_child_is_not(written: str, code: str) -> None:
    made = standard(date_of_birth=[written])
    assert [(row, finding.code, finding.severity) for row, finding in made.findings] == [(0, code, "warning")]
    assert written not in made.findings[0][1].hint
    assert (made.people["date_of_birth"].to_pylist(), made.birth_year.to_pylist()) == ([None], [None])
    assert made.default_dob.all()  # flagged


def test_of_those_long_grown_up_only_the_decade_is_told() -> None:
    assert [only(date_of_birth=f"{year}-03-14")["birth_year"] for year in (2017, 2002, 2001, 1989)] == [
        2017, 2002, 2000, 1980,
    ]  # fmt: skip
    assert only(date_of_birth="1989-03-14")["date_of_birth"] == "19890314"  # what is encoded is the whole date


def test_an_unborn_childs_expected_date_is_not_a_date_of_birth() -> None:
    row = only(date_of_birth="2027-02-01")
    assert (row["date_of_birth"], row["flags"][0], row["codes"]) == (None, True, ["expected_date"])


def test_labelled_sets_from_other_centuries_and_countries_are_read() -> None:
    row = only(Rules(earliest_year=None, uk_postcodes=False), date_of_birth="1762-05-01", postcode="2600")
    assert (row["date_of_birth"], row["postcode"]) == ("17620501", "2600")


def test_the_first_of_january_1900_is_a_sentinel() -> None:
    row = only(date_of_birth="1900-01-01")
    assert (row["date_of_birth"], row["birth_year"], row["flags"][0]) == (None, None, True)


@pytest.mark.parametrize("quality", ["month", "year", "default", None])
def test_the_first_of_january_counts_only_if_its_quality_is_full(quality: str | None) -> None:
    assert only(date_of_birth="2008-01-01", dob_quality=quality)["date_of_birth"] is None
    assert only(date_of_birth="2008-01-01", dob_quality="full")["date_of_birth"] == "20080101"
    assert only(date_of_birth="2008-01-01")["date_of_birth"] == "20080101"


def test_a_declared_default_date_is_missing() -> None:
    row = only(Rules(default_dates=frozenset({"01-01"})), date_of_birth="2008-01-01")
    assert (row["date_of_birth"], row["birth_year"], row["flags"][0]) == (None, 2008, True)


def january(days: int, of: int) -> pa.Table:
    dates = ["2008-01-01"] * days + [f"20{n % 20:02}-03-{n % 27 + 1:02}" for n in range(of - days)]
    return pa.table({"date_of_birth": dates})


def test_too_many_first_of_january_stop_an_extract_that_declares_nothing() -> None:
    with pytest.raises(AmbiguousDates, match=r"persons\.default_date = \[\"01-01\"\]"):
        standardise.share_on_1_january(january(11, 1000), Rules())
    standardise.share_on_1_january(january(10, 1000), Rules())
    standardise.share_on_1_january(january(500, 1000), Rules(default_dates=frozenset({"01-01"})))
    declared = january(500, 1000).append_column("dob_quality", pa.array(["full"] * 1000))
    standardise.share_on_1_january(declared, Rules())


def test_a_form_never_depends_on_the_rest_of_the_extract() -> None:
    alone = only(given_name="Zoë", date_of_birth="2008-01-01", postcode="SW1A 1AA")
    among = standard(given_name=["Zoë", "Ann"], date_of_birth=["2008-01-01"] * 2, postcode=["SW1A 1AA", None])
    assert among.people.to_pylist()[0] == {name: alone[name] for name in among.people.column_names}


def test_pseudo_postcodes_and_the_agencys_own_offices_are_missing() -> None:
    rules = Rules(not_postcodes=frozenset({"NO1 1AA"}))
    assert only(rules, postcode="ZZ99 3VZ")["postcode"] is None
    assert only(rules, postcode="no11aa")["postcode"] is None
    assert only(rules, postcode="NO1 1AB")["postcode"] == "no11ab"
    assert only(rules, postcode="Flat 2")["codes"] == ["bad_form"]


def test_a_bad_identifier_is_missing_flagged_and_a_warning() -> None:
    row = only(nhs_number="9434765910", upn="B801200005001")
    assert (row["nhs_number"], row["upn"], row["flags"][2], row["codes"]) == (
        None,
        "B801200005001",
        True,
        ["bad_check_digit"],
    )
    assert only(nhs_number="not known")["flags"][2] is False


@pytest.mark.parametrize(
    ("written", "kept"), [("F", "F"), ("male", "M"), ("1", "M"), ("2", "F"), ("9", "I"), ("U", None), (None, None)]
)
def test_sex_is_one_of_our_codes(written: str | None, kept: str | None) -> None:
    assert only(sex=written)["sex"] == kept


def test_a_sex_that_is_not_known_here_is_a_warning() -> None:
    assert only(sex="Q")["codes"] == ["unknown_value"]


def test_check_person_names_the_fields_that_can_not_be_used() -> None:
    person = Person(given_name="Zoë", date_of_birth="2015-13-14", nhs_number="123", postcode="SW1A")
    found = standardise.check_person(person, today=TODAY)
    assert sorted((finding.field, finding.code) for finding in found) == [
        ("date_of_birth", "bad_date"), ("nhs_number", "bad_form"), ("postcode", "bad_form"),
    ]  # fmt: skip
    assert "Zo" not in repr(person)


@given(st.text(max_size=40))
def test_standard_forms_are_stable(text: str) -> None:
    """Property: standardising what is standard changes nothing."""
    for make in (standardise.given_name, standardise.family_name, standardise.postcode, standardise.foreign_postcode):
        value = make(text).value
        if value is not None and value not in standardise.NOT_VALUES:
            assert make(value).value == value
            assert value.isascii()
            assert value.isalnum()
            assert value == value.lower()


@given(st.text(max_size=40))
def test_soundex_is_a_letter_and_three_digits_or_nothing(text: str) -> None:
    code = standardise.soundex(standardise.comparable(text))
    assert code is None or (len(code) == 4 and code[0].isalpha() and code[1:].isdigit())

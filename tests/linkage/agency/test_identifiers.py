"""Every rule and every test value of the identifiers that an agency sends, and the traps beside them."""

import ast
import inspect
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.gb import nhs as stdnum_nhs

from linkage.agency import identifiers
from linkage.agency.identifiers import Checked

digits = st.integers(0, 9)
TREE = ast.parse(inspect.getsource(identifiers))
CONSTANTS = {node.value for node in ast.walk(TREE) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize("number", ["943 476 5919", "943-476-5870", "9434765919", " 987 654 3210 "])
def test_a_valid_nhs_number_is_ten_digits_however_it_is_grouped(number: str) -> None:
    checked = identifiers.nhs_number(number)
    assert checked.value == "".join(filter(str.isdigit, number))
    assert checked.code == ""


@pytest.mark.parametrize("number", ["9990000018", "9990000026", "9990123454", "9993456780"])
def test_the_999_range_is_kept_with_a_warning(number: str) -> None:
    assert identifiers.nhs_number(number) == Checked(
        value=number, code="test_range", hint="the 999 range is never issued: is this test data?"
    )


@pytest.mark.parametrize("stem", ["999000000", "999123456"])
def test_a_stem_whose_check_digit_would_be_ten_has_no_valid_number(stem: str) -> None:
    assert all(identifiers.nhs_number(f"{stem}{digit}").value is None for digit in range(10))


def test_the_number_that_an_encyclopaedia_quotes_fails() -> None:
    assert identifiers.nhs_number("987 654 4321").bad


@pytest.mark.parametrize("number", ["0000000000", "9999999999", "000 000 0000"])
def test_all_zeros_and_all_nines_stand_for_missing(number: str) -> None:
    for check in (identifiers.nhs_number, identifiers.uln):
        assert check(number).sentinel
        assert check(number).bad


@pytest.mark.parametrize("number", ["943476591", "94347659190", "943476591X", "٩٤٣٤٧٦٥٩١", "+943476591"])
def test_what_is_not_ten_digits_is_no_nhs_number(number: str) -> None:
    assert identifiers.nhs_number(number).code == "bad_form"


@pytest.mark.parametrize("upn", ["B801200005001", "P207000016049", "p207000016049 "])
def test_a_valid_upn_is_kept_in_capitals(upn: str) -> None:
    assert identifiers.upn(upn) == Checked(value=upn.strip().upper())


def test_the_upn_that_two_suppliers_mis_added_fails() -> None:
    assert identifiers.upn("Q207000016049").code == "bad_check_digit"


def test_a_temporary_upn_is_valid_and_carries_no_weight() -> None:
    checked = identifiers.upn("H82329901900A")
    assert (checked.value, checked.code, checked.bad) == (None, "temporary_upn", False)
    assert identifiers.upn("H82329901900B").code == "bad_check_digit"


def a_upn(body: str) -> str:
    return identifiers.UPN_LETTERS[sum(int(d) * w for w, d in enumerate(body, 2)) % 23] + body


@pytest.mark.parametrize("authority", [838, 839, 940, 943, 660, 681, 1, 705])
def test_authorities_newer_than_other_validators_and_welsh_ones_are_known(authority: int) -> None:
    assert identifiers.upn(a_upn(f"{authority:03}200005001")).code == ""


def test_an_unknown_authority_is_a_warning_only() -> None:
    upn = a_upn("999200005001")
    checked = identifiers.upn(upn)
    assert (checked.value, checked.code, checked.bad) == (upn, "unknown_authority", False)


@pytest.mark.parametrize("letter", "IOS")
def test_a_upn_never_starts_with_a_letter_that_looks_like_a_digit(letter: str) -> None:
    assert identifiers.upn(f"{letter}801200005001").code == "bad_form"


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("1979/0163001B", "1979/0163001B"),
        ("79/163001B", "1979/0163001B"),
        ("19790163001B", "1979/0163001B"),
        ("2002/0073319Z", "2002/0073319Z"),
        ("02/73319z", "2002/0073319Z"),
        ("2000/0000223R", "2000/0000223R"),
        ("00/223R", "2000/0000223R"),
    ],
)
def test_a_pnc_id_is_brought_to_its_long_form(typed: str, canonical: str) -> None:
    assert identifiers.pnc_id(typed) == Checked(value=canonical)


def test_a_pnc_id_with_a_wrong_letter_fails() -> None:
    assert identifiers.pnc_id("2003/0011985Z").code == "bad_check_digit"


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("065656/91H", "065656/91H"),
        ("65656/91h", "065656/91H"),
        ("SF05/482703J", "SF05/482703J"),
        ("SF83/50058Z", "SF83/50058Z"),
    ],
)
def test_a_cro_number_is_padded_unless_it_is_of_a_search_file(typed: str, canonical: str) -> None:
    assert identifiers.cro(typed) == Checked(value=canonical)


def test_a_search_file_number_is_checked_as_it_stands() -> None:
    assert identifiers.cro("SF83/050058Z").code == "bad_check_digit"  # 83 and 050058, not 83 and 50058


def test_a_valid_uln_has_remainder_ten() -> None:
    assert identifiers.uln("9276308686") == Checked(value="9276308686")
    assert identifiers.uln("0276308686").code == "bad_form"


def test_swapped_nhs_and_uln_columns_are_seen_from_either_side() -> None:
    assert identifiers.nhs_number("9276308686").code == "looks_like_uln"
    assert identifiers.uln("9434765919").code == "looks_like_nhs_number"


def test_a_uprn_is_padded_for_joins_and_has_no_check() -> None:
    assert identifiers.uprn("100023336956").value == "100023336956"
    assert identifiers.uprn("23336956").value == "000023336956"
    assert identifiers.uprn("1000233369567").code == "bad_form"
    assert identifiers.uprn("0").sentinel


@pytest.mark.parametrize(
    ("typed", "canonical"), [("sw1a 1aa", "SW1A1AA"), ("M1 1AE", "M11AE"), ("B338TH", "B338TH"), ("gir 0aa", "GIR0AA")]
)
def test_a_postcode_is_normalised_in_case_and_space(typed: str, canonical: str) -> None:
    assert identifiers.postcode(typed) == Checked(value=canonical)


@pytest.mark.parametrize("typed", ["ZZ99 3VZ", "zz993wz", "ZZ99 3CZ"])
def test_a_pseudo_postcode_stands_for_missing(typed: str) -> None:
    assert identifiers.postcode(typed).sentinel


@pytest.mark.parametrize("typed", ["SW1A", "SW1A 1A", "1AA SW1", "not known"])
def test_half_a_postcode_is_none(typed: str) -> None:
    assert identifiers.postcode(typed).code == "bad_form"


def test_identifiers_without_a_check_have_a_form() -> None:
    assert identifiers.urn("123456")
    assert not identifiers.urn("12345")
    assert identifiers.laestab("801/2000")
    assert identifiers.laestab("8012000")
    assert identifiers.ukprn("10001234")
    assert not identifiers.ukprn("20001234")
    assert all(identifiers.ods_code(code) for code in ("RTH", "RTH08", "K84001", "A1B2C"))


@given(st.lists(digits, min_size=9, max_size=9), st.integers(0, 9), st.integers(1, 9))
def test_any_changed_digit_of_an_nhs_number_is_caught(stem: list[int], place: int, change: int) -> None:
    body = "".join(map(str, stem))
    check = 11 - sum(int(d) * w for d, w in zip(body, range(10, 1, -1), strict=True)) % 11
    if check == 10 or set(body) <= {"0"} or set(body) <= {"9"}:
        return
    number = body + str(0 if check == 11 else check)
    assert identifiers.nhs_number(number).value == number
    assert stdnum_nhs.is_valid(number)
    changed = number[:place] + str((int(number[place]) + change) % 10) + number[place + 1 :]
    assert identifiers.nhs_number(changed).value is None


@given(st.text("0123456789", min_size=10, max_size=10))
def test_an_independent_validator_agrees_on_nhs_numbers(number: str) -> None:
    if not (set(number) <= {"0"} or set(number) <= {"9"}):
        assert (identifiers.nhs_number(number).value is not None) == stdnum_nhs.is_valid(number)


@given(st.text("0123456789", min_size=12, max_size=12), st.integers(0, 11), st.integers(1, 9))
def test_any_changed_digit_of_a_upn_is_caught(body: str, place: int, change: int) -> None:
    upn = a_upn(body)  # weights 2..13 and changes 1..9 have no factor 23, so the sum mod 23 must differ
    assert identifiers.upn(upn).value == upn
    changed = upn[: place + 1] + str((int(upn[place + 1]) + change) % 10) + upn[place + 2 :]
    assert identifiers.upn(changed).code == "bad_check_digit"


@given(st.text("0123456789", min_size=9, max_size=9))
def test_exactly_one_letter_fits_a_pnc_id(number: str) -> None:
    fits = [
        letter for letter in identifiers.PNC_LETTERS if identifiers.pnc_id(f"19{number[:2]}/{number[2:]}{letter}").value
    ]
    assert len(fits) == 1


@given(st.text(max_size=30))
@pytest.mark.parametrize("check", [*identifiers.CHECKS.values(), identifiers.uprn, identifiers.postcode])
def test_no_check_raises_or_repeats_what_it_was_given(check: Callable[[str], Checked], text: str) -> None:
    checked = check(text)
    assert checked.hint in CONSTANTS  # whatever was given
    if checked.value is not None:
        assert check(checked.value).value == checked.value

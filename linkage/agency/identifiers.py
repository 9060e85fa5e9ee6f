"""Identifiers, checked by their own rules and brought to one canonical form.

A check that fails is never guessed at: the value becomes missing and the row is flagged.  A range that is merely
unusual (an NHS number's region, a UPN's authority) is a warning, as published lists disagree and grow.  No message
holds the value.

Sources: NHS Data Dictionary; DfE UPN guide and govtalk UPN 2.0; MoJ hmpps-person-record (PNC, CRO); HESA (ULN);
OS AddressBase (UPRN).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from nhs_number.constants import REGION_UNALLOCATED
from nhs_number.validate import calculate_checksum, is_valid


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came of a check: the canonical form or None, and what is wrong or unusual, if anything.

    `sentinel`: it only stood for a missing value.  `bad`: it was meant as a value and fails, or stands for none.
    """

    value: str | None
    code: str = ""
    hint: str = ""
    sentinel: bool = False

    @property
    def bad(self) -> bool:
        return self.value is None and self.code != TEMPORARY


TEMPORARY: Final = "temporary_upn"
UPN_LETTERS: Final = "ABCDEFGHJKLMNPQRTUVWXYZ"  # no I, O, S
PNC_LETTERS: Final = "ZABCDEFGHJKLMNPQRTUVWXY"
PNC_PIVOT: Final = 50  # a short PNC's year 50..99 is of the 1900s, 00..49 of the 2000s

_AUTHORITIES: Final = (
    (1, 5), (201, 213), (301, 320), (330, 336), (340, 344), (350, 359), (370, 373), (380, 384), (390, 394), (420, 420),
    (660, 681), (701, 708), (800, 896), (908, 943),
)  # fmt: skip
"""Ranges in which local authority codes of England and Wales lie, 838-839 and 940-943 (newer) included."""

_PNC: Final = re.compile(r"(?:(\d{4}|\d{2})/(\d{1,7})|(\d{4}|\d{2})(\d{7}))([A-Z])")
_CRO: Final = re.compile(r"(\d{1,6})/(\d{2})([A-Z])")
_CRO_SEARCH_FILE: Final = re.compile(r"SF(\d{2})/(\d{1,6})([A-Z])")
_POSTCODE: Final = re.compile(r"([A-Z]{1,2}\d[A-Z\d]?)(\d[A-Z]{2})")
_PSEUDO_AREAS: Final = ("ZZ", "XX", "QQ", "NF")  # no such postcode areas: no fixed abode, abroad, not known


def nhs_number(text: str) -> Checked:
    """Ten digits; modulus 11 with weights 10..2, where a check digit of 10 is invalid; range is a warning only.

    >>> nhs_number("943 476 5919").value
    '9434765919'
    >>> nhs_number("943 476 5917").code
    'bad_check_digit'
    """
    digits = _digits(text)
    if sentinel := _stands_for_missing(digits):
        return sentinel
    if not re.fullmatch(r"\d{10}", digits, re.ASCII):
        return Checked(value=None, code="bad_form", hint="an NHS number has 10 digits")
    if calculate_checksum(digits[:9]) != int(digits[9]):
        return _not_nhs_number(digits)
    if digits.startswith("999"):
        return Checked(value=digits, code="test_range", hint="the 999 range is never issued: is this test data?")
    if not is_valid(digits) or REGION_UNALLOCATED.contains_number(digits):  # type: ignore[no-untyped-call]
        return Checked(value=digits, code="unusual_range", hint="its range is not one issued today: compare")
    return Checked(value=digits)


def upn(text: str) -> Checked:
    """A check letter, authority (3), establishment (4), year (2), serial (3); a temporary one ends in a letter.

    The check letter is that of the sum of values by weights 2..13, mod 23.  A temporary UPN is valid but not unique,
    so it carries no weight: its value is None.

    >>> upn("B801200005001").value, upn("P207000016049").value
    ('B801200005001', 'P207000016049')
    """
    kept = _capitals(text)
    if sentinel := _stands_for_missing(kept):
        return sentinel
    if not re.fullmatch(rf"[{UPN_LETTERS}]\d{{11}}[\d{UPN_LETTERS}]", kept, re.ASCII):
        return Checked(value=None, code="bad_form", hint="a UPN is a letter (never I, O, S) and 12 digits")
    values = [UPN_LETTERS.index(sign) if sign in UPN_LETTERS else int(sign) for sign in kept[1:]]
    if UPN_LETTERS[sum(value * weight for weight, value in enumerate(values, 2)) % 23] != kept[0]:
        return Checked(value=None, code="bad_check_digit", hint="its check letter is wrong: compare with the source")
    if not kept[-1].isdigit():
        return Checked(value=None, code=TEMPORARY, hint="a temporary UPN can't link records; send the permanent one")
    if not any(low <= int(kept[1:4]) <= high for low, high in _AUTHORITIES):
        return Checked(value=kept, code="unknown_authority", hint="its local authority code is not one known here")
    return Checked(value=kept)


def pnc_id(text: str) -> Checked:
    """`YYYY/NNNNNNNX`, or short `YY/N..NX`, to the long form; X is the letter of (YY, 7-digit serial) mod 23.

    >>> pnc_id("79/163001B").value
    '1979/0163001B'
    """
    kept = _capitals(text)
    if sentinel := _stands_for_missing(kept):
        return sentinel
    found = _PNC.fullmatch(kept)
    if not found:
        return Checked(value=None, code="bad_form", hint="a PNC ID looks like 1979/0163001B or 79/163001B")
    year = found[1] or found[3]
    serial = (found[2] or found[4]).zfill(7)
    if PNC_LETTERS[int(year[-2:] + serial) % 23] != found[5]:
        return Checked(value=None, code="bad_check_digit", hint="its check letter is wrong: compare with the source")
    if len(year) == 2:
        year = ("19" if int(year) >= PNC_PIVOT else "20") + year
    return Checked(value=f"{year}/{serial}{found[5]}")


def cro(text: str) -> Checked:
    """`NNNNNN/YYX`, serial padded to six, or `SFYY/N..X`, unpadded; the letter as for a PNC ID.

    >>> cro("65656/91H").value, cro("SF83/50058Z").value
    ('065656/91H', 'SF83/50058Z')
    """
    kept = _capitals(text)
    if sentinel := _stands_for_missing(kept):
        return sentinel
    if found := _CRO_SEARCH_FILE.fullmatch(kept):
        year, serial, letter = found.groups()
        canonical = f"SF{year}/{serial}{letter}"
    elif found := _CRO.fullmatch(kept):
        serial, year, letter = found.groups()
        serial = serial.zfill(6)
        canonical = f"{serial}/{year}{letter}"
    else:
        return Checked(value=None, code="bad_form", hint="a CRO number looks like 065656/91H or SF05/482703J")
    if PNC_LETTERS[int(year + serial) % 23] != letter:
        return Checked(value=None, code="bad_check_digit", hint="its check letter is wrong: compare with the source")
    return Checked(value=canonical)


def uln(text: str) -> Checked:
    """Ten digits, the first not zero; sum by weights 10..1 mod 11 is 10 (an NHS number's is 0: a swap is seen).

    >>> uln("9276308686").value
    '9276308686'
    """
    digits = _digits(text)
    if sentinel := _stands_for_missing(digits):
        return sentinel
    if not re.fullmatch(r"[1-9]\d{9}", digits, re.ASCII):
        return Checked(value=None, code="bad_form", hint="a ULN has 10 digits and does not start with 0")
    remainder = _uln_remainder(digits)
    if remainder == 0:
        hint = "it is a valid NHS number: are the ULN and NHS number columns swapped?"
        return Checked(value=None, code="looks_like_nhs_number", hint=hint)
    if remainder != 10:
        return Checked(value=None, code="bad_check_digit", hint="its check digit is wrong: compare with the source")
    return Checked(value=digits)


def uprn(text: str) -> Checked:
    """A whole number of at most 12 digits, padded to 12; it has no check digit.

    >>> uprn("100023336956").value, uprn("10023").value
    ('100023336956', '000000010023')
    """
    digits = _digits(text)
    if not digits.strip("0"):
        return Checked(value=None, code="sentinel", hint="this stands for a missing value", sentinel=True)
    if not re.fullmatch(r"\d{1,12}", digits, re.ASCII):
        return Checked(value=None, code="bad_form", hint="a UPRN is a whole number of at most 12 digits")
    return Checked(value=digits.zfill(12))


def postcode(text: str) -> Checked:
    """Outward and inward part (`9AA`), capitals, no space.  Pseudo postcodes such as ZZ99 3VZ stand for missing.

    >>> postcode("sw1a 1aa").value, postcode("ZZ99 3VZ").sentinel
    ('SW1A1AA', True)
    """
    kept = re.sub(r"[^A-Z0-9]", "", unicodedata.normalize("NFKC", text).upper())
    if kept.startswith(_PSEUDO_AREAS):
        return Checked(value=None, code="sentinel", hint="a pseudo postcode carries no weight", sentinel=True)
    if kept != "GIR0AA" and not _POSTCODE.fullmatch(kept):
        return Checked(value=None, code="bad_form", hint="a full UK postcode such as SW1A 1AA is due")
    return Checked(value=kept)


def urn(text: str) -> bool:
    """Whether `text` has the form of a school's URN: six digits; there is no check digit."""
    return re.fullmatch(r"\d{6}", text, re.ASCII) is not None


def laestab(text: str) -> bool:
    """Whether `text` has the form of an authority and establishment number: 3 + 4 digits, with or without a slash."""
    return re.fullmatch(r"\d{3}/?\d{4}", text, re.ASCII) is not None


def ukprn(text: str) -> bool:
    """Whether `text` has the form of a provider's number: eight digits, the first 1."""
    return re.fullmatch(r"1\d{7}", text, re.ASCII) is not None


def ods_code(text: str) -> bool:
    """Whether `text` has the form of an NHS body's code: trust (3), site (5), GP (letter and five digits), or ANANA."""
    return re.fullmatch(r"[A-Z0-9]{3}|[A-Z0-9]{5}|[A-Z]\d{5}", text, re.ASCII) is not None


CHECKS: Final[Mapping[str, Callable[[str], Checked]]] = {
    "nhs_number": nhs_number,
    "superseded_nhs_number": nhs_number,
    "upn": upn,
    "former_upn": upn,
    "pnc_id": pnc_id,
    "cro": cro,
    "uln": uln,
}
"""The check of each identifier field of an extract."""


def _not_nhs_number(digits: str) -> Checked:
    if _uln_remainder(digits) == 10 and digits[0] != "0":
        hint = "it is a valid ULN: are the ULN and NHS number columns swapped?"
        return Checked(value=None, code="looks_like_uln", hint=hint)
    return Checked(value=None, code="bad_check_digit", hint="its check digit is wrong: compare with the source")


def _uln_remainder(digits: str) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, range(10, 0, -1), strict=True)) % 11


def _digits(text: str) -> str:
    """Without the blanks and hyphens that people group digits with."""
    return re.sub(r"[\s-]", "", unicodedata.normalize("NFKC", text))


def _capitals(text: str) -> str:
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text).upper())


def _stands_for_missing(kept: str) -> Checked | None:
    signs = set(kept) - {"/"}
    if signs <= {"0"} or signs <= {"9"}:
        return Checked(value=None, code="sentinel", hint="this stands for a missing value", sentinel=True)
    return None

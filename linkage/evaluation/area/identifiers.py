"""Identifiers that pass their check and were never anyone's (rules: domain.md section 5).

NHS numbers come from 900 000 0000 to 999 999 9999, "not to be issued: synthetic and test patients" (`nhs-number`).
UPNs bear the LA code 420 (Isles of Scilly, a known code with a single school) and establishments that it never had.
PNC IDs and CRO numbers bear serials above those in use.  Each function gives distinct numbers, spread over its range by
an affine step, so that neighbours in the register have nothing in common; twins get theirs one after another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Longs = npt.NDArray[np.int64]
UPN_LETTERS: Final = "ABCDEFGHJKLMNPQRTUVWXYZ"
PNC_LETTERS: Final = "ZABCDEFGHJKLMNPQRTUVWXY"
LA: Final = 420
_STEP: Final = 314_159_269  # coprime to the ranges below


def nhs_numbers(count: int, offset: int) -> Longs:
    """`count` distinct valid NHS numbers.  One stem in eleven has no check digit and is skipped."""
    tries = int(count * 1.12) + 50
    stems = 900_000_000 + ((np.arange(tries, dtype=np.int64) + offset * 7_919) * _STEP) % 100_000_000
    digits = stems[:, None] // 10 ** np.arange(8, -1, -1, dtype=np.int64) % 10
    check = (11 - digits @ np.arange(10, 1, -1, dtype=np.int64) % 11) % 11
    return (stems * 10 + check)[check < 10][:count]


def broken_nhs_numbers(numbers: Longs) -> Longs:
    """The same numbers mistyped in the last digit: they fail their check."""
    return numbers - numbers % 10 + (numbers % 10 + 1) % 10


def upns(schools: Longs, years: Longs, serials: Longs, *, temporary: npt.NDArray[np.bool_]) -> pa.Array:
    """UPNs by establishment (four digits), two-digit year and serial (three digits; two and a letter if temporary)."""
    stem = (LA * 10**4 + schools) * 10**5 + (years % 100) * 1000
    last = np.where(temporary, serials % 100, serials)
    body = stem + np.where(temporary, last * 10, last)
    weights = np.arange(2, 14, dtype=np.int64)
    digits = body[:, None] // 10 ** np.arange(11, -1, -1, dtype=np.int64) % 10
    suffix = serials // 100 % 23
    digits[:, -1] = np.where(temporary, suffix, digits[:, -1])
    check = digits @ weights % 23
    text = _padded(body, 12)
    final = pa.array(list(UPN_LETTERS)).take(pa.array(suffix))
    text = pc.if_else(
        pa.array(temporary), pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, 11), final, ""), text
    )
    return pc.binary_join_element_wise(pa.array(list(UPN_LETTERS)).take(pa.array(check)), text, "")


def ulns(count: int, offset: int) -> Longs:
    """Distinct valid ULNs: ten digits, weights 10..1, sum mod 11 is 10."""
    tries = int(count * 1.12) + 50
    stems = 100_000_000 + ((np.arange(tries, dtype=np.int64) + offset * 104_729) * _STEP) % 800_000_000
    digits = stems[:, None] // 10 ** np.arange(8, -1, -1, dtype=np.int64) % 10
    check = (10 - digits @ np.arange(10, 1, -1, dtype=np.int64)) % 11
    return (stems * 10 + check)[check < 10][:count]


def pnc_ids(years: Longs, serials: Longs) -> list[str]:
    """`YYYY/NNNNNNNX`, long form."""
    letters = (years % 100 * 10**7 + serials) % 23
    return [
        f"{year:04d}/{serial:07d}{PNC_LETTERS[letter]}"
        for year, serial, letter in zip(years.tolist(), serials.tolist(), letters.tolist(), strict=True)
    ]


def cro_numbers(years: Longs, serials: Longs) -> list[str]:
    """`NNNNNN/YYX`."""
    letters = (years % 100 * 10**6 + serials) % 23
    return [
        f"{serial:06d}/{year % 100:02d}{PNC_LETTERS[letter]}"
        for year, serial, letter in zip(years.tolist(), serials.tolist(), letters.tolist(), strict=True)
    ]


def _padded(numbers: Longs, width: int) -> pa.Array:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")

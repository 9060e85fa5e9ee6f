"""Encodings: byte for byte as published, as a slow and literal reading of the specification, and free of what leaks."""

import base64
import hashlib
import hmac
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linkage.agency import encode
from linkage.agency.encode import encode_people, encode_row, household_token
from linkage.agency.keys import LinkageKeys, token
from linkage.agency.people import STANDARD_SCHEMA, Person
from linkage.records import FILTERS, IDENTIFIERS, TOKENS, Profile, persons_schema

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "encoding-guarded-2.json").read_text())
KEYS = LinkageKeys(bytes.fromhex(VECTORS["link_key"]), partnership=VECTORS["partnership"], epoch=VECTORS["epoch"])
TODAY = date(2026, 11, 22)


def people(*rows: dict[str, str | None]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=STANDARD_SCHEMA)


def encoded(*rows: dict[str, str | None], profile: Profile = "guarded-2", agency: str = "") -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = encode_people(people(*rows), KEYS, profile, agency=agency).to_pylist()
    return made


def words(row: dict[str, Any], name: str) -> bytes | None:
    if row[f"{name}_w0"] is None:
        assert all(row[f"{name}_{end}"] is None for end in ("w7", "n"))
        return None
    return np.array([row[f"{name}_w{at}"] for at in range(8)], "<i8").tobytes()


# --- The published answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS["filters"])
def test_a_filter_is_as_published(name: str) -> None:
    row = encoded(VECTORS["person"])[0]
    expected = VECTORS["filters"][name]
    filter_bytes = words(row, name)
    assert filter_bytes is not None
    assert hashlib.sha256(filter_bytes).hexdigest()[:16] == expected["sha256"]
    assert (row[f"{name}_n"], row[f"{name}_w0"]) == (expected["popcount"], expected["w0"])


@pytest.mark.parametrize("name", VECTORS["tokens"])
def test_a_token_is_as_published(name: str) -> None:
    assert encoded(VECTORS["person"])[0][f"t_{name}"] == VECTORS["tokens"][name]


def test_what_is_typed_in_a_search_gives_the_published_bytes_too() -> None:
    row = encode_row(Person(**VECTORS["typed"]), KEYS, today=TODAY)
    for name, expected in VECTORS["filters"].items():
        assert hashlib.sha256(base64.b64decode(row["filters"][name])).hexdigest()[:16] == expected["sha256"]
    for name, expected in VECTORS["tokens"].items():
        assert row["tokens"][name] == str(expected)
    assert set(row["filters"]) == set(FILTERS["guarded-2"])
    assert set(row["tokens"]) == set(TOKENS["guarded-2"])
    assert (row["birth_year"], row["sex"], row["identifiers"]) == (2015, None, {})


# --- A slow and literal reading of linkage.md 1.3 to 1.5 ---------------------------------------------------------------


def slow_base(value: str, salt: str, field: str, profile: Profile) -> set[int]:
    if field == "date_of_birth":
        grams = {f"{place}{digit}" for place, digit in enumerate(value)}
    else:
        framed = f"_{value}_"
        grams = {framed[at] + framed[at + 1] for at in range(len(framed) - 1)}
    bits: set[int] = set()
    for gram in grams:
        d = hmac.new(KEYS.key(f"{field}/gram", profile), salt.encode() + b"\x1f" + gram.encode(), "sha512").digest()
        bits |= {int.from_bytes(d[2 * at : 2 * at + 2], "little") % 512 for at in range(10)}
    return bits


def slow_filter(value: str, salt: str, field: str, profile: Profile) -> bytes:
    base = slow_base(value, salt, field, profile)
    out = bytearray(64)
    for j in range(512):
        taken: list[int] = []
        n = 0
        while len(taken) < 10:
            d = hmac.new(KEYS.key(f"{field}/diff", profile), f"{j}/{n}".encode(), "sha512").digest()
            for at in range(32):
                position = int.from_bytes(d[2 * at : 2 * at + 2], "little") % 512
                if position not in taken and len(taken) < 10:
                    taken.append(position)
            n += 1
        if sum(position in base for position in taken) % 2:
            out[j // 64 * 8 + j % 64 // 8] |= 1 << (j % 8)  # little-endian words: bit p of word p div 64
    return bytes(out)


def test_the_slow_reading_gives_the_published_bits_before_diffusion() -> None:
    expected = VECTORS["before_diffusion"]["given_d"]
    bits = slow_base("zoe", "D20150314", "given_name", "guarded-2")
    packed = sum(1 << bit for bit in bits).to_bytes(64, "little")
    assert len(bits) == expected["popcount"]
    assert int.from_bytes(packed[:8], "little", signed=True) == expected["w0"]
    assert hashlib.sha256(packed).hexdigest()[:16] == expected["sha256"]


names = st.one_of(
    st.none(),
    st.text("abcdeéoz'-19", min_size=1, max_size=9).map(
        lambda t: "".join(filter(str.isalnum, t)).replace("é", "e") or None
    ),
)
days = st.one_of(st.none(), st.dates(date(1900, 1, 2), TODAY).map(lambda day: day.strftime("%Y%m%d")))
places = st.one_of(st.none(), st.sampled_from(["sw1a1aa", "m11ae", "b338th"]))
rows = st.fixed_dictionaries(
    {
        "given_name": names,
        "family_name": names,
        "date_of_birth": days,
        "postcode": places,
        "nhs_number": st.sampled_from([None, "9434765919"]),
    }
)


@settings(deadline=None, max_examples=12)
@given(st.lists(rows, min_size=1, max_size=4), st.sampled_from(["guarded-2", "accurate-2"]))
def test_the_fast_encoder_is_the_slow_one(batch: list[dict[str, str | None]], profile: Profile) -> None:
    """Property: vectorised work over distinct values gives what each row gives alone, literally computed."""
    salted = profile == "guarded-2"
    for person, row in zip(batch, encoded(*batch, profile=profile), strict=True):
        given, family, day, place = (
            person[name] for name in ("given_name", "family_name", "date_of_birth", "postcode")
        )
        plan: dict[str, tuple[str | None, str | None, str]] = {
            "dob": (day, "", "date_of_birth"),
            "postcode": (place, "", "postcode"),
        }
        for field, name, value in (("given_name", "given", given), ("family_name", "family", family)):
            if salted:
                plan[f"{name}_d"] = (value, day and f"D{day}", field)
                plan[f"{name}_p"] = (value, place and f"P{place}", field)
            else:
                plan[name] = (value, "", field)
        assert set(plan) == set(FILTERS[profile])
        for name, (value, salt, field) in plan.items():
            expected = None if value is None or salt is None else slow_filter(value, salt, field, profile)
            assert words(row, name) == expected
            if expected is not None:
                assert row[f"{name}_n"] == int.from_bytes(expected, "little").bit_count()


def slow_token(label: str, *parts: str | None, profile: Profile = "guarded-2") -> int | None:
    if any(part is None for part in parts):
        return None
    message = b"\x1f".join(part.encode() for part in parts if part is not None)
    return int.from_bytes(hmac.new(KEYS.key(label, profile), message, "sha256").digest()[:8], "little", signed=True)


@pytest.mark.parametrize("profile", ["guarded-2", "accurate-2"])
def test_every_token_is_of_its_parts_and_null_without_them(profile: Profile) -> None:
    whole = {"given_name": "zoe", "family_name": "ashcraft", "date_of_birth": "20150314", "postcode": "sw1a1aa"}
    for gone in [None, *whole]:
        person: dict[str, str | None] = {**whole, **({gone: None} if gone else {})}
        given, family, day, place = person.values()
        sounds = (given and "z000", family and "a261")
        year, month_day = (day and day[:4], day and day[4:])
        expected = {
            "given_name_d": (given, day), "given_name_p": (given, place), "family_name_d": (family, day),
            "family_name_p": (family, place), "dob": (day,), "postcode": (place,), "dob_given": (day, sounds[0]),
            "dob_family": (day, sounds[1]), "postcode_given": (place, sounds[0]), "postcode_family": (place, sounds[1]),
            "dob_sector": (day, place and "sw1a1"), "given_name": (given,), "family_name": (family,),
            "soundex_pair": (sounds[1], sounds[0]), "family_year": (sounds[1], year), "given_year": (sounds[0], year),
            "family_daymonth": (sounds[1], month_day), "given_daymonth": (sounds[0], month_day),
            "postcode_given1": (place, given and "z"), "postcode_family1": (place, family and "a"),
        }  # fmt: skip
        row = encoded(person, profile=profile)[0]
        for name in TOKENS[profile]:
            assert row[f"t_{name}"] == slow_token(f"token/{name}", *expected[name], profile=profile), name


def test_each_identifier_has_its_own_key_and_a_replaced_one_that_of_its_successor() -> None:
    row = encoded(
        {"nhs_number": "9434765919", "superseded_nhs_number": "9434765919", "upn": "B801200005001",
         "former_upn": "B801200005001", "uln": "9276308686", "pnc_id": "1979/0163001B", "cro": "065656/91H",
         "local_nominal": "N1"},
        agency="northshire-police",
    )[0]  # fmt: skip
    assert row["id_nhs_number"] == row["id_superseded_nhs_number"] == slow_token("id/nhs_number", "9434765919")
    assert row["id_upn"] == row["id_former_upn"] == slow_token("id/upn", "B801200005001")
    assert row["id_pnc"] == slow_token("id/pnc", "1979/0163001B")
    assert row["id_local"] == slow_token("id/local/northshire-police", "N1")
    assert encoded({"local_nominal": "N1"})[0]["id_local"] is None
    assert len({row[f"id_{name}"] for name in IDENTIFIERS}) == 6
    assert household_token(KEYS, "guarded-2", "100023336956") == slow_token("id/household", "100023336956")


# --- What must not leak ------------------------------------------------------------------------------------------------


def test_without_a_salt_no_name_is_sent_under_guarded() -> None:
    row = encoded({"given_name": "zoe", "family_name": "smith", "nhs_number": "9434765919"})[0]
    assert {name for name, value in row.items() if value is not None} == {"id_nhs_number"}


def test_under_guarded_one_name_gives_nothing_that_two_children_share() -> None:
    one, two = encoded(
        {"given_name": "zoe", "family_name": "smith", "date_of_birth": "20150314", "postcode": "sw1a1aa"},
        {"given_name": "zoe", "family_name": "smith", "date_of_birth": "20160315", "postcode": "m11ae"},
    )
    shared = [name for name in one if one[name] == two[name] and one[name] is not None and not name.endswith("_n")]
    assert shared == []


def test_two_missing_values_have_nothing_in_common() -> None:
    for profile in ("guarded-2", "accurate-2"):
        row = encoded({"given_name": None}, profile=profile)[0]
        assert set(row.values()) == {None}


def test_the_columns_are_those_of_the_wire() -> None:
    for profile in ("guarded-2", "accurate-2"):
        made = encode_people(people(VECTORS["person"]), KEYS, profile)
        wire = persons_schema(profile)
        for field in made.schema:
            assert wire.field(field.name).type == field.type
        assert {name for name in wire.names if name[:2] in ("t_", "id") or "_w" in name or name.endswith("_n")} == set(
            made.column_names
        )


def test_nothing_to_encode_is_encoded_to_nothing() -> None:
    assert encode_people(people(), KEYS).num_rows == 0
    with pytest.raises(ValueError, match="not one of a standard table"):
        encode_people(pa.table({"surname": ["x"]}), KEYS)


def test_blocks_do_not_change_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [{**VECTORS["person"], "given_name": f"zoe{chr(97 + n)}"} for n in range(11)]
    whole = encoded(*batch)
    monkeypatch.setattr(encode, "BLOCK", 3)
    assert encoded(*batch) == whole


def test_precomputed_pads_are_the_same_hmac() -> None:
    for key in (b"k" * 32, b"long" * 60):
        for algorithm in ("sha256", "sha512"):
            made = encode._Hmac(key, algorithm).of_all([b"", b"one", b"x" * 300])
            assert made == [hmac.digest(key, message, algorithm) for message in (b"", b"one", b"x" * 300)]
    assert token(b"k" * 32, "a", "b") == int.from_bytes(
        hmac.digest(b"k" * 32, b"a\x1fb", "sha256")[:8], "little", signed=True
    )

"""Encodings: free of what leaks, the same in whatever pieces they are made, and what the wire takes.

That their bytes are right is tested in test_reference_encoding.py.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linkage.agency import encode
from linkage.agency.columns import Texts, by_row, distinct, soundexes
from linkage.agency.encode import diffused, diffusion, encode_people, terms_of
from linkage.agency.keys import LinkageKeys, token
from linkage.agency.people import STANDARD_SCHEMA
from linkage.agency.prf import Joined, Prf, as_words, cmac
from linkage.agency.standardise import soundex
from linkage.records import FILTERS, IDENTIFIERS, PROFILES, Profile, persons_schema

KEYS = LinkageKeys(bytes(range(32)), partnership="northshire", epoch="2027-1")
ZOE: dict[str, str | None] = {
    "given_name": "zoe",
    "family_name": "smith",
    "date_of_birth": "20150314",
    "postcode": "sw1a1aa",
}


def people(*rows: dict[str, str | None]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=STANDARD_SCHEMA)


def encoded(*rows: dict[str, str | None], profile: Profile = "guarded-3", agency: str = "") -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = encode_people(people(*rows), KEYS, profile, agency=agency).to_pylist()
    return made


# --- The function under all of it ------------------------------------------------------------------------------------

NIST_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
NIST_MESSAGE = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
NIST_MACS = {
    0: "028962f61b7bf89efc6b551f4667d983", 16: "28a7023f452e8f82bd4bf28d8c37c35c",
    40: "aaf3d8f1de5640c232f5b169b9c911e6", 64: "e1992190549f6ed5696a2c056c315410",
}  # fmt: skip
"""NIST SP 800-38B, examples of CMAC with AES-256: message length and MAC."""


def macs(key: bytes, *columns: list[bytes]) -> list[bytes]:
    texts = [Texts.of(pa.array(column, pa.binary())) for column in columns]
    made = Prf(key).of_texts(Joined(texts, [np.arange(len(column)) for column in columns]))
    return [row.tobytes() for row in made]


def test_cmacs_of_a_column_are_those_of_nist() -> None:
    assert macs(NIST_KEY, [NIST_MESSAGE[:size] for size in NIST_MACS]) == [
        bytes.fromhex(mac) for mac in NIST_MACS.values()
    ]


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=300), st.binary(max_size=9)), min_size=1))
def test_the_cmac_of_joined_columns_is_that_of_each_message(rows: list[tuple[bytes, ...]]) -> None:
    made = macs(b"k" * 32, *([row[part] for row in rows] for part in range(3)))
    assert made == [cmac(b"k" * 32, b"\x1f".join(row)) for row in rows]


def test_a_token_is_the_cmac_of_its_parts() -> None:
    assert token(b"k" * 32, "a", "b") == int.from_bytes(cmac(b"k" * 32, b"a\x1fb")[:8], "little", signed=True)


def test_blocks_are_enciphered_one_by_one() -> None:
    """FIPS 197, appendix C.3."""
    key, block = bytes(range(32)), bytes(byte * 0x11 for byte in range(16))
    made = Prf(key).of_blocks(np.frombuffer(block * 3, "<u8").reshape(3, 2))
    assert made.tobytes() == bytes.fromhex("8ea2b7ca516745bfeafc49904b496089") * 3


@given(st.integers(1, 200), st.binary(min_size=32, max_size=32))
def test_sliced_diffusion_is_plain_diffusion(count: int, key: bytes) -> None:
    table = diffusion(b"a key that is always this one...")
    bits = np.random.default_rng(list(key)).integers(0, 2, (count, 512), np.uint8)
    slices = np.zeros((512, -(-count // 64) * 64), np.uint8)
    slices[:, :count] = bits.T
    made = diffused(np.packbits(slices, axis=1, bitorder="little").view("<u8"), terms_of(table))[:, :count]
    plain = np.bitwise_xor.reduce(bits[:, table], axis=2)
    assert made.T.tobytes() == np.packbits(plain, axis=1, bitorder="little").tobytes()


# --- Columns ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.text("abehwcsgdtlmnr019", max_size=9))))
def test_soundexes_of_a_column_are_those_of_each_name(names: list[str | None]) -> None:
    expected = [None if name is None else soundex(name) for name in names]
    for kept in (distinct, by_row):
        made = soundexes(kept(pa.array(names, pa.string())))
        texts = made.texts
        heard = [
            texts.data[texts.starts[one] : texts.starts[one] + texts.lengths[one]].tobytes().decode()
            for one in made.index
        ]
        assert [None if one < 0 else text for one, text in zip(made.index, heard, strict=True)] == expected


@pytest.mark.parametrize(
    ("field", "value"), [("given_name", "zoë"), ("family_name", "Łukasz"), ("date_of_birth", "2015-03-14")]
)
def test_what_is_not_in_standard_form_is_refused_without_being_repeated(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"column '{field}' is not in standard form") as refused:
        encoded({field: value})
    assert value not in str(refused.value)


def test_any_piece_of_a_table_is_encoded_alike() -> None:
    """Slices, several chunks, other string types, null beside text."""
    batch = [{**ZOE, "given_name": name, "upn": name} for name in ("zoe", None, "anna", "zoe", "tom")]
    whole = encoded(*batch)
    table = people(*batch)
    pieces = pa.concat_tables([table.slice(1, 2), table.slice(0, 1), table.slice(3)])
    made = encode_people(
        pieces.slice(1).cast(pa.schema([(name, pa.large_string()) for name in table.schema.names])), KEYS
    )
    assert made.to_pylist() == [whole[at] for at in (2, 0, 3, 4)]


def test_each_identifier_has_its_own_key_and_a_replaced_one_that_of_its_successor() -> None:
    row = encoded(
        {"nhs_number": "1", "superseded_nhs_number": "1", "upn": "1", "former_upn": "1", "uln": "1", "pnc_id": "1",
         "cro": "1", "local_nominal": "1"},
        agency="northshire-police",
    )[0]  # fmt: skip
    assert row["id_nhs_number"] == row["id_superseded_nhs_number"]
    assert row["id_upn"] == row["id_former_upn"]
    assert len({row[f"id_{name}"] for name in IDENTIFIERS}) == 6
    assert row["id_local"] != encoded({"local_nominal": "1"}, agency="northshire-icb")[0]["id_local"]
    assert encoded({"local_nominal": "1"})[0]["id_local"] is None


# --- What must not leak ------------------------------------------------------------------------------------------------


def test_without_a_salt_no_name_is_sent_under_guarded() -> None:
    zoe: dict[str, str | None] = {"given_name": "zoe", "family_name": "smith"}
    (row,) = encoded(zoe)
    assert set(row.values()) == {None}
    (row,) = encoded({**zoe, "nhs_number": "9434765919"})
    salted_by_number = {"t_given_name_n", "t_family_name_n"}
    assert {name for name, value in row.items() if value is not None} == {"id_nhs_number", *salted_by_number}


@pytest.mark.parametrize("alone", [{"date_of_birth": "20150314"}, {"postcode": "sw1a1aa"}])
def test_under_guarded_neither_a_date_of_birth_nor_a_postcode_is_sent_alone(alone: dict[str, str | None]) -> None:
    (row,) = encoded(alone)
    assert set(row.values()) == {None}


def test_under_guarded_one_name_gives_nothing_that_two_children_share() -> None:
    zoe = {"given_name": "zoe", "family_name": "smith"}
    first = {"date_of_birth": "20150314", "postcode": "sw1a1aa", "nhs_number": "9434765919", "upn": "B801200005001"}
    second = {"date_of_birth": "20160315", "postcode": "m11ae", "nhs_number": "9990000026", "upn": "A801200100001"}
    one, two = encoded({**zoe, **first}, {**zoe, **second})
    popcounts = {f"{name}_n" for name in FILTERS["guarded-3"]}
    shared = [name for name in one if one[name] == two[name] and one[name] is not None and name not in popcounts]
    assert shared == []


def test_under_guarded_two_siblings_share_nothing_at_all() -> None:
    """One postcode, one family name: not even tokens of the two together are equal."""
    home = {"family_name": "smith", "postcode": "sw1a1aa"}
    one, two = encoded({**home, "given_name": "zoe", "date_of_birth": "20150314"},
                       {**home, "given_name": "adam", "date_of_birth": "20170520"})  # fmt: skip
    tokens = {name for name in one if name.startswith("t_") and one[name] is not None and one[name] == two[name]}
    assert tokens == set()
    for name in FILTERS["guarded-3"]:
        assert (one[f"{name}_w0"], one[f"{name}_w1"]) != (two[f"{name}_w0"], two[f"{name}_w1"])


def test_a_pad_hides_how_long_a_value_is_and_keeps_how_far_two_are_apart() -> None:
    days = [f"2015{month:02d}{day:02d}" for month in range(1, 13) for day in range(1, 29)]
    counts = {
        name: np.mean(
            [row["family_d_n"] for row in encoded(*({"family_name": name, "date_of_birth": d} for d in days))]
        )
        for name in ("ng", "featherstonehaughcholmondeley")
    }
    assert all(abs(count - 256) < 3 for count in counts.values())
    plain = Prf(KEYS.key("family_name/pad", "guarded-3"))
    one, two = (
        np.array([[row[f"family_d_w{word}"] for word in range(8)]], "<i8").view("<u8").T.copy()
        for row in encoded(*({"family_name": name, "date_of_birth": days[0]} for name in ("smith", "smyth")))
    )
    apart = int(np.bitwise_count(one ^ two).sum())
    salt = as_words(cmac(KEYS.key("family_name/salt", "guarded-3"), f"D{days[0]}".encode()))
    for words in (one, two):
        encode._flip(words, salt, np.zeros(1, np.int64), plain)
    assert int(np.bitwise_count(one ^ two).sum()) == apart
    assert np.bitwise_count(one).sum() < 256  # as it was before the pad: few grams set fewer than half of the bits


def test_two_missing_values_have_nothing_in_common() -> None:
    for profile in PROFILES:
        row = encoded({"given_name": None}, profile=profile)[0]
        assert set(row.values()) == {None}


def test_the_columns_are_those_of_the_wire() -> None:
    for profile in PROFILES:
        made = encode_people(people(ZOE), KEYS, profile)
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
    batch = [{**ZOE, "given_name": f"zoe{chr(97 + n)}"} for n in range(26)] * 6
    whole = encoded(*batch)
    monkeypatch.setattr(encode, "BLOCK", 128)
    monkeypatch.setattr(encode, "_SPREAD", 64)
    monkeypatch.setattr(encode, "_TOKEN_BLOCK", 2)
    assert encoded(*batch) == whole


def test_what_is_missing_leaves_no_trace_behind_its_null() -> None:
    made = encode_people(people({**ZOE, "postcode": None}, ZOE), KEYS)
    for column in made.columns:
        if column.null_count:
            _, values = column.chunk(0).buffers()
            assert not any(values.to_pybytes()[: column.type.bit_width // 8])

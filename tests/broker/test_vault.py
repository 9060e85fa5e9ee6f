"""Segments are whole or absent, sealed, and never swapped."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import NotFound, Undecipherable
from broker.keys import Keys
from broker.vault import Vault

TABLE = pa.table({"person": ["canary-person"] * 50, "token": pa.array(range(50), pa.int64())})


@pytest.fixture
def vault(keys: Keys, tmp_path: Path) -> Vault:
    return Vault(tmp_path / "vault", keys.vault_key())


def test_what_is_written_is_read_back_as_it_was(vault: Vault) -> None:
    segment = vault.write("persons", TABLE)
    assert vault.read(segment).equals(TABLE)
    assert vault.segments() == {segment}


def test_nothing_readable_is_on_the_disk(vault: Vault, tmp_path: Path) -> None:
    vault.write("persons", TABLE)
    (file,) = (tmp_path / "vault").iterdir()
    raw = file.read_bytes()
    assert b"canary" not in raw
    assert b"PAR1" not in raw
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_segment_under_another_s_name_or_with_a_bit_changed_does_not_open(vault: Vault, tmp_path: Path) -> None:
    first, second = vault.write("persons", TABLE), vault.write("clusters", TABLE)
    folder = tmp_path / "vault"
    swapped = (folder / f"{first}.seg").read_bytes()
    (folder / f"{second}.seg").write_bytes(swapped)
    with pytest.raises(Undecipherable):
        vault.read(second)
    (folder / f"{first}.seg").write_bytes(swapped[:-1] + bytes([swapped[-1] ^ 1]))
    with pytest.raises(Undecipherable):
        vault.read(first)


def test_a_segment_of_a_version_that_wrote_others_is_refused_with_what_to_do_about_it(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr("broker.vault.FORMAT", "parquet-1")
        segment = vault.write("persons", TABLE)
    with pytest.raises(Undecipherable, match=r"begin with an empty data folder.*a full batch"):
        vault.open(segment)
    bare = vault.write("persons", TABLE)
    (vault.folder / f"{bare}.seg").write_bytes(sealed_as_one(vault, bare, b"PAR1 and no word of columns"))
    with pytest.raises(Undecipherable, match="of another version of the broker"):
        vault.read(bare)


def sealed_as_one(vault: Vault, segment: str, plain: bytes) -> bytes:
    """One block, as a version wrote it that kept Parquet."""
    block = vault._key.seal(plain, bound_to=f"{segment}|0|last".encode())
    return len(block).to_bytes(4, "big") + block


def blocks_of(path: Path) -> list[bytes]:
    raw, blocks = path.read_bytes(), []
    while raw:
        size = 4 + int.from_bytes(raw[:4], "big")
        blocks.append(raw[:size])
        raw = raw[size:]
    return blocks


def test_a_segment_of_many_blocks_opens_whole_in_order_or_not_at_all(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.vault.BLOCK", 128)
    segment = vault.write("persons", TABLE)
    path = vault.folder / f"{segment}.seg"
    blocks = blocks_of(path)
    assert len(blocks) > 4
    assert vault.read(segment).equals(TABLE)
    assert vault.check(segment, TABLE)
    for spoilt in (blocks[:-1], blocks[1:], [*blocks[:1], *blocks[2:]], [blocks[1], blocks[0], *blocks[2:]], []):
        path.write_bytes(b"".join(spoilt))
        assert not vault.check(segment, TABLE)
        with pytest.raises(Undecipherable):
            vault.read(segment)
    path.write_bytes(b"".join(blocks)[:-3])
    with pytest.raises(Undecipherable):
        vault.read(segment)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.text(), st.none() | st.booleans(),
            st.none() | st.lists(st.text(max_size=3), max_size=3), st.none() | st.floats(allow_nan=False),
            st.none() | st.dates(), st.binary(),
        )
    )
)  # fmt: skip
def test_whatever_a_run_writes_is_read_back_equal(vault: Vault, rows: list[tuple[Any, ...]]) -> None:
    names = ("token", "ref", "flag", "agreed", "weight", "since", "model")
    types = (pa.int64(), pa.string(), pa.bool_(), pa.list_(pa.string()), pa.float64(), pa.date32(), pa.binary())
    table = pa.table(
        [pa.array([row[n] for row in rows], type_) for n, type_ in enumerate(types)],
        schema=pa.schema(list(zip(names, types, strict=True))),
    )
    segment = vault.write("any", table)
    assert vault.read(segment).equals(table)
    assert vault.read(segment, ["ref"]).equals(table.select(["ref"]))
    assert vault.check(segment, table)
    assert not vault.check(segment, table.drop_columns(["flag"]))
    assert not vault.check(segment, pa.concat_tables([table, table])) or not rows


def test_another_key_opens_nothing(vault: Vault, tmp_path: Path) -> None:
    segment = vault.write("persons", TABLE)
    with pytest.raises(Undecipherable):
        Vault(tmp_path / "vault", Keys.make(tmp_path / "others").vault_key()).read(segment)


@pytest.mark.parametrize("name", ["../keys/kek.key", "persons", "persons.0", "/etc/passwd", "persons.0123456789abcdef"])
def test_only_a_segments_own_name_is_looked_for(vault: Vault, name: str) -> None:
    with pytest.raises(NotFound):
        vault.read(name)


def test_a_name_is_a_plain_word(vault: Vault) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        vault.write("../persons", TABLE)


def test_what_no_run_names_is_swept(vault: Vault, tmp_path: Path) -> None:
    kept, gone = vault.write("persons", TABLE), vault.write("persons", TABLE)
    (tmp_path / "vault" / "persons.0000000000000000.tmp").write_bytes(b"half")
    assert vault.sweep(frozenset({kept})) == 2
    assert vault.segments() == {kept}
    with pytest.raises(NotFound):
        vault.read(gone)

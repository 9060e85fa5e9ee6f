"""Segments are whole or absent, sealed, and never swapped."""

from pathlib import Path

import pyarrow as pa
import pytest

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

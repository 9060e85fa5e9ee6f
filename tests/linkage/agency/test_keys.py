"""Keys of an agency: derived as published, kept where only their owner can read them, shown to nobody."""

import json
from pathlib import Path

import pytest

from linkage.agency import keys
from linkage.agency.keygen import make_home
from linkage.agency.keys import BadKey, LinkageKeys
from linkage.agency.settings import BadHome, Home

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "encoding-guarded-3.json").read_text())


def vector_keys(**changes: str) -> LinkageKeys:
    of = {"partnership": VECTORS["partnership"], "epoch": VECTORS["epoch"], **changes}
    return LinkageKeys(bytes.fromhex(VECTORS["link_key"]), **of)


def test_keys_are_derived_as_published() -> None:
    made = vector_keys()
    assert made.epoch_key.hex() == VECTORS["epoch_key"]
    for label, key in VECTORS["keys"].items():
        assert made.key(label, "guarded-3").hex() == key


def test_no_key_serves_two_profiles_epochs_partnerships_or_labels() -> None:
    made = {
        vector_keys().key("token/dob", "guarded-3"),
        vector_keys().key("token/dob", "accurate-2"),
        vector_keys().key("token/postcode", "guarded-3"),
        vector_keys(epoch="2028-1").key("token/dob", "guarded-3"),
        vector_keys(partnership="southshire").key("token/dob", "guarded-3"),
    }
    assert len(made) == 5


def test_two_agencies_with_one_key_have_one_fingerprint_and_the_same_canaries() -> None:
    assert vector_keys().fingerprint("guarded-3") == vector_keys().fingerprint("guarded-3")
    assert vector_keys().canaries("guarded-3") == vector_keys().canaries("guarded-3")
    other = LinkageKeys.generate(partnership="northshire", epoch="2027-1")
    assert other.fingerprint("guarded-3") != vector_keys().fingerprint("guarded-3")
    assert len(set(other.canaries("guarded-3")) | set(vector_keys().canaries("guarded-3"))) == 6


def test_a_repr_shows_no_secret(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", agency="a", partnership="p", epoch="1")
    shown = repr(vector_keys()) + repr(home) + repr(home.settings)
    assert VECTORS["link_key"] not in shown
    assert VECTORS["epoch_key"] not in shown
    assert home.record_key.hex() not in shown


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "link.key"
    keys.write_secret(path, b"00" * 32)
    assert keys.read_hex_key(path) == bytes(32)
    path.chmod(0o640)
    with pytest.raises(BadKey, match="chmod 600"):
        keys.read_hex_key(path)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    make_home(tmp_path, agency="a", partnership="p", epoch="1")
    before = (tmp_path / "keys" / "link.key").read_bytes()
    with pytest.raises(BadHome, match="never overwritten"):
        make_home(tmp_path, agency="a", partnership="p", epoch="1")
    with pytest.raises(BadKey, match="never overwritten"):
        keys.write_secret(tmp_path / "keys" / "link.key", b"x")
    assert (tmp_path / "keys" / "link.key").read_bytes() == before


@pytest.mark.parametrize("content", [b"zz" * 32, b"00" * 31, b"", b"\xff\xfe"])
def test_a_key_file_holds_32_bytes_in_hex(tmp_path: Path, content: bytes) -> None:
    keys.write_secret(tmp_path / "link.key", content)
    with pytest.raises(BadKey):
        keys.read_hex_key(tmp_path / "link.key")


def test_a_home_has_every_key_in_a_file_of_its_own(tmp_path: Path) -> None:
    home = make_home(tmp_path, agency="northshire-icb", partnership="northshire", epoch="2026-1")
    for name in ("link.key", "record.key", "signing.pem", "client.pem"):
        assert (tmp_path / "keys" / name).stat().st_mode & 0o777 == 0o600
    assert home.signing_kid == "northshire-icb/1"
    public = json.loads((tmp_path / "public.json").read_text())
    assert public["key_fingerprint"] == home.link_keys.fingerprint("guarded-3")
    assert public["canaries"] == [str(token) for token in home.link_keys.canaries("guarded-3")]
    text = (tmp_path / "public.json").read_text()
    assert home.record_key.hex() not in text
    assert "d" not in public["client"]


def test_the_partners_share_the_linkage_key_and_nothing_else(tmp_path: Path) -> None:
    one = make_home(tmp_path / "a", agency="a", partnership="p", epoch="1")
    two = make_home(tmp_path / "b", agency="b", partnership="p", epoch="1", link_key=tmp_path / "a/keys/link.key")
    assert one.link_keys.fingerprint("guarded-3") == two.link_keys.fingerprint("guarded-3")
    assert one.record_key != two.record_key
    assert one.record_ref("education", "1") != two.record_ref("education", "1")
    assert one.record_ref("education", "1") != one.record_ref("housing", "1")


def test_a_home_keeps_a_gateway_table_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "agency.toml").write_text('[gateway]\norganisation = "A"\n')
    assert make_home(tmp_path, agency="a", partnership="p", epoch="1").agency == "a"
    assert 'organisation = "A"' in (tmp_path / "agency.toml").read_text()


def test_no_home_and_a_wrong_setting_are_told_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadHome, match="agency keygen"):
        Home(tmp_path)
    make_home(tmp_path, agency="a", partnership="p", epoch="1")
    monkeypatch.setenv("AGENCY_BROKER", "https://broker.example")
    assert Home(tmp_path).settings.broker == "https://broker.example"
    with (tmp_path / "agency.toml").open("a") as file:
        file.write('brocker = "x"\n')
    with pytest.raises(BadHome, match="brocker"):
        Home(tmp_path)


def test_a_flows_state_is_kept(tmp_path: Path) -> None:
    home = make_home(tmp_path, agency="a", partnership="p", epoch="1")
    assert home.state("education")["sequence"] == 0
    home.remember("education", sequence=3, manifest_sha256="ab")
    home.remember("housing", sequence=1)
    assert home.state("education") == {"sequence": 3, "manifest_sha256": "ab"}

"""Keys stay in their files, tokens are peppered, what is sealed opens in its own place only."""

import hmac
import json
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadSignature, KeyUnavailable, Undecipherable
from broker.keys import NONCE_BYTES, DataKey, Keys, b64url, kid_of, unb64url, verify_detached, verify_general

INT64 = st.integers(-(2**63), 2**63 - 1)


def test_keys_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    first = Keys.make(tmp_path / "keys")
    again = Keys.make(tmp_path / "keys")
    assert first.pepper_one(7) == again.pepper_one(7)
    assert first.receipt_kid == again.receipt_kid
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "keys").iterdir())
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("spoil", ["mode", "missing", "short", "not-hex", "other-kind"])
def test_a_key_file_that_is_not_as_it_must_be_is_refused(tmp_path: Path, spoil: str) -> None:
    Keys.make(tmp_path)
    pepper = tmp_path / "pepper.key"
    if spoil == "mode":
        pepper.chmod(0o640)
    elif spoil == "missing":
        pepper.unlink()
    elif spoil == "short":
        pepper.write_text("00")
    elif spoil == "not-hex":
        pepper.write_text("canary")
    else:
        (tmp_path / "receipts.pem").write_bytes((tmp_path / "token.pem").read_bytes())
    with pytest.raises(KeyUnavailable) as raised:
        Keys.load(tmp_path)
    assert "canary" not in str(raised.value)


def test_a_secret_that_the_environment_gives_is_no_file_and_is_used_all_the_same(tmp_path: Path) -> None:
    elsewhere = Keys.make(tmp_path / "elsewhere")
    pepper = (tmp_path / "elsewhere" / "pepper.key").read_text()
    given = {"BROKER_PEPPER_KEY": pepper}
    made = Keys.make(tmp_path / "keys", given)
    assert not (tmp_path / "keys" / "pepper.key").exists()
    assert made.pepper_one(7) == Keys.load(tmp_path / "keys", given).pepper_one(7) == elsewhere.pepper_one(7)
    with pytest.raises(KeyUnavailable, match=r"pepper\.key can't be read"):
        Keys.load(tmp_path / "keys", {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("canary", "malformed"),
        ("ca" * 31, "another length than 32 bytes"),
        ("ca" * 32, r"BROKER_PEPPER_KEY and .* differ"),
    ],
)
def test_a_secret_of_the_environment_that_is_not_as_it_must_be_is_refused(
    tmp_path: Path, given: str, message: str
) -> None:
    Keys.make(tmp_path)
    with pytest.raises(KeyUnavailable, match=message) as raised:
        Keys.load(tmp_path, {"BROKER_PEPPER_KEY": given})
    assert "ca" * 6 not in str(raised.value)
    assert "BROKER_PEPPER_KEY" in str(raised.value)


def test_no_key_shows_in_words(keys: Keys, tmp_path: Path) -> None:
    made = Keys.make(tmp_path)
    pepper = (tmp_path / "pepper.key").read_text().strip()
    assert pepper not in repr(made)
    assert bytes.fromhex(pepper) not in repr(made).encode("latin-1", "replace")
    assert repr(keys.vault_key()) == "DataKey()"


@settings(deadline=None)
@given(st.lists(st.none() | INT64, max_size=40))
def test_pepper_is_the_first_eight_bytes_of_aes_256_over_token_and_label(keys: Keys, tokens: list[int | None]) -> None:
    pseudo_random = hmac.digest(bytes(32), keys._pepper, "sha256")  # RFC 5869, step by step
    key = hmac.digest(pseudo_random, b"pepper|aes-256" + b"\x01", "sha256")
    expected = []
    for token in tokens:
        one = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        block = b"" if token is None else one.update(token.to_bytes(8, "little", signed=True) + b"pepper-1")
        expected.append(None if token is None else int.from_bytes(block[:8], "little", signed=True))
    assert keys.pepper(pa.array(tokens, pa.int64())).to_pylist() == expected
    chunked = pa.chunked_array([pa.array(tokens[:7], pa.int64()), pa.array(tokens[7:], pa.int64())])
    assert keys.pepper(chunked).to_pylist() == expected
    assert [None if token is None else keys.pepper_one(token) for token in tokens] == expected


def test_another_pepper_gives_other_tokens(keys: Keys, tmp_path: Path) -> None:
    assert keys.pepper_one(7) != Keys.make(tmp_path).pepper_one(7)


def test_what_is_sealed_opens_in_its_own_place_only(keys: Keys) -> None:
    key, wrapped = keys.new_data_key("batch-1")
    sealed = key.seal_item(b"payload", agency="icb", batch="batch-1", item_ref="i1")
    opened = keys.data_key(wrapped, "batch-1")
    assert opened.open_item(sealed, agency="icb", batch="batch-1", item_ref="i1") == b"payload"
    for place in (("police", "batch-1", "i1"), ("icb", "batch-2", "i1"), ("icb", "batch-1", "i2")):
        with pytest.raises(Undecipherable):
            opened.open_item(sealed, agency=place[0], batch=place[1], item_ref=place[2])
    with pytest.raises(Undecipherable):
        keys.data_key(wrapped, "batch-2")
    with pytest.raises(Undecipherable):
        opened.open_chunk(sealed, batch="batch-1", table="persons", number=0)
    with pytest.raises(Undecipherable):
        opened.open(b"", bound_to=b"")
    assert key.seal(b"x", bound_to=b"") != key.seal(b"x", bound_to=b"")


@pytest.mark.parametrize("ref", ["0" * 64, 'a"b', "é", "a,b"])
def test_items_sealed_in_a_row_open_as_those_sealed_one_by_one(ref: str) -> None:
    key = DataKey.fresh()
    other, sealed = key.items_sealer(agency="icb", batch="b-1")([b"other", b"payload"], ["0a", ref])
    assert key.open_item(sealed, agency="icb", batch="b-1", item_ref=ref) == b"payload"
    assert key.open_item(other, agency="icb", batch="b-1", item_ref="0a") == b"other"
    assert other[:NONCE_BYTES] != sealed[:NONCE_BYTES]
    for elsewhere in (ref + "x", "0a"):
        with pytest.raises(Undecipherable):
            key.open_item(sealed, agency="icb", batch="b-1", item_ref=elsewhere)


def test_names_that_run_together_are_not_the_same_place(keys: Keys) -> None:
    key, _ = keys.new_data_key("b")
    sealed = key.seal_item(b"p", agency="a|b", batch="c", item_ref="d")
    with pytest.raises(Undecipherable):
        key.open_item(sealed, agency="a", batch="b|c", item_ref="d")


def test_indexes_are_keyed_and_kept_apart(keys: Keys, tmp_path: Path) -> None:
    other = Keys.make(tmp_path)
    assert keys.subject_index("x") != keys.case_index("x")
    assert keys.subject_index("x") != other.subject_index("x")


def test_a_receipt_s_signature_is_checked_and_an_altered_one_refused(keys: Keys) -> None:
    jws = json.loads(json.dumps(keys.sign(b'{"batch":"1"}')))
    assert verify_general(jws, keys.receipt_public()) == b'{"batch":"1"}'
    with pytest.raises(BadSignature):
        verify_general(jws | {"payload": b64url(b'{"batch":"2"}')}, keys.receipt_public())
    with pytest.raises(BadSignature):
        verify_general(jws, bytes(32))
    for broken in ({}, {"payload": "", "signatures": []}, {"payload": 1, "signatures": [{}]}):
        with pytest.raises(BadSignature):
            verify_general(broken, keys.receipt_public())


def detached(payload: bytes, key: Ed25519PrivateKey, header: str = '{"alg":"Ed25519","kid":"icb/1"}') -> str:
    protected = b64url(header.encode())
    return f"{protected}..{b64url(key.sign(f'{protected}.{b64url(payload)}'.encode()))}"


def test_a_detached_signature_is_over_these_bytes_by_this_key() -> None:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    jws = detached(b"manifest", key)
    assert kid_of(jws) == "icb/1"
    verify_detached(jws, b"manifest", public)
    with pytest.raises(BadSignature):
        verify_detached(jws, b"manifest ", public)
    with pytest.raises(BadSignature):
        verify_detached(jws, b"manifest", Ed25519PrivateKey.generate().public_key().public_bytes_raw())


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"none","kid":"a"}',
        '{"alg":"Ed25519"}',
        '{"alg":"Ed25519","crit":["x"],"kid":"a"}',
        "[]",
        "x",
        '{"alg":"Ed25519","kid":1}',
    ],
)
def test_a_detached_signature_s_header_says_alg_and_kid_and_no_more(header: str) -> None:
    key = Ed25519PrivateKey.generate()
    with pytest.raises(BadSignature):
        verify_detached(detached(b"m", key, header), b"m", key.public_key().public_bytes_raw())


@pytest.mark.parametrize("jws", ["", "a.b.c", "..", "a", "a..b..c", "é..x"])
def test_what_is_no_detached_signature_is_refused(jws: str) -> None:
    with pytest.raises(BadSignature):
        verify_detached(jws, b"m", bytes(32))


@given(st.binary(max_size=50))
def test_base64url_has_one_spelling(raw: bytes) -> None:
    text = b64url(raw)
    assert unb64url(text) == raw
    with pytest.raises(ValueError, match=r"base64|padding|alphabet|data"):
        unb64url(text + "=")

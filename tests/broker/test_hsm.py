"""The key-encryption key in a PKCS#11 token: SoftHSM, which keeps to the same rules as hardware."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from broker.cli import app
from broker.errors import KeyUnavailable, Undecipherable
from broker.hsm import HsmKey, make_in, move_in
from broker.keys import DataKey, Keys
from broker.settings import Pkcs11, Settings
from broker.store.batches import BatchRow
from broker.wiring import keys_of
from tests.broker.platform import some_settings
from tests.builders import a_batch
from tests.builders_broker import Caller, agreed, reception, serving

PIN, TOKEN = "1234-5678", "broker"
LIBRARIES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, with a token of ours: it looks for configuration and tokens once, when it is loaded."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    line = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--so-pin", PIN, "--pin", PIN]
    subprocess.run(line, check=True, capture_output=True)
    return next(path for path in map(Path, LIBRARIES) if path.exists())


@pytest.fixture
def label() -> str:
    """Of a key that is not there yet."""
    return secrets.token_hex(4)


def key_in(module: Path, label: str) -> HsmKey:
    return HsmKey(module, token=TOKEN, label=label, pin=PIN)


def test_a_key_seals_and_opens_in_its_token_and_never_comes_out(module: Path, label: str) -> None:
    kek = key_in(module, label)
    kek.make()
    sealed = kek.seal(b"thirty-two bytes of a data key..", bound_to=b"batch 7")
    assert kek.open(sealed, bound_to=b"batch 7") == b"thirty-two bytes of a data key.."
    with pytest.raises(Undecipherable):
        kek.open(sealed, bound_to=b"batch 8")
    with pytest.raises(Undecipherable):
        kek.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), bound_to=b"batch 7")
    with pytest.raises(kek._pkcs11.AttributeSensitive):
        _ = kek._held()[kek._pkcs11.Attribute.VALUE]
    kek.make()  # keeps the one that is there
    assert key_in(module, label).open(sealed, bound_to=b"batch 7")


def test_nothing_in_the_folder_opens_without_the_token(module: Path, label: str, tmp_path: Path) -> None:
    kek, folder = key_in(module, label), tmp_path / "keys"
    made = make_in(folder, kek, {})
    key, wrapped = made.new_data_key("batch")
    again = Keys.load(folder, {}, kek)
    assert again.data_key(wrapped, "batch").open(key.seal(b"an item", bound_to=b"x"), bound_to=b"x") == b"an item"
    assert (again.pepper_one(7), again.receipt_kid) == (made.pepper_one(7), made.receipt_kid)
    assert {path.suffix for path in folder.iterdir()} == {".sealed"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    with pytest.raises(KeyUnavailable):
        Keys.load(folder, {})
    other = key_in(module, f"{label}-2")
    other.make()
    with pytest.raises(KeyUnavailable, match=r"pepper\.sealed"):
        Keys.load(folder, {}, other)
    shutil.copy(folder / "index.sealed", folder / "pepper.sealed")  # one key in another's place
    with pytest.raises(KeyUnavailable, match=r"pepper\.sealed"):
        Keys.load(folder, {}, kek)


def test_a_broker_with_its_keys_in_files_moves_in_and_opens_what_it_sealed_before(
    module: Path, label: str, tmp_path: Path
) -> None:
    before = Keys.make(tmp_path, {})
    _, wrapped = before.new_data_key("batch")
    kek = key_in(module, label)
    with pytest.raises(KeyUnavailable, match="broker keys seal"):
        make_in(tmp_path, kek, {})
    assert len(move_in(tmp_path, kek, {})) == 6
    after = Keys.load(tmp_path, {}, kek)
    assert after.data_key(wrapped, "batch")
    assert (after.pepper_one(7), after.receipt_kid) == (before.pepper_one(7), before.receipt_kid)
    assert {path.suffix for path in tmp_path.iterdir()} == {".sealed"}
    assert move_in(tmp_path, kek, {}) == []


@pytest.mark.parametrize("left", ["kek.key", "pepper.key", "pepper.key and kek.key"])
def test_a_move_that_was_killed_is_run_again(module: Path, label: str, tmp_path: Path, left: str) -> None:
    before = Keys.make(tmp_path / "keys", {})
    shutil.copytree(tmp_path / "keys", tmp_path / "copy")
    kek = key_in(module, label)
    move_in(tmp_path / "keys", kek, {})
    for name in left.split(" and "):
        shutil.copy(tmp_path / "copy" / name, tmp_path / "keys" / name)
    if "pepper" in left:
        with pytest.raises(KeyUnavailable, match=r"pepper\.key lies there in clear"):
            Keys.load(tmp_path / "keys", {}, kek)
    move_in(tmp_path / "keys", kek, {})
    assert Keys.load(tmp_path / "keys", {}, kek).pepper_one(7) == before.pepper_one(7)
    assert {path.suffix for path in (tmp_path / "keys").iterdir()} == {".sealed"}


def test_a_token_with_another_key_of_the_label_takes_nothing_and_nothing_is_removed(
    module: Path, label: str, tmp_path: Path
) -> None:
    key_in(module, label).make()
    Keys.make(tmp_path, {})
    there = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(KeyUnavailable, match="another key"):
        move_in(tmp_path, key_in(module, label), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_a_key_that_can_be_read_out_is_not_taken(module: Path, label: str) -> None:
    kek = key_in(module, label)
    loose = {kek._pkcs11.Attribute.EXTRACTABLE: True, kek._pkcs11.Attribute.SENSITIVE: False}
    kek._session.generate_key(kek._pkcs11.KeyType.AES, 256, label=label, store=True, template=loose)
    with pytest.raises(KeyUnavailable, match="can be read out"):
        kek.there()


def test_a_session_that_the_token_dropped_is_opened_anew_and_a_token_that_is_out_is_told(
    module: Path, label: str
) -> None:
    kek = key_in(module, label)
    kek.make()
    sealed = kek.seal(b"key", bound_to=b"x")
    kek._session.close()
    assert kek.open(sealed, bound_to=b"x") == b"key"
    kek._token = "somebody pulled it"
    kek._session.close()
    with pytest.raises(KeyUnavailable):  # never "undecipherable": nothing is known of the bytes
        kek.open(sealed, bound_to=b"x")
    with pytest.raises(KeyUnavailable):
        kek.seal(b"key", bound_to=b"x")
    kek._token = TOKEN
    assert kek.open(sealed, bound_to=b"x") == b"key"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"token": "no such"}, r"pkcs11\.token"),
        ({"module": "none.so"}, r"pkcs11\.module"),
    ],
)
def test_a_token_that_can_t_be_used_is_named_by_its_setting(
    wrong: dict[str, str], named: str, module: Path, label: str, tmp_path: Path
) -> None:
    given = {"module": str(module), "token": TOKEN, "key": label, "pin": PIN} | wrong
    settings = some_settings(tmp_path, pkcs11=Pkcs11(**{**given, "pin": SecretStr(given["pin"])}))
    with pytest.raises(KeyUnavailable, match=named) as refused:
        keys_of(settings)
    assert PIN not in str(refused.value)


def test_a_wrong_pin_is_named_and_not_told(module: Path, label: str) -> None:
    # Signing in is a process's: one that has not yet.
    asked = f"from pathlib import Path; from broker.hsm import HsmKey; HsmKey(Path({str(module)!r}), token={TOKEN!r}, label={label!r}, pin='00000')"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert "KeyUnavailable: pkcs11.pin: the token does not take it" in done.stderr
    assert "'00000'" not in done.stderr.splitlines()[-1]


def test_the_command_makes_shows_and_moves_keys(module: Path, label: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    lines = [
        'environment = "demo"', 'partnership = "northshire"', 'base_url = "http://127.0.0.1:8400"',
        'database_url = "sqlite:///broker.db"', f'data_dir = "{folder}"',
    ]  # fmt: skip
    config = tmp_path / "broker.toml"
    config.write_text("\n".join(lines))

    def run(*words: str) -> dict[str, object]:
        done = CliRunner().invoke(app, ["keys", *words, "--config", str(config), "--json"])
        assert done.exit_code == 0, done.output
        said: dict[str, object] = json.loads(done.output)
        return said

    public = run("init")
    config.write_text(
        "\n".join(
            [*lines, "[pkcs11]", f'module = "{module}"', f'token = "{TOKEN}"', f'key = "{label}"', f'pin = "{PIN}"']
        )
    )
    assert run("seal")["sealed"]
    assert run("show") == public


def test_what_a_token_seals_a_key_in_memory_opens_and_the_other_way(module: Path, label: str) -> None:
    value = secrets.token_bytes(32)
    kek, same = key_in(module, label), DataKey(value)
    kek.make(value)
    assert same.open(kek.seal(b"one", bound_to=b"x"), bound_to=b"x") == b"one"
    assert kek.open(same.seal(b"two", bound_to=b"x"), bound_to=b"x") == b"two"


def test_without_its_token_a_broker_takes_nothing_in_and_shows_nothing_and_goes_on_with_it(
    module: Path, label: str, settings: Settings
) -> None:
    kek = key_in(module, label)
    move_in(settings.data_dir / "keys", kek, {})
    named = Pkcs11(module=module, token=TOKEN, key=label, pin=SecretStr(PIN))
    batch = agreed(a_batch())
    with serving(settings.model_copy(update={"pkcs11": named})) as http:
        caller, held = Caller(http), http.app.state.broker.keys._kek  # type: ignore[attr-defined]
        caller.call("GET", "/v1/ledger").raise_for_status()
        held._token = "somebody pulled it"
        held._session.close()
        told = {}
        for name, refused in (("batch", caller.open(batch)), ("ledger", caller.call("GET", "/v1/ledger"))):
            assert refused.status_code == 503
            told[name] = refused.json()["type"].rpartition(":")[2]
        assert told == {"batch": "key-unavailable", "ledger": "log-unavailable"}  # which has no key to seal with
        with reception(http).store.reading() as tx:
            assert tx.all(BatchRow) == []
        held._token = TOKEN
        caller.call("GET", "/v1/ledger").raise_for_status()
        assert caller.open(batch).status_code == 201

"""The host's command: what it prints, and its exit codes, which are a promise."""

import json
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner

from broker import clock
from broker.cli import app
from broker.keys import b64url
from tests.broker.platform import AnAgency
from tests.broker.test_register import AGREEMENTS
from tests.builders import COUNCIL, a_batch
from tests.builders_broker import Caller, agreed, an_installation, serving

UMBRELLA, MASH = AGREEMENTS / "northshire-tier1.toml", AGREEMENTS / "northshire-mash.toml"
DETAILS = """
name = "Northshire ICB"
party_type = "nhs"
sector = "health"
roles = ["MASH_ANALYST"]
[contacts.desk]
name = "Safeguarding desk"
phone = "01632 960001"
[flows.health]
expected_by = "06:00"
contact = "desk"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(
        'environment = "demo"\npartnership = "northshire"\nbase_url = "http://127.0.0.1:8400"\n'
        'database_url = "sqlite:///broker.db"\ndata_dir = "data"\n'
    )
    return path


def typed(*arguments: object, code: int = 0) -> Any:
    """What `broker ... --json` prints; the exit code is held."""
    done = CliRunner().invoke(app, [str(each) for each in arguments] + ["--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout or done.stderr)


def test_a_file_that_is_none_is_named_with_the_place(config: Path, tmp_path: Path) -> None:
    given = {"public.json": b"{", "details.toml": b'name = "Mary Poppins\n', "latin.toml": b"name = 'Zo\xeb'"}
    for name, content in given.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.json").write_text("{}")
    for public, details, said in (
        ("public.json", "details.toml", "public.json is not JSON in UTF-8"),
        ("empty.json", "details.toml", "details.toml is not TOML in UTF-8: line 1, column "),
        ("empty.json", "latin.toml", "latin.toml is not TOML in UTF-8"),
        ("empty.json", "away.toml", "away.toml can't be read: No such file"),
    ):
        how = (tmp_path / public, "--details", tmp_path / details, "--config", config)
        error = typed("agencies", "enrol", *how, code=3)["error"]
        assert f"{tmp_path}/{said}" in error
        assert "Mary" not in error
    error = typed("agencies", "list", "--config", tmp_path / "details.toml", code=2)["error"]
    assert f"{tmp_path}/details.toml is not TOML in UTF-8: line 1, column " in error


def test_a_host_sets_up_enrols_signs_imports_and_suspends(config: Path, tmp_path: Path) -> None:
    at = ("--config", config)
    assert typed("init", *at)["log"] == "127.0.0.1:8400/audit"
    assert typed("init", *at)
    shown = typed("keys", "show", *at)
    assert set(shown) == {"receipts_kid", "receipts"}
    assert typed("log", "policy", *at)["policy"].startswith("log 127.0.0.1:8400/audit/2")

    agency, signatory = AnAgency(), Ed25519PrivateKey.generate()
    public = agency.public() | {
        "signatory": {"kid": f"{agency.id}/s-1", "public": b64url(signatory.public_key().public_bytes_raw())}
    }
    (tmp_path / "public.json").write_text(json.dumps(public))
    (tmp_path / "details.toml").write_text(DETAILS)
    typed("agencies", "enrol", tmp_path / "public.json", "--details", tmp_path / "details.toml", *at)
    assert typed("agencies", "list", *at)[0]["flows"] == {"health": "NOT_CONNECTED"}
    assert typed("agencies", "pause", agency.id, "health", *at)["paused"] is True
    assert typed("agencies", "list", *at)[0]["flows"] == {"health": "PAUSED"}
    typed("agencies", "pause", agency.id, "police", *at, code=1)
    assert typed("agencies", "resume", agency.id, "health", *at)["paused"] is False

    pem = tmp_path / "signatory.pem"
    pem.write_bytes(signatory.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem.chmod(0o600)
    out = tmp_path / "signatures"
    typed(
        "agreements", "sign", UMBRELLA, MASH, "--key", pem, "--kid", f"{agency.id}/s-1", "--out", out,
        "--umbrella", UMBRELLA,
    )  # fmt: skip
    signatures = [part for path in sorted(out.iterdir()) for part in ("--signature", path)]
    assert len(signatures) == 4
    typed("agreements", "import", UMBRELLA, MASH, *signatures, "--activate", *at, code=2)  # who puts it in force?
    for _ in range(2):
        taken = typed("agreements", "import", UMBRELLA, MASH, *signatures, "--activate", "--by", "ig-1", *at)
    signed = taken["signed"]
    assert all(parties == [agency.id] for parties in signed.values())
    (mash,) = [ref for ref in signed if ref.startswith("northshire-mash@")]
    typed("agreements", "suspend", mash, "--by", "ig-1", *at)
    statuses = {each["ref"]: each["status"] for each in typed("agreements", "list", *at)}
    assert statuses[mash] == "suspended"
    typed("agreements", "suspend", mash, "--by", "ig-1", *at, code=1)
    typed("agreements", "activate", mash, "--by", "ig-1", *at)

    assert typed("agencies", "list", *at)[0]["keys"] == [f"{agency.id}/1", agency.kid, f"{agency.id}/s-1"]
    typed("agencies", "revoke", agency.id, "--key", agency.kid, "--suspend", *at, code=2)
    typed("agencies", "revoke", "northshire-council", "--key", agency.kid, *at, code=1)
    assert typed("agencies", "revoke", agency.id, "--key", agency.kid, *at)["key"] == agency.kid
    typed("agencies", "revoke", agency.id, "--key", agency.kid, *at, code=1)
    assert typed("agencies", "list", *at)[0]["keys"] == [f"{agency.id}/1", f"{agency.id}/s-1"]
    typed("agencies", "revoke", agency.id, "--suspend", *at)
    typed("agencies", "resume", agency.id, *at)
    typed("agencies", "revoke", agency.id, *at)
    typed("agencies", "resume", agency.id, *at, code=1)
    typed("agencies", "revoke", "nobody", *at, code=1)


def test_checking_a_document_needs_no_database(tmp_path: Path) -> None:
    assert typed("agreements", "check", MASH, "--umbrella", UMBRELLA)["ref"] == "northshire-mash@3.0.0"
    spoilt = tmp_path / "spoilt.toml"
    spoilt.write_text(MASH.read_text().replace('"existence"', '"canary"').replace("disclose.", "disclos."))
    found = typed("agreements", "check", spoilt, "--umbrella", UMBRELLA, code=1)
    assert any(each["severity"] == "refused" and each["fix"] for each in found["findings"])


def test_exit_codes_tell_usage_from_could_not_tell(config: Path, tmp_path: Path) -> None:
    typed("agencies", "list", "--config", tmp_path / "none.toml", code=2)
    typed("agencies", "list", "--config", config, code=3)  # no keys yet: proves nothing
    typed("agreements", "check", tmp_path / "none.toml", code=3)
    config.write_text(config.read_text() + 'unknown = "canary"\n')
    assert "canary" not in json.dumps(typed("init", "--config", config, code=2))


def test_a_taken_port_is_one_clear_line(config: Path) -> None:
    typed("init", "--config", config)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(config.read_text() + f"port = {port}\n")
        done = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert done.exit_code == 2
    assert done.stderr == f"broker: can't listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_batch_in_quarantine_is_listed_and_let_in_by_a_named_person(config: Path, tmp_path: Path) -> None:
    settings = an_installation(tmp_path / "data", database_url=f"sqlite:///{tmp_path / 'broker.db'}")
    tomorrow = (clock.now() + timedelta(days=2)).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    with serving(settings) as http:
        batch = Caller(http).hand_in(agreed(a_batch()).saying(extracted_at=tomorrow))
    at = ("--config", config)
    typed("nightly", *at)
    assert typed("batches", "list", "--state", "accepted", *at) == []
    (waits,) = typed("batches", "list", "--state", "quarantined", *at)
    assert (waits["batch"], waits["agency"], waits["reason"]) == (batch, COUNCIL, "from_the_future")
    (ring, other) = typed("batches", "due", *at, code=1)
    assert (ring["flow"], ring["quarantined"], other["state"]) == ("education", [batch], "NOT_CONNECTED")
    assert (ring["heard_at"] is not None, other["heard_at"]) == (True, None)
    told = CliRunner().invoke(app, ["batches", "due", "--config", str(config)])
    assert "its client is alive, last heard of 20" in told.output
    assert "its client is silent, last heard of never" in told.output
    typed("batches", "release", batch, "--by", "no name, please", *at, code=2)
    assert typed("batches", "release", batch, "--by", "op-17", *at) == {"batch": batch, "state": "accepted"}
    typed("batches", "release", batch, "--by", "op-17", *at, code=1)
    typed("batches", "release", "nothing", "--by", "op-17", *at, code=1)
    assert [each["state"] for each in typed("batches", "list", *at)] == ["accepted"]


def test_every_command_has_a_manual() -> None:
    for words in (
        [],
        ["serve"],
        ["migrate"],
        ["nightly"],
        ["init"],
        ["agencies"],
        ["agreements"],
        ["batches"],
        ["keys"],
    ):
        done = CliRunner().invoke(app, [*words, "--help"])
        assert done.exit_code == 0
        assert len(done.output) > 100

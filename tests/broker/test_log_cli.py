"""`broker log` and `broker signer`, as an operator types them; and a broker whose signer is a process of its own."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from audit.folder import LogFolder
from audit.merkle import Frontier
from audit.policy import Policy
from audit.rotation import parse
from audit.verify import fsck
from broker import clock
from broker.app import create_app
from broker.cli import app
from broker.errors import LogUnavailable, NotFound
from broker.settings import read
from broker.store.log import EventRow
from broker.store.sequence import entry_of
from broker.wiring import wire
from tests.broker.test_shards import published
from tests.broker.test_trail import recorded

ROOT = Path(__file__).parents[2]
FINE, FINDING, USAGE, UNKNOWN = 0, 1, 2, 3


def a_config(folder: Path, signer: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(
        'environment = "demo"\npartnership = "northshire"\nbase_url = "http://127.0.0.1:8400"\n'
        f'database_url = "sqlite:///broker.db"\ndata_dir = "data"\nsigner = "{signer}"\nreceipt_seconds = 1.0\n'
    )
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An installed broker that signs by itself."""
    path = a_config(tmp_path, "inline")
    typed("init", "--config", path)
    return path


def typed(*arguments: object, code: int = FINE) -> Any:
    """What the command prints as JSON; the exit code is held."""
    done = CliRunner().invoke(app, [str(each) for each in arguments] + ["--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout or done.stderr)


@contextmanager
def a_signer(config: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`broker signer`, listening."""
    command = [sys.executable, "-c", "from broker.cli import main; main()", "signer", "--config", str(config), *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("signer:")
        yield process
    finally:
        process.terminate()
        assert process.wait(10) == FINE


def an_entry(config: Path) -> None:
    broker = wire(read(config))
    broker.trail.receipt(recorded(broker.store, broker.trail))
    broker.store.close()


def year() -> int:
    return clock.now().year


def test_status_policy_and_turn_of_a_log_in_order(config: Path) -> None:
    at = ("--config", config)
    (shard,) = typed("log", "status", *at)["shards"]
    assert (shard["state"], shard["entries"], shard["signed"], shard["lost"]) == ("open", 1, 1, 0)
    policy = Policy.parse(typed("log", "policy", *at)["policy"].encode())
    assert [key.name for key in policy.logs] == [f"127.0.0.1:8400/audit/{year()}"]
    assert typed("log", "turn", "--by", "op-1", *at)["turned"] is False
    assert typed("log", "restore", "--new", "--by", "op-1", *at, code=FINDING)


def a_state(config: Path) -> Path:
    return config.parent / "data" / "signer" / str(year()) / "state.json"


def older(config: Path) -> None:
    """The signer's state as it was before the newest entry."""
    old = a_state(config).read_bytes()
    an_entry(config)
    a_state(config).write_bytes(old)


def larger(config: Path) -> None:
    """The state after an entry that the database has not: its file alone is put back."""
    database = config.parent / "broker.db"
    shutil.copy(database, database.with_name("old.db"))
    an_entry(config)
    shutil.move(database.with_name("old.db"), database)
    for left in ("-wal", "-shm"):
        database.with_name(f"broker.db{left}").unlink(missing_ok=True)


def another_tree(config: Path) -> None:
    state = json.loads(a_state(config).read_bytes())
    hashes = (bytes(32),) * len(state["frontier"])
    frontier = Frontier(state["size"], hashes)
    told = {"frontier": [b64(each) for each in hashes], "root": b64(frontier.root)}
    a_state(config).write_text(json.dumps(state | told))


def another_key(config: Path) -> None:
    other = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    a_state(config).with_name("1.pem").write_bytes(other)


def closed(config: Path) -> None:
    a_state(config).write_text(json.dumps(json.loads(a_state(config).read_bytes()) | {"closed": True}))


def no_state(config: Path) -> None:
    a_state(config).with_name("keys.json").unlink()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("damage", "told", "to_do"),
    [
        (
            older,
            "the signer's state is an old copy: it says 2 entries, and its key has signed 3",
            "auditor consistency",
        ),
        (larger, "the signer has signed 3 entries, and the database holds 2", "broker log restore"),
        (another_tree, "another tree of 2 entries", "broker log restore --new"),
        (another_key, "other keys than this log's", "Put the right folder back"),
        (closed, "the signer has closed this log", "broker log restore --new"),
        (no_state, "the signer does not know this log", "Put the right folder back"),
    ],
)
def test_status_names_what_is_wrong_with_a_signers_state_that_can_be_read_and_what_to_do(
    config: Path, damage: Callable[[Path], None], told: str, to_do: str
) -> None:
    an_entry(config)
    damage(config)
    (shard,) = typed("log", "status", "--config", config, code=FINDING)["shards"]
    (fault,) = shard["faults"]
    assert told in fault
    assert to_do in fault
    done = CliRunner().invoke(app, ["log", "status", "--config", str(config)])
    assert f"! {shard['origin']}: {fault}" in done.output


def test_a_signers_old_state_is_made_new_by_the_next_entry_and_another_tree_by_a_new_shard(config: Path) -> None:
    an_entry(config)
    older(config)
    an_entry(config)
    at = ("--config", config)
    assert typed("log", "status", *at)["shards"][0]["faults"] == []
    another_tree(config)
    assert typed("log", "restore", "--new", "--by", "op-1", *at)["origin"].endswith(f"/{year()}-2")
    an_entry(config)
    assert [shard["faults"] for shard in typed("log", "status", *at)["shards"]] == [[], []]


def test_the_year_is_turned_by_hand_and_both_shards_are_served(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, now = ("--config", config), clock.now()
    later = now + timedelta(days=366)
    monkeypatch.setattr(clock, "now", lambda: later)
    done = typed("log", "turn", "--by", "op-1", *at)
    assert done == {"turned": True, "origin": f"127.0.0.1:8400/audit/{later.year}"}
    an_entry(config)
    application = create_app(read(config))
    http = TestClient(application, base_url="http://127.0.0.1:8400")
    for shard, kinds in ((now.year, ["log.opened", "log.closed"]), (later.year, ["log.opened"])):
        told = http.get(f"/audit/log/{shard}/history")
        found = parse(told.text, f"127.0.0.1:8400/audit/{shard}")
        assert [each.type for each in found] == kinds
        assert all(
            each.receipt.opening.withheld == ("who", "why", "subjects", "recipients", "detail") for each in found
        )
        assert http.get(f"/audit/log/{shard}/checkpoint").text.split("\n")[1] == "2"
        assert http.get(f"/audit/log/{shard}/tile/entries/000.p/2").status_code == 200
    assert http.get("/audit/log/1999/history").status_code == 404
    told = http.get("/audit/shards").json()["shards"]
    assert [(each["shard"], each["state"]) for each in told] == [(str(now.year), "closed"), (str(later.year), "open")]
    application.state.broker.store.close()


def test_a_key_is_changed_by_hand(config: Path) -> None:
    at = ("--config", config)
    assert typed("log", "rotate", "--finish", "--by", "op-1", *at, code=FINDING)
    assert len(typed("log", "rotate", "--by", "op-1", *at)["keys"]) == 2
    assert typed("log", "policy", *at)["policy"].count("log ") == 2
    (key,) = typed("log", "rotate", "--finish", "--by", "op-1", *at)["keys"]
    an_entry(config)
    compromised = typed("log", "rotate", "--compromised", "--by", "op-1", *at)
    assert compromised["origin"].endswith(f"/{year()}-2")
    assert key not in typed("log", "policy", *at)["policy"]
    states = [shard["state"] for shard in typed("log", "status", *at)["shards"]]
    assert states == ["frozen", "open"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("log", "rotate", "--finish", "--compromised", "--by", "op-1"),
        ("log", "rotate", "--checkpoint", "x", "--by", "op-1"),
        ("log", "restore", "--by", "op-1"),
        ("log", "restore", "--new", "--mirror", "x", "--by", "op-1"),
        ("log", "turn", "--by", "two words"),
    ],
)
def test_what_does_not_go_together_is_wrong_usage(config: Path, arguments: tuple[str, ...]) -> None:
    assert typed(*arguments, "--config", config, code=USAGE)["error"]


@pytest.mark.parametrize("way", ["new", "mirror"])
def test_yesterdays_backup_is_refused_until_an_operator_says_how_to_go_on_28(
    config: Path, tmp_path: Path, way: str
) -> None:
    at, database = ("--config", config), tmp_path / "broker.db"
    an_entry(config)
    shutil.copy(database, tmp_path / "backup.db")
    for _ in range(3):
        an_entry(config)
    broker = wire(read(config))
    mirror = published(broker.store, broker.trail, tmp_path / "mirror", broker.trail.origin)
    broker.store.close()
    for path in tmp_path.glob("broker.db*"):
        path.unlink()
    shutil.copy(tmp_path / "backup.db", database)

    assert "broker log restore" in typed("batches", "list", *at, code=UNKNOWN)["error"]  # nothing is done on it
    (shard,) = typed("log", "status", *at, code=FINDING)["shards"]
    assert (shard["entries"], shard["signed"], shard["lost"]) == (2, 5, 3)
    if way == "mirror":
        typed("log", "restore", "--mirror", tmp_path / "nowhere", "--by", "op-1", *at, code=UNKNOWN)
        assert typed("log", "restore", "--mirror", mirror, "--by", "op-1", *at) == {"refilled": 3}
    else:
        typed("log", "restore", "--new", "--checkpoint", tmp_path / "nowhere", "--by", "op-1", *at, code=UNKNOWN)
        note = ("--checkpoint", mirror / "checkpoint")
        assert typed("log", "restore", "--new", *note, "--by", "op-1", *at)["origin"].endswith("-2")
    typed("log", "status", *at, code=FINE if way == "mirror" else FINDING)  # what is lost in a frozen shard stays so
    an_entry(config)
    broker = wire(read(config))
    policy = Policy.parse(typed("log", "policy", *at)["policy"].encode())
    fsck(LogFolder(published(broker.store, broker.trail, tmp_path / "after", broker.trail.origin)), policy)
    broker.store.close()


@pytest.mark.parametrize("how", [("restore", "--new"), ("rotate", "--compromised")])
def test_a_log_whose_key_is_lost_goes_on_in_a_new_shard(config: Path, how: tuple[str, str]) -> None:
    at = ("--config", config)
    an_entry(config)
    (config.parent / "data" / "signer" / str(year()) / "1.pem").unlink()
    assert "a key of this log is missing" in typed("batches", "list", *at, code=UNKNOWN)["error"]
    assert "missing" in typed("log", "rotate", "--by", "op-1", *at, code=UNKNOWN)["error"]
    typed("log", "status", *at, code=FINDING)
    assert typed("log", *how, "--by", "op-1", *at)["origin"].endswith("-2")
    an_entry(config)


def test_a_signers_refusal_is_told_in_words(config: Path) -> None:
    (config.parent / "data" / "signer" / str(year()) / "state.json").write_text("{}")
    told = typed("log", "rotate", "--compromised", "--by", "op-1", "--config", config, code=UNKNOWN)
    assert "the signer" in told["error"]


def test_a_broker_whose_signer_is_another_process(tmp_path: Path) -> None:
    config = a_config(tmp_path, "process")
    at = ("--config", config)
    assert "signer" in typed("init", *at, code=UNKNOWN)["error"]  # it can't open a log alone
    with a_signer(config, "--post-quantum"):
        typed("init", *at)
        an_entry(config)
        assert typed("log", "status", *at)["signer"] == "answers"
        assert typed("log", "policy", *at)["policy"].count("log ") == 2
    told = typed("log", "status", *at, code=UNKNOWN)
    assert "can't be reached" in told["signer"]
    typed("migrate", *at, code=FINE)  # nothing is to be signed: it need not be there
    with a_signer(config):
        an_entry(config)
    names = {path.name for path in (tmp_path / "data" / "keys").iterdir()}
    assert not {name for name in names if "log" in name}


def test_two_signers_of_one_folder_do_not_listen_together(tmp_path: Path) -> None:
    config = a_config(tmp_path, "process")
    with a_signer(config):
        done = CliRunner().invoke(app, ["signer", "--config", str(config)])
        assert (done.exit_code, "another signer" in done.output) == (UNKNOWN, True)


@pytest.mark.parametrize("command", [("signer",), ("log", "status"), ("log", "rotate"), ("log", "restore")])
def test_the_manual_says_what_comes_of_it(command: tuple[str, ...]) -> None:
    said = " ".join(CliRunner().invoke(app, [*command, "--help"]).output.split())
    assert "Exit codes" in said or "compromised" in said


def test_nothing_is_given_up_under_another_key_than_the_logs(config: Path) -> None:
    broker = wire(read(config))
    broker.trail.receipt(recorded(broker.store, broker.trail))
    waits = recorded(broker.store, broker.trail)
    broker.store.close()
    kek = broker.settings.data_dir / "keys" / "kek.key"
    kek.write_text("0" * 64)
    (named,) = typed("log", "unstick", "--config", config, code=FINDING)["stuck"]
    assert named["event"] == waits.event_id
    typed("log", "unstick", "--give-up", waits.event_id, "--by", "ops-1", "--config", config, code=FINDING)
    assert typed("log", "unstick", "--config", config, code=FINDING)["stuck"] == [named]


def test_an_event_whose_key_is_spoilt_stops_the_log_is_named_and_can_be_given_up(config: Path) -> None:
    broker = wire(read(config))
    stuck = recorded(broker.store, broker.trail)
    later = recorded(broker.store, broker.trail)
    with broker.store.transaction() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE audit_outbox SET key_wrapped = zeroblob(60) WHERE event_id = ?", (stuck.event_id,)
        )
    with pytest.raises(LogUnavailable, match=f"{stuck.event_id}.*broker log unstick"):
        broker.trail.receipt(later, timeout=0.1)
    broker.store.close()
    (named,) = typed("log", "status", "--config", config, code=FINDING)["stuck"]
    assert named["event"] == stuck.event_id
    assert typed("log", "unstick", "--config", config, code=FINDING)["stuck"] == [named]
    typed("log", "unstick", "--give-up", later.event_id, "--by", "ops-1", "--config", config, code=FINDING)
    typed("log", "unstick", "--give-up", stuck.event_id, "--by", "ops-1", "--config", config)
    told = typed("log", "status", "--config", config)
    assert (told["stuck"], told["waiting"]) == ([], 0)
    broker = wire(read(config))
    broker.trail.receipt(later)
    with broker.store.reading() as reading:
        assert entry_of(reading, stuck.event_id) is not None
        assert reading.one(EventRow, type="audit.degraded", outcome="body_lost") is not None
    with pytest.raises(NotFound):
        broker.trail.opening(stuck.event_id, show=("what",))
    broker.store.close()

"""The restore drill: a host is lost, and comes back from its copies with the log that was witnessed and nobody erased."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from audit.checkpoint import SignedCheckpoint
from audit.cli import auditor
from broker import erasure
from broker.cli import app as command
from broker.errors import LogUnavailable
from broker.keys import Keys
from broker.settings import read
from broker.store.tombstones import Tombstones
from broker.trail import EntryRef
from broker.wiring import Broker, open_installation, wire
from tests.broker.test_erasure import AT, CHILD, RECORD, SIBLING, looked, officer, rows
from tests.broker.test_shards import published
from tests.postgres import a_database, postgres_server

__all__ = ["postgres_server"]
pytestmark = pytest.mark.postgres
SCRIPTS = Path(__file__).parents[2] / "deploy" / "postgresql"
BROKER = """
partnership = "northshire"
base_url = "https://broker.northshire.example"
database_url = "{url}"
data_dir = "data"
signer = "inline"
"""


class Host:
    """A machine with a broker's folder and a database."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir()
        self.folder, self.config = folder, folder / "broker.toml"
        self.config.write_text(BROKER.format(url=url))
        parts = make_url(url)
        self.address = f"postgresql://{parts.username}@/{parts.database}?host={parts.query['host']}"
        self.data = folder / "data"
        # the signer is this process, so its folder lies in data_dir; the scripts are told so
        self.environment = os.environ | {
            "DATABASE": self.address, "DATA_DIR": str(self.data), "SIGNER_DIR": str(self.data / "signer"),
        }  # fmt: skip

    def run(self, script: str, *arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [SCRIPTS / script, *map(str, arguments)], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout.strip() + done.stderr.strip() * bool(code)

    def open(self) -> Broker:
        return wire(read(self.config))

    def says(self, *arguments: object, code: int = 0) -> str:
        done = CliRunner().invoke(command, [*map(str, arguments), "--config", str(self.config)])
        assert done.exit_code == code, done.output
        return done.output


@pytest.fixture
def hosts(postgres_server: str, tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    """One that works, and an empty one."""
    with ExitStack() as stack:
        urls = [stack.enter_context(a_database(postgres_server)) for _ in range(2)]
        lost, new = Host(tmp_path / "lost", urls[0]), Host(tmp_path / "new", urls[1])
        settings = read(lost.config)
        Keys.make(settings.data_dir / "keys")
        open_installation(settings)
        yield lost, new


def check(*arguments: object) -> int:
    return CliRunner().invoke(auditor, [*map(str, arguments)]).exit_code


def test_a_lost_host_comes_back_with_the_same_witnessed_root_and_the_erased_still_erased(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    lost, new = hosts
    broker = lost.open()
    about_child = looked(broker.store, broker.trail, CHILD, more=(RECORD,))
    about_sibling = looked(broker.store, broker.trail, SIBLING)
    receipts = {event: broker.trail.receipt(EntryRef(event)) for event in (about_child, about_sibling)}
    night, keys = lost.run("backup.sh", "night", tmp_path / "nights"), lost.run("backup.sh", "keys", tmp_path / "safe")

    # after that night the child is erased, somebody looks again, and a witness copies the log
    proposed = erasure.propose(broker.store, broker.trail, broker.keys, officer(), ids=[CHILD, RECORD], authority="subject_request", at=AT)  # fmt: skip
    kept = Tombstones(lost.data)
    erasure.approve(
        broker.store, broker.trail, broker.keys, kept, officer("ig-2"), erasure=proposed.answer.erasure, at=AT
    )
    broker.trail.receipt(EntryRef(looked(broker.store, broker.trail, SIBLING)))
    mirror = published(broker.store, broker.trail, tmp_path / "mirror", broker.trail.origin)
    witnessed = SignedCheckpoint.parse((mirror / "checkpoint").read_text()).checkpoint
    hour = lost.run("backup.sh", "hour", tmp_path / "hours")
    policy = tmp_path / "policy"
    policy.write_text(_policy(lost))
    broker.store.close()
    shutil.rmtree(lost.data)

    new.run("restore.sh", night, hour, keys)
    told = new.says("log", "status", code=1)
    assert "broker log restore" in told  # the database is older than what was signed: nothing goes on by itself
    with pytest.raises(LogUnavailable):
        new.open()
    new.says("log", "restore", "--mirror", mirror, "--by", "op-1")
    new.says("log", "status")
    again = new.open()

    row, key, blobs = rows(again.store, about_child)
    assert (row.sections, row.detail, key, blobs) == (None, None, None, [])
    assert again.trail.opening(about_sibling, show=("who",)).body("who")
    again.trail.receipt(EntryRef(looked(again.store, again.trail, SIBLING)))
    after = published(again.store, again.trail, tmp_path / "after", again.trail.origin)
    now = SignedCheckpoint.parse((after / "checkpoint").read_text()).checkpoint
    assert now.size > witnessed.size
    state = tmp_path / "state"
    shutil.copy(mirror / "checkpoint", state)
    evidence = ("--evidence", tmp_path / "evidence")
    assert check("consistency", "--log", after, "--policy", policy, "--state", state, *evidence) == 0
    assert check("fsck", "--log", after, "--policy", policy, *evidence) == 0
    for event, receipt in receipts.items():
        path = tmp_path / f"{event}.json"
        path.write_text(receipt.dumps())
        assert check("inclusion", "--event", path, "--log", after, "--policy", policy, *evidence) == 0
    again.store.close()


def test_nothing_is_put_back_over_what_is_there_or_from_a_copy_that_was_changed(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    lost, new = hosts
    copies = [lost.run("backup.sh", what, tmp_path / "to") for what in ("night", "hour", "keys")]
    assert "is not empty" in lost.run("restore.sh", *copies, code=1)
    dump = Path(copies[0]) / "database.dump"
    whole = dump.read_bytes()
    dump.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "has been changed" in new.run("restore.sh", *copies, code=1)
    dump.write_bytes(whole)
    with psycopg.connect(new.address, autocommit=True) as owner:
        owner.execute("CREATE TABLE somebody_s (id int)")
    assert "database is not empty" in new.run("restore.sh", *copies, code=1)
    assert not new.data.exists()


def test_copies_are_for_their_owner_alone_and_no_copy_of_a_night_has_a_key(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    lost, _ = hosts
    copies = {what: Path(lost.run("backup.sh", what, tmp_path / "to")) for what in ("night", "hour", "keys", "hour")}
    for copy in copies.values():
        assert copy.stat().st_mode & 0o077 == 0
    secrets = {path.read_bytes().strip() for path in (lost.data / "keys").iterdir() if path.stat().st_mode & 0o077 == 0}
    assert len(secrets) > 3
    held = [path.read_bytes() for path in copies["night"].rglob("*") if path.is_file()]
    assert [one for one in secrets if any(one in bytes_ for bytes_ in held)] == []


def _policy(host: Host) -> str:
    told: dict[str, Any] = json.loads(host.says("log", "policy", "--json"))
    return str(told["policy"])

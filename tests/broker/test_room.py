"""A full disk: the log says so by the room of its ballast, takes no smaller entry, and goes on once there is room."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from audit.folder import LogFolder
from audit.policy import Policy
from audit.verify import fsck
from broker.ballast import Ballast
from broker.committing import Committer, degraded
from broker.errors import LogUnavailable, StoreFull
from broker.keys import Keys
from broker.store import Store, Transaction, migrate
from broker.store.log import EventRow, OutboxRow
from broker.trail import Trail, new_event_id
from tests.broker.test_shards import published
from tests.broker.test_trail import recorded
from tests.builders_signer import opened, policy_text

BALLAST = 512 * 1024
LARGE = {"blobs": {"decision/icb": b"x" * 1_500_000}}


@contextmanager
def a_small_disk(place: Path, size: str = "12m", owner: str = "") -> Iterator[Path]:
    """A disk of a few MiB, in memory."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only: the log on a full disk is not tested here")
    try:
        if owner:
            shutil.chown(place, owner, owner)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, *, but: int = 0) -> Path:
    """All but so many bytes of the disk, in a file."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while shutil.disk_usage(disk).free > but and file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return filler


def outcomes(store: Store, trail: Trail) -> list[object]:
    with store.reading() as reading:
        rows = reading.all(EventRow, type="audit.degraded", order=("seq",))
    bodies = [trail.opening(row.event_id, show=("what",)).body("what") for row in rows]
    return [body["outcome"] for body in bodies]  # type: ignore[index, call-overload]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with a_small_disk(tmp_path / "disk") as place:
        yield place


@pytest.fixture
def full_store(disk: Path, migrated_file: Path) -> Iterator[Store]:
    """A migrated SQLite database on the small disk."""
    made = Store(f"sqlite:///{shutil.copy(migrated_file, disk / 'broker.db')}")
    yield made
    made.close()


def test_the_ballast_takes_its_room_for_real_and_only_where_as_much_again_is_free(disk: Path) -> None:
    ballast = Ballast(disk / "ballast", BALLAST)
    free = shutil.disk_usage(disk).free
    assert ballast.take()
    assert shutil.disk_usage(disk).free == free - BALLAST
    assert ballast.take()
    filler = fill(disk)
    ballast.let_go()
    ballast.let_go()
    assert shutil.disk_usage(disk).free == BALLAST
    assert not ballast.take()  # it would fit, and nothing else would
    assert not list(disk.glob("*.new"))
    filler.unlink()
    assert ballast.take()


def test_on_a_full_disk_the_log_says_so_and_takes_no_smaller_entry_until_there_is_room_26(
    full_store: Store, disk: Path, keys: Keys, tmp_path: Path
) -> None:
    store, ballast = full_store, Ballast(disk / "ballast", BALLAST)
    trail = Trail(store, keys, opened(store, disk), ballast=ballast)
    kept = trail.receipt(recorded(store, trail))
    filler = fill(disk, but=256 * 1024)
    with pytest.raises(StoreFull, match="finds no room on its disk"):
        recorded(store, trail, **LARGE)
    assert trail.broken() == "StoreFull"
    for _ in range(3):  # a small one would fit: that is what the latch is for
        with pytest.raises(LogUnavailable):
            recorded(store, trail)
    assert outcomes(store, trail) == ["degraded"]
    assert not ballast.path.exists()
    with pytest.raises(LogUnavailable):
        trail.advance_pending()
    filler.unlink()
    trail.receipt(recorded(store, trail)).verify_itself()
    assert trail.broken() is None
    assert outcomes(store, trail) == ["degraded", "restored"]
    assert ballast.path.stat().st_size == BALLAST
    policy = Policy.parse(policy_text(store).encode())
    kept.verify(policy)
    assert fsck(LogFolder(published(store, trail, tmp_path / "log")), policy).facts["entries"] == 4


def test_a_broker_that_starts_on_a_full_disk_refuses_from_the_first(full_store: Store, disk: Path, keys: Keys) -> None:
    signers = opened(full_store, disk)
    filler = fill(disk)
    trail = Trail(full_store, keys, signers, ballast=Ballast(disk / "ballast", BALLAST))
    assert trail.broken() == "StoreFull"
    with pytest.raises((LogUnavailable, StoreFull)):
        recorded(full_store, trail)
    filler.unlink()
    trail.receipt(recorded(full_store, trail))


def test_while_serving_the_thread_opens_the_latch(full_store: Store, disk: Path, keys: Keys) -> None:
    trail = Trail(full_store, keys, opened(full_store, disk), ballast=Ballast(disk / "ballast", BALLAST), linger_ms=0)
    trail.start()
    try:
        trail.receipt(recorded(full_store, trail), timeout=20)
        filler = fill(disk, but=256 * 1024)
        with pytest.raises(StoreFull):
            recorded(full_store, trail, **LARGE)
        with pytest.raises(LogUnavailable):
            recorded(full_store, trail)
        filler.unlink()
        until = time.monotonic() + 20
        while trail.broken() and time.monotonic() < until:
            time.sleep(0.05)
        assert trail.broken() is None
        trail.receipt(recorded(full_store, trail), timeout=20)
    finally:
        trail.stop()
    assert outcomes(full_store, trail) == ["degraded", "restored"]


def test_an_entry_that_was_waiting_when_the_disk_filled_is_not_lost(full_store: Store, disk: Path, keys: Keys) -> None:
    trail = Trail(full_store, keys, opened(full_store, disk), ballast=Ballast(disk / "ballast", BALLAST))
    waiting = recorded(full_store, trail)
    filler = fill(disk, but=256 * 1024)
    with pytest.raises(StoreFull):
        recorded(full_store, trail, **LARGE)
    with pytest.raises(LogUnavailable):
        trail.receipt(waiting, timeout=0.2)
    filler.unlink()
    trail.advance_pending()
    assert trail.receipt(waiting).proof.index == 2  # after those that say why it waited
    with full_store.reading() as reading:
        assert reading.all(OutboxRow) == []


@pytest.mark.postgres
def test_a_full_disk_of_postgresql_is_the_same_26(postgres_server: str, keys: Keys, tmp_path: Path) -> None:
    home = Path(psycopg.conninfo.conninfo_to_dict(postgres_server).get("host") or "/nowhere")
    if not (home / "data").is_dir():
        pytest.skip("only a server that the tests started has a disk that they can fill")
    with a_small_disk(home / "small", "40m", owner="postgres") as place:
        with psycopg.connect(postgres_server, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.execute("CREATE DATABASE small TABLESPACE small")
        url = make_url(f"postgresql+psycopg://postgres@/small?host={home}")
        store = Store(url.render_as_string(hide_password=False))
        try:
            migrate.upgrade(store)
            trail = Trail(store, keys, opened(store, tmp_path), ballast=Ballast(tmp_path / "ballast", BALLAST))
            trail.receipt(recorded(store, trail))
            filler = fill(place, but=256 * 1024)
            with pytest.raises(StoreFull):
                recorded(store, trail, blobs={"decision/icb": bytes(range(256)) * 8000})
            for _ in range(3):
                with pytest.raises(LogUnavailable):
                    recorded(store, trail)
            assert trail.broken() == "StoreFull"
            filler.unlink()
            trail.receipt(recorded(store, trail))
            assert trail.broken() is None
            assert "restored" in outcomes(store, trail)
        finally:
            store.close()
            with psycopg.connect(postgres_server, autocommit=True) as connection:
                connection.execute("DROP DATABASE small WITH (FORCE)")
                connection.execute("DROP TABLESPACE small")


def test_a_store_on_a_roomy_disk_has_room(store: Store) -> None:
    assert store.has_room(1024 * 1024)
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM audit_event")).scalar() == 0


def test_that_there_is_room_again_is_not_said_before_that_there_was_none(store: Store, trail: Trail) -> None:
    """However soon it is back: what the log has first is why it took nothing."""
    told: list[str] = []
    faults = iter([LogUnavailable("not now")])

    def tells(tx: Transaction, outcome: str, reason: str) -> str:
        if fault := next(faults, None):
            raise fault
        told.append(outcome)
        return trail.record(tx, degraded(new_event_id(), "northshire", outcome, reason)).event_id

    committer = Committer(store, trail.keys, trail.signers, None, linger_ms=0)
    committer.tells(tells)
    committer.no_room()
    with pytest.raises(LogUnavailable, match="no room"):
        committer.advance()
    assert told == []
    committer.advance()
    assert (told, committer.broken()) == (["degraded", "restored"], None)
    assert outcomes(store, trail) == ["degraded", "restored"]

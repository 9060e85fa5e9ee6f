"""A full disk: nothing is acknowledged that is not kept, the sender is told why, and goes on once there is room."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from httpx2 import Response

from broker.store.batches import BatchChunkRow
from tests.builders import COUNCIL, a_batch
from tests.builders_broker import Caller, agreed, an_installation, reception, serving

pytestmark = pytest.mark.faults
MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only: commits on a full disk are not tested here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """No byte is left on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_no_room(answer: Response) -> None:
    assert answer.status_code == 507
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"].endswith("store-full")


def test_on_a_full_disk_a_chunk_and_a_commit_are_refused_and_neither_is_half_done(small_disk: Path) -> None:
    settings = an_installation(small_disk, agencies={COUNCIL: ("education",)})
    batch = agreed(a_batch())
    with serving(settings) as http:
        council, desk = Caller(http), reception(http)
        batch_id = council.open(batch).json()["batch"]
        first, *rest = batch.chunks()
        with filled(small_disk):
            assert_no_room(council.put(batch, batch_id, *first))
        with desk.store.reading() as tx:
            assert tx.all(BatchChunkRow) == []
        assert not [path for path in (desk.spool.folder / batch_id).glob("*") if path.suffix == ".part"]
        for chunk in (first, *rest):
            assert council.put(batch, batch_id, *chunk).status_code == 204
        with filled(small_disk):
            assert_no_room(council.commit(batch, batch_id))
        shown = council.on(batch, batch_id).json()
        assert (shown["state"], shown["missing"]) == ("open", [])
        assert council.commit(batch, batch_id).json()["state"] == "sealed"


def test_a_chunk_that_the_disk_takes_only_half_of_is_not_there(tmp_path: Path) -> None:
    settings = an_installation(tmp_path, agencies={COUNCIL: ("education",)})
    batch = agreed(a_batch())
    with serving(settings) as http:
        council, desk = Caller(http), reception(http)
        batch_id = council.open(batch).json()["batch"]
        table, number, content = next(iter(batch.chunks()))
        with no_file_larger_than(len(content) // 2):
            assert_no_room(council.put(batch, batch_id, table, number, content))
        assert list((desk.spool.folder / batch_id).iterdir()) == []
        assert council.put(batch, batch_id, table, number, content).status_code == 204

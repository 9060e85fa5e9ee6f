"""The signer as a process of its own: it answers its user alone, survives being killed, and can't be talked into less."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from audit.checkpoint import ML_DSA_KEY, SignedCheckpoint
from audit.merkle import consistency_proof
from audit.signer import Growth, SignerRefused
from audit.tiles import TileHashes
from broker.errors import LogUnavailable, SignerUnavailable
from broker.keys import Keys
from broker.signing import MAX_MESSAGE, RemoteSigners, SignerFolder, SignerServer
from broker.store import Store
from broker.trail import Trail
from tests.broker.test_trail import recorded
from tests.builders_log import ALog
from tests.builders_signer import ORIGIN, opened

ROOT = Path(__file__).parents[2]
SOCKET = Path("run") / "signer.sock"


def growth(size: int, since: int, *, first_salt: int = 0) -> Growth:
    head, tiles = ALog(first_salt=first_salt).add(size).grown()
    return Growth(head.frontier, consistency_proof(TileHashes(tiles, size), since, size))


@contextmanager
def listening(home: Path, *, uids: frozenset[int] | None = None, post_quantum: bool = False) -> Iterator[Path]:
    """A signer that answers in a thread; where it listens."""
    signers = SignerFolder(home / "signer", post_quantum=post_quantum)
    server = SignerServer(signers, home / SOCKET, uids=uids or frozenset({os.geteuid()}))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield home / SOCKET
    finally:
        server.stop()
        thread.join(10)


def test_what_it_signs_is_what_the_folder_would_sign(tmp_path: Path) -> None:
    with listening(tmp_path) as path:
        remote = RemoteSigners(path)
        told = remote.open(ORIGIN)
        assert (told.size, told.closed, len(told.keys)) == (0, False, 1)
        for size in (1, 40, 300):
            note = remote.sign(ORIGIN, lambda since, size=size: growth(size, since))  # type: ignore[misc]
            signed = SignedCheckpoint.parse(note)
            assert signed.checkpoint.size == size
            assert signed.signed_by(told.keys[0])
        assert remote.signed(ORIGIN) == SignerFolder(tmp_path / "signer").signed(ORIGIN) == 300
        remote.hang_up()


def test_it_refuses_to_shrink_or_fork_and_says_what_it_has(tmp_path: Path) -> None:
    with listening(tmp_path) as path:
        remote = RemoteSigners(path)
        remote.open(ORIGIN)
        remote.sign(ORIGIN, lambda since: growth(50, since))
        for wrong in (growth(40, 40), growth(50, 50, first_salt=9), growth(60, 50, first_salt=9)):
            with pytest.raises(SignerRefused):
                remote.sign(ORIGIN, lambda _, wrong=wrong: wrong)  # type: ignore[misc]
        assert remote.status()[0].size == 50
        remote.hang_up()


def test_of_two_brokers_the_slower_asks_again_from_where_the_other_has_come(tmp_path: Path) -> None:
    with listening(tmp_path) as path:
        one, other = RemoteSigners(path), RemoteSigners(path)
        one.open(ORIGIN)
        assert other.signed(ORIGIN) == 0
        one.sign(ORIGIN, lambda since: growth(10, since))
        asked: list[int] = []

        def newest(since: int) -> Growth:
            asked.append(since)
            return growth(12, since)

        assert "\n12\n" in other.sign(ORIGIN, newest)
        assert asked == [0, 10]
        one.hang_up()
        other.hang_up()


def test_a_closed_log_is_signed_no_further_and_a_rotated_one_by_both_keys_then_by_the_new(tmp_path: Path) -> None:
    with listening(tmp_path, post_quantum=True) as path:
        remote = RemoteSigners(path)
        old = remote.open(ORIGIN).keys
        assert [key.kind for key in old] == [1, ML_DSA_KEY]
        both = remote.rotate(ORIGIN).keys
        assert remote.rotate(ORIGIN).keys == both
        assert both[:2] == old
        note = SignedCheckpoint.parse(remote.sign(ORIGIN, lambda since: growth(5, since)))
        assert all(note.signed_by(key) for key in both)
        new = remote.retire(ORIGIN).keys
        assert remote.retire(ORIGIN).keys == new == both[2:]
        note = SignedCheckpoint.parse(remote.sign(ORIGIN, lambda since: growth(6, since)))
        assert [note.signed_by(key) for key in both] == [False, False, True, True]
        assert not (tmp_path / "signer" / "2026" / "1.pem").exists()
        assert remote.close(ORIGIN).closed
        remote.sign(ORIGIN, lambda since: growth(6, since))
        with pytest.raises(SignerRefused, match="closed"):
            remote.sign(ORIGIN, lambda since: growth(7, since))
        remote.hang_up()


def test_the_socket_is_its_users_and_who_is_not_on_the_list_is_not_answered(tmp_path: Path) -> None:
    with listening(tmp_path) as path:
        assert path.stat().st_mode & 0o777 == 0o600
    with listening(tmp_path, uids=frozenset({os.geteuid() + 1})) as path:
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(SignerUnavailable, match=f"does not answer user {os.geteuid()}: --allow-uid"):
            RemoteSigners(path).status()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_can_not_even_connect(tmp_path: Path) -> None:
    with listening(tmp_path) as path:
        path.parent.chmod(0o755)
        child = os.fork()
        if child == 0:
            os.chdir(path.parent)
            os.setuid(65534)
            try:
                socket.socket(socket.AF_UNIX).connect(path.name)
            except PermissionError:
                os._exit(13)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13


@pytest.mark.parametrize(
    "sent",
    [
        b"", b"\0\0", b"\0\0\0\0", (MAX_MESSAGE + 1).to_bytes(4, "big") + b"x", b"\0\0\0\2[]", b"\0\0\0\4null",
        b"\0\0\0\7\xff{}}}}}", b"GET / HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_message_ends_the_connection_and_nothing_else(tmp_path: Path, sent: bytes) -> None:
    with listening(tmp_path) as path:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5)
            raw.connect(str(path))
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                assert raw.recv(100) == b""
        remote = RemoteSigners(path)
        assert remote.status() == ()
        remote.hang_up()


@pytest.mark.parametrize(
    "question",
    [
        {}, {"do": "format"}, {"do": "sign"}, {"do": "open", "origin": 7}, {"do": "open", "origin": "a/../audit/2026"},
        {"do": "open", "origin": "no shard"}, {"do": "open", "origin": "x/audit/.."},
        {"do": "sign", "origin": ORIGIN, "size": -1, "frontier": [], "proof": []},
        {"do": "sign", "origin": ORIGIN, "size": 1, "frontier": ["AA=="], "proof": []},
        {"do": "sign", "origin": ORIGIN, "size": True, "frontier": ["A" * 43 + "="], "proof": []},
        {"do": "sign", "origin": ORIGIN, "size": 1, "frontier": 5, "proof": None},
        {"do": "sign", "origin": "another.example/audit/2026", "size": 0, "frontier": [], "proof": []},
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_and_nothing_is_made(tmp_path: Path, question: dict[str, object]) -> None:
    signers = SignerFolder(tmp_path / "signer")
    signers.open(ORIGIN)
    before = sorted(path.name for path in (tmp_path / "signer").rglob("*"))
    server = SignerServer(signers, tmp_path / SOCKET, uids=frozenset({os.geteuid()}))
    assert "refused" in server.answer(json.loads(json.dumps(question)))
    server.stop()
    assert sorted(path.name for path in (tmp_path / "signer").rglob("*")) == before
    assert signers.signed(ORIGIN) == 0


def test_two_signers_do_not_share_a_socket(tmp_path: Path) -> None:
    with listening(tmp_path) as path, pytest.raises(OSError, match="unavailable"):
        SignerServer(SignerFolder(tmp_path / "other"), path, uids=frozenset({0}))


def test_a_socket_of_a_long_name_is_reached_through_its_folder(tmp_path: Path) -> None:
    home = tmp_path / ("a" * 60) / ("b" * 60)
    with listening(home) as path:
        remote = RemoteSigners(path)
        assert remote.open(ORIGIN).size == 0
        remote.hang_up()


def test_a_state_that_was_lost_is_not_made_again(tmp_path: Path) -> None:
    signers = SignerFolder(tmp_path / "signer")
    signers.open(ORIGIN)
    signers.sign(ORIGIN, lambda since: growth(5, since))
    (tmp_path / "signer" / "2026" / "state.json").unlink()
    with pytest.raises(SignerRefused, match="missing"):
        signers.open(ORIGIN)


def test_a_log_whose_key_is_lost_is_signed_no_more_and_the_others_are_until_it_is_back(tmp_path: Path) -> None:
    other = ORIGIN.replace("2026", "2027")
    with listening(tmp_path) as path:
        remote = RemoteSigners(path)
        for origin in (ORIGIN, other):
            remote.open(origin)
        key = tmp_path / "signer" / "2026" / "1.pem"
        put_aside = key.rename(tmp_path / "1.pem")
        (tmp_path / "signer" / "2026" / "keys.json").write_text('{"signing": ["1"] }')
        for _ in range(3):  # the same each time
            with pytest.raises(SignerRefused, match="a key of this log is missing"):
                remote.rotate(ORIGIN)
        assert [each.origin for each in remote.status()] == [other]
        assert remote.sign(other, lambda since: growth(2, since))
        put_aside.rename(key)
        assert len(remote.rotate(ORIGIN).keys) == 2
        remote.hang_up()


def test_the_broker_process_holds_no_private_key_of_the_log(tmp_path: Path, store: Store) -> None:
    keys = Keys.make(tmp_path / "keys")
    assert not [path.name for path in (tmp_path / "keys").iterdir() if "log" in path.name]
    with listening(tmp_path) as path:
        remote = RemoteSigners(path)
        from broker.shards import open_for_writing
        from tests.builders_signer import OPENED

        open_for_writing(store, remote, "broker.example/audit", at=OPENED)
        trail = Trail(store, keys, remote)
        trail.receipt(recorded(store, trail)).verify_itself()
        remote.hang_up()


def test_while_the_signer_is_down_entries_wait_signed_by_nobody_and_go_out_when_it_is_back(
    tmp_path: Path, store: Store, keys: Keys
) -> None:
    opened(store, tmp_path)
    remote = RemoteSigners(tmp_path / SOCKET)
    trail = Trail(store, keys, remote, linger_ms=0)
    trail.start()
    try:
        entry = recorded(store, trail)
        with pytest.raises(LogUnavailable):
            trail.receipt(entry, timeout=0.5)
        assert trail.broken() == "SignerUnavailable"
        another = recorded(store, trail)  # what happens is recorded all the same
        until = time.monotonic() + 10
        while trail.unsequenced() and time.monotonic() < until:
            time.sleep(0.05)
        assert trail.unsequenced() == 0
        with listening(tmp_path):
            for each in (entry, another):
                trail.receipt(each, timeout=10).verify_itself()
            assert trail.broken() is None
    finally:
        trail.stop()
        remote.hang_up()


def test_a_folder_that_is_full_opens_no_more_logs_and_those_it_has_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.signing.MAX_SHARDS", 1)
    folder = SignerFolder(tmp_path / "signer")
    first = folder.open(ORIGIN)
    with pytest.raises(SignerRefused, match="at most 1"):
        folder.open(ORIGIN + "-2")
    assert folder.open(ORIGIN) == first
    assert not (tmp_path / "signer" / "2026-2").exists()

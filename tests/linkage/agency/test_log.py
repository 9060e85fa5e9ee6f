"""The log as an agency carries it: copied step by step, cosigned elsewhere, compared; bytes only."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from audit.checkpoint import SignedCheckpoint
from audit.cli import auditor
from audit.merkle import consistency_proof
from audit.policy import Policy
from audit.tiles import TileHashes
from audit.witness import Witness, WitnessKey, origin_id
from linkage.agency import log_carrying
from linkage.agency.client import Unreachable
from linkage.agency.journal import Journal
from linkage.agency.log import BadCheckpoint, copy_log
from linkage.agency.log_carrying import BadWitness, Disagrees, NotCosigned, Outside
from tests.builders_log import ORIGIN, START_S, ALog, a_key, a_policy, a_witness
from tests.linkage.agency.builders import NOW


@dataclass
class Published:
    """A broker's public files, some of which may be out of reach."""

    folder: Path
    asked: list[str] = field(default_factory=list)
    gone_after: int = 10**9

    def shows(self, log: ALog, note: str | None = None, **beside: str) -> None:
        log.write(self.folder, note)
        for name in ("witnessed", "witness"):
            (self.folder / f"checkpoint.{name}").unlink(missing_ok=True)
        for name, text in beside.items():
            (self.folder / f"checkpoint.{name}").write_text(text)

    def fetch(self, path: str) -> bytes:
        if len(self.asked) >= self.gone_after:
            raise Unreachable("gone")
        self.asked.append(path)
        return (self.folder / path).read_bytes()

    def ask(self, path: str) -> bytes | None:
        return self.fetch(path) if (self.folder / path).exists() else None

    def copied(self, out: Path) -> tuple[int, int]:
        self.asked.clear()
        return copy_log(self.fetch, out, ask=self.ask)


@pytest.fixture
def published(tmp_path: Path) -> Published:
    made = Published(tmp_path / "broker")
    made.shows(ALog().add(600))
    return made


def checked(tmp_path: Path, *more: str) -> int:
    """The exit code of `auditor fsck` or another command over what was copied."""
    (tmp_path / "policy").write_text(a_policy())
    command = more or ("fsck",)
    given = [
        *command,
        "--log",
        str(tmp_path / "log"),
        "--policy",
        str(tmp_path / "policy"),
        "--evidence",
        str(tmp_path / "evidence"),
    ]
    return CliRunner().invoke(auditor, given).exit_code


def test_a_copy_is_whole_and_the_next_fetches_only_what_is_new(published: Published, tmp_path: Path) -> None:
    out = tmp_path / "log"
    assert published.copied(out) == (600, 7)
    assert checked(tmp_path) == 0
    assert published.copied(out) == (600, 0)
    published.shows(ALog().add(610))
    assert published.copied(out) == (610, 2)
    assert checked(tmp_path) == 0


def test_a_copy_that_broke_off_leaves_the_folder_as_it_was_and_goes_on_where_it_was(
    published: Published, tmp_path: Path
) -> None:
    out = tmp_path / "log"
    published.shows(ALog().add(300))
    published.copied(out)
    published.shows(ALog().add(600))
    published.gone_after = 3
    with pytest.raises(Unreachable):
        published.copied(out)
    assert (out / "checkpoint").read_text() == ALog().add(300).signed().note
    assert checked(tmp_path) == 0
    published.gone_after = 10**9
    size, fetched = published.copied(out)
    assert (size, fetched) == (600, 3)  # of five, two had arrived
    assert checked(tmp_path) == 0


def test_what_witnesses_signed_comes_along_and_goes_when_it_is_gone(published: Published, tmp_path: Path) -> None:
    out = tmp_path / "log"
    witnessed = ALog().add(590).signed([0]).note
    published.shows(ALog().add(600), witnessed=witnessed, witness=ALog().add(600).signed().note)
    published.copied(out)
    assert (out / "checkpoint.witnessed").read_text() == witnessed
    assert published.asked.index("checkpoint.witnessed") < published.asked.index("checkpoint")
    published.shows(ALog().add(600))
    published.copied(out)
    assert not (out / "checkpoint.witnessed").exists()


def test_the_checkpoint_of_before_is_kept_when_the_log_shrinks_or_forks_and_shows_it_7_9(
    published: Published, tmp_path: Path
) -> None:
    out = tmp_path / "log"
    published.copied(out)
    published.shows(ALog().add(450))
    published.copied(out)
    assert (out / "heard" / "here-600").read_text() == ALog().add(600).signed().note
    assert checked(tmp_path, "gossip", "--heard", str(out / "heard")) == 4  # it was shown more once than it is now
    fork = ALog().add(450)
    fork.first_salt = 9
    published.shows(fork.add(200))
    (out / "heard").rename(tmp_path / "heard")
    published.copied(tmp_path / "other")
    (tmp_path / "log").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "log")
    assert checked(tmp_path, "gossip", "--heard", str(tmp_path / "heard")) == 1


def test_what_is_no_checkpoint_is_refused_before_a_file_is_touched(published: Published, tmp_path: Path) -> None:
    (published.folder / "checkpoint").write_text("hello\n")
    with pytest.raises(BadCheckpoint):
        published.copied(tmp_path / "log")
    assert not (tmp_path / "log").exists()


# --- A witness outside ------------------------------------------------------------------------------------------------


@dataclass
class Stranger:
    """A witness of somebody else's, over HTTP on loopback: C2SP tlog-witness, and its memory as static files."""

    witness: Witness
    memory: Path
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    answers: Callable[[bytes], tuple[int, str, bytes]] | None = None


@contextmanager
def a_stranger(folder: Path, number: int = 5, policy: Policy | None = None) -> Iterator[Stranger]:
    known = policy or Policy.parse(a_policy().encode())
    witness = Witness(WitnessKey(a_witness(number).name, a_key(100 + number)), folder / "seen", known)
    stranger = Stranger(witness, folder / "seen")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server gives it
            body = self.rfile.read(int(self.headers["Content-Length"]))
            stranger.bodies.append(body)
            if stranger.answers is not None:
                self._say(*stranger.answers(body))
                return
            answer = witness.add_checkpoint(body.decode(), at_s=START_S)
            self._say(answer.status, answer.media_type, answer.body.encode())

        def do_GET(self) -> None:
            path = stranger.memory / self.path.lstrip("/").removeprefix("w/")
            self._say(200, "text/plain", path.read_bytes()) if path.is_file() else self._say(404, "text/plain", b"")

        def _say(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stranger.url = f"http://127.0.0.1:{server.server_port}/w"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stranger
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    with a_stranger(tmp_path / "stranger") as made:
        yield made


def growth(log: ALog) -> Callable[[int, int], bytes]:
    def proof(old: int, new: int) -> bytes:
        head, tiles = log.grown()
        hashes = consistency_proof(TileHashes(tiles, head.size), old, new)
        return b"".join(base64.b64encode(each) + b"\n" for each in hashes)

    return proof


def fed(folder: Path, log: ALog, stranger: Stranger) -> tuple[int, int]:
    outside = Outside(seconds=5)
    return log_carrying.feed(folder, stranger.url, outside.post, growth(log))


def test_a_feeder_brings_a_line_back_first_from_nothing_and_then_from_where_the_witness_is(
    stranger: Stranger, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    for size, posts in ((300, 1), (600, 2)):
        log = ALog().add(size)
        log.write(folder)
        stranger.bodies.clear()
        assert fed(folder, log, stranger) == (size, 1)
        assert len(stranger.bodies) == posts
        cosigned = SignedCheckpoint.parse((folder / "cosigned").read_text())
        assert cosigned.checkpoint.size == size
        assert cosigned.cosigned_at(a_witness(5)) == START_S
    fed(folder, log, stranger)
    assert len(SignedCheckpoint.parse((folder / "cosigned").read_text()).signatures) == 2


def test_lines_of_several_witnesses_gather_under_one_checkpoint(stranger: Stranger, tmp_path: Path) -> None:
    log, folder = ALog().add(300), tmp_path / "log"
    log.write(folder)
    (folder / "cosigned").write_text(log.signed([0]).note)
    with a_stranger(tmp_path / "another", number=6) as another:
        fed(folder, log, stranger)
        fed(folder, log, another)
    cosigned = SignedCheckpoint.parse((folder / "cosigned").read_text())
    assert [cosigned.cosigned_at(a_witness(number)) for number in (0, 5, 6)] == [START_S] * 3


def test_a_witness_that_saw_another_tree_is_a_finding_and_all_of_it_is_kept_10(
    stranger: Stranger, tmp_path: Path
) -> None:
    honest, folder = ALog().add(300), tmp_path / "log"
    honest.write(folder)
    fed(folder, honest, stranger)
    fork = ALog().add(200)
    fork.first_salt = 9
    for size in (300, 320):
        fork.add(size - len(fork.leaves)).write(folder)
        with pytest.raises(Disagrees, match="another tree"):
            fed(folder, fork, stranger)
    kept = sorted((folder / "evidence").glob("*/*"))
    assert [path.name for path in kept] == ["add-checkpoint", "answer"] * 2
    assert kept[1].read_bytes().startswith(b"422 ")
    found = log_carrying.gossip(folder, stranger.url, Outside(seconds=5).get)
    assert found is not None
    assert checked(tmp_path, "gossip", "--heard", str(folder / "heard")) == 1


def test_what_a_witness_has_seen_is_brought_for_comparing(stranger: Stranger, tmp_path: Path) -> None:
    log, folder = ALog().add(300), tmp_path / "log"
    log.write(folder)
    outside = Outside(seconds=5)
    assert log_carrying.gossip(folder, stranger.url, outside.get) is None
    fed(folder, log, stranger)
    place = log_carrying.gossip(folder, stranger.url + "/", outside.get)
    assert place is not None
    assert place.read_bytes() == (stranger.memory / origin_id(ORIGIN) / "checkpoint").read_bytes()
    assert checked(tmp_path, "gossip", "--heard", str(folder / "heard")) == 0


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ((404, "text/plain", b""), NotCosigned),
        ((403, "text/plain", b""), NotCosigned),
        ((409, "text/x.tlog.size", b"900\n"), NotCosigned),
        ((409, "text/x.tlog.size", b"nine\n"), Disagrees),
        ((503, "text/plain", b""), Unreachable),
        ((200, "text/plain", b"hello\n"), Unreachable),
        ((200, "text/plain", "— a.example AAAA".encode()), Unreachable),
        ((200, "text/plain", "— a.example AAAA\n".encode() * 13), Unreachable),
        ((200, "text/plain", b"x" * 70_000), Unreachable),
        ((301, "text/plain", b""), NotCosigned),
    ],
)
def test_whatever_else_a_witness_answers_changes_nothing_here(
    stranger: Stranger, tmp_path: Path, answer: tuple[int, str, bytes], fault: type[Exception]
) -> None:
    stranger.answers = lambda body: answer
    log, folder = ALog().add(300), tmp_path / "log"
    log.write(folder)
    with pytest.raises(fault):
        fed(folder, log, stranger)
    assert not (folder / "cosigned").exists()


@pytest.mark.parametrize(
    "url",
    ["http://w.example", "ftp://w.example", "https://", "https://me@w.example", "https://w.example/?x=1", "w.example"],
)
def test_an_address_that_is_not_https_or_says_more_is_refused(tmp_path: Path, url: str) -> None:
    ALog().add(3).write(tmp_path)
    with pytest.raises(BadWitness):
        log_carrying.feed(tmp_path, url, Outside(seconds=1).post, growth(ALog().add(3)))


def test_nothing_is_handed_in_before_anything_is_cosigned(tmp_path: Path) -> None:
    with pytest.raises(NotCosigned, match="cosign first"):
        log_carrying.cosigned(tmp_path)


# --- The journal ------------------------------------------------------------------------------------------------------


def test_the_journal_says_what_was_asked_and_keeps_the_receipt_and_no_decision(tmp_path: Path) -> None:
    journal = Journal(tmp_path, now=lambda: NOW)
    request = hashlib.sha256(b"statement").hexdigest()
    receipt = {"event_id": "event-1", "log": {}, "opening": {}, "proof": "p", "decisions": [{"child": "x"}]}
    journal.sent(request, "POST /v1/searches")
    journal.answered(request, 200, receipt)
    journal.answered(request, 403)
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    at = "2026-11-22T02:30:00Z"
    assert lines == [
        {"at": at, "id": request, "what": "POST /v1/searches"},
        {"at": at, "id": request, "answered": 200, "event": "event-1"},
        {"at": at, "id": request, "answered": 403, "event": None},
    ]
    kept = tmp_path / "receipts" / "asked" / "event-1.json"
    assert json.loads(kept.read_text()) == {"event_id": "event-1", "log": {}, "opening": {}, "proof": "p"}
    assert oct(kept.stat().st_mode & 0o777) == oct((tmp_path / "requests.jsonl").stat().st_mode & 0o777) == "0o600"
    journal.answered(request, 200, receipt | {"event_id": "../../evil"})
    assert [path.name for path in kept.parent.iterdir()] == ["event-1.json"]

"""The log's private keys and what they have signed, behind one small interface: in a process of its own, or in ours.

A signer's folder holds a folder for each shard of the log:

    signer/2026/state.json      what was signed last (audit.signer); without it nothing is signed
    signer/2026/keys.json       which of the keys sign now: one, or two while a new one takes over
    signer/2026/1.pem           Ed25519; `1q.pem` ML-DSA-44, where that is switched on

`broker signer` serves that folder on a Unix socket to the broker's user, so that whoever owns broker and database can't
make the log shrink or fork.  A message is four bytes of length, big-endian, and JSON; one question, one answer:

    {"do": "sign", "origin", "size", "frontier", "proof"}    ->  {"note"}  or  {"refused", "size"}
    {"do": "open" | "rotate" | "retire" | "close", "origin"} ->  {"log"}   or  {"refused", "size"}
    {"do": "status"}                                         ->  {"logs": [...]}

The signer is told the tree's right edge and a proof from what it signed last; where another process was quicker, it
says what it has signed since, and is asked again.  `sign` for all that waits is one round trip.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from audit.checkpoint import SigningKey, VerifierKey, unb64
from audit.merkle import Frontier
from audit.signer import Growth, Signer, SignerRefused, replace_file
from broker import folders
from broker.errors import LogUnavailable, SignerUnavailable
from broker.keys import private_key

log = structlog.get_logger()
MAX_MESSAGE: Final = 64 * 1024
MAX_CONNECTIONS: Final = 32
MAX_SHARDS: Final = 200
MAX_ORIGIN: Final = 200
ANSWER_SECONDS: Final = 3.0  # for one question
IDLE_SECONDS: Final = 300.0  # for the next
_ATTEMPTS: Final = 5
_ORIGIN: Final = re.compile(
    r"[A-Za-z0-9\[][A-Za-z0-9.:\]-]*(?:/[A-Za-z0-9][A-Za-z0-9_-]*)*/audit/([0-9]{4}(?:-[0-9]{1,3})?)"
)
_SUN_PATH: Final = 100  # a Unix socket's address holds 108 bytes
_CREDENTIALS: Final = struct.Struct("3i")


class CrossedWith(SignerRefused):
    """The signer refused, and says what it has signed: another process may have been quicker."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


@dataclass(frozen=True, slots=True)
class SignedLog:
    """What a signer says of one log: how far it has signed, with which keys, and whether it has closed it."""

    origin: str
    size: int
    root: bytes
    closed: bool
    keys: tuple[VerifierKey, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "origin": self.origin, "size": self.size, "root": base64.b64encode(self.root).decode(),
            "closed": self.closed, "keys": [str(key) for key in self.keys],
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SignedLog:
        """Parse what `to_json` wrote.  Raises KeyError, TypeError or ValueError."""
        keys = tuple(VerifierKey.parse(key) for key in value["keys"])
        return cls(str(value["origin"]), int(value["size"]), unb64(value["root"]), value["closed"] is True, keys)


class Signers(Protocol):
    """Who signs the log's shards.

    Everything here raises SignerRefused (for good: a person must look) or SignerUnavailable.
    """

    def sign(self, origin: str, newest: Callable[[int], Growth]) -> str:
        """The signed note over the newest tree; `newest` is told the size last signed."""
        ...

    def signed(self, origin: str) -> int | None:
        """How far a log has been signed, as far as is known here; None for a log that the signer has not opened."""
        ...

    def status(self) -> tuple[SignedLog, ...]:
        """Every log it has opened, by origin; but one whose key is lost."""
        ...

    def open(self, origin: str) -> SignedLog:
        """Make keys and a state for a log that has no leaf yet.  Twice does no harm."""
        ...

    def rotate(self, origin: str) -> SignedLog:
        """Make a new key; the old and the new both sign from now on.  Twice does no harm."""
        ...

    def retire(self, origin: str) -> SignedLog:
        """Destroy the old key: the new one signs alone.  Twice does no harm."""
        ...

    def close(self, origin: str) -> SignedLog:
        """Sign no further growth of this log, ever."""
        ...


class SignerFolder:
    """A signer's folder, used in this process.  Several processes may: each question takes the folder's locks."""

    def __init__(self, folder: Path, *, post_quantum: bool = False) -> None:
        self.folder: Final = folder
        self._post_quantum = post_quantum
        self._opened: dict[Path, tuple[bytes, tuple[SigningKey, ...]]] = {}

    def sign(self, origin: str, newest: Callable[[int], Growth]) -> str:
        """As Signers says."""
        return self._signer(origin).sign_newest(newest)

    def signed(self, origin: str) -> int | None:
        """As Signers says."""
        return self._signer(origin).size if self._place(origin).is_dir() else None

    def status(self) -> tuple[SignedLog, ...]:
        """As Signers says."""
        if not self.folder.is_dir():
            return ()
        try:
            origins = [str(json.loads(state.read_bytes())["origin"]) for state in self.folder.glob("*/state.json")]
        except (OSError, ValueError, KeyError, TypeError):
            raise SignerRefused("a signer's state file can't be read") from None
        told = []
        for origin in sorted(origins):
            try:
                told.append(self._told(origin))
            except SignerRefused as lost:  # one log's key: the others go on, and a new one may begin
                log.error("a log can't be signed", reason=str(lost))
        return tuple(told)

    def open(self, origin: str) -> SignedLog:
        """As Signers says."""
        folders.make(self.folder)
        with self._locked():
            place = self._place(origin)
            if not place.is_dir() and len(list(self.folder.glob("*/state.json"))) >= MAX_SHARDS:
                raise SignerRefused(f"a signer keeps at most {MAX_SHARDS} logs")
            folders.make(place)
            if not (place / "keys.json").exists():  # the state first: keys without one mean that it was lost
                if not (place / "state.json").exists():
                    Signer.create(place / "state.json", Ed25519PrivateKey.generate(), origin)
                self._make(place, 1)
                _say_signing(place, ["1"])
        return self._told(origin)

    def rotate(self, origin: str) -> SignedLog:
        """As Signers says."""
        with self._locked():
            self._signer(origin)
            place = self._place(origin)
            signing = _signing(place)
            if len(signing) == 1:
                number = int(signing[0]) + 1
                self._make(place, number)
                _say_signing(place, [*signing, str(number)])
        return self._told(origin)

    def retire(self, origin: str) -> SignedLog:
        """As Signers says."""
        with self._locked():
            self._signer(origin)
            place = self._place(origin)
            *old, newest = _signing(place)
            _say_signing(place, [newest])
            for number in old:
                for name in (f"{number}.pem", f"{number}q.pem"):
                    (place / name).unlink(missing_ok=True)
        return self._told(origin)

    def close(self, origin: str) -> SignedLog:
        """As Signers says."""
        self._signer(origin).close()
        return self._told(origin)

    def _told(self, origin: str) -> SignedLog:
        signer = self._signer(origin)
        kept = signer.kept()
        return SignedLog(origin, kept.frontier.size, kept.frontier.root, kept.closed, signer.verifiers)

    def _signer(self, origin: str) -> Signer:
        place = self._place(origin)
        if not self.folder.is_dir():
            raise SignerUnavailable("the signer's folder can't be reached")
        try:
            said = (place / "keys.json").read_bytes()
        except FileNotFoundError:
            raise SignerRefused("the signer holds no key of this log") from None
        held = self._opened.get(place)
        if held is None or held[0] != said:
            numbers = _signing(place)
            if not all((place / f"{n}.pem").exists() for n in numbers):
                raise SignerRefused("a key of this log is missing")
            names = [name for n in numbers for name in (f"{n}.pem", f"{n}q.pem") if (place / name).exists()]
            held = self._opened[place] = (said, tuple(_key(place / name) for name in names))
        first, *more = held[1]
        return Signer(place / "state.json", first, origin, *more)

    def _place(self, origin: str) -> Path:
        found = _ORIGIN.fullmatch(origin)
        if found is None or len(origin) > MAX_ORIGIN:
            raise SignerRefused("that is no origin of a log: <host>/audit/<year>")
        return self.folder / found[1]

    def _make(self, place: Path, number: int) -> None:
        made: dict[str, SigningKey] = {f"{number}.pem": Ed25519PrivateKey.generate()}
        if self._post_quantum:
            made[f"{number}q.pem"] = MLDSA44PrivateKey.generate()
        for name, key in made.items():
            replace_file(place / name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.folder.is_dir():
            raise SignerUnavailable("the signer's folder can't be reached")
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class RemoteSigners:
    """The signer behind a socket: one connection, made again when it breaks.  Safe for several threads."""

    def __init__(self, path: Path, *, seconds: float = ANSWER_SECONDS) -> None:
        self._path = path
        self._seconds = seconds
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._sizes: dict[str, int] = {}

    def sign(self, origin: str, newest: Callable[[int], Growth]) -> str:
        """As Signers says."""
        known = self._sizes.get(origin)
        if known is None:
            known = self.signed(origin)
        if known is None:
            raise SignerRefused("the signer has not opened this log")
        for _ in range(_ATTEMPTS):
            growth = newest(known)
            try:
                answer = self._asked(
                    {
                        "do": "sign", "origin": origin, "size": growth.frontier.size,
                        "frontier": _b64s(growth.frontier.hashes), "proof": _b64s(growth.proof),
                    }
                )  # fmt: skip
            except CrossedWith as crossed:
                self._sizes[origin] = crossed.size
                if crossed.size == known:
                    raise SignerRefused(str(crossed)) from None
                known = crossed.size  # another process was quicker: once more, from there
                continue
            self._sizes[origin] = growth.frontier.size
            return str(answer["note"])
        raise SignerUnavailable("other processes kept signing")

    def signed(self, origin: str) -> int | None:
        """As Signers says."""
        if origin not in self._sizes:
            self._sizes |= {each.origin: each.size for each in self.status()}
        return self._sizes.get(origin)

    def status(self) -> tuple[SignedLog, ...]:
        """As Signers says."""
        try:
            return tuple(SignedLog.from_json(each) for each in self._asked({"do": "status"})["logs"])
        except (KeyError, TypeError, ValueError):
            raise SignerUnavailable("the signer's answer can't be read") from None

    def open(self, origin: str) -> SignedLog:
        """As Signers says."""
        return self._done("open", origin)

    def rotate(self, origin: str) -> SignedLog:
        """As Signers says."""
        return self._done("rotate", origin)

    def retire(self, origin: str) -> SignedLog:
        """As Signers says."""
        return self._done("retire", origin)

    def close(self, origin: str) -> SignedLog:
        """As Signers says."""
        return self._done("close", origin)

    def hang_up(self) -> None:
        """Give the connection back."""
        with self._lock:
            self._drop()

    def _done(self, what: str, origin: str) -> SignedLog:
        try:
            told = SignedLog.from_json(self._asked({"do": what, "origin": origin})["log"])
        except (KeyError, TypeError, ValueError):
            raise SignerUnavailable("the signer's answer can't be read") from None
        self._sizes[origin] = told.size
        return told

    def _asked(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer.  A connection that broke since the last question is made again, once: each may be asked twice."""
        with self._lock:
            fresh = self._connection is None
            try:
                answer = self._ask_once(question)
            except (OSError, ValueError):
                self._drop()
                if fresh:
                    raise SignerUnavailable("the signer can't be reached") from None
                try:
                    answer = self._ask_once(question)
                except (OSError, ValueError):
                    self._drop()
                    raise SignerUnavailable("the signer can't be reached") from None
        if "refused" in answer:
            size = answer.get("size")
            if isinstance(size, int):
                raise CrossedWith(str(answer["refused"]), size)
            raise SignerRefused(str(answer["refused"]))
        if "unavailable" in answer:
            raise SignerUnavailable(str(answer["unavailable"]))
        return answer

    def _ask_once(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(self._seconds)
            try:
                with _address(self._path) as address:
                    connection.connect(address)
            except OSError:
                connection.close()
                raise
            self._connection = connection
        _send(self._connection, question)
        answer = _receive(self._connection)
        if answer is None:
            raise ConnectionResetError
        return answer

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SignerServer:
    """`broker signer`: a signer's folder behind a Unix socket, for users of a list alone."""

    def __init__(self, signers: SignerFolder, path: Path, *, uids: frozenset[int]) -> None:
        """Listens at once.  Raises OSError if it can't, or if another signer listens there already."""
        self._signers = signers
        self._path = path
        self._uids = uids
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._stopping = False
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._guard = path.with_name(path.name + ".lock").open("w")
        try:
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)  # left by one that was killed: the lock is ours
            self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with _address(path) as address:
                self._listening.bind(address)
            # connecting takes the right to write; of those let in by the group, the list says who is answered
            path.chmod(0o600 if uids == {os.geteuid()} else 0o660)
            self._listening.listen(MAX_CONNECTIONS)
        except OSError:
            self._guard.close()
            raise

    def serve(self) -> None:
        """Answer until `stop`."""
        while not self._stopping:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def stop(self) -> None:
        """Take no more questions."""
        self._stopping = True
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._path.unlink(missing_ok=True)
        self._guard.close()

    def _attend(self, connection: socket.socket) -> None:
        try:
            with connection:
                raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                _, uid, _ = _CREDENTIALS.unpack(raw)
                if uid not in self._uids:
                    log.error("a caller was turned away", reason="uid")
                    connection.settimeout(ANSWER_SECONDS)
                    _receive(connection)  # or the answer would be lost with the question
                    _send(connection, {"unavailable": f"the signer does not answer user {uid}: --allow-uid says whom"})
                    return
                while not self._stopping:
                    connection.settimeout(IDLE_SECONDS)
                    question = _receive(connection, within=ANSWER_SECONDS)
                    if question is None:
                        return
                    _send(connection, self.answer(question))
        except (OSError, ValueError):
            return
        finally:
            self._room.release()

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one question; whatever is wrong with it is a refusal, and never ends the process."""
        try:
            return self._answer(question)
        except SignerRefused as refused:
            log.error("signer refused", reason=str(refused))
            return {"refused": str(refused)}
        except (OSError, LogUnavailable) as wrong:
            log.error("signer can't sign", fault=type(wrong).__name__)
            return {"unavailable": "the signer can't keep its state"}
        except (KeyError, TypeError, ValueError, RecursionError):
            return {"refused": "that is no question to a signer"}

    def _answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        match question:
            case {"do": "status"}:
                return {"logs": [each.to_json() for each in self._signers.status()]}
            case {"do": "sign", "origin": str(origin)}:
                return self._sign(origin, _growth(question))
            case {"do": "open" | "rotate" | "retire" | "close" as act, "origin": str(origin)}:
                told: SignedLog = getattr(self._signers, act)(origin)
                log.info("the signer's keys or state changed", state=act, size=told.size)
                return {"log": told.to_json()}
            case _:
                raise ValueError("no such question")

    def _sign(self, origin: str, growth: Growth) -> dict[str, Any]:
        try:
            return {"note": self._signers.sign(origin, lambda _: growth)}
        except SignerRefused as refused:
            size = self._signers.signed(origin)
            log.error("signer refused", reason=str(refused), size=growth.frontier.size)
            return {"refused": str(refused), "size": size}


def _growth(question: Mapping[str, Any]) -> Growth:
    hashes, proof = (tuple(unb64(each) for each in question[name]) for name in ("frontier", "proof"))
    size = question["size"]
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError("size")
    return Growth(Frontier(size, hashes), proof)


def _key(path: Path) -> SigningKey:
    key = private_key(path)
    if not isinstance(key, Ed25519PrivateKey | MLDSA44PrivateKey):
        raise SignerRefused(f"{path.name} holds no key that signs logs")
    return key


def _signing(place: Path) -> list[str]:
    try:
        said = json.loads((place / "keys.json").read_bytes())["signing"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SignerRefused("the list of this log's keys can't be read") from None
    if not isinstance(said, list) or not said or not all(isinstance(each, str) and each.isdigit() for each in said):
        raise SignerRefused("the list of this log's keys can't be read")
    return said


def _say_signing(place: Path, numbers: Sequence[str]) -> None:
    replace_file(place / "keys.json", json.dumps({"signing": list(numbers)}).encode() + b"\n")


def _b64s(hashes: Sequence[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in hashes]


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    connection.sendall(len(data).to_bytes(4, "big") + data)


def _receive(connection: socket.socket, *, within: float | None = None) -> dict[str, Any] | None:
    """The next message; None at the end.  Raises ValueError for one that is too long or no JSON object."""
    head = _exactly(connection, 4)
    if head is None:
        return None
    if within is not None:
        connection.settimeout(within)
    length = int.from_bytes(head, "big")
    if not 2 <= length <= MAX_MESSAGE:
        raise ValueError("a message is 2 bytes to 64 KiB")
    body = _exactly(connection, length)
    value = json.loads(body or b"null")
    if not isinstance(value, dict):
        raise ValueError("a message is an object")
    return value


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        some = connection.recv(count - len(data))
        if not some:
            return None
        data += some
    return bytes(data)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A Unix socket's address; a path too long for one is named through its folder, held open."""
    if len(os.fsencode(path)) <= _SUN_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

"""The signer: it won't shrink or fork the log, whatever the database says."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from audit.checkpoint import Checkpoint, SigningKey, VerifierKey, sign, unb64
from audit.merkle import Frontier, ProofInvalid, verify_consistency


class SignerRefused(RuntimeError):
    """The signer was asked to sign something that is not the growth of what it signed before, or has no state."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What the signer is asked to sign: the right edge of the newest tree, and the proof from what it signed last."""

    frontier: Frontier
    proof: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """What the signer remembers: the tree it signed last, and whether it signs no other after it."""

    frontier: Frontier
    closed: bool = False


class Signer:
    """Signs checkpoints of one log, each a growth of the last.

    Its own state file (size, root, frontier) says what was signed last; it is replaced atomically and fsynced *before*
    a signature leaves, under a file lock, so that of several processes one signs at a time.  A database restored from
    a backup, or rewritten, therefore gets no signature.  A missing state file is refused too: `create` makes the first.
    `also` are further keys whose lines stand under the first's: a new key beside the old, or one of another kind.
    """

    def __init__(self, state_path: Path, key: SigningKey, origin: str, *also: SigningKey) -> None:
        self._path = state_path
        self._keys = (key, *also)
        self.origin: Final = origin

    @classmethod
    def create(cls, state_path: Path, key: SigningKey, origin: str, *also: SigningKey) -> Signer:
        """A signer for a log that has no leaf yet.  Raises SignerRefused if there is a state file already."""
        signer = cls(state_path, key, origin, *also)
        state_path.parent.mkdir(parents=True, exist_ok=True)
        with signer._locked():
            if state_path.exists():
                raise SignerRefused("there is a signer's state already: a log is opened once")
            signer._keep(Kept(Frontier()))
        return signer

    @property
    def verifier(self) -> VerifierKey:
        """The first key to write into policies."""
        return self.verifiers[0]

    @property
    def verifiers(self) -> tuple[VerifierKey, ...]:
        """Every key that signs now."""
        return tuple(VerifierKey.of(key, self.origin) for key in self._keys)

    @property
    def size(self) -> int:
        """The size last signed.  Raises SignerRefused if there is no readable state."""
        return self.kept().frontier.size

    def sign(self, frontier: Frontier, proof: Sequence[bytes] = ()) -> str:
        """The signed note over this tree, given the consistency proof from `size`.

        Signing again what was signed last gives the same note.  Raises SignerRefused for a smaller tree, another tree
        of the same size, or a proof that fails; nothing is signed and the state stays.
        """
        return self.sign_newest(lambda _: Growth(frontier, proof))

    def sign_newest(self, newest: Callable[[int], Growth]) -> str:
        """As `sign`, but asks for the newest tree under the lock, telling the size last signed.

        So of two processes the one that waited signs what is newest then, not what it held before, which would be
        a shrinkage.
        """
        with self._locked():
            kept = self.kept()
            asked = newest(kept.frontier.size)
            root = _grown(kept, asked)
            if asked.frontier != kept.frontier:
                self._keep(Kept(asked.frontier))
        return sign(Checkpoint(self.origin, asked.frontier.size, root), *self._keys).note

    def close(self) -> None:
        """Sign no tree but the last from now on.  Twice does no harm.  Raises SignerRefused as `size`."""
        with self._locked():
            kept = self.kept()
            if not kept.closed:
                self._keep(Kept(kept.frontier, closed=True))

    def kept(self) -> Kept:
        """What was signed last.  Raises SignerRefused if there is no readable state."""
        try:
            state = json.loads(self._path.read_bytes())
            kept = Frontier(state["size"], tuple(unb64(each) for each in state["frontier"]))
            whole = state["origin"] == self.origin and unb64(state["root"]) == kept.root
            closed = state["closed"] is True
        except FileNotFoundError:
            raise SignerRefused("the signer's state file is missing; a log is not opened twice") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise SignerRefused("the signer's state file can't be read") from None
        if not whole:
            raise SignerRefused("the signer's state file is of another log, or was changed")
        return Kept(kept, closed)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._path.with_name(self._path.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _keep(self, kept: Kept) -> None:
        state = {
            "origin": self.origin,
            "size": kept.frontier.size,
            "root": base64.b64encode(kept.frontier.root).decode(),
            "frontier": [base64.b64encode(each).decode() for each in kept.frontier.hashes],
            "closed": kept.closed,
        }
        replace_file(self._path, json.dumps(state, indent=1).encode() + b"\n")


def _grown(kept: Kept, asked: Growth) -> bytes:
    """The root of what is asked for, if it is the kept tree or a growth of it.  Raises SignerRefused."""
    old, new = kept.frontier, asked.frontier
    if new.size < old.size:
        raise SignerRefused(f"the log would shrink from {old.size} to {new.size} leaves")
    if kept.closed and new != old:
        raise SignerRefused(f"the log was closed at {old.size} leaves")
    root = new.root
    try:
        verify_consistency(old.size, new.size, old.root, root, asked.proof)
    except ProofInvalid as fault:
        raise SignerRefused(
            f"the log of {new.size} leaves does not begin with the {old.size} signed: {fault}"
        ) from None
    return root


def replace_file(path: Path, data: bytes) -> None:
    """The file holds `data`, durably, or is as it was: written beside, fsynced, renamed, its folder fsynced."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as out:
        os.fchmod(out.fileno(), 0o600)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

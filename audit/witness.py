"""A witness: whoever cosigns a checkpoint says "this log has only grown, as far as I have ever seen".

A cosignature (C2SP tlog-cosignature, type 0x04) is Ed25519 over a time and the checkpoint's text.  What a key has
cosigned last is its memory, a folder beside the key file:

    witness.key                              PRIVATE+KEY+<name>+<key id>+<base64>: one line, mode 0600
    witness.key.seen/<sha256 of origin>/checkpoint         the newest checkpoint that the key cosigned, with its line
    witness.key.seen/<sha256 of origin>/conflict-<root>    a note the log signed that can't be true beside it

The memory is replaced, durably, *before* a cosignature is given out, under a lock: a key never cosigns two trees.  The
folder may be served as static files, so that others compare (`GET <witness>/<sha256 of origin>/checkpoint`).

`add_checkpoint` answers the texts of C2SP tlog-witness; who carries them is not known here.  Where that page has two
rules for another root at the same size (the proof does not verify: 422; the roots differ: 409), the first is followed.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import (
    WITNESS_KEY,
    Checkpoint,
    NoteInvalid,
    Signature,
    SignedCheckpoint,
    VerifierKey,
    cosigned_message,
    unb64,
)
from audit.merkle import EMPTY_ROOT, HASH_BYTES, ProofInvalid, verify_consistency
from audit.policy import Policy
from audit.signer import replace_file

MAX_PROOF: Final = 63
FORGOTTEN: Final = 500  # what the key cosigned last can't be read
GROWN_DAYS: Final = 100
SIZE_TYPE: Final = "text/x.tlog.size"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,14})")
_MARK: Final = "PRIVATE+KEY+"


class BadWitnessKey(ValueError):
    """A file that is not a witness's private key; nothing of it is quoted."""


class RequestInvalid(ValueError):
    """A text that is not an add-checkpoint request."""


class Refused(ValueError):
    """The witness does not cosign.  `status` is what C2SP tlog-witness answers; `kept` what the key cosigned last."""

    def __init__(self, status: int, message: str, kept: SignedCheckpoint | None = None) -> None:
        super().__init__(message)
        self.status: Final = status
        self.kept: Final = kept

    @property
    def size(self) -> int:
        """How many leaves the key cosigned last."""
        return 0 if self.kept is None else self.kept.checkpoint.size


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness's private key, under its name."""

    name: str
    key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def make(cls, name: str) -> WitnessKey:
        """A fresh key.  Raises NoteInvalid for a name with spaces or a plus sign."""
        made = cls(name, Ed25519PrivateKey.generate())
        _ = made.verifier
        return made

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """The key of a file that `text` wrote.  Raises BadWitnessKey."""
        name, _, rest = text.strip().removeprefix(_MARK).partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = unb64(encoded)
            if not text.startswith(_MARK) or len(data) != 33 or data[0] != WITNESS_KEY:
                raise BadWitnessKey("not a witness's key file: PRIVATE+KEY+name+id+base64 of type 4 and 32 bytes")
            found = cls(name, Ed25519PrivateKey.from_private_bytes(data[1:]))
            if found.verifier.key_id.hex() != key_id:
                raise BadWitnessKey("the key file's id is not that of its name and key")
        except NoteInvalid:
            raise BadWitnessKey("not a witness's key file") from None
        return found

    @property
    def text(self) -> str:
        """The key file."""
        data = base64.b64encode(bytes([WITNESS_KEY]) + self.key.private_bytes_raw()).decode()
        return f"{_MARK}{self.name}+{self.verifier.key_id.hex()}+{data}\n"

    @property
    def verifier(self) -> VerifierKey:
        """The public half, for policies and for the broker that enrols it."""
        return VerifierKey.of(self.key, self.name, WITNESS_KEY)

    def cosign(self, checkpoint: Checkpoint, *, at_s: int) -> Signature:
        """The line under a checkpoint.  `Witness` is what decides whether it may be given."""
        made = self.key.sign(cosigned_message(checkpoint.text.encode(), at_s))
        return Signature(self.name, self.verifier.key_id, at_s.to_bytes(8, "big") + made)


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a witness is asked: cosign this, which grew from the `old` leaves you cosigned last, as the proof shows."""

    old: int
    proof: tuple[bytes, ...]
    signed: SignedCheckpoint

    @property
    def text(self) -> str:
        """The request's body."""
        lines = [f"old {self.old}", *(base64.b64encode(each).decode() for each in self.proof)]
        return "\n".join(lines) + f"\n\n{self.signed.note}"

    @classmethod
    def parse(cls, text: str) -> AddCheckpoint:
        """Parse a request's body.  Raises RequestInvalid; nothing is verified yet."""
        head, blank, note = text.partition("\n\n")
        old, *proof = head.split("\n")
        found = _OLD.fullmatch(old)
        if not found or not blank or len(proof) > MAX_PROOF:
            raise RequestInvalid("a request is: old size, at most 63 lines of proof, an empty line, a checkpoint")
        try:
            hashes = tuple(unb64(each) for each in proof)
            signed = SignedCheckpoint.parse(note)
        except NoteInvalid as fault:
            raise RequestInvalid(str(fault)) from None
        if any(len(each) != HASH_BYTES for each in hashes):
            raise RequestInvalid("a line of proof is a hash of 32 bytes in base64")
        return cls(int(found[1]), hashes, signed)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answers: an HTTP status, a media type, a body."""

    status: int
    body: str
    media_type: str = TEXT_TYPE


class Witness:
    """A key, its memory, and the logs it knows."""

    def __init__(self, key: WitnessKey, memory: Path, policy: Policy) -> None:
        self.key: Final = key
        self._memory = memory
        self._policy = policy

    @classmethod
    def open(cls, path: Path, policy: Policy) -> Witness:
        """The witness of a key file, with its memory beside it.

        Raises BadWitnessKey if the file is none, or others can read it; OSError if it can't be read.
        """
        with path.open("rb") as file:
            if path.stat().st_mode & 0o077:
                raise BadWitnessKey("the witness's key can be read by others: chmod 600")
            try:
                text = file.read(1024).decode()
            except UnicodeDecodeError:
                raise BadWitnessKey("not a witness's key file") from None
        return cls(WitnessKey.parse(text), path.with_name(path.name + ".seen"), policy)

    def kept(self, origin: str) -> SignedCheckpoint | None:
        """The newest checkpoint of a log that the key has cosigned, or None.

        Raises Refused if it can't be read: a witness without its memory cosigns nothing.
        """
        try:
            note = (self._place(origin) / "checkpoint").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            raise Refused(FORGOTTEN, "what the key cosigned last can't be read") from None
        try:
            kept = SignedCheckpoint.parse(note)
            if kept.checkpoint.origin != origin or kept.cosigned_at(self.key.verifier) is None:
                raise Refused(FORGOTTEN, "what the key cosigned last is of another log or key")
        except NoteInvalid:
            raise Refused(FORGOTTEN, "what the key cosigned last was changed") from None
        return kept

    def cosign(self, signed: SignedCheckpoint, proof: Callable[[int], Sequence[bytes]], *, at_s: int) -> Signature:
        """Cosign a checkpoint that has grown from what the key cosigned last.

        `proof` gives the consistency proof from that size; it is called under the lock.  On return the memory holds the
        new checkpoint, durably.  Raises Refused, and then nothing has changed but for the evidence that was kept.
        """
        self._check(signed)
        with self._locked(signed.checkpoint.origin):
            kept = self.kept(signed.checkpoint.origin)
            old = 0 if kept is None else kept.checkpoint.size
            return self._take(AddCheckpoint(old, tuple(proof(old)), signed), kept, at_s)

    def add_checkpoint(self, text: str, *, at_s: int) -> Answer:
        """The answer to a request as it came."""
        try:
            request = AddCheckpoint.parse(text)
            self._check(request.signed)
            origin = request.signed.checkpoint.origin
            with self._locked(origin):
                line = self._take(request, self.kept(origin), at_s).line
        except RequestInvalid as fault:
            return Answer(400, f"{fault}\n")
        except Refused as refused:
            if refused.status == 409:
                return Answer(409, f"{refused.size}\n", SIZE_TYPE)
            return Answer(refused.status, f"{refused}\n")
        return Answer(200, f"{line}\n")

    def _check(self, signed: SignedCheckpoint) -> None:
        """The log is known, and has signed."""
        origin = signed.checkpoint.origin
        if all(log.name != origin for log in self._policy.logs):
            raise Refused(404, "the checkpoint's origin is not a log of the policy")
        try:
            self._policy.signed_by_log(signed)
            if not self._policy.signed_by_newest(signed):
                raise Refused(403, "the log has a newer key than the one that signed")
        except NoteInvalid as fault:
            raise Refused(403, str(fault)) from None

    def _take(self, request: AddCheckpoint, kept: SignedCheckpoint | None, at_s: int) -> Signature:
        new = request.signed.checkpoint
        if request.old > new.size:
            raise Refused(400, f"the checkpoint has {new.size} leaves, fewer than the old size {request.old}", kept)
        have = 0 if kept is None else kept.checkpoint.size
        if request.old != have:
            raise Refused(409, f"the key cosigned {have} leaves last, not {request.old}", kept)
        try:
            root = EMPTY_ROOT if kept is None else kept.checkpoint.root
            verify_consistency(have, new.size, root, new.root, request.proof)
        except ProofInvalid as fault:
            self._keep_conflict(request)
            raise Refused(
                422, f"the checkpoint does not begin with the {have} leaves cosigned: {fault}", kept
            ) from None
        line = self.key.cosign(new, at_s=at_s)
        signatures = tuple(each for each in request.signed.signatures if each.name == new.origin)
        self._place(new.origin).mkdir(parents=True, exist_ok=True)
        note = SignedCheckpoint(new, (*signatures, line)).note
        replace_file(self._place(new.origin) / "checkpoint", note.encode())
        if new.size > have:
            self._note_growth(note, new.origin, at_s)
        return line

    def grown(self, origin: str, *, since_s: int) -> Iterator[SignedCheckpoint]:
        """Each checkpoint as the key first cosigned it, from the day of `since_s` on, in that order.

        A hundred days of them are kept, so that a witness can show what it signed first after an instant.  OSError if
        they can't be read.
        """
        for path in sorted((self._place(origin) / "grown").glob("*")):
            if path.name >= _day(since_s):
                for line in path.read_text(encoding="utf-8").splitlines():
                    with suppress(ValueError):  # it was cut off as it was written
                        yield SignedCheckpoint.parse(json.loads(line))

    def _note_growth(self, note: str, origin: str, at_s: int) -> None:
        folder = self._place(origin) / "grown"
        folder.mkdir(exist_ok=True)
        path = folder / _day(at_s)
        if not path.exists():
            for old in sorted(folder.glob("*"))[: -GROWN_DAYS + 1]:
                old.unlink()
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(note))  # so a line that was cut off spoils no other

    def _keep_conflict(self, request: AddCheckpoint) -> None:
        """The log signed this, and what was cosigned before: kept whole, with the proof that fails."""
        place = self._place(request.signed.checkpoint.origin)
        place.mkdir(parents=True, exist_ok=True)
        replace_file(place / f"conflict-{request.signed.checkpoint.root.hex()}", request.text.encode())

    def _place(self, origin: str) -> Path:
        return self._memory / origin_id(origin)

    @contextmanager
    def _locked(self, origin: str) -> Iterator[None]:
        self._memory.mkdir(parents=True, exist_ok=True)
        with (self._memory / f".{origin_id(origin)}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def origin_id(origin: str) -> str:
    """The place of a log among those of a witness: SHA-256 of its origin, in hex."""
    return hashlib.sha256(origin.encode()).hexdigest()

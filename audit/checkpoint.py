"""The signed checkpoint: the note that a log publishes, and that witnesses cosign.

A checkpoint (C2SP tlog-checkpoint) is a signed note (C2SP signed-note) over three lines:

    broker.example/audit/2026                       the origin, which is also the log key's name
    109482                                          how many leaves
    sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=    the root over them
                                                    an empty line, then one line a signature:
    — broker.example/audit/2026 hI2DJw...           base64 of the key id (4 bytes) and the signature

Key id = SHA-256(name || 0x0A || type || public key)[:4].  A verifier key (vkey) is `name+keyid+base64(type || public
key)`.  Types: 0x01 Ed25519 over the text, a log's; 0x04 Ed25519 over a time and the text, a witness's cosignature/v1.
Extension lines, which the specification does not recommend, are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from audit.merkle import HASH_BYTES

LOG_KEY: Final = 0x01
WITNESS_KEY: Final = 0x04
ML_DSA_KEY: Final = 0x06
PUBLIC_BYTES: Final = {LOG_KEY: 32, WITNESS_KEY: 32, ML_DSA_KEY: 1312}
SigningKey = Ed25519PrivateKey | MLDSA44PrivateKey
MAX_NOTE_BYTES: Final = 64 * 1024
MAX_SIGNATURES: Final = 16
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,14}")
_NAME: Final = re.compile(r"[^\s+]+")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteInvalid(ValueError):
    """A note, a checkpoint or a verifier key that is malformed, or that a key was said to have signed and has not."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a log's or a witness's key."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.public) != PUBLIC_BYTES.get(self.kind):
            raise NoteInvalid("a verifier key has a name without spaces or +, a known type and that type's bytes")

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse `name+keyid+base64`.  Raises NoteInvalid, also if the key id is not the key's."""
        name, _, rest = text.partition("+")
        key_id, _, encoded = rest.partition("+")
        data = unb64(encoded)
        if not data:
            raise NoteInvalid("a verifier key is name+keyid+base64 of a type and its bytes")
        key = cls(name, data[0], data[1:])
        if key.key_id.hex() != key_id:
            raise NoteInvalid("a verifier key's id is not that of its name and key")
        return key

    @classmethod
    def of(cls, key: SigningKey, name: str, kind: int | None = None) -> VerifierKey:
        """The public half of a private key, under a name; an Ed25519 key is a log's unless `kind` says otherwise."""
        default = ML_DSA_KEY if isinstance(key, MLDSA44PrivateKey) else LOG_KEY
        return cls(name, default if kind is None else kind, key.public_key().public_bytes_raw())

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made the signature."""
        public: Ed25519PublicKey | MLDSA44PublicKey
        try:
            if self.kind == ML_DSA_KEY:
                public = MLDSA44PublicKey.from_public_bytes(self.public)
            else:
                public = Ed25519PublicKey.from_public_bytes(self.public)
            public.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who is said to have signed, the id of the key, and the signature."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> str:
        """The line, without its newline."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.signature).decode()}"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Parse one line.  Raises NoteInvalid."""
        mark, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        data = unb64(encoded)
        if mark != "—" or not _NAME.fullmatch(name) or len(data) < 5:
            raise NoteInvalid("a signature line is: em dash, space, name, space, base64")
        return cls(name, data[:4], data[4:])


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How long the log is, and its root."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.origin) or self.size < 0 or len(self.root) != HASH_BYTES:
            raise NoteInvalid("a checkpoint has an origin without spaces, a size and a root of 32 bytes")

    @property
    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse the three lines.  Raises NoteInvalid for anything `text` would not write."""
        origin, size, root, *rest = [*text.split("\n"), "", "", ""]
        if not _SIZE.fullmatch(size):
            raise NoteInvalid("a checkpoint's second line is its size")
        found = cls(origin, int(size), unb64(root))
        if found.text != text or any(rest):
            raise NoteInvalid("a checkpoint is three lines: origin, size, root")
        return found


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint and the lines under it.  Parsed is not verified: that takes a key (`signed_by`) or a policy."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]

    @property
    def note(self) -> str:
        """The note, as published."""
        return f"{self.checkpoint.text}\n" + "".join(f"{signature.line}\n" for signature in self.signatures)

    @classmethod
    def parse(cls, note: str) -> SignedCheckpoint:
        """Parse a note.  Raises NoteInvalid; also beyond 64 KiB or 16 signatures, and for control characters."""
        if len(note.encode("utf-8", "replace")) > MAX_NOTE_BYTES:
            raise NoteInvalid("a note is at most 64 KiB")
        if _CONTROL.search(note):
            raise NoteInvalid("a note holds no control character but newline")
        text, blank, lines = note.rpartition("\n\n")
        if not blank or not lines.endswith("\n"):
            raise NoteInvalid("a note is text, an empty line, and signature lines")
        found = tuple(Signature.parse(line) for line in lines[:-1].split("\n"))
        if len(found) > MAX_SIGNATURES:
            raise NoteInvalid(f"a note has at most {MAX_SIGNATURES} signatures")
        return cls(Checkpoint.parse(text + "\n"), found)

    def signed_by(self, key: VerifierKey) -> bool:
        """Whether the first line under this log key verifies.  Later ones, and lines of unknown keys, are ignored.

        Raises NoteInvalid if that line does not verify.
        """
        return self._verified(key) is not None

    def cosigned_at(self, key: VerifierKey) -> int | None:
        """When this witness cosigned, in unix seconds; None if it did not.  Raises NoteInvalid as `signed_by`."""
        signature = self._verified(key)
        return None if signature is None else int.from_bytes(signature[:8], "big")

    def with_signature(self, signature: Signature) -> SignedCheckpoint:
        """The same checkpoint with one more line."""
        return SignedCheckpoint(self.checkpoint, (*self.signatures, signature))

    def _verified(self, key: VerifierKey) -> bytes | None:
        lines = [s.signature for s in self.signatures if (s.name, s.key_id) == (key.name, key.key_id)]
        if not lines:
            return None
        signature = lines[0]
        message = self.checkpoint.text.encode()
        made = signature
        if key.kind != LOG_KEY:
            at = int.from_bytes(signature[:8], "big")
            made = signature[8:]
            message = (
                cosigned_message(message, at)
                if key.kind == WITNESS_KEY
                else subtree_message(self.checkpoint, key.name, at)
            )
        if not key.verifies(made, message):
            raise NoteInvalid(f"a signature line of {key.name}+{key.key_id.hex()} does not verify")
        return signature


def cosigned_message(text: bytes, at: int) -> bytes:
    """What a witness signs (C2SP tlog-cosignature, cosignature/v1); `at` in unix seconds."""
    return b"cosignature/v1\ntime %d\n" % at + text


def subtree_message(checkpoint: Checkpoint, name: str, at: int) -> bytes:
    """What an ML-DSA-44 key of this name signs (C2SP tlog-cosignature, subtree/v1); `at` 0: it states no time."""
    who, origin = name.encode(), checkpoint.origin.encode()
    if max(len(who), len(origin)) > 255:
        raise NoteInvalid("a name or an origin is longer than 255 bytes")
    return b"".join(
        (
            b"subtree/v1\n\x00", bytes([len(who)]), who, at.to_bytes(8, "big"), bytes([len(origin)]), origin,
            (0).to_bytes(8, "big"), checkpoint.size.to_bytes(8, "big"), checkpoint.root,
        )
    )  # fmt: skip


def sign(checkpoint: Checkpoint, *keys: SigningKey) -> SignedCheckpoint:
    """The checkpoint under log keys named by its origin, a line each.  `audit.signer` decides whether it may be."""
    return SignedCheckpoint(checkpoint, tuple(_signature(checkpoint, key) for key in keys))


def _signature(checkpoint: Checkpoint, key: SigningKey) -> Signature:
    verifier = VerifierKey.of(key, checkpoint.origin)
    if isinstance(key, MLDSA44PrivateKey):
        made = bytes(8) + key.sign(subtree_message(checkpoint, verifier.name, 0))
    else:
        made = key.sign(checkpoint.text.encode())
    return Signature(verifier.name, verifier.key_id, made)


def unb64(text: str) -> bytes:
    """Standard base64 in its one spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("not base64") from None
    if base64.b64encode(data).decode() != text:
        raise NoteInvalid("not the one spelling in base64")
    return data

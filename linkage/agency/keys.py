"""The keys of an agency: the linkage key and what is derived from it, and secret files that only their owner can read.

    K_e      = HKDF-SHA-256(ikm=K_link, salt=epoch, info=partnership)
    k(label) = HKDF-SHA-256(ikm=K_e,    salt=empty, info=label "|" profile)      RFC 5869, 32 bytes

Labels are `<field>/gram`, `<field>/salt`, `<field>/diff`, `token/<name>`, `id/<identifier>` and `fingerprint`.  As the
profile is part of every label, no encoding is comparable across profiles; as the epoch is, none is across epochs.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from linkage.agency.prf import SEPARATOR, cmac
from linkage.records import Profile

KEY_BYTES: Final = 32


class BadKey(ValueError):
    """A key file can't be used; the message says which and what to do, never what is in it."""


class LinkageKeys:
    """All keys that one partnership's linkage key gives in one epoch.  Its `repr` shows no secret."""

    def __init__(self, link_key: bytes, *, partnership: str, epoch: str) -> None:
        if len(link_key) != KEY_BYTES:
            raise BadKey(f"a linkage key is {KEY_BYTES} bytes; this one has {len(link_key)}")
        if not partnership or not epoch:
            raise BadKey("a linkage key belongs to a partnership and an epoch; one of them is empty")
        self.partnership = partnership
        self.epoch = epoch
        self.epoch_key = _hkdf(link_key, salt=epoch.encode(), info=partnership.encode())
        self._derived = lru_cache(maxsize=256)(self._derive)

    def __repr__(self) -> str:
        return f"LinkageKeys(partnership={self.partnership!r}, epoch={self.epoch!r})"

    @classmethod
    def generate(cls, *, partnership: str, epoch: str) -> LinkageKeys:
        """Fresh random keys, for evaluation: nothing encoded under them can be compared with anything else."""
        return cls(secrets.token_bytes(KEY_BYTES), partnership=partnership, epoch=epoch)

    def key(self, label: str, profile: Profile) -> bytes:
        """k(label) under `profile`, 32 bytes."""
        return self._derived(label, profile)

    def fingerprint(self, profile: Profile) -> str:
        """The first eight bytes of k("fingerprint"), in hex: tells keys apart and gives none away."""
        return self.key("fingerprint", profile)[:8].hex()

    def canaries(self, profile: Profile) -> tuple[int, ...]:
        """Tokens of `0`, `1` and `2` under `token/canary`: two agencies with one key have the same."""
        key = self.key("token/canary", profile)
        return tuple(token(key, part) for part in ("0", "1", "2"))

    def _derive(self, label: str, profile: Profile) -> bytes:
        return _hkdf(self.epoch_key, salt=None, info=f"{label}|{profile}".encode())


def token(key: bytes, *parts: str) -> int:
    """First eight bytes of AES-256-CMAC (RFC 4493) over the parts joined by 0x1F: little-endian, signed."""
    return int.from_bytes(cmac(key, SEPARATOR.join(part.encode() for part in parts))[:8], "little", signed=True)


def keyed_hex(key: bytes, *parts: str, size: int = 32) -> str:
    """HMAC-SHA-256 over the parts joined by 0x1F, cut to `size` bytes, in hex: for references an agency alone makes."""
    return hmac.digest(key, SEPARATOR.decode().join(parts).encode(), "sha256")[:size].hex()


def write_secret(path: Path, content: bytes) -> None:
    """Make a file that only its owner can read (mode 0600), with `content` on disk.  Raises BadKey if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadKey(f"{path} is there already; keys are never overwritten") from None
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_secret(path: Path) -> bytes:
    """The content of a secret file.  Raises BadKey if it is missing or others than its owner may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise BadKey(f"{path} can be read by others than its owner (mode {mode:04o}); run: chmod 600 {path}")
            return file.read()
    except OSError as problem:
        raise BadKey(f"{path} can't be read: {problem.strerror}") from None


def read_hex_key(path: Path) -> bytes:
    """A 32-byte key kept as hex.  Raises BadKey."""
    try:
        key = bytes.fromhex(read_secret(path).decode("ascii").strip())
    except (ValueError, UnicodeDecodeError) as problem:
        if isinstance(problem, BadKey):
            raise
        raise BadKey(f"{path} is not a key in hexadecimal") from None
    if len(key) != KEY_BYTES:
        raise BadKey(f"{path}: {KEY_BYTES} bytes in hexadecimal are due, {len(key)} are there")
    return key


def _hkdf(material: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(material)

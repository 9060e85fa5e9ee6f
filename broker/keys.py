"""The broker's own keys, and what is done with them.

Keys are files of mode 0600 in one folder, or given by the environment; with a PKCS#11 token (`broker.hsm`) the KEK
stays in it and the files hold the others sealed under that.
The linkage key is not among them, and never will be: it stays with the agencies.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

import rfc8785
from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from audit.events import canonical
from broker import folders
from broker.errors import BadSignature, KeyUnavailable, Undecipherable

if TYPE_CHECKING:
    import pyarrow as pa

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SECRETS: Final = ("kek", "pepper", "vault", "index", "case")
ITEM_SCHEMA: Final = "item-1"
PEPPERED: Final = b"pepper-1"  # the other half of a token's block
PEPPERED_AT_ONCE: Final = 32_768  # tokens: their blocks stay in the processor's cache
AES_BLOCK: Final = 16


class Sealer(Protocol):
    """What seals and opens: a key in memory (`DataKey`), or one that never leaves its token (`HsmKey`)."""

    def seal(self, plain: bytes | memoryview, *, bound_to: bytes) -> bytes: ...

    def open(self, sealed: bytes, *, bound_to: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DataKey:
    """A 32-byte AES-256-GCM key for one batch, one event or one segment."""

    OVERHEAD: ClassVar = NONCE_BYTES + 16  # what sealing adds: nonce and tag
    _key: bytes = field(repr=False)

    @classmethod
    def fresh(cls) -> DataKey:
        """A key nobody can guess."""
        return cls(secrets.token_bytes(KEY_BYTES))

    def wrapped_under(self, other: Sealer, *, bound_to: bytes) -> bytes:
        """This key, sealed under another."""
        return other.seal(self._key, bound_to=bound_to)

    def seal(self, plain: bytes | memoryview, *, bound_to: bytes) -> bytes:
        """Nonce, ciphertext and tag; opens only with the same `bound_to`."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + AESGCM(self._key).encrypt(nonce, plain, bound_to)

    def seal_both(self, one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        """As `seal`, twice: each is what is sealed, and the place it is bound to.  The nonces are drawn together."""
        drawn, cipher = secrets.token_bytes(2 * NONCE_BYTES), AESGCM(self._key)
        first, second = drawn[:NONCE_BYTES], drawn[NONCE_BYTES:]
        return first + cipher.encrypt(first, *one), second + cipher.encrypt(second, *other)

    def open(self, sealed: bytes, *, bound_to: bytes) -> bytes:
        """What was sealed.  Raises Undecipherable if the key, the place or the bytes are others."""
        try:
            return AESGCM(self._key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError):
            raise Undecipherable("sealed bytes do not open here") from None

    def seal_into(self, plain: memoryview, into: memoryview, *, bound_to: bytes) -> int:
        """The same written `into` memory that is there already; how many bytes."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        size = len(plain) + self.OVERHEAD
        into[:NONCE_BYTES] = nonce
        AESGCM(self._key).encrypt_into(nonce, plain, bound_to, into[NONCE_BYTES:size])
        return size

    def open_into(self, sealed: memoryview, into: memoryview, *, bound_to: bytes) -> int:
        """What was sealed, written `into` memory that is there already; how many bytes.  Raises Undecipherable."""
        size = len(sealed) - self.OVERHEAD
        try:
            AESGCM(self._key).decrypt_into(bytes(sealed[:NONCE_BYTES]), sealed[NONCE_BYTES:], bound_to, into[:size])
        except (InvalidTag, ValueError):
            raise Undecipherable("sealed bytes do not open here") from None
        return size

    def seal_item(self, payload: bytes, *, agency: str, batch: str, item_ref: str) -> bytes:
        """An item's payload, bound to its agency, batch and row."""
        return self.seal(payload, bound_to=_place(agency, batch, item_ref, ITEM_SCHEMA))

    def items_sealer(self, *, agency: str, batch: str) -> Callable[[Sequence[bytes], Sequence[str]], list[bytes]]:
        """Seals payloads of one batch, each by its item_ref, as `seal_item` does: for when there are many."""
        encrypt = AESGCM(self._key).encrypt
        before, after = _place(agency, batch).decode()[:-1], _place(ITEM_SCHEMA).decode()[1:]

        def seal(payloads: Sequence[bytes], item_refs: Sequence[str]) -> list[bytes]:
            together = "".join(item_refs)
            if together.isascii() and together.isalnum():  # no character that JSON would escape
                places = [f'{before},"{ref}",{after}'.encode() for ref in item_refs]
            else:
                places = [_place(agency, batch, ref, ITEM_SCHEMA) for ref in item_refs]
            drawn = secrets.token_bytes(NONCE_BYTES * len(places))
            nonces = [drawn[start : start + NONCE_BYTES] for start in range(0, len(drawn), NONCE_BYTES)]
            return [*map(add, nonces, map(encrypt, nonces, payloads, places))]

        return seal

    def open_item(self, sealed: bytes, *, agency: str, batch: str, item_ref: str) -> bytes:
        """An item's payload.  Raises Undecipherable if it was moved to another row, batch or agency."""
        return self.open(sealed, bound_to=_place(agency, batch, item_ref, ITEM_SCHEMA))

    def seal_chunk(self, chunk: bytes, *, batch: str, table: str, number: int) -> bytes:
        """A chunk as it goes to the spool."""
        return self.seal(chunk, bound_to=_place(batch, table, str(number), "chunk-1"))

    def open_chunk(self, sealed: bytes, *, batch: str, table: str, number: int) -> bytes:
        """A chunk from the spool.  Raises Undecipherable if it was moved or altered."""
        return self.open(sealed, bound_to=_place(batch, table, str(number), "chunk-1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Every key of the broker but the log's, which its signer alone loads; none of them shows in `repr`."""

    _kek: Sealer = field(repr=False)
    _pepper: bytes = field(repr=False)
    _vault: bytes = field(repr=False)
    _index: bytes = field(repr=False)
    _case: bytes = field(repr=False)
    receipt_key: Ed25519PrivateKey = field(repr=False)
    token_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def make(cls, folder: Path, environment: Mapping[str, str] = os.environ, kek: Sealer | None = None) -> Keys:
        """Make what is missing in `folder` (mode 0700), keep what is there, and load all.

        What the environment gives is not made.  With a `kek` that lies elsewhere, what is made is sealed under it.
        """
        folders.make(folder)
        for name in _due(kek):
            if not environment.get(variable(name)):
                _write_new(folder, name, ".key", secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n", kek)
        _write_new(folder, "receipts", ".pem", _pem(Ed25519PrivateKey.generate()), kek)
        _write_new(folder, "token", ".pem", _pem(ec.generate_private_key(ec.SECP256R1())), kek)
        return cls.load(folder, environment, kek)

    @classmethod
    def load(cls, folder: Path, environment: Mapping[str, str] = os.environ, kek: Sealer | None = None) -> Keys:
        """The keys of a folder; of the secret ones, those that the environment gives instead (see `variable`).

        With a `kek` that lies elsewhere, those of the folder that are sealed under it.  Raises KeyUnavailable if one is
        missing, malformed, readable by others, given twice and not the same, or lies there in clear beside a `kek`.
        """
        opened = {name: _secret(folder, name, environment, kek) for name in _due(kek)}
        receipts, token = (
            _loaded(_content(folder / f"{name}.pem", kek), f"{name}.pem") for name in ("receipts", "token")
        )
        if not isinstance(receipts, Ed25519PrivateKey):
            raise KeyUnavailable("receipts.pem holds an Ed25519 key")
        if not isinstance(token, ec.EllipticCurvePrivateKey) or not isinstance(token.curve, ec.SECP256R1):
            raise KeyUnavailable("token.pem holds a P-256 key")
        return cls(
            _kek=kek or DataKey(opened["kek"]), _pepper=opened["pepper"], _vault=opened["vault"],
            _index=opened["index"], _case=opened["case"], receipt_key=receipts, token_key=token,
        )  # fmt: skip

    def new_data_key(self, name: str, *, under: DataKey | None = None) -> tuple[DataKey, bytes]:
        """A fresh key for what `name` names (a batch's or an event's id), and the same wrapped `under` another.

        Without one, under the KEK.
        """
        key = DataKey.fresh()
        return key, self.wrap(key, name, under=under)

    def wrap(self, key: DataKey, name: str, *, under: DataKey | None = None) -> bytes:
        """A key for what `name` names, wrapped `under` another; without one, under the KEK."""
        return key.wrapped_under(under or self._kek, bound_to=_place("dek-1", name))

    def data_key(self, wrapped: bytes, name: str, *, under: DataKey | None = None) -> DataKey:
        """Unwrap.  Raises Undecipherable if it was wrapped for another name, or under another key."""
        return DataKey((under or self._kek).open(wrapped, bound_to=_place("dek-1", name)))

    def vault_key(self) -> DataKey:
        """The key over the vault's segments."""
        return DataKey(self._vault)

    def leaving_key(self) -> DataKey:
        """The key over what a browser keeps while its person signs in elsewhere: HKDF-SHA-256 of the case key."""
        return DataKey(
            HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"sign-in|aes-256").derive(self._case)
        )

    def pepper(self, tokens: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Tokens as the broker keeps them: the first 8 bytes of AES-256(pepper, token | label), little-endian, signed.

        Takes and gives int64; null stays null.  The key is HKDF-SHA-256 of the pepper.  A token is a pseudo-random
        value of eight bytes already, so it fills one block together with an eight-byte label, and a block cipher under
        a secret key is a pseudo-random function of distinct blocks: as good as HMAC-SHA-256 here, where the input is
        never longer.  It takes all tokens of a column in one call, which makes a million records of twenty tokens half
        a second of work where HMACs took half a minute.  A search's tokens go the same way, one by one.
        """
        import numpy as np  # here: what only signs or lists never waits for them to load
        import pyarrow as pa
        import pyarrow.compute as pc

        if isinstance(tokens, pa.ChunkedArray):
            tokens = tokens.combine_chunks()
        if tokens.null_count == len(tokens):
            return pa.nulls(len(tokens), pa.int64())
        plain = (pc.fill_null(tokens, 0) if tokens.null_count else tokens).to_numpy(zero_copy_only=False)
        peppered = np.empty(len(plain), "<i8")
        blocks = np.full((min(len(plain), PEPPERED_AT_ONCE), 2), int.from_bytes(PEPPERED, "little"), "<i8")
        sealed = bytearray(blocks.nbytes + AES_BLOCK)
        encryptor = self._block_cipher()
        for start in range(0, len(plain), PEPPERED_AT_ONCE):
            some = plain[start : start + PEPPERED_AT_ONCE]
            blocks[: len(some), 0] = some
            size = encryptor.update_into(blocks[: len(some)].data.cast("B"), sealed)
            peppered[start : start + len(some)] = np.frombuffer(sealed, "<i8", size // 8)[::2]
        mask = tokens.is_null().to_numpy(zero_copy_only=False) if tokens.null_count else None
        return pa.array(peppered, pa.int64(), mask=mask)

    def pepper_one(self, token: int) -> int:
        """One token, as `pepper` does."""
        block = token.to_bytes(8, "little", signed=True) + PEPPERED
        return int.from_bytes(self._block_cipher().update(block)[:8], "little", signed=True)

    def _block_cipher(self) -> CipherContext:
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"pepper|aes-256").derive(self._pepper)
        # Not a mode for messages but the bare function of one block, over many at once: equal tokens must stay equal.
        return Cipher(AES(key), ECB()).encryptor()  # noqa: S305

    def subject_index(self, subject: str) -> str:
        """Under what the log's subject index keeps an id: HMAC-SHA-256 by a key of its own, hex."""
        return hmac.new(self._index, subject.encode(), "sha256").hexdigest()

    def case_index(self, case: str) -> str:
        """The gateway's case token hashed again by a key of the broker's, hex."""
        return hmac.new(self._case, case.encode(), "sha256").hexdigest()

    @property
    def receipt_kid(self) -> str:
        """The name of the key that signs receipts: the first 16 hex digits of the SHA-256 of its public half."""
        return sha256(self.receipt_public()).hexdigest()[:16]

    def receipt_public(self) -> bytes:
        """The raw public half of the receipt key, for those who check receipts."""
        return _raw(self.receipt_key.public_key())

    def sign(self, payload: bytes) -> dict[str, Any]:
        """A JWS in JSON general serialisation over `payload`, as batch receipts bear."""
        protected = b64url(rfc8785.dumps({"alg": "Ed25519", "kid": self.receipt_kid}))
        body = b64url(payload)
        signature = self.receipt_key.sign(f"{protected}.{body}".encode())
        return {"payload": body, "signatures": [{"protected": protected, "signature": b64url(signature)}]}


def verify_general(jws: Mapping[str, Any], public: bytes) -> bytes:
    """The payload of a JWS made by `Keys.sign`.  Raises BadSignature if it is not by this key."""
    try:
        (only,) = jws["signatures"]
        Ed25519PublicKey.from_public_bytes(public).verify(
            unb64url(only["signature"]), f"{only['protected']}.{jws['payload']}".encode()
        )
        header = json.loads(unb64url(only["protected"]))
        payload = unb64url(jws["payload"])
    except (KeyError, TypeError, ValueError, InvalidSignature):
        raise BadSignature("the signature does not verify") from None
    if set(header) != {"alg", "kid"} or header["alg"] != "Ed25519":
        raise BadSignature("the signature's header is not of this form")
    return payload


def kid_of(detached: str) -> str:
    """The key a detached JWS says it is by; nothing is verified.  Raises BadSignature if it can't be read."""
    try:
        protected, payload, _ = detached.split(".")
        header = json.loads(unb64url(protected))
        alg, kid = header["alg"], header["kid"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadSignature("a detached JWS is due: header, empty payload, signature") from None
    if payload or set(header) != {"alg", "kid"} or alg != "Ed25519" or not isinstance(kid, str):
        raise BadSignature("the signature's header is alg Ed25519 and kid, and its payload is left out")
    return kid


def verify_detached(detached: str, payload: bytes, public: bytes) -> None:
    """Return if `detached` is the Ed25519 signature over `payload` by the raw key `public`, else raise BadSignature."""
    kid_of(detached)
    protected, _, signature = detached.split(".")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            unb64url(signature), f"{protected}.{b64url(payload)}".encode()
        )
    except (ValueError, InvalidSignature):
        raise BadSignature("the signature does not verify") from None


def b64url(raw: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Strict base64url without padding.  Raises ValueError for another alphabet or stray last bits."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if b64url(raw) != text:
        raise ValueError("this is not canonical base64url")
    return raw


def private_key(path: Path) -> PrivateKeyTypes:
    """The private key of a PEM file of mode 0600.  Raises KeyUnavailable."""
    return _loaded(_read(path), path.name)


def _loaded(content: bytes, name: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyUnavailable(f"{name} holds no private key in PEM without a password") from None


def variable(name: str) -> str:
    """The environment's variable for one of `SECRETS`, in hex: BROKER_KEK_KEY and so on."""
    return f"BROKER_{name.upper()}_KEY"


def seal_folder(folder: Path, kek: Sealer) -> list[str]:
    """Seal under `kek` each key that lies in a folder in clear, and remove the clear file; which were.

    Killed anywhere it can be run again: a clear file goes only after its sealed one is on the disk.
    """
    done = []
    for path in [*(folder / f"{name}.key" for name in SECRETS[1:]), folder / "receipts.pem", folder / "token.pem"]:
        if path.exists():
            content = _read(path)
            sealed = _sealed(path)
            if not sealed.exists():
                _put(sealed, kek.seal(content, bound_to=_place("key-1", path.name)))
            elif _content(path, kek, clear=False) != content:
                raise KeyUnavailable(f"{path.name} and {sealed.name} differ: remove the one that is not meant")
            path.unlink()
            done.append(path.name)
    folders.sync(folder)
    return done


def clear_secret(folder: Path, name: str, environment: Mapping[str, str]) -> bytes | None:
    """One of `SECRETS` as the environment or its file gives it in clear, or None.  Raises KeyUnavailable."""
    if environment.get(variable(name)) or (folder / f"{name}.key").exists():
        return _secret(folder, name, environment, None)
    return None


def _due(kek: Sealer | None) -> tuple[str, ...]:
    return SECRETS if kek is None else SECRETS[1:]


def _secret(folder: Path, name: str, environment: Mapping[str, str], kek: Sealer | None) -> bytes:
    given, path = environment.get(variable(name)), folder / f"{name}.key"
    source = variable(name) if given else f"{folder.name}/{path.name}"
    try:
        key = bytes.fromhex(given.strip() if given else _content(path, kek).decode().strip())
    except ValueError:
        raise KeyUnavailable(f"{source} is malformed: {KEY_BYTES} bytes in hex are due") from None
    if len(key) != KEY_BYTES:
        raise KeyUnavailable(f"{source} has another length than {KEY_BYTES} bytes")
    if given and path.exists() and _read(path).decode(errors="replace").strip() != given.strip():
        raise KeyUnavailable(f"{variable(name)} and {folder.name}/{path.name} differ: remove the one that is not meant")
    return key


def _sealed(path: Path) -> Path:
    return path.with_suffix(".sealed")


def _content(path: Path, kek: Sealer | None, *, clear: bool = True) -> bytes:
    """What a key's file says; with a `kek` its sealed one, beside which none may lie in clear."""
    if kek is None:
        return _read(path)
    if clear and path.exists():
        raise KeyUnavailable(f"{path.name} lies there in clear, though a token holds the KEK: run `broker keys seal`")
    sealed = _sealed(path)
    try:
        return kek.open(_read(sealed), bound_to=_place("key-1", path.name))
    except Undecipherable:
        raise KeyUnavailable(f"{sealed.name} was not sealed under the key that the token holds") from None


def _place(*parts: str) -> bytes:
    return canonical(parts)


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_IMODE(mode) & 0o077:
            raise KeyUnavailable(f"{path.name} can be read by others: its mode must be 0600")
        return path.read_bytes()
    except OSError:
        raise KeyUnavailable(f"{path.name} can't be read; the broker's own are made by `broker keys init`") from None


def _write_new(folder: Path, name: str, suffix: str, content: bytes, kek: Sealer | None) -> None:
    path = folder / f"{name}{suffix}"
    if kek is None:
        if not path.exists():
            _put(path, content)
    elif not _sealed(path).exists() and not path.exists():
        _put(_sealed(path), kek.seal(content, bound_to=_place("key-1", path.name)))


def _put(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    fresh.rename(path)
    folders.sync(path.parent)


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)

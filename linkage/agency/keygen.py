"""A home for an agency: its keys, made once, and the file by which a broker enrols it."""

from __future__ import annotations

import base64
import json
import re
import secrets
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import ECKey

from linkage.agency.keys import KEY_BYTES, LinkageKeys, read_hex_key, write_secret
from linkage.agency.settings import AGENCY_ID, EPOCH, BadHome, Home, write_whole
from linkage.records import Profile


def make_home(
    folder: Path,
    *,
    agency: str,
    partnership: str,
    epoch: str,
    profile: Profile = "guarded-3",
    link_key: Path | None = None,
    broker: str = "http://127.0.0.1:8400",
) -> Home:
    """Make all keys of an agency, its `agency.toml` and its `public.json`.

    `signing.pem` signs batches, unattended; `signatory.pem` signs agreements, and belongs with the person who may.

    The linkage key is that of the file `link_key`, as partners hand it to each other, or a fresh one.  What is in
    `agency.toml` beforehand (a `[gateway]` table, say) stays.  Raises BadHome or BadKey, and overwrites no key.
    """
    for name, value in (("agency", agency), ("partnership", partnership)):
        if not re.fullmatch(AGENCY_ID, value):
            raise BadHome(f"{name}: lower-case letters, digits and '-' are due")
    if not re.fullmatch(EPOCH, epoch):
        raise BadHome("epoch: letters, digits, '.' and '-' are due, such as 2026-1")
    if '"' in broker or "\\" in broker or not broker.startswith(("http://", "https://")):
        raise BadHome("broker: an address that starts with https:// (or http:// on one machine) is due")
    if (folder / "public.json").exists():
        raise BadHome(f"{folder} is a home already; keys are never overwritten")
    shared = secrets.token_bytes(KEY_BYTES) if link_key is None else read_hex_key(link_key)
    linkage = LinkageKeys(shared, partnership=partnership, epoch=epoch)
    signing, client = Ed25519PrivateKey.generate(), generate_private_key(SECP256R1())
    signatory = Ed25519PrivateKey.generate()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = folder / "keys"
    write_secret(keys / "link.key", shared.hex().encode() + b"\n")
    write_secret(keys / "record.key", secrets.token_hex(KEY_BYTES).encode() + b"\n")
    for name, key in (("signing.pem", signing), ("signatory.pem", signatory), ("client.pem", client)):
        write_secret(keys / name, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    settings = folder / "agency.toml"
    before = settings.read_text(encoding="utf-8") if settings.exists() else ""
    ours = {"agency": agency, "partnership": partnership, "key_epoch": epoch, "profile": profile, "broker": broker}
    lines = [f'{name} = "{value}"\n' for name, value in ours.items() if not re.search(rf"(?m)^{name}\s*=", before)]
    write_whole(settings, ("".join(lines) + ("\n" if before else "") + before).encode())
    public: dict[str, Any] = {
        "agency": agency,
        "signing": _enrolled(signing, f"{agency}/1"),
        "signatory": _enrolled(signatory, f"{agency}/signatory-1"),
        "client": public_jwk(client.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), agency),
        "key_epoch": epoch,
        "key_fingerprint": linkage.fingerprint(profile),
        "canaries": [str(token) for token in linkage.canaries(profile)],
    }
    write_whole(folder / "public.json", json.dumps(public, indent=2).encode() + b"\n")
    return Home(folder)


def public_jwk(public_pem: bytes, agency: str) -> dict[str, Any]:
    """The public half of a client key as a JWK with its kid."""
    jwk = dict(ECKey.import_key(public_pem).as_dict(private=False))
    return {
        **{name: jwk[name] for name in ("kty", "crv", "x", "y")},
        "use": "sig",
        "alg": "ES256",
        "kid": f"{agency}/client-1",
    }


def _enrolled(key: Ed25519PrivateKey, kid: str) -> dict[str, str]:
    return {"kid": kid, "public": _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode("ascii")

"""Which certificate a caller's TLS connection proved, as the reverse proxy that ended the connection says.

A machine token is bound to it (RFC 8705, section 3): stolen, it is worth nothing over another connection.  The proxy
checks the certificate's chain; here it is only hashed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate

from broker.errors import NotSignedIn
from broker.keys import b64url

LONGEST: Final = 16_384  # characters of a header
_PEM: Final = "-----BEGIN"


def thumbprint(sent: Sequence[str], *, peer: str | None, proxies: Sequence[IPv4Network | IPv6Network]) -> str | None:
    """The `x5t#S256` of the certificate in a proxy's header, or None where there is none.

    Taken as RFC 9440 writes it (`:base64:`), as bare base64 of DER (Caddy), and as escaped PEM (nginx).  Raises
    NotSignedIn if the header comes from anybody but a proxy of the settings, twice, or holds no certificate.
    """
    if not sent or sent == [""]:  # nginx sends nothing for an empty variable, others an empty header
        return None
    if len(sent) > 1:
        raise NotSignedIn("repeated-header")
    if not _from_proxy(peer, proxies):
        raise NotSignedIn("certificate-not-by-proxy")
    try:
        der = _der(sent[0])
    except (ValueError, binascii.Error):
        raise NotSignedIn("certificate-unreadable") from None
    return b64url(sha256(der).digest())


def _from_proxy(peer: str | None, proxies: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    return any(address in proxy for proxy in proxies)


def _der(value: str) -> bytes:
    if len(value) > LONGEST:
        raise ValueError("too long")
    if value.startswith(_PEM):
        return load_pem_x509_certificate(unquote_to_bytes(value)).public_bytes(Encoding.DER)
    bare = value[1:-1] if len(value) > 1 and value[0] == value[-1] == ":" else value
    return load_der_x509_certificate(base64.b64decode(bare, validate=True)).public_bytes(Encoding.DER)

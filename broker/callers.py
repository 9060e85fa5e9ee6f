"""Who is calling: a token, a gateway's assertion or a session becomes a Caller, or NotSignedIn is raised."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from broker.store import Store
from broker.tokens import Tokens

Kind = Literal["agency", "person", "officer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller.

    `agency`: an organisation's machine.  `person`: someone at that organisation's gateway, whom it names in a signed
    assertion.  `officer`: someone signed in at the broker itself (IG, link review, operation); `organisation` is then
    the hosting partnership.  For `agency` the fields of a person are empty.
    """

    kind: Kind
    organisation: str
    person: str = ""
    role: str = ""
    session: str = ""
    method: str  # private_key_jwt, gateway-assertion, oidc, demo
    evidence: str = ""  # SHA-256 (hex) of the assertion, kept in the log
    csrf: str = ""  # an officer's synchroniser token


def agency_of(store: Store, tokens: Tokens, bearer: str, *, at: datetime) -> Caller:
    """The organisation whose machine token this is.

    Raises NotSignedIn if the token does not hold, AgencyNotActive if the agency has since been suspended.
    """
    raise NotImplementedError


def person_of(
    store: Store, tokens: Tokens, bearer: str, assertion: str, *, method: str, path: str, body: bytes, at: datetime
) -> Caller:
    """The person that an organisation's gateway vouches for, on this very request.

    The assertion is spent: a second use raises NotSignedIn, as does another method, path or body, an organisation
    other than the token's, or a role that is not enrolled for it.
    """
    raise NotImplementedError

"""What can go wrong in the broker, in its own words.  No error knows HTTP, and none names a person."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Final

_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BrokerError(Exception):
    """Anything the broker refuses or can't do."""


class BadSettings(BrokerError):
    """The configuration is incomplete or unsafe."""


class UnsafeDatabase(BrokerError):
    """The database would not give the durability that a receipt promises, or is another installation's."""


class StoreUnavailable(BrokerError):
    """The database, or a folder, could not be reached or written; nothing was committed."""


class StoreFull(StoreUnavailable):
    """The database, or a folder, has no room; nothing was kept.  It needs an operator, not another try."""


def unwritable(what: str, wrong: OSError) -> StoreUnavailable:
    """The error of a place that would not be written: it is full, or can't be used at all."""
    kind = StoreFull if wrong.errno in _NO_ROOM else StoreUnavailable
    return kind(f"{what} can't be written: {wrong.strerror}")


class Conflict(BrokerError):
    """Something with this key is there already, or has changed meanwhile."""


class NestedTransaction(BrokerError):
    """A use case opened a transaction inside its own: a fault of ours."""


class KeyUnavailable(BrokerError):
    """A key is missing, or its file can be read by others."""


class Undecipherable(BrokerError):
    """Sealed bytes do not open: the wrong key, the wrong place, or altered."""


class EventStuck(Undecipherable):
    """An event waits in the outbox and its key does not open, so that nothing is sequenced; names event and place."""


class LogUnavailable(BrokerError):
    """The log could not take or sign an entry, so nothing may leave."""


class SignerUnavailable(LogUnavailable):
    """The log's signer can't be reached just now; what is sequenced waits for it."""


class EngineFailed(BrokerError):
    """A rule could not be evaluated, or its result not be told: nothing was shown, and the log says so."""

    def __init__(self, event_id: str) -> None:
        super().__init__(f"the rules could not be evaluated, so nothing was shown; it is event {event_id} of the log")
        self.event_id = event_id


class EventTooLarge(BrokerError):
    """An event's sections pass the limit; large detail goes into sealed bytes of its own."""


class NotSignedIn(BrokerError):
    """No credential, or one that does not hold.  `reason` is a code for our own log, never for the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__("a valid credential is due")
        self.reason = reason


class ProviderUnavailable(BrokerError):
    """The OpenID provider can't be asked, or is not the one that the settings name."""


class NotAllowed(BrokerError):
    """A credential that holds, but not for this."""


class NotFound(BrokerError):
    """There is no such thing for this caller; whether for another is not said."""


class Malformed(BrokerError):
    """What was sent can't be read.  The message names the place, never the value."""


class TooLarge(BrokerError):
    """What was sent passes a limit."""


class TooMany(BrokerError):
    """Too much at once: try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int = 30) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnsupportedMedia(BrokerError):
    """A body of another media type or content encoding than this route takes."""


class BadSignature(BrokerError):
    """A signature does not verify, or its key is unknown or revoked."""


class BadDigest(BrokerError):
    """Bytes that arrived are not the bytes that were declared."""


class WrongState(BrokerError):
    """The thing is there, but not in a state in which this can be done."""


class UnknownAgency(BrokerError):
    """No agency of this name is enrolled."""


class UnknownFlow(BrokerError):
    """This agency has no flow of this name."""


class AgencyNotActive(BrokerError):
    """The agency is suspended or revoked."""


class BadAgreement(BrokerError):
    """An agreement can't be imported, or can't be put in force."""


class UnsafeRegister(BrokerError):
    """The register holds something that no longer verifies, and to go on without it would show more than was signed."""


class WrongEpoch(BrokerError):
    """A search was encoded under another epoch of the linkage key than the one in service; the message names that."""


class UnknownSchema(BrokerError):
    """A batch was encoded under a schema this broker does not hold."""

    def __init__(self, schema: str, *, known: Iterable[str]) -> None:
        super().__init__(f"this schema is not one of {', '.join(sorted(known))}")


class BatchRefused(BrokerError):
    """A batch, or a manifest's terms, can't be taken.  The message begins with the place: `manifest.key_epoch: ...`."""

"""What is signed and in force: everything that a decision reads but the vocabulary, the request and the facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agreements.agreement import Agreement, Document, Restriction
from agreements.signing import PartyKey, Signature, StatusEvent
from agreements.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Agreements, restrictions, signatures and status events: a set of each, in no order.  Made once, read often."""

    agreements: tuple[Agreement, ...]
    restrictions: tuple[Restriction, ...]
    signatures: frozenset[Signature]
    events: tuple[StatusEvent, ...]
    pairs: Mapping[tuple[str, str], object] = field(repr=False)

    @classmethod
    def of(
        cls,
        documents: Iterable[Document],
        signatures: Iterable[Signature] = (),
        events: Iterable[StatusEvent] = (),
        keys: Mapping[str, PartyKey] | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> Snapshot:
        """Gather and compile.  `signatures` and `events` may be JWS objects, verified here with `keys`, or verified.

        Raises BadSignature.
        """
        raise NotImplementedError

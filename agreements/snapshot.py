"""What is signed and in force: everything that a decision reads but the vocabulary, the request and the facts."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from agreements.agreement import Agreement, Document, Period, Restriction
from agreements.signing import PartyKey, Signature, StatusEvent, verify_event, verify_jws


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether an agreement is live for a source and a recipient at an instant; `code` says why not.

    `party` is whose signature or sharing is missing; `since` when it ended or was paused; `umbrella` if it is that.
    """

    code: str | None
    party: str | None = None
    since: datetime | None = None
    umbrella: str | None = None

    @property
    def live(self) -> bool:
        """Whether its clauses count."""
        return self.code is None


_LIVE: Final = Standing(None)
FIRST: Final = datetime(1, 1, 2, tzinfo=UTC)
LAST: Final = datetime(9999, 12, 30, tzinfo=UTC)
_REMEMBERED: Final = 4096  # standings a snapshot


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Agreements, restrictions, signatures and status events: a set of each, in no order.  Made once, read often.

    A signature counts from the instant at which it was made: what is signed later changes no earlier decision.
    """

    agreements: tuple[Agreement, ...]
    restrictions: tuple[Restriction, ...]
    signatures: frozenset[Signature]
    events: tuple[StatusEvent, ...]

    @classmethod
    def of(
        cls,
        documents: Iterable[Document],
        signatures: Iterable[Signature | Mapping[str, Any]] = (),
        events: Iterable[StatusEvent | Mapping[str, Any]] = (),
        keys: Mapping[str, PartyKey] | None = None,
    ) -> Snapshot:
        """Gather documents with their signatures and events, verified already or JWS objects to verify with `keys`.

        Raises BadSignature.  Order and repetition make no difference.
        """
        known = {document.digest: document for document in documents}
        if len({document.ref for document in known.values()}) < len(known):
            raise ValueError("two documents with one id and version: a changed text is a new version")
        signed: set[Signature] = set()
        for signature in signatures:
            signed |= {signature} if isinstance(signature, Signature) else set(verify_jws(signature, keys or {}))
        happened = {event if isinstance(event, StatusEvent) else verify_event(event, keys or {}) for event in events}
        ordered = sorted(known.values(), key=lambda document: (document.ref, document.digest))
        return cls(
            agreements=tuple(document for document in ordered if isinstance(document, Agreement)),
            restrictions=tuple(document for document in ordered if isinstance(document, Restriction)),
            signatures=frozenset(signed),
            events=tuple(
                sorted(happened, key=lambda event: (event.at, event.do, event.party, event.digest, event.kid))
            ),
        )

    def only(self, digests: Collection[str]) -> Snapshot:
        """The same without any other document.  Raises ValueError if one of `digests` isn't here."""
        every: tuple[Document, ...] = (*self.agreements, *self.restrictions)
        documents = [document for document in every if document.digest in digests]
        if missing := set(digests) - {document.digest for document in documents}:
            raise ValueError(f"{len(missing)} of the documents named are not here, the first is sha256:{min(missing)}")
        return Snapshot.of(documents, self.signatures, self.events)

    @cached_property
    def by_digest(self) -> Mapping[str, Agreement]:
        """Agreements by the digest that was signed: an umbrella is looked up by it."""
        return MappingProxyType({agreement.digest: agreement for agreement in self.agreements})

    @cached_property
    def signed_at(self) -> Mapping[tuple[str, str], datetime]:
        """When a party first signed a digest."""
        first: dict[tuple[str, str], datetime] = {}
        for signature in self.signatures:
            key = (signature.party, signature.digest)
            first[key] = min(signature.signed_at, first.get(key, signature.signed_at))
        return MappingProxyType(first)

    @cached_property
    def happened(self) -> Mapping[tuple[str, str], tuple[StatusEvent, ...]]:
        """A party's events on a digest, oldest first; at one instant `suspend` comes after `resume`, and wins."""
        lists: dict[tuple[str, str], list[StatusEvent]] = {}
        for event in self.events:
            lists.setdefault((event.party, event.digest), []).append(event)
        return MappingProxyType({key: tuple(events) for key, events in lists.items()})

    def umbrella(self, agreement: Agreement) -> Agreement | None:
        """The umbrella it stands under, if it is here."""
        return self.by_digest.get(agreement.under.digest) if agreement.under else None

    def between(self, source: str, recipient: str) -> tuple[Agreement, ...]:
        """Agreements (not umbrellas) that name both as parties, signed or not."""
        return self._pairs.get((source, recipient), ())

    @cached_property
    def _pairs(self) -> Mapping[tuple[str, str], tuple[Agreement, ...]]:
        pairs: dict[tuple[str, str], list[Agreement]] = {}
        for agreement in self.agreements:
            if agreement.grants:
                for source in agreement.parties:
                    for recipient in agreement.parties:
                        pairs.setdefault((source, recipient), []).append(agreement)
        return {pair: tuple(several) for pair, several in pairs.items()}

    def standing(self, agreement: Agreement, source: str, recipient: str, at: datetime) -> Standing:
        """Whether an agreement is live for a pair at an instant, and if not, the first reason why."""
        key = (agreement.digest, source, recipient, at)
        if (known := self._standings.get(key)) is None:
            if len(self._standings) >= _REMEMBERED:
                self._standings.clear()
            known = self._standings[key] = next(self._objections(agreement, source, recipient, at), _LIVE)
        return known

    @cached_property
    def _standings(self) -> dict[tuple[str, str, str, datetime], Standing]:
        return {}

    def steady(self, source: str, recipient: str, at: datetime) -> Period:
        """The time around an instant in which no standing of an agreement between the two changes."""
        instants = self._turns(source, recipient)
        later = bisect_right(instants, at)
        return Period(
            instants[later - 1] if later else FIRST,
            instants[later] if later < len(instants) else LAST,
        )

    def _turns(self, source: str, recipient: str) -> tuple[datetime, ...]:
        """The instants at which a standing between the two may change, in order."""
        if (known := self._pair_turns.get((source, recipient))) is None:
            found: set[datetime] = set()
            for agreement in self.between(source, recipient):
                for one in filter(None, (agreement, self.umbrella(agreement))):
                    found |= {one.period.start, one.period.end, one.review or one.period.end}
                    for key in ((source, one.digest), (recipient, one.digest)):
                        found |= {self.signed_at[key]} if key in self.signed_at else set()
                        found |= {event.at for event in self.happened.get(key, ())}
            known = self._pair_turns[source, recipient] = tuple(sorted(found))
        return known

    @cached_property
    def _pair_turns(self) -> dict[tuple[str, str], tuple[datetime, ...]]:
        return {}

    def _objections(self, agreement: Agreement, source: str, recipient: str, at: datetime) -> Iterator[Standing]:
        for party in (source, recipient):
            if party not in agreement.parties:
                yield Standing("NO_DSA", party)
        for party in (source, recipient):
            signed = self.signed_at.get((party, agreement.digest))
            if signed is None or at < signed:
                yield Standing("DSA_UNSIGNED", party)
        if at < agreement.period.start:
            yield Standing("NO_DSA")
        if at >= agreement.period.end:
            yield Standing("DSA_EXPIRED", since=agreement.period.end)
        for party in (source, recipient):
            for event in self.happened.get((party, agreement.digest), ()):
                if event.at <= at and event.do in ("withdraw", "supersede"):
                    yield Standing("DSA_EXPIRED", party, event.at)
        yield from self._pauses(agreement, source, at)
        if agreement.under is not None:
            umbrella = self.umbrella(agreement)
            above = self._objections(umbrella, source, recipient, at) if umbrella else (Standing("NO_DSA"),)
            for one in above:
                yield Standing(one.code, one.party, one.since, agreement.under.ref)

    def _pauses(self, agreement: Agreement, source: str, at: datetime) -> Iterator[Standing]:
        happened = self.happened.get((source, agreement.digest), ())
        before = [event for event in happened if event.at <= at and event.do in ("suspend", "resume")]
        if before and before[-1].do == "suspend":
            yield Standing("DSA_SUSPENDED", source, before[-1].at)
        if agreement.if_review_overdue == "suspend" and agreement.review is not None and at >= agreement.review:
            yield Standing("DSA_SUSPENDED", since=agreement.review)

    def in_force(self, restriction: Restriction, at: datetime) -> bool:
        """Whether a restriction's owner has signed it, its period runs, and its owner has not withdrawn it."""
        signed = self.signed_at.get((restriction.owner, restriction.digest))
        ended = any(
            event.at <= at and event.do in ("withdraw", "supersede")
            for event in self.happened.get((restriction.owner, restriction.digest), ())
        )
        return signed is not None and signed <= at and at in restriction.period and not ended

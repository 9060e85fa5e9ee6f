"""An estate with a document that is not in force yet: what it would allow from then on, or had it always been there.

The document counts as signed by all its parties.  Agreements under an umbrella of which it is another version count as
signed under it: an umbrella's digest is pinned, so in truth each of them has to be signed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from agreements.agreement import Agreement, Document, DocumentRef, Restriction
from agreements.analysis.boxes import EVER
from agreements.signing import Signature, StatusEvent
from agreements.snapshot import Snapshot
from agreements.words import listed

_KID: Final = "candidate"  # nobody's key: these signatures are supposed, never given


def with_candidate(
    snapshot: Snapshot, candidate: Document, *, at: datetime, umbrella: Agreement | None = None
) -> Snapshot:
    """The estate once `candidate` is in force: from its first day and its umbrella's, but not before `at`.

    Then whoever shares under it leaves what versions of it are there, as at a host; who is no party to it, or has not
    signed its umbrella, stays in those.  A draft of the same version was never there.  `umbrella`: the one that the
    candidate stands under, if the estate lacks it.
    """
    others = [one for one in _documents(snapshot) if one.ref != candidate.ref]
    above = umbrella or (snapshot.umbrella(candidate) if isinstance(candidate, Agreement) else None)
    sharing = set(_parties(candidate))
    if above is not None and above.digest in snapshot.by_digest:
        sharing &= {party for party, digest in snapshot.signed_at if digest == above.digest}
    begins = max(at, *(one.period.start for one in (candidate, above) if one is not None))
    events = [
        StatusEvent(party, one.digest, "supersede", begins, _KID)
        for one in others
        if _same(one, candidate)
        for party in _parties(one)
        if party in sharing
    ]
    return _of(snapshot, others, candidate, umbrella, events)


def as_if_always(snapshot: Snapshot, candidate: Document, *, umbrella: Agreement | None = None) -> Snapshot:
    """The estate had `candidate` been in force all along, instead of any other version of it."""
    always = replace(candidate, period=EVER)
    if isinstance(always, Agreement):
        always = replace(always, review=None)
    others = [one for one in _documents(snapshot) if not _same(one, candidate)]
    return _of(snapshot, others, always, umbrella and replace(umbrella, period=EVER, review=None), ())


def supposed(snapshot: Snapshot, candidate: Document) -> tuple[str, ...]:
    """What `with_candidate` and `as_if_always` take as done that a host does not do by putting a document in force."""
    others = [one for one in _documents(snapshot) if _same(one, candidate) and one.ref != candidate.ref]
    if isinstance(candidate, Restriction):
        return tuple(f"As if {candidate.owner} had withdrawn {one.ref}: until then both hold back." for one in others)
    found = []
    for older in others:
        under = sorted(one.ref for one in snapshot.agreements if one.under and one.under.digest == older.digest)
        if under:
            found.append(
                f"As if {listed(under)}, under {older.ref}, were signed anew under {candidate.ref}: until then nothing "
                "changes."
            )
    return tuple(found)


def alone(document: Document, *, umbrella: Agreement | None = None) -> Snapshot:
    """A document by itself, in force; without `umbrella`, as if the one it names asked for nothing more."""
    return _of(Snapshot.of(()), (), freed(document, umbrella), umbrella, ())


def succession(
    one: Document, other: Document, *, umbrellas: tuple[Agreement | None, Agreement | None] = (None, None)
) -> tuple[Snapshot, Snapshot]:
    """Two documents by themselves, to be held against each other: before and after.

    Of two versions of one document the second replaces the first from its own first day; a draft of the same version
    was always there instead.
    """
    before = alone(one, umbrella=umbrellas[0])
    if not _same(one, other):
        return before, alone(other, umbrella=umbrellas[1])
    return before, with_candidate(before, freed(other, umbrellas[1]), at=EVER.start, umbrella=umbrellas[1])


def freed(document: Document, umbrella: Agreement | None) -> Document:
    """The document, and without an umbrella that is not at hand."""
    return replace(document, under=None) if isinstance(document, Agreement) and umbrella is None else document


def _of(
    snapshot: Snapshot,
    others: Iterable[Document],
    candidate: Document,
    umbrella: Agreement | None,
    events: Iterable[StatusEvent],
) -> Snapshot:
    replaced = {one.digest for one in _documents(snapshot) if _same(one, candidate)}
    documents = [
        replace(one, under=DocumentRef(candidate.ref, candidate.digest))
        if isinstance(one, Agreement) and one.under is not None and one.under.digest in replaced
        else one
        for one in others
    ]
    supposed = [candidate]
    if umbrella is not None and umbrella.digest not in snapshot.by_digest:
        supposed.append(umbrella)
    signatures = {*snapshot.signatures, *(one for document in supposed for one in _signatures(document))}
    return Snapshot.of([*documents, *supposed], signatures, [*snapshot.events, *events])


def _same(one: Document, other: Document) -> bool:
    """Whether both are versions of one document."""
    return one.id == other.id and type(one) is type(other)


def _documents(snapshot: Snapshot) -> tuple[Document, ...]:
    return (*snapshot.agreements, *snapshot.restrictions)


def _parties(document: Document) -> tuple[str, ...]:
    return (document.owner,) if isinstance(document, Restriction) else tuple(document.parties)


def _signatures(document: Document) -> tuple[Signature, ...]:
    return tuple(Signature(party, document.digest, _KID, EVER.start) for party in _parties(document))

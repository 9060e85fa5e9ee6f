"""What an estate means, asked of the register and of the log: what a draft would have changed, who can see what.

Past decisions are read from the receipts that were sealed beside each disclosure, granted or refused.  They are of
people, so reading them is itself an event of the log, and is there before the first is opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import rfc8785

from agreements import VOCABULARY, Agreement, Snapshot
from agreements.agreement import Document, Period
from agreements.analysis import Difference, alone, diff, succession, supposed, with_candidate
from agreements.analysis.boxes import EVER
from agreements.analysis.lint import Remark, lint
from agreements.analysis.parting import Parting, partings
from agreements.analysis.usage import NearMiss, Unused, near_misses, since, unused
from agreements.analysis.whatif import Changes, what_if
from agreements.receipts import PastDecision, past_decisions, source_of
from audit.events import Event, Json
from broker import clock, register
from broker.documents import read_alone, umbrellas_of
from broker.errors import Malformed, NotFound
from broker.store import Reading, Store
from broker.store.agencies import AgencyFlowRow, AgencyRow
from broker.store.documents import AgreementRow
from broker.store.items import categories_held
from broker.store.log import BlobRow, decisions_since
from broker.trail import Trail, Who, new_event_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A document that is not in force, and the umbrella it stands under, where that came with it."""

    document: Document
    umbrella: Agreement | None = None

    @property
    def gives(self) -> bool:
        """Whether it shows anything by itself: an umbrella and a restriction hold back what others show."""
        return isinstance(self.document, Agreement) and bool(self.document.grants)

    @classmethod
    def of(cls, source: bytes, umbrellas: Sequence[bytes] = ()) -> Candidate:
        """Read from TOML; what it stands under must be among `umbrellas`.  Raises BadAgreement."""
        document = read_alone(source, umbrellas)
        pinned = document.under.digest if isinstance(document, Agreement) and document.under else None
        above = [one for one in umbrellas_of(umbrellas) if one.digest == pinned]
        return cls(document=document, umbrella=above[0] if above else None)


def between(one: Candidate, other: Candidate) -> Difference | None:
    """What changes from one document to another, by themselves, as if each were signed by all its parties; None where
    both are umbrellas or restrictions, which show nothing by themselves.

    Two versions of one document follow each other: the second replaces the first from its own first day.
    Raises Malformed for an agreement and a restriction.
    """
    if type(one.document) is not type(other.document):
        raise Malformed("one is an agreement, the other a restriction: give each alone, for what it changes here")
    if not (one.gives or other.gives):
        return None
    before, after = succession(one.document, other.document, umbrellas=(one.umbrella, other.umbrella))
    return diff(before, after, VOCABULARY)


def compared(reading: Reading, one: Candidate, other: Candidate, *, at: datetime) -> Difference:
    """As `between`; but two that show nothing by themselves among all that is in force here, from `at` on."""
    if (found := between(one, other)) is not None:
        return found
    current = register.snapshot(reading)
    before, after = (with_candidate(current, each.document, at=at, umbrella=each.umbrella) for each in (one, other))
    return diff(before, after, VOCABULARY, period=Period(at, EVER.end))


def against_register(reading: Reading, candidate: Candidate, *, at: datetime) -> Difference:
    """What would change at this host from `at` on were a document signed by all and put in force.

    Raises BadAgreement if it stands under an umbrella that is neither here nor given.
    """
    current = register.snapshot(reading)
    after = with_candidate(current, candidate.document, at=at, umbrella=candidate.umbrella)
    return diff(current, after, VOCABULARY, period=Period(at, EVER.end))


def taken_for_granted(reading: Reading, candidate: Candidate) -> tuple[str, ...]:
    """What a preview of a document takes as done that putting it in force here does not do, in words."""
    return supposed(register.snapshot(reading), candidate.document)


def estate_of(candidates: Sequence[Candidate]) -> Snapshot:
    """Documents by themselves as one estate, each signed by all its parties."""
    several = [alone(one.document, umbrella=one.umbrella) for one in candidates]
    documents: list[Document] = []
    for one in several:
        documents += (*one.agreements, *one.restrictions)
    return Snapshot.of(documents, [signature for one in several for signature in one.signatures])


def candidate_of(reading: Reading, ref: str) -> Candidate:
    """A document of the register, in force or not, with its umbrella.  Raises NotFound."""
    row = register.document_row(reading, ref)
    document = register.document_of(reading, row)
    above = register.document_of(reading, register.document_row(reading, row.under)) if row.under else None
    return Candidate(document=document, umbrella=above if isinstance(above, Agreement) else None)


def names_here(reading: Reading) -> frozenset[str]:
    """Everybody who is a party to a document of the register, in force or not, or enrolled here."""
    documents = register.documents_here(reading)
    parties = {party for one in documents if isinstance(one, Agreement) for party in one.parties}
    return frozenset(parties | {row.id for row in reading.all(AgencyRow)})


def cut_off(reading: Reading, before: Snapshot, refs: Iterable[str], *, at: datetime) -> tuple[Parting, ...]:
    """Whom acts on these documents have parted, held against what was in force before them: now, and from their first
    days on."""
    documents = [register.document_of(reading, register.document_row(reading, ref)) for ref in refs]
    instants = {at, *(max(at, one.period.start) for one in documents)}
    return partings(before, register.snapshot(reading), instants)


def umbrellas_here(reading: Reading) -> list[bytes]:
    """The texts of all umbrellas of the register: a draft may stand under one of them."""
    return [row.document for row in reading.all(AgreementRow, kind="umbrella", order=("ref",))]


def receipts_of(store: Store, trail: Trail, event_id: str, *, who: Who, at: datetime) -> dict[str, bytes]:
    """The full decision receipts that were sealed beside an event, by the source that each is of.

    They say what was hidden and why: for that source, for information governance and for courts.
    Raises NotFound if the event is none or decided nothing, and LogUnavailable, having read nothing, if that can't be
    recorded.
    """
    with store.reading() as reading:
        names = sorted(row.name for row in reading.all(BlobRow, event_id=event_id))
    names = [name for name in names if name.partition("/")[0] in ("decision", "decisions")]
    if not names:
        raise NotFound("there is no decision receipt beside such an event, or it was erased")
    _record(store, trail, {"searched": "receipts", "event": event_id}, None, who, at)
    found: dict[str, bytes] = {}
    for name in names:
        sealed = trail.blob(event_id, name)
        for jws in json.loads(sealed) if name == "decisions" else [json.loads(sealed)]:
            found[source_of(jws)] = rfc8785.dumps(jws)
    return found


def replay_past(
    store: Store, trail: Trail, candidate: Candidate, *, after: datetime | None, who: Who, at: datetime
) -> Changes:
    """The questions asked here, since `after` if given, that a candidate would have answered otherwise; each by its
    event's id.

    Raises LogUnavailable, having read nothing, if that can't be recorded.
    """
    document = candidate.document
    what: dict[str, Json] = {"searched": "decisions", "candidate": document.ref, "digest": document.digest}
    _record(store, trail, what, after, who, at)
    with store.reading() as reading:
        current = register.snapshot(reading)
    past = _past(store, trail, after)
    return what_if(past, current, document, VOCABULARY, umbrella=candidate.umbrella)


def used(
    store: Store, trail: Trail, *, months: int, who: Who, at: datetime
) -> tuple[tuple[Unused, ...], tuple[NearMiss, ...]]:
    """Clauses that nobody has relied on for so many months, and refusals in that time that one thing would have undone.

    Raises LogUnavailable, having read nothing, if that can't be recorded.
    """
    begins = since(at, months)
    _record(store, trail, {"searched": "decisions", "months": months}, begins, who, at)
    with store.reading() as reading:
        current = register.snapshot(reading)
    past = [one for _, one in _past(store, trail, begins)]
    return unused(current, past, Period(begins, at)), near_misses(current, VOCABULARY, past)


def looked_over(reading: Reading, *, at: datetime) -> tuple[Remark, ...]:
    """What to look at among all that is in force here; what arrives and who works here are known."""
    current = register.snapshot(reading)
    arrived = categories_held(reading)
    sources = {party for agreement in current.agreements for party in agreement.parties}
    feeds = dict.fromkeys(sources, arrived) if arrived else None  # before the first night nothing has
    ours = {code for code, role in VOCABULARY.roles.items() if "gateway" not in role.flags}  # they sign in here
    staff: Mapping[str, frozenset[str]] = {row.id: frozenset({*row.roles, *ours}) for row in reading.all(AgencyRow)}
    flows = {agency: {flow.flow for flow in reading.all(AgencyFlowRow, agency=agency)} for agency in staff}
    sectors = {category.sector for category in VOCABULARY.categories.values()}
    named = {
        agency: several for agency, several in flows.items() if several <= sectors
    }  # else no name tells its sector
    return lint(current, VOCABULARY, at=at, feeds=feeds, staff=staff, flows=named)


def _past(store: Store, trail: Trail, after: datetime | None) -> Iterator[tuple[str, PastDecision]]:
    """Every decision still kept, oldest first, under the id of its event; what was erased is no more."""
    with store.reading() as reading:
        kept = decisions_since(reading, clock.milliseconds(after) if after is not None else 0)
    for event_id, name in kept:
        try:
            receipt = json.loads(trail.blob(event_id, name))
        except NotFound:
            continue
        for one in past_decisions(receipt):
            yield event_id, one


def _record(store: Store, trail: Trail, what: dict[str, Json], after: datetime | None, who: Who, at: datetime) -> None:
    event = Event(
        id=new_event_id(),
        type="audit.searched",
        who=who,
        what={**what, "since": after.isoformat() if after is not None else None},
        why={"reason": "self_monitoring"},
        detail={},
    )
    trail.receipt_for(event, at=at)

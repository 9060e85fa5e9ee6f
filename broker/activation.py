"""Putting a document in force at this host, and taking it out again: the host's own act, and whose hand may do it.

Nobody both puts an agreement in force and asks under it: who approves it is kept, who has asked may not approve, and
for who has approved the agreement does not count.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from agreements import VOCABULARY, Agreement, Mode, Request, Snapshot
from agreements.agreement import Document, london_day
from agreements.assurance import Gap, gaps
from broker import register
from broker.errors import BadAgreement, NotAllowed, WrongState
from broker.store import Reading, Store
from broker.store.agencies import AgencyRow
from broker.store.documents import AgreementRow, AgreementStatusRow
from broker.store.releases import ReleaseRow
from broker.store.searches import SearchRow
from broker.trail import EntryRef, Trail, Who, record_change

ASKED_WITHIN: Final = timedelta(days=365)  # who has asked so lately is somebody who asks
NOT_PUBLIC: Final = frozenset({"charity", "company", "housing_association", "independent_provider", "voluntary"})
"""The party types of the register that are no public authority; of any other type a party is taken to be one."""


class NotAssured(BadAgreement):
    """An agreement lacks what it needs to be put in force; `gaps` are codes, places and what to write."""

    def __init__(self, ref: str, found: Collection[Gap]) -> None:
        self.gaps: Final = tuple(found)
        said = "; ".join(f"{gap.code}: {gap.path}: {gap.message}; {gap.fix}" for gap in self.gaps)
        super().__init__(f"{ref} can't be put in force: {said}")


def activate(store: Store, trail: Trail, ref: str, *, who: Who, at: datetime) -> EntryRef | None:
    """Put a document in force at this host; None if it is already.

    A party that has not signed yet stops its own flows only: a clause is live between two that both have.  Parties that
    have signed it take no part in its older versions from its first day.
    Raises NotFound; NotAssured if a paper, a sign-off or a legal row is missing; BadAgreement if nobody has signed it,
    or it or its umbrella has ended or waits for an overdue review; WrongState if its umbrella is not in force;
    NotAllowed for a person who asks under agreements.
    """
    with store.transaction() as tx:
        row = register.document_to_change(tx, ref)
        if row.status == "active":
            return None
        document = register.document_of(tx, row)
        _ready(tx, row, document, at=at)
        person = str(who.get("person") or "")
        if person and row.kind != "restriction" and _asks(tx, person, document, at=at):
            raise NotAllowed(
                f"{person} has asked under agreements within a year: somebody who does not ask puts them in force"
            )
        row.status, row.changed_at = "active", at
        tx.add(row)
        register.add_status(tx, ref, "active", "activated", register.person_of(who), at)
        tx.flush()
        entry = record_change(tx, trail, "agreement.activated", who, at, agreement=ref, digest=row.digest)
        register.settle_versions(tx, trail, row, who=who, at=at)
        return entry


def suspend(store: Store, trail: Trail, ref: str, *, who: Who, at: datetime) -> EntryRef:
    """Take a document out of force at this host, from the next decision on; `activate` puts it back.

    Raises NotFound, WrongState if it is not in force.
    """
    with store.transaction() as tx:
        row = register.document_to_change(tx, ref)
        if row.status != "active":
            raise WrongState(f"{ref} is not in force")
        if row.kind == "restriction":
            raise WrongState(f"{ref} is a restriction: its owner withdraws it, the host does not")
        row.status, row.changed_at = "suspended", at
        tx.add(row)
        register.add_status(tx, ref, "suspended", "by-host", register.person_of(who), at)
        return record_change(tx, trail, "agreement.suspended", who, at, agreement=ref, party="host")


def approved_by(reading: Reading, person: str) -> frozenset[str]:
    """The documents that were last put in force by this person: under those the person can't ask."""
    approved = {row.agreement for row in reading.all(AgreementStatusRow, reason="activated", by=person)}
    if not approved:
        return frozenset()
    latest = reading.all(AgreementStatusRow, reason="activated", agreement=tuple(approved), order=("number",))
    return frozenset(ref for ref, by in {row.agreement: row.by for row in latest}.items() if by == person)


def snapshot_for(reading: Reading, person: str) -> tuple[Snapshot, tuple[str, ...]]:
    """What is in force for one who asks: all but what the person has approved; and the refs that so do not count.

    What stands under an umbrella that the person has approved does not count either.
    """
    every = register.snapshot(reading)
    barred = barred_from(reading, person, every)
    if not barred:
        return every, ()
    counting = {one.digest for one in every.agreements if one.ref not in barred}
    return every.only(counting | {one.digest for one in every.restrictions}), barred


def barred_from(reading: Reading, person: str, among: Snapshot) -> tuple[str, ...]:
    """The agreements that do not count for a person, who has put them, or the umbrella they stand under, in force."""
    own = approved_by(reading, person)
    return tuple(
        sorted({one.ref for one in among.agreements if one.ref in own or (one.under and one.under.ref in own)})
    )


def barring(
    reading: Reading, barred: Collection[str], request: Request, *, at: datetime, among: Snapshot | None = None
) -> tuple[str, ...]:
    """Of the agreements that the asker put in force those that would give some of what is asked, were it not so;
    `among` others than are in force today.

    One that has ended, or under which nobody discloses to the asker's organisation, takes nothing from anybody.
    """
    if not barred:
        return ()
    every = among or register.snapshot(reading)
    aggregate = Mode.AGGREGATE in request.asked.values()
    return tuple(
        agreement.ref
        for agreement in every.agreements
        if agreement.ref in barred
        and any(
            request.organisation in grant.organisations
            and any(
                (mode is Mode.AGGREGATE) is aggregate for name, mode in grant.modes.items() if name in request.asked
            )
            and any(every.standing(agreement, one, request.organisation, at).live for one in grant.sources)
            for grant in agreement.grants
        )
    )


def _ready(reading: Reading, row: AgreementRow, document: Document, *, at: datetime) -> None:
    standings = register.standings_of(reading, row, at=at)
    if all(standing.since is None for standing in standings.values()):
        raise BadAgreement(f"{row.ref} is signed by nobody yet: it takes its source and its recipient, at least")
    _not_over(row.ref, document, at)
    if not isinstance(document, Agreement):
        return
    if found := (*contradicted(reading, document), *gaps(document, VOCABULARY, on=london_day(at))):
        raise NotAssured(row.ref, found)
    if document.under is not None:
        umbrella = reading.one(AgreementRow, ref=document.under.ref)
        if umbrella is None or umbrella.status != "active":
            raise WrongState(f"{row.ref} stands under {document.under.ref}, which is not in force: activate that first")
        _not_over(row.ref, register.document_of(reading, umbrella), at)


def _not_over(ref: str, layer: Document, at: datetime) -> None:
    """Raise BadAgreement if a document, or the umbrella it stands under, has ended or waits for its review: put in
    force it would show nothing, and take the place of an older version that does."""
    whose = f"{ref} stands under {layer.ref}, which" if layer.ref != ref else ref
    if at >= layer.period.end:
        raise BadAgreement(f"DSA_EXPIRED: period.expires: {whose} has ended; sign a new version")
    if isinstance(layer, Agreement) and layer.if_review_overdue == "suspend" and layer.review and at >= layer.review:
        raise BadAgreement(
            f"DSA_SUSPENDED: period.review_by: {whose} shows nothing while its review is overdue; sign a new version"
        )


def is_public(row: AgencyRow) -> bool:
    """Whether an agency is a public authority, by its type in the register."""
    return row.party_type not in NOT_PUBLIC


def contradicted(reading: Reading, agreement: Agreement) -> tuple[Gap, ...]:
    """What an agreement says of its parties against the register of agencies; of who is not enrolled it knows nothing.

    Some bases of Article 6 are closed to public authorities, so whether a party is one is not the document's to say.
    """
    found = []
    for index, party in enumerate(agreement.body["parties"]):
        row = reading.one(AgencyRow, id=party["id"])
        if row is None:
            continue
        public = is_public(row)
        if agreement.parties[row.id].public_authority is not public:
            is_one = "is a public authority" if public else "is no public authority"
            message = f"the register has {row.id} as {row.party_type}, which {is_one}"
            fix = (
                f"write public_authority = {str(public).lower()} in a new version, or enrol it anew under its true type"
            )
            found.append(Gap("BASIS_INVALID_FOR_PARTY", f"parties[{index}].public_authority", message, fix))
    return tuple(found)


def _asks(reading: Reading, person: str, document: Document, *, at: datetime) -> bool:
    """Whether a person of one of the parties has searched, or had a table of statistics prepared, of late."""
    parties = tuple(document.parties) if isinstance(document, Agreement) else ()
    searched = reading.all(SearchRow, person=person, agency=parties, order=("-created_at",), limit=1)
    prepared = reading.all(
        ReleaseRow, prepared_by=person, organisation=parties, order=("-prepared_at",), limit=1
    )  # fmt: skip
    asked = [row.created_at for row in searched] + [row.prepared_at for row in prepared]
    return any(one > at - ASKED_WITHIN for one in asked)

"""An encoded search: who may be meant, as far as the asker may know of anybody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from agreements import VOCABULARY, Basis, Request, RequestRefused
from audit.events import Event
from broker import register
from broker.callers import Caller
from broker.disclosures import (
    Deciding,
    Question,
    Released,
    case_of,
    fresh_id,
    link_of,
    own_candidate,
    refusals,
    refused,
    who,
)
from broker.errors import Malformed
from broker.family_view import BANNER, Feed, Refusal
from broker.keys import Keys
from broker.linked import InService, LinkedArea
from broker.store import Store, Transaction
from broker.store.agencies import AgencyRow
from broker.store.searches import SearchCandidateRow, SearchRow, ThresholdRow, searches_since
from broker.trail import Trail
from linkage.matching.search import Candidate, EncodedRow, TooManyCandidates

SEARCH_LASTS: Final = timedelta(hours=8)
LISTED: Final = 5
LOOKED_AT: Final = 25  # before the rules are applied, so that hidden children never count
PER_HOUR: Final = 120  # searches of one person
ADD_DETAIL: Final = "Add one more detail: a date of birth, postcode or number. More than 5 children fit."


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A search as it arrives from a gateway: why, and whom, encoded there."""

    purpose: str
    basis: Basis
    case: str
    family_informed: str
    profile: str
    key_epoch: str
    key_fingerprint: str
    subject: EncodedRow
    household: tuple[tuple[str, EncodedRow], ...] = ()  # relation to the child as typed, and whom


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One candidate as the asker may know of it."""

    candidate: str
    band: str
    agreed: tuple[str, ...]
    differs: tuple[str, ...]
    birth_year: int | None
    organisations: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAnswer:
    """Candidates, `match` first, and the state of every organisation; or why there can be none."""

    search: str
    at: datetime
    candidates: tuple[Listed, ...]
    organisations: tuple[Feed, ...]
    refusals: tuple[Refusal, ...]
    too_many: str | None
    banner: str = BANNER


def search(
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, asked: Asked, *, at: datetime
) -> Released[SearchAnswer]:
    """Whom the agencies know that fits, listed only where a record reaches existence for this asker and purpose.

    One leaf, whatever was found, hidden or absent.  Raises Malformed for another key, epoch or profile than the
    partnership's, LogUnavailable, having shown nothing, if it can't be recorded.
    """
    with store.transaction() as tx:
        agency = tx.one(AgencyRow, id=caller.organisation)
        if agency is None or (asked.key_epoch, asked.key_fingerprint) != (agency.key_epoch, agency.key_fingerprint):
            raise Malformed("key_epoch, key_fingerprint: not those of this partnership's linkage key")
        search_id = fresh_id()
        case_hmac = keys.case_index(asked.case)
        feeds = tuple(register.feeds(tx, at=at))
        refusal, request = _may_ask(tx, caller, asked, case_hmac, at=at)
        found: list[tuple[SearchCandidateRow, Candidate]] = []
        considered: list[str] = []
        too_many = None
        area = service.area()
        if refusal is None and request is not None and area is not None:
            found, considered, overflow = _listed(
                tx, keys, area, caller, asked, request, search=search_id, case_hmac=case_hmac, at=at
            )
            too_many = ADD_DETAIL if overflow else None
            found = [] if overflow else found
        reasons = (
            [refusal]
            if refusal
            else refusals(register.snapshot(tx), request, feeds, at=at)
            if request is not None and not found
            else []
        )
        entry = trail.record(
            tx,
            Event(
                id=fresh_id(),
                type="search.refused" if refusal else "search.authorised",
                who=who(caller),
                what={
                    "search": search_id,
                    "outcome": refusal.code if refusal else f"{len(found)}_listed",
                    "run": area.run if area else None,
                },
                why={
                    "purpose": asked.purpose,
                    "art6": asked.basis.art6,
                    "case": case_hmac,
                    "family_informed": asked.family_informed,
                },
                subjects=sorted({row.person_id for row, _ in found}),
                recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
                detail={
                    "fields": _given(asked.subject),
                    "hidden": len(considered) - len(found),
                    "too_many": bool(too_many),
                },
            ),
            about=considered,
            at=at,
        )
        tx.add(
            SearchRow(
                id=search_id,
                agency=caller.organisation,
                person=caller.person,
                role=caller.role,
                session=caller.session,
                purpose=asked.purpose,
                basis={
                    "art6": asked.basis.art6,
                    "condition": sorted(asked.basis.conditions),
                    "gateway": sorted(asked.basis.gateways),
                },
                case_hmac=case_hmac,
                household=_household(keys, area, asked) if found and area is not None else [],
                family_informed=asked.family_informed,
                run=area.run if area else None,
                event_id=entry.event_id,
                outcome=refusal.code if refusal else "searched",
                created_at=at,
                expires_at=at + SEARCH_LASTS,
            )
        )
        tx.flush()
        tx.add(*(row for row, _ in found))
    answer = SearchAnswer(
        search=search_id,
        at=at,
        candidates=tuple(
            Listed(
                candidate=row.candidate,
                band=row.band,
                agreed=tuple(row.agreed),
                differs=tuple(row.differs),
                birth_year=candidate.birth_year,
                organisations=tuple(sorted({record[0] for record in row.records})),
            )
            for row, candidate in found
        ),
        organisations=feeds,
        refusals=tuple(reasons),
        too_many=too_many,
    )
    return Released(answer, trail.receipt(entry))


def set_threshold(
    store: Store, trail: Trail, caller: Caller, *, search: str, candidate: str, level: str, grounds: str, at: datetime
) -> Released[Refusal | None]:
    """Record a level for a candidate's case, or refuse: only a role that the vocabulary names may set one.

    Categories widen from this moment; earlier answers stay as they were.  Raises NotFound, Malformed.
    """
    term = VOCABULARY.thresholds.get(level)
    if term is None:
        raise Malformed(f"level: one of {', '.join(VOCABULARY.thresholds)} is due")
    with store.transaction() as tx:
        found, chosen = own_candidate(tx, caller, search=search, candidate=candidate, at=at)
        refusal = None
        if caller.role not in term.set_by:
            refusal = Refusal(
                organisation=None,
                category=None,
                code="THRESHOLD_UNAUTHORISED",
                sentence=f"Only a {' or '.join(term.set_by)} can set this. Ask them to decide.",
                unlock=f"role {term.set_by[0]}" if term.set_by else None,
            )
        entry = trail.record(
            tx,
            Event(
                id=fresh_id(),
                type="threshold.refused" if refusal else "threshold.set",
                who=who(caller),
                what={"search": search, "level": level, "outcome": refusal.code if refusal else "set"},
                why={"purpose": found.purpose, "case": found.case_hmac, "grounds": grounds},
                subjects=[chosen.person_id],
                detail={},
            ),
            about=[chosen.person_id],
            at=at,
        )
        if refusal is None:
            tx.add(
                ThresholdRow(
                    id=fresh_id(),
                    agency=caller.organisation,
                    case_hmac=found.case_hmac,
                    person_id=chosen.person_id,
                    search=search,
                    level=level,
                    grounds=grounds,
                    set_by=caller.person,
                    role=caller.role,
                    event_id=entry.event_id,
                    at=at,
                )
            )
    return Released(refusal, trail.receipt(entry))


def _may_ask(
    tx: Transaction, caller: Caller, asked: Asked, case_hmac: str, *, at: datetime
) -> tuple[Refusal | None, Request | None]:
    """A refusal that holds before any child is looked up, or the request as it may be decided."""
    if searches_since(tx, agency=caller.organisation, person=caller.person, since=at - timedelta(hours=1)) >= PER_HOUR:
        sentence = "You have searched a lot in a short time. Try again in an hour, or ask your manager."
        return Refusal(organisation=None, category=None, code="RATE_LIMIT", sentence=sentence, unlock=None), None
    question = Question(caller=caller, purpose=asked.purpose, basis=asked.basis, case_hmac=case_hmac, threshold=None)
    try:
        return None, question.request()
    except RequestRefused as unanswerable:
        return refused(unanswerable), None


def _listed(
    tx: Transaction,
    keys: Keys,
    area: LinkedArea,
    caller: Caller,
    asked: Asked,
    request: Request,
    *,
    search: str,
    case_hmac: str,
    at: datetime,
) -> tuple[list[tuple[SearchCandidateRow, Candidate]], list[str], bool]:
    """Candidates that may be known of, the person ids of all that fit, and whether too many may be known of."""
    try:
        candidates = area.index.candidates(_peppered(asked.subject, keys), limit=LOOKED_AT)
    except TooManyCandidates:
        return [], [], True
    snapshot = register.snapshot(tx)
    listed = []
    for candidate in candidates:
        row = SearchCandidateRow(
            search=search,
            candidate=fresh_id(),
            person_id=candidate.person_id,
            band=candidate.band,
            upper=candidate.upper,
            agreed=list(candidate.agreed),
            differs=list(candidate.differs),
            records=[],
        )
        deciding = Deciding(
            tx=tx,
            keys=keys,
            area=area,
            snapshot=snapshot,
            request=request,
            case=case_of(tx, area, caller, case_hmac, candidate.person_id),
            at=at,
        )
        shown = [seen for seen in deciding.person(candidate.person_id, "subject_child", link_of(row)) if seen.shown]
        if shown:
            row.records = [list(seen.record) for seen in shown]
            listed.append((row, candidate))
    return listed, [candidate.person_id for candidate in candidates], len(listed) > LISTED


def _household(keys: Keys, area: LinkedArea, asked: Asked) -> list[list[str]]:
    """Members of the household as typed who surely are one person each: [person id, relation]."""
    members = []
    for relation, row in asked.household:
        try:
            found = [each for each in area.index.candidates(_peppered(row, keys)) if each.band == "match"]
        except TooManyCandidates:
            continue
        if len(found) == 1:
            members.append([found[0].person_id, relation])
    return members


def _peppered(row: EncodedRow, keys: Keys) -> EncodedRow:
    """The row with its tokens as the broker keeps them."""

    def stored(token: int | None) -> int | None:
        return None if token is None else keys.pepper_one(token)

    return replace(
        row,
        tokens={name: stored(token) for name, token in row.tokens.items()},
        identifiers={name: stored(token) for name, token in row.identifiers.items()},
    )


def _given(row: EncodedRow) -> list[str]:
    """Which fields were given; never what they held."""
    filters = [name for name, words in row.filters.items() if words is not None]
    return sorted([*filters, *(name for name, token in row.identifiers.items() if token is not None)])

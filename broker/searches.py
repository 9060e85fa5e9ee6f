"""An encoded search: who may be meant, as far as the asker may know of anybody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Final

import rfc8785

from agreements import VOCABULARY, Basis, Link, Request, RequestRefused, Snapshot, Threshold
from audit.events import Event
from broker import activation, agencies, ledger
from broker.budgets import exceeded
from broker.callers import Caller
from broker.deciding import (
    Case,
    Deciding,
    Question,
    Released,
    engine_failed,
    held_of,
    hidden_code,
    links_to_child,
    looked_at,
    named,
    receipts_of,
    record_end,
    refusals,
    said_of,
    unanswerable,
)
from broker.errors import BrokerError, Malformed, WrongEpoch
from broker.family_view import BANNER, Feed, Refusal, Seen
from broker.keys import Keys
from broker.ledger import Broken
from broker.linked import InService, LinkedArea
from broker.settings import Budgets
from broker.store import Reading, Store, Transaction
from broker.store.agencies import AgencyRow
from broker.store.log import FlagRow
from broker.store.searches import SearchCandidateRow, SearchRow
from broker.trail import EntryRef, Trail, new_event_id
from linkage.matching.search import BadRow, Candidate, EncodedRow, TooManyCandidates

SEARCH_LASTS: Final = timedelta(hours=8)
LISTED: Final = 5
LOOKED_AT: Final = 25  # before the rules are applied, so that hidden children never count
PROHIBITED: Final = "PURPOSE_PROHIBITED"
FAMILY_INFORMED: Final = ("yes", "no_risk_of_harm", "no_not_reachable", "no_crime", "no_safe_contact")
SAID_FIRST: Final = (
    "nhs_number", "upn", "pnc", "cro", "uln", "local", "given_name", "family_name", "date_of_birth", "postcode", "sex",
)  # fmt: skip
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
    store: Store, trail: Trail, keys: Keys, service: InService, caller: Caller, asked: Asked, *, budgets: Budgets,
    at: datetime,
) -> Released[SearchAnswer]:  # fmt: skip
    """Whom the agencies know that fits, listed only where a record reaches existence for this asker and purpose.

    One leaf, whatever was found, hidden or absent; before the first link run nobody is found.  Raises Malformed for
    another key or profile than the partnership's, WrongEpoch for another epoch of it than is in service; having shown
    nothing, LogUnavailable if it can't be recorded, and EngineFailed, which is recorded, if a rule can't be evaluated.
    """
    with store.reading() as reading:
        _of_this_partnership(reading, caller, asked)
    request, refusal = _may_ask(keys, caller, asked)
    area = service.area()
    if area is not None and area.epoch not in ("", asked.key_epoch):  # it was put in service just now
        raise _wrong_epoch(area.epoch)
    if area is not None and asked.profile != area.index.model.profile:
        raise Malformed("profile: not that of this partnership")
    try:
        answer, entry = _answered(store, trail, keys, area, caller, asked, request, refusal, budgets, at=at)
    except BrokerError:
        raise
    except Exception as wrong:  # whatever it is: no part of an answer leaves
        raise engine_failed(
            store, trail, caller, wrong, type_="search.refused", what={}, why=_why(keys, asked, refusal),
            request=request, at=at,
        ) from None  # fmt: skip
    return Released(answer, trail.receipt(entry))


def _answered(
    store: Store,
    trail: Trail,
    keys: Keys,
    area: LinkedArea | None,
    caller: Caller,
    asked: Asked,
    request: Request | None,
    refusal: Refusal | None,
    budgets: Budgets,
    *,
    at: datetime,
) -> tuple[SearchAnswer, EntryRef]:
    """The answer, recorded.  However many fit, shown or hidden, the database is asked as many questions."""
    looked = _Looked()
    if request is not None and area is not None:
        looked = _look(area, keys, asked)  # before the transaction: others need not wait for it
    with store.transaction() as tx:
        if over := exceeded(tx, caller, "searches", budgets, at=at):
            request, refusal, looked = None, over[0], _Looked()
        feeds = agencies.feeds(tx, at=at)
        found = _Found()
        reasons = [refusal] if refusal is not None else []
        if request is not None:
            case = Case.known(tx, area, caller, request.case or "")
            snapshot, barred = activation.snapshot_for(tx, caller.person)
            if area is not None:
                found = _listed(tx, keys, area, case, snapshot, request, feeds, looked, at=at)
            if not found.listed:
                known = replace(request, threshold=case.level)
                own = activation.barring(tx, barred, known, at=at)
                reasons = refusals(snapshot, known, feeds, at=at, barred=own)
        entry = _record(tx, trail, keys, caller, asked, area, looked, found, refusal, reasons, feeds, at=at)
    answer = SearchAnswer(
        search=found.search,
        at=at,
        candidates=tuple(one.answer for one in found.listed),
        organisations=feeds,
        refusals=tuple(reasons),
        too_many=ADD_DETAIL if found.too_many else None,
    )
    return answer, entry


def completed(store: Store, trail: Trail, caller: Caller, *, search: str, event_id: str) -> None:
    """Record that the answer has left: called after its last byte."""
    record_end(
        store, trail, caller, "search.completed", {"search": search, "authorised_by": event_id},
        beside=partial(ledger.ended, event_id=event_id, how="completed"),
    )  # fmt: skip


def aborted(
    store: Store, trail: Trail, caller: Caller, how: Broken = "not_sent", *, search: str, event_id: str
) -> None:
    """Record that the answer was not taken: nothing of it has left, or it broke off and a part may have arrived."""
    record_end(
        store, trail, caller, "disclosure.aborted", {"search": search, "authorised_by": event_id, "outcome": how},
        beside=partial(ledger.ended, event_id=event_id, how=how),
    )  # fmt: skip


# --- Before any child is looked up -----------------------------------------------------------------------------------


def _of_this_partnership(reading: Reading, caller: Caller, asked: Asked) -> None:
    agency = reading.one(AgencyRow, id=caller.organisation)
    if agency is not None and asked.key_epoch != agency.key_epoch:
        raise _wrong_epoch(agency.key_epoch)
    if agency is None or asked.key_fingerprint != agency.key_fingerprint:
        raise Malformed("key_epoch, key_fingerprint: not those of this partnership's linkage key")
    if asked.family_informed not in FAMILY_INFORMED:
        raise Malformed(f"family_informed: one of {', '.join(FAMILY_INFORMED)} is due")


def _wrong_epoch(epoch: str) -> WrongEpoch:
    return WrongEpoch(f"key_epoch: the epoch in service is {epoch}; encode the search under its key")


def _may_ask(keys: Keys, caller: Caller, asked: Asked) -> tuple[Request | None, Refusal | None]:
    """The request as it may be decided, or a refusal that holds for every child."""
    question = Question(caller=caller, purpose=asked.purpose, basis=asked.basis, case_hmac=keys.case_index(asked.case))
    try:
        return question.request(), None
    except RequestRefused as wrong:
        return None, unanswerable(wrong)


# --- Looking --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """Who fits, before any rule: candidates, those whose address is shielded as if no place had been given."""

    candidates: tuple[Candidate, ...] = ()
    too_many: bool = False
    by_place_alone: tuple[str, ...] = ()  # shielded persons who fit only for the place that was typed
    household: tuple[tuple[str, str], ...] = ()  # person id, and relation as typed


def _look(area: LinkedArea, keys: Keys, asked: Asked) -> _Looked:
    """Look twice, with the place that was typed and without: a shielded address is no way to find whom it shields, and
    whether it agrees is not told.  Raises Malformed for a row of another profile."""
    subject = _peppered(asked.subject, keys)
    try:
        placed, too_many = _fitting(area, subject)
        placeless, _ = _fitting(area, _without_place(subject))
        household = _household(area, [(relation, _peppered(row, keys)) for relation, row in asked.household])
    except BadRow as wrong:
        raise Malformed(str(wrong)) from None
    shielded = {
        person_id: "shield_address" in area.tags(person_id)
        for person_id in dict.fromkeys(candidate.person_id for candidate in (*placed, *placeless))
    }
    fitting = (
        *(candidate for candidate in placed if not shielded[candidate.person_id]),
        *(candidate for candidate in placeless if shielded[candidate.person_id]),
    )
    kept = {candidate.person_id for candidate in fitting}
    try:  # each look has left out the lesser of two who are severed; of the two looks together one may be lesser still
        candidates = area.index.without_severed(fitting)
    except TooManyCandidates:
        candidates, too_many = (), True
    return _Looked(
        candidates=candidates,
        too_many=too_many,
        by_place_alone=tuple(candidate.person_id for candidate in placed if candidate.person_id not in kept),
        household=_not_severed(area, household, [candidate.person_id for candidate in candidates]),
    )


def _not_severed(
    area: LinkedArea, household: Sequence[tuple[str, str]], candidates: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """The members as typed, less those severed from a candidate or from a member before them."""
    seen, kept = set(candidates), []
    for person_id, relation in household:
        if seen.isdisjoint(area.index.severed_from(person_id)):
            seen.add(person_id)
            kept.append((person_id, relation))
    return tuple(kept)


def _fitting(area: LinkedArea, row: EncodedRow) -> tuple[tuple[Candidate, ...], bool]:
    try:
        return area.index.candidates(row, limit=LOOKED_AT), False
    except TooManyCandidates:
        return (), True


def _household(area: LinkedArea, members: Sequence[tuple[str, EncodedRow]]) -> list[tuple[str, str]]:
    """Members as typed who surely are one person each; one whose address is shielded not by the place."""
    found = []
    for relation, row in members:
        for typed, by_place in ((row, True), (_without_place(row), False)):
            matches = [each.person_id for each in _fitting(area, typed)[0] if each.band == "match"]
            if len(matches) == 1 and ("shield_address" in area.tags(matches[0])) is not by_place:
                found.append((matches[0], relation))
    return found


def _without_place(row: EncodedRow) -> EncodedRow:
    """The row as if no postcode had been typed."""

    def tells(name: str) -> bool:
        return "postcode" in name or name.endswith(("_p", "_sector"))

    return replace(
        row,
        filters={name: None if tells(name) else words for name, words in row.filters.items()},
        tokens={name: None if tells(name) else token for name, token in row.tokens.items()},
    )


def _peppered(row: EncodedRow, keys: Keys) -> EncodedRow:
    """The row with its tokens as the broker keeps them."""

    def stored(tokens: Mapping[str, int | None]) -> dict[str, int | None]:
        return {name: None if token is None else keys.pepper_one(token) for name, token in tokens.items()}

    return replace(row, tokens=stored(row.tokens), identifiers=stored(row.identifiers))


# --- Listing --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ListedOne:
    row: SearchCandidateRow
    answer: Listed
    records: tuple[Seen, ...]  # those that reach existence


@dataclass(frozen=True, slots=True)
class _Found:
    """Who may be known of, and of everybody else who fits the true reason, for the log alone."""

    search: str = ""
    listed: tuple[_ListedOne, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()  # person id, code
    too_many: bool = False
    seen: tuple[Seen, ...] = ()  # every record that was decided
    receipts: tuple[Mapping[str, Any], ...] = ()  # the full ones, for the log alone

    def __post_init__(self) -> None:
        if not self.search:
            object.__setattr__(self, "search", new_event_id())


def _listed(
    tx: Reading,
    keys: Keys,
    area: LinkedArea,
    known: Case,
    snapshot: Snapshot,
    request: Request,
    feeds: Sequence[Feed],
    looked: _Looked,
    *,
    at: datetime,
) -> _Found:
    """Candidates of whom a record reaches existence: match first, and within a band by birth year, never by weight."""
    held = held_of(tx, area, [candidate.person_id for candidate in looked.candidates], keys=keys)
    seen: dict[Threshold | None, list[Seen]] = defaultdict(list, {known.level: []})
    search_id = new_event_id()
    listed: list[_ListedOne] = []
    hidden = [(person_id, "SHIELDED") for person_id in looked.by_place_alone]
    for candidate in looked.candidates:
        level = known.levels.get(candidate.person_id)
        deciding = Deciding(
            area=area, snapshot=snapshot, request=replace(request, threshold=level), feeds=feeds, held=held, at=at
        )
        banded, records = _decided_on(area, deciding, candidate, case=known.of(candidate.person_id))
        seen[level] += records
        shown = tuple(record for record in records if record.shown)
        if shown:
            listed.append(_one(area, search_id, banded, shown))
        else:
            codes = [hidden_code(snapshot, record.decision) for record in records]
            hidden.append((candidate.person_id, codes[0] if codes else "DSA_SUSPENDED"))
    listed.sort(key=lambda one: (one.row.band != "match", one.answer.birth_year or 0, one.row.candidate))
    matches = sum(one.row.band == "match" for one in listed)
    too_many = looked.too_many or matches > LISTED or (not matches and len(listed) > LISTED)
    receipts = [
        receipt.jws
        for level, records in seen.items()
        for receipt in receipts_of(keys, snapshot, replace(request, threshold=level), records, feeds, at=at).values()
    ]
    return _Found(
        search_id,
        () if too_many else tuple(listed[:LISTED]),
        tuple(hidden),
        too_many,
        tuple(record for records in seen.values() for record in records),
        tuple(receipts),
    )


def _decided_on(
    area: LinkedArea, deciding: Deciding, candidate: Candidate, *, case: str | None
) -> tuple[Candidate, list[Seen]]:
    """A candidate's records as decided, in the band that those reach which are shown.

    Were it found, or found surely, by a hidden record alone, that would tell of the hidden one: then it is a merely
    possible match, or none.
    """
    found = [(candidate, frozenset(candidate.records if candidate.band == "match" else candidate.compared))]
    if candidate.band == "match":
        found.append((replace(candidate, band="possible"), frozenset(candidate.compared)))
    for banded, by in found:
        link = links_to_child(area, banded.band, banded.certain)
        records = deciding.person(candidate.person_id, "subject_child", link, case=case)
        shown = {record.record for record in records if record.shown}
        if not shown or shown & by:
            return banded, records
    unfound = deciding.person(candidate.person_id, "subject_child", lambda _: Link.NONE, case=case)
    return candidate, [hidden if one.shown else one for one, hidden in zip(records, unfound, strict=True)]


def _one(area: LinkedArea, search_id: str, candidate: Candidate, shown: tuple[Seen, ...]) -> _ListedOne:
    agreed, differs = _said(candidate, shown)
    row = SearchCandidateRow(
        search=search_id,
        candidate=new_event_id(),
        person_id=candidate.person_id,
        band=candidate.band,
        upper=candidate.upper,
        agreed=list(agreed),
        differs=list(differs),
        records=[list(record) for record in candidate.certain],
    )
    answer = Listed(
        candidate=row.candidate,
        band=candidate.band,
        agreed=agreed,
        differs=differs,
        birth_year=area.birth_year(record.record for record in shown),
        organisations=tuple(sorted({record.record[0] for record in shown})),
    )
    return _ListedOne(row, answer, shown)


def _said(candidate: Candidate, shown: tuple[Seen, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which fields agree with a record that is shown, and which differ from all such; a hidden one tells nothing."""
    told = [candidate.compared[record.record] for record in shown if record.record in candidate.compared]
    agreed = {field for agrees, _ in told for field in agrees}
    differs = {field for _, differing in told for field in differing} - agreed
    return tuple(field for field in SAID_FIRST if field in agreed), tuple(
        field for field in SAID_FIRST if field in differs
    )


# --- Recording ------------------------------------------------------------------------------------------------------


def _record(
    tx: Transaction,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    asked: Asked,
    area: LinkedArea | None,
    looked: _Looked,
    found: _Found,
    refusal: Refusal | None,
    reasons: Sequence[Refusal],
    feeds: Sequence[Feed],
    *,
    at: datetime,
) -> EntryRef:
    outcome = refusal.code if refusal is not None else f"{len(found.listed)}_listed"
    run = area.run if area is not None else None
    why = _why(keys, asked, refusal)
    codes, said = said_of(reasons)
    sealed = {"decisions": rfc8785.dumps([dict(one) for one in found.receipts]), "looked_at": looked_at(found.seen)}
    shown = {one.row.person_id for one in found.listed}
    records = {named(record.record) for one in found.listed for record in one.records}
    entry = trail.record(
        tx,
        Event(
            id=new_event_id(),
            type="search.refused" if refusal is not None else "search.authorised",
            who=caller.who(),
            what={"search": found.search, "outcome": outcome, "run": run, "refused": codes},
            why=why,
            subjects=sorted(shown | records) if len(records) <= 4 * LISTED else sorted(shown),
            recipients=[{"organisation": caller.organisation, "person": caller.person, "role": caller.role}],
            detail={
                "fields": _given(asked.subject),
                "household": [_given(row) for _, row in asked.household],
                "hidden": [list(one) for one in found.hidden],
                "too_many": found.too_many,
                **{name: sha256(blob).hexdigest() for name, blob in sealed.items()},
            },
        ),
        about={
            found.search,
            *(person_id for person_id, _ in found.hidden),
            *(c.person_id for c in looked.candidates),
            *records,
        },
        blobs={"query": rfc8785.dumps(_query(asked)), "refused": said, **sealed},
        at=at,
    )
    tx.add(
        SearchRow(
            id=found.search,
            agency=caller.organisation,
            person=caller.person,
            role=caller.role,
            session=caller.session,
            purpose=why["purpose"],
            basis={
                "art6": why["art6"],
                "condition": sorted(asked.basis.conditions & VOCABULARY.conditions.keys()),
                "gateway": sorted(asked.basis.gateways & VOCABULARY.gateways.keys()),
            },
            case_hmac=why["case"],
            household=[list(member) for member in looked.household] if found.listed else [],
            family_informed=asked.family_informed,
            run=run,
            event_id=entry.event_id,
            outcome=refusal.code if refusal is not None else "searched",
            created_at=at,
            expires_at=at + SEARCH_LASTS,
        )
    )
    if refusal is not None and refusal.code == PROHIBITED:  # refused and alerted: it waits for information governance
        tx.add(FlagRow(id=new_event_id(), event_id=entry.event_id, rule="prohibited_purpose", raised_at=at))
    tx.flush()
    tx.add(*(one.row for one in found.listed))
    known = [record for one in found.listed for record in one.records]
    ledger.notify(tx, keys, known, feeds, event_id=entry.event_id, kind="search", at=at)
    return entry


def _why(keys: Keys, asked: Asked, refusal: Refusal | None) -> dict[str, str]:
    """Why somebody asked, in codes of ours alone: what somebody typed instead of one is not kept."""
    known = refusal is None or asked.purpose in {*VOCABULARY.purposes, *VOCABULARY.prohibited}
    return {
        "purpose": asked.purpose if known else "UNKNOWN",
        "art6": asked.basis.art6 if asked.basis.art6 in VOCABULARY.art6 else "UNKNOWN",
        "case": keys.case_index(asked.case),
        "family_informed": asked.family_informed,
    }


def _given(row: EncodedRow) -> list[str]:
    """Which fields were given; never what they held."""
    filters = [name for name, words in row.filters.items() if words is not None]
    return sorted([*filters, *(name for name, token in row.identifiers.items() if token is not None)])


def _query(asked: Asked) -> dict[str, Any]:
    """The search as it arrived, for the log alone: 64-bit words and tokens as text, since JSON has none so long."""
    rows = [("subject", asked.subject), *asked.household]
    return {
        "profile": asked.profile,
        "rows": [
            {
                "relation": relation,
                "filters": {
                    name: None if words is None else [str(word) for word in words]
                    for name, words in row.filters.items()
                },
                "tokens": {name: str(token) for name, token in row.tokens.items() if token is not None},
                "identifiers": {name: str(token) for name, token in row.identifiers.items() if token is not None},
                "birth_year": row.birth_year,
                "sex": row.sex,
            }
            for relation, row in rows
        ],
    }

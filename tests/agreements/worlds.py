"""Small worlds for property tests: agreements, signatures, restrictions; a question drawn from a grant.

Drawn freely, a question discloses something in one world of a hundred and the laws hold in vain; so each starts from a
grant that covers it, and a few things are then changed.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache, cached_property, lru_cache
from itertools import count, islice
from random import Random

from agreements import (
    VOCABULARY,
    Agreement,
    Basis,
    BreakGlass,
    Facts,
    Held,
    Link,
    Mode,
    Request,
    Restriction,
    Signature,
    Snapshot,
    StatusEvent,
    Threshold,
    decide,
)
from agreements.agreement import (
    BreakGlassTerms,
    Document,
    DocumentRef,
    Duration,
    Duty,
    Grant,
    GrantBasis,
    Limit,
    Party,
    Period,
)
from agreements.vocabulary import RECORD

PARTIES = ("council", "health", "police", "charity")
SECTORS = {
    "council": frozenset({"education", "social_care"}),
    "health": frozenset({"health"}),
    "police": frozenset({"police"}),
    "charity": frozenset[str](),
}
CATEGORIES = (
    "education.enrolment",
    "education.attendance",
    "social_care.contact",
    "health.registration",
    "health.mental_health_open",
    "health.cp_is",
    "police.domestic_abuse",
    "police.custody",
    RECORD,
)
PURPOSES = ("S47", "EMERGENCY", "CHILD_PROTECTION", "MASH_SCREEN", "SAFEGUARDING", "LAC_CARE", "PLAN")
ROLES = ("MASH_ANALYST", "MASH_DECISION_MAKER", "SOCIAL_WORKER")
RELATIONS = ("subject_child", "sibling", "parent")
ART6 = ("public_task", "legal_obligation", "recognised_legitimate_interest")
CONDITIONS = ("dpa18-sch1-18", "art9-vital")
GATEWAYS = ("ca1989-s47", "ca2004-s11")
TAGS = ("shield_address", "shield_full", "sever_boundary", "deceased")
DELETIONS = (Duration(7, "D"), Duration(30, "D"), Duration(1, "M"), Duration(28, "D"))
AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
EARLY = datetime(2025, 1, 1, tzinfo=UTC)
PIN = DocumentRef(VOCABULARY.id, VOCABULARY.digest)


@dataclass(frozen=True, kw_only=True)
class World:
    """Documents with their signatures and events, a question, facts."""

    documents: tuple[Document, ...]
    signatures: tuple[Signature, ...]
    events: tuple[StatusEvent, ...]
    request: Request
    facts: Facts
    at: datetime = AT

    @cached_property
    def snapshot(self) -> Snapshot:
        """What is signed, compiled once."""
        return Snapshot.of(self.documents, self.signatures, self.events)


LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"  # `make properties`
SCALE = 10 if LONG else 1
POOL = 1000 * SCALE


@cache
def disclosing() -> tuple[int, ...]:
    """Seeds of the first worlds that disclose something, as many as the laws are tried on."""
    shows = (seed for seed in count() if _shows(world(seed)))
    found = tuple(islice(shows, POOL))
    gc.freeze()  # they live to the end: no collection need look through them
    return found


@cache
def silent() -> tuple[int, ...]:
    """Seeds of worlds that disclose nothing, a fifth as many."""
    return tuple(islice((seed for seed in count() if not _shows(world(seed))), POOL // 5))


def _shows(w: World) -> bool:
    return bool(decide(w.snapshot, VOCABULARY, w.request, w.facts, w.at).shown)


@lru_cache(maxsize=16_384)
def world(seed: int) -> World:
    """One world, the same for the same seed."""
    draw = Random(seed)
    umbrella = an_agreement(draw, "umbrella", grants=0)
    agreements = [
        an_agreement(draw, f"dsa-{number}", grants=draw.randint(1, 3), under=umbrella if draw.random() < 0.3 else None)
        for number in range(draw.randint(1, 3))
    ]
    restrictions = [a_restriction(draw, f"rule-{number}") for number in range(draw.choice((0, 0, 1, 1, 2)))]
    documents: tuple[Document, ...] = (umbrella, *agreements, *restrictions)
    signatures = tuple(
        Signature(party, document.digest, f"{party}/1", AT if draw.random() < 0.05 else EARLY)
        for document in documents
        for party in (document.parties if isinstance(document, Agreement) else (document.owner,))
        if draw.random() < 0.97
    )
    events = tuple(an_event(draw, draw.choice(documents[1:])) for _ in range(draw.choice((0, 0, 0, 1, 2))))
    grant = draw.choice([grant for agreement in agreements for grant in agreement.grants])
    request, facts = a_question(draw, grant)
    at = draw.choice(
        (AT, AT, AT, AT, AT, AT, AT, agreements[0].period.end, agreements[0].period.start, AT - timedelta(seconds=1))
    )
    return World(documents=documents, signatures=signatures, events=events, request=request, facts=facts, at=at)


def an_agreement(draw: Random, name: str, *, grants: int, under: Agreement | None = None) -> Agreement:
    """An agreement in force on AT more often than not."""
    limits = tuple(
        Limit(
            id=f"limit-{number}",
            text="A limit.",
            tag=draw.choice((*TAGS, None, None)),
            categories=some(draw, CATEGORIES if draw.random() < 0.1 else CATEGORIES[:-1], 3),
            at_most=Mode(draw.randint(0, 3)),
            purposes=some(draw, PURPOSES, 2) if draw.random() < 0.3 else None,
            lift=draw.choice(("never", "break_glass")),
        )
        for number in range(draw.choice((0, 0, 1, 2)))
    )
    return Agreement(
        id=name,
        version=f"{draw.randint(1, 3)}.0.0",
        title="An agreement",
        under=DocumentRef(under.ref, under.digest) if under else None,
        vocabulary=PIN,
        period=Period.of_days(date(2026, 4, 1), date(2028, 3, 31) if draw.random() < 0.95 else date(2026, 5, 31)),
        review=datetime(2026, 5, 1, tzinfo=UTC) if draw.random() < 0.15 else None,
        if_review_overdue=draw.choice(("warn", "suspend")),
        parties={
            party: Party(
                id=party, public_authority=party != "charity", discloses=SECTORS[party], signs_as="Head of service"
            )
            for party in PARTIES
        },
        limits=limits,
        grants=tuple(a_grant(draw, f"clause-{number}") for number in range(grants)),
        canonical=f"{name} {draw.random()}".encode(),
    )


def a_grant(draw: Random, name: str) -> Grant:
    """A clause; a quarter of them for statistics or emergencies."""
    aggregate = draw.random() < 0.1
    emergency = not aggregate and draw.random() < 0.15
    modes = {
        category: Mode.AGGREGATE if aggregate else Mode.EXISTENCE if category == RECORD else Mode(draw.randint(1, 4))
        for category in draw.sample(CATEGORIES, draw.randint(2, 7))
        if not (aggregate and category == RECORD)
    }
    return Grant(
        id=name,
        text="A clause.",
        sources=some(draw, PARTIES[:3], 3),
        organisations=some(draw, PARTIES, 4),
        roles=some(draw, ROLES, 3),
        purposes=frozenset({"PLAN"}) if aggregate else some(draw, PURPOSES[:6], 2),
        not_purposes=some(draw, PURPOSES[:6], 1) if draw.random() < 0.15 else frozenset(),
        basis=GrantBasis(
            art6=some(draw, ART6, 2),
            conditions=some(draw, CONDITIONS, 2),
            gateways=some(draw, GATEWAYS, 2) if draw.random() < 0.6 else frozenset(),
            le_authority=some(draw, GATEWAYS, 1) if draw.random() < 0.7 else frozenset(),
        ),
        about=some(draw, RELATIONS, 3),
        case_reference=draw.random() < 0.5,
        threshold=draw.choice((None, None, "L3", "L4")),
        link=draw.choice((None, "possible", "match")),
        recorded_within=draw.choice((None, None, Duration(2, "Y"), Duration(6, "M"), Duration(30, "D"))),
        break_glass=BreakGlassTerms(
            ends_after=Duration(draw.choice((30, 60)), "TM"), notify=("ig",), review_within_working_days=1
        )
        if emergency
        else None,
        modes=modes,
        duties=tuple(
            Duty(do="DELETE", after="case_closed", within=draw.choice(DELETIONS)) if number else Duty(do="NO_ONWARD")
            for number in range(draw.randint(0, 2))
        ),
    )


def a_restriction(draw: Random, name: str) -> Restriction:
    """A rule of an owner, of a record or of all."""
    return Restriction(
        id=name,
        version="1.0.0",
        vocabulary=PIN,
        owner=draw.choice(PARTIES[:3]),
        authority="own_rule",
        text="A rule.",
        period=Period.of_days(date(2026, 5, 1), date(2027, 4, 30)),
        record=draw.choice((None, "r1", "r1", "r2", "r2")),
        tag=draw.choice((None, None, None, *TAGS)),
        purposes=some(draw, PURPOSES, 2) if draw.random() < 0.5 else None,
        categories=some(draw, CATEGORIES if draw.random() < 0.1 else CATEGORIES[:-1], 3),
        at_most=Mode(draw.randint(0, 3)),
        lift=draw.choice(("never", "break_glass")),
        canonical=f"{name} {draw.random()}".encode(),
    )


def an_event(draw: Random, document: Document) -> StatusEvent:
    """A party pauses, restarts or leaves, shortly before or after AT."""
    party = draw.choice(tuple(document.parties)) if isinstance(document, Agreement) else document.owner
    at = AT + timedelta(hours=draw.choice((-3, -2, -1, 0, 1)))
    return StatusEvent(
        party, document.digest, draw.choice(("suspend", "suspend", "resume", "withdraw")), at, f"{party}/1"
    )


def a_question(draw: Random, grant: Grant) -> tuple[Request, Facts]:
    """A question and facts that the grant covers, with up to two things changed."""
    purpose = draw.choice(sorted(grant.purposes))
    aggregate = VOCABULARY.purposes[purpose].aggregate
    sectors = {category.partition(".")[0] for category in grant.modes}
    owners = sorted(source for source in grant.sources if SECTORS[source] & sectors)
    request = Request(
        organisation=draw.choice(sorted(grant.organisations)),
        role=draw.choice(sorted(grant.roles)),
        purpose=purpose,
        basis=Basis(
            art6=draw.choice(sorted(grant.basis.art6)),
            conditions=grant.basis.conditions,
            gateways=grant.basis.gateways,
        ),
        case="C1",
        threshold=Threshold(level="L4", decided_by="MASH_DECISION_MAKER"),
        break_glass=BreakGlass(reason="IMMEDIATE_DANGER", started=AT - timedelta(minutes=draw.choice((5, 29, 30, 59))))
        if grant.break_glass or draw.random() < 0.1
        else None,
        asked=asked(draw, aggregate=aggregate),
    )
    facts = Facts(
        source=draw.choice(owners or sorted(grant.sources)),
        record=draw.choice(("r1", "r2", "r1", "r2", "r1", "r2", None)),
        relation=draw.choice(sorted(grant.about)),
        case="C1",
        link=draw.choice((Link.CERTAIN, Link.CERTAIN, Link.CERTAIN, Link.MATCH, Link.POSSIBLE)),
        held={
            category: tuple(
                Held(AT.date() - timedelta(days=draw.choice((5, 5, 29, 31, 150, 900))), regime)
                for regime in draw.choice((("GENERAL",), ("GENERAL",), ("LE",), ("GENERAL", "LE")))
            )
            for category in CATEGORIES
            if category != RECORD and draw.random() < 0.9
        },
    )
    for _ in range(draw.choice((0, 0, 0, 1, 1, 2))):
        request, facts = changed(draw, request, facts)
    return request, facts


def changed(draw: Random, request: Request, facts: Facts) -> tuple[Request, Facts]:
    """One thing made different: a term, an unknown, a tag."""
    aggregate = VOCABULARY.purposes[request.purpose].aggregate
    basis = request.basis
    session = BreakGlass(reason="MISSING_NOW", started=AT - timedelta(minutes=draw.choice((0, 29, 30, 60))))
    requests = [
        replace(request, organisation=draw.choice(PARTIES)),
        replace(request, role=draw.choice(ROLES)),
        replace(request, purpose=request.purpose if aggregate else draw.choice(PURPOSES[:6])),
        replace(request, basis=replace(basis, art6=draw.choice(ART6))),
        replace(request, basis=replace(basis, conditions=some(draw, CONDITIONS, 1))),
        replace(request, basis=replace(basis, conditions=frozenset())),
        replace(request, basis=replace(basis, gateways=frozenset())),
        replace(request, case=draw.choice((None, "C2"))),
        replace(request, threshold=draw.choice((None, Threshold(level="L3", decided_by="MASH_DECISION_MAKER")))),
        replace(request, break_glass=draw.choice((None, session))),
    ]
    known = [
        replace(facts, source=draw.choice(PARTIES[:3])),
        replace(facts, relation=draw.choice((*RELATIONS, None))),
        replace(facts, record=None),
        replace(facts, case=draw.choice((None, "C2"))),
        replace(facts, link=draw.choice((None, *Link))),
        replace(facts, tags=some(draw, TAGS, 1)),
        replace(facts, tags_unknown=some(draw, TAGS, 1)),
        replace(facts, held={category: (Held(None, None),) for category in facts.held}),
        replace(facts, held={}),
    ]
    return (draw.choice(requests), facts) if draw.random() < 0.5 else (request, draw.choice(known))


def asked(draw: Random, *, aggregate: bool) -> dict[str, Mode]:
    """Most categories, at modes of one axis."""
    return {
        category: Mode.AGGREGATE
        if aggregate
        else Mode.EXISTENCE
        if category == RECORD
        else draw.choice(tuple(Mode)[:5])
        if draw.random() < 0.3
        else Mode.DETAIL
        for category in CATEGORIES
        if draw.random() < 0.9 and not (aggregate and category == RECORD)
    }


def some(draw: Random, terms: Sequence[str], most: int) -> frozenset[str]:
    """One to `most` of these."""
    return frozenset(draw.sample(list(terms), draw.randint(1, min(most, len(terms)))))

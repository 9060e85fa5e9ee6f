"""Large estates: a thousand agreements of a region, requests drawn from their clauses, views of a family's records.

Drawn with a seed, so that every measurement and test of one size sees the same.  Sparse: 50 agencies, some five clauses
a pair; dense: 12 agencies, some ninety.  Every clause is one that the loader would take: its categories belong to its
sources, at modes under the ceilings of its purposes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from random import Random

from agreements import (
    VOCABULARY,
    Agreement,
    Basis,
    BreakGlass,
    Facts,
    Grant,
    Held,
    Link,
    Mode,
    Request,
    Restriction,
    Signature,
    Snapshot,
    Threshold,
)
from agreements.agreement import (
    BreakGlassTerms,
    Document,
    DocumentRef,
    Duration,
    Duty,
    GrantBasis,
    Limit,
    Party,
    Period,
)
from agreements.vocabulary import RECORD

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
EARLY = datetime(2025, 1, 1, tzinfo=UTC)
PIN = DocumentRef(VOCABULARY.id, VOCABULARY.digest)
SECTORS = (
    frozenset({"education", "early_help", "social_care"}),
    frozenset({"health"}),
    frozenset({"police"}),
    frozenset({"education"}),
    frozenset({"housing"}),
    frozenset({"health"}),
)
"""What an agency discloses, in turn."""

ROLES = ("MASH_ANALYST", "MASH_DECISION_MAKER", "SOCIAL_WORKER", "EH_COORDINATOR", "DSL", "AGENCY_REP")
PURPOSES = (
    "S47", "MASH_SCREEN", "CIN_S17", "EARLY_HELP", "EMERGENCY", "CHILD_PROTECTION", "LAC_CARE", "MISSING_EXPL", "CME",
)  # fmt: skip
RELATIONS = ("subject_child", "sibling", "parent", "carer")
GATEWAYS = ("ca1989-s47", "ca2004-s11", "ca2004-s10", "ca1989-s17")
CONDITION = "dpa18-sch1-18"
EVERYTHING = {**dict.fromkeys(VOCABULARY.shareable, Mode.DETAIL), RECORD: Mode.EXISTENCE}
"""What a view asks for: each category as far as it may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One past question: who asked what, of which record, when."""

    request: Request
    facts: Facts
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One request on every record of a family at once."""

    request: Request
    records: tuple[Facts, ...]
    at: datetime


@lru_cache(maxsize=4)
def estate(agreements: int = 1000, agencies: int = 50, seed: int = 1, clauses: int = 3) -> Snapshot:
    """So many agreements of `clauses` clauses each, all signed by all their parties and in force on `AT`."""
    draw = Random(f"{agreements}/{agencies}/{seed}/{clauses}")
    parties = {f"agency-{number:02}": SECTORS[number % len(SECTORS)] for number in range(agencies)}
    umbrella = _agreement(draw, "umbrella", parties, clauses=0)
    made = [
        _agreement(draw, f"dsa-{number:04}", parties, clauses=clauses, under=umbrella if number % 4 == 0 else None)
        for number in range(agreements)
    ]
    rules = [_restriction(draw, f"rule-{number:03}", parties) for number in range(max(1, agreements // 20))]
    documents: list[Document] = [umbrella, *made, *rules]
    return Snapshot.of(
        documents,
        [
            Signature(party, document.digest, f"{party}/1", EARLY)
            for document in documents
            for party in (document.parties if isinstance(document, Agreement) else (document.owner,))
        ],
    )


def requests(snapshot: Snapshot, count: int, seed: int = 1, *, days: int = 60) -> tuple[Asked, ...]:
    """Questions as a partnership's staff ask them over `days` before `AT`: most covered by a clause, some off by one
    thing; each of its own case, record and minute, for whatever may be shown."""
    draw = Random(f"requests/{seed}")
    grants, sectors = _clauses_and_sectors(snapshot)
    asked = []
    for grant in draw.choices(grants, k=count):
        at = AT - timedelta(minutes=draw.randrange(days * 1440))
        request, source = _request(draw, grant, at)
        relation = _relation(draw, grant)
        asked.append(Asked(request=request, facts=_facts(draw, request, source, sectors[source], relation), at=at))
    return tuple(asked)


def views(snapshot: Snapshot, count: int, seed: int = 1, *, records: int = 200, sources: int = 6) -> tuple[View, ...]:
    """Requests drawn from clauses, each on `records` records of a family (eight a person) at up to `sources`
    organisations that share with the asker's."""
    draw = Random(f"views/{seed}")
    grants, sectors = _clauses_and_sectors(snapshot)
    found = []
    for grant in draw.choices(grants, k=count):
        request, source = _request(draw, grant, AT)
        sharing = [one for one in sectors if one != source and snapshot.between(one, request.organisation)]
        several = [source, *draw.sample(sharing, min(sources - 1, len(sharing)))]
        persons = [_relation(draw, grant) for _ in range(max(1, records // 8))]
        facts = []
        for number in range(records):
            holder = draw.choice(several)
            facts.append(_facts(draw, request, holder, sectors[holder], persons[number % len(persons)]))
        found.append(View(request=request, records=tuple(facts), at=AT))
    return tuple(found)


def _clauses_and_sectors(snapshot: Snapshot) -> tuple[list[Grant], dict[str, frozenset[str]]]:
    parties = {party.id: party.discloses for one in snapshot.agreements for party in one.parties.values()}
    return [grant for one in snapshot.agreements for grant in one.grants], dict(sorted(parties.items()))


def _agreement(
    draw: Random, name: str, parties: dict[str, frozenset[str]], *, clauses: int, under: Agreement | None = None
) -> Agreement:
    """An agreement between a few agencies; an umbrella, without clauses, between all."""
    named = sorted(draw.sample(sorted(parties), min(draw.randint(4, 8), len(parties)))) if clauses else sorted(parties)
    version = f"{draw.randint(1, 3)}.{draw.randint(0, 4)}.0"
    limits = (
        Limit(
            id="shielded-address",
            text="Where an address is shielded, nothing that tells a place is shared here.",
            tag="shield_address",
            categories=frozenset(name for name in VOCABULARY.shareable if VOCABULARY.categories[name].place),
            at_most=Mode.NONE,
        ),
    )
    return Agreement(
        id=name,
        version=version,
        title=f"Agreement {name}",
        under=DocumentRef(under.ref, under.digest) if under else None,
        vocabulary=PIN,
        period=Period.of_days(date(2026, 1, 1) if clauses else date(2025, 6, 1), date(2027, draw.randint(6, 12), 28)),
        review=datetime(2027, 1, 1, tzinfo=UTC),
        if_review_overdue="warn",
        parties={
            party: Party(id=party, public_authority=True, discloses=parties[party], signs_as="Head of service")
            for party in named
        },
        limits=limits if clauses and draw.random() < 0.5 else (),
        grants=tuple(
            _grant(draw, f"clause-{number}", {party: parties[party] for party in named}) for number in range(clauses)
        ),
        canonical=json.dumps({"id": name, "version": version, "kind": "agreement"}).encode(),
    )


def _grant(draw: Random, name: str, parties: dict[str, frozenset[str]]) -> Grant:
    """A clause from one to three agencies that disclose a sector in common to one to three others."""
    while True:
        sector = draw.choice(sorted(frozenset().union(*parties.values())))
        owners = [party for party, sectors in parties.items() if sector in sectors]
        sources = draw.sample(owners, min(draw.randint(1, 3), len(owners)))
        others = [party for party in parties if party not in sources]
        purpose = draw.choice(PURPOSES)
        modes = {
            category: Mode(draw.randint(1, ceiling))
            for category in VOCABULARY.shareable
            if VOCABULARY.categories[category].sector in {one for s in sources for one in parties[s]}
            and Mode.NONE < (ceiling := VOCABULARY.ceiling(purpose, category)) <= Mode.DETAIL
            and draw.random() < 0.7
        }
        if modes and others:
            break
    emergency = purpose in ("EMERGENCY", "CHILD_PROTECTION") and draw.random() < 0.2
    return Grant(
        id=name,
        text=f"{name}: shared for {purpose}.",
        sources=frozenset(sources),
        organisations=frozenset(draw.sample(others, min(draw.randint(1, 3), len(others)))),
        roles=frozenset(draw.sample(ROLES, draw.randint(1, 3))),
        purposes=frozenset({purpose}),
        basis=GrantBasis(
            art6=frozenset(draw.sample(("public_task", "legal_obligation"), draw.randint(1, 2))),
            conditions=frozenset({CONDITION}),
            gateways=frozenset(draw.sample(GATEWAYS, draw.randint(1, 2))) if draw.random() < 0.8 else frozenset(),
            le_authority=frozenset({"ca2004-s11"}) if draw.random() < 0.7 else frozenset(),
        ),
        about=frozenset({"subject_child", *draw.sample(RELATIONS, draw.randint(0, 2))}),
        case_reference=draw.random() < 0.9,
        threshold="L4" if purpose in ("S47", "CHILD_PROTECTION") and not emergency else draw.choice((None, None, "L2")),
        link=draw.choice(("possible", "match")),
        recorded_within=draw.choice((None, Duration(2, "Y"), Duration(5, "Y"), Duration(6, "M"))),
        break_glass=BreakGlassTerms(ends_after=Duration(60, "TM"), notify=("ig",), review_within_working_days=1)
        if emergency
        else None,
        modes=modes,
        duties=tuple(Duty(do=do) for do in draw.sample(("RECORD_IN_CASE_FILE", "NO_ONWARD"), draw.randint(0, 2))),
    )


def _restriction(draw: Random, name: str, parties: dict[str, frozenset[str]]) -> Restriction:
    """A court order on one record, or an owner's own rule."""
    owner = draw.choice(sorted(parties))
    owned = [one for one in VOCABULARY.shareable if VOCABULARY.categories[one].sector in parties[owner]]
    return Restriction(
        id=name,
        version="1.0.0",
        vocabulary=PIN,
        owner=owner,
        authority="court_order",
        text="Held back by order.",
        period=Period.of_days(date(2026, 1, 1), date(2027, 4, 30)),
        record=f"r{draw.randrange(2000)}" if draw.random() < 0.9 else None,
        tag=None,
        purposes=frozenset({draw.choice(PURPOSES)}) if draw.random() < 0.5 else None,
        categories=frozenset(draw.sample(owned, min(len(owned), draw.randint(1, 2)))),
        at_most=Mode.STATUS,
        canonical=json.dumps({"id": name, "version": "1.0.0", "kind": "restriction"}).encode(),
    )


def _request(draw: Random, grant: Grant, at: datetime) -> tuple[Request, str]:
    """A request that the clause covers, one time in five off by one thing; and one of the clause's sources."""
    purpose = draw.choice(sorted(VOCABULARY.down(draw.choice(sorted(grant.purposes)))))
    request = Request(
        organisation=draw.choice(sorted(grant.organisations)),
        role=draw.choice(sorted(grant.roles)),
        purpose=purpose,
        basis=Basis(
            art6=draw.choice(sorted(grant.basis.art6)), conditions=grant.basis.conditions, gateways=grant.basis.gateways
        ),
        case=f"{draw.getrandbits(128):032x}",
        threshold=Threshold(level=grant.threshold, decided_by="MASH_DECISION_MAKER") if grant.threshold else None,
        break_glass=BreakGlass(reason="IMMEDIATE_DANGER", started=at - timedelta(minutes=draw.randrange(50)))
        if grant.break_glass
        else None,
        asked=EVERYTHING,
    )
    if draw.random() < 0.2:
        request = draw.choice(
            [
                replace(request, role=draw.choice(ROLES)),
                replace(request, purpose="CIN_S17"),
                replace(request, threshold=None),
                replace(request, case=None),
                replace(request, basis=replace(request.basis, gateways=frozenset())),
            ]
        )
    return request, draw.choice(sorted(grant.sources))


def _relation(draw: Random, grant: Grant) -> str:
    return draw.choice(sorted(grant.about)) if draw.random() < 0.9 else draw.choice(RELATIONS)


def _facts(draw: Random, request: Request, source: str, sectors: frozenset[str], relation: str) -> Facts:
    """A record of the source, with some of what it discloses."""
    tagged = draw.random() < 0.04
    return Facts(
        source=source,
        record=f"r{draw.randrange(2000)}",
        relation=relation,
        case=request.case,
        link=draw.choice((Link.CERTAIN, Link.CERTAIN, Link.CERTAIN, Link.MATCH, Link.POSSIBLE)),
        tags=frozenset({draw.choice(("shield_address", "shield_full", "deceased"))}) if tagged else frozenset(),
        held={
            category: (
                Held(
                    AT.date() - timedelta(days=draw.choice((20, 100, 300, 900, 2000))),
                    "LE" if category.startswith("police.") and draw.random() < 0.3 else "GENERAL",
                ),
            )
            for category in VOCABULARY.shareable
            if VOCABULARY.categories[category].sector in sectors and draw.random() < 0.5
        },
    )

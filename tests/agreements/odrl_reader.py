"""From an ODRL export back to the clauses it was made of, to hold that nothing of them is lost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, cast

import rdflib
from rdflib import Graph, URIRef
from rdflib.term import Literal as Value
from rdflib.term import Node

from agreements import Agreement, Mode, Restriction
from agreements.agreement import (
    BreakGlassTerms,
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
from tests.agreements.worlds import PIN

OURS, ODRL = "https://data-sharing-agreements.example/uk-safeguarding/", "http://www.w3.org/ns/odrl/2/"
DCT = "http://purl.org/dc/terms/"
rdflib.NORMALIZE_LITERALS = False


def agreement_of(graph: Graph, ref: str) -> Agreement:
    """The agreement of a reference; its canonical form is not in the export, only the digest of it."""
    node = URIRef(f"{OURS}agreement/{ref}")
    above, review = _name(graph, node, f"{ODRL}inheritFrom"), _one(graph, node, "reviewOverdueFrom")
    name, version = ref.split("@")
    parties = [_party(graph, one) for one in _all(graph, node, "party")]
    rules = sorted(_nodes(graph, node, f"{ODRL}permission"), key=str)
    clauses = sorted({str(_one(graph, rule, "clause")) for rule in rules})
    return Agreement(
        id=name,
        version=version,
        title=_one(graph, node, f"{DCT}title"),
        under=DocumentRef(above, _one(graph, node, "inheritsDigest")) if above else None,
        vocabulary=PIN,
        period=Period(_one(graph, node, "from"), _one(graph, node, "until")),
        review=review,
        if_review_overdue=_one(graph, node, "ifReviewOverdue"),
        parties={party.id: party for party in parties},
        limits=tuple(
            sorted((_limit(graph, one) for one in _nodes(graph, node, f"{ODRL}prohibition")), key=lambda one: one.id)
        ),
        grants=tuple(_grant(graph, [r for r in rules if str(_one(graph, r, "clause")) == one]) for one in clauses),
        canonical=b"",
    )


def restriction_of(graph: Graph, ref: str) -> Restriction:
    """The restriction of a reference."""
    node = URIRef(f"{OURS}restriction/{ref}")
    name, version = ref.split("@")
    rule = _nodes(graph, node, f"{ODRL}prohibition")[0]
    limit, found = _limit(graph, rule), _constraints(graph, rule)
    return Restriction(
        id=name,
        version=version,
        vocabulary=PIN,
        owner=_name(graph, rule, f"{ODRL}assigner"),
        authority=_one(graph, node, "authority"),
        text=limit.text,
        period=Period(found["dateTime", "gteq"][0], found["dateTime", "lt"][0]),
        record=next(iter(found.get(("recordRef", "eq"), ())), None),
        tag=limit.tag,
        purposes=limit.purposes,
        categories=limit.categories,
        at_most=limit.at_most,
        lift=limit.lift,
        canonical=b"",
    )


def _party(graph: Graph, node: Node) -> Party:
    return Party(
        id=_name(graph, node, "is"),
        public_authority=_one(graph, node, "publicAuthority"),
        discloses=frozenset(str(one) for one in _all(graph, node, "discloses")),
        signs_as=_one(graph, node, "signsAs"),
    )


def _grant(graph: Graph, rules: list[Node]) -> Grant:
    modes: dict[str, Mode] = {}
    for rule in rules:
        action = _name(graph, rule, f"{ODRL}action").removeprefix("up-to-")
        modes |= {_local(one): Mode.parse(action) for one in _nodes(graph, rule, f"{ODRL}target")}
    first, found = rules[0], _constraints(graph, rules[0])

    def terms(operand: str, operator: str = "isAnyOf") -> frozenset[str]:
        return frozenset(_local(one) for one in found.get((operand, operator), ()))

    given = found.get(("breakGlass", "lt"))
    session = next((one for one in _nodes(graph, first, f"{ODRL}constraint") if list(_all(graph, one, "notify"))), None)
    return Grant(
        id=_one(graph, first, "clause"),
        text=_one(graph, first, f"{DCT}description"),
        sources=frozenset(map(_local, _nodes(graph, first, f"{ODRL}assigner"))),
        organisations=frozenset(map(_local, _nodes(graph, first, f"{ODRL}assignee"))),
        roles=terms("role"),
        purposes=terms("purpose", "isA"),
        not_purposes=terms("purposeOverlap", "isNoneOf"),
        basis=GrantBasis(
            art6=terms("basis"),
            conditions=terms("condition"),
            gateways=terms("gateway"),
            le_authority=frozenset(map(_local, _all(graph, first, "authorisedBy"))),
        ),
        about=terms("relation"),
        case_reference=("case", "eq") in found,
        threshold=next(iter(terms("threshold", "gteq")), None),
        link=cast(Literal["possible", "match"] | None, next(iter(terms("link", "gteq")), None)),
        recorded_within=_duration(found["window", "lteq"][0]) if ("window", "lteq") in found else None,
        break_glass=BreakGlassTerms(
            ends_after=_duration(given[0]),
            notify=tuple(sorted(str(one) for one in _all(graph, session, "notify"))),
            review_within_working_days=_one(graph, session, "reviewWithinWorkingDays"),
        )
        if given and session
        else None,
        modes=modes,
        duties=tuple(sorted((_duty(graph, one) for one in _nodes(graph, first, f"{ODRL}duty")), key=repr)),
    )


def _duty(graph: Graph, node: Node) -> Duty:
    found = _constraints(graph, node)
    within, after = found.get(("delayPeriod", "lteq")), found.get(("event", "gt"))
    return Duty(
        do=_name(graph, node, f"{ODRL}action"),
        after=_local(after[0]).removeprefix("dsa#") if after else None,
        within=_duration(within[0]) if within else None,
    )


def _limit(graph: Graph, node: Node) -> Limit:
    found = _constraints(graph, node)
    targets = {_local(one) for one in _nodes(graph, node, f"{ODRL}target")}
    assert ("any" in targets) is (RECORD in targets)
    return Limit(
        id=_local(node),
        text=_one(graph, node, f"{DCT}description"),
        tag=next((_local(one) for one in found.get(("tag", "isAnyOf"), ())), None),
        categories=frozenset(targets - {"any"}),
        at_most=Mode.parse(_name(graph, node, f"{ODRL}action").removeprefix("above-")),
        purposes=frozenset(map(_local, found["purposeOverlap", "isAnyOf"]))
        if ("purposeOverlap", "isAnyOf") in found
        else None,
        lift="break_glass" if ("lifted", "eq") in found else "never",
    )


def _constraints(graph: Graph, rule: Node) -> dict[tuple[str, str], list[Any]]:
    """Right operands by left operand and operator; those of an `or` together."""
    found: dict[tuple[str, str], list[Any]] = {}
    nodes = _nodes(graph, rule, f"{ODRL}constraint")
    for node in [*nodes, *(part for one in nodes for part in _nodes(graph, one, f"{ODRL}or"))]:
        if left := _nodes(graph, node, f"{ODRL}leftOperand"):
            key = (_local(left[0]).removeprefix("dsa#"), _name(graph, node, f"{ODRL}operator"))
            found.setdefault(key, []).extend(_value(one) for one in _nodes(graph, node, f"{ODRL}rightOperand"))
    return found


def _duration(value: Any) -> Duration:
    text = str(value)
    if text.startswith("PT"):
        return Duration(int(text[2:-1]), "TM")
    return Duration(int(text[1:-1]), cast(Literal["Y", "M", "D"], text[-1]))


def _nodes(graph: Graph, node: Node, predicate: str) -> list[Node]:
    return list(graph.objects(node, URIRef(predicate)))


def _all(graph: Graph, node: Node | None, name: str) -> Iterable[Node]:
    return graph.objects(node, URIRef(name if ":" in name else f"{OURS}dsa#{name}"))


def _one(graph: Graph, node: Node | None, name: str) -> Any:
    return next((_value(one) for one in _all(graph, node, name)), None)


def _name(graph: Graph, node: Node, name: str) -> str:
    return next((_local(one) for one in _all(graph, node, name)), "")


def _value(node: Any) -> Any:
    if not isinstance(node, Value):
        return node
    if str(node.datatype).endswith("duration"):
        return str(node)
    value = node.toPython()
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _local(node: Any) -> str:
    return str(node).removeprefix(ODRL).rsplit("/", 1)[-1]

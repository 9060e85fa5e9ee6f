"""Agreements and restrictions as ODRL 2.2, JSON-LD: a permission per clause and mode, a prohibition per limit.

An `odrl:Agreement` says whose it is, what may be shown to whom, and all the constraints that must hold together; its
limits are prohibitions that win over its own permissions (`odrl:conflict` is `prohibit`), never over those of another
agreement.  A restriction is an `odrl:Set` that wins over every agreement.  ODRL itself has no evaluation rules that two
tools share, so the words beside our operands say what they must be taken for (`linked.OPERANDS`).

The register's facts stand beside: who signed when, who has paused or left.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from agreements.agreement import Agreement, Document, Duty, Grant, Limit, Party, Restriction
from agreements.export.linked import CONTEXT, PROFILE, constraint, iri, iris, prohibition, up_to
from agreements.snapshot import Snapshot


def odrl(snapshot: Snapshot) -> dict[str, Any]:
    """Every document of a snapshot, with who signed it and what they did since."""
    return {
        "@context": dict(CONTEXT),
        "@graph": [
            *(_agreement(snapshot, agreement) for agreement in snapshot.agreements),
            *(_restriction(snapshot, restriction) for restriction in snapshot.restrictions),
        ],
    }


def odrl_of(document: Document, snapshot: Snapshot) -> dict[str, Any]:
    """One document alone, with what `snapshot` knows of its signatures."""
    body = _agreement(snapshot, document) if isinstance(document, Agreement) else _restriction(snapshot, document)
    return {"@context": dict(CONTEXT), **body}


def _agreement(snapshot: Snapshot, agreement: Agreement) -> dict[str, Any]:
    body: dict[str, Any] = {
        "uid": f"agreement:{agreement.ref}",
        "type": "odrl:Agreement",
        "odrl:profile": PROFILE,
        "odrl:conflict": "odrl:prohibit",
        "dct:title": agreement.title,
        "dct:identifier": agreement.ref,
        "dsa:digest": agreement.digest,
        "dsa:from": _instant(agreement.period.start),
        "dsa:until": _instant(agreement.period.end),
        "dsa:ifReviewOverdue": agreement.if_review_overdue,
        "dsa:party": [_party(snapshot, agreement, party) for _, party in sorted(agreement.parties.items())],
        "odrl:permission": [rule for grant in agreement.grants for rule in _permissions(agreement, grant)],
        "odrl:prohibition": [_limit(agreement, limit) for limit in agreement.limits],
    }
    if agreement.review is not None:
        body["dsa:reviewOverdueFrom"] = _instant(agreement.review)
    if agreement.under is not None:
        body["odrl:inheritFrom"] = f"agreement:{agreement.under.ref}"
        body["dsa:inheritsDigest"] = agreement.under.digest
    return body


def _party(snapshot: Snapshot, agreement: Agreement, party: Party) -> dict[str, Any]:
    return {
        "dsa:is": iri("party", party.id),
        "dsa:signsAs": party.signs_as,
        "dsa:publicAuthority": party.public_authority,
        "dsa:discloses": sorted(party.discloses),
        **_standing(snapshot, party.id, agreement.digest),
    }


def _standing(snapshot: Snapshot, party: str, digest: str) -> dict[str, Any]:
    """When a party signed, and what it did since, numbered: at one instant the later number wins."""
    standing: dict[str, Any] = {}
    if (signed := snapshot.signed_at.get((party, digest))) is not None:
        standing["dsa:signedAt"] = _instant(signed)
    if events := snapshot.happened.get((party, digest), ()):
        standing["dsa:event"] = [
            {"dsa:does": event.do, "dsa:at": _instant(event.at), "dsa:number": number}
            for number, event in enumerate(events)
        ]
    return standing


def _permissions(agreement: Agreement, grant: Grant) -> Iterator[dict[str, Any]]:
    """One a mode; the constraints stand in the first, and the others refer to them."""
    clause = f"agreement:{agreement.ref}/{grant.id}"
    constraints = list(_constraints(agreement, grant, clause))
    duties = [_duty(duty) for duty in grant.duties]
    authorities = iris("gateway", grant.basis.le_authority)
    for number, mode in enumerate(sorted(set(grant.modes.values()))):
        yield {
            "uid": f"{clause}/{mode.word}",
            "type": "odrl:Permission",
            "dsa:clause": grant.id,
            "dct:description": grant.text,
            "odrl:assigner": [f"party:{party}" for party in sorted(grant.sources)],
            "odrl:assignee": [f"party:{party}" for party in sorted(grant.organisations)],
            "odrl:action": up_to(mode),
            "odrl:target": [f"category:{name}" for name, most in sorted(grant.modes.items()) if most is mode],
            "odrl:constraint": [{"uid": one["uid"]} if number else one for one in constraints],
            **({"dsa:authorisedBy": authorities} if authorities else {}),
            **({"odrl:duty": duties} if duties else {}),
        }


def _constraints(agreement: Agreement, grant: Grant, clause: str) -> Iterator[dict[str, Any]]:
    def must(name: str, left: str, operator: str, right: object) -> dict[str, Any]:
        return constraint(left, operator, right, f"{clause}/{name}")

    yield must("from", "odrl:dateTime", "gteq", _instant(agreement.period.start))
    yield must("until", "odrl:dateTime", "lt", _instant(agreement.period.end))
    yield must("role", "dsa:role", "isAnyOf", iris("role", grant.roles))
    purposes = [constraint("odrl:purpose", "isA", purpose) for purpose in iris("purpose", grant.purposes)]
    yield (
        {"uid": f"{clause}/purpose", "odrl:or": purposes}
        if len(purposes) > 1
        else {
            "uid": f"{clause}/purpose",
            **purposes[0],
        }
    )
    if grant.not_purposes:
        yield must("not-purpose", "dsa:purposeOverlap", "isNoneOf", iris("purpose", grant.not_purposes))
    yield must("basis", "dsa:basis", "isAnyOf", iris("basis", grant.basis.art6))
    yield must("condition", "dsa:condition", "isAnyOf", iris("condition", grant.basis.conditions))
    if grant.basis.gateways:
        yield must("gateway", "dsa:gateway", "isAnyOf", iris("gateway", grant.basis.gateways))
    yield must("about", "dsa:relation", "isAnyOf", iris("relation", grant.about))
    if grant.case_reference:
        yield must("case", "dsa:case", "eq", {"uid": "dsa:subjectCase"})
    if grant.threshold is not None:
        yield must("threshold", "dsa:threshold", "gteq", iri("threshold", grant.threshold))
    if grant.link is not None:
        yield must("link", "dsa:link", "gteq", iri("link", grant.link))
    if grant.recorded_within is not None:
        yield must("window", "dsa:window", "lteq", _duration(str(grant.recorded_within)))
    yield must("regime", "dsa:regime", "isAnyOf", ["GENERAL", *iris("gateway", grant.basis.le_authority)])
    if grant.break_glass is not None:
        yield must("break-glass", "dsa:breakGlass", "lt", _duration(str(grant.break_glass.ends_after))) | {
            "dsa:notify": list(grant.break_glass.notify),
            "dsa:reviewWithinWorkingDays": grant.break_glass.review_within_working_days,
        }


def _duty(duty: Duty) -> dict[str, Any]:
    body: dict[str, Any] = {"type": "odrl:Duty", "odrl:action": f"duty:{duty.do}"}
    constraints = []
    if duty.after is not None:
        constraints.append(constraint("odrl:event", "gt", {"uid": f"dsa:{duty.after}"}))
    if duty.within is not None:
        constraints.append(constraint("odrl:delayPeriod", "lteq", _duration(str(duty.within))))
    return body | ({"odrl:constraint": constraints} if constraints else {})


def _limit(agreement: Agreement, limit: Limit) -> dict[str, Any]:
    return prohibition(
        f"agreement:{agreement.ref}/{limit.id}",
        limit.text,
        categories=limit.categories,
        at_most=limit.at_most,
        tag=limit.tag,
        purposes=limit.purposes,
        liftable=limit.lift == "break_glass",
    )


def _restriction(snapshot: Snapshot, restriction: Restriction) -> dict[str, Any]:
    when = [
        constraint("odrl:dateTime", "gteq", _instant(restriction.period.start)),
        constraint("odrl:dateTime", "lt", _instant(restriction.period.end)),
    ]
    if restriction.record is not None:
        when.append(constraint("dsa:recordRef", "eq", restriction.record))
    rule = prohibition(
        f"restriction:{restriction.ref}/rule",
        restriction.text,
        categories=restriction.categories,
        at_most=restriction.at_most,
        tag=restriction.tag,
        purposes=restriction.purposes,
        liftable=restriction.lift == "break_glass",
        more=when,
    )
    return {
        "uid": f"restriction:{restriction.ref}",
        "type": "odrl:Set",
        "odrl:profile": PROFILE,
        "odrl:conflict": "odrl:prohibit",
        "dct:identifier": restriction.ref,
        "dsa:digest": restriction.digest,
        "dsa:authority": restriction.authority,
        **_standing(snapshot, restriction.owner, restriction.digest),
        "odrl:prohibition": [rule | {"odrl:assigner": f"party:{restriction.owner}"}],
    }


def _instant(at: datetime) -> dict[str, str]:
    return {"@type": "xsd:dateTime", "@value": at.astimezone(UTC).isoformat().replace("+00:00", "Z")}


def _duration(text: str) -> dict[str, str]:
    return {"@type": "xsd:duration", "@value": text}

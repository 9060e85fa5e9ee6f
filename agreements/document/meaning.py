"""From text to what is evaluated, and to the canonical form that is signed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Literal

from agreements.agreement import (
    Agreement,
    BreakGlassTerms,
    DocumentRef,
    Duration,
    Duty,
    Grant,
    GrantBasis,
    InvalidAgreement,
    Limit,
    Party,
    Period,
    Restriction,
)
from agreements.canonical import jcs
from agreements.document.parsing import LARGEST, refused
from agreements.document.text import AgreementText, GrantText, RestrictionText, disclosed
from agreements.vocabulary import Mode, Vocabulary


def agreement(text: AgreementText, body: dict[str, Any], umbrella: Agreement | None, lists: Vocabulary) -> Agreement:
    period = text.period
    try:
        return Agreement(
            id=text.id,
            version=text.version,
            title=text.title,
            under=DocumentRef(umbrella.ref, umbrella.digest) if umbrella else None,
            vocabulary=DocumentRef(lists.id, lists.digest),
            period=Period.of_days(period.effective, period.expires),
            review=Period.of_days(period.review_by, period.review_by).end if period.review_by else None,
            if_review_overdue=period.if_review_overdue or "suspend",
            parties={
                party.id: Party(
                    id=party.id,
                    public_authority=party.public_authority,
                    discloses=frozenset(party.discloses),
                    signs_as=party.signs_as,
                )
                for party in text.parties
            },
            limits=tuple(
                Limit(
                    id=limit.id,
                    text=limit.text,
                    tag=limit.when.tag if limit.when else None,
                    categories=frozenset(limit.categories),
                    at_most=Mode.parse(limit.at_most),
                    purposes=frozenset(limit.for_) if limit.for_ else None,
                    lift=limit.lift,
                )
                for limit in text.limits
            ),
            grants=tuple(_grant(grant) for grant in text.grants),
            canonical=_canonical(body, lists, umbrella),
        )
    except InvalidAgreement as error:
        raise refused("grants", str(error), "correct the clause") from None


def _grant(text: GrantText) -> Grant:
    basis, terms = text.basis, text.break_glass
    return Grant(
        id=text.id,
        text=text.text,
        sources=frozenset(text.from_),
        organisations=frozenset(text.to.orgs),
        roles=frozenset(text.to.roles),
        purposes=frozenset(text.for_),
        not_purposes=frozenset(text.but_not_for or ()),
        basis=GrantBasis(
            art6=frozenset(basis.art6),
            conditions=frozenset(basis.condition or ()),
            gateways=frozenset(basis.gateway or ()),
            le_authority=frozenset(basis.le_authority or ()),
        ),
        about=frozenset(text.about),
        case_reference=text.given.case_reference,
        threshold=text.given.threshold,
        link=text.given.link,
        recorded_within=span(text.given.recorded_within) if text.given.recorded_within else None,
        break_glass=BreakGlassTerms(
            ends_after=span(terms.ends_after),
            notify=tuple(terms.notify),
            review_within_working_days=terms.review_within_working_days,
        )
        if terms
        else None,
        modes=MappingProxyType({name: mode for mode, names in disclosed(text) for name in names}),
        duties=tuple(
            Duty(do=duty.do, after=duty.after, within=span(duty.within) if duty.within else None)
            for duty in text.duties
        ),
    )


def restriction(text: RestrictionText, body: dict[str, Any], lists: Vocabulary) -> Restriction:
    return Restriction(
        id=text.id,
        version=text.version,
        vocabulary=DocumentRef(lists.id, lists.digest),
        owner=text.owner,
        authority=text.authority,
        text=text.text,
        period=Period.of_days(text.period.effective, text.period.expires),
        record=text.subject.record_ref if text.subject else None,
        tag=text.when.tag if text.when else None,
        purposes=frozenset(text.for_) if text.for_ else None,
        categories=frozenset(text.categories),
        at_most=Mode.parse(text.at_most),
        lift=text.lift,
        canonical=_canonical(body, lists, None),
    )


def span(text: str) -> Duration:
    if text.startswith("PT"):
        return Duration(int(text[2:-1]), "TM")
    unit: Literal["Y", "M", "D"] = "Y" if text.endswith("Y") else "M" if text.endswith("M") else "D"
    return Duration(int(text[1:-1]), unit)


def _canonical(body: Mapping[str, Any], lists: Vocabulary, umbrella: Agreement | None) -> bytes:
    """RFC 8785 bytes of what was written: every key and list as it stands, days as ISO 8601, digests pinned."""
    pinned = dict(body) | {"vocabulary": {"ref": lists.id, "sha256": lists.digest}}
    if umbrella is not None:
        pinned["under"] = {"ref": umbrella.ref, "sha256": umbrella.digest}
    canonical = jcs(_plain(pinned))
    if len(canonical) > LARGEST:
        raise refused("document", "its canonical form is larger than 256 kB", "split it, or shorten its texts")
    return canonical


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value

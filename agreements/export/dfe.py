"""The rule shape of the Department for Education's deleted Find and Fetch services: one policy per source.

`defaults` allow, `exceptions` win over them.  The shape knows two modes: `existence` is EXISTENCE, `detail` is that and
CONTENT, and a status or a summary between them is written as EXISTENCE: less, never more.  It has no word for a role,
a lawful basis, a case, a threshold, a tag or an emergency.  `notLimitedBy` names what a clause asks for and the shape
can't say; a clause for emergencies alone, or under statutes
of which none is in force by its end, is left out; a limit under a tag is written as if it always applied.
`validUntil` is the last instant included.  `dfe_draft` is the way back.
Source: DFE-Digital/single-unique-identifier, ADR-0005 (deleted 15 July 2026).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agreements import words
from agreements.agreement import Agreement, Grant, Limit, Restriction, london_day, london_midnight
from agreements.vocabulary import RECORD, Mode, Vocabulary

CONTENT, EXISTENCE = "CONTENT", "EXISTENCE"
KINDS: Final = ("LOCAL_AUTHORITY", "HEALTH", "POLICE", "EDUCATION")
TICK: Final = timedelta(milliseconds=1)
"""What lies between the last instant included and the first that is not."""


def dfe(
    agreements: Iterable[Agreement], vocabulary: Vocabulary, *, restrictions: Iterable[Restriction] = ()
) -> list[dict[str, Any]]:
    """One policy per source that discloses anything, by its name."""
    several = sorted((one for one in agreements if one.grants), key=lambda one: one.ref)
    held = sorted(restrictions, key=lambda one: one.ref)
    sources = sorted({source for one in several for grant in one.grants for source in grant.sources})
    return [
        {
            "orgId": source,
            "version": "; ".join(one.ref for one in several if any(source in grant.sources for grant in one.grants)),
            "defaults": [
                rule for one in several for grant in one.grants for rule in _allowed(one, grant, source, vocabulary)
            ],
            "exceptions": [
                *(rule for one in several for limit in one.limits for rule in _denied(one, limit, source, vocabulary)),
                *(rule for one in held if one.owner == source for rule in _held(one, vocabulary)),
            ],
        }
        for source in sources
    ]  # fmt: skip


def _allowed(agreement: Agreement, grant: Grant, source: str, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """One rule for what is only known to exist, one for what may be asked for."""
    if source not in grant.sources or grant.break_glass is not None:
        return
    days = [day for code in grant.basis.gateways if (day := vocabulary.in_force_from(code)) is not None]
    if grant.basis.gateways and not days:
        return
    start = agreement.period.start
    if days and min(days) > london_day(start):
        start = london_midnight(min(days))
    if start >= agreement.period.end:
        return
    sectors = agreement.parties[source].discloses
    given = {
        name: mode
        for name, mode in grant.modes.items()
        if mode is not Mode.AGGREGATE and (name == RECORD or vocabulary.categories[name].sector in sectors)
    }
    for modes, names in (
        ([EXISTENCE], sorted(name for name, mode in given.items() if mode < Mode.DETAIL)),
        ([EXISTENCE, CONTENT], sorted(name for name, mode in given.items() if mode is Mode.DETAIL)),
    ):
        if names:
            yield {
                "effect": "allow",
                "modes": modes,
                "recordTypes": names,
                "destOrgTypes": [],
                "destOrgIds": sorted(grant.organisations - {source}),
                "purposes": _purposes(grant, vocabulary),
                "validFrom": _instant(start),
                "validUntil": _instant(agreement.period.end - TICK),
                "reason": f"{agreement.ref}#{grant.id}: {grant.text}",
                "notLimitedBy": list(_unsaid(grant)),
            }


def _denied(agreement: Agreement, limit: Limit, source: str, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """A limit, as if it always applied: the shape has no tags, so that it holds back more, never less."""
    recipients = sorted({one for grant in agreement.grants if source in grant.sources for one in grant.organisations})
    if recipients:
        yield from _deny(
            f"{agreement.ref}#{limit.id}: {limit.text}",
            limit.categories,
            limit.at_most,
            limit.purposes,
            vocabulary,
            [one for one in recipients if one != source],
            agreement.period.start,
            agreement.period.end,
        )


def _held(restriction: Restriction, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """A source's own rule, where it is for every record; an order on one record has no place in the shape."""
    if restriction.record is None:
        yield from _deny(
            f"{restriction.ref}: {restriction.text}",
            restriction.categories,
            restriction.at_most,
            restriction.purposes,
            vocabulary,
            [],
            restriction.period.start,
            restriction.period.end,
        )


def _deny(
    reason: str,
    categories: frozenset[str],
    at_most: Mode,
    purposes: frozenset[str] | None,
    vocabulary: Vocabulary,
    recipients: list[str],
    start: datetime,
    end: datetime,
) -> Iterator[dict[str, Any]]:
    if at_most is Mode.DETAIL:
        return
    names = (*vocabulary.shareable, RECORD) if RECORD in categories else categories
    overlapped = [
        code
        for code, purpose in vocabulary.purposes.items()
        if not purpose.group
        and (purposes is None or any(code in vocabulary.down(one) or one in vocabulary.down(code) for one in purposes))
    ]
    yield {
        "effect": "deny",
        "modes": [CONTENT] if at_most else [EXISTENCE, CONTENT],
        "recordTypes": sorted(names),
        "destOrgTypes": [] if recipients else list(KINDS),
        "destOrgIds": recipients,
        "purposes": overlapped,
        "validFrom": _instant(start),
        "validUntil": _instant(end - TICK),
        "reason": reason,
    }


def _purposes(grant: Grant, vocabulary: Vocabulary) -> list[str]:
    """The purposes one by one, since the shape's are flat."""
    inside = {inner for purpose in grant.purposes for inner in vocabulary.down(purpose)}
    shut = {inner for purpose in grant.not_purposes for inner in vocabulary.down(purpose)}
    return [code for code, purpose in vocabulary.purposes.items() if code in inside - shut and not purpose.group]


def _unsaid(grant: Grant) -> Iterator[str]:
    yield f"roles: {', '.join(sorted(grant.roles))}"
    yield f"lawful basis: {', '.join(sorted(grant.basis.art6))}"
    for name, codes in (
        ("statutes", grant.basis.gateways),
        ("conditions", grant.basis.conditions),
        ("authority for law-enforcement items", grant.basis.le_authority),
    ):
        if codes:
            yield f"{name}: {', '.join(sorted(codes))}"
    yield f"about: {', '.join(sorted(grant.about))}"
    if grant.case_reference:
        yield "a case reference"
    if grant.threshold is not None:
        yield f"threshold: {grant.threshold}"
    if grant.link is not None:
        yield f"link: {grant.link}"
    if grant.recorded_within is not None:
        yield f"recorded within {words.span(grant.recorded_within)}"
    if lowered := sorted(name for name, mode in grant.modes.items() if Mode.EXISTENCE < mode < Mode.DETAIL):
        yield f"shown at more than existence: {', '.join(lowered)}"


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""The rule shape of the Department for Education's deleted Find and Fetch services: one policy per source.

`defaults` allow, `exceptions` win over them.  The shape knows two modes: `existence` is EXISTENCE, `detail` is that and
CONTENT, and a status or a summary between them is written as EXISTENCE: less, never more.  It has no word for a role,
a lawful basis, a case, a threshold, a tag or an emergency.  `notLimitedBy` names what a clause asks for and the shape
can't say; a clause for emergencies alone is left out; a limit under a tag is written as if it always applied.
`validUntil` is the last instant included.
Source: DFE-Digital/single-unique-identifier, ADR-0005 (deleted 15 July 2026).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from agreements.agreement import FIRST_DAY, LAST_DAY, Agreement, Grant, Limit, Restriction, london_day, london_midnight
from agreements.export import words
from agreements.vocabulary import RECORD, Mode, Vocabulary

CONTENT, EXISTENCE = "CONTENT", "EXISTENCE"
_TICK: Final = timedelta(milliseconds=1)
_SINCE: Final = london_midnight(FIRST_DAY)
_UNTIL: Final = london_midnight(LAST_DAY)


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
                "validFrom": _instant(agreement.period.start),
                "validUntil": _instant(agreement.period.end - _TICK),
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
        "destOrgTypes": [] if recipients else ["LOCAL_AUTHORITY", "HEALTH", "POLICE", "EDUCATION"],
        "destOrgIds": recipients,
        "purposes": overlapped,
        "validFrom": _instant(start),
        "validUntil": _instant(end - _TICK),
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


# --- and back --------------------------------------------------------------------------------------------------------


class RuleRefused(ValueError):
    """A policy that can't become a draft; the message names the place."""


def draft(policy: Mapping[str, Any], vocabulary: Vocabulary, *, name: str) -> str:
    """The beginning of an agreement, TOML, from one source's policy in the DfE's shape.

    It holds what the shape can say and, as empty texts and lists, what it can't: who signs, the roles, the lawful
    basis, whom it is about, the papers.  So it doesn't load until somebody has written them: what `check` finds is the
    list of what to write.  Never wider than the policy: CONTENT becomes `detail`, an exception a limit on every
    recipient at all times, and only days that every rule covers whole count.  Raises RuleRefused.
    """
    try:
        source, rules = str(policy["orgId"]), [dict(one) for one in policy["defaults"]]
        exceptions = [dict(one) for one in policy.get("exceptions", ())]
        effects = {one["effect"] for one in rules}, {one["effect"] for one in exceptions}
        if effects[0] != {"allow"} or not effects[1] <= {"deny"}:
            raise RuleRefused("defaults allow and exceptions deny; there is at least one default")
        begins = [max(_parsed(one["validFrom"]), _SINCE) for one in rules]  # "for ever" is written in many ways
        ends = [min(_parsed(one["validUntil"]), _UNTIL) for one in rules]
        if max(begins) >= _UNTIL or min(ends) <= _SINCE:
            raise RuleRefused("the policy holds in no year that an agreement may name")
        first = max(london_day(one - _TICK) for one in begins) + timedelta(days=1)
        last = min(london_day(one + _TICK) for one in ends) - timedelta(days=1)
        parties = sorted({source, *(org for one in rules for org in one["destOrgIds"])})
        grants = [_grant(one, number, source, vocabulary) for number, one in enumerate(rules, start=1)]
        limits = [_limit(one, number, vocabulary) for number, one in enumerate(exceptions, start=1)]
    except (KeyError, TypeError, AttributeError) as wrong:
        raise RuleRefused(f"the policy lacks {wrong}, or it is of another kind") from None
    except ValueError as wrong:
        raise RuleRefused(str(wrong)) from None
    body: dict[str, Any] = {
        "format": 1,
        "kind": "agreement",
        "id": name,
        "version": "0.1.0",
        "title": "",
        "vocabulary": vocabulary.id,
        "period": {"effective": first, "expires": last},
        "assurance": {"dpia": "", "apd": "", "notice": ""},
        "parties": [
            {
                "id": one,
                "signs_as": "",
                "public_authority": True,
                "discloses": _sectors(grants, vocabulary) if one == source else [],
            }
            for one in parties
        ],
        "limits": limits,
    }
    lines = ["# A draft from rules of the DfE's Find and Fetch.  Empty texts and lists are for you to write."]
    lines += [f"{key} = {_toml(value)}" for key, value in body.items()]
    for grant in grants:
        lines += ["", "[[grants]]", *(f"{key} = {_toml(value)}" for key, value in grant.items())]
    for row in _law(grants, source):
        lines += ["", "[[legal]]", *(f"{key} = {_toml(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def _law(grants: Iterable[Mapping[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    """A row of law for each purpose, to be written: without them nothing is put in force."""
    by_purpose: dict[str, set[str]] = {}
    for grant in grants:
        for purpose in grant["for"]:
            by_purpose.setdefault(purpose, set()).update(*grant["disclose"].values())
    for purpose, names in sorted(by_purpose.items()):
        if categories := sorted(names - {RECORD}):
            yield {
                "purpose": purpose, "party": source, "categories": categories, "regime": "GENERAL", "art6": "",
                "statute": "",
            }  # fmt: skip


def _grant(rule: Mapping[str, Any], number: int, source: str, vocabulary: Vocabulary) -> dict[str, Any]:
    if not rule["destOrgIds"]:
        raise RuleRefused(f"defaults[{number - 1}].destOrgIds: name them; a kind of organisation signs nothing")
    mode = "detail" if CONTENT in rule["modes"] else "existence"
    return {
        "id": f"rule-{number}",
        "text": str(rule.get("reason", "")),
        "from": [source],
        "to": {"orgs": sorted(rule["destOrgIds"]), "roles": []},
        "for": _known(rule["purposes"], vocabulary.purposes, f"defaults[{number - 1}].purposes"),
        "basis": {"art6": []},
        "about": [],
        "given": {"case_reference": True},
        "disclose": {mode: _categories(rule, vocabulary, f"defaults[{number - 1}].recordTypes")},
    }


def _limit(rule: Mapping[str, Any], number: int, vocabulary: Vocabulary) -> dict[str, Any]:
    place = f"exceptions[{number - 1}]"
    return {
        "id": f"exception-{number}",
        "text": str(rule.get("reason", "")),
        "for": _known(rule["purposes"], vocabulary.purposes, f"{place}.purposes"),
        "categories": _categories(rule, vocabulary, f"{place}.recordTypes"),
        "at_most": "none" if EXISTENCE in rule["modes"] else "existence",
    }


def _categories(rule: Mapping[str, Any], vocabulary: Vocabulary, place: str) -> list[str]:
    return _known(rule["recordTypes"], {name: name for name in (*vocabulary.shareable, RECORD)}, place)


def _known(terms: Iterable[str], known: Mapping[str, object], place: str) -> list[str]:
    several = sorted(set(terms))
    if unknown := [term for term in several if term not in known]:
        raise RuleRefused(f"{place}: {unknown[0]!r} is not in the vocabulary; write the nearest term that is")
    return several


def _sectors(grants: Iterable[Mapping[str, Any]], vocabulary: Vocabulary) -> list[str]:
    names = {name for grant in grants for several in grant["disclose"].values() for name in several} - {RECORD}
    return sorted({vocabulary.categories[name].sector for name in names})


def _parsed(text: str) -> datetime:
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if instant.tzinfo is None:
        raise RuleRefused(f"{text!r} is an instant without its offset")
    return instant


def _toml(value: object) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return str(value)

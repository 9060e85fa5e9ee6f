"""From the Department for Education's rule shape to the beginning of an agreement: see `dfe` for the shape.

A policy is read as strictly as an agreement.  A word of it that is not known here might hold something back, so it is
refused with its place and never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from agreements.agreement import FIRST_DAY, LAST_DAY, london_day, london_midnight
from agreements.document.parsing import Finding, faults, nearest, unclean
from agreements.document.text import Id, Strict, Terms, Text, unique
from agreements.export.dfe import CONTENT, EXISTENCE, KINDS, TICK
from agreements.vocabulary import RECORD, Vocabulary

_SINCE: Final = london_midnight(FIRST_DAY)
_UNTIL: Final = london_midnight(LAST_DAY)

Modes = Annotated[list[Literal["EXISTENCE", "CONTENT"]], AfterValidator(unique), Field(min_length=1)]
Organisations = Annotated[list[Id], AfterValidator(unique)]


class RuleRefused(ValueError):
    """A policy that can't become a draft; the message names each place, what is wrong there and what to write."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings: Final = tuple(findings)
        super().__init__("; ".join(f"{one.path}: {one.message}; {one.fix}" for one in self.findings))


class _Rule(Strict):
    modes: Modes
    recordTypes: Terms
    destOrgIds: Organisations
    destOrgTypes: Annotated[list[str], Field(default_factory=list)]
    purposes: Terms
    validFrom: str
    validUntil: str
    reason: Text | None = None
    notLimitedBy: Annotated[list[Text], Field(default_factory=list)]  # our own export's, for people

    @property
    def text(self) -> str:
        return self.reason or ""


class _Default(_Rule):
    effect: Literal["allow"]


class _Exception(_Rule):
    effect: Literal["deny"]


class _Policy(Strict):
    orgId: Id
    version: str | None = None
    defaults: Annotated[list[_Default], Field(min_length=1)]
    exceptions: Annotated[list[_Exception], Field(default_factory=list)]


_KEYS: Final = frozenset(_Policy.model_fields) | frozenset(_Default.model_fields)


def draft(policy: Mapping[str, Any], vocabulary: Vocabulary, *, name: str) -> str:
    """The beginning of an agreement, TOML, from one source's policy in the DfE's shape.

    It holds what the shape can say and, as empty texts and lists, what it can't: who signs, the roles, the lawful
    basis, whom it is about, the papers.  So it doesn't load until somebody has written them: what `check` finds is the
    list of what to write.  Never wider than the policy: CONTENT becomes `detail`, an exception a limit on every
    recipient at all times, and only days that every rule covers whole count.  Raises RuleRefused.
    """
    if findings := list(unclean(policy, keys=_KEYS)):
        raise RuleRefused(findings)
    try:
        read = _Policy.model_validate(policy)
    except ValidationError as error:
        raise RuleRefused(faults(error, _Policy)) from None
    if findings := list(_findings(read, vocabulary)):
        raise RuleRefused(findings)
    begins = [max(_parsed(one.validFrom), _SINCE) for one in read.defaults]  # "for ever" is written in many ways
    ends = [min(_parsed(one.validUntil), _UNTIL) for one in read.defaults]
    first = max(london_day(one - TICK) for one in begins) + timedelta(days=1)
    last = min(london_day(one + TICK) for one in ends) - timedelta(days=1)
    if first > last:
        fix = "give each such time a policy of its own"
        raise RuleRefused([Finding("defaults", "there is no whole day on which all of them hold", fix)])
    source = read.orgId
    grants = [_grant(one, number, source) for number, one in enumerate(read.defaults, start=1)]
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
            for one in sorted({source, *chain.from_iterable(one.destOrgIds for one in read.defaults)})
        ],
        "limits": [_limit(one, number) for number, one in enumerate(read.exceptions, start=1)],
    }
    lines = ["# A draft from rules of the DfE's Find and Fetch.  Empty texts and lists are for you to write."]
    lines += [f"{key} = {_toml(value)}" for key, value in body.items()]
    for rule, grant in zip(read.defaults, grants, strict=True):
        besides = [f"# The rule does not say, and was meant: {one}" for one in rule.notLimitedBy]
        lines += ["", *besides, "[[grants]]", *(f"{key} = {_toml(value)}" for key, value in grant.items())]
    for row in _law(grants, source):
        lines += ["", "[[legal]]", *(f"{key} = {_toml(value)}" for key, value in row.items())]
    return "\n".join(lines) + "\n"


def _findings(policy: _Policy, vocabulary: Vocabulary) -> Iterator[Finding]:
    """What is wrong beyond the grammar."""
    kinds: tuple[tuple[str, Iterable[_Rule]], ...] = (("defaults", policy.defaults), ("exceptions", policy.exceptions))
    for kind, rules in kinds:
        for index, rule in enumerate(rules):
            yield from _of_rule(f"{kind}[{index}]", rule, vocabulary)
    for index, one in enumerate(policy.defaults):
        where = f"defaults[{index}]"
        if not one.destOrgIds or one.destOrgTypes:
            place = "destOrgTypes" if one.destOrgTypes else "destOrgIds"
            message, fix = "a kind of organisation signs nothing", "name each organisation in destOrgIds, and no kind"
            yield Finding(f"{where}.{place}", message, fix)
        if policy.orgId in one.destOrgIds:
            yield Finding(f"{where}.destOrgIds", "it names the source itself", "take it out")
        if EXISTENCE not in one.modes:
            fix = 'write ["EXISTENCE", "CONTENT"]'
            yield Finding(f"{where}.modes", "whoever sees the content knows that it exists", fix)


def _of_rule(where: str, rule: _Rule, vocabulary: Vocabulary) -> Iterator[Finding]:
    yield from _unknown(f"{where}.recordTypes", rule.recordTypes, (*vocabulary.shareable, RECORD))
    yield from _unknown(f"{where}.purposes", rule.purposes, vocabulary.purposes)
    yield from _unknown(f"{where}.destOrgTypes", rule.destOrgTypes, KINDS)
    if RECORD in rule.recordTypes and isinstance(rule, _Default) and CONTENT in rule.modes:
        yield Finding(f"{where}.recordTypes", "the bare record has no content", "give it a rule of EXISTENCE alone")
    instants = {}
    for name, written in (("validFrom", rule.validFrom), ("validUntil", rule.validUntil)):
        try:
            instants[name] = _parsed(written)
        except ValueError:
            fix = 'write it with its offset, as "2026-03-31T23:00:00Z"'
            yield Finding(f"{where}.{name}", "it is no instant with its offset", fix)
    if len(instants) < 2:
        return
    if instants["validUntil"] < instants["validFrom"]:
        yield Finding(f"{where}.validUntil", "it ends before it begins", "write an instant after validFrom")
    elif instants["validUntil"] <= _SINCE or instants["validFrom"] >= _UNTIL:
        fix = f"write instants from {FIRST_DAY} to {LAST_DAY}"
        yield Finding(f"{where}.validFrom", "it holds in no year that an agreement may name", fix)


def _unknown(path: str, terms: Iterable[str], known: Iterable[str]) -> Iterator[Finding]:
    several = sorted(known)
    for term in terms:
        if term not in several:
            near = nearest(term, several)
            fix = f"write {near}, if that is meant" if near else f"write one of {', '.join(several)}"
            yield Finding(path, "a word of it is not in the vocabulary", fix)


def _law(grants: Iterable[Mapping[str, Any]], source: str) -> Iterator[dict[str, Any]]:
    """A row of law for each purpose, to be written: without them nothing is put in force."""
    by_purpose: dict[str, set[str]] = {}
    for grant in grants:
        for purpose in grant["for"]:
            by_purpose.setdefault(purpose, set()).update(*grant["disclose"].values())
    for purpose, names in sorted(by_purpose.items()):
        yield {
            "purpose": purpose, "party": source, "categories": sorted(names), "regime": "GENERAL", "art6": "",
            "statute": "",
        }  # fmt: skip


def _grant(rule: _Default, number: int, source: str) -> dict[str, Any]:
    return {
        "id": f"rule-{number}",
        "text": rule.text,
        "from": [source],
        "to": {"orgs": sorted(rule.destOrgIds), "roles": []},
        "for": sorted(rule.purposes),
        "basis": {"art6": []},
        "about": [],
        "given": {"case_reference": True},
        "disclose": {"detail" if CONTENT in rule.modes else "existence": sorted(rule.recordTypes)},
    }


def _limit(rule: _Exception, number: int) -> dict[str, Any]:
    return {
        "id": f"exception-{number}",
        "text": rule.text,
        "for": sorted(rule.purposes),
        "categories": sorted(rule.recordTypes),
        "at_most": "none" if EXISTENCE in rule.modes else "existence",
    }


def _sectors(grants: Iterable[Mapping[str, Any]], vocabulary: Vocabulary) -> list[str]:
    names = {name for grant in grants for several in grant["disclose"].values() for name in several} - {RECORD}
    return sorted({vocabulary.categories[name].sector for name in names})


def _parsed(text: str) -> datetime:
    """An instant.  Raises ValueError for what is none, or lacks its offset."""
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if instant.tzinfo is None:
        raise ValueError
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

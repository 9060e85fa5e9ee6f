"""What a document must hold beyond its grammar: terms of the lists, owners of what is given, ceilings, papers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import product
from types import MappingProxyType
from typing import Final

from agreements.agreement import FIRST_DAY, LAST_DAY, Agreement, Duration
from agreements.document.declared import declared_tables
from agreements.document.meaning import span
from agreements.document.parsing import LONGEST_TERM, Finding, nearest
from agreements.document.text import (
    AgreementText,
    AssuranceText,
    BreakGlassText,
    GrantText,
    LimitText,
    PartyText,
    PeriodText,
    RestrictionText,
    disclosed,
)
from agreements.vocabulary import RECORD, Mode, Vocabulary

LONGEST_YEARS: Final = 150
_TERM: Final = re.compile(rf"[A-Za-z0-9_.:-]{{1,{LONGEST_TERM}}}")


def of_agreement(text: AgreementText, umbrella: Agreement | None, lists: Vocabulary) -> Iterator[Finding]:
    yield from _period_findings(text.period, choose=True)
    yield from _day_findings("assurance.approved", text.assurance.approved)
    for index, change in enumerate(text.change_log):
        yield from _day_findings(f"change_log[{index}].on", change.on)
    if text.vocabulary != lists.id:
        yield Finding("vocabulary", f"only {lists.id} is known here", f'write "{lists.id}"')
    yield from _umbrella_findings(text, umbrella)
    parties = {party.id: party for party in text.parties}
    yield from _twice((f"parties[{index}].id", party.id) for index, party in enumerate(text.parties))
    sectors = {category.sector for category in lists.categories.values()}
    for index, party in enumerate(text.parties):
        yield from _unknown(f"parties[{index}].discloses", party.discloses, sectors, "sector")
    clauses = [(f"limits[{i}].id", limit.id) for i, limit in enumerate(text.limits)]
    yield from _twice([*clauses, *((f"grants[{i}].id", grant.id) for i, grant in enumerate(text.grants))])
    for index, limit in enumerate(text.limits):
        yield from _holder_findings(f"limits[{index}]", limit, lists)
    for index, grant in enumerate(text.grants):
        where = f"grants[{index}]"
        wrong = list(_term_findings(where, grant, parties, lists))
        yield from wrong
        if not wrong:
            yield from _grant_findings(where, grant, text, parties, lists)
    for index, purpose in enumerate(text.purposes):
        yield from _unknown(f"purposes[{index}].code", [purpose.code], set(lists.purposes), "purpose")
    for index, legal in enumerate(text.legal):
        yield from _unknown(f"legal[{index}].purpose", [legal.purpose], set(lists.purposes), "purpose")
        yield from _unknown(
            f"legal[{index}].categories", legal.categories, {RECORD, *lists.shareable}, "category",
            aliases=_aliases(lists),
        )  # fmt: skip
        yield from _unknown(f"legal[{index}].party", [legal.party], set(parties), "party")
    for index, flow in enumerate(text.flows):
        yield from _unknown(
            f"flows[{index}].categories", flow.categories, set(lists.shareable), "category", aliases=_aliases(lists)
        )
        yield from _unknown(f"flows[{index}].source", [flow.source], set(parties), "party")
        yield from _unknown(f"flows[{index}].destination", flow.destination or (), set(parties), "party")
        yield from _window_findings(f"flows[{index}].lookback", flow.lookback)
    if text.statistics is not None:
        yield from _unknown("statistics.tables", text.statistics.tables or (), set(declared_tables()), "declared table")


def _umbrella_findings(text: AgreementText, umbrella: Agreement | None) -> Iterator[Finding]:
    if text.under is None:
        return
    if umbrella is None:
        yield Finding("under", f"{text.under} is not at hand", "give that document too: its digest is signed with this")
        return
    if umbrella.grants or umbrella.under is not None:
        yield Finding("under", f"{text.under} is no umbrella", "an umbrella has no grants and stands under none")
    for index, party in enumerate(text.parties):
        if party.id not in umbrella.parties:
            yield Finding(f"parties[{index}].id", f"no party to {text.under}", "let it join the umbrella first")
        elif umbrella.parties[party.id].public_authority and not party.public_authority:
            message = f"{party.id} is a public authority by {text.under}"
            yield Finding(f"parties[{index}].public_authority", message, "write true")


def _period_findings(period: PeriodText, *, choose: bool) -> Iterator[Finding]:
    for name in ("effective", "expires", "review_by"):
        yield from _day_findings(f"period.{name}", getattr(period, name))
    if period.expires < period.effective:
        yield Finding("period.expires", "it ends before it begins", "write a day on or after effective")
    if period.review_by is not None and not period.effective <= period.review_by <= period.expires:
        yield Finding("period.review_by", "it lies outside the period", "write a day from effective to expires")
    if choose and period.review_by is None:
        yield Finding("period.review_by", "it must be there", "write by which day it is reviewed")
    if choose and period.if_review_overdue is None:
        yield Finding("period.if_review_overdue", "it must be there", 'choose "warn" or "suspend"')


def _day_findings(path: str, day: date | None) -> Iterator[Finding]:
    """A day that nobody means: no day of an agreement lies before the first or after the last of these."""
    if day is not None and not FIRST_DAY <= day <= LAST_DAY:
        yield Finding(path, "no agreement reaches there", f"write a day from {FIRST_DAY} to {LAST_DAY}")


def _span_findings(path: str, written: str | None) -> Iterator[Finding]:
    """A length of time that outlasts whoever it is about."""
    if written is not None and not span(written).never_longer(Duration(LONGEST_YEARS, "Y")):
        yield Finding(path, f"longer than {LONGEST_YEARS} years", f"write P{LONGEST_YEARS}Y or less")


def _window_findings(path: str, written: str | None) -> Iterator[Finding]:
    """How far back from a day a window reaches."""
    if written is not None and written.startswith("PT"):
        yield Finding(path, "a window is in days or more", "write it as P30D, P6M or P2Y")
    yield from _span_findings(path, written)


def _holder_findings(where: str, holder: LimitText | RestrictionText, lists: Vocabulary) -> Iterator[Finding]:
    prefix = f"{where}." if where else ""
    yield from _unknown(
        f"{prefix}categories", holder.categories, {RECORD, *lists.shareable}, "category", aliases=_aliases(lists)
    )
    yield from _unknown(f"{prefix}for", holder.for_ or (), set(lists.purposes), "purpose")
    if holder.when is None:
        return
    yield from _unknown(f"{prefix}when.tag", [holder.when.tag], set(lists.tags), "tag")
    tag = lists.tags.get(holder.when.tag)
    if holder.lift == "break_glass" and tag is not None and "protective" in tag.flags:
        yield Finding(f"{prefix}lift", f"an emergency never lifts {holder.when.tag}", 'write lift = "never"')


def of_restriction(text: RestrictionText, lists: Vocabulary) -> Iterator[Finding]:
    yield from _period_findings(text.period, choose=False)
    if text.vocabulary != lists.id:
        yield Finding("vocabulary", f"only {lists.id} is known here", f'write "{lists.id}"')
    yield from _holder_findings("", text, lists)


def _term_findings(
    where: str, grant: GrantText, parties: Mapping[str, PartyText], lists: Vocabulary
) -> Iterator[Finding]:
    """Words of one grant that no list holds."""
    yield from _unknown(f"{where}.from", grant.from_, set(parties), "party")
    yield from _unknown(f"{where}.to.orgs", grant.to.orgs, set(parties), "party")
    yield from _unknown(f"{where}.to.roles", grant.to.roles, set(lists.roles), "role")
    yield from _unknown(f"{where}.for", grant.for_, set(lists.purposes), "purpose")
    yield from _unknown(f"{where}.but_not_for", grant.but_not_for or (), set(lists.purposes), "purpose")
    yield from _unknown(f"{where}.about", grant.about, set(lists.relations), "relation")
    basis = grant.basis
    open_art6 = {code for code, term in lists.art6.items() if "never_default" not in term.flags}
    yield from _unknown(f"{where}.basis.art6", basis.art6, open_art6, "basis for a clause")
    yield from _unknown(f"{where}.basis.condition", basis.condition or (), set(lists.conditions), "condition")
    yield from _unknown(f"{where}.basis.gateway", basis.gateway or (), set(lists.gateways), "gateway")
    yield from _unknown(f"{where}.basis.le_authority", basis.le_authority or (), set(lists.le_authorities), "authority")
    if grant.given.threshold is not None:
        yield from _unknown(f"{where}.given.threshold", [grant.given.threshold], set(lists.thresholds), "threshold")
    yield from _window_findings(f"{where}.given.recorded_within", grant.given.recorded_within)
    for index, duty in enumerate(grant.duties):
        yield from _unknown(f"{where}.duties[{index}].do", [duty.do], set(lists.duties), "duty")
        if duty.after is not None and lists.occasions:  # an earlier version of the lists had none
            yield from _unknown(f"{where}.duties[{index}].after", [duty.after], set(lists.occasions), "occasion")
        yield from _span_findings(f"{where}.duties[{index}].within", duty.within)
    if grant.break_glass is not None and lists.notified:
        yield from _unknown(
            f"{where}.break_glass.notify", grant.break_glass.notify, set(lists.notified), "person to be told"
        )
    seen: dict[str, str] = {}
    for mode, names in disclosed(grant):
        allowed = {RECORD, *lists.shareable} if mode is Mode.EXISTENCE else set(lists.shareable)
        yield from _unknown(f"{where}.disclose.{mode.word}", names, allowed, "category", aliases=_aliases(lists))
        for name in names:
            if name in seen and name in allowed:
                yield Finding(f"{where}.disclose.{mode.word}", f"{name} stands under {seen[name]} too", "name it once")
            seen.setdefault(name, mode.word)
    if not seen:
        yield Finding(f"{where}.disclose", "it gives nothing", "name a category, or take the clause out")


def _grant_findings(
    where: str, grant: GrantText, text: AgreementText, parties: Mapping[str, PartyText], lists: Vocabulary
) -> Iterator[Finding]:
    """What one grant, all of whose words are known, may not give."""
    for index, source in enumerate(grant.from_):
        owned = [name for _, names in disclosed(grant) for name in names if _owns(parties[source], name, lists)]
        if not owned:
            yield Finding(f"{where}.from[{index}]", "it owns nothing that is given", "take it out, or add its sector")
    purposes = frozenset().union(*(lists.down(purpose) for purpose in grant.for_))
    purposes -= frozenset().union(*(lists.down(purpose) for purpose in grant.but_not_for or ()))
    for mode, names in disclosed(grant):
        place = f"{where}.disclose.{mode.word}"
        for name in names:
            if not any(_owns(parties[source], name, lists) for source in grant.from_):
                yield Finding(place, f"no source named owns {name}", "name the sector's owner in `from`")
            ceilings = [lists.ceiling(p, name) for p in purposes if not lists.purposes[p].group]
            if not any((cap is Mode.AGGREGATE) is (mode is Mode.AGGREGATE) and mode <= cap for cap in ceilings):
                yield Finding(place, f"{name} is above every ceiling of the purposes named", "grant less, never more")
    yield from _assurance_findings(where, grant, text.assurance, parties, lists)
    for index, term in enumerate(grant.basis.art6):
        if "not_public" in lists.art6[term].flags and all(parties[org].public_authority for org in grant.to.orgs):
            yield Finding(f"{where}.basis.art6[{index}]", "no recipient named may use it", "name a basis open to them")
    if grant.break_glass is not None:
        yield from _emergency_findings(where, grant, grant.break_glass, text)


def _assurance_findings(
    where: str, grant: GrantText, assured: AssuranceText, parties: Mapping[str, PartyText], lists: Vocabulary
) -> Iterator[Finding]:
    """Papers and conditions that what is given needs."""
    if assured.dpia is None:
        yield Finding("assurance.dpia", "a grant needs an impact assessment", "name it")
    if assured.notice is None:
        yield Finding("assurance.notice", "a grant needs a privacy notice", "name it")
    needing = [
        f"{name} at {mode.word}"
        for mode, names in disclosed(grant)
        for name in names
        if (
            any(lists.hit_needs_condition(parties[source].discloses) for source in grant.from_)
            if name == RECORD
            else lists.categories[name].needs_condition(mode)
        )
    ]
    if needing and not grant.basis.condition:
        yield Finding(f"{where}.basis.condition", f"{', '.join(needing)}: it takes one", "name the condition")
    if needing and assured.apd is None:
        message = f"{needing[0]} is special category or criminal offence data"
        yield Finding("assurance.apd", message, "name the appropriate policy document")


def _emergency_findings(where: str, grant: GrantText, terms: BreakGlassText, text: AgreementText) -> Iterator[Finding]:
    """An emergency clause lasts an hour at most and adds one mode at most to what the same parties share otherwise."""
    if not terms.ends_after.startswith("PT") or span(terms.ends_after).minutes > 60:
        yield Finding(f"{where}.break_glass.ends_after", "longer than an hour", "write PT60M or less")
    parties = {party.id: party for party in text.parties}
    usual: dict[tuple[str, str, str], Mode] = {}
    for one in text.grants:
        if one.break_glass is None:
            for pair in product(one.from_, one.to.orgs):
                for mode, names in disclosed(one):
                    for name in names if mode is not Mode.AGGREGATE else ():
                        usual[*pair, name] = max(mode, usual.get((*pair, name), Mode.NONE))
    for mode, names in disclosed(grant):
        for name, source in product(names, grant.from_):
            if name != RECORD and name.partition(".")[0] not in parties[source].discloses:
                continue
            if any(mode > usual.get((source, org, name), Mode.NONE) + 1 for org in grant.to.orgs):
                message = f"{name} is over one mode above what {source} gives a recipient named otherwise"
                yield Finding(f"{where}.disclose.{mode.word}", message, "an emergency adds one mode at most")


def _owns(party: PartyText, category: str, lists: Vocabulary) -> bool:
    return category == RECORD or lists.categories[category].sector in party.discloses


def _unknown(
    path: str, given: Sequence[str], known: set[str], what: str, *, aliases: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Finding]:
    """Terms that no list holds.  One that no list could hold, by its letters, is not repeated."""
    for term in given:
        if term in known:
            continue
        said = f"{term!r}" if _TERM.fullmatch(term) else "what stands there"
        near = aliases.get(term) or nearest(term, known)
        meant = f"{near}, if that is meant; else " if near in known else ""
        yield Finding(
            path, f"{said} is no {what} that may stand here", f"write {meant}one of {', '.join(sorted(known)[:40])}"
        )


def _aliases(lists: Vocabulary) -> dict[str, str]:
    """The short names of categories, which tables of the partnership use and documents don't."""
    return {one.alias: name for name, one in lists.categories.items()}


def _twice(ids: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, name in ids:
        if name in seen:
            yield Finding(path, f"{name!r} stands twice", "name each once")
        seen.add(name)

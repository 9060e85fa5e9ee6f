"""Why, in plain English: one tree, two projections.

What the asker reads is computed from the request and the live agreements alone, so it is equal with and without a
record: no fact of any record comes in.  What holder, information governance and courts read is the whole tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from agreements.agreement import Agreement, Grant, GrantRef, london_day
from agreements.reference import (
    Applied,
    Question,
    applying,
    clause_mode,
    failed,
    grant_of,
    holdings,
    link_ceiling,
)
from agreements.request import Held, Request, checked
from agreements.restrictions import caps, limit_applies
from agreements.snapshot import Snapshot, Standing
from agreements.verdict import Decision
from agreements.vocabulary import RECORD, Mode, Vocabulary

NEAR: Final = 2
"""A clause that failed at most this many tests is close to a yes."""

_CODES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "case": "NO_CASE_REF",
        "purpose": "PURPOSE_NOT_IN_DSA",
        "threshold": "THRESHOLD_NOT_MET",
        "basis": "NO_BASIS",
        "gateway": "NO_BASIS",
        "condition": "NO_BASIS",
        "regime": "REGIME_MISMATCH",
        "link": "LINK_UNCERTAIN",
        "about": "COHORT_EXCLUDED",
        "window": "OUT_OF_RETENTION",
        "org": "RECIPIENT_NOT_NAMED",
        "role": "ROLE_NOT_PERMITTED",
        "break_glass": "NO_SESSION",
        "source": "CATEGORY_NOT_IN_DSA",
        "live": "NO_DSA",
    }
)
"""Test -> result code, in the order in which a reason is named first (domain order of checks)."""

_NO_CLAUSE: Final = ("CATEGORY_NOT_IN_DSA", "PURPOSE_NOT_IN_DSA")
"""What is said where no live clause is about it; one that is not live may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskerReason:
    """Why the asker can see no more from one source: equal with and without a record."""

    source: str
    category: str | None  # None: the reason holds for the whole source
    code: str
    sentence: str
    unlock: str | None  # what would unlock it


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A clause that would have shown a category, and the tests that it failed, by name and in words."""

    grant: GrantRef
    text: str
    mode: Mode
    failed: tuple[str, ...]
    words: tuple[str, ...] = ()  # of those that are told


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryView:
    """One category as holder and IG see it.  `granted` is before ceilings; `code` is None where all asked is shown, or
    where nothing is held."""

    category: str
    mode: Mode
    granted: Mode
    code: str | None
    witness: GrantRef | None
    witness_text: str | None
    also: tuple[GrantRef, ...]
    held_back: tuple[str, ...]
    near: tuple[NearMiss, ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderView:
    """The whole tree: for the holder, information governance and courts, never for the asker."""

    outcome: str
    categories: Mapping[str, CategoryView]
    code: str | None  # the record's result code where it is silent
    consider_sharing: bool  # silent or refused, and the nearest clause failed on few tests
    shielded: bool  # a shield alone hides it: alert whoever set it instead


def explain_for_asker(
    snapshot: Snapshot,
    vocabulary: Vocabulary,
    request: Request,
    source: str,
    at: datetime,
    *,
    names: Mapping[str, str],
    desks: Mapping[str, str],
) -> Sequence[AskerReason]:
    """Why no more can be shown from one source, from request and live agreements alone: no fact of any record.

    `names` and `desks`: an organisation's name and its safeguarding desk, for the sentences.  A reason for the whole
    source comes alone, with `category` None; else one for each category asked for that no clause could give as asked.
    Raises RequestRefused.
    """
    checked(request, vocabulary)
    q = Question(snapshot=snapshot, vocabulary=vocabulary, request=request, facts=None, source=source, at=at)
    fill = {"organisation": names.get(source, source), "desk": desks.get(source, "its safeguarding desk")}
    standing = _pair_standing(q)
    if not standing.live:
        fill["date"] = _last_day(standing)
        return [_asker_reason(q, None, standing.code or "NO_DSA", fill, None)]
    reasons = []
    for category, asked in request.asked.items():
        near = _near(q, category)
        if not near and not _owned(q, category):
            continue  # nobody expects it of this source
        best = max((miss.mode for miss in near if not miss.failed), default=Mode.NONE)
        best = min(best, vocabulary.ceiling(request.purpose, category), asked)
        if best >= asked:
            continue
        higher = [miss for miss in near if miss.failed and miss.mode > best]
        if best:
            unlock = _unlock(q, higher)
            reasons.append(_asker_reason(q, category, "MODE_EXCEEDS", fill, unlock))
            continue
        code, nearest = _reason(q, near)
        if code in _NO_CLAUSE and (ended := _not_live_now(q, category)) is not None:
            of_it = {"date": _last_day(ended)}
            reasons.append(_asker_reason(q, category, ended.code or code, fill | of_it, None))
            continue
        unlock = _unlock(q, [nearest]) if nearest else None
        terms = _terms(q, grant_of(snapshot, nearest.grant)[1], nearest.failed) if nearest else {}
        reasons.append(_asker_reason(q, category, code, fill | terms, unlock))
    return reasons


def explain_for_holder(snapshot: Snapshot, vocabulary: Vocabulary, decision: Decision) -> HolderView:
    """Every test of every clause near enough, every ceiling, true result codes."""
    request, facts = decision.request, decision.facts
    q = Question(
        snapshot=snapshot, vocabulary=vocabulary, request=request, facts=facts, source=facts.source, at=decision.at
    )
    applied = applying(q, facts)
    gate = next((name for name, named, cap in applied if RECORD in named and cap is Mode.NONE), None)
    standing = _pair_standing(q)
    views = {category: _view(q, decision, applied, category, gate, standing) for category in request.asked}
    code = None
    if not decision.shown:
        codes = [view.code for view in views.values() if view.code is not None]
        telling = [one for one in codes if one != "CATEGORY_NOT_IN_DSA"]
        code = next(iter(telling or codes), None)
    refused = [view for view in views.values() if not view.mode and view.code is not None]
    shielded = gate is not None and _restriction_code(q, gate) == "SHIELDED"
    return HolderView(
        outcome=decision.outcome.value,
        categories=views,
        code=code,
        consider_sharing=gate is None
        and standing.live
        and any(miss.failed and len(miss.failed) <= NEAR for view in refused for miss in view.near[:1]),
        shielded=shielded or any(view.code == "SHIELDED" for view in refused),
    )


# --- both ---------------------------------------------------------------------------------------------------------


def _pair_standing(q: Question) -> Standing:
    """Live if any agreement between the two is; else the first reason in the order of the vocabulary's results."""
    standings = [
        q.snapshot.standing(agreement, q.source, q.request.organisation, q.at)
        for agreement in q.snapshot.between(q.source, q.request.organisation)
    ]
    for standing in standings:
        if standing.live:
            return standing
    return min(standings, key=_rank, default=Standing("NO_DSA"))


def _not_live_now(q: Question, category: str) -> Standing | None:
    """Why no clause that lists a category for this purpose is live, if one would be but for its agreement's standing.

    An agreement that gave way to a live version of itself is not missed: what the new one left out was left out.
    """
    standings = [
        (agreement, q.snapshot.standing(agreement, q.source, q.request.organisation, q.at))
        for agreement in q.snapshot.between(q.source, q.request.organisation)
    ]
    live = {agreement.id for agreement, standing in standings if standing.live}
    found = [
        standing
        for agreement, standing in standings
        if standing.code not in (None, "NO_DSA") and agreement.id not in live
        if any(
            _lists(q, agreement, grant, category)
            and (grant.break_glass is None or q.request.break_glass is not None)
            and "purpose" not in failed(q, agreement, grant, category, None)
            for grant in agreement.grants
        )
    ]
    return min(found, key=_rank, default=None)


def _rank(standing: Standing) -> int:
    return ("DSA_SUSPENDED", "DSA_UNSIGNED", "DSA_EXPIRED", "NO_DSA").index(standing.code or "NO_DSA")


def _near(q: Question, category: str) -> list[NearMiss]:
    """Live clauses that list a category and belong to this source, fewest failed tests first.

    A clause for emergencies counts only in an emergency: nobody is told to break glass to see more.
    """
    misses = []
    for agreement in q.snapshot.between(q.source, q.request.organisation):
        if not q.snapshot.standing(agreement, q.source, q.request.organisation, q.at).live:
            continue
        for grant in agreement.grants:
            if not _lists(q, agreement, grant, category) or (grant.break_glass and q.request.break_glass is None):
                continue
            tests = min((failed(q, agreement, grant, category, held) for held in _items(q, category)), key=len)
            misses.append(
                NearMiss(
                    grant=GrantRef(agreement.ref, grant.id),
                    text=grant.text,
                    mode=_mode(q, agreement, grant, category),
                    failed=tuple(test for test in _CODES if test in tests),
                )
            )
    order = list(_CODES)
    return sorted(
        misses,
        key=lambda miss: (
            len(miss.failed),
            "purpose" in miss.failed,  # of two as near, the one for the purpose that was chosen
            [order.index(test) for test in miss.failed],
            miss.grant,
        ),
    )


def _worded(q: Question, miss: NearMiss) -> NearMiss:
    """The same, with what would pass each test in words."""
    grant = grant_of(q.snapshot, miss.grant)[1]
    return replace(miss, words=tuple(_words(q, grant, test) for test in miss.failed))


def _owned(q: Question, category: str) -> bool:
    """Whether an agreement says that the source discloses a category's sector."""
    return category != RECORD and any(
        q.vocabulary.categories[category].sector in agreement.parties[q.source].discloses
        for agreement in q.snapshot.between(q.source, q.request.organisation)
    )


def _lists(q: Question, agreement: Agreement, grant: Grant, category: str) -> bool:
    mode = grant.modes.get(category, Mode.NONE)
    if not mode or (mode is Mode.AGGREGATE) is not q.aggregate or q.source not in grant.sources:
        return False
    return category == RECORD or q.vocabulary.categories[category].sector in agreement.parties[q.source].discloses


def _mode(q: Question, agreement: Agreement, grant: Grant, category: str) -> Mode:
    """What the clause gives if it covers (less where a limit or a missing condition says so), else what it names."""
    covering = [held for held in _items(q, category) if not failed(q, agreement, grant, category, held)]
    if not covering:
        return grant.modes[category]
    return max(clause_mode(q, q.facts, agreement, grant, category, held) for held in covering)


def _items(q: Question, category: str) -> Sequence[Held | None]:
    return (holdings(q.facts, category) or (None,)) if q.facts is not None else (None,)


def _reason(q: Question, near: Sequence[NearMiss]) -> tuple[str, NearMiss | None]:
    """The code of a category that no clause gives, and the clause that it is about, if any."""
    nearest = next((miss for miss in near if miss.failed), None)
    if nearest is None or (len(nearest.failed) > 1 and _covered_otherwise(q)):
        return "CATEGORY_NOT_IN_DSA", None
    code = _CODES[nearest.failed[0]]
    if code == "NO_BASIS" and _basis_closed(q):
        code = "BASIS_INVALID_FOR_PARTY"
    return code, nearest


def _covered_otherwise(q: Question) -> bool:
    """Whether a live clause of the source covers this very request for some other category."""
    return any(
        not miss.failed
        for agreement in q.snapshot.between(q.source, q.request.organisation)
        for category in {name for grant in agreement.grants for name in grant.modes}
        for miss in _near(q, category)[:1]
    )


def _basis_closed(q: Question) -> bool:
    term = q.vocabulary.art6[q.request.basis.art6]
    parties = [
        agreement.parties[q.request.organisation] for agreement in q.snapshot.between(q.source, q.request.organisation)
    ]
    return "not_public" in term.flags and any(party.public_authority for party in parties)


def _words(q: Question, grant: Grant, test: str) -> str:
    """What would pass a test, in words."""
    vocabulary = q.vocabulary
    terms = _terms(q, grant, (test,))
    words = {
        "case": "a case reference of this child",
        "purpose": f"the purpose {terms['purposes']}",
        "threshold": f"{terms['threshold']}, decided by a {vocabulary_roles(vocabulary, _setters(vocabulary, grant))}",
        "basis": f"the lawful basis {terms['bases']}",
        "gateway": f"the lawful basis {terms['bases']}",
        "condition": f"the lawful basis {terms['bases']}",
        "org": "being named in the clause",
        "role": f"the role {terms['roles']}",
        "break_glass": "a running emergency session",
        "regime": "an authority for law-enforcement items in the clause",
        "link": "a surer match",
        "about": "a record about somebody the clause is about",
        "window": "an item inside the clause's window",
        "source": "a clause of this source",
        "live": "an agreement in force",
    }
    return words[test]


def _terms(q: Question, grant: Grant, tests: Sequence[str]) -> dict[str, str]:
    """What a clause asks for, for the standard texts; of its lawful bases, the parts that failed."""
    vocabulary, basis = q.vocabulary, grant.basis
    purposes = (vocabulary.purposes[code].label for code in _leaves(vocabulary, grant))
    bases = {
        "basis": [vocabulary.art6[code].label for code in vocabulary.art6 if code in basis.art6],
        "gateway": [vocabulary.gateways[code].source for code in vocabulary.gateways if code in basis.gateways],
        "condition": [vocabulary.conditions[code].label for code in vocabulary.conditions if code in basis.conditions],
    }
    threshold = vocabulary.thresholds[grant.threshold].label if grant.threshold else ""
    roles = vocabulary_roles(vocabulary, grant.roles)
    return {
        "purposes": _either(purposes),
        "bases": "; ".join(_either(words) for test, words in bases.items() if test in tests),
        "threshold": f"threshold {threshold}",
        "roles": roles,
        "role": roles,
    }


def vocabulary_roles(vocabulary: Vocabulary, roles: Iterable[str]) -> str:
    """Roles in words: "MASH decision-maker or social worker"."""
    wanted = set(roles)
    return _either(term.label for code, term in vocabulary.roles.items() if code in wanted)


def _setters(vocabulary: Vocabulary, grant: Grant) -> tuple[str, ...]:
    return vocabulary.thresholds[grant.threshold].set_by if grant.threshold else ()


def _leaves(vocabulary: Vocabulary, grant: Grant) -> Iterator[str]:
    inside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in grant.purposes))
    outside = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in grant.not_purposes))
    yield from (code for code, purpose in vocabulary.purposes.items() if code in inside - outside and not purpose.group)


def _either(words: Iterable[str]) -> str:
    several = list(words)
    return f"{', '.join(several[:-1])} or {several[-1]}" if len(several) > 1 else "".join(several)


# --- for the asker ------------------------------------------------------------------------------------------------


def _asker_reason(
    q: Question, category: str | None, code: str, fill: Mapping[str, str], unlock: str | None
) -> AskerReason:
    result = q.vocabulary.results[code]
    template = result.asker
    if code == "MODE_EXCEEDS" and unlock is None:
        template = "You can see less than you asked for. To see more, ask {organisation}."
    fill = dict(fill) | {"unlock": unlock or ""}
    if code == "THRESHOLD_NOT_MET":
        role = vocabulary_roles(
            q.vocabulary, {role for term in q.vocabulary.thresholds.values() for role in term.set_by}
        )
        fill |= {"role": role}
    sentence = template.format_map(fill)
    return AskerReason(source=q.source, category=category, code=code, sentence=_capital(sentence), unlock=unlock)


def _unlock(q: Question, misses: Sequence[NearMiss]) -> str | None:
    """What the nearest clause still wants, where that is little and in somebody's hands."""
    nearest = misses[0] if misses else None
    if nearest is None or len(nearest.failed) > NEAR:
        return None
    return " and ".join(dict.fromkeys(_worded(q, nearest).words))


def _last_day(standing: Standing) -> str:
    """The day a sharing was paused, or the last day of an agreement that ended: "7 Mar 2026"."""
    if standing.since is None:
        return ""
    ended_at_midnight = standing.code == "DSA_EXPIRED"
    day = london_day(standing.since - timedelta(seconds=1) if ended_at_midnight else standing.since)
    return f"{day.day} {day:%b %Y}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


# --- for the holder -----------------------------------------------------------------------------------------------


def _view(
    q: Question, decision: Decision, applied: Sequence[Applied], category: str, gate: str | None, standing: Standing
) -> CategoryView:
    assert q.facts is not None
    near = _near(q, category)
    granted = max((miss.mode for miss in near if not miss.failed), default=Mode.NONE)
    mode = decision.mode(category)
    back = tuple(_held_back(q, applied, category, granted))
    shown = decision.shown.get(category)
    witness = grant_of(q.snapshot, shown.under)[1] if shown else None
    code = _code(q, decision, category, granted, near, applied, gate, standing)
    nearest = tuple(_worded(q, miss) for miss in [one for one in near if one.failed][:3])
    return CategoryView(
        category=category,
        mode=mode,
        granted=granted,
        code=code,
        witness=shown.under if shown else None,
        witness_text=witness.text if witness else None,
        also=shown.also if shown else (),
        held_back=back,
        near=nearest,
        sentence=_sentence(category, mode, decision, witness, back, nearest, code),
    )


def _code(
    q: Question,
    decision: Decision,
    category: str,
    granted: Mode,
    near: Sequence[NearMiss],
    applied: Sequence[Applied],
    gate: str | None,
    standing: Standing,
) -> str | None:
    """The true result code of one category: why it is not shown as asked."""
    assert q.facts is not None
    mode = decision.mode(category)
    if mode >= q.request.asked[category]:
        return None
    if gate is not None or not standing.live:
        return _restriction_code(q, gate) if gate is not None else standing.code
    if not holdings(q.facts, category):
        return None
    if not mode and not granted:
        code = _limited_by_tag(q, category) or _reason(q, near)[0]
        ended = _not_live_now(q, category) if code in _NO_CLAUSE else None
        return ended.code if ended else code
    binding = [name for name, named, cap in applied if (category in named or RECORD in named) and cap == mode]
    if link_ceiling(q, q.facts) == mode:
        return "LINK_UNCERTAIN"
    return _restriction_code(q, binding[0]) if binding else "MODE_EXCEEDS"


def _limited_by_tag(q: Question, category: str) -> str | None:
    """SHIELDED or LINK_VETOED, where a clause covers and its own agreement's limit on a tag is all that hides it."""
    assert q.facts is not None
    for agreement in q.snapshot.between(q.source, q.request.organisation):
        for grant in agreement.grants:
            if _lists(q, agreement, grant, category) and any(
                not failed(q, agreement, grant, category, held) for held in _items(q, category)
            ):
                umbrella = q.snapshot.umbrella(agreement)
                for limit in (*agreement.limits, *(umbrella.limits if umbrella else ())):
                    applies = limit_applies(limit, q.vocabulary, q.request, q.facts, q.at)
                    if applies and caps(limit, category) is Mode.NONE:
                        return _tag_code(limit.tag)
    return None


def _restriction_code(q: Question, name: str) -> str:
    for rule in q.vocabulary.baseline:
        if rule.id == name:
            return _tag_code(rule.tag)
    return next((_tag_code(one.tag) for one in q.snapshot.restrictions if one.ref == name), "SEALED")


def _tag_code(tag: str | None) -> str:
    if tag in ("shield_address", "shield_full"):
        return "SHIELDED"
    return "LINK_VETOED" if tag == "sever_boundary" else "SEALED"


def _held_back(q: Question, applied: Sequence[Applied], category: str, granted: Mode) -> Iterator[str]:
    """Everything that holds the category below what is asked, clause by clause."""
    assert q.facts is not None
    asked = q.request.asked[category]
    if Mode.NONE < granted < asked:
        yield "the clause itself"
    purpose = q.vocabulary.ceiling(q.request.purpose, category)
    if purpose < asked:
        yield f"the {q.request.purpose} ceiling ({purpose.word})"
    if (link := link_ceiling(q, q.facts)) < asked:
        yield f"the link ({link.word})"
    for agreement in q.snapshot.between(q.source, q.request.organisation):
        umbrella = q.snapshot.umbrella(agreement)
        for limit in (*agreement.limits, *(umbrella.limits if umbrella else ())):
            cap = caps(limit, category)
            if cap is not None and cap < asked and limit_applies(limit, q.vocabulary, q.request, q.facts, q.at):
                yield f'limit {agreement.ref}#{limit.id} "{limit.text}" ({cap.word}; tag {limit.tag})'
    for name, named, cap in applied:
        if (category in named or RECORD in named) and cap < asked:
            yield f"restriction {name} ({cap.word})"


def _sentence(
    category: str,
    mode: Mode,
    decision: Decision,
    witness: Grant | None,
    back: Sequence[str],
    near: Sequence[NearMiss],
    code: str | None,
) -> str:
    """One category in a line, as holder and IG read it."""
    if witness is not None:
        shown = decision.shown[category]
        also = ", ".join(str(ref) for ref in shown.also) or "none"
        held = "; ".join(back) or "nothing"
        under = f'{category} {mode.word} under {shown.under} "{witness.text}"'
        return f"{under}; also allowed by: {also}; held back by: {held}."
    if back and not near:
        return f"{category} none ({code}); held back by: {'; '.join(back)}."
    if near:
        nearest = near[0]
        return (
            f"{category} none ({code}); nearest: {nearest.grant}, fails {', '.join(nearest.failed)} "
            f"(would need {' and '.join(dict.fromkeys(nearest.words))})."
        )
    return f"{category} none ({code})." if code else f"{category} none: nothing held."

"""What holder, information governance and courts read: the whole tree, with true result codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agreements.agreement import Grant, GrantRef
from agreements.explain.asker import NO_CLAUSE
from agreements.explain.near import NEAR, Inquiry, Miss, NearMiss, reason
from agreements.reference import Applied, Question, applying, failed, grant_of, holdings, link_ceiling
from agreements.restrictions import caps, limit_applies
from agreements.snapshot import Snapshot, Standing
from agreements.verdict import Decision
from agreements.vocabulary import RECORD, Mode, Vocabulary


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


def explain_for_holder(snapshot: Snapshot, vocabulary: Vocabulary, decision: Decision) -> HolderView:
    """Every test of every clause near enough, every ceiling, true result codes."""
    request, facts = decision.request, decision.facts
    q = Question(
        snapshot=snapshot, vocabulary=vocabulary, request=request, facts=facts, source=facts.source, at=decision.at
    )
    inquiry = Inquiry(q)
    applied = applying(q, facts)
    gate = next((name for name, named, cap in applied if RECORD in named and cap is Mode.NONE), None)
    standing = inquiry.standing
    views = {category: _view(inquiry, decision, applied, category, gate, standing) for category in request.asked}
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


def _view(
    inquiry: Inquiry,
    decision: Decision,
    applied: Sequence[Applied],
    category: str,
    gate: str | None,
    standing: Standing,
) -> CategoryView:
    q = inquiry.q
    near = tuple(inquiry.near(category))
    granted = max((miss.mode for miss in near if not miss.failed), default=Mode.NONE)
    mode = decision.mode(category)
    back = tuple(_held_back(inquiry, applied, category, granted))
    shown = decision.shown.get(category)
    witness = grant_of(q.snapshot, shown.under)[1] if shown else None
    code = _code(inquiry, decision, category, granted, near, applied, gate, standing)
    nearest = tuple(miss.told(q) for miss in [one for one in near if one.failed][:3])
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
    inquiry: Inquiry,
    decision: Decision,
    category: str,
    granted: Mode,
    near: Sequence[Miss],
    applied: Sequence[Applied],
    gate: str | None,
    standing: Standing,
) -> str | None:
    """The true result code of one category: why it is not shown as asked."""
    q = inquiry.q
    assert q.facts is not None
    mode = decision.mode(category)
    if mode >= q.request.asked[category]:
        return None
    if gate is not None or not standing.live:
        return _restriction_code(q, gate) if gate is not None else standing.code
    if not holdings(q.facts, category):
        return None
    if not mode and not granted:
        code = (
            _limited_by_tag(inquiry, category) or reason(inquiry, next((miss for miss in near if miss.failed), None))[0]
        )
        ended = inquiry.ended(category) if code in NO_CLAUSE else None
        return ended.code if ended else code
    binding = [name for name, named, cap in applied if (category in named or RECORD in named) and cap == mode]
    if link_ceiling(q, q.facts) == mode:
        return "LINK_UNCERTAIN"
    return _restriction_code(q, binding[0]) if binding else "MODE_EXCEEDS"


def _limited_by_tag(inquiry: Inquiry, category: str) -> str | None:
    """SHIELDED or LINK_VETOED, where a clause covers and its own agreement's limit on a tag is all that hides it."""
    q = inquiry.q
    assert q.facts is not None
    for named in inquiry.listing.clauses:
        _, agreement, grant, _ = named
        if inquiry.lists(named, category) and any(
            not failed(q, agreement, grant, category, held) for held in inquiry.items(category)
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


def _held_back(inquiry: Inquiry, applied: Sequence[Applied], category: str, granted: Mode) -> Iterator[str]:
    """Everything that holds the category below what is asked, clause by clause."""
    q = inquiry.q
    assert q.facts is not None
    asked = q.request.asked[category]
    if Mode.NONE < granted < asked:
        yield "the clause itself"
    purpose = q.vocabulary.ceiling(q.request.purpose, category)
    if purpose < asked:
        yield f"the {q.request.purpose} ceiling ({purpose.word})"
    if (link := link_ceiling(q, q.facts)) < asked:
        yield f"the link ({link.word})"
    for agreement in inquiry.listing.agreements:
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

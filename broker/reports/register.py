"""R1 disclosures, R2 refusals, R3 break-glass, R10 extract of the log: reports made of events, one after the other."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from agreements.receipts import PastDecision, past_decisions
from agreements.vocabulary import Mode
from audit.events import Op
from broker import clock
from broker.reports.reading import Source, holders, in_parts, persons
from broker.reports.table import OpenedEvent, Row
from broker.store.agencies import AgencyRow
from broker.store.log import ReviewRow
from broker.store.log_search import leaf_hashes, reviews_of, told_at

DISCLOSURES: Final = (
    "search.authorised", "disclosure.authorised", "consider_sharing.shared", "answer.released",
    "standing_approval.used", "verbal_share.logged", "statistics.disclosed",
)  # fmt: skip
"""What shows somebody's information to another: a search shows whom several organisations know."""
ENDS: Final = ("search.completed", "disclosure.completed", "disclosure.aborted")
ENDS_WITHIN: Final = timedelta(hours=1)  # of an answer without an end by then nobody knows whether it arrived
REFUSALS: Final = (
    "search.refused", "disclosure.refused", "threshold.refused", "statistics.refused", "statistics.rejected",
    "consider_sharing.declined", "answer.declined", "auth.denied",
)  # fmt: skip
IN_PART: Final = ("search.authorised", "disclosure.authorised")
"""What may show somebody a part and refuse the rest, or list nobody: of these, those whose asker was told a refusal."""
BREAK_GLASS: Final = ("breakglass.opened", "breakglass.used")

R1: Final = (
    "event_id", "utc", "actor", "org", "role", "case_ref", "subject_token", "purpose", "threshold", "dsa_id@ver",
    "basis", "categories", "mode", "source_org", "recipient_org", "decision", "rule_id", "link_id+band", "notified_at",
)  # fmt: skip
R2: Final = (
    "event_id", "utc", "actor", "org", "role", "case_ref", "subject_token", "purpose", "threshold", "basis", "step",
    "decision", "reason", "source_org", "categories", "extent",
)  # fmt: skip
R3: Final = (*R1, "reviewer", "verdict", "hours")
R10: Final = (
    "event_id", "utc", "op", "type", "actor", "org", "role", "method", "session", "assertion_sha256", "subject_token",
    "source_org", "recipient_org", "recipient", "outcome", "purpose", "case_ref", "log", "log_index", "leaf_sha256",
)  # fmt: skip


def disclosures(source: Source) -> Iterator[Row]:
    """R1: a row for each disclosure, organisation whose information it was, mode and clause."""
    events = source.events(source.wanted((*DISCLOSURES, *ENDS), until_ms=_late(source)))
    for some in in_parts(_with_ends(source, events)):
        beside, told = source.all_beside(one for one, _ in some), _told(source, (one for one, _ in some))
        for one, end in some:
            yield from _rows(source, one, end, beside.get(one.event.event_id, {}), told)


def disclosed(source: Source) -> Iterator[OpenedEvent]:
    """The events of R1."""
    return (one for one in source.events(source.wanted(DISCLOSURES)) if _discloses(source, one))


def refusals(source: Source) -> Iterator[Row]:
    """R2: a row for each refusal, in the code its asker was told; what was hidden stays with the event's detail.

    A search that listed nobody and a view that showed only a part are refusals as far as their askers were told of any:
    a row for each code and organisation, `extent` saying whether nothing was shown ("whole") or something ("part").
    """
    for some in in_parts(refused(source)):
        beside = source.all_beside(one for one in some if one.body("what").get("refused"))
        for one in some:
            yield from _refused(source, one, beside.get(one.event.event_id, {}))


def refused(source: Source) -> Iterator[OpenedEvent]:
    """The events of R2."""
    return (one for one in source.events(source.wanted((*REFUSALS, *IN_PART))) if _refuses(one))


def _refuses(one: OpenedEvent) -> bool:
    return one.event.type in REFUSALS or bool(one.body("what").get("refused"))


def _refused(source: Source, one: OpenedEvent, beside: Mapping[str, bytes]) -> Iterator[Row]:
    event, what, why = one.event, one.body("what"), one.body("why")
    whole = event.type in REFUSALS or not _discloses(source, one)
    told: dict[tuple[str, str], set[str]] = defaultdict(set)
    for code, organisation, category in _json(beside, "refused") or ():
        told[code, organisation].update({category} - {""})
    rows = [(code, (by,) if by else (), tuple(sorted(of))) for (code, by), of in sorted(told.items())]
    if not rows:
        decisions = what.get("decisions")
        sources = tuple(sorted(decisions)) if isinstance(decisions, Mapping) else ()
        rows = [(event.outcome or event.type.partition(".")[2], sources, ())]
    for decision, sources, categories in rows:
        yield (
            event.event_id, event.at, event.person, event.organisation, event.role, event.case,
            persons(source.subjects(one)), event.purpose, _text(why, "threshold"), _basis(why),
            event.type.partition(".")[0], decision, _text(why, "reason"), sources, categories,
            "whole" if whole else "part",
        )  # fmt: skip


def break_glass(source: Source) -> Iterator[Row]:
    """R3: each use of break-glass, who reviewed it, how, and how many hours after."""
    for some in in_parts(broken_glass(source)):
        beside, told = source.all_beside(some), _told(source, some)
        with source.store.reading() as reading:
            reviews = reviews_of(reading, [one.event.event_id for one in some])
        for one in some:
            event = one.event
            shown = event.type in DISCLOSURES
            rows = list(_rows(source, one, "", beside.get(event.event_id, {}), told)) if shown else []
            for row in rows or [_bare(source, one, event.outcome or event.type)]:
                yield (*row, *_reviewed(event.at, reviews.get(event.event_id)))


def broken_glass(source: Source) -> Iterator[OpenedEvent]:
    """The events of R3: the opening and each use, and whatever was shown under one."""
    return source.events(source.wanted(break_glass=True), source.wanted(BREAK_GLASS, break_glass=False))


def extract(source: Source) -> Iterator[Row]:
    """R10: what section 62 of the Data Protection Act 2018 has a competent authority keep, each with its leaf."""
    for some in in_parts(extracted(source)):
        with source.store.reading() as reading:
            leaves = leaf_hashes(reading, [one.event.event_id for one in some])
        yield from (_extracted(source, one, leaves.get(one.event.event_id, b"")) for one in some)


def extracted(source: Source) -> Iterator[OpenedEvent]:
    """The events of R10: what a force did, received or had shown of its own; and linking, which is of everybody's.

    Of what was shown to others, only what was the force's: who else knows that child is not for its extract to tell.
    """
    with source.store.reading() as reading:
        police = {row.id for row in reading.all(AgencyRow) if "police" in (row.party_type, row.sector)}
    theirs = {source.about.organisation} if source.about.organisation else police
    for one in source.events(*(source.wanted(op=op.value) for op in Op if op is not Op.SYSTEM)):
        if one.event.op == Op.COMBINATION:
            yield one
        elif not theirs.isdisjoint(_involved(source, one)):
            yield one if not theirs.isdisjoint(_took_part(one)) else _part_of(source, one, theirs)


# --- How an answer ended ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Waiting:
    """A disclosure whose end has not been read yet."""

    event: OpenedEvent
    end: str = ""


def _with_ends(source: Source, events: Iterable[OpenedEvent]) -> Iterator[tuple[OpenedEvent, str]]:
    """Each disclosure of the period with how its answer ended, in order: no more than an hour of them waits at once."""
    queue: deque[_Waiting] = deque()
    open_: dict[str, _Waiting] = {}
    for one in events:
        while queue and (queue[0].end or queue[0].event.event.at + ENDS_WITHIN <= one.event.at):
            yield _ended(open_, queue.popleft())
        if one.event.type in ENDS:
            answer = open_.get(_text(one.body("what"), "authorised_by"))
            if answer is not None:
                answer.end = "aborted" if one.event.type == "disclosure.aborted" else "disclosed"
                if _text(one.body("what"), "outcome") == "broken_off":  # a part may have arrived
                    answer.end = "possibly_disclosed"
        elif one.event.at < source.period.until and _discloses(source, one):
            waiting = _Waiting(one)
            # what is not an answer over the wire has no end of its own: to record it is to have shared it
            waiting.end = "" if one.event.type in ("search.authorised", "disclosure.authorised") else "disclosed"
            queue.append(waiting)
            open_[one.event.event_id] = waiting
    while queue:
        yield _ended(open_, queue.popleft())


def _ended(open_: dict[str, _Waiting], waiting: _Waiting) -> tuple[OpenedEvent, str]:
    del open_[waiting.event.event.event_id]
    return waiting.event, waiting.end or "possibly_disclosed"


def _late(source: Source) -> int:
    return clock.milliseconds(source.period.until + ENDS_WITHIN)


def _discloses(source: Source, one: OpenedEvent) -> bool:
    """Whether somebody was shown: a search that lists nobody shows nothing."""
    return one.event.type != "search.authorised" or not one.event.outcome.startswith("0_")


# --- Rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cited:
    """What was shown of one source under one clause in one mode."""

    source: str
    mode: str
    clause: str
    categories: tuple[str, ...]


Told = Mapping[tuple[str, str], datetime]
"""When each holder collected the notice of a disclosure, by event and holder."""


def _told(source: Source, events: Iterable[OpenedEvent]) -> Told:
    with source.store.reading() as reading:
        return told_at(reading, [one.event.event_id for one in events])


def _rows(source: Source, one: OpenedEvent, end: str, beside: Mapping[str, bytes], told: Told) -> Iterator[Row]:
    event, what, why = one.event, one.body("what"), one.body("why")
    subjects = source.subjects(one)
    whom = persons(subjects) or subjects
    recipients = tuple(dict.fromkeys(str(each.get("organisation", "")) for each in one.recipients))
    link = "+".join(filter(None, (_text(what, "run"), _text(why, "link"))))
    decision = (end or event.outcome) if one.sections else "erased"
    found = list(_cited(one, subjects, beside)) if one.sections else []
    if not found:  # what is left of it is that it was
        yield _bare(source, one, decision)
    for cited, basis in found:
        yield (
            event.event_id, event.at, event.person, event.organisation, event.role, event.case, whom, event.purpose,
            _text(why, "threshold"), tuple(sorted({clause.partition("#")[0] for clause in cited.clause.split("; ")})),
            basis or _basis(why), cited.categories, cited.mode, cited.source, recipients, decision, cited.clause, link,
            told.get((event.event_id, cited.source)),
        )  # fmt: skip


def _bare(source: Source, one: OpenedEvent, decision: str) -> Row:
    event, why = one.event, one.body("why")
    return (
        event.event_id, event.at, event.person, event.organisation, event.role, event.case,
        persons(source.subjects(one)), event.purpose, _text(why, "threshold"), (), _basis(why), (), "", "", (),
        decision, "", "", None,
    )  # fmt: skip


def _cited(
    one: OpenedEvent, subjects: tuple[str, ...], beside: Mapping[str, bytes]
) -> Iterator[tuple[_Cited, tuple[str, ...]]]:
    what = one.body("what")
    if one.event.type == "disclosure.authorised":
        for holder, modes in sorted((what.get("categories") or {}).items()):
            past = _past(_json(beside, f"decision/{holder}"))
            yield from ((cited, _asked_under(past)) for cited in _of_view(one, holder, modes, past))
    elif one.event.type == "search.authorised":
        past = [each for receipt in _json(beside, "decisions") or () for each in _past(receipt)]
        for holder in holders(subjects):
            theirs = [each for each in past if each.facts.source == holder]
            clauses = sorted({clause for each in theirs for clause in each.witnesses.values()})
            cited = _Cited(source=holder, mode=Mode.EXISTENCE.word, clause="; ".join(clauses), categories=())
            yield cited, _asked_under(past)
    else:
        category = what.get("category") or what.get("table") or ""
        cited = _Cited(
            source=one.event.organisation,
            mode=_text(what, "mode") or ("aggregate" if one.event.type.startswith("statistics.") else ""),
            clause="; ".join(map(str, one.body("why").get("clauses") or ())),
            categories=(str(category),) if category else (),
        )
        yield cited, ()


def _of_view(one: OpenedEvent, holder: str, modes: Mapping[str, str], past: list[PastDecision]) -> Iterator[_Cited]:
    """What was shown of one source, by mode and clause; where the receipt is gone, by mode and all clauses cited."""
    clauses = "; ".join(map(str, one.body("why").get("clauses") or ()))
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for category, mode in sorted(modes.items()):
        cited = {
            each.witnesses[category]
            for each in past
            if category in each.witnesses and each.modes.get(category) == Mode.parse(mode)
        }
        groups[mode, "; ".join(sorted(cited)) or clauses].append(category)
    for (mode, clause), categories in sorted(groups.items()):
        yield _Cited(source=holder, mode=mode, clause=clause, categories=tuple(categories))


def _json(beside: Mapping[str, bytes], name: str) -> Any:
    return json.loads(beside[name]) if name in beside else None


def _past(receipt: Any) -> list[PastDecision]:
    return list(past_decisions(receipt)) if isinstance(receipt, Mapping) else []


def _asked_under(past: Iterable[PastDecision]) -> tuple[str, ...]:
    """The lawful basis of a request: article 6, then conditions, then legal gateways."""
    for each in past:
        basis = each.request.basis
        return (basis.art6, *sorted(basis.conditions), *sorted(basis.gateways))
    return ()


def _basis(why: Mapping[str, Any]) -> tuple[str, ...]:
    art6 = _text(why, "art6")
    return (art6,) if art6 else ()


def _reviewed(at: datetime, review: ReviewRow | None) -> tuple[str, str, str]:
    """Who decided, what, and how many hours after; nothing of a decision that a second person sent back."""
    if review is None or review.second == "sent_back":
        return "", "", ""
    verdict = review.decision if review.second else f"{review.decision}, waits for a second look"
    return review.reviewer, verdict, f"{(review.at - at) / timedelta(hours=1):.1f}"


# --- The extract -----------------------------------------------------------------------------------------------------


def _involved(source: Source, one: OpenedEvent) -> frozenset[str]:
    """The organisations that acted, received, or whose information it was."""
    return _took_part(one) | {*_sources(one, source.subjects(one))}


def _took_part(one: OpenedEvent) -> frozenset[str]:
    """The organisations that acted or received."""
    return frozenset({one.event.organisation, *(str(each.get("organisation", "")) for each in one.recipients)})


def _part_of(source: Source, one: OpenedEvent, theirs: Collection[str]) -> OpenedEvent:
    """An event as far as it is of these organisations' information: their records, their categories, no clause."""
    what, categories = one.body("what"), one.body("what").get("categories")
    if isinstance(categories, Mapping):
        what = {**what, "categories": {name: shown for name, shown in categories.items() if name in theirs}}
    records = [each for each in source.subjects(one) if each.partition("/")[0] in theirs and "/" in each]
    why = {name: value for name, value in one.body("why").items() if name != "clauses"}
    return replace(one, sections={**one.sections, "subjects": records, "what": what, "why": why})


def _sources(one: OpenedEvent, subjects: tuple[str, ...]) -> tuple[str, ...]:
    categories = one.body("what").get("categories")
    return tuple(sorted({*holders(subjects), *(categories if isinstance(categories, Mapping) else ())}))


def _extracted(source: Source, one: OpenedEvent, leaf: bytes) -> Row:
    event, who = one.event, one.body("who")
    subjects = source.subjects(one)
    return (
        event.event_id, event.at, event.op, event.type, event.person, event.organisation, event.role,
        _text(who, "method"), _text(who, "session"), _text(who, "assertion_sha256"), subjects, _sources(one, subjects),
        tuple(dict.fromkeys(str(each.get("organisation", "")) for each in one.recipients)),
        tuple(dict.fromkeys(str(each["person"]) for each in one.recipients if each.get("person"))),
        event.outcome, event.purpose, event.case, one.log, one.index, leaf.hex(),
    )  # fmt: skip


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""

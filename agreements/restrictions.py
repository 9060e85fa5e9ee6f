"""What holds back: an owner's restrictions, the vocabulary's baseline, an agreement's own limits.

All apply by *overlap*, where grants need containment, and an unknown fact makes one apply.  Literal on purpose: this
is the text that the compiled evaluator is held against.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from agreements.agreement import Limit, Restriction
from agreements.request import Facts, Request
from agreements.vocabulary import RECORD, Baseline, Mode, Vocabulary

LONGEST_SESSION: Final = timedelta(minutes=60)


def session_live(request: Request, at: datetime) -> bool:
    """Whether an emergency session runs: from its start, inclusive, to sixty minutes after, exclusive."""
    session = request.break_glass
    return session is not None and session.started <= at < session.started + LONGEST_SESSION


def limit_applies(limit: Limit, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime) -> bool:
    """Whether a limit of an agreement holds back here; what it names is another question."""
    return (
        _tag_applies(limit.tag, facts)
        and _purposes_overlap(limit.purposes, vocabulary, request)
        and not (limit.lift == "break_glass" and session_live(request, at))
    )


def restriction_applies(
    restriction: Restriction, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime
) -> bool:
    """Whether a restriction in force holds back a record of its owner here; an unknown record is taken for the one."""
    return (
        restriction.owner == facts.source
        and (restriction.record is None or facts.record is None or restriction.record == facts.record)
        and _tag_applies(restriction.tag, facts)
        and _purposes_overlap(restriction.purposes, vocabulary, request)
        and not (restriction.lift == "break_glass" and session_live(request, at))
    )


def baseline_applies(rule: Baseline, facts: Facts) -> bool:
    """Whether a rule that every partnership has holds back here; nothing lifts it."""
    return _tag_applies(rule.tag, facts)


def caps(holder: Limit | Restriction | Baseline, category: str) -> Mode | None:
    """The most that it lets show of a category, or None where it doesn't name it: `record` names every one."""
    return holder.at_most if category in holder.categories or RECORD in holder.categories else None


def unknown_facts(facts: Facts) -> Iterator[str]:
    """The names of the facts that are unknown."""
    for name in ("record", "relation", "case", "link"):
        if getattr(facts, name) is None:
            yield name
    yield from (f"tags.{tag}" for tag in sorted(facts.tags_unknown))
    for category in sorted(facts.held):
        for held in facts.held[category]:
            if held.recorded_on is None:
                yield f"held.{category}.recorded_on"
            if held.regime is None:
                yield f"held.{category}.regime"


def _tag_applies(tag: str | None, facts: Facts) -> bool:
    return tag is None or tag in facts.tags or tag in facts.tags_unknown


def _purposes_overlap(purposes: frozenset[str] | None, vocabulary: Vocabulary, request: Request) -> bool:
    if purposes is None:
        return True
    asked = vocabulary.down(request.purpose)
    return any(vocabulary.down(purpose) & asked for purpose in purposes)

"""Decisions by Cedar, from the exported policies alone: what `decide` is held against.

Schema always, for Cedar skips a policy that errs, a forbid too: any error among the diagnostics fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import cedarpy

from agreements import VOCABULARY, Facts, Held, Mode, Request
from agreements.export.cedar import Cedar, cedar, windows
from tests.agreements.worlds import World

_CASEWORK = (Mode.EXISTENCE, Mode.STATUS, Mode.SUMMARY, Mode.DETAIL)


class CedarErred(AssertionError):
    """A policy that doesn't validate, a request that doesn't fit the schema, a policy that erred."""


class Authoriser:
    """The policies of a snapshot, parsed once."""

    def __init__(self, exported: Cedar, *, validate: bool = True) -> None:
        self.schema = cedarpy.Schema.from_str(exported.schema)
        if validate:
            found = cedarpy.validate_policies(exported.policies, self.schema)
            if not found.validation_passed:
                raise CedarErred("; ".join(str(error) for error in found.errors))
        self.policies = cedarpy.PolicySet.from_str(exported.policies)
        self.entities = cedarpy.Entities.from_json_str(exported.entities, self.schema)
        self.asked = 0

    def allows(self, questions: list[dict[str, Any]]) -> list[bool]:
        """One answer a question.  Raises CedarErred."""
        self.asked += len(questions)
        answers = cedarpy.is_authorized_batch(questions, self.policies, self.entities, self.schema)
        for answer in answers:
            if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
                raise CedarErred(str(answer.diagnostics.errors))
        return [answer.allowed for answer in answers]


def modes(w: World, authoriser: Authoriser | None = None) -> dict[str, Mode]:
    """The highest mode that Cedar allows of each category asked for, on any item held."""
    by_cedar = authoriser or Authoriser(cedar(w.snapshot, VOCABULARY))
    since = {window: _first_day(window, w.at) for window in windows(w.snapshot)}
    asked: list[tuple[str, Mode]] = []
    questions: list[dict[str, Any]] = []
    for category, most in w.request.asked.items():
        steps = [Mode.AGGREGATE] if most is Mode.AGGREGATE else [mode for mode in _CASEWORK if mode <= most]
        for item in _items(w.facts, category):
            context = question(w.request, w.facts, w.at, item, since)
            for mode in steps:
                asked.append((category, mode))
                questions.append(
                    {
                        "principal": {"type": "Agency", "id": w.request.organisation},
                        "action": {"type": "Action", "id": mode.word},
                        "resource": {"type": "Category", "id": category},
                        "context": context,
                    }
                )
    found = dict.fromkeys(w.request.asked, Mode.NONE)
    for (category, mode), allowed in zip(asked, by_cedar.allows(questions), strict=True):
        if allowed:
            found[category] = max(found[category], mode)
    return found


def _items(facts: Facts, category: str) -> Iterator[Held | None]:
    """The items that a category stands on; the bare record stands on any, or on nothing."""
    if category != "record":
        yield from facts.held.get(category, ())
        return
    every = [item for items in facts.held.values() for item in items]
    yield from every or [None]


def question(
    request: Request, facts: Facts, at: datetime, item: Held | None, since: Mapping[str, date]
) -> dict[str, Any]:
    """The context: what is asked, what is known, and nothing for what isn't."""
    context: dict[str, Any] = {
        "role": _entity("Role", request.role),
        "purpose": _entity("Purpose", request.purpose),
        "basis": _entity("Article6", request.basis.art6),
        "conditions": [_entity("Condition", one) for one in sorted(request.basis.conditions)],
        "gateways": [_entity("Gateway", one) for one in sorted(request.basis.gateways)],
        "at": _instant(at),
        "source": _entity("Agency", facts.source),
        "tags": [_entity("Tag", one) for one in sorted(facts.tags)],
        "tags_unknown": [_entity("Tag", one) for one in sorted(facts.tags_unknown)],
        "since": {window: _day(first) for window, first in since.items()},
    }
    if request.case is not None:
        context["case"] = request.case
    if request.threshold is not None:
        context["threshold"] = int(request.threshold.level.removeprefix("L"))
    if request.break_glass is not None:
        context["session"] = _instant(request.break_glass.started)
    if facts.record is not None:
        context["record"] = facts.record
    if facts.relation is not None:
        context["relation"] = _entity("Relation", facts.relation)
    if facts.case is not None:
        context["subject_case"] = facts.case
    if facts.link is not None:
        context["link"] = int(facts.link)
    if item is not None:
        context["item"] = {}
        if item.recorded_on is not None:
            context["item"]["recorded_on"] = _day(item.recorded_on)
        if item.regime is not None:
            context["item"]["regime"] = item.regime
    return context


def _first_day(window: str, at: datetime) -> date:
    """Counted back by itself, not by `Duration.before`: a day that isn't there gives way to the month's last."""
    today = at.astimezone(ZoneInfo("Europe/London")).date()
    number, unit = int(window[1:-1]), window[-1]
    if unit == "D":
        return date.fromordinal(today.toordinal() - number)
    year, month = today.year, today.month
    for _ in range(number * (12 if unit == "Y" else 1)):
        year, month = (year - 1, 12) if month == 1 else (year, month - 1)
    following = date(year + month // 12, month % 12 + 1, 1)
    return date(year, month, min(today.day, date.fromordinal(following.toordinal() - 1).day))


def _entity(kind: str, name: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": name}}


def _instant(at: datetime) -> dict[str, Any]:
    text = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"__extn": {"fn": "datetime", "arg": text}}


def _day(day: date) -> dict[str, Any]:
    return {"__extn": {"fn": "datetime", "arg": day.isoformat()}}

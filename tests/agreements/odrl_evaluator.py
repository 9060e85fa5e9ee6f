"""A small evaluator of our ODRL profile: it reads exported JSON-LD by rdflib, and nothing else of ours.

For one question, on the items one source holds on one record, it says in which mode each category may be shown.  What
an operand means is taken from its definition in the exported vocabulary.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

import rdflib
from rdflib import Graph
from rdflib.term import Literal, Node

ODRL, SKOS = "http://www.w3.org/ns/odrl/2/", "http://www.w3.org/2004/02/skos/core#"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
OURS = "https://data-sharing-agreements.example/uk-safeguarding/"
DSA = f"{OURS}dsa#"
HOUR = timedelta(hours=1)
rdflib.NORMALIZE_LITERALS = False  # "PT60M" is read as it was written, not as "PT1H"


@dataclass(frozen=True)
class Question:
    """What is asked, and what is known; None is unknown, or not given."""

    at: datetime
    organisation: str
    role: str
    purpose: str
    basis: str
    conditions: frozenset[str]
    gateways: frozenset[str]
    case: str | None
    threshold: str | None
    session: datetime | None
    source: str
    record: str | None
    relation: str | None
    subject_case: str | None
    link: str | None
    tags: frozenset[str]  # present or unknown
    asked: Mapping[str, str]
    held: Mapping[str, tuple[tuple[date | None, str | None], ...]] = field(default_factory=dict)


Item = tuple[date | None, str | None] | None
Triple = tuple[str, str, Any]


def triples(export: Mapping[str, Any]) -> list[Triple]:
    """What an export states: subject, predicate, and what stands there as text, number, truth or instant."""
    graph = Graph().parse(data=json.dumps(export), format="json-ld")
    return [(str(subject), str(predicate), _plain(value)) for subject, predicate, value in graph]


class Evaluator:
    """The graph of some exports, by subject and predicate."""

    def __init__(self, *exports: Iterable[Triple]) -> None:
        self.about: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for subject, predicate, value in chain(*exports):
            self.about[subject][predicate].append(value)
        self.below: dict[str, frozenset[str]] = {}
        self.sets = self._of_type("Set")
        self.agreements = self._of_type("Agreement")
        self.purposes = [one for one in self.about if one.startswith(f"{OURS}purpose/")]
        self.by_digest = {self._one(one, f"{DSA}digest"): one for one in self.agreements}

    def modes(self, q: Question) -> dict[str, str]:
        """The highest mode asked on that some item reaches, or "none"."""
        found = {}
        for category, most in q.asked.items():
            steps = ["aggregate"] if most == "aggregate" else ["existence", "status", "summary", "detail"]
            steps = steps[: steps.index(most) + 1] if most != "none" else []
            items: Iterable[Item] = q.held.get(category, ())
            if category == "record":
                items = [item for several in q.held.values() for item in several] or [None]
            reached = [step for item in items for step in steps if self.allows(q, category, step, item)]
            found[category] = max(reached, key=steps.index, default="none")
        return found

    def allows(self, q: Question, category: str, mode: str, item: Item) -> bool:
        """Whether some permission holds, no prohibition does, and purpose and link let so much be shown."""
        action, target = f"{OURS}action/{mode}", f"{OURS}category/{category}"
        link = self.about[f"{OURS}link/{q.link}"][f"{DSA}shows"] if q.link else []
        if action not in link or not self._purpose_shows(q.purpose, target, action):
            return False
        if any(self._prohibits(q, one, one, action, target) for one in self.sets if self._set_stands(q, one)):
            return False
        return any(self._permits(q, agreement, action, target, item) for agreement in self.agreements)

    def _permits(self, q: Question, agreement: str, action: str, target: str, item: Item) -> bool:
        above = self.by_digest.get(self._one(agreement, f"{DSA}inheritsDigest"))
        return (
            self._live(q, agreement)
            and not any(self._prohibits(q, one, agreement, action, target) for one in (agreement, above) if one)
            and any(
                f"{OURS}party/{q.source}" in self.about[rule][f"{ODRL}assigner"]
                and f"{OURS}party/{q.organisation}" in self.about[rule][f"{ODRL}assignee"]
                and self._covers(rule, action, target)
                and self._discloses(agreement, q.source, target)
                and all(
                    self._holds(q, one, agreement, action, target, item)
                    for one in self.about[rule][f"{ODRL}constraint"]
                )
                for rule in self.about[agreement][f"{ODRL}permission"]
            )
        )

    def _prohibits(self, q: Question, policy: str, agreement: str, action: str, target: str) -> bool:
        return any(
            all(assigner == f"{OURS}party/{q.source}" for assigner in self.about[rule][f"{ODRL}assigner"])
            and self._covers(rule, action, target)
            and all(
                self._holds(q, one, agreement, action, target, None) for one in self.about[rule][f"{ODRL}constraint"]
            )
            for rule in self.about[policy][f"{ODRL}prohibition"]
        )

    def _covers(self, rule: str, action: str, target: str) -> bool:
        wider = {target, *(part for part in self.about[target][f"{ODRL}partOf"] if part == f"{OURS}category/any")}
        return bool(wider.intersection(self.about[rule][f"{ODRL}target"])) and any(
            action == covered or covered in self.about[action][f"{ODRL}includedIn"]
            for covered in self.about[rule][f"{ODRL}action"]
        )

    def _holds(self, q: Question, node: str, agreement: str, action: str, target: str, item: Item) -> bool:
        if several := self.about[node][f"{ODRL}or"]:
            return any(self._holds(q, one, agreement, action, target, item) for one in several)
        left, operator = self._one(node, f"{ODRL}leftOperand"), self._one(node, f"{ODRL}operator").removeprefix(ODRL)
        right = self.about[node][f"{ODRL}rightOperand"]
        name = left.removeprefix(DSA).removeprefix(ODRL)
        if name == "dateTime":
            return q.at >= right[0] if operator == "gteq" else q.at < right[0]
        if name == "purpose":
            return any(f"{OURS}purpose/{q.purpose}" in self._down(one) for one in right)
        if name == "purposeOverlap":
            met = bool(
                set(right)
                & {one for one in self.purposes if self._down(one) & self._down(f"{OURS}purpose/{q.purpose}")}
            )
            return not met if operator == "isNoneOf" else met
        if name == "basis":
            closed = self.about[f"{OURS}basis/{q.basis}"][f"{DSA}closedToPublicAuthorities"]
            public = self._one(self._party(agreement, q.organisation), f"{DSA}publicAuthority")
            return f"{OURS}basis/{q.basis}" in right and not (closed and public)
        if name == "condition" and action not in self.about[target][f"{DSA}needsConditionAt"]:
            return True
        if name == "gateway":
            return any(
                f"{OURS}gateway/{one}" in right and self._counts(q, f"{OURS}gateway/{one}") for one in q.gateways
            )
        if name in ("role", "relation", "condition", "tag"):
            several = {
                "role": [q.role],
                "relation": [q.relation],
                "condition": q.conditions,
                "tag": q.tags,
            }
            return any(f"{OURS}{name}/{one}" in right for one in several[name])
        if name == "case":
            return q.case is not None and q.case == q.subject_case
        if name in ("threshold", "link"):
            given = q.threshold if name == "threshold" else q.link
            return given is not None and self._height(f"{OURS}{name}/{given}") >= self._height(right[0])
        if name == "window":
            return item is not None and item[0] is not None and item[0] >= _back(str(right[0]), q.at)
        if name == "regime":
            statutes = [one for one in right if one.startswith(f"{OURS}gateway/")]
            return item is None or item[1] == "GENERAL" or any(self._counts(q, one) for one in statutes)
        if name == "breakGlass":
            return _session(q, timedelta(minutes=int(str(right[0])[2:-1])))
        if name == "lifted":
            return _session(q, HOUR) is right[0]
        if name == "recordRef":
            return q.record is None or q.record == right[0]
        raise LookupError(f"an operand that nobody has defined: {left}")

    def _counts(self, q: Question, statute: str) -> bool:
        """Whether a statute is in force."""
        begins = self._one(statute, f"{DSA}inForceFrom")
        return not self._one(statute, f"{DSA}notInForce") and (begins is None or q.at >= begins)

    def _live(self, q: Question, agreement: str) -> bool:
        """Both have signed and not left, the source has not paused, its days run, and its umbrella is live too."""
        parties = [self._party(agreement, one) for one in (q.source, q.organisation)]
        overdue = self._one(agreement, f"{DSA}reviewOverdueFrom")
        if (
            not all(one and self._signed(one, q.at) for one in parties)
            or not self._one(agreement, f"{DSA}from") <= q.at < self._one(agreement, f"{DSA}until")
            or (overdue and q.at >= overdue and self._one(agreement, f"{DSA}ifReviewOverdue") == "suspend")
        ):
            return False
        turns = [one for one in self._events(parties[0], q.at) if one[1] in ("suspend", "resume")]
        if turns and turns[-1][1] == "suspend":
            return False
        digest = self._one(agreement, f"{DSA}inheritsDigest")
        return digest is None or (digest in self.by_digest and self._live(q, self.by_digest[digest]))

    def _set_stands(self, q: Question, one: str) -> bool:
        return one == f"{DSA}baseline" or self._signed(one, q.at)

    def _signed(self, node: str, at: datetime) -> bool:
        signed = self._one(node, f"{DSA}signedAt")
        left = [does for _, does in self._events(node, at) if does in ("withdraw", "supersede")]
        return signed is not None and signed <= at and not left

    def _events(self, node: str, at: datetime) -> list[tuple[int, str]]:
        events = [one for one in self.about[node][f"{DSA}event"] if self._one(one, f"{DSA}at") <= at]
        return sorted((self._one(one, f"{DSA}number"), self._one(one, f"{DSA}does")) for one in events)

    def _discloses(self, agreement: str, source: str, target: str) -> bool:
        sector = self._one(target, f"{DSA}sector")
        return sector is None or sector in self.about[self._party(agreement, source)][f"{DSA}discloses"]

    def _party(self, agreement: str, party: str) -> str:
        parties = self.about[agreement][f"{DSA}party"]
        return next((one for one in parties if self._one(one, f"{DSA}is") == f"{OURS}party/{party}"), "")

    def _purpose_shows(self, purpose: str, target: str, action: str) -> bool:
        """A group shows what each of its members does; the bare hit goes wherever any category may."""
        if target == f"{OURS}category/record":
            every = [one for one in self.about if self.about[one].get(f"{DSA}sector")]
            anything = {f"{OURS}action/existence", f"{OURS}action/aggregate"}
            return action == f"{OURS}action/existence" and any(
                self._purpose_shows(purpose, one, step) for one in every for step in anything
            )
        members = [one for one in self._down(f"{OURS}purpose/{purpose}") if not self._one(one, f"{DSA}group")]
        return all(
            action in self.about[one][f"{DSA}shows"]
            and any(
                self._one(ceiling, f"{DSA}column") == self._one(one, f"{DSA}column")
                and action in self.about[ceiling][f"{DSA}shows"]
                for ceiling in self.about[target][f"{DSA}ceiling"]
            )
            for one in members
        )

    def _down(self, purpose: str) -> frozenset[str]:
        if purpose not in self.below:
            narrower = [one for one in self.purposes if purpose in self.about[one][f"{SKOS}broader"]]
            self.below[purpose] = frozenset({purpose}).union(*map(self._down, narrower))
        return self.below[purpose]

    def _height(self, node: str) -> int:
        return int(self._one(node, f"{DSA}height"))

    def _of_type(self, kind: str) -> list[str]:
        return sorted(one for one in self.about if f"{ODRL}{kind}" in self.about[one].get(f"{RDF}type", ()))

    def _one(self, node: str, predicate: str) -> Any:
        return next(iter(self.about[node][predicate]), None) if node in self.about else None


def _session(q: Question, length: timedelta) -> bool:
    return q.session is not None and q.session <= q.at < q.session + min(length, HOUR)


def _back(duration: str, at: datetime) -> date:
    """The first day of a window that ends today in London; a day that isn't there gives way to the month's last."""
    today = at.astimezone(ZoneInfo("Europe/London")).date()
    number, unit = int(duration[1:-1]), duration[-1]
    if unit == "D":
        return today - timedelta(days=number)
    months = today.year * 12 + today.month - 1 - number * (12 if unit == "Y" else 1)
    first = date(months // 12, months % 12 + 1, 1)
    last = (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    return first.replace(day=min(today.day, last.day))


def _plain(value: Node) -> Any:
    """An IRI as text; a date, number or truth as Python's; a duration as it is written."""
    if not isinstance(value, Literal):
        return str(value)
    return str(value) if re.match(r"^P", str(value)) else value.toPython()

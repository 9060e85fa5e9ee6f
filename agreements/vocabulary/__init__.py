"""The closed, versioned lists that agreements, requests and decisions are written in.

The lists are TOML beside this file; codes never change their meaning within a version, labels may.  `digest` is the
SHA-256 of the RFC 8785 form of all of them: agreements are signed over it.  Sources: `categories.toml` and the others
name theirs, entry by entry.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, Literal

from agreements.canonical import jcs

RECORD: Final = "record"
"""Not a category: "every category of the record" in a limit, the bare hit "holds a record" in a grant of existence."""


FROM_COMMENCEMENT: Final = "from_commencement"
"""The flag of a statute that is enacted, and counts only from the day of its commencement, `commences`."""


class Mode(IntEnum):
    """How much of a category is shown.  `AGGREGATE` is on its own axis: only the purposes of statistics ask for it."""

    NONE = 0
    EXISTENCE = 1
    STATUS = 2
    SUMMARY = 3
    DETAIL = 4
    AGGREGATE = 5

    @property
    def word(self) -> str:
        """As written in documents and answers: "existence"."""
        return self.name.lower()

    @classmethod
    def parse(cls, word: str) -> Mode:
        """The mode of a word.  Raises ValueError, which lists the words."""
        try:
            return _MODES[word]
        except KeyError:
            raise ValueError(f"a mode is one of {', '.join(_MODES)}") from None


_MODES: Final = {mode.word: mode for mode in Mode}
CASEWORK: Final = (Mode.EXISTENCE, Mode.STATUS, Mode.SUMMARY, Mode.DETAIL)

Flag = Literal["no", "always", "summary"]  # "summary": only from summary up (the `+` of domain.md's table)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRule:
    """How one code or band follows from a category's items; `render` knows the rules by name."""

    rule: str
    labels: Mapping[str, str]
    systems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One kind of information, the smallest thing an agreement can grant."""

    name: str
    alias: str
    label: str
    tier: int
    sector: str
    special: Flag
    criminal: Flag
    place: bool
    never_ingest: bool
    ceilings: Mapping[str, Mode]  # by column of the table: MASH, S47, CIN, EH, PLAN
    codes: Mapping[str, Mapping[str, str]]  # code system -> code -> label
    denied: Mapping[str, tuple[str, ...]]  # code system -> codes that betray this sealed category; empty: all of it
    number: str | None  # what the number counts; None: the category has no number
    outcomes: Mapping[str, str]
    outcome_pattern: str | None  # a code of an open list, such as an ODS code
    outcome_system: str | None  # the code system of the outcomes, where `denied` names it
    role_required: bool
    status: StatusRule | None
    shows: Mapping[str, str]  # "status" and "summary" in words

    def needs_condition(self, mode: Mode) -> bool:
        """Whether showing it at `mode` needs a condition of Article 9 or Schedule 1."""
        flags = (self.special, self.criminal)
        return "always" in flags or ("summary" in flags and Mode.SUMMARY <= mode <= Mode.DETAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """Why information is asked for, or a group of such reasons, which only clauses use.

    `column` names the column of the table of ceilings; without one, the S47 column applies, capped at `at_most`.
    """

    code: str
    label: str
    group: bool
    within: tuple[str, ...]
    column: str
    at_most: Mode
    aggregate: bool
    statute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """An entry of a closed list: its code, its words, where it comes from, and what else the list says of it.

    `commences`: the London day with which a statute comes into force that is flagged `from_commencement`; None: no day
    is appointed yet.
    """

    code: str
    label: str
    source: str = ""
    flags: frozenset[str] = frozenset()
    set_by: tuple[str, ...] = ()
    commences: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A reason why something is not shown.  `hidden`: the asker reads "Nothing to show", whatever the reason."""

    code: str
    asker: str
    ig: str
    hidden: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A restriction that every partnership has: it applies where `tag` is present or unknown."""

    id: str
    text: str
    tag: str
    categories: tuple[str, ...]
    at_most: Mode


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """All closed lists of one version."""

    id: str
    digest: str
    categories: Mapping[str, Category]
    purposes: Mapping[str, Purpose]
    prohibited: Mapping[str, Term]
    roles: Mapping[str, Term]
    thresholds: Mapping[str, Term]
    relations: Mapping[str, Term]
    art6: Mapping[str, Term]
    conditions: Mapping[str, Term]
    gateways: Mapping[str, Term]
    le_authorities: Mapping[str, Term]
    duties: Mapping[str, Term]
    occasions: Mapping[str, Term]  # after which a duty is due; none in the earliest lists
    notified: Mapping[str, Term]  # whom an emergency clause tells; none in the earliest lists
    tags: Mapping[str, Term]
    emergencies: Mapping[str, Term]
    results: Mapping[str, Result]
    baseline: tuple[Baseline, ...]

    @cached_property
    def shareable(self) -> tuple[str, ...]:
        """Categories that may be granted and asked for, in the vocabulary's order: all but the sealed ones."""
        return tuple(name for name, category in self.categories.items() if not category.never_ingest)

    @cached_property
    def askable(self) -> frozenset[str]:
        """What a request may name: the shareable categories and the bare `record`."""
        return frozenset({RECORD, *self.shareable})

    @cached_property
    def holdable(self) -> frozenset[str]:
        """What a record may be said to hold: the categories, and the bare `record`, which says nothing more."""
        return frozenset({RECORD, *self.categories})

    @cached_property
    def _narrower(self) -> Mapping[str, frozenset[str]]:
        children: dict[str, set[str]] = {code: set() for code in self.purposes}
        for purpose in self.purposes.values():
            for parent in purpose.within:
                children[parent].add(purpose.code)

        def below(code: str) -> frozenset[str]:
            return frozenset({code}).union(*(below(child) for child in children[code]))

        return MappingProxyType({code: below(code) for code in self.purposes})

    def without_items(self, roles: Iterable[str]) -> list[str]:
        """Those of some roles that casework shows nothing: theirs are counts, identities, the log or the machine."""
        return sorted(role for role in roles if self.roles[role].flags & {"no_items", "aggregate_only"})

    def hit_needs_condition(self, sectors: Iterable[str]) -> bool:
        """Whether that a source with these sectors holds a record, bare, needs a condition of Article 9 or Schedule 1:
        so it does where a category of theirs does already at existence, since the record may be of nothing else."""
        owned = set(sectors)
        several = (self.categories[name] for name in self.shareable)
        return any(one.sector in owned and one.needs_condition(Mode.EXISTENCE) for one in several)

    @cached_property
    def _enacted(self) -> frozenset[str]:
        """The gateways that count only from their commencement."""
        return frozenset(code for code, term in self.gateways.items() if FROM_COMMENCEMENT in term.flags)

    @cached_property
    def commencements(self) -> tuple[date, ...]:
        """The London days with which a gateway comes into force, in order."""
        days = (self.gateways[code].commences for code in self._enacted)
        return tuple(sorted({day for day in days if day is not None}))

    def in_force(self, gateways: frozenset[str], day: date) -> frozenset[str]:
        """Those of some gateways that are in force on a London day."""
        if gateways.isdisjoint(self._enacted):
            return gateways
        return frozenset(code for code in gateways if (since := self.in_force_from(code)) is not None and since <= day)

    def in_force_from(self, gateway: str) -> date | None:
        """The first London day on which a gateway counts: `date.min` for one that always has; None: no day is known."""
        return self.gateways[gateway].commences if gateway in self._enacted else date.min

    def down(self, purpose: str) -> frozenset[str]:
        """A purpose and all that are narrower."""
        return self._narrower[purpose]

    @cached_property
    def _ceilings(self) -> Mapping[tuple[str, str], Mode]:
        ceilings = {}
        for code in self.purposes:
            members = [self.purposes[member] for member in self.down(code) if not self.purposes[member].group]
            for category in self.categories.values():
                ceilings[code, category.name] = min(self._own_ceiling(member, category) for member in members)
        return MappingProxyType(ceilings)

    def _own_ceiling(self, purpose: Purpose, category: Category) -> Mode:
        ceiling = category.ceilings.get(purpose.column, Mode.NONE)
        return ceiling if purpose.aggregate else min(ceiling, purpose.at_most)

    def ceiling(self, purpose: str, category: str) -> Mode:
        """The most that may be shown of a category for a purpose; a group's is the lowest of its members'.

        The bare hit, `record`, may be shown wherever any category may be.
        """
        if category == RECORD:
            return Mode.EXISTENCE if any(self._ceilings[purpose, name] for name in self.shareable) else Mode.NONE
        return self._ceilings[purpose, category]

    def everything(self, purpose: str) -> Mapping[str, Mode]:
        """What to ask for to see all that a purpose could ever show: each category at the purpose's ceiling."""
        ceilings = {name: self.ceiling(purpose, name) for name in (*self.shareable, RECORD)}
        aggregate = self.purposes[purpose].aggregate
        return {name: cap for name, cap in ceilings.items() if cap and (cap is Mode.AGGREGATE) is aggregate}


def shipped() -> dict[str, Any]:
    """The lists shipped with this package, as one table.  Raises ValueError if one stands in two files."""
    folder = resources.files(__package__)
    lists: dict[str, Any] = {}
    for name in ("categories", "purposes", "people", "law", "results"):
        part = tomllib.loads(folder.joinpath(f"{name}.toml").read_text(encoding="utf-8"), parse_float=_no_floats)
        if repeated := lists.keys() & part.keys():
            raise ValueError(f"vocabulary: {sorted(repeated)} stands in two files")
        lists |= part
    return lists


def of_lists(lists: Mapping[str, Any]) -> Vocabulary:
    """The vocabulary of a table of lists: of those shipped, or of an earlier version that a bundle carries.

    Raises ValueError if one contradicts another.
    """
    vocabulary = Vocabulary(
        id=lists["id"],
        digest=hashlib.sha256(jcs(lists)).hexdigest(),
        categories=_keyed(_category(name, body) for name, body in lists["categories"].items()),
        purposes=_keyed(_purpose(code, body) for code, body in lists["purposes"].items()),
        prohibited=_terms(lists["prohibited"]),
        roles=_terms(lists["roles"]),
        thresholds=_terms(lists["thresholds"]),
        relations=_terms(lists["relations"]),
        art6=_terms(lists["art6"]),
        conditions=_terms(lists["conditions"]),
        gateways=_terms(lists["gateways"]),
        le_authorities=_terms({code: lists["gateways"][code] for code in lists["le_authorities"]["codes"]}),
        duties=_terms(lists["duties"]),
        occasions=_terms(lists.get("occasions", {})),
        notified=_terms(lists.get("notified", {})),
        tags=_terms(lists["tags"]),
        emergencies=_terms(lists["emergencies"]),
        results=_keyed(
            Result(code=code, asker=body["asker"], ig=body["ig"], hidden=body.get("hidden", False))
            for code, body in lists["results"].items()
        ),
        baseline=tuple(
            Baseline(
                id=body["id"],
                text=body["text"],
                tag=body["tag"],
                categories=_baseline_categories(body["categories"], lists["categories"]),
                at_most=Mode.parse(body["at_most"]),
            )
            for body in lists["baseline"]
        ),
    )
    _coherent(vocabulary)
    return vocabulary


def codes_for_agencies(vocabulary: Vocabulary | None = None) -> dict[str, Any]:
    """What an encoder may send: per category its code lists, or that it is never sent.

    `{"version", "categories": {name: {"never_ingest", "codes": {system: [code]} | null, "number": bool,
    "outcomes": [code] | null, "outcome_pattern": str | null, "outcome_system": str | null, "role_required": bool}},
    "denied": {system: [code]}}`.  What `denied` lists is refused in any category, a system with an empty list whole;
    an outcome code is looked up there under its `outcome_system`.
    """
    lists = vocabulary or VOCABULARY
    categories = {}
    denied: dict[str, list[str]] = {}
    for name, category in lists.categories.items():
        categories[name] = {
            "never_ingest": category.never_ingest,
            "codes": {system: list(codes) for system, codes in category.codes.items()} or None,
            "number": category.number is not None,
            "outcomes": list(category.outcomes) or None,
            "outcome_pattern": category.outcome_pattern,
            "outcome_system": category.outcome_system,
            "role_required": category.role_required,
        }
        for system, codes in category.denied.items():
            denied.setdefault(system, []).extend(codes)
    return {"version": lists.id, "categories": categories, "denied": denied}


def _keyed(entries: Iterable[Any]) -> Mapping[str, Any]:
    keyed = {getattr(entry, "name", None) or entry.code: entry for entry in entries}
    return MappingProxyType(keyed)


_FLAGS: Final = frozenset({
    "aggregate_only", "break_glass", "broker", "gateway", "never_default", "no_items", "not_public", "protective",
    "timed", FROM_COMMENCEMENT, "commencement_dated",  # the last in lists of before, where nobody read it
})  # fmt: skip


def _flags(code: str, entry: Mapping[str, Any]) -> frozenset[str]:
    """A term's flags.  Raises ValueError for one that nobody reads: what it was to hold back would go through."""
    flags = frozenset(entry.get("flags", ()))
    if unknown := flags - _FLAGS:
        raise ValueError(f"vocabulary: {code}: unknown flag {sorted(unknown)[0]}")
    return flags


def _terms(body: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Term]:
    return _keyed(
        Term(
            code=code,
            label=entry["label"],
            source=entry.get("source", ""),
            flags=_flags(code, entry),
            set_by=tuple(entry.get("set_by", ())),
            commences=_commencement(code, entry) if "commences" in entry else None,
        )
        for code, entry in body.items()
    )


def _commencement(code: str, entry: Mapping[str, Any]) -> date:
    """The day of a statute's commencement.  Raises ValueError, also where the flag is missing that it counts."""
    if FROM_COMMENCEMENT not in entry.get("flags", ()):
        raise ValueError(f"vocabulary: {code}: a commencement, without the flag that it counts")
    day = entry["commences"]
    if not isinstance(day, str) or not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
        raise ValueError(f"vocabulary: {code}: commences is a day in quotes, as 2027-04-01")
    return date.fromisoformat(day)


def _category(name: str, body: Mapping[str, Any]) -> Category:
    status = body.get("status")
    return Category(
        name=name,
        alias=body["alias"],
        label=body["label"],
        tier=body["tier"],
        sector=name.partition(".")[0],
        special=body.get("special", "no"),
        criminal=body.get("criminal", "no"),
        place=body.get("place", False),
        never_ingest=body["tier"] == 4,
        ceilings=MappingProxyType({column: _letter(letter) for column, letter in body["ceilings"].items()}),
        codes=MappingProxyType({system: MappingProxyType(codes) for system, codes in body.get("codes", {}).items()}),
        denied=MappingProxyType({system: tuple(codes) for system, codes in body.get("denied", {}).items()}),
        number=body.get("number"),
        outcomes=MappingProxyType(body.get("outcomes", {})),
        outcome_pattern=body.get("outcome_pattern"),
        outcome_system=body.get("outcome_system"),
        role_required=body.get("role_required", False),
        status=status
        and StatusRule(
            rule=status["rule"], labels=MappingProxyType(status["labels"]), systems=tuple(status.get("systems", ()))
        ),
        shows=MappingProxyType(body.get("shows", {})),
    )


_LETTERS: Final = {
    "-": Mode.NONE,
    "X": Mode.EXISTENCE,
    "T": Mode.STATUS,
    "S": Mode.SUMMARY,
    "D": Mode.DETAIL,
    "A": Mode.AGGREGATE,
}


def _letter(letter: str) -> Mode:
    return _LETTERS[letter]


def _purpose(code: str, body: Mapping[str, Any]) -> Purpose:
    return Purpose(
        code=code,
        label=body["label"],
        group=body.get("group", False),
        within=tuple(body.get("within", ())),
        column=body.get("column", "S47"),
        at_most=Mode.parse(body.get("at_most", "detail")),
        aggregate=body.get("aggregate", False),
        statute=body.get("statute", ""),
    )


def _baseline_categories(names: list[str], categories: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """`place` stands for every category flagged so."""
    return tuple(
        category
        for name in names
        for category in ([c for c, body in categories.items() if body.get("place")] if name == "place" else [name])
    )


def _always_counts(term: Term) -> None:
    if FROM_COMMENCEMENT in term.flags:
        raise ValueError(f"vocabulary: {term.code}: only a gateway counts from its commencement")


def _coherent(lists: Vocabulary) -> None:
    """Raise ValueError where one list names a term that another doesn't hold."""
    for purpose in lists.purposes.values():
        for parent in purpose.within:
            if not lists.purposes[parent].group:
                raise ValueError(f"vocabulary: purposes.{purpose.code}: {parent} is no group")
    for category in lists.categories.values():
        if category.never_ingest and (category.codes or any(category.ceilings.values())):
            raise ValueError(f"vocabulary: categories.{category.name}: a sealed category has no codes and no ceilings")
        if not category.never_ingest and category.status is None:
            raise ValueError(f"vocabulary: categories.{category.name}: it says no status")
        if category.outcome_pattern is not None:
            re.compile(category.outcome_pattern)
    for term in (*lists.art6.values(), *lists.conditions.values(), *lists.duties.values()):
        _always_counts(term)
    for rule in lists.baseline:
        if rule.tag not in lists.tags:
            raise ValueError(f"vocabulary: baseline.{rule.id}: unknown tag {rule.tag}")
    for level in lists.thresholds.values():
        if unknown := set(level.set_by) - lists.roles.keys():
            raise ValueError(f"vocabulary: thresholds.{level.code}: unknown role {sorted(unknown)[0]}")


def _no_floats(_: str) -> int:
    raise ValueError("vocabulary: a number that is not whole")


VOCABULARY: Final = of_lists(shipped())
"""The lists shipped with this package, read once."""

"""Who can see what of whom, for which purpose, under which clause, and what that takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

from agreements.agreement import Period
from agreements.analysis.boxes import EVER, Axis, Box, Cut, Estate, Space, ones, without
from agreements.analysis.wording import Entry, Said, purposes_in_words, said
from agreements.document.parsing import nearest
from agreements.snapshot import Snapshot
from agreements.vocabulary import Vocabulary
from agreements.words import listed

COLUMNS: Final = (
    "organisation", "role", "source", "purpose", "category", "mode", "clause", "needs", "unless", "from", "until",
)  # fmt: skip


Asked = Literal["org", "source", "role", "purpose", "category"]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name or a term that was asked for and is none; `near` is what was most likely meant."""

    asked: Asked
    term: str
    near: str | None
    known: tuple[str, ...]

    @property
    def words(self) -> str:
        """What is wrong, and what to write."""
        of = (
            "no party to any agreement here"
            if self.asked in ("org", "source")
            else f"no {self.asked} of the vocabulary"
        )
        meant = f"{self.near}, if that is meant; else " if self.near else ""
        every = f"write {meant}one of {', '.join(self.known)}" if self.known else "there is none"
        return f"{self.term!r} is {of}; {every}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What to look for; nothing given means any.  A purpose stands for all that is narrower."""

    organisation: str | None = None
    role: str | None = None
    source: str | None = None
    purpose: str | None = None
    category: str | None = None

    def unknown(self, vocabulary: Vocabulary, parties: Iterable[str]) -> Unknown | None:
        """The first name that nobody here has and the first term of no list, if any: nothing would be found, and look
        like a no.  `parties`: of every agreement that is looked at, in force or not."""
        known: tuple[tuple[Asked, str | None, Iterable[str]], ...] = (
            ("org", self.organisation, parties),
            ("source", self.source, parties),
            ("role", self.role, vocabulary.roles),
            ("purpose", self.purpose, vocabulary.purposes),
            ("category", self.category, vocabulary.askable),
        )
        for asked, term, terms in known:
            several = sorted(terms)
            if term is not None and term not in several:
                return Unknown(asked, term, nearest(term, several), tuple(several))
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one clause lets be seen: `said` holds lists that go together, `unless` what may hold it back, by its tag or
    by a restriction on one record."""

    clause: str
    text: str
    said: Said
    unless: tuple[str, ...]


def who_can_see(
    snapshot: Snapshot, vocabulary: Vocabulary, wanted: Filter | None = None, *, at: datetime | None = None
) -> tuple[Sight, ...]:
    """What every clause lets be seen at an instant, or without one at any time, by clause.

    Ceilings that always hold (purpose, link, limits and restrictions without a tag or a record) are taken off; those
    that hang on a tag or a record are said under `unless`.
    """
    looked_for = wanted or Filter()
    space = Space.of(vocabulary, snapshot)
    estate = Estate(space, snapshot)
    found: dict[tuple[str, str, tuple[str, ...]], list[Entry]] = {}
    for pair in estate.pairs:
        if looked_for.source not in (None, pair[0]) or looked_for.organisation not in (None, pair[1]):
            continue
        only = _only(space, pair[0], looked_for)
        for clause in estate.given(pair):
            cuts = (*clause.cuts, *estate.cuts(pair[0]))
            always = [cut.box for cut in cuts if unconditional(space, pair[0], cut)]
            for box in clause.boxes:
                if at is not None and not box.start <= at < box.end:
                    continue
                for piece in without((one for one in [box.meet(only)] if one is not None), always):
                    unless = tuple(
                        f"{cut.name}: {cut.text}" for cut in cuts if cut.box not in always and piece.meet(cut.box)
                    )
                    key = (str(clause.ref), clause.grant.text, unless)
                    found.setdefault(key, []).append((pair, piece, str(clause.ref), ()))
    return tuple(
        Sight(clause=clause, text=text, said=_leaves(vocabulary, one), unless=unless)
        for (clause, text, unless), entries in sorted(found.items())
        for one in said(space, entries)
        if _leaves(vocabulary, one).purposes
    )


def unconditional(space: Space, source: str, cut: Cut) -> bool:
    """Whether a ceiling holds whatever the record and its tags."""
    whole = space.whole(source)
    return all(cut.box.axes[axis] == whole[axis] for axis in (Axis.TAGS, Axis.RECORDS))


def rows(sights: Iterable[Sight]) -> Iterator[dict[str, str]]:
    """A row for every recipient, role, source, purpose and category, as COLUMNS."""
    for sight in sights:
        one = sight.said
        for organisation in one.organisations:
            for role in one.roles:
                for source in one.sources:
                    for purpose in one.purposes:
                        for category, _, mode in one.cells:
                            yield {
                                "organisation": organisation,
                                "role": role,
                                "source": source,
                                "purpose": purpose,
                                "category": category,
                                "mode": mode.word,
                                "clause": sight.clause,
                                "needs": "; ".join(one.needs),
                                "unless": "; ".join(sight.unless),
                                "from": one.start.isoformat() if one.start != EVER.start else "",
                                "until": one.end.isoformat() if one.end != EVER.end else "",
                            }


def to_csv(sights: Iterable[Sight]) -> str:
    """The rows as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(sights))
    return text.getvalue()


def to_json(sights: Iterable[Sight]) -> list[dict[str, Any]]:
    """Each clause once, its lists together."""
    return [
        {
            "clause": sight.clause,
            "text": sight.text,
            "organisations": list(sight.said.organisations),
            "roles": list(sight.said.roles),
            "sources": list(sight.said.sources),
            "purposes": list(sight.said.purposes),
            "categories": {category: mode.word for category, _, mode in sight.said.cells},
            "needs": list(sight.said.needs),
            "unless": list(sight.unless),
            "from": sight.said.start.isoformat(),
            "until": sight.said.end.isoformat(),
        }
        for sight in sights
    ]


def in_prose(space: Space, sights: Iterable[Sight]) -> Iterator[str]:
    """A paragraph for each recipient and its roles: what it may see, of whom, for what."""
    by_recipient: dict[str, list[Sight]] = {}
    for sight in sights:
        who = f"{listed(sight.said.organisations)}, {listed(sight.said.roles, 'or')}"
        by_recipient.setdefault(who, []).append(sight)
    for who, several in sorted(by_recipient.items()):
        yield f"{who} may see:"
        for sight in several:
            one = sight.said
            shown = "; ".join(f"{listed(names)} at {high.word}" for _, high, names in one.modes())
            yield f"  of {listed(one.sources)}, for {purposes_in_words(space, one.purposes)}: {shown}"
            yield f"    under {sight.clause}, {one.span}" + (f": {'; '.join(one.needs)}" if one.needs else "")
            yield from (f"    unless {reason}" for reason in sight.unless)


def _only(space: Space, source: str, wanted: Filter) -> Box:
    axes = {}
    if wanted.role is not None:
        axes[Axis.ROLES] = 1 << space.roles.index(wanted.role)
    if wanted.purpose is not None:
        below = space.vocabulary.down(wanted.purpose)
        axes[Axis.PURPOSES] = sum(1 << index for index, code in enumerate(space.purposes) if code in below)
    if wanted.category is not None:
        cells = (index for index in ones(space.whole(source)[Axis.CELLS]))
        axes[Axis.CELLS] = sum(1 << index for index in cells if next(space.cells_of(1 << index))[0] == wanted.category)
    return space.box(source, axes, Period(EVER.start, EVER.end))


def _leaves(vocabulary: Vocabulary, one: Said) -> Said:
    """A question is asked for one purpose: groups are names for several."""
    leaves = tuple(purpose for purpose in one.purposes if not vocabulary.purposes[purpose].group)
    return replace(one, purposes=leaves)

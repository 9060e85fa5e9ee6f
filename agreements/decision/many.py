"""A family's records at once: what each may show, without reasons."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from agreements.decision.cells import EVERY_MODE, HIGHEST
from agreements.decision.standing import Source, asker_of
from agreements.request import Facts, Request, aware, check_held
from agreements.snapshot import Snapshot
from agreements.vocabulary import Mode, Vocabulary


class Modes(NamedTuple):
    """How much of each category one record may show: what `decide` says, without its reasons."""

    cells: int
    shifts: Mapping[str, int]

    def mode(self, category: str) -> Mode:
        """The mode of one category; one that wasn't asked for is at none."""
        shift = self.shifts.get(category)
        return Mode.NONE if shift is None else HIGHEST[self.cells >> shift & EVERY_MODE]

    def __bool__(self) -> bool:
        """Whether it shows anything."""
        return self.cells != 0


def view(
    snapshot: Snapshot, vocabulary: Vocabulary, request: Request, records: Iterable[Facts], at: datetime
) -> tuple[Modes, ...]:
    """One request on many records at once: of each, the modes that `decide` would give.

    For finding among the records of a family, or of a search, the few that show anything.  Raises RequestRefused, for
    facts with a word that no list holds wherever they would show anything.
    """
    aware(at, "at")
    asker = asker_of(snapshot, vocabulary, request)
    terms, inside, every = asker.compiled.terms, bisect_right, asker.compiled.terms.columns
    nothing = Modes(0, terms.shifts)
    sources: dict[str, Source] = {}
    alike: dict[tuple[object, ...], tuple[Sequence[int], Sequence[int]]] = {}
    found: list[Modes] = []
    for facts in records:
        if (source := sources.get(facts.source)) is None:
            source = sources[facts.source] = asker.source(facts.source, at)
        opening = source.opening
        if not opening.clauses:
            found.append(nothing)
            continue
        key = (facts.source, facts.relation, facts.link, facts.case, facts.tags, facts.tags_unknown)
        if (allowed := alike.get(key)) is None:
            allowed = alike[key] = source.standing(facts).allowed()
        general, other = allowed
        cells = 0
        if general[-1]:
            windows, columns, held = opening.windows, opening.columns, facts.held
            for category, items in held.items():
                if category in columns:
                    column = columns[category]
                    for item in items:
                        day = item.recorded_on
                        several = 0 if day is None else inside(windows, day)
                        cells |= (general if item.regime == "GENERAL" else other)[several] & column
                elif category not in every:
                    check_held(facts, vocabulary)
            if not cells and not any(held.values()):
                cells = general[0] & terms.record
            if cells and (named := opening.named) is not None and (facts.record is None or facts.record in named):
                for holder in source.specific(facts, at):
                    cells &= holder.leaves
        found.append(Modes(cells, terms.shifts) if cells else nothing)
    return tuple(found)

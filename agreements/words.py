"""Codes in plain English: modes, spans of time, days, lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from types import MappingProxyType
from typing import Final

from agreements.agreement import Agreement, Duration, Duty, Period, london_day
from agreements.vocabulary import FROM_COMMENCEMENT, RECORD, Mode, Term, Vocabulary

SHOWS: Final[Mapping[Mode, str]] = MappingProxyType(
    {
        Mode.NONE: "nothing",
        Mode.EXISTENCE: "that something is held, the month it was last active, and whom to ring",
        Mode.STATUS: "also one code or band",
        Mode.SUMMARY: "also dated, coded items",
        Mode.DETAIL: "also an offer to ask the holder, who answers, narrows or declines",
        Mode.AGGREGATE: "counts in published statistics, never a person",
    }
)
"""What a mode shows, each beyond the one before."""

_UNITS: Final = {"Y": "year", "M": "month", "D": "day", "TM": "minute"}


def listed(names: Iterable[str], word: str = "and") -> str:
    """ "a, b and c"."""
    several = list(names)
    return f" {word} ".join((", ".join(several[:-1]), several[-1])) if len(several) > 1 else "".join(several)


def span(duration: Duration) -> str:
    """ "28 days"."""
    unit = _UNITS[duration.unit]
    return f"{duration.number} {unit}" if duration.number == 1 else f"{duration.number} {unit}s"


def day(one: date) -> str:
    """ "1 April 2026"."""
    return f"{one.day} {one:%B %Y}"


def first_day(period: Period) -> date:
    """The London day on which a period begins."""
    return london_day(period.start)


def last_day(period: Period) -> date:
    """The London day at whose end a period ends."""
    return london_day(period.end - timedelta(seconds=1))


def review_day(agreement: Agreement) -> date | None:
    """The last day on which its review is not overdue."""
    return london_day(agreement.review - timedelta(seconds=1)) if agreement.review is not None else None


def category(name: str, vocabulary: Vocabulary) -> str:
    """ "Attendance (education)"; the bare hit has words of its own."""
    if name == RECORD:
        return "The bare fact that a record is held"
    body = vocabulary.categories[name]
    return f"{body.label} ({body.sector.replace('_', ' ')})"


def shown(name: str, mode: Mode, vocabulary: Vocabulary) -> str:
    """What is shown of one category at one mode, and nothing of what comes below."""
    words = vocabulary.categories[name].shows.get(mode.word, "") if name != RECORD else ""
    return f"{mode.word}: {words}" if words else mode.word


def duty(one: Duty, vocabulary: Vocabulary) -> str:
    """A duty as whoever receives reads it."""
    words = vocabulary.duties[one.do].label
    if one.within is not None:
        after = f" {label(one.after, vocabulary.occasions)}" if one.after else ""
        return f"{words.removesuffix('.')}: within {span(one.within)}{after}."
    return words


def label(code: str, terms: Mapping[str, object]) -> str:
    """A term's own words, as in "Section 47 enquiry"; of one that an early list has not, the code."""
    return str(getattr(terms.get(code), "label", code)).removesuffix(" (group)")


def labels(codes: Iterable[str], terms: Mapping[str, object], word: str = "or") -> str:
    """Several terms, in the vocabulary's order."""
    order = list(terms)
    return listed((label(code, terms) for code in sorted(codes, key=order.index)), word)


def statute(term: Term) -> str:
    """A statute by its name, and from when it counts."""
    name = term.source.partition(";")[0]
    if FROM_COMMENCEMENT not in term.flags:
        return name
    since = f"from {day(term.commences)}" if term.commences else "once it is in force: its day is not set yet"
    return f"{name} ({since})"

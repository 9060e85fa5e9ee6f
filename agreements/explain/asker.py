"""What the asker reads: from the request and the live agreements alone, so equal with and without a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from agreements.agreement import london_day, london_midnight
from agreements.explain.near import NEAR, Miss, Nearness, reason
from agreements.explain.sieve import Sifted
from agreements.explain.words import awaited_by, terms_of, vocabulary_roles, words_for
from agreements.reference import Question
from agreements.request import Basis, Request, Threshold, aware, checked
from agreements.snapshot import Snapshot, Standing
from agreements.vocabulary import Mode, Vocabulary

NO_CLAUSE = ("CATEGORY_NOT_IN_DSA", "PURPOSE_NOT_IN_DSA")
"""What is said where no live clause is about it; one that is not live may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskerReason:
    """Why the asker can see no more from one source: equal with and without a record."""

    source: str
    category: str | None  # None: the reason holds for the whole source
    code: str
    sentence: str
    unlock: str | None  # what would unlock it


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
    aware(at, "at")
    checked(request, vocabulary)
    fill = (names.get(source, source), desks.get(source, "its safeguarding desk"))
    if request.break_glass is not None:
        return reasons(Sifted(Question(snapshot, vocabulary, request, None, source, at)), *fill)
    shape = _Shape(
        request.organisation, request.role, request.purpose, request.basis, request.threshold, request.case is not None,
        tuple(request.asked.items()),
    )  # fmt: skip
    steady = snapshot.steady(source, request.organisation, at)
    began = [begin for day in vocabulary.commencements if (begin := london_midnight(day)) <= at]
    return _of_shape(snapshot, vocabulary, shape, source, max([steady.start, *began]), *fill)


class _Shape(NamedTuple):
    """What of a request the reasons hang on: many that are asked in a day have the same."""

    organisation: str
    role: str
    purpose: str
    basis: Basis
    threshold: Threshold | None
    of_a_case: bool
    asked: tuple[tuple[str, Mode], ...]


@lru_cache(maxsize=4096)
def _of_shape(
    snapshot: Snapshot, vocabulary: Vocabulary, shape: _Shape, source: str, at: datetime, name: str, desk: str
) -> Sequence[AskerReason]:
    """The reasons from an instant on, until a standing or the law changes: found once."""
    request = Request(
        organisation=shape.organisation, role=shape.role, purpose=shape.purpose, basis=shape.basis,
        asked=dict(shape.asked), case="any" if shape.of_a_case else None, threshold=shape.threshold,
    )  # fmt: skip
    return reasons(Sifted(Question(snapshot, vocabulary, request, None, source, at)), name, desk)


def forget() -> None:
    """Forget every kind of request: the next of each is told anew."""
    _of_shape.cache_clear()


def reasons(inquiry: Nearness, name: str, desk: str) -> Sequence[AskerReason]:
    """The reasons in words: `name` is the source's, `desk` whom to ring there."""
    q, standing = inquiry.q, inquiry.standing
    fill = {"organisation": name, "desk": desk}
    if not standing.live:
        fill["date"] = _last_day(standing)
        return (_reason(q, None, standing.code or "NO_DSA", fill, None),)
    return tuple(
        told
        for category, asked in q.request.asked.items()
        if (told := _of_category(inquiry, category, asked, fill)) is not None
    )


def _of_category(inquiry: Nearness, category: str, asked: Mode, fill: Mapping[str, str]) -> AskerReason | None:
    """Why no more of one category; None where all asked could be shown, or nobody expects it of this source."""
    q = inquiry.q
    if not inquiry.listed(category) and not inquiry.owned(category):
        return None
    best = min(inquiry.covering(category), q.vocabulary.ceiling(q.request.purpose, category), asked)
    if best >= asked:
        return None
    if best:
        return _reason(q, category, "MODE_EXCEEDS", fill, _unlock(q, inquiry.nearest(category, best)))
    code, about = reason(inquiry, inquiry.nearest(category, Mode.NONE))
    if code in NO_CLAUSE and (ended := inquiry.ended(category)) is not None:
        return _reason(q, category, ended.code or code, {**fill, "date": _last_day(ended)}, None)
    terms = terms_of(q, about.grant, about.failed) if about else {}
    if about and code == "NO_BASIS" and "gateway" in about.failed:  # no choice of theirs helps before that day
        terms["awaited"] = awaited_by(q, about.grant)
    return _reason(q, category, code, {**fill, **terms}, _unlock(q, about))


def _reason(q: Question, category: str | None, code: str, fill: Mapping[str, str], unlock: str | None) -> AskerReason:
    result = q.vocabulary.results[code]
    template = result.asker
    if code == "MODE_EXCEEDS" and unlock is None:
        template = "You can see less than you asked for. To see more, ask {organisation}."
    if fill.get("awaited"):
        template = "The agreement rests on a statute that is not in force yet: {awaited}. You can ask {organisation}."
    fill = dict(fill) | {"unlock": unlock or ""}
    if code == "THRESHOLD_NOT_MET":
        setters = frozenset(role for term in q.vocabulary.thresholds.values() for role in term.set_by)
        fill |= {"role": vocabulary_roles(q.vocabulary, setters)}
    sentence = template.format_map(fill)
    return AskerReason(source=q.source, category=category, code=code, sentence=_capital(sentence), unlock=unlock)


def _unlock(q: Question, nearest: Miss | None) -> str | None:
    """What the nearest clause still wants, where that is little and in somebody's hands."""
    if nearest is None or len(nearest.failed) > NEAR:
        return None
    return " and ".join(dict.fromkeys(words_for(q, nearest.grant, test) for test in nearest.failed))


def _last_day(standing: Standing) -> str:
    """The day a sharing was paused, or the last day of an agreement that ended: "7 Mar 2026"."""
    if standing.since is None:
        return ""
    ended_at_midnight = standing.code == "DSA_EXPIRED"
    day = london_day(standing.since - timedelta(seconds=1) if ended_at_midnight else standing.since)
    return f"{day.day} {day:%b %Y}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]

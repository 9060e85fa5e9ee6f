"""Why, in plain English: one tree, two projections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agreements.agreement import GrantRef
from agreements.request import Request
from agreements.snapshot import Snapshot
from agreements.verdict import Decision
from agreements.vocabulary import Mode, Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class AskerReason:
    """Why the asker can see no more of a category from one source: equal with and without a record."""

    source: str
    category: str | None  # None: the reason holds for the whole source
    code: str
    sentence: str
    unlock: str | None  # what would unlock it, where that betrays no record


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A clause that would have shown a category, and the tests (by name) that it failed."""

    grant: GrantRef
    text: str
    mode: Mode
    failed: tuple[str, ...]
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryView:
    """One category as holder and IG see it."""

    category: str
    mode: Mode
    granted: Mode
    code: str | None
    witness: GrantRef | None
    witness_text: str | None
    held_back: tuple[str, ...]
    near: tuple[NearMiss, ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderView:
    """The whole tree: for the holder, information governance and courts, never for the asker."""

    outcome: str
    categories: Mapping[str, CategoryView]
    code: str | None  # the record's result code where it is silent
    consider_sharing: bool  # silent or refused, and the nearest clause failed on at most two tests
    shielded: bool  # a shield alone hides it: alert whoever set it instead


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
    source comes once, with `category` None; else one a category asked for that no clause could give as asked.
    """
    raise NotImplementedError


def explain_for_holder(snapshot: Snapshot, vocabulary: Vocabulary, decision: Decision) -> HolderView:
    """Every test of every clause near enough, every ceiling, true result codes."""
    raise NotImplementedError

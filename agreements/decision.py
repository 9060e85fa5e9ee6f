"""decide: the mode in which each category asked for may be shown, and under which clause."""

from __future__ import annotations

from datetime import datetime

from agreements.request import Facts, Request
from agreements.snapshot import Snapshot
from agreements.verdict import Decision
from agreements.vocabulary import Vocabulary


def decide(snapshot: Snapshot, vocabulary: Vocabulary, request: Request, facts: Facts, at: datetime) -> Decision:
    """mode = min(best single covering grant, every applicable ceiling, mode asked for).

    Grants never add up: each was signed on its own terms.  Ceilings always do, and an unknown fact makes one apply.
    Raises RequestRefused for a request that can't be decided.
    """
    raise NotImplementedError

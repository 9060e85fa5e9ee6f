"""How much one person, and one organisation, may ask: who goes through families by the dozen is stopped, and logged.

Counted in the transaction that records the answer, so no two questions at one moment pass as one.  What was refused for
it does not count: the hour ends whether somebody waits or tries again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from agreements.agreement import LONDON
from broker.callers import Caller
from broker.deciding import refused
from broker.family_view import Refusal
from broker.settings import Budgets
from broker.store import Transaction
from broker.store.searches import HOUR, used

RATE_LIMIT: Final = "RATE_LIMIT"
_MANAGER: Final = "your manager"


def exceeded(
    tx: Transaction, caller: Caller, kind: Literal["searches", "views"], budgets: Budgets, *, at: datetime
) -> tuple[Refusal, timedelta] | None:
    """Why the caller may not ask once more, and for how long; None where they may.

    Until the transaction ends, nobody else of the organisation asks.
    """
    over = []
    for one in used(tx, kind, agency=caller.organisation, person=caller.person, at=at, but=RATE_LIMIT):
        limit: int = getattr(budgets, f"{one.whose}_{kind}_{'hour' if one.within == HOUR else 'day'}")
        if one.count >= limit:
            over.append((one.first or at) + one.within)
    if not over:
        return None
    again = max(over)
    local = again.astimezone(LONDON)
    time = f"{local:%H:%M}" if local.date() == at.astimezone(LONDON).date() else f"{local:%H:%M on %-d %B}"
    return refused(RATE_LIMIT, time=time, role=_MANAGER), again - at

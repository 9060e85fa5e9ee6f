"""A level of need, recorded for one child's case by whoever may decide it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from agreements import VOCABULARY
from audit.events import Event
from broker.callers import Caller
from broker.deciding import Released, refused
from broker.disclosures import own_candidate
from broker.errors import Malformed
from broker.family_view import Refusal
from broker.keys import Keys
from broker.store import Store
from broker.store.searches import ThresholdRow
from broker.trail import Trail, new_event_id

GROUNDS: Final = frozenset({"significant_harm_suspected", "significant_harm_likely", "police_protection"})


def set_threshold(
    store: Store,
    trail: Trail,
    keys: Keys,
    caller: Caller,
    *,
    case: str,
    search: str,
    candidate: str,
    level: str,
    grounds: str,
    at: datetime,
) -> Released[Refusal | None]:
    """Record a level for the case of one's own search, or refuse: only a role that the vocabulary names may set one.

    Categories widen from this moment; earlier answers stay as they were.
    Raises NotFound for a search or candidate that isn't the caller's, Malformed for another case than the search's, an
    unknown level or ground.
    """
    term = VOCABULARY.thresholds.get(level)
    if term is None:
        raise Malformed(f"level: one of {', '.join(VOCABULARY.thresholds)} is due")
    if grounds not in GROUNDS:
        raise Malformed(f"grounds: one of {', '.join(sorted(GROUNDS))} is due")
    with store.transaction() as tx:
        found, chosen = own_candidate(tx, caller, search=search, candidate=candidate, at=at)
        if keys.case_index(case) != found.case_hmac:
            raise Malformed("case: not that of the search")
        refusal = None
        if caller.role not in term.set_by:
            role = " or ".join(VOCABULARY.roles[role].label for role in term.set_by)
            refusal = refused("THRESHOLD_UNAUTHORISED", role=role, desk="them to decide", unlock=f"the role {role}")
        entry = trail.record(
            tx,
            Event(
                id=new_event_id(),
                type="threshold.refused" if refusal else "threshold.set",
                who=caller.who(),
                what={"search": search, "level": level, "outcome": refusal.code if refusal else "set"},
                why={"purpose": found.purpose, "case": found.case_hmac, "grounds": grounds},
                subjects=[chosen.person_id],
                detail={},
            ),
            about=[chosen.person_id],
            at=at,
        )
        if refusal is None:
            tx.add(
                ThresholdRow(
                    id=new_event_id(),
                    agency=caller.organisation,
                    case_hmac=found.case_hmac,
                    person_id=chosen.person_id,
                    search=search,
                    level=level,
                    grounds=grounds,
                    set_by=caller.person,
                    role=caller.role,
                    event_id=entry.event_id,
                    at=at,
                )
            )
    return Released(refusal, trail.receipt(entry))

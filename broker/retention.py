"""How long the log keeps what it says of people: bodies expire, leaves and proofs stay.

An event about somebody is kept for some years after the last contact with them, or until they are of an age, whichever
is later; where neither is known, a plain number of years; technical events for less; and what the log needs to be read
at all, for good.  What a legal hold lies on does not expire.  Every run is an event with counts and a digest: R8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import rfc8785

from audit.events import EVENT_TYPES, OPS, Event
from broker.errors import WrongState
from broker.keys import Keys
from broker.linked import LinkedArea
from broker.settings import LogRetention
from broker.store import Reading, Store
from broker.store.erasing import (
    Body,
    Emptied,
    bodies_before,
    drop_orphan_subject_keys,
    empty_events,
    indexes_of,
    last_contacts,
    sequence_all,
)
from broker.store.erasures import held
from broker.store.roles import ERASER
from broker.trail import Trail, new_event_id
from linkage.records import latest_birth

FOR_GOOD: Final = frozenset(
    {"subject.erased", "subject.erasure_proposed", "subject.erasure_refused", "retention.run"}
    | {"subject.lifted", "subject.lift_proposed", "subject.lift_refused"}
    | {name for name in EVENT_TYPES if name.startswith(("log.", "key.", "agreement.", "legal_hold."))}
    | {"agency.enrolled", "witness.enrolled", "witness.removed", "witness.conflict"}
)
"""What proves the rest: nothing of anybody's, and kept as long as the log."""
TECHNICAL: Final = frozenset(
    {"auth.login", "auth.denied", "auth.logout", "clock.anomaly", "witness.late", "audit.degraded"}
    | {name for name in EVENT_TYPES if name.startswith("linkage.")}
)

AT_MOST: Final = 10_000  # events in one transaction, and some: writers wait for it

Born = Callable[[], Mapping[str, int]]
"""The birth year of everybody who is linked today, by the HMACs of their ids: asked for only where it is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What one run did."""

    events: int
    by_type: Mapping[str, int]
    held: int  # due, but under a legal hold
    more: bool  # more is due than one transaction takes: run again
    sha256: str  # of the ids of the events whose bodies went, sorted, as canonical JSON


def kept_years(terms: LogRetention, type_: str) -> int | None:
    """How many years an event of a type is kept, of whoever it is; None: for good."""
    if type_ in terms.by_type:
        return terms.by_type[type_]
    if type_ in FOR_GOOD:
        return None
    return terms.technical_years if type_ in TECHNICAL else terms.plain_years


def run(
    store: Store,
    trail: Trail,
    terms: LogRetention,
    born: Born,
    *,
    who: Mapping[str, str],
    at: datetime,
    dry: bool = False,
) -> Ran:
    """Empty what is due, the oldest first, in one transaction with the event that says so.

    `dry`: only say what would go.  Of very much only a part goes, and the answer says that there is `more`.

    Raises WrongState if the settings name a type of event that there is none of, LogUnavailable.
    """
    if unknown := terms.by_type.keys() - OPS.keys():
        raise WrongState(f"log_retention.by_type: there is no event {', '.join(sorted(unknown))}")
    trail.advance_pending()
    with store.reading() as reading:
        found = _Due.of(reading, terms, born, at=at)
    if dry:
        return found.ran()
    event_id = new_event_id()
    with store.transaction(ERASER) as tx:
        sequence_all(tx, trail.keys)  # keys go, so nobody may sequence meanwhile
        found = found.without_held(tx)  # a hold may have come since
        emptied = Emptied()
        if found.due:
            emptied = empty_events(tx, found.due, under=event_id, at=at)
            drop_orphan_subject_keys(tx)
        ran = found.ran()
        what: dict[str, Any] = {
            "outcome": f"{ran.events}_expired", "by_type": dict(ran.by_type), "held": ran.held, "sha256": ran.sha256,
            "blobs": emptied.blobs, "keys": emptied.keys, "index": emptied.index, "terms": terms.model_dump(),
        }  # fmt: skip
        trail.record(tx, Event(id=event_id, type="retention.run", who=who, what=what, why={}, detail={}), at=at)
    trail.wake()
    return ran


def born_of(area: LinkedArea | None, keys: Keys) -> Mapping[str, int]:
    """The birth year of everybody who is linked today, by the HMACs of their ids and of their records'."""
    if area is None:
        return {}
    years: dict[str, int] = {}
    columns = [area.clusters[name].to_pylist() for name in ("agency", "flow", "record_ref", "person_id")]
    for agency, flow, ref, person in zip(*columns, strict=True):
        year = area.birth_year([(agency, flow, ref)])
        if year is not None:
            years[keys.subject_index(f"{agency}/{flow}/{ref}")] = year
            index = keys.subject_index(person)
            years[index] = max(year, years.get(index, 0))
    return years


@dataclass(frozen=True, slots=True)
class _Due:
    """The events whose time is over, and how many stay for a hold; `more`: there are others."""

    due: tuple[Body, ...]
    held: int
    more: bool

    @classmethod
    def of(cls, reading: Reading, terms: LogRetention, born: Born, *, at: datetime) -> _Due:
        due: list[Body] = []
        stays = 0
        years: Mapping[str, int] | None = None
        for some in _candidates(reading, terms, at=at):
            if len(due) >= AT_MOST:
                return cls(tuple(due), stays, more=True)
            about = indexes_of(reading, some)
            indexes = frozenset().union(*about.values())
            under_hold = {row.idx_hmac for row in held(reading, indexes)}
            contacts = last_contacts(reading, indexes)
            if years is None:
                years = {one: latest_birth(year, at.year) for one, year in born().items()} if indexes else {}
            for body in some:
                ends = _ends_ms(terms, body, about[body.place], contacts, years)
                if ends > _ms(at):
                    continue
                if about[body.place] & under_hold:
                    stays += 1
                else:
                    due.append(body)
        return cls(tuple(due), stays, more=False)

    def without_held(self, reading: Reading) -> _Due:
        """The same but for what a hold lies on by now."""
        about = indexes_of(reading, self.due)
        under_hold = {row.idx_hmac for row in held(reading, frozenset().union(*about.values()))}
        free = tuple(body for body in self.due if not about[body.place] & under_hold)
        return replace(self, due=free, held=self.held + len(self.due) - len(free))

    def ran(self) -> Ran:
        ids = sorted(body.event_id for body in self.due)
        return Ran(
            events=len(ids), by_type=dict(sorted(Counter(body.type for body in self.due).items())), held=self.held,
            more=self.more, sha256=sha256(rfc8785.dumps(ids)).hexdigest(),
        )  # fmt: skip


def _candidates(reading: Reading, terms: LogRetention, *, at: datetime) -> Iterator[list[Body]]:
    """All that may be due: past the shortest time that an event of its type can have."""
    cuts: dict[int, list[str]] = {}
    for type_ in EVENT_TYPES:
        years = kept_years(terms, type_)
        if years is not None:
            least = years if _fixed(terms, type_) else min(years, terms.contact_years)
            cuts.setdefault(_ms(_years_before(at, least)), []).append(type_)
    last: Body | None = None
    while some := bodies_before(reading, sorted(cuts.items()), after=last):
        yield some
        last = some[-1]


def _fixed(terms: LogRetention, type_: str) -> bool:
    """Whether the type alone says how long."""
    return type_ in terms.by_type or type_ in TECHNICAL


def _ends_ms(
    terms: LogRetention, body: Body, about: Collection[str], contacts: Mapping[str, int], born: Mapping[str, int]
) -> int:
    """When an event's time is over, in unix ms: the last of those of everybody it is about."""
    years = kept_years(terms, body.type)
    assert years is not None
    if _fixed(terms, body.type) or not about:
        return _ms(_years_before(_instant(body.t_ms), -years))
    ends = [_ms(_years_before(_instant(contacts[one]), -terms.contact_years)) for one in about if one in contacts]
    ends += [_ms(datetime(born[one] + terms.until_age + 1, 1, 1, tzinfo=UTC)) for one in about if one in born]
    return max(ends, default=_ms(_years_before(_instant(body.t_ms), -years)))


def _years_before(at: datetime, years: int) -> datetime:
    """The same day so many years before (after, if negative); 29 February becomes 1 March."""
    try:
        return at.replace(year=at.year - years)
    except ValueError:
        return at.replace(year=at.year - years, month=3, day=1)


def _instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)

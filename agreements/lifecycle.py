"""The life of a document: in which state it is at an instant, where each party stands, and what falls due when.

Nobody writes a state down.  It follows from the signatures, from the parties' own signed events, from the period and
the review day, from the umbrella, and from the one act that is the host's: whether it has put the document in force.

    draft -> in_signature -> agreed -> active <-> suspended -> expired | terminated | superseded

An agreement is active if and only if, between some two of its parties, `Snapshot.standing` says that it is live.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

from agreements import words
from agreements.agreement import Agreement, Document, Restriction, london_day
from agreements.signing import Signature, StatusEvent

StateName = Literal["draft", "in_signature", "agreed", "active", "suspended", "expired", "terminated", "superseded"]
HostStatus = Literal["draft", "active", "suspended"]
PartyState = Literal["unsigned", "signed", "suspended", "withdrawn", "superseded"]
Why = Literal["", "unsigned", "host", "period", "parties", "review", "umbrella"]

STEPS: Final = (90, 60, 30, 7)
"""Days before a document ends or is to be reviewed, on which its parties are warned."""
ENDED: Final = ("expired", "terminated", "superseded")


@dataclass(frozen=True, slots=True)
class PartyStanding:
    """Where one party stands with a document, and since when; since nothing for one that has not signed."""

    state: PartyState
    since: datetime | None = None

    @property
    def takes_part(self) -> bool:
        """Whether it may receive: it has signed and has not left."""
        return self.state in ("signed", "suspended")

    @property
    def discloses(self) -> bool:
        """Whether its own disclosures run."""
        return self.state == "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A document at an instant.  `why` says by whom or what it is in this state, `since` from when, where that is told.

    `why` is empty for what needs no reason; else the host's own act, the period, the parties' events, the review that
    is overdue, or the umbrella.  `outside`: the parties that take part in it, but not in its umbrella, so that nothing
    goes from or to them.
    """

    name: StateName
    why: Why = ""
    since: datetime | None = None
    parties: Mapping[str, PartyStanding]
    outside: tuple[str, ...] = ()

    @property
    def awaited(self) -> tuple[str, ...]:
        """The parties that have yet to sign: until then nothing goes from or to them."""
        return tuple(sorted(party for party, standing in self.parties.items() if standing.state == "unsigned"))

    @property
    def ended(self) -> bool:
        """Whether it can come into force no more."""
        return self.name in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A day that draws near, or has passed.  `days` is how many are left, below none if it has passed."""

    ref: str
    kind: Literal["expiry", "review", "review_overdue"]
    due: date  # the last day on which all is well
    days: int
    step: int | None  # the latest of STEPS that has come; None before the first, and for what is overdue
    stops: bool  # whether disclosure stops by itself when the day has passed; a restriction's end lets more be shown

    @property
    def words(self) -> str:
        """What it is, when, and what then happens."""
        count = "1 day" if abs(self.days) == 1 else f"{abs(self.days)} days"
        if self.kind == "review_overdue":
            then = "so its disclosures have stopped" if self.stops else "its disclosures go on"
            return f"{self.ref}: its review was due on {spoken(self.due)}, {count} ago; {then}."
        when = f"{spoken(self.due)}, in {count}" if self.days else f"{spoken(self.due)}, today"
        if self.kind == "review":
            then = "or its disclosures stop" if self.stops else "its disclosures go on meanwhile"
            return f"{self.ref}: to be reviewed by {when}; {then}."
        then = "it ends by itself" if self.stops else "it holds nothing back any more"
        return f"{self.ref}: its last day is {when}; then {then}."


def state(
    document: Document,
    signatures: Iterable[Signature],
    events: Iterable[StatusEvent],
    *,
    host_status: HostStatus,
    at: datetime,
    umbrella: Agreement | None = None,
    umbrella_status: HostStatus = "active",
) -> State:
    """The state of a document at an instant.

    `signatures` and `events` may be of any documents, in any order, and repeated; those on the umbrella count too.
    `umbrella` is the agreement it stands under; None where that is not here, and then nothing of it is in force.
    """
    known, happened = tuple(signatures), tuple(events)
    parties = standings(document, known, happened, at)
    above = standings(umbrella, known, happened, at) if umbrella is not None else {}
    layers = (document, umbrella) if umbrella is not None else (document,)
    orphaned = isinstance(document, Agreement) and document.under and (umbrella is None or umbrella_status != "active")
    needed = 1 if isinstance(document, Restriction) else 2

    def obstacles() -> Iterator[tuple[StateName, Why, datetime | None]]:
        if end := _end(document, umbrella, parties, above, needed=needed, at=at):
            yield end
        if host_status == "draft":
            yield ("in_signature" if any(one.since for one in parties.values()) else "draft"), "", None
        if sum(_each(party, parties, above, "takes_part") for party in parties) < needed:
            yield "in_signature", "unsigned", None
        if host_status == "suspended":
            yield "suspended", "host", None
        if orphaned:
            yield "suspended", "umbrella", None
        if waiting := [layer.period.start for layer in layers if at < layer.period.start]:
            yield "agreed", "period", max(waiting)
        for layer in layers:
            if isinstance(layer, Agreement) and layer.if_review_overdue == "suspend" and _overdue(layer, at):
                yield "suspended", "review" if layer is document else "umbrella", layer.review
        if needed > 1 and not any(_each(party, parties, above, "discloses") for party in parties):
            paused = [one.since for one in (*parties.values(), *above.values()) if one.state == "suspended"]
            yield "suspended", "parties", max(filter(None, paused), default=None)

    name, why, since = next(obstacles(), ("active", "", None))
    outside = sorted(
        party for party, one in parties.items() if one.takes_part and not _each(party, parties, above, "takes_part")
    )
    return State(name=name, why=why, since=since, parties=parties, outside=tuple(outside))


def standings(
    document: Document, signatures: Iterable[Signature], events: Iterable[StatusEvent], at: datetime
) -> Mapping[str, PartyStanding]:
    """Where each party stands with one document, whatever its period and the host say.

    Who has left stays out, for this version: a new signature is given to a new version.
    """
    parties = document.parties if isinstance(document, Agreement) else (document.owner,)
    found = {party: PartyStanding("unsigned") for party in parties}
    for one in sorted(signatures, key=lambda one: one.signed_at, reverse=True):
        if one.digest == document.digest and one.signed_at <= at and one.party in found:
            found[one.party] = PartyStanding("signed", one.signed_at)
    became: Mapping[str, PartyState] = {
        "suspend": "suspended", "resume": "signed", "withdraw": "withdrawn", "supersede": "superseded",
    }  # fmt: skip
    for event in sorted(set(events), key=lambda event: (event.at, event.do)):
        standing = found.get(event.party)
        if event.digest == document.digest and event.at <= at and standing is not None and standing.takes_part:
            state = became[event.do]
            if state != standing.state:
                found[event.party] = PartyStanding(state, event.at)
    return MappingProxyType(found)


def warnings(documents: Iterable[Document], at: datetime, *, within: int = max(STEPS)) -> tuple[Due, ...]:
    """What falls due `within` so many days, or is overdue, by day: ends and reviews of documents that have not ended.

    Days are London's: on the day before its last day, an agreement has one day left.
    """
    found: list[Due] = []
    today = london_day(at)
    for document in documents:
        if at >= document.period.end:
            continue
        last = last_day(document)
        found += _near(document.ref, "expiry", last, today, within, stops=isinstance(document, Agreement))
        if isinstance(document, Agreement) and document.review is not None:
            due = london_day(document.review - timedelta(microseconds=1))
            stops = document.if_review_overdue == "suspend"
            if _overdue(document, at):
                days = (due - today).days
                found.append(Due(ref=document.ref, kind="review_overdue", due=due, days=days, step=None, stops=stops))
            else:
                found += _near(document.ref, "review", due, today, within, stops=stops)
    return tuple(sorted(set(found), key=lambda one: (one.due, one.ref, one.kind)))


def last_day(document: Document) -> date:
    """The last London day on which a document is in force."""
    return words.last_day(document.period)


def spoken(day: date) -> str:
    """A day as people write it: 3 Apr 2026."""
    return f"{day.day} {day:%b %Y}"


def newest_first(refs: Collection[str]) -> list[str]:
    """Refs with the newest version of each id first, `3.10.0` after `3.9.0` as people count."""
    return sorted(refs, key=lambda ref: (ref.partition("@")[0], *(-part for part in version_of(ref))))


def version_of(ref: str) -> tuple[int, ...]:
    """A ref's version as numbers, to tell the newer of two."""
    return tuple(int(part) for part in ref.partition("@")[2].split("."))


def _near(
    ref: str, kind: Literal["expiry", "review"], due: date, today: date, within: int, *, stops: bool
) -> list[Due]:
    days = (due - today).days
    step = min((step for step in STEPS if days <= step), default=None)
    return [Due(ref=ref, kind=kind, due=due, days=days, step=step, stops=stops)] if days <= within else []


def _overdue(agreement: Agreement, at: datetime) -> bool:
    return agreement.review is not None and at >= agreement.review


def _each(
    party: str,
    parties: Mapping[str, PartyStanding],
    above: Mapping[str, PartyStanding],
    what: Literal["takes_part", "discloses"],
) -> bool:
    """Whether it holds of a party with the document, and with the umbrella where there is one."""
    umbrella = above.get(party) if above else None
    return bool(getattr(parties[party], what)) and (not above or bool(umbrella and getattr(umbrella, what)))


def _end(
    document: Document,
    umbrella: Agreement | None,
    parties: Mapping[str, PartyStanding],
    above: Mapping[str, PartyStanding],
    *,
    needed: int,
    at: datetime,
) -> tuple[StateName, Why, datetime] | None:
    """What ended it first: its last day, its umbrella's, or that too few parties are left of those who had signed."""
    ends: list[tuple[datetime, StateName, Why]] = []
    if at >= document.period.end:
        ends.append((document.period.end, "expired", "period"))
    if umbrella is not None and at >= umbrella.period.end:
        ends.append((umbrella.period.end, "expired", "umbrella"))
    signed = [
        party
        for party, one in parties.items()
        if one.state != "unsigned" and (not above or (party in above and above[party].state != "unsigned"))
    ]
    left = sorted(
        min(
            (one.since, one.state)
            for one in (parties[party], above.get(party))
            if one is not None and one.since is not None and one.state in ("withdrawn", "superseded")
        )
        for party in signed
        if not _each(party, parties, above, "takes_part")
    )
    if len(signed) >= needed > len(signed) - len(left):
        ended = left[len(signed) - needed][0]
        replaced = any(
            state == "superseded" for since, state in left if since <= ended
        )  # who leaves later names nothing
        ends.append((ended, "superseded" if replaced else "terminated", "parties"))
    if not ends:
        return None
    since, name, why = min(ends)
    return name, why, since

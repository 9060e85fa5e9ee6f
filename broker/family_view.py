"""The linked family view: what decided and rendered records amount to for the person who asks.

Pure: it gets what `agreements` decided and rendered, and says nothing that is not in there.  A hidden record leaves no
tile, node, gap or count behind, since nothing is built but from what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Day  # `date` is a field's name here
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from agreements import AskerReason, Decision, Rendering, Snapshot
from agreements.agreement import london_day

if TYPE_CHECKING:  # what a command does that lists the register needs no records
    from broker.linked import Relative, Stated
    from linkage.matching.overrides import RecordKey

BANNER: Final = "Some records are protected and never shown; their protecting agency is told of searches."
NOTHING: Final = "Nothing to show. This does not mean that nothing is known."

FeedState = Literal["CURRENT", "STALE", "NOT_CONNECTED", "PAUSED"]
FirstCallKind = Literal["already_open", "lead_practitioner", "stepped_down", "none"]

_OPEN_WORK: Final = (
    # what says that social care is at work now, the most pressing first
    ("social_care.child_protection", frozenset({"S47_OPEN", "PLAN"})),
    ("social_care.looked_after", frozenset({"OPEN"})),
    ("social_care.child_in_need", frozenset({"OPEN"})),
    ("social_care.contact", frozenset({"OPEN"})),
)
_STEPPED_DOWN: Final = frozenset({"STEPPED_DOWN"})
_WORDS: Final = {
    "already_open": "Already open", "lead_practitioner": "Lead practitioner", "stepped_down": "Stepped down",
}  # fmt: skip
_LEAD: Final = ("early_help.episode", frozenset({"OPEN"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Whom to ring: a desk, never a person."""

    name: str
    phone: str
    out_of_hours: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One flow of one organisation as of now: whether what it says can be relied on to be recent."""

    organisation: str
    name: str  # of the organisation
    flow: str
    state: FeedState
    as_of: datetime | None
    paused_since: datetime | None  # where it is PAUSED
    contact: Contact | None
    contacts: Mapping[str, Contact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One record as decided and rendered."""

    record: RecordKey
    source: str
    person_id: str
    relation: str
    decision: Decision
    renderings: tuple[Rendering, ...]

    @property
    def shown(self) -> bool:
        """Whether anything of it may be shown at all."""
        return bool(self.renderings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """The clause that allows a category, in the words that were signed."""

    agreement: str
    clause: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusShown:
    """One code or band and its words."""

    code: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemShown:
    """One dated, coded item."""

    date: Day
    ended_on: Day | None
    recorded_on: Day
    code: str | None
    label: str
    number: float | None
    role: str | None
    opinion: bool
    outcome: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShown:
    """One category of one record, in one mode."""

    category: str
    label: str
    mode: str
    last_active: str | None
    status: StatusShown | None
    items: tuple[ItemShown, ...]
    contact: Contact | None
    may_ask_holder: bool
    unconfirmed: bool
    about: str  # the relation to the child asked about
    under: tuple[Clause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """What one flow of one organisation shows."""

    organisation: str
    name: str
    flow: str
    state: FeedState
    as_of: datetime | None
    contact: Contact | None
    categories: tuple[CategoryShown, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An organisation's flow that shows nothing, and what that does and does not mean."""

    organisation: str
    name: str
    flow: str
    state: FeedState
    as_of: datetime | None
    paused_since: datetime | None
    contact: Contact | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstCall:
    """The first answer: is the child already open to someone, and whom to ring."""

    kind: FirstCallKind
    organisation: str | None
    name: str | None
    sector: str | None
    since: Day | None
    contact: Contact | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyMember:
    """Someone of the family of whom at least existence may be shown."""

    relation: str
    birth_year: int | None
    person_role: str
    known_to: int
    sources: tuple[str, ...]
    verified: bool
    conflict: tuple[str, ...]  # how those who tell of it disagree: codes of linkage.matching.families
    since: Annotated[Day | None, Field(serialization_alias="from")]
    until: Annotated[Day | None, Field(serialization_alias="to")]
    categories: tuple[CategoryShown, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChronologyEntry:
    """One dated event of any organisation, about the child or a member of the family."""

    date: Day
    ended_on: Day | None
    organisation: str
    name: str
    flow: str
    category: str
    label: str
    code: str | None
    role: str | None
    opinion: bool
    recorded_on: Day
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why something is not shown, in a sentence, and what would unlock it."""

    organisation: str | None
    category: str | None
    code: str
    sentence: str
    unlock: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The child asked about, as far as it was typed and linked; no name is known here."""

    birth_year: int | None
    sex: str | None
    band: str
    agreed: tuple[str, ...]
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyView:
    """All that one disclosure shows."""

    view: str
    at: datetime
    ends_at: datetime
    purpose: str
    threshold: str | None
    person: Header
    first_call: FirstCall
    tiles: tuple[Tile, ...]
    others: tuple[Other, ...]
    family: tuple[FamilyMember, ...]
    chronology: tuple[ChronologyEntry, ...]
    withheld: tuple[Refusal, ...]
    emergency: str | None = None  # the event by which the glass was broken
    banner: str = BANNER


def build(
    *,
    view: str,
    at: datetime,
    ends_at: datetime,
    purpose: str,
    emergency: str | None = None,
    threshold: str | None,
    person: Header,
    seen: Sequence[Seen],
    relatives: Sequence[tuple[Relative, int | None, str]],
    conflicts: Mapping[str, tuple[str, ...]],
    feeds: Sequence[Feed],
    withheld: Iterable[Refusal],
    snapshot: Snapshot,
) -> FamilyView:
    """The view of one child.  `relatives` come with birth year and role; whoever is not shown is left out.

    `conflicts` are, by person, the codes of how organisations disagree on them.
    """
    pages = _rendered(seen, feeds, snapshot)
    tiles = _tiles(pages, feeds)
    shown_flows = {(tile.organisation, tile.flow) for tile in tiles}
    return FamilyView(
        view=view,
        at=at,
        ends_at=ends_at,
        purpose=purpose,
        emergency=emergency,
        threshold=threshold,
        person=person,
        first_call=_first_call(tiles),
        tiles=tiles,
        others=tuple(_other(feed) for feed in feeds if (feed.organisation, feed.flow) not in shown_flows),
        family=_family(pages, relatives, conflicts),
        chronology=_chronology(pages, feeds),
        withheld=tuple(withheld),
    )


def refusal_of(reason: AskerReason) -> Refusal:
    """A reason in the words of `agreements`, as the view lists it."""
    return Refusal(
        organisation=reason.source,
        category=reason.category,
        code=reason.code,
        sentence=reason.sentence,
        unlock=reason.unlock,
    )


def _rendered(
    seen: Sequence[Seen], feeds: Sequence[Feed], snapshot: Snapshot
) -> list[tuple[Seen, tuple[CategoryShown, ...]]]:
    texts = clause_texts(snapshot)
    by_flow = {(feed.organisation, feed.flow): feed for feed in feeds}
    return [
        (record, tuple(_category(rendering, record, feed, texts) for rendering in record.renderings))
        for record in seen
        if record.shown and (feed := by_flow.get(record.record[:2])) is not None
    ]


def _tiles(pages: Sequence[tuple[Seen, tuple[CategoryShown, ...]]], feeds: Sequence[Feed]) -> tuple[Tile, ...]:
    """A tile says who knows the child: what is shown of the family alone makes none."""
    tiles = []
    for feed in feeds:
        mine = [
            shown
            for record, categories in pages
            if record.record[:2] == (feed.organisation, feed.flow) and record.relation == "subject_child"
            for shown in categories
        ]
        if mine:
            tiles.append(
                Tile(
                    organisation=feed.organisation,
                    name=feed.name,
                    flow=feed.flow,
                    state=feed.state,
                    as_of=feed.as_of,
                    contact=feed.contact,
                    categories=tuple(mine),
                )
            )
    return tuple(sorted(tiles, key=lambda tile: (not _has_open_work(tile), tile.organisation, tile.flow)))


def desk_of(feed: Feed) -> str:
    """Whom to ring about a flow, in words."""
    return f"{feed.contact.name} on {feed.contact.phone}" if feed.contact else f"{feed.name}'s safeguarding desk"


def clause_texts(snapshot: Snapshot) -> Mapping[tuple[str, str], str]:
    """The signed words of every grant, by agreement and clause."""
    return {(agreement.ref, grant.id): grant.text for agreement in snapshot.agreements for grant in agreement.grants}


def _category(rendering: Rendering, record: Seen, feed: Feed, texts: Mapping[tuple[str, str], str]) -> CategoryShown:
    shown = record.decision.shown[rendering.category]
    refs = (shown.under, *shown.also)
    return CategoryShown(
        category=rendering.category,
        label=rendering.label,
        mode=rendering.mode.word,
        last_active=rendering.last_active,
        status=StatusShown(code=rendering.status.code, label=rendering.status.label) if rendering.status else None,
        items=tuple(
            ItemShown(
                date=item.on,
                ended_on=item.ended_on,
                recorded_on=item.recorded_on,
                code=item.code,
                label=item.label,
                number=item.number,
                role=item.role,
                opinion=item.opinion,
                outcome=item.outcome_label,
            )
            for item in rendering.items
        ),
        contact=feed.contacts.get(rendering.contact, feed.contact) if rendering.contact else feed.contact,
        may_ask_holder=rendering.may_ask_holder,
        unconfirmed=record.decision.unconfirmed,
        about=record.relation,
        under=tuple(
            Clause(agreement=ref.agreement, clause=ref.clause, text=texts.get((ref.agreement, ref.clause), ""))
            for ref in refs[:1]
        ),
    )


def _other(feed: Feed) -> Other:
    desk = desk_of(feed)
    until = _day(feed.as_of) if feed.as_of else None
    since = f" since {_day(feed.paused_since)}" if feed.paused_since else ""
    sentence = {
        "CURRENT": NOTHING,
        "STALE": f"{feed.name} last sent information on {until}. "
        f"We cannot say whether it knows this child. Ring {desk}.",
        "NOT_CONNECTED": f"{feed.name} does not send information to this service. Ring {desk}.",
        "PAUSED": f"{feed.name} has paused its sharing{since}. Ring {desk}.",
    }[feed.state]
    return Other(
        organisation=feed.organisation,
        name=feed.name,
        flow=feed.flow,
        state=feed.state,
        as_of=feed.as_of,
        paused_since=feed.paused_since,
        contact=feed.contact,
        sentence=sentence,
    )


def _day(at: datetime) -> str:
    """A day as people in England read it: 7 Mar 2026."""
    return f"{london_day(at):%-d %b %Y}"


def _in_status(tile: Tile, category: str, codes: frozenset[str]) -> CategoryShown | None:
    """The category of a tile's record of the child that has such a status; a flow may hold two records of one child."""
    return next(
        (
            shown
            for shown in tile.categories
            if shown.category == category and shown.status and shown.status.code in codes
        ),
        None,
    )


def _has_open_work(tile: Tile) -> bool:
    return any(_in_status(tile, category, codes) for category, codes in (*_OPEN_WORK, _LEAD))


def _first_call(tiles: Sequence[Tile]) -> FirstCall:
    stepped_down = tuple((category, _STEPPED_DOWN) for category, _ in _OPEN_WORK)
    kinds: tuple[tuple[FirstCallKind, Sequence[tuple[str, frozenset[str]]]], ...] = (
        ("already_open", _OPEN_WORK), ("lead_practitioner", (_LEAD,)), ("stepped_down", stepped_down),
    )  # fmt: skip
    for kind, wanted in kinds:
        for category, codes in wanted:
            for tile in tiles:
                if (shown := _in_status(tile, category, codes)) is not None:
                    return _call(kind, tile, shown)
    return FirstCall(
        kind="none",
        organisation=None,
        name=None,
        sector=None,
        since=None,
        contact=None,
        sentence="No open work that can be shown. Ask or ring before you decide.",
    )


def _call(kind: FirstCallKind, tile: Tile, shown: CategoryShown) -> FirstCall:
    worker = next((each for each in tile.categories if each.category == "social_care.allocated_worker"), None)
    contact = (worker.contact if worker and kind == "already_open" else None) or shown.contact or tile.contact
    ring = f" Ring {contact.name} on {contact.phone}." if contact else ""
    status = shown.status.label if shown.status else shown.label
    running = [item.date for item in shown.items if item.ended_on is None]
    return FirstCall(
        kind=kind,
        organisation=tile.organisation,
        name=tile.name,
        sector=tile.flow,
        since=min(running, default=None) if kind != "stepped_down" else None,
        contact=contact,
        sentence=f"{_WORDS[kind]}: {shown.label.lower()}, {status.lower()}.{ring}",
    )


def _family(
    pages: Sequence[tuple[Seen, tuple[CategoryShown, ...]]],
    relatives: Sequence[tuple[Relative, int | None, str]],
    conflicts: Mapping[str, tuple[str, ...]],
) -> tuple[FamilyMember, ...]:
    members = []
    for relative, birth_year, person_role in relatives:
        mine = [(record, shown) for record, shown in pages if record.person_id == relative.person_id]
        if not mine:
            continue
        known = {record.source for record, _ in mine}
        stated = relative.stated
        if relative.relation != "household":  # that they live together as well is not what makes them so
            stated = tuple(statement for statement in stated if statement.type != "household") or stated
        ended = [statement.until for statement in stated]
        members.append(
            FamilyMember(
                relation=_relation_word(relative, stated),
                birth_year=birth_year,
                person_role=person_role,
                known_to=len(known),
                sources=tuple(sorted({statement.source for statement in stated})),
                verified=any(statement.verified for statement in stated),
                conflict=conflicts.get(relative.person_id, ()),
                since=min((statement.since for statement in stated if statement.since), default=None),
                until=max((end for end in ended if end), default=None) if ended and all(ended) else None,
                categories=tuple(each for _, shown in mine for each in shown),
            )
        )
    return tuple(sorted(members, key=lambda member: (member.relation, member.birth_year or 0)))


def _relation_word(relative: Relative, stated: Sequence[Stated]) -> str:
    """The nearest statement's own type, in the wire's words; a sibling through a parent is a sibling."""
    if relative.relation in ("sibling", "carer", "household"):
        return relative.relation
    types = {statement.type for statement in stated}
    nearest = ("birth_parent", "step_parent", "parental_responsibility", "partner")
    return next((kind for kind in nearest if kind in types), relative.relation)


def _chronology(
    pages: Sequence[tuple[Seen, tuple[CategoryShown, ...]]], feeds: Sequence[Feed]
) -> tuple[ChronologyEntry, ...]:
    names = {feed.organisation: feed.name for feed in feeds}
    entries = [
        ChronologyEntry(
            date=item.date,
            ended_on=item.ended_on,
            organisation=record.record[0],
            name=names[record.record[0]],
            flow=record.record[1],
            category=shown.category,
            label=item.label,
            code=item.code,
            role=item.role,
            opinion=item.opinion,
            recorded_on=item.recorded_on,
            about=shown.about,
        )
        for record, categories in pages
        for shown in categories
        for item in shown.items
    ]
    return tuple(sorted(entries, key=lambda entry: (entry.date, entry.organisation, entry.category), reverse=True))

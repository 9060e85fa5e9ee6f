"""R7, the pack for a personal data breach: the clock, who is affected, who received what, and what contains it.

Of a person who was wrongly shown or linked: everyone who was shown them, under any id that their records had since.
Of an organisation whose key was compromised: everything that was shown to it, and all that it sent, in the period.
Source: UK GDPR Articles 33 and 34; Data Protection Act 2018 s.67.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker import clock, lineage
from broker.errors import Malformed
from broker.reports.reading import Source, holders, persons
from broker.reports.register import DISCLOSURES
from broker.reports.table import OpenedEvent, Row, utc
from broker.store.log_search import Head

NOTIFY_WITHIN: Final = timedelta(hours=72)
R7: Final = (
    "part", "utc", "event_id", "organisation", "person", "role", "subject_token", "source_org", "categories", "purpose",
    "case_ref", "state", "note",
)  # fmt: skip
BY_A_HOLDER: Final = ("consider_sharing.shared", "answer.released", "standing_approval.used", "verbal_share.logged")
"""What a holder shows to another by its own act: the organisation that it was shown to is its recipient."""
SENT: Final = ("submission.received", "submission.accepted")
ABOUT_PERSON: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("the wrong link is split or severed", ("link.split", "override.must_not_link", "override.sever")),
    ("disclosures are recalled", ("disclosure.recalled",)),
    ("a restriction is set, or the error put right", ("subject.restricted", "subject.rectified")),
    ("recipients are told of the correction", ("rectification.notified",)),
    ("the report of the wrong person is recorded", ("link.wrong_person_reported",)),
)
ABOUT_KEY: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("the key is revoked", ("key.revoked", "key.compromised")),
    ("the organisation is suspended", ("agency.suspended",)),
    ("its batches since are withdrawn", ("submission.withdrawn",)),
    ("disclosures are recalled", ("disclosure.recalled",)),
)
"""What contains a breach, and the events that say it was done."""


@dataclass(slots=True)
class _Affected:
    first: datetime
    last: datetime
    shown: int = 0


def pack(source: Source) -> Iterator[Row]:
    """R7, part after part.  Raises Malformed unless it is of a person or of an organisation, and not of both."""
    about = source.about
    if bool(about.subject) == bool(about.organisation):
        raise Malformed("a breach pack is of one person, or of one organisation whose key was compromised")
    ids = _ids(source) if about.subject else ()
    shown = list(_shown(source, ids))
    affected = _affected(source, shown, ids)
    yield from _clock(source, len(affected), len(shown))
    for token, one in sorted(affected.items()):
        note = f"shown {one.shown} time{'' if one.shown == 1 else 's'}, last {utc(one.last)}"
        yield _row("affected", one.first, subject=(token,), note=note)
    for event in shown:
        yield from _received(source, event, ids)
    if about.organisation:
        for event in source.events(source.wanted(SENT, org=about.organisation)):
            yield _row("sent", event.event.at, event, state=event.event.outcome, note="check it against its sender")
    yield from _contained(source, ids)


def received(source: Source) -> Iterator[OpenedEvent]:
    """The disclosures of R7."""
    return _shown(source, _ids(source) if source.about.subject else ())


def _ids(source: Source) -> tuple[str, ...]:
    """A person's ids: the one given, and those that its records have had since."""
    subject = source.about.subject
    if "/" in subject:
        return (subject,)
    with source.store.reading() as reading:
        return tuple(dict.fromkeys((subject, *lineage.successors(reading, subject).ids)))


def _shown(source: Source, ids: Sequence[str]) -> Iterator[OpenedEvent]:
    """What was shown of the persons, or to the organisation: not what was looked at and hidden."""
    if not ids:
        organisation = source.about.organisation
        asked = tuple(one for one in DISCLOSURES if one not in BY_A_HOLDER)
        for one in source.events(source.wanted(asked, org=organisation), source.wanted(BY_A_HOLDER)):
            to = {str(each.get("organisation", "")) for each in one.recipients}
            if source.subjects(one) and (one.event.type in asked or organisation in to):
                yield one
        return
    heads: dict[str, Head] = {}
    for each in ids:
        wanted = source.wanted(DISCLOSURES, subject_hmac=source.keys.subject_index(each))
        heads |= {head.event_id: head for head in source.heads(wanted)}
    for event in source.open(sorted(heads.values(), key=lambda each: each.place)):
        if not event.sections or not set(ids).isdisjoint(source.subjects(event)):
            yield event


def _affected(source: Source, shown: Sequence[OpenedEvent], ids: Sequence[str]) -> dict[str, _Affected]:
    found: dict[str, _Affected] = {}
    for event in shown:
        subjects = source.subjects(event)
        for token in [one for one in ids if one in subjects] or persons(subjects):
            one = found.setdefault(token, _Affected(event.event.at, event.event.at))
            one.last, one.shown = event.event.at, one.shown + 1
    return found


def _clock(source: Source, affected: int, shown: int) -> Iterator[Row]:
    known, counts = source.about.discovered, f"{affected} affected, {shown} disclosures"
    if known is None:
        note = f"{counts}; the 72 hours run from when it was found out, which this pack was not told"
        yield _row("clock", None, state="not told", note=note)
        return
    due = known + NOTIFY_WITHIN
    left = (due - source.at) / timedelta(hours=1)
    yield _row("clock", known, state="discovered", note=counts)
    yield _row(
        "clock", due, state="overdue" if left < 0 else "running",
        note=f"tell the Commissioner by then; {abs(left):.1f} hours {'over' if left < 0 else 'left'} "
        f"at {utc(source.at)}",
    )  # fmt: skip


def _received(source: Source, one: OpenedEvent, ids: Sequence[str]) -> Iterator[Row]:
    subjects = source.subjects(one)
    whom = tuple(each for each in ids if each in subjects) or persons(subjects)
    categories = one.body("what").get("categories")
    by_source = categories if isinstance(categories, dict) else {}
    for each in one.recipients or ({},):
        yield _row(
            "recipient", one.event.at, one, organisation=str(each.get("organisation", "")),
            person=str(each.get("person", "")), role=str(each.get("role", "")), subject=whom,
            source_org=tuple(sorted({*by_source, *holders(subjects)})), state=one.event.outcome,
            categories=tuple(sorted({name for modes in by_source.values() for name in modes})),
            note="" if one.sections else "its body was erased",
        )  # fmt: skip


def _contained(source: Source, ids: Sequence[str]) -> Iterator[Row]:
    """Each step that contains a breach, with the events that say it was done; else that it has not been."""
    steps = ABOUT_PERSON if ids else ABOUT_KEY
    for step, types in steps:
        done = sorted(_done(source, types, ids), key=lambda each: (each.event.at, each.event.event_id))
        for one in done:
            yield _row("containment", one.event.at, one, state="done", note=step)
        if not done:
            yield _row("containment", None, state="not done", note=step)


def _done(source: Source, types: Sequence[str], ids: Sequence[str]) -> Iterator[OpenedEvent]:
    """Those since the first of the period, up to now: what contains a breach comes after it."""
    open_end = {"until_ms": clock.milliseconds(source.at) + 1}
    if ids:
        seen: set[str] = set()
        for each in ids:
            wanted = source.wanted(types, subject_hmac=source.keys.subject_index(each), **open_end)
            for one in source.events(wanted):
                if one.event.event_id not in seen:
                    seen.add(one.event.event_id)
                    yield one
        return
    organisation = source.about.organisation
    for one in source.events(source.wanted(types, **open_end)):
        what = one.body("what")
        named = {str(what.get(name, "")).partition("/")[0] for name in ("agency", "key")}
        if organisation in {*named, one.event.organisation}:
            yield one


def _row(
    part: str,
    at: datetime | None,
    one: OpenedEvent | None = None,
    *,
    organisation: str = "",
    person: str = "",
    role: str = "",
    subject: tuple[str, ...] = (),
    source_org: tuple[str, ...] = (),
    categories: tuple[str, ...] = (),
    state: str = "",
    note: str = "",
) -> Row:
    event = one.event if one is not None else None
    return (
        part, at, event.event_id if event else "", organisation or (event.organisation if event else ""),
        person or (event.person if event else ""), role or (event.role if event else ""), subject, source_org,
        categories, event.purpose if event else "", event.case if event else "", state, note,
    )  # fmt: skip

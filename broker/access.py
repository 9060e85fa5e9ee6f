"""Subject access: who saw what of somebody, when, why and under which clause, provable section by section (R4).

A pack is a zip: a ledger as CSV and JSON, and for each entry a receipt with the sections that may be shown.  Each
receipt checks offline (`auditor inclusion`), and what is withheld can't be derived from it.  Staff are told as
organisation and role.  What is withheld, and under which exemption, is the officer's to say, section by section; from
the start everything is withheld that would tell of somebody else, of what safeguards hid, and, to a parent, of abuse.

No pack leaves before the log has its SHA-256.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import rfc8785

from agreements import VOCABULARY
from audit.events import OPS, SECTIONS, Event, SectionName
from audit.taxonomy import KINDS
from broker.callers import Caller
from broker.deciding import Released
from broker.erasure import may_act
from broker.errors import Malformed, NotFound
from broker.keys import Keys
from broker.linked import LinkedArea
from broker.reports.formats import csv_row
from broker.store import Reading, Store
from broker.store.erasures import Barred, hold_erasures
from broker.store.subject_log import AboutSubject, about_subject
from broker.trail import EntryRef, Trail, new_event_id

WHOLE: Final = "*"
EXEMPTIONS: Final[Mapping[str, str]] = {
    "crime": "Data Protection Act 2018, Schedule 2 paragraph 2: prevention or detection of crime",
    "law_enforcement": "Data Protection Act 2018, section 45(4): restriction of access in law enforcement",
    "third_party": "Data Protection Act 2018, Schedule 2 paragraph 16: it is somebody else's information too",
    "serious_harm": "Data Protection Act 2018, Schedule 3 parts 2 to 4: it would be likely to cause serious harm",
    "child_abuse_data": "Data Protection Act 2018, Schedule 3 part 5: child abuse data, against the child's interests",
    "legal_privilege": "Data Protection Act 2018, Schedule 2 paragraph 19: legal professional privilege",
    "regulatory": "Data Protection Act 2018, Schedule 2 paragraph 7: functions that protect the public",
    "court": "Data Protection Act 2018, Schedule 3 paragraphs 3, 9 and 18: data processed by a court",
}
"""Why something is not shown to who asks: the closed list of this broker."""
RELATIONS: Final[Mapping[str, str]] = {
    "self": "The person themselves",
    "parent": "Somebody with parental responsibility",
    "representative": "Somebody whom the person has authorised",
}
ABUSE: Final = frozenset(
    {"social_care.child_protection", "police.domestic_abuse", "police.protection_notice", "police.protection_power"}
)
"""Categories that are, or may be, child abuse data: not shown to a parent from the start."""
COLUMNS: Final = (
    "event_id", "utc", "event", "in_words", "operation", "organisation", "role", "purpose", "threshold", "clauses",
    "shown", "recipients", "outcome", "exemption", "receipt",
)  # fmt: skip
_READ_ME: Final = """\
WHO LOOKED AT THIS RECORD

This folder lists every entry of the information-sharing log about one person that may be shown to whoever asked
for it. Each line of ledger.csv (and of ledger.json) is one entry: when, which organisation, in which role, for which
purpose, under which clause of which agreement, and what was shown to them. Staff are not named.

Some parts are withheld, each with its legal ground in the column "exemption"; in ledger.json the grounds are written
out. Where "why" is withheld, the purpose is told but not proved: with its proof would come clauses that tell of others.
Some entries may be left out altogether: the law lets an organisation do so without saying whether it has.

TO CHECK IT YOURSELF
Each file in receipts/ is one entry as it stands in the log, with a proof that it was not changed since. Ask an
organisation that you trust (not only the one that gave you this folder) for the log's policy file. Then run, with no
network:

    auditor inclusion --policy POLICY --event receipts/0001.json

It says whether the entry is in the log exactly as shown here. What is withheld stays hidden: the proof holds without
it. manifest.json lists the SHA-256 of every file.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulings:
    """What the officer decided, beyond what holds from the start: by event id, the section (or WHOLE) and why.

    `opened` shows what is withheld from the start.  Raises Malformed for a section or an exemption off the lists.
    """

    withheld: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    opened: Mapping[str, Collection[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [section for each in (*self.withheld.values(), *self.opened.values()) for section in each]
        if not {*named} <= {*SECTIONS, WHOLE}:
            raise Malformed(f"section: one of {', '.join(SECTIONS)}, or {WHOLE} for the whole entry")
        if not {code for each in self.withheld.values() for code in each.values()} <= EXEMPTIONS.keys():
            raise Malformed(f"exemption: one of {', '.join(EXEMPTIONS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One entry about a subject, as information governance reads it."""

    event_id: str
    at: datetime
    type: str
    organisation: str
    role: str
    purpose: str
    threshold: str
    clauses: tuple[str, ...]
    shown: Mapping[str, Mapping[str, str]]  # by source organisation: categories and modes
    recipients: tuple[str, ...]
    outcome: str
    others: bool  # somebody else is named as well
    gone: frozenset[str] = frozenset()  # sections erased for somebody else's sake


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """What is handed out, and what page B5 prints: `ledger` is ledger.json."""

    report: str
    sha256: str
    ledger: Mapping[str, Any]
    content: bytes = field(repr=False)  # the zip


def ledger(reading: Reading, keys: Keys, ids: Collection[str]) -> tuple[Access, ...]:
    """Everything the log has about a subject, oldest first: all their ids together."""
    known = frozenset(ids)
    found = about_subject(reading, keys, {keys.subject_index(one) for one in known})
    return tuple(_access(one, known) for one in found)


def preview(
    store: Store,
    trail: Trail,
    keys: Keys,
    area: LinkedArea | None,
    caller: Caller,
    *,
    ids: Collection[str],
    relation: str,
    at: datetime,
) -> tuple[tuple[Access, Mapping[str, str]], ...]:
    """Every entry about a subject, oldest first, with what is withheld from the start and why; for an officer to rule.

    That it was read is recorded before it is given.  Raises NotAllowed, Malformed, LogUnavailable.
    """
    may_act(caller)
    if relation not in RELATIONS:
        raise Malformed(f"relation: one of {', '.join(RELATIONS)}")
    trail.advance_pending()
    with store.reading() as reading:
        entries = ledger(reading, keys, ids)
    shielded = relation == "parent" and _shielded(area, ids)
    event = Event(
        id=new_event_id(), type="audit.searched", who=caller.who(), detail={},
        what={"searched": "subject", "relation": relation, "entries": len(entries)}, why={"reason": "lawfulness"},
    )  # fmt: skip
    with store.transaction() as tx:
        hold_erasures(tx)
        entry = trail.record(tx, event, about=_not_barred(tx, keys, ids, at), at=at)
    trail.receipt(entry)
    return tuple((one, _withheld(one, relation, Rulings(), shielded=shielded)) for one in entries)


def report(
    store: Store,
    trail: Trail,
    keys: Keys,
    area: LinkedArea | None,
    caller: Caller,
    *,
    ids: Collection[str],
    relation: str,
    rulings: Rulings,
    at: datetime,
) -> Released[Pack]:
    """The pack for a subject, once the log has its SHA-256; what was withheld, and why, is sealed beside that event.

    Raises NotAllowed, Malformed for a relation off the list, NotFound if a ruling names no entry about the subject,
    LogUnavailable.  Of ids that were erased, and are still kept out, the event says nothing.
    """
    may_act(caller)
    if relation not in RELATIONS:
        raise Malformed(f"relation: one of {', '.join(RELATIONS)}")
    trail.advance_pending()
    with store.reading() as reading:
        entries = ledger(reading, keys, ids)
    if not {*rulings.withheld, *rulings.opened} <= {one.event_id for one in entries}:
        raise NotFound("there is no such entry about this subject")
    shielded = relation == "parent" and _shielded(area, ids)
    withheld = {one.event_id: _withheld(one, relation, rulings, shielded=shielded) for one in entries}
    included = [one for one in entries if WHOLE not in withheld[one.event_id]]
    id_ = new_event_id()
    ruled = frozenset(event for event, sections in rulings.withheld.items() if "why" in sections)
    files = dict(_files(trail, id_, included, withheld, ruled, relation, at=at))
    content = _zip(files, at)
    digest = sha256(content).hexdigest()
    # the ids are the subject's at every agency: the next pack must not tell whose they are
    sealed = rfc8785.dumps(withheld)
    with store.transaction() as tx:
        hold_erasures(tx)
        there = _not_barred(tx, keys, ids, at)
        named = rfc8785.dumps(there)
        event = Event(
            id=id_, type="subject.report_issued", who=caller.who(),
            what={"sha256": digest, "entries": len(included), "outcome": "issued"},
            why={"right": "UK GDPR Article 15, or Data Protection Act 2018 section 45"},
            recipients=[{"relation": relation}],
            detail={"withheld": sha256(sealed).hexdigest(), "ids": sha256(named).hexdigest()},
        )  # fmt: skip
        entry = trail.record(tx, event, about=there, blobs={"withheld": sealed, "ids": named}, at=at)
    receipt = trail.receipt(entry)
    pack = Pack(report=id_, sha256=digest, ledger=json.loads(files["ledger.json"]), content=content)
    return Released(pack, receipt)


def _not_barred(tx: Reading, keys: Keys, ids: Collection[str], at: datetime) -> list[str]:
    """Of these ids, those that may be entered: who was erased is not entered anew, as no later erasure would be asked
    for it."""
    barred = Barred.of(tx)
    return sorted(one for one in ids if not barred.out(keys.subject_index(one), at))


def _access(one: AboutSubject, ids: frozenset[str]) -> Access:
    who, what, why = (_map(one.bodies.get(name)) for name in ("who", "what", "why"))
    subjects, recipients = one.bodies.get("subjects") or (), one.bodies.get("recipients") or ()
    known = (_map(one).get("organisation") for one in recipients)
    return Access(
        event_id=one.event_id, at=datetime.fromtimestamp(one.t_ms / 1000, UTC), type=one.type,
        organisation=str(who.get("organisation", "")), role=str(who.get("role", "")),
        purpose=str(why.get("purpose", "")), threshold=str(why.get("threshold") or ""),
        clauses=tuple(map(str, why.get("clauses") or ())), shown=_map(what.get("categories")),
        recipients=tuple(sorted({str(each) for each in known if each})), outcome=str(what.get("outcome", "")),
        others=not ids.issuperset(each if isinstance(each, str) else "" for each in subjects),
        gone=one.gone,
    )  # fmt: skip


def _withheld(one: Access, relation: str, rulings: Rulings, *, shielded: bool) -> dict[str, str]:
    """By section (or WHOLE) the exemption under which it is withheld."""
    usual = {"detail": "serious_harm"}
    if one.others:  # what was shown of each can't be told apart, nor the clauses it was shown under
        usual |= dict.fromkeys(("subjects", "what", "why"), "third_party")
    if relation == "parent" and any(ABUSE & modes.keys() for modes in one.shown.values()):
        usual |= dict.fromkeys(("what", "why"), "child_abuse_data")  # a clause may be named for what it shows
    if shielded:
        usual |= {WHOLE: "serious_harm"}  # where others looked from would tell the place
    opened = rulings.opened.get(one.event_id, ())
    left = {section: code for section, code in usual.items() if section not in opened}
    left |= rulings.withheld.get(one.event_id, {})
    return {**dict.fromkeys(one.gone, "third_party"), **left}


def _shielded(area: LinkedArea | None, ids: Collection[str]) -> bool:
    """Whether a shield lies over the subject.  Nobody can say before records were linked: then it does."""
    persons = {one for one in ids if "/" not in one}
    if area is None:
        return True
    persons |= {person for one in ids if "/" in one and (person := area.index.person_of(_key(one))) is not None}
    return any(tag.startswith("shield") for person in persons for tag in area.tags(person))


def _key(record: str) -> tuple[str, str, str]:
    agency, flow, ref = record.split("/", 2)
    return agency, flow, ref


def _files(
    trail: Trail,
    report: str,
    entries: Collection[Access],
    withheld: Mapping[str, Mapping[str, str]],
    silent: frozenset[str],
    relation: str,
    *,
    at: datetime,
) -> Iterator[tuple[str, bytes]]:
    """Everything in the zip, by name.  Of the entries in `silent` not even the purpose is told."""
    files: dict[str, bytes] = {}
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(entries, start=1):
        name = f"receipts/{number:04}.json"
        hidden = withheld[one.event_id]
        show = [section for section in SECTIONS if section not in hidden]
        files[name] = trail.receipt(EntryRef(one.event_id), show=show).dumps().encode()
        rows.append(_row(one, hidden, name, purpose=one.event_id not in silent))
    known = {code for one in entries for code in withheld[one.event_id].values()}
    table = {
        "report": report, "issued_at": _stamp(at), "asked_by": RELATIONS[relation], "columns": list(COLUMNS),
        "entries": rows, "exemptions": {code: EXEMPTIONS[code] for code in sorted(known)},
    }  # fmt: skip
    files["ledger.json"] = json.dumps(table, indent=1, ensure_ascii=False).encode() + b"\n"
    lines = (csv_row(tuple(_text(row[column]) for column in COLUMNS)) for row in rows)
    files["ledger.csv"] = b"".join((csv_row(COLUMNS), *lines))
    files["READ-ME.txt"] = _READ_ME.encode()
    digests = {name: sha256(content).hexdigest() for name, content in sorted(files.items())}
    files["manifest.json"] = json.dumps(digests, indent=1).encode() + b"\n"
    yield from sorted(files.items())


def _row(one: Access, hidden: Mapping[str, str], receipt: str, *, purpose: bool) -> dict[str, Any]:
    """A line of the ledger: what its receipt opens, and unproven the kind of event and (if `purpose`) what for."""
    known = VOCABULARY.purposes.get(one.purpose)
    what_for = known.label if known else one.purpose
    role = VOCABULARY.roles.get(one.role)
    sections: dict[str, tuple[SectionName, Any]] = {
        "organisation": ("who", one.organisation), "role": ("who", role.label if role else one.role),
        "threshold": ("why", one.threshold), "clauses": ("why", list(one.clauses)), "shown": ("what", one.shown),
        "recipients": ("recipients", list(one.recipients)), "outcome": ("what", one.outcome.replace("_", " ")),
    }  # fmt: skip
    told: dict[str, Any] = {
        column: None if section in hidden else value for column, (section, value) in sections.items()
    }
    told["purpose"] = what_for if purpose else None
    told |= {"event_id": one.event_id, "utc": _stamp(one.at), "event": one.type, "exemption": dict(hidden)}
    told |= {"in_words": KINDS[one.type].words, "operation": OPS[one.type].value}  # both follow from the kind of event
    told["receipt"] = receipt
    return {str(column): told[column] for column in COLUMNS}


def _text(value: Any) -> str:
    if value is None:
        return "withheld"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_modes(one) if isinstance(one, Mapping) else one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _modes(modes: Mapping[str, str]) -> str:
    labels = VOCABULARY.categories
    return ", ".join(f"{labels[one].label if one in labels else one} ({mode})" for one, mode in modes.items())


def _zip(files: Mapping[str, bytes], at: datetime) -> bytes:
    """The same bytes for the same files and time."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=at.astimezone(UTC).timetuple()[:6])
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o600 << 16
            pack.writestr(entry, content)
    return out.getvalue()


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}

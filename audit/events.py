r"""What is evidence: a closed set of events, each in six salted sections under one commitment.

An event never enters the tree.  Its *leaf* does: 71 bytes that hold a time and a commitment,

    sg-audit/v1\n<unix ms>\n<base64 of the event's commitment>\n

    section  s = SHA-256("sg-audit/section/v1" 00 name 00 salt JCS(body))      salt: 32 random bytes, one a section
    event    c = SHA-256("sg-audit/event/v1" 00 JCS({name: base64(s), ...}))   all six, always

so that any section can be shown with its salt and checked, while the others stay withheld (*verifiable redaction*), and
so that deleting bodies and salts erases an event and leaves tree, proofs and other receipts as they were.  The salt is
not optional: without it a ten-digit number is found by trying them all.

Bodies are JSON without floats, whole numbers within 2^53 - 1, names of fields ours alone; canonical form is RFC 8785.
Nothing in a body is a name, a number or a case reference in clear: that is the broker's to see to.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast

import rfc8785

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
SectionName = Literal["who", "what", "why", "subjects", "recipients", "detail"]

SECTIONS: Final[tuple[SectionName, ...]] = ("who", "what", "why", "subjects", "recipients", "detail")
_IN_ORDER: Final = tuple(sorted(SECTIONS))
SHOWN_TO_ASKER: Final[tuple[SectionName, ...]] = ("who", "what", "why", "subjects", "recipients")
"""What an asker's own receipt opens: never `detail`, which holds what was hidden."""

VERSION: Final = 1
SALT_BYTES: Final = 32
MAX_EVENT_BYTES: Final = 8192
LEAF_BYTES: Final = 71
# The last character before the padding has two spare bits; with these sixteen letters a leaf has one spelling only.
_LEAF: Final = re.compile(rb"sg-audit/v1\n([1-9][0-9]{12})\n([A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=)\n")
_EVENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_EARLIEST_MS: Final = 10**12  # thirteen digits, until the year 2286: so a leaf is always 71 bytes
_LATEST_MS: Final = 10**13 - 1
_LARGEST: Final = 2**53 - 1
_ENCODE: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class InvalidEvent(ValueError):
    """An event that can't be evidence: not of the closed set, not canonical, too large, or not as committed."""


class Op(StrEnum):
    """The six operations of Data Protection Act 2018 s.62(1), and what is none of them."""

    COLLECTION = "collection"
    ALTERATION = "alteration"
    CONSULTATION = "consultation"
    DISCLOSURE = "disclosure"
    COMBINATION = "combination"
    ERASURE = "erasure"
    SYSTEM = "system"


_TYPES: Final[Mapping[Op, str]] = {
    Op.COLLECTION: """
        submission.received submission.accepted submission.quarantined submission.rejected submission.withdrawn
    """,
    Op.COMBINATION: """
        linkage.run_started linkage.run_completed linkage.run_failed linkage.published
        linkage.model_compared linkage.model_accepted
        epoch.linked epoch.flipped epoch.stopped
    """,
    Op.ALTERATION: """
        link.proposed link.confirmed link.rejected link.split link.merged link.wrong_person_reported
        override.must_link override.must_not_link override.sever override.withdrawn review.passed_on
        threshold.set threshold.refused
        restriction.added restriction.changed restriction.lifted restriction.expired legal_hold.set legal_hold.lifted
        subject.restricted subject.rectified subject.lifted
    """,
    Op.CONSULTATION: """
        search.authorised search.completed search.refused
        review.listed review.opened review.asked consider_sharing.listed ledger.listed
        statistics.prepared statistics.refused statistics.opened statistics.rejected
        breakglass.opened breakglass.used breakglass.closed breakglass.reviewed breakglass.user_suspended
        audit.searched audit.exported audit.report_issued audit.flagged audit.reviewed audit.signed_off audit.degraded
    """,
    Op.DISCLOSURE: """
        disclosure.authorised disclosure.completed disclosure.aborted disclosure.refused disclosure.recalled
        request.sent request.collected request.chased request.overdue request.cancelled
        answer.received answer.narrowed answer.declined answer.released answer.collected
        standing_approval.set standing_approval.used standing_approval.withdrawn
        verbal_share.logged verbal_share.corrected
        consider_sharing.shared consider_sharing.declined consider_sharing.lapsed
        subject.report_issued rectification.notified
        statistics.approved statistics.disclosed
    """,
    Op.ERASURE: """
        subject.erased retention.run epoch.dropped
    """,
    Op.SYSTEM: """
        decision.made notice.batch ledger.collected subject.erasure_proposed subject.erasure_refused
        subject.lift_proposed subject.lift_refused
        agreement.imported agreement.signed agreement.activated agreement.suspended agreement.resumed
        agreement.withdrawn agreement.superseded agreement.warned agreement.expired agreement.review_overdue
        epoch.opened epoch.proposed epoch.refused
        key.created key.rotated key.revoked key.compromised auth.login auth.denied auth.logout auth.role_changed
        agency.enrolled agency.changed agency.suspended config.changed
        witness.enrolled witness.removed witness.late witness.conflict clock.anomaly
        log.opened log.closed log.discontinuity
    """,
}

OPS: Final[Mapping[str, Op]] = MappingProxyType({name: op for op, names in _TYPES.items() for name in names.split()})
"""The closed set: every type of event, and its operation in the sense of s.62."""

EVENT_TYPES: Final = tuple(sorted(OPS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.  `id`, `type`, `op` and the version are put into `what` by us.

    `who` is the organisation as client and, where a person acts, person, role, method, session; `why` is purpose,
    basis, threshold, clause, keyed case token, reason code.  `subjects` and `recipients` hold only what was shown; what
    was hidden, and why, is in `detail`.  Raises InvalidEvent for a type outside the closed set, a body that has no
    canonical form, or more than 8 KiB in all (large detail goes to an encrypted blob, by its digest).
    """

    id: str
    type: str
    who: Mapping[str, Json]
    what: Mapping[str, Json]
    why: Mapping[str, Json]
    subjects: Sequence[Json] = ()
    recipients: Sequence[Json] = ()
    detail: Mapping[str, Json]
    canonical_bodies: Mapping[SectionName, bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.type not in OPS:
            raise InvalidEvent("the type is not of the closed set audit.events.EVENT_TYPES")
        if not _EVENT_ID.fullmatch(self.id):
            raise InvalidEvent("an event id is 8 to 64 letters, digits, - and _")
        if taken := {"v", "id", "type", "op"} & self.what.keys():
            raise InvalidEvent(f"`what` may not set {', '.join(sorted(taken))}: the event does")
        bodies = {name: canonical(body) for name, body in self.bodies().items()}
        object.__setattr__(self, "canonical_bodies", bodies)
        size = sum(map(len, bodies.values()))
        if size > MAX_EVENT_BYTES:
            raise InvalidEvent(f"an event is at most {MAX_EVENT_BYTES} bytes, not {size}: move large detail to a blob")

    @property
    def op(self) -> Op:
        """The operation of s.62 that this type of event is."""
        return OPS[self.type]

    def bodies(self) -> dict[SectionName, Json]:
        """The six bodies, as they are committed to."""
        return {
            "who": self.who,
            "what": {**self.what, "v": VERSION, "id": self.id, "type": self.type, "op": self.op.value},
            "why": self.why,
            "subjects": self.subjects,
            "recipients": self.recipients,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Section:
    """One section with its salt: all that is needed to show it, and all that erasing it must delete."""

    name: SectionName
    body: Json
    salt: bytes

    def __post_init__(self) -> None:
        if self.name not in SECTIONS or len(self.salt) != SALT_BYTES:
            raise InvalidEvent("a section has one of six names and a salt of 32 bytes")

    @property
    def commitment(self) -> bytes:
        """32 bytes that fix name, salt and body and give none of them away."""
        return section_commitment(self.name, self.salt, canonical(self.body))

    def to_json(self) -> dict[str, Json]:
        """`{"body", "salt"}`, as stored and as shown."""
        return {"body": self.body, "salt": _b64(self.salt)}


@dataclass(frozen=True, slots=True)
class Opening:
    """All six sections of an event, each either opened (`Section`) or withheld (its commitment, 32 bytes)."""

    sections: Mapping[SectionName, Section | bytes]

    def __post_init__(self) -> None:
        if set(self.sections) != set(SECTIONS):
            raise InvalidEvent("an opening names all six sections, each opened or withheld")

    @property
    def commitment(self) -> bytes:
        """The event's commitment, the same however much is withheld."""
        return event_commitment({name: _commitment(section) for name, section in self.sections.items()})

    @property
    def withheld(self) -> tuple[SectionName, ...]:
        """The sections that are not shown."""
        return tuple(name for name in SECTIONS if isinstance(self.sections[name], bytes))

    def body(self, name: SectionName) -> Json:
        """The body of an opened section.  Raises InvalidEvent if it is withheld."""
        section = self.sections[name]
        if isinstance(section, bytes):
            raise InvalidEvent(f"section {name} is withheld")
        return section.body

    def redacted(self, keep: Collection[SectionName]) -> Opening:
        """The same event with every section outside `keep` withheld."""
        kept = {n: s if n in keep else _commitment(s) for n, s in self.sections.items()}
        return Opening(kept)

    def with_section(self, section: Section) -> Opening:
        """The same event with one more section opened.  Raises InvalidEvent if it is not the one committed to."""
        if section.commitment != _commitment(self.sections[section.name]):
            raise InvalidEvent(f"section {section.name} is not the one this event committed to")
        return Opening({**self.sections, section.name: section})

    def to_json(self) -> dict[str, Json]:
        """`{section: {"body", "salt"} | {"commitment"}}`."""
        return {
            name: {"commitment": _b64(section)} if isinstance(section, bytes) else section.to_json()
            for name, section in self.sections.items()
        }

    @classmethod
    def from_json(cls, value: object) -> Opening:
        """Parse what `to_json` wrote.  Raises InvalidEvent for anything else."""
        if not isinstance(value, dict) or set(value) != set(SECTIONS):
            raise InvalidEvent("an opening names all six sections, each opened or withheld")
        return cls({name: _parse_section(name, value[name]) for name in SECTIONS})


@dataclass(frozen=True, slots=True)
class Leaf:
    """What enters the tree: a time and a commitment."""

    at_ms: int
    commitment: bytes

    def __post_init__(self) -> None:
        if not _EARLIEST_MS <= self.at_ms <= _LATEST_MS or len(self.commitment) != 32:
            raise InvalidEvent("a leaf holds thirteen digits of unix milliseconds and 32 bytes")

    @property
    def text(self) -> bytes:
        """The 71 bytes."""
        return b"sg-audit/v1\n%d\n%s\n" % (self.at_ms, base64.b64encode(self.commitment))

    @classmethod
    def parse(cls, text: bytes) -> Leaf:
        """Parse the 71 bytes.  Raises InvalidEvent for anything that `text` would not write."""
        return cls(leaf_ms(text), _unb64(text[26:70].decode()))


@dataclass(frozen=True, slots=True)
class Sealed:
    """An event with its salts, ready to be stored beside its leaf."""

    event_id: str
    at_ms: int
    sections: Mapping[SectionName, Section]
    commitment: bytes
    canonical_bodies: Mapping[SectionName, bytes] = field(repr=False, compare=False)

    @property
    def leaf(self) -> Leaf:
        """The leaf as of the time it was sealed; the sequencer never lets time run backwards, so it may move it on."""
        return Leaf(self.at_ms, self.commitment)

    def opening(self, show: Collection[SectionName]) -> Opening:
        """The event with only these sections opened."""
        hidden = {
            name: section_commitment(name, section.salt, self.canonical_bodies[name])
            for name, section in self.sections.items()
            if name not in show
        }
        return Opening({**self.sections, **hidden})

    def canonical_section(self, name: SectionName) -> bytes:
        """A section with its salt, as the canonical form of `Section.to_json`."""
        salt = _b64(self.sections[name].salt).encode()
        return b'{"body":' + self.canonical_bodies[name] + b',"salt":"' + salt + b'"}'


def seal(event: Event, *, at_ms: int, salts: Callable[[int], bytes] = secrets.token_bytes) -> Sealed:
    """The event under its commitment, each section with a fresh salt.  `at_ms` is unix milliseconds.

    `salts` gives so many bytes that nobody can guess; it is asked once, as each call lets another thread in.
    """
    drawn = salts(SALT_BYTES * len(SECTIONS))
    sections = {
        name: Section(name, body, drawn[at * SALT_BYTES : (at + 1) * SALT_BYTES])
        for at, (name, body) in enumerate(event.bodies().items())
    }
    commitments = {n: section_commitment(n, sections[n].salt, body) for n, body in event.canonical_bodies.items()}
    commitment = event_commitment(commitments)
    return Sealed(event.id, Leaf(at_ms, commitment).at_ms, sections, commitment, event.canonical_bodies)


def leaf_ms(text: bytes) -> int:
    """The time of a leaf's 71 bytes, in unix milliseconds.  Raises InvalidEvent for any other text."""
    found = _LEAF.fullmatch(text)
    if not found:
        raise InvalidEvent("not a leaf of sg-audit/v1")
    return int(found[1])


def section_commitment(name: SectionName, salt: bytes, body: bytes) -> bytes:
    """SHA-256("sg-audit/section/v1" 00 name 00 salt body), the salt 32 bytes and the body canonical."""
    return hashlib.sha256(b"sg-audit/section/v1\x00" + name.encode() + b"\x00" + salt + body).digest()


def event_commitment(sections: Mapping[SectionName, bytes]) -> bytes:
    """SHA-256("sg-audit/event/v1" 00 JCS({name: base64(commitment)})), over all six."""
    named = ",".join(f'"{name}":"{_b64(sections[name])}"' for name in _IN_ORDER)
    return hashlib.sha256(b"sg-audit/event/v1\x00{" + named.encode() + b"}").digest()


def canonical(value: Json) -> bytes:
    """RFC 8785 bytes.  Raises InvalidEvent for floats, whole numbers past 2^53 - 1, lone surrogates, other types."""
    try:
        if _ordinary(value):
            return _ENCODE(value).encode()
        return rfc8785.dumps(cast("Any", _plain(value)))
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError):
        raise InvalidEvent("an event's section has no canonical form (RFC 8785)") from None


def loads(text: str | bytes) -> Json:
    """JSON that has one meaning only.  Raises InvalidEvent for duplicate keys, NaN, infinity, or no JSON.

    A float is let through, as an answer around a receipt may hold one; in an event's section `canonical` refuses it.
    """
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidEvent("not JSON with one meaning (duplicate key, NaN, or no JSON at all)") from None
    return cast("Json", value)


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidEvent("a key is written twice")
    return found


def _refuse_constant(_: str) -> Json:
    raise InvalidEvent("not a number that JSON knows")


def _ordinary(value: Any) -> bool:
    """Whether Python's own encoder, which is many times as fast, writes this value as RFC 8785 does.

    So it is for all that an event holds as a rule: text, whole numbers within 2^53 - 1, lists, and keys in ASCII, which
    sort alike by code point and by UTF-16 unit.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return bool(-_LARGEST <= value <= _LARGEST)
    if kind is dict:
        if not all(type(key) is str and key.isascii() for key in value):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    return all(type(inner) is str or _ordinary(inner) for inner in value)


def _plain(value: Json) -> Json:
    """Mappings as dicts and sequences as lists, which is what rfc8785 takes.  Raises InvalidEvent for a float."""
    if isinstance(value, str | int | None):
        return value
    if isinstance(value, float):
        raise InvalidEvent("an event holds no floating-point number")
    if isinstance(value, dict | Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | Sequence) and not isinstance(value, bytes):
        return [_plain(inner) for inner in value]
    return value


def _commitment(section: Section | bytes) -> bytes:
    return section if isinstance(section, bytes) else section.commitment


def _parse_section(name: SectionName, value: object) -> Section | bytes:
    match value:
        case {"commitment": str(commitment), **rest} if not rest:
            return _unb64(commitment)
        case {"body": body, "salt": str(salt), **rest} if not rest:
            return Section(name, body, _unb64(salt))
        case _:
            raise InvalidEvent(f"section {name} is neither opened (body, salt) nor withheld (commitment)")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidEvent("not base64") from None
    if len(data) != 32 or _b64(data) != text:
        raise InvalidEvent("not 32 bytes in the one spelling of base64")
    return data

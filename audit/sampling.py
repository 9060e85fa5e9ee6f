"""Which events a person looks at, drawn so that nobody chose them, and so that anybody can draw them again.

Whoever could steer the draw could hide.  So its seed is fixed by others, only after the period has ended, and by a rule
that leaves the host none to choose from: by the first line that a witness put, at the end or later, under a checkpoint
whose last entry is of then or later.  Of a root alone the host could try many, adding entries of its own until one
suits; a witness's signature it can't foretell, and one that it passes over the witness still has (`Witness.grown`).

    seed    SHA-256("sg-audit/sample/v2" 00, the checkpoint's three lines, the witness's name 00 and its line's bytes);
            of lines of one second the first by name
    rank    HMAC-SHA-256(seed, event id)
    drawn   all that must be looked at; of the rest, of each stratum (organisation, role, purpose) the lowest ranks,
            so many percent of it, rounded up; and then the lowest ranks of what is left until there are enough

What remains: a witness that the host owns, or whose key it has, can date a line as it likes and sign until one suits.
A log without witnesses has a seed too, of the checkpoint alone; whatever is drawn by it says that it was not witnessed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from audit.checkpoint import SignedCheckpoint
from audit.events import canonical
from audit.policy import Policy, QuorumMissing

PERCENT: Final = 5
LEAST: Final = 20
LOT: Final = "lot"  # why an event was drawn that need not be
_DOMAIN: Final = b"sg-audit/sample/v2\x00"


class SampleInvalid(ValueError):
    """A list of candidates, or terms, that no sample can be drawn of."""


class Stratum(NamedTuple):
    """What is drawn from by itself, so that no small group is passed over."""

    organisation: str
    role: str
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An event of the period that may be drawn.  `always`: why it is looked at in any case; empty where by lot."""

    event_id: str
    organisation: str
    role: str
    purpose: str
    always: str = ""

    @property
    def stratum(self) -> Stratum:
        """The stratum it is drawn in."""
        return Stratum(self.organisation, self.role, self.purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What ranks the candidates.  `witnesses`: when each cosigned, in unix seconds; empty for a log that has none."""

    value: bytes
    note: str  # the checkpoint with the lines of after the period, and the log's own
    witnesses: Mapping[str, int]
    first: tuple[int, str] | None  # of the line that counts: unix seconds, and its witness's key's name
    quorum: bool  # whether those lines are a quorum, where the policy asks for one

    @property
    def witnessed(self) -> bool:
        """Whether others than the host had a hand in it."""
        return self.first is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What was drawn: event id and why (`lot`, or its candidate's `always`), and of how many in each stratum."""

    drawn: Mapping[str, str]
    strata: Mapping[Stratum, tuple[int, int]]  # drawn, of


def seed_of(signed: SignedCheckpoint, policy: Policy, *, ended_s: int) -> Seed:
    """The seed of a period that ended at `ended_s`, unix seconds: of the first line that stands there since.

    Lines of others than the policy's witnesses, those that do not verify and those of before the end count for nothing.
    Raises NoteInvalid if the log did not sign it, QuorumMissing if the policy asks for witnesses and none signed after
    the end.
    """
    late = {name: at for name, at in policy.cosigned(signed).items() if at >= ended_s}
    keys = {name: policy.witnesses[name] for name in sorted(late)}
    lines = {
        key.name: next(one for one in signed.signatures if (one.name, one.key_id) == (key.name, key.key_id))
        for key in keys.values()
    }
    own = tuple(one for one in signed.signatures if one.name == signed.checkpoint.origin)
    kept = SignedCheckpoint(signed.checkpoint, (*own, *lines.values()))
    policy.signed_by_log(kept)
    if policy.quorum is not None and not late:
        raise QuorumMissing("no witness signed after the period's end")
    try:
        policy.accept(kept)
        quorum = True
    except QuorumMissing:
        quorum = False
    told = hashlib.sha256(_DOMAIN + signed.checkpoint.text.encode())
    first = min(((at, keys[name].name) for name, at in late.items()), default=None)
    if first is not None:
        told.update(first[1].encode() + b"\x00" + lines[first[1]].signature)
    return Seed(value=told.digest(), note=kept.note, witnesses=late, first=first, quorum=quorum)


def draw(candidates: Iterable[Candidate], seed: bytes, *, percent: int = PERCENT, least: int = LEAST) -> Sample:
    """The sample, the same in whatever order the candidates come.

    Raises SampleInvalid for an id that stands there twice, or terms outside 0 to 100 percent and at least 0.
    """
    if not 0 <= percent <= 100 or least < 0:
        raise SampleInvalid("a sample is of 0 to 100 percent, and of at least 0")
    listed = sorted(candidates, key=lambda one: rank(seed, one.event_id))
    if len({one.event_id for one in listed}) != len(listed):
        raise SampleInvalid("an event is listed twice")
    drawn = {one.event_id: one.always for one in listed if one.always}
    strata: dict[Stratum, list[str]] = defaultdict(list)
    for one in listed:
        if not one.always:
            strata[one.stratum].append(one.event_id)
    for ids in strata.values():
        drawn |= dict.fromkeys(ids[: -(-len(ids) * percent // 100)], LOT)
    left = [one.event_id for one in listed if one.event_id not in drawn]
    by_lot = sum(why == LOT for why in drawn.values())
    drawn |= dict.fromkeys(left[: max(0, least - by_lot)], LOT)
    return Sample(
        drawn={event_id: drawn[event_id] for event_id in sorted(drawn)},
        strata={
            stratum: (sum(each in drawn for each in ids), len(ids)) for stratum, ids in sorted(strata.items())
        },
    )  # fmt: skip


def rank(seed: bytes, event_id: str) -> bytes:
    """Where an event stands in the draw."""
    return hmac.digest(seed, event_id.encode(), "sha256")


def digest(candidates: Iterable[Candidate]) -> bytes:
    """SHA-256 over the candidates as canonical JSON, by their ids: what the sample's record commits to."""
    listed = sorted(candidates, key=lambda one: one.event_id)
    rows = [[one.event_id, one.organisation, one.role, one.purpose, one.always] for one in listed]
    return hashlib.sha256(canonical(rows)).digest()

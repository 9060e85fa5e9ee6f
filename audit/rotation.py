"""How a log came to the key that signs it now: what it published of itself, and the keys that follow from it.

The log's own entries about itself (opened, closed, discontinuity, key rotated, key compromised) hold nobody's data, so
they are published opened, as a file `history` beside the checkpoint:

    {"origin": text, "entries": [log receipt, ...]}      in the order of the log; of each entry `what` is opened

A new key is handed over by a `key.rotated` entry that names the old key and the new, under a checkpoint that the old
key signed.  An operator, or a thief, who signs with another key and has no such entry is found by whoever trusts both.
The old key vouches for nothing from that entry on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from audit.checkpoint import NoteInvalid, SignedCheckpoint, VerifierKey
from audit.events import InvalidEvent, Json, loads
from audit.receipts import LogReceipt, ReceiptInvalid

MILESTONES: Final = ("log.opened", "log.closed", "log.discontinuity", "key.rotated", "key.compromised")
MAX_ENTRIES: Final = 1000


class HistoryInvalid(ValueError):
    """What a log published of itself is not of this form, or proves nothing."""


@dataclass(frozen=True, slots=True)
class Milestone:
    """An entry of the log about itself; `what` is as it was opened."""

    receipt: LogReceipt
    what: Mapping[str, Json]

    @property
    def type(self) -> str:
        """Which of MILESTONES it is."""
        return str(self.what.get("type"))


def parse(text: str, origin: str) -> tuple[Milestone, ...]:
    """The milestones of a `history` file; each opening is the one its leaf commits to, in the tree of its checkpoint.

    Whether that checkpoint is to be trusted is not said.  Raises HistoryInvalid.
    """
    try:
        value = loads(text)
        if not isinstance(value, dict) or value.get("origin") != origin:
            raise HistoryInvalid("it is another log's")
        entries = value.get("entries")
        if not isinstance(entries, list) or len(entries) > MAX_ENTRIES:
            raise HistoryInvalid("it holds no list of entries")
        return tuple(_milestone(each, origin) for each in entries)
    except (InvalidEvent, ReceiptInvalid, NoteInvalid) as fault:
        raise HistoryInvalid(str(fault)) from None


def signers(signed: SignedCheckpoint, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Those of `keys` whose line stands under the checkpoint and verifies."""
    return tuple(key for key in keys if _signed_by(signed, key))


def follow(milestones: Sequence[Milestone], start: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """The keys that were handed over from `start`, and theirs in turn, `start` included.

    A hand-over counts if its entry is under a checkpoint that the old key signed.
    """
    reached = list(start)
    for old, new in _hand_overs(milestones):
        if old in reached and new not in reached:
            reached.append(new)
    return tuple(reached)


def retired(milestones: Sequence[Milestone], signed: SignedCheckpoint, keys: Collection[VerifierKey]) -> bool:
    """Whether one of `keys`, which signed, had been handed over to another that did not."""
    return any(old in keys and not _signed_by(signed, new) for old, new in _hand_overs(milestones))


def _hand_overs(milestones: Iterable[Milestone]) -> Iterator[tuple[VerifierKey, VerifierKey]]:
    for milestone in milestones:
        old, new = (_vkey(milestone.what.get(name)) for name in ("old", "new"))
        if milestone.type != "key.rotated" or old is None or new is None:
            continue
        if _signed_by(milestone.receipt.proof.signed, old):
            yield old, new


def _milestone(value: Json, origin: str) -> Milestone:
    receipt = LogReceipt.from_json(value)
    receipt.verify_itself()
    if receipt.proof.signed.checkpoint.origin != origin or "what" in receipt.opening.withheld:
        raise HistoryInvalid("an entry is of another log, or does not say what it is")
    what = receipt.opening.body("what")
    if not isinstance(what, Mapping) or what.get("type") not in MILESTONES:
        raise HistoryInvalid("an entry is not about the log itself")
    return Milestone(receipt, what)


def _vkey(text: Json) -> VerifierKey | None:
    try:
        return VerifierKey.parse(text) if isinstance(text, str) else None
    except NoteInvalid:
        return None


def _signed_by(signed: SignedCheckpoint, key: VerifierKey) -> bool:
    try:
        return signed.signed_by(key)
    except NoteInvalid:
        return False

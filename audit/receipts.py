"""The log receipt: an event as opened to whoever holds it, and the proof that it is in the log.

The proof is a C2SP `tlog-proof@v1` text: index, inclusion path and the signed checkpoint, checked offline against a
policy.  Its `extra` line carries the leaf's own 71 bytes, which the path then proves, so a client that knows nothing of
our events can check it.  The opening ties the event to the leaf's commitment.

    {"event_id", "log": {"origin", "size"}, "opening": {section: {"body", "salt"} | {"commitment"}}, "proof": text}
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from audit.checkpoint import NoteInvalid, SignedCheckpoint
from audit.events import InvalidEvent, Json, Leaf, Opening, Sealed, SectionName, loads
from audit.merkle import HASH_BYTES, ProofInvalid, leaf_hash, verify_inclusion
from audit.policy import Accepted, Policy

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_INDEX: Final = re.compile(r"index (0|[1-9][0-9]{0,14})")
MAX_PATH: Final = 63


class ReceiptInvalid(ValueError):
    """A receipt or proof that is malformed, or does not prove what it says."""


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A leaf's place in a checkpointed tree."""

    index: int
    path: tuple[bytes, ...]
    signed: SignedCheckpoint
    leaf: Leaf

    @property
    def text(self) -> str:
        """The `.tlog-proof` file."""
        lines = [_HEADER, f"extra {_b64(self.leaf.text)}", f"index {self.index}", *map(_b64, self.path)]
        return "\n".join(lines) + f"\n\n{self.signed.note}"

    @classmethod
    def parse(cls, text: str) -> TlogProof:
        """Parse a `.tlog-proof` of ours.  Raises ReceiptInvalid; nothing is verified yet."""
        head, blank, note = text.partition("\n\n")
        header, extra, index, *path = [*head.split("\n"), "", ""] if head.count("\n") < 2 else head.split("\n")
        found = _INDEX.fullmatch(index)
        if header != _HEADER or not blank or not found or not extra.startswith("extra ") or len(path) > MAX_PATH:
            raise ReceiptInvalid("not a tlog-proof@v1 with our leaf as its extra data")
        try:
            leaf = Leaf.parse(_unb64(extra.removeprefix("extra ")))
            return cls(int(found[1]), tuple(_unb64(each) for each in path), SignedCheckpoint.parse(note), leaf)
        except (NoteInvalid, InvalidEvent) as fault:
            raise ReceiptInvalid(str(fault)) from None

    def verify(self, policy: Policy) -> Accepted:
        """The checkpoint that this leaf is under.

        Raises ReceiptInvalid if the path fails, NoteInvalid or QuorumMissing if the checkpoint does not meet `policy`.
        """
        accepted = policy.accept(self.signed)
        self.verify_path()
        return accepted

    def verify_path(self) -> None:
        """Raises ReceiptInvalid unless the leaf is at its index under the checkpoint's root, whoever signed that."""
        checkpoint = self.signed.checkpoint
        try:
            verify_inclusion(leaf_hash(self.leaf.text), self.index, checkpoint.size, self.path, checkpoint.root)
        except ProofInvalid as fault:
            raise ReceiptInvalid(f"the leaf is not in the tree: {fault}") from None


@dataclass(frozen=True, slots=True)
class LogReceipt:
    """What is handed to whoever an event concerns, in the answer itself."""

    event_id: str
    opening: Opening
    proof: TlogProof

    @classmethod
    def of(
        cls, event_id: str, opening: Opening, *, leaf: Leaf, index: int, path: Sequence[bytes], note: str
    ) -> LogReceipt:
        """The receipt of an entry under a signed checkpoint.  Raises ReceiptInvalid if it would not verify itself."""
        receipt = cls(event_id, opening, TlogProof(index, tuple(path), SignedCheckpoint.parse(note), leaf))
        receipt.verify_itself()
        return receipt

    @classmethod
    def of_sealed(cls, sealed: Sealed, show: Collection[SectionName], proof: TlogProof) -> LogReceipt:
        """The receipt of an event as this process sealed it, with these sections opened.

        Raises ReceiptInvalid if the leaf is another event's, or the path fails.
        """
        if proof.leaf.commitment != sealed.commitment:
            raise ReceiptInvalid("the event is not the one its leaf commits to")
        proof.verify_path()
        return cls(sealed.event_id, sealed.opening(show), proof)

    @property
    def size(self) -> int:
        """The size of the log that the proof is for."""
        return self.proof.signed.checkpoint.size

    def to_json(self) -> dict[str, Json]:
        """As it stands in an answer."""
        checkpoint = self.proof.signed.checkpoint
        return {
            "event_id": self.event_id,
            "log": {"origin": checkpoint.origin, "size": checkpoint.size},
            "opening": self.opening.to_json(),
            "proof": self.proof.text,
        }

    def dumps(self) -> str:
        """As it is kept in a file."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, value: object, *, proof: str | None = None) -> LogReceipt:
        """Parse what `to_json` wrote; `proof` stands in for a proof kept in a file of its own.

        Members that are not ours (an answer's receipt also bears decision receipts) are left alone.  Raises
        ReceiptInvalid; nothing is verified yet.
        """
        if not isinstance(value, dict) or not isinstance(value.get("event_id"), str):
            raise ReceiptInvalid("a log receipt is {event_id, log, opening, proof}")
        text = proof if proof is not None else value.get("proof")
        if not isinstance(text, str):
            raise ReceiptInvalid("there is no proof in the receipt, nor beside it")
        try:
            receipt = cls(value["event_id"], Opening.from_json(value.get("opening")), TlogProof.parse(text))
        except InvalidEvent as fault:
            raise ReceiptInvalid(str(fault)) from None
        checkpoint = receipt.proof.signed.checkpoint
        named = {"origin": checkpoint.origin, "size": checkpoint.size}
        if value.get("log", None if proof is None else named) != named:
            raise ReceiptInvalid("the receipt names another log or size than its proof")
        return receipt

    @classmethod
    def loads(cls, text: str | bytes, *, proof: str | None = None) -> LogReceipt:
        """Parse a file.  Raises ReceiptInvalid."""
        try:
            return cls.from_json(loads(text), proof=proof)
        except InvalidEvent as fault:
            raise ReceiptInvalid(str(fault)) from None

    def verify(self, policy: Policy) -> Accepted:
        """The checkpoint that this event, as opened, is under.

        Raises ReceiptInvalid if the opening is not the leaf's or the path fails, NoteInvalid or QuorumMissing if the
        checkpoint does not meet `policy`.
        """
        accepted = policy.accept(self.proof.signed)
        self.verify_itself()
        return accepted

    def verify_itself(self) -> None:
        """Raises ReceiptInvalid unless event, leaf and path belong together, whoever signed the checkpoint."""
        try:
            commitment = self.opening.commitment
            named = "what" in self.opening.withheld or _named(self.opening.body("what")) == self.event_id
        except InvalidEvent as fault:
            raise ReceiptInvalid(str(fault)) from None
        if commitment != self.proof.leaf.commitment:
            raise ReceiptInvalid("the event, as opened, is not the one its leaf commits to")
        if not named:
            raise ReceiptInvalid("the receipt names another event than the one it opens")
        self.proof.verify_path()


def _named(what: Json) -> Json:
    return what.get("id") if isinstance(what, dict) else None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ReceiptInvalid("not base64") from None
    if _b64(data) != text or len(data) not in (HASH_BYTES, 71):
        raise ReceiptInvalid("not a hash or a leaf in base64")
    return data

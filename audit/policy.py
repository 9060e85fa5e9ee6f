"""Whom a verifier trusts: the C2SP tlog-policy file, handed over out of band and never fetched from the log.

log <vkey> [<url>]
witness <name> <vkey> [<url>]
group <name> <k>|any|all <member>...
quorum <name>|none

Several `log` lines of one name are the keys of one log, in the order in which they came into use: a log that a later
one signed, and the first one did not, must show how the key was handed over (`audit.rotation`).  What only an older one
of them signed is taken for older than the newest key, and by itself vouches for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from audit.checkpoint import (
    LOG_KEY,
    ML_DSA_KEY,
    WITNESS_KEY,
    Checkpoint,
    NoteInvalid,
    SignedCheckpoint,
    VerifierKey,
)

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD: Final = re.compile(r"[1-9][0-9]{0,2}")


class PolicyInvalid(ValueError):
    """A policy file that can't be read; names the line."""


class QuorumMissing(ValueError):
    """The log signed, and too few witnesses did."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group has witnessed a checkpoint if at least `threshold` of its members have."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A checkpoint that meets a policy, and when each witness that signed did, in unix seconds."""

    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """The logs that are accepted, the witnesses that are known, and how many of them it takes."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey]
    groups: Mapping[str, Group]
    quorum: str | None

    @classmethod
    def parse(cls, text: bytes) -> Policy:
        """Parse a policy file.  Raises PolicyInvalid, naming the line."""
        if _CONTROL.search(text):
            raise PolicyInvalid("a policy file holds no control characters but tab and newline")
        reader = _Reader()
        for number, line in enumerate(text.decode("utf-8", "surrogateescape").split("\n"), start=1):
            words = [word for word in re.split(r"[ \t]+", line) if word]
            if words and not words[0].startswith("#"):
                try:
                    reader.take(words)
                except (NoteInvalid, PolicyInvalid) as fault:
                    raise PolicyInvalid(f"line {number}: {fault}") from None
        if reader.quorum is None:
            raise PolicyInvalid("there is no quorum line (without witnesses: quorum none)")
        quorum = None if reader.quorum == "none" else reader.quorum
        return cls(tuple(reader.logs), reader.witnesses, reader.groups, quorum)

    @property
    def text(self) -> str:
        """The policy file."""
        lines = [f"log {key}" for key in self.logs]
        lines += [f"witness {name} {key}" for name, key in self.witnesses.items()]
        lines += [f"group {name} {group.threshold} {' '.join(group.members)}" for name, group in self.groups.items()]
        return "\n".join([*lines, f"quorum {self.quorum or 'none'}"]) + "\n"

    def signed_by_log(self, signed: SignedCheckpoint) -> None:
        """Raises NoteInvalid unless one of the logs, under its own name as the origin, signed this checkpoint."""
        own = [log for log in self.logs if log.name == signed.checkpoint.origin]
        if not own:
            raise NoteInvalid("the checkpoint's origin is not a log of the policy")
        if not any(signed.signed_by(log) for log in own):
            raise NoteInvalid("no log key of the policy signed the checkpoint")

    def signed_by_newest(self, signed: SignedCheckpoint) -> bool:
        """Whether the log's newest key is among those that signed.

        If not, the checkpoint is from before that key, or of somebody who kept an older one.
        """
        own = [log for log in self.logs if log.name == signed.checkpoint.origin]
        newest = [log for log in own if log.kind == LOG_KEY][-1:] or own[-1:]
        return any(signed.signed_by(log) for log in newest)

    def accept(self, signed: SignedCheckpoint) -> Accepted:
        """The checkpoint, signed by a log and by a quorum.

        Raises NoteInvalid if no log of the policy signed it, QuorumMissing if too few witnesses did; a witness's line
        that does not verify counts for nothing, so that nobody can spoil a note by adding one.
        """
        self.signed_by_log(signed)
        cosigned = self.cosigned(signed)
        if self.quorum is not None and not self._witnessed(self.quorum, cosigned):
            raise QuorumMissing(f"{len(cosigned)} of {len(self.witnesses)} witnesses signed, which is no quorum")
        return Accepted(signed.checkpoint, cosigned)

    def cosigned(self, signed: SignedCheckpoint) -> dict[str, int]:
        """When each witness of the policy signed that did, in unix seconds; whether they are a quorum is not said."""
        found: dict[str, int] = {}
        for name, key in self.witnesses.items():
            try:
                at = signed.cosigned_at(key)
            except NoteInvalid:
                continue
            if at is not None:
                found[name] = at
        return found

    def _witnessed(self, name: str, cosigned: Mapping[str, int]) -> bool:
        group = self.groups.get(name)
        if group is None:
            return name in cosigned
        return sum(self._witnessed(member, cosigned) for member in group.members) >= group.threshold


class _Reader:
    """A policy as far as its lines have been read: each may only name what stands above it."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.witnesses: dict[str, VerifierKey] = {}
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._grouped: set[str] = set()

    def take(self, words: list[str]) -> None:
        match words:
            case ["log", vkey] | ["log", vkey, _]:
                key = self._key(vkey, LOG_KEY, ML_DSA_KEY)
                if any(key.public == other.public for other in self.logs):
                    raise PolicyInvalid("a log stands twice")
                self.logs.append(key)
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                key = self._key(vkey, WITNESS_KEY, ML_DSA_KEY)
                if any(key.public == other.public for other in self.witnesses.values()):
                    raise PolicyInvalid("a witness stands twice")
                self.witnesses[self._new(name)] = key
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                if self.quorum is not None:
                    raise PolicyInvalid("there are two quorum lines")
                self.quorum = name if name == "none" else self._known(name)
            case _:
                raise PolicyInvalid("not a line of a policy: log, witness, group or quorum")

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        wanted = {"any": 1, "all": len(members)}.get(threshold)
        if wanted is None and _THRESHOLD.fullmatch(threshold):
            wanted = int(threshold)
        if wanted is None or wanted > len(members):
            raise PolicyInvalid("a group's threshold is any, all, or 1 to the number of its members")
        for member in members:
            if self._known(member) in self._grouped:
                raise PolicyInvalid("a name is a member twice")
            self._grouped.add(member)
        self.groups[self._new(name)] = Group(wanted, tuple(members))

    def _key(self, vkey: str, *kinds: int) -> VerifierKey:
        key = VerifierKey.parse(vkey)
        if key.kind not in kinds:
            due = " or ".join(f"{kind:#04x}" for kind in kinds)
            raise PolicyInvalid(f"a key here is of type {due}, not {key.kind:#04x}")
        return key

    def _new(self, name: str) -> str:
        if name == "none" or name in self.witnesses or name in self.groups:
            raise PolicyInvalid("a name stands twice, or is `none`")
        return name

    def _known(self, name: str) -> str:
        if name not in self.witnesses and name not in self.groups:
            raise PolicyInvalid("a name is used before the line that defines it")
        return name

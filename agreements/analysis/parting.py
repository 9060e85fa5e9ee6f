"""Who no longer shares with whom after an act on the register, which the act's own words don't say.

A version that only some parties have signed takes them out of the older one: whoever stays there is left alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from agreements.agreement import Agreement
from agreements.snapshot import Snapshot

Pairs = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """A party that loses what it disclosed or received under an agreement, in whichever version, and for want of what.

    `unsigned`: the version in force that the party has not signed, if that is why.
    """

    party: str
    agreement: str
    to: tuple[str, ...]  # whom it no longer discloses to
    of: tuple[str, ...]  # whose disclosures it no longer receives
    unsigned: str | None
    since: datetime


def partings(before: Snapshot, after: Snapshot, instants: Iterable[datetime]) -> tuple[Parting, ...]:
    """Between whom an agreement was live before and in no version is after, a second from the first of some instants:
    signatures and replacements are to the second.

    A pair is told of the party that has not signed the newest version, or of both if both have, or neither.
    """
    told: dict[tuple[str, str], Parting] = {}
    for since in sorted(instants):
        at = since + timedelta(seconds=1)
        for name in sorted({one.id for one in before.agreements if one.grants}):
            lost = _live(before, name, at) - _live(after, name, at)
            newest = _newest(after, name, at)
            cut: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
            for pair in lost:
                unsigned = [party for party in pair if newest is not None and not _signed(after, newest, party, at)]
                for party in unsigned or pair:
                    cut[party].add(pair)
            for party, pairs in sorted(cut.items()):
                missing = newest is not None and not _signed(after, newest, party, at)
                one = Parting(
                    party=party, agreement=name, since=since, unsigned=newest.ref if newest and missing else None,
                    to=tuple(sorted(recipient for source, recipient in pairs if source == party)),
                    of=tuple(sorted(source for source, recipient in pairs if recipient == party)),
                )  # fmt: skip
                told.setdefault((name, party), one)
    return tuple(told.values())


def _live(snapshot: Snapshot, name: str, at: datetime) -> Pairs:
    """Between whom some version gives something at an instant."""
    return frozenset(
        (source, recipient)
        for agreement in snapshot.agreements
        if agreement.id == name and at in agreement.period
        for grant in agreement.grants
        for source in grant.sources
        for recipient in grant.organisations
        if source != recipient and snapshot.standing(agreement, source, recipient, at).live
    )


def _newest(snapshot: Snapshot, name: str, at: datetime) -> Agreement | None:
    """The newest version whose period runs."""
    running = [one for one in snapshot.agreements if one.id == name and at in one.period]
    return max(running, key=lambda one: tuple(int(part) for part in one.version.split(".")), default=None)


def _signed(snapshot: Snapshot, agreement: Agreement, party: str, at: datetime) -> bool:
    signed = snapshot.signed_at.get((party, agreement.digest))
    return signed is not None and signed <= at

"""What the commands on agreements and restrictions say: in words for a person, and as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agreements.lifecycle import spoken

if TYPE_CHECKING:
    from agreements.agreement import Document
    from agreements.analysis.parting import Parting
    from agreements.lifecycle import Due
    from broker.documents import Signer
    from broker.register import Listed


class Act(StrEnum):
    """What a party may do about its own part."""

    SUSPEND = "suspend"
    RESUME = "resume"
    WITHDRAW = "withdraw"
    SUPERSEDE = "supersede"


_DONE: Final = {
    "suspend": ("suspended", "what it discloses has stopped; what others disclose is as it was."),
    "resume": ("signed", "it takes part again."),
    "withdraw": ("withdrawn", "it has left: nothing goes to it or from it."),
    "supersede": ("superseded", "it has left this version for a newer one."),
}
_STANDS: Final = {
    "signed": "signed",
    "suspended": "signed, and has stopped its own disclosures",
    "withdrawn": "has left",
    "superseded": "has signed a newer version",
    "unsigned": "has not signed",
}
_NOW: Final = {
    "signed": "takes part",
    "suspended": "has stopped its own disclosures",
    "withdrawn": "has left",
    "superseded": "has left for a newer version",
    "unsigned": "has not signed",
}
_OUTSIDE: Final = "no part is taken in its umbrella"
_IN_FORCE: Final = ("active", "agreed")
_WHY: Final = {
    "": "",
    "unsigned": "two parties have yet to sign",
    "host": "by this host",
    "period": "by its period",
    "parties": "by its parties",
    "review": "its review is overdue",
    "umbrella": "by its umbrella",
}


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Let what is refused in reading a file name the file."""
    from broker.errors import BadAgreement, BadSignature, Malformed

    try:
        yield
    except (BadAgreement, BadSignature, Malformed) as wrong:
        raise type(wrong)(f"{path}: {wrong}") from None


def signed(document: Document, signers: Sequence[Signer]) -> dict[str, Any]:
    """Who has signed a document, and who has not."""
    from agreements.agreement import Agreement

    parties = document.parties if isinstance(document, Agreement) else [document.owner]
    by = {one.party for one in signers if one.wrong is None}
    return {
        "signed": [
            {"party": one.party, "kid": one.kid, "at": _iso(one.at), "wrong": one.wrong, "known": one.known}
            for one in signers
        ],
        "awaited": sorted(party for party in parties if party not in by),
    }


def checked(report: Mapping[str, Any]) -> str:
    """A report of `check` in words."""
    lines = [
        f"{one['severity']}: {one['code'] + ': ' if one['code'] else ''}{one['path']}: {one['message']}; {one['fix']}"
        for one in report["findings"]
    ]
    if report["ref"] is None:
        return "\n".join([*lines, f"{report['file']} does not load."])
    from agreements.agreement import london_day

    lines.append(f"{report['ref']} loads. Its text is sha256:{report['digest']}.")
    for one in report["signed"]:
        if not one["known"]:
            fix = "give that agency's public.json with --public, or ask the register with --register"
            lines.append(f"A signature can't be checked: {one['wrong']}; {fix}.")
        elif one["wrong"]:
            lines.append(f"A signature does not hold: {one['wrong']}.")
        else:
            on = spoken(london_day(datetime.fromisoformat(one["at"])))
            lines.append(f"{one['party']} signed on {on} with {one['kid']}.")
    if report["awaited"]:
        lines.append(f"Not seen here as signed by: {', '.join(report['awaited'])}.")
    return "\n".join(lines)


def refusal(ref: str, missing: Sequence[Mapping[str, Any]]) -> str:
    """What keeps a document from being put in force, in words."""
    return "\n".join(
        [
            f"{ref} is not put in force:",
            *(f"  {one['code']}: {one['path']}: {one['message']}; {one['fix']}" for one in missing),
            "A signed text can't be changed: write these into a new version, and have it signed.",
        ]
    )


def event_done(row: Listed, party: str, act: str) -> tuple[bool, str]:
    """Whether a party stands now where its event says, and what to tell of it: a later event may have undone it."""
    from agreements.agreement import london_day

    expected, words = _DONE[act]
    standing = row.state.parties[party]
    if standing.state != expected:
        since = f" since {spoken(london_day(standing.since))}" if standing.since else ""
        return False, (
            f"{row.ref}: this event of {party} changes nothing: it {_NOW[standing.state]}{since} by a "
            f"later one; `sign-event {act}` writes a new one."
        )
    rest = "" if act != "resume" or row.state.name in _IN_FORCE else f" {_out_of_force(row)}"
    return True, f"{row.ref}: {party}: {words}{rest}"


def activated(row: Listed) -> tuple[bool, str]:
    """Whether a document that the host has put in force is that, and what to tell of it."""
    if row.state.name not in _IN_FORCE:
        return row.state.name == "in_signature", f"This host holds {row.ref} in force. {_out_of_force(row)}"
    begins = f" from {spoken(row.effective)}" if row.state.name == "agreed" else ""
    unsigned = [party for party, one in sorted(row.state.parties.items()) if one.state == "unsigned"]
    waits = f" Nothing goes to or from {' and '.join(unsigned)} under it, until signed." if unsigned else ""
    out = f" Nothing goes to or from {' and '.join(row.state.outside)} either: {_OUTSIDE} {row.under}."
    return True, f"{row.ref} is in force{begins}.{waits}{out if row.state.outside else ''}"


def parted(one: Parting) -> str:
    """Whom an act has cut off, in words."""
    from agreements.agreement import london_day
    from agreements.words import listed as several

    ways = [f"{way} {several(parties)}" for way, parties in (("to", one.to), ("from", one.of)) if parties]
    goes = " nor is anything received ".join(ways) if len(ways) > 1 else "".join(ways)
    verb = "discloses nothing" if one.to else "receives nothing"
    why = f"it has not signed {one.unsigned}, and who has signed that left the older" if one.unsigned else ""
    fix = f"; have {one.unsigned} signed by {one.party}" if one.unsigned else ""
    return (
        f"Cut off: from {spoken(london_day(one.since))} {one.party} {verb} {goes} under {one.agreement} any more"
        f"{': ' if why else ''}{why}{fix}."
    )


def parted_as_data(one: Parting) -> dict[str, Any]:
    """The same as data."""
    return {
        "party": one.party, "agreement": one.agreement, "no_longer_to": list(one.to), "no_longer_from": list(one.of),
        "unsigned": one.unsigned, "since": _iso(one.since),
    }  # fmt: skip


def _out_of_force(row: Listed) -> str:
    why = f" ({_WHY[row.state.why]})" if row.state.why else ""
    return f"But nothing is shown under it: it is {row.state.name.replace('_', ' ')}{why}."


def listed(row: Listed) -> str:
    """A document of the register, in a few lines."""
    from agreements.agreement import london_day

    state = row.state
    why = _WHY[state.why] if state.name not in ("expired", "agreed") or state.why == "umbrella" else ""
    since = (
        f" since {spoken(london_day(state.since))}" if state.since and state.name not in ("expired", "agreed") else ""
    )
    if state.name == "in_signature" and row.status == "draft" and len(state.parties) - len(state.awaited) > 1:
        why = "not put in force here yet"
    begins = f" from {spoken(row.effective)}" if state.name == "agreed" else ""
    review = f", review by {spoken(row.review_by)}" if row.review_by else ""
    lines = [
        f"{row.ref}  {state.name.replace('_', ' ')}{begins}{since}{f' ({why})' if why else ''}",
        f"    {row.kind}, {spoken(row.effective)} to {spoken(row.last_day)}{review}",
    ]
    by_state: dict[str, list[str]] = {name: [] for name in _STANDS}
    for party, standing in sorted(state.parties.items()):
        since = f" since {spoken(london_day(standing.since))}" if standing.since and standing.state != "signed" else ""
        by_state[standing.state].append(party + since)
    lines += [f"    {_STANDS[name]}: {', '.join(parties)}" for name, parties in by_state.items() if parties]
    if state.outside:
        lines.append(f"    {_OUTSIDE} {row.under}: {', '.join(state.outside)}")
    if row.approved_by:
        lines.append(f"    put in force by {row.approved_by}")
    lines += [f"    {one.words}" for one in row.due]
    return "\n".join(lines)


def holds_as_well(row: Listed) -> str:
    """Another version of a restriction that was taken in."""
    return f"{row.ref} holds back as well, until {row.owner} withdraws it."


def unread(ref: str, why: str) -> str:
    """A document of the register that loads no more."""
    return f"{ref}  does not load any more, and shows nothing: {why}; sign a new version."


def as_data(row: Listed) -> dict[str, Any]:
    """The same as data."""
    return {
        "ref": row.ref, "kind": row.kind, "title": row.title, "state": row.state.name, "why": row.state.why or None,
        "since": _iso(row.state.since), "status": row.status, "digest": row.digest, "under": row.under,
        "owner": row.owner,
        "effective": _iso(row.effective), "last_day": _iso(row.last_day), "review_by": _iso(row.review_by),
        "approved_by": row.approved_by, "awaited": list(row.state.awaited),
        "parties": {
            party: {"state": one.state, "since": _iso(one.since)} for party, one in sorted(row.state.parties.items())
        },
        "outside_umbrella": list(row.state.outside), "due": [due_as_data(one) for one in row.due],
    }  # fmt: skip


def due_as_data(one: Due) -> dict[str, Any]:
    """The same as data."""
    return {
        "ref": one.ref, "kind": one.kind, "due": _iso(one.due), "days": one.days, "step": one.step, "stops": one.stops,
        "words": one.words,
    }  # fmt: skip


def _iso(value: date | None) -> str | None:
    """A day or an instant as JSON has it."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")

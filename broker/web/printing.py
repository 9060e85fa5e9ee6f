"""A document as pages to print and sign: its schedule, all that was signed with it, and a block for each signature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agreements import VOCABULARY, Agreement, Snapshot, words
from agreements.agreement import Document
from agreements.export import prose

_TEMPLATES: Final = Path(__file__).parent / "templates" / "print"
_LONDON: Final = ZoneInfo("Europe/London")


@dataclass(frozen=True, slots=True)
class Block:
    """Where one party signs: by hand, unless it has signed already."""

    party: str
    signs_as: str
    kid: str | None
    signed_at: str | None


def pages(document: Document, snapshot: Snapshot, *, umbrella: Agreement | None = None) -> str:
    """One page of HTML that needs nothing else, laid out for A4, the digest at the foot of each sheet."""
    return (
        _environment()
        .get_template("agreement.html")
        .render(
            ref=document.ref,
            title=document.title if isinstance(document, Agreement) else "Restriction",
            digest=document.digest,
            parts=prose.schedule(document, VOCABULARY, umbrella=umbrella) + prose.described(document),
            signatures=_blocks(document, snapshot),
        )
    )


def _blocks(document: Document, snapshot: Snapshot) -> tuple[Block, ...]:
    posts = (
        {party.id: party.signs_as for party in document.parties.values()}
        if isinstance(document, Agreement)
        else {document.owner: "Owner of the records"}
    )
    first = {
        one.party: one
        for one in sorted(snapshot.signatures, key=lambda one: one.signed_at, reverse=True)
        if one.digest == document.digest
    }
    return tuple(
        Block(
            party,
            post,
            first[party].kid if party in first else None,
            f"{words.day(first[party].signed_at.astimezone(_LONDON).date())} at "
            f"{first[party].signed_at.astimezone(_LONDON):%H:%M}, London time"
            if party in first
            else None,
        )
        for party, post in posts.items()
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )

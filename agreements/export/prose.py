"""An agreement or a restriction in plain English, for those who sign it: made from the same model that decides.

`schedule` gives its parts, which `text` sets as plain text and the print template as pages.  The words that were signed
stand first in each clause; what follows them is made from the codes, so that a signatory reads what will be done and
not only what was meant.  The same document always gives the same words.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agreements import words
from agreements.agreement import Agreement, Document, Grant, Limit, Period, Restriction
from agreements.vocabulary import RECORD, Baseline, Mode, Vocabulary

WIDTH: Final = 100
_SAID: Final = frozenset(
    {"format", "kind", "id", "version", "title", "under", "vocabulary", "period", "assurance", "limits", "grants"}
)
"""What the schedule itself says; whatever else was signed is described."""

_ORDER: Final = (
    "owner", "parties", "purposes", "legal", "flows", "population", "recipients", "linkage", "obligations",
    "statistics", "retention", "security", "rights", "transparency", "breach", "termination", "disputes", "liability",
    "foi", "change_log",
)  # fmt: skip
_ABOUT: Final = ("id", "code", "party", "source", "purpose", "version", "on")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a schedule: a heading, sentences, facts (what: which), a table with its head first."""

    heading: str
    level: int = 1
    sentences: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def schedule(document: Document, vocabulary: Vocabulary, *, umbrella: Agreement | None = None) -> tuple[Part, ...]:
    """Everything a signatory must know before signing, in order."""
    if isinstance(document, Restriction):
        return tuple(_restriction(document, vocabulary))
    return tuple(_agreement(document, vocabulary, umbrella))


def described(document: Document) -> tuple[Part, ...]:
    """What was signed with it and is never evaluated: retention, security, rights and the rest, as it was written."""
    body = document.body if isinstance(document, Agreement) else {}
    named = [name for name in _ORDER if body.get(name)]
    rest = sorted(name for name in body.keys() - _SAID - set(_ORDER) if body[name])
    return tuple(_described(name, body[name]) for name in (*named, *rest))


def text(parts: tuple[Part, ...]) -> str:
    """The parts as plain text, lines of at most 100 characters."""
    lines: list[str] = []
    for part in parts:
        lines += ["", part.heading, ("=" if part.level == 1 else "-") * len(part.heading)]
        for sentence in part.sentences:
            lines += textwrap.wrap(sentence, WIDTH)
        for name, value in part.facts:
            lines += textwrap.wrap(f"{name}: {value}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        for row in part.table[1:]:
            lines += textwrap.wrap(": ".join(row), WIDTH, initial_indent="  - ", subsequent_indent="    ")
    return "\n".join(lines[1:]) + "\n"


def _agreement(agreement: Agreement, vocabulary: Vocabulary, umbrella: Agreement | None) -> Iterator[Part]:
    yield Part(
        heading=agreement.title,
        sentences=tuple(_introduced(agreement)),
        facts=tuple(_dates(agreement)),
    )
    yield Part(
        heading="Who takes part",
        table=(
            ("Party", "Signs by", "Discloses"),
            *(
                (
                    _party(agreement, party.id),
                    party.signs_as,
                    words.listed(sector.replace("_", " ") for sector in sorted(party.discloses)) or "nothing",
                )
                for party in agreement.parties.values()
            ),
        ),
    )
    if agreement.grants:
        yield Part(
            heading="What may be shown, to whom and for what",
            sentences=("Each clause stands alone: what two clauses half allow, neither allows.",),
            table=(("Word", "What is shown"), *((mode.word, words.SHOWS[mode]) for mode in _modes(agreement))),
        )
        yield from (_clause(grant, vocabulary) for grant in agreement.grants)
    yield Part(
        heading="What is held back",
        sentences=() if agreement.limits or umbrella else ("This agreement has no limits of its own.",),
        facts=tuple(
            (limit.id, _limit(limit, vocabulary))
            for limit in (*agreement.limits, *(umbrella.limits if umbrella else ()))
        ),
    )
    yield Part(
        heading="What is never shown, whatever this agreement says",
        sentences=tuple(_never(vocabulary)),
        facts=tuple((rule.id, _baseline(rule, vocabulary)) for rule in vocabulary.baseline),
    )


def _modes(agreement: Agreement) -> list[Mode]:
    return sorted({mode for grant in agreement.grants for mode in grant.modes.values()})


def _introduced(agreement: Agreement) -> Iterator[str]:
    yield f"Agreement {agreement.ref}, SHA-256 {agreement.digest}."
    yield f"Its terms mean what {agreement.vocabulary.ref} says they do, SHA-256 {agreement.vocabulary.digest}."
    if agreement.under is not None:
        yield (
            f"It stands under {agreement.under.ref}, SHA-256 {agreement.under.digest}, whose dates and limits bind it."
        )
    if not agreement.grants:
        yield "It is an umbrella: it shows nothing itself; its dates and limits bind every agreement under it."
    yield (
        "It binds a party from the moment that party signs, and shows what one party holds to another only while both "
        "have signed.  Any party may stop its own disclosures at once."
    )


def _dates(agreement: Agreement) -> Iterator[tuple[str, str]]:
    yield "In force", _in_force(agreement.period)
    review = words.review_day(agreement)
    if review is not None:
        late = "nothing is shown" if agreement.if_review_overdue == "suspend" else "each answer carries a warning"
        yield "Review", f"by {words.day(review)}; if it is overdue, {late}"
    names = {
        "dpia": "Impact assessment",
        "apd": "Policy document",
        "eqia": "Equality assessment",
        "notice": "Privacy notice",
    }
    for key, value in (agreement.body.get("assurance") or {}).items():
        yield names.get(key, _heading(key)), str(value)


def _clause(grant: Grant, vocabulary: Vocabulary) -> Part:
    return Part(
        heading=f"Clause {grant.id}",
        level=2,
        sentences=(grant.text,),
        facts=tuple(_facts(grant, vocabulary)),
        table=(
            ("What", "How much"),
            *(
                (words.category(name, vocabulary), words.shown(name, mode, vocabulary))
                for name, mode in sorted(grant.modes.items(), key=lambda one: (one[1], one[0]))
            ),
        ),
    )


def _facts(grant: Grant, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    basis = grant.basis
    yield "From", words.listed(sorted(grant.sources))
    yield "To", f"{words.labels(grant.roles, vocabulary.roles)} at {words.listed(sorted(grant.organisations), 'or')}"
    purposes = words.labels(grant.purposes, vocabulary.purposes)
    inside = {inner for purpose in grant.purposes for inner in vocabulary.down(purpose)} - grant.purposes
    if inside:
        purposes += f"; that includes {words.labels(inside, vocabulary.purposes, 'and')}"
    if grant.not_purposes:
        purposes += f"; not for {words.labels(grant.not_purposes, vocabulary.purposes)}"
    yield "For", purposes
    yield "About", words.labels(grant.about, vocabulary.relations)
    yield "Lawful basis", words.labels(basis.art6, vocabulary.art6)
    if basis.conditions:
        yield "Condition", f"{words.labels(basis.conditions, vocabulary.conditions)}, where the information needs one"
    if basis.gateways:
        yield (
            "Statute",
            words.listed((words.statute(vocabulary.gateways[code]) for code in sorted(basis.gateways)), "or"),
        )
    if basis.le_authority:
        yield (
            "Law-enforcement data",
            "may leave that regime under "
            + words.listed((words.statute(vocabulary.gateways[code]) for code in sorted(basis.le_authority)), "or"),
        )
    else:
        yield "Law-enforcement data", "is not shown under this clause"
    yield "Only if", words.listed(_conditions(grant, vocabulary)) or "no more than the above"
    if grant.break_glass is not None:
        terms = grant.break_glass
        told = words.listed(words.label(one, vocabulary.notified) for one in terms.notify)
        yield (
            "Emergency",
            (
                f"only in a session with a recorded reason, which ends after {words.span(terms.ends_after)}; tells "
                f"{told}; reviewed within {terms.review_within_working_days} working day"
                f"{'' if terms.review_within_working_days == 1 else 's'}"
            ),
        )
    duties = " ".join(words.duty(duty, vocabulary) for duty in grant.duties)
    yield "Duties", duties or "none beyond the law"


def _conditions(grant: Grant, vocabulary: Vocabulary) -> Iterator[str]:
    if grant.case_reference:
        yield "a case reference of this child is given"
    if grant.threshold is not None:
        level = vocabulary.thresholds[grant.threshold]
        yield f"{level.label} is recorded by a {words.labels(level.set_by, vocabulary.roles)}"
    if grant.link is not None:
        sure = "surely about this person" if grant.link == "match" else "at least possibly about this person"
        yield f"the record is {sure}"
    if grant.recorded_within is not None:
        yield f"the item was recorded in the last {words.span(grant.recorded_within)}"


def _limit(limit: Limit, vocabulary: Vocabulary) -> str:
    lifted = "" if limit.lift == "never" else "; an emergency session lifts it"
    return f"{limit.text} {_holds(limit.categories, limit.at_most, limit.tag, limit.purposes, vocabulary)}{lifted}."


def _baseline(rule: Baseline, vocabulary: Vocabulary) -> str:
    return f"{rule.text} {_holds(rule.categories, rule.at_most, rule.tag, None, vocabulary)}."


def _holds(
    categories: Any, at_most: Mode, tag: str | None, purposes: frozenset[str] | None, vocabulary: Vocabulary
) -> str:
    """Where it applies, and how far down it holds what."""
    what = (
        "the whole record"
        if RECORD in categories
        else words.listed(words.category(name, vocabulary) for name in sorted(categories))
    )
    most = "not shown at all" if at_most is Mode.NONE else f"shown at {at_most.word} at most"
    where = f"Where the record is tagged {words.label(tag, vocabulary.tags)!r}, or may be" if tag else "Always"
    why = f", for {words.labels(purposes, vocabulary.purposes)}" if purposes else ""
    return f"{where}{why}: {what}, {most}"


def _never(vocabulary: Vocabulary) -> Iterator[str]:
    sealed = [category.label for category in vocabulary.categories.values() if category.never_ingest]
    yield "The broker holds no name, address or identifier in clear, and no free text about a person."
    yield f"Never sent to it: {words.listed(label[:1].lower() + label[1:] for label in sealed)}."
    yield f"Refused, and reported: {words.listed(term.label for term in vocabulary.prohibited.values())}."
    yield (
        "A record that is only possibly about the person is shown at existence at most, and a match below the upper bar"
        " at status at most; no purpose shows more than the vocabulary allows it."
    )
    yield "There is no risk score, no ranking of families and no list of everyone."


def _restriction(restriction: Restriction, vocabulary: Vocabulary) -> Iterator[Part]:
    held = _holds(restriction.categories, restriction.at_most, restriction.tag, restriction.purposes, vocabulary)
    lifted = "never" if restriction.lift == "never" else "by an emergency session"
    yield Part(
        heading=f"Restriction {restriction.ref}",
        sentences=(restriction.text, f"{held}.", "It binds every agreement from the moment its owner signs."),
        facts=(
            ("Owner", restriction.owner),
            ("Authority", restriction.authority.replace("_", " ")),
            ("Record", restriction.record or "every record of the owner"),
            ("In force", _in_force(restriction.period)),
            ("Lifted", lifted),
            ("SHA-256", restriction.digest),
        ),
    )


def _described(name: str, value: object) -> Part:
    if isinstance(value, Mapping):
        return Part(heading=_heading(name), facts=tuple((_heading(key), _flat(one)) for key, one in value.items()))
    if isinstance(value, list):
        return Part(heading=_heading(name), facts=tuple(_row(row) for row in value))
    return Part(heading=_heading(name), sentences=(str(value),))


def _row(row: Mapping[str, Any]) -> tuple[str, str]:
    """One entry of a list: what it is about, and the rest of it."""
    about = [key for key in _ABOUT if key in row]
    rest = sorted(row.keys() - set(about))
    return (
        " ".join(_flat(row[key]) for key in about),
        "; ".join(f"{_heading(key).lower()}: {_flat(row[key])}" for key in rest),
    )


def _in_force(period: Period) -> str:
    return f"{words.day(words.first_day(period))} to the end of {words.day(words.last_day(period))}, London time"


def _party(agreement: Agreement, party: str) -> str:
    kind = "public authority" if agreement.parties[party].public_authority else "not a public authority"
    return f"{party} ({kind})"


def _heading(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _flat(value: object) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)

"""What an agreement must have before it is put in force: its papers, the Caldicott Guardian's sign-off, legal rows.

The loader refuses most of this already.  It is asked again on the day of activation, since a document may have been
built otherwise, and a paper may carry a day that has not come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from agreements.agreement import Agreement, Grant
from agreements.vocabulary import RECORD, Vocabulary

_GUARDIAN: Final = "caldicott guardian"


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that is missing: a code, where it belongs in the document, what it is and what to write."""

    code: str  # NO_DPIA, NO_APD, NO_NOTICE, NO_CALDICOTT, NO_LEGAL_ROW; of the register BASIS_INVALID_FOR_PARTY
    path: str
    message: str
    fix: str


def gaps(agreement: Agreement, vocabulary: Vocabulary, *, on: date) -> tuple[Gap, ...]:
    """All that keeps an agreement from being put in force on a London day; an umbrella gives nothing and needs none."""
    if not agreement.grants:
        return ()
    body = agreement.body
    return (
        *_papers(agreement, body.get("assurance", {}), vocabulary, on),
        *_guardians(agreement, body, vocabulary),
        *_legal_rows(agreement, body, vocabulary),
    )


def _papers(agreement: Agreement, assured: Mapping[str, Any], vocabulary: Vocabulary, on: date) -> Iterator[Gap]:
    if not assured.get("dpia"):
        yield Gap("NO_DPIA", "assurance.dpia", "there is no impact assessment", "name it, as it was approved")
    elif not assured.get("approved"):
        yield Gap(
            "NO_DPIA", "assurance.approved", "it does not say that the impact assessment is approved", "write the day"
        )
    elif date.fromisoformat(assured["approved"]) > on:
        yield Gap("NO_DPIA", "assurance.approved", f"it is approved on {assured['approved']} only", "wait for that day")
    if not assured.get("notice"):
        yield Gap("NO_NOTICE", "assurance.notice", "there is no privacy notice", "name it, or where it is published")
    needing = sorted(
        {
            name
            for grant in agreement.grants
            for name, mode in grant.modes.items()
            if (
                any(vocabulary.hit_needs_condition(agreement.parties[source].discloses) for source in grant.sources)
                if name == RECORD
                else vocabulary.categories[name].needs_condition(mode)
            )
        }
    )
    if needing and not assured.get("apd"):
        message = f"{needing[0]} is special category or criminal offence data, and there is no policy document for it"
        yield Gap("NO_APD", "assurance.apd", message, "name the appropriate policy document")


def _guardians(agreement: Agreement, body: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Gap]:
    """Whoever gives health information signs as Caldicott Guardian, or names the Guardian in what it signs."""
    giving = {
        source
        for grant in agreement.grants
        for source, name in _given(agreement, grant, vocabulary)
        if "health"
        in (agreement.parties[source].discloses if name == RECORD else (vocabulary.categories[name].sector,))
    }
    for index, party in enumerate(body["parties"]):
        if party["id"] in giving and not _signs_as_guardian(party) and not party.get("caldicott_guardian"):
            message = f"{party['id']} gives health information without its Caldicott Guardian"
            fix = 'let the Guardian sign (signs_as = "Caldicott Guardian"), or name the post as caldicott_guardian'
            yield Gap("NO_CALDICOTT", f"parties[{index}]", message, fix)


def _signs_as_guardian(party: Mapping[str, Any]) -> bool:
    """Whether a party signs by the title itself, alone or as `Caldicott Guardian, <legal_entity or id>` of that party.

    Whatever else stands behind the title may take it back, and does not count.
    """
    said = " ".join(str(party["signs_as"]).split()).casefold()
    whose = [str(party[key]).casefold() for key in ("legal_entity", "id") if party.get(key)]
    return said in (_GUARDIAN, *(f"{_GUARDIAN}, {one}" for one in whose))


def _legal_rows(agreement: Agreement, body: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[Gap]:
    """Every flow has a row of the law it rests on, for each of its categories and purposes."""
    stated = {
        (row["party"], purpose, name)
        for row in body.get("legal", ())
        for purpose in vocabulary.down(row["purpose"])
        for name in row["categories"]
    }
    for index, grant in enumerate(agreement.grants):
        purposes = {
            purpose
            for given in grant.purposes
            for purpose in vocabulary.down(given)
            if not vocabulary.purposes[purpose].group
        }
        wanting = sorted(
            (source, purpose, name)
            for source, name in _given(agreement, grant, vocabulary)
            for purpose in purposes
            if (source, purpose, name) not in stated
        )
        if wanting:
            source, purpose, name = wanting[0]
            more = f", and {len(wanting) - 1} more" if len(wanting) > 1 else ""
            message = f"no legal row for {source}'s {name} for {purpose}{more}"
            yield Gap("NO_LEGAL_ROW", f"grants[{index}]", message, "add it to a [[legal]] row of that party")
    by_party = {(party, name) for party, _, name in stated}
    for index, flow in enumerate(body.get("flows", ())):
        without = [name for name in flow["categories"] if (flow["source"], name) not in by_party]
        if without:
            message = f"no legal row for {flow['source']}'s {', '.join(without)}"
            yield Gap("NO_LEGAL_ROW", f"flows[{index}]", message, "add it to a [[legal]] row of that party")


def _given(agreement: Agreement, grant: Grant, vocabulary: Vocabulary) -> set[tuple[str, str]]:
    """Who gives which category under a clause: its owner, among the sources that are named; and all the bare record."""
    return {
        (source, name)
        for source in grant.sources
        for name in grant.modes
        if name == RECORD or vocabulary.categories[name].sector in agreement.parties[source].discloses
    }

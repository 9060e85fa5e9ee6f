"""The record of processing activities of UK GDPR Article 30(1), from the agreements that are in force.

One entry per controller, agreement and direction: what it discloses under it, and what it receives.  What Article 30
asks for stands first, in its order; then what controllers in the public sector add (basis, condition, assessment).
Fields that the document leaves out say so, for somebody to fill in; nothing is made up.
Source: UK GDPR Article 30(1)(a) to (g); ICO documentation template for controllers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from agreements import words
from agreements.agreement import Agreement, Grant
from agreements.vocabulary import RECORD, Mode, Vocabulary

UNSAID: Final = "not said in the agreement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One processing activity of one controller; each field a sentence or a list of terms."""

    controller: str  # 30(1)(a)
    joint_controllers: tuple[str, ...]
    data_protection_officer: str
    activity: str
    purposes: tuple[str, ...]  # (b)
    data_subjects: tuple[str, ...]  # (c)
    personal_data: tuple[str, ...]
    special_category_data: tuple[str, ...]
    criminal_offence_data: tuple[str, ...]
    recipients: tuple[str, ...]  # (d)
    transfers: str  # (e)
    time_limits: tuple[str, ...]  # (f)
    security: tuple[str, ...]  # (g)
    lawful_bases: tuple[str, ...]
    conditions: tuple[str, ...]
    statutes: tuple[str, ...]
    impact_assessment: str
    policy_document: str
    privacy_notice: str
    agreement: str
    digest: str
    in_force: str


def entries(
    agreements: Iterable[Agreement],
    vocabulary: Vocabulary,
    controller: str | None = None,
    *,
    umbrellas: Iterable[Agreement] = (),
) -> tuple[Entry, ...]:
    """The entries of one controller, or of all, by controller and agreement.  Processors and umbrellas have none.

    What an agreement does not say of its parties, of retention and of security is as the umbrella has it.
    """
    found: list[Entry] = []
    several = sorted(agreements, key=lambda one: one.ref)
    above = {one.digest: one.body for one in (*several, *umbrellas)}
    for agreement in several:
        body = above.get(agreement.under.digest, {}) if agreement.under else {}
        there = {party["id"]: party for party in body.get("parties", ())}
        described = {party["id"]: {**there.get(party["id"], {}), **party} for party in agreement.body["parties"]}
        for party in sorted(agreement.parties):
            if controller in (None, party) and described[party].get("role") not in ("processor", "recipient"):
                found += _of(agreement, party, described, {**body, **agreement.body}, vocabulary)
    return tuple(sorted(found, key=lambda one: (one.controller, one.agreement, one.activity)))


def as_json(record: Iterable[Entry]) -> list[dict[str, Any]]:
    """The record as JSON."""
    return [asdict(entry) for entry in record]


def as_csv(record: Iterable[Entry]) -> str:
    """The record as a spreadsheet: a row an entry, terms separated by "; "."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in fields(Entry)]
    writer.writerow(names)
    for entry in record:
        writer.writerow([_guarded(_text(getattr(entry, name))) for name in names])
    return out.getvalue()


def as_markdown(record: Iterable[Entry]) -> str:
    """The record as a page: a table an entry."""
    lines = ["# Record of processing activities (UK GDPR Article 30(1))"]
    for entry in record:
        lines += ["", f"## {_in_markdown(f'{entry.controller}: {entry.activity}')}", "", "| | |", "|---|---|"]
        lines += [
            f"| {field.name.replace('_', ' ').capitalize()} | {_in_markdown(_text(getattr(entry, field.name)))} |"
            for field in fields(Entry)
            if field.name not in ("controller", "activity")
        ]
    return "\n".join(lines) + "\n"


Direction = Literal["discloses", "receives"]


def _of(
    agreement: Agreement, party: str, described: Mapping[str, Any], body: Mapping[str, Any], vocabulary: Vocabulary
) -> Iterator[Entry]:
    giving = [grant for grant in agreement.grants if party in grant.sources]
    taking = [grant for grant in agreement.grants if party in grant.organisations]
    if giving:
        yield _entry(agreement, party, described, body, vocabulary, "discloses", giving)
    if taking:
        yield _entry(agreement, party, described, body, vocabulary, "receives", taking)


def _entry(
    agreement: Agreement,
    party: str,
    described: Mapping[str, Any],
    body: Mapping[str, Any],
    vocabulary: Vocabulary,
    direction: Direction,
    grants: list[Grant],
) -> Entry:
    modes = _modes(agreement, party, vocabulary, direction, grants)
    assured = agreement.body.get("assurance") or {}
    return Entry(
        controller=described[party].get("legal_entity", party),
        joint_controllers=tuple(
            one["legal_entity"] if "legal_entity" in one else one["id"]
            for one in described.values()
            if one["id"] != party and one.get("role") == "joint" and described[party].get("role") == "joint"
        ),
        data_protection_officer=described[party].get("dpo", UNSAID),
        activity=f"{agreement.title}: {direction}",
        purposes=_labels((code for grant in grants for code in grant.purposes), vocabulary.purposes),
        data_subjects=_labels((code for grant in grants for code in grant.about), vocabulary.relations),
        personal_data=tuple(f"{words.category(name, vocabulary)}, {mode.word}" for name, mode in modes.items()),
        special_category_data=_flagged(modes, vocabulary, "special"),
        criminal_offence_data=_flagged(modes, vocabulary, "criminal"),
        recipients=tuple(_recipients(party, direction, grants, vocabulary)),
        transfers="none: the broker is in the United Kingdom and opens no connection abroad",
        time_limits=tuple(_time_limits(body.get("retention") or {}, grants, vocabulary)),
        security=tuple(str(one) for one in (body.get("security") or {}).values())
        or ("pseudonymised before it leaves the agency; encrypted at rest; every disclosure in a signed log",),
        lawful_bases=_labels((code for grant in grants for code in grant.basis.art6), vocabulary.art6),
        conditions=_labels((code for grant in grants for code in grant.basis.conditions), vocabulary.conditions),
        statutes=tuple(
            words.statute(vocabulary.gateways[code])
            for code in sorted({code for grant in grants for code in grant.basis.gateways})
        ),
        impact_assessment=assured.get("dpia", UNSAID),
        policy_document=assured.get("apd", UNSAID),
        privacy_notice=assured.get("notice", UNSAID),
        agreement=agreement.ref,
        digest=agreement.digest,
        in_force=f"{words.day(words.first_day(agreement.period))} to {words.day(words.last_day(agreement.period))}",
    )


def _modes(
    agreement: Agreement, party: str, vocabulary: Vocabulary, direction: Direction, grants: list[Grant]
) -> dict[str, Mode]:
    """The highest mode of each category; of what it discloses, only of its own sectors."""
    sectors = agreement.parties[party].discloses
    modes: dict[str, Mode] = {}
    for grant in grants:
        for name, mode in grant.modes.items():
            if direction == "receives" or name == RECORD or vocabulary.categories[name].sector in sectors:
                modes[name] = max(mode, modes.get(name, Mode.NONE))
    return dict(sorted(modes.items()))


def _flagged(
    modes: Mapping[str, Mode], vocabulary: Vocabulary, flag: Literal["special", "criminal"]
) -> tuple[str, ...]:
    """The categories of which what is shown falls under Article 9 or 10, as the vocabulary flags them."""
    found = []
    for name, mode in modes.items():
        flagged = getattr(vocabulary.categories[name], flag) if name != RECORD else "no"
        if flagged == "always" or (flagged == "summary" and Mode.SUMMARY <= mode <= Mode.DETAIL):
            found.append(words.category(name, vocabulary))
    return tuple(found)


def _recipients(party: str, direction: Direction, grants: list[Grant], vocabulary: Vocabulary) -> Iterator[str]:
    """Who receives: the others' staff by role, or its own."""
    if direction == "receives":
        yield f"own staff: {words.labels({role for grant in grants for role in grant.roles}, vocabulary.roles, 'and')}"
        return
    for organisation in sorted({one for grant in grants for one in grant.organisations} - {party}):
        roles = {role for grant in grants if organisation in grant.organisations for role in grant.roles}
        yield f"{organisation}: {words.labels(roles, vocabulary.roles, 'and')}"


def _time_limits(retention: Mapping[str, str], grants: list[Grant], vocabulary: Vocabulary) -> Iterator[str]:
    for key, value in retention.items():
        yield f"{key.replace('_', ' ')}: {value}"
    for duty in sorted({duty for grant in grants for duty in grant.duties if duty.within is not None}, key=repr):
        yield words.duty(duty, vocabulary)
    if not retention:
        yield UNSAID


def _labels(codes: Iterable[str], terms: Mapping[str, object]) -> tuple[str, ...]:
    order = list(terms)
    return tuple(words.label(code, terms) for code in sorted(set(codes), key=order.index))


def _text(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else "; ".join(value) or "none"


def _in_markdown(text: str) -> str:
    """A text as it was written, on a page that may become HTML: nothing of it is markup, a link or a cell's end."""
    return _MARKS.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), text)


_ENTITIES: Final = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_MARKS: Final = re.compile(r"[<>&\\`*_\[\]|~]")


def _guarded(text: str) -> str:
    """No cell begins as a formula: a spreadsheet would run it."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text

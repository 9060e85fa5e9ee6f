"""A snapshot as Cedar policies: a permit per clause and mode, a forbid per ceiling.

The tests ask Cedar the questions that `decide` answers.  Cedar skips a policy that errs, a forbid too, so whoever
evaluates this must give the schema, and must take any error among the diagnostics for a refusal.

One authorisation asks for one mode of one category of one item.  The mode of a category is the highest allowed of any
item held; the bare record is asked for once an item, and once without where nothing is held.

principal  the organisation that asks          resource  the category, or `record`
action     the mode                            context   `Question`: request, facts, instant, one item

Instants are to the millisecond: a start is rounded up and an end down, never the wider way.  Cedar can't count back
calendar months, so the question brings, for each window in use, its first day: `since`.
Source: Cedar policy language 4.x, docs.cedarpolicy.com.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import zip_longest
from typing import Any, Final

from agreements.agreement import Agreement, Grant, Limit, Restriction, london_midnight
from agreements.request import Link
from agreements.restrictions import LONGEST_SESSION
from agreements.snapshot import Snapshot
from agreements.vocabulary import CASEWORK, RECORD, Baseline, Mode, Vocabulary

_ABOVE: Final = (Mode.NONE, Mode.EXISTENCE, Mode.STATUS, Mode.SUMMARY)
_LINKS: Final = (
    ('action == Action::"existence"', Link.POSSIBLE),
    ('action == Action::"status"', Link.MATCH),
    ('action in Action::"more than status"', Link.CERTAIN),
    ('action == Action::"aggregate"', Link.MATCH),
)


@dataclass(frozen=True, slots=True)
class Cedar:
    """What an authoriser needs: policies, the schema they are valid under, and the vocabulary as entities (JSON)."""

    policies: str
    schema: str
    entities: str


def cedar(snapshot: Snapshot, vocabulary: Vocabulary, *, pair: tuple[str, str] | None = None) -> Cedar:
    """The whole snapshot, or only what may matter where the first of `pair` is the source, the second the recipient."""
    permits = [
        permit
        for agreement in snapshot.agreements
        if pair is None or set(pair) <= agreement.parties.keys()
        for grant in agreement.grants
        if pair is None or (pair[0] in grant.sources and pair[1] in grant.organisations)
        for permit in _permits(snapshot, vocabulary, agreement, grant, pair)
    ]
    forbids = [
        *_restrictions(snapshot, vocabulary, pair[0] if pair else None),
        *(_baseline(rule) for rule in vocabulary.baseline),
        *_ceilings(),
    ]
    return Cedar(
        policies="\n".join((*permits, *forbids)),
        schema=schema(vocabulary, windows(snapshot)),
        entities=json.dumps(list(_entities(vocabulary)), separators=(",", ":")),
    )


def windows(snapshot: Snapshot) -> tuple[str, ...]:
    """The lengths of time back that clauses name, for `since`: "P2Y"."""
    found = {grant.recorded_within for agreement in snapshot.agreements for grant in agreement.grants}
    return tuple(sorted(str(window) for window in found if window is not None))


def schema(vocabulary: Vocabulary, since: Sequence[str]) -> str:
    """The Cedar schema of such policies.  Closed lists are enumerated types, so an unknown term can't even be asked."""
    enums = {
        "Role": vocabulary.roles,
        "Article6": vocabulary.art6,
        "Condition": vocabulary.conditions,
        "Gateway": vocabulary.gateways,
        "Relation": vocabulary.relations,
        "Tag": vocabulary.tags,
    }
    modes = ", ".join(f"{mode.word}: Set<Category>" for mode in Mode if mode)
    first_days = ", ".join(f"{_text(window)}: datetime" for window in since)
    lines = [
        "entity Agency;",
        f"entity Purpose in [Purpose] {{ {modes} }};",
        "entity Category { sector: String, condition: String };",
        *(f"entity {name} enum [{', '.join(map(_text, terms))}];" for name, terms in enums.items()),
        "type Question = {",
        "  role: Role, purpose: Purpose, basis: Article6, conditions: Set<Condition>, gateways: Set<Gateway>,",
        "  case?: String, threshold?: Long, session?: datetime, at: datetime,",
        "  source: Agency, record?: String, relation?: Relation, subject_case?: String, link?: Long,",
        "  tags: Set<Tag>, tags_unknown: Set<Tag>, item?: { recorded_on?: datetime, regime?: String },",
        f"  since: {{ {first_days} }},",
        "};",
        f"action {', '.join(_text(f'at most {mode.word}') for mode in CASEWORK)};",
        f"action {', '.join(_text(f'more than {mode.word}') for mode in _ABOVE)};",
    ]
    for mode in Mode:
        if mode:
            groups = ", ".join(map(_text, _groups(mode)))
            lines.append(
                f"action {_text(mode.word)} in [{groups}] "
                "appliesTo { principal: [Agency], resource: [Category], context: Question };"
            )
    return "\n".join(lines) + "\n"


def _groups(mode: Mode) -> Iterator[str]:
    """The groups of actions that a mode belongs to: statistics are only ever more than none."""
    if mode is Mode.AGGREGATE:
        yield "more than none"
        return
    yield from (f"at most {most.word}" for most in CASEWORK if mode <= most)
    yield from (f"more than {least.word}" for least in _ABOVE if mode > least)


def _entities(vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    for name in (*vocabulary.shareable, RECORD):
        category = vocabulary.categories.get(name)
        flags = (category.special, category.criminal) if category else ()
        condition = "always" if "always" in flags else "summary" if "summary" in flags else "no"
        attributes = {"sector": category.sector if category else "", "condition": condition}
        yield {"uid": {"type": "Category", "id": name}, "attrs": attributes, "parents": []}
    for purpose in vocabulary.purposes.values():
        ceilings = {name: vocabulary.ceiling(purpose.code, name) for name in (*vocabulary.shareable, RECORD)}
        reached = {
            mode.word: [
                {"__entity": {"type": "Category", "id": name}}
                for name, most in ceilings.items()
                if (most is Mode.AGGREGATE) is (mode is Mode.AGGREGATE) and most >= mode
            ]
            for mode in Mode
            if mode
        }
        parents = [{"type": "Purpose", "id": parent} for parent in purpose.within]
        yield {"uid": {"type": "Purpose", "id": purpose.code}, "attrs": reached, "parents": parents}


# --- permits ---------------------------------------------------------------------------------------------------------


def _permits(
    snapshot: Snapshot, vocabulary: Vocabulary, agreement: Agreement, grant: Grant, pair: tuple[str, str] | None
) -> Iterator[str]:
    """One a mode that the clause names; none where no source or no recipient can ever be live."""
    sources = [pair[0]] if pair else sorted(grant.sources)
    recipients = [pair[1]] if pair else sorted(grant.organisations)
    standings = _standings(snapshot, agreement, sources, recipients)
    if standings is None:
        return
    tests = [*standings, *_tests(vocabulary, agreement, grant)]
    umbrella = snapshot.umbrella(agreement)
    limits = (*agreement.limits, *(umbrella.limits if umbrella else ()))
    for mode in sorted(set(grant.modes.values())):
        names = sorted(name for name, most in grant.modes.items() if most is mode)
        scope = "action == " if mode is Mode.AGGREGATE else "action in "
        action = mode.word if mode is Mode.AGGREGATE else f"at most {mode.word}"
        yield _policy(
            f"{agreement.ref}#{grant.id}/{mode.word}",
            grant.text,
            f"permit (principal, {scope}Action::{_text(action)}, resource)",
            [
                f"[{_entity_list('Category', names)}].contains(resource)",
                *tests,
                *_conditions(vocabulary, grant, names),
                *(held for limit in limits for held in _held_back(limit, vocabulary, names)),
            ],
        )


def _standings(
    snapshot: Snapshot, agreement: Agreement, sources: Iterable[str], recipients: Iterable[str]
) -> list[str] | None:
    """When the agreement is live for which source and which recipient, or None: for none of them, ever."""
    in_force = _in_force(snapshot, agreement)
    giving = [
        _all([f"context.source == {_entity('Agency', source)}", _sector(agreement, source), *signed])
        for source in sources
        if (signed := _signed(snapshot, agreement, source, source=True)) is not None
    ]
    taking = [
        _all([f"principal == {_entity('Agency', recipient)}", *signed])
        for recipient in recipients
        if (signed := _signed(snapshot, agreement, recipient, source=False)) is not None
    ]
    if in_force is None or not giving or not taking:
        return None
    return [*in_force, _any(giving), _any(taking)]


def _in_force(snapshot: Snapshot, agreement: Agreement) -> list[str] | None:
    """Its period, up to an overdue review that suspends it, and its umbrella's; None if the umbrella isn't here."""
    tests = [_from(agreement.period.start), _until(agreement.period.end)]
    if agreement.if_review_overdue == "suspend" and agreement.review is not None:
        tests.append(_until(agreement.review))
    if agreement.under is None:
        return tests
    umbrella = snapshot.umbrella(agreement)
    above = _in_force(snapshot, umbrella) if umbrella else None
    return None if above is None else tests + above


def _signed(snapshot: Snapshot, agreement: Agreement, party: str, *, source: bool) -> list[str] | None:
    """When a party is bound by it and by its umbrella; None if it never signed one of them."""
    signed = snapshot.signed_at.get((party, agreement.digest))
    if party not in agreement.parties or signed is None:
        return None
    tests = [_from(signed)]
    happened = snapshot.happened.get((party, agreement.digest), ())
    tests += [_until(event.at) for event in happened if event.do in ("withdraw", "supersede")]
    if source:
        turns = [event for event in happened if event.do in ("suspend", "resume")]
        for event, after in zip_longest(turns, turns[1:]):
            if event.do == "suspend":
                ends = [_until(after.at, down=False)] if after else []
                tests.append(f"!({_all([_from(event.at, up=False), *ends])})")
    umbrella = snapshot.umbrella(agreement)
    above = _signed(snapshot, umbrella, party, source=source) if umbrella else []
    return None if above is None else tests + above


def _sector(agreement: Agreement, source: str) -> str:
    """A source discloses the sectors it signed as its own, and the bare record."""
    own = [f"resource.sector == {_text(sector)}" for sector in sorted(agreement.parties[source].discloses)]
    return _any([f"resource == {_entity('Category', RECORD)}", *own])


def _tests(vocabulary: Vocabulary, agreement: Agreement, grant: Grant) -> Iterator[str]:
    yield f"[{_entity_list('Role', grant.roles)}].contains(context.role)"
    yield _any(f"context.purpose in {_entity('Purpose', purpose)}" for purpose in sorted(grant.purposes))
    if grant.not_purposes:
        yield f"!{_any(_overlap(vocabulary, grant.not_purposes))}"
    yield _basis(vocabulary, agreement, grant)
    if grant.basis.gateways:
        ways = [
            _all([f"context.gateways.containsAny([{_entity_list('Gateway', codes)}])", *since])
            for codes, since in _statutes(vocabulary, grant.basis.gateways)
        ]
        yield _any(ways) if ways else "false"
    yield f"context has relation && [{_entity_list('Relation', grant.about)}].contains(context.relation)"
    if grant.case_reference:
        yield "context has case && context has subject_case && context.case == context.subject_case"
    if grant.threshold is not None:
        yield f"context has threshold && context.threshold >= {_level(vocabulary, grant.threshold)}"
    if grant.link is not None:
        least = Link.MATCH if grant.link == "match" else Link.POSSIBLE
        yield f"context has link && context.link >= {least.value}"
    if grant.recorded_within is not None:
        first_day = f"context.since[{_text(str(grant.recorded_within))}]"
        yield (
            "context has item && context.item has recorded_on && "
            f"context.item.recorded_on >= {first_day}"
        )  # fmt: skip
    authorised = [since for _, since in _statutes(vocabulary, grant.basis.le_authority)]
    if [] not in authorised:
        general = '!(context has item && !(context.item has regime && context.item.regime == "GENERAL"))'
        yield _any([general, *map(_all, authorised)])
    if grant.break_glass is not None:
        yield _session(min(timedelta(minutes=grant.break_glass.ends_after.minutes), LONGEST_SESSION))


def _statutes(vocabulary: Vocabulary, codes: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Statutes by the day from which they count: the tests of time that this asks, none for what is in force."""
    days: dict[date, list[str]] = {}
    for code in sorted(codes):
        if (day := vocabulary.in_force_from(code)) is not None:
            days.setdefault(day, []).append(code)
    for day, several in sorted(days.items()):
        yield several, [] if day == date.min else [_from(london_midnight(day))]


def _basis(vocabulary: Vocabulary, agreement: Agreement, grant: Grant) -> str:
    """A basis that is closed to public authorities is open to the recipients that are none."""
    open_to_all = {term for term in grant.basis.art6 if "not_public" not in vocabulary.art6[term].flags}
    private = sorted(
        party
        for party in grant.organisations
        if party in agreement.parties and not agreement.parties[party].public_authority
    )
    ways = [f"[{_entity_list('Article6', open_to_all)}].contains(context.basis)"] if open_to_all else []
    if private and (closed := grant.basis.art6 - open_to_all):
        ways.append(
            f"([{_entity_list('Article6', closed)}].contains(context.basis)"
            f" && [{_entity_list('Agency', private)}].contains(principal))"
        )
    return _any(ways) if ways else "false"


def _conditions(vocabulary: Vocabulary, grant: Grant, names: Iterable[str]) -> Iterator[str]:
    flags = {
        flag
        for name in names
        if name != RECORD
        for flag in (vocabulary.categories[name].special, vocabulary.categories[name].criminal)
    }
    if flags <= {"no"}:
        return
    ways = [
        'resource.condition == "no"',
        '(resource.condition == "summary" && !(action in Action::"more than status"))',
    ]
    if grant.basis.conditions:
        ways.append(f"context.conditions.containsAny([{_entity_list('Condition', grant.basis.conditions)}])")
    yield _any(ways)


def _held_back(limit: Limit, vocabulary: Vocabulary, names: Sequence[str]) -> Iterator[str]:
    """An agreement's own limit binds its own clauses alone, so it stands in them and not among the forbids."""
    named = names if RECORD in limit.categories else [name for name in names if name in limit.categories]
    if named and limit.at_most < Mode.DETAIL:
        applies = [
            f"[{_entity_list('Category', named)}].contains(resource)",
            f"action in Action::{_text(f'more than {limit.at_most.word}')}",
            *_applies(vocabulary, limit.tag, limit.purposes, lifted=limit.lift == "break_glass"),
        ]
        yield f"!({_all(applies)})"


# --- forbids ---------------------------------------------------------------------------------------------------------


def _restrictions(snapshot: Snapshot, vocabulary: Vocabulary, source: str | None) -> Iterator[str]:
    for restriction in snapshot.restrictions:
        signed = snapshot.signed_at.get((restriction.owner, restriction.digest))
        if signed is None or restriction.at_most >= Mode.DETAIL or source not in (None, restriction.owner):
            continue
        happened = snapshot.happened.get((restriction.owner, restriction.digest), ())
        yield _forbid(
            restriction.ref,
            restriction,
            [
                f"context.source == {_entity('Agency', restriction.owner)}",
                _from(max(signed, restriction.period.start), up=False),
                _until(restriction.period.end, down=False),
                *(_until(event.at, down=False) for event in happened if event.do in ("withdraw", "supersede")),
                *(_subject(restriction.record) if restriction.record is not None else ()),
                *_applies(
                    vocabulary, restriction.tag, restriction.purposes, lifted=restriction.lift == "break_glass"
                ),
            ],
        )  # fmt: skip


def _subject(record: str) -> Iterator[str]:
    yield f"!(context has record && context.record != {_text(record)})"


def _baseline(rule: Baseline) -> str:
    return _forbid(rule.id, rule, [_tagged(rule.tag)])


def _forbid(name: str, rule: Restriction | Baseline, applies: Sequence[str]) -> str:
    names = [] if RECORD in rule.categories else [f"[{_entity_list('Category', rule.categories)}].contains(resource)"]
    action = f"action in Action::{_text(f'more than {rule.at_most.word}')}"
    return _policy(name, rule.text, f"forbid (principal, {action}, resource)", [*names, *applies])


def _ceilings() -> Iterator[str]:
    """What a purpose shows at most, and how sure a link must be."""
    for mode in Mode:
        if mode:
            yield _policy(
                f"purpose/{mode.word}",
                f"A purpose shows at {mode.word} only what the vocabulary says.",
                f"forbid (principal, action == Action::{_text(mode.word)}, resource)",
                [f"!(context.purpose.{mode.word}.contains(resource))"],
            )
    for number, (action, least) in enumerate(_LINKS):
        yield _policy(
            f"link/{number}",
            "The less sure the link, the less is shown.",
            f"forbid (principal, {action}, resource)",
            [f"!(context has link && context.link >= {least.value})"],
        )


# --- pieces ----------------------------------------------------------------------------------------------------------


def _applies(
    vocabulary: Vocabulary, tag: str | None, purposes: frozenset[str] | None, *, lifted: bool
) -> Iterator[str]:
    """By overlap, and where a fact is unknown."""
    if tag is not None:
        yield _tagged(tag)
    if purposes is not None:
        yield _any(_overlap(vocabulary, purposes))
    if lifted:
        yield f"!({_session(LONGEST_SESSION)})"


def _tagged(tag: str) -> str:
    name = _entity("Tag", tag)
    return f"(context.tags.contains({name}) || context.tags_unknown.contains({name}))"


def _overlap(vocabulary: Vocabulary, purposes: Iterable[str]) -> Iterator[str]:
    """Some purpose inside one of these is inside the purpose asked for."""
    below = frozenset[str]().union(*(vocabulary.down(purpose) for purpose in purposes))
    return (f"{_entity('Purpose', purpose)} in context.purpose" for purpose in sorted(below))


def _session(longest: timedelta) -> str:
    minutes = int(longest.total_seconds() // 60)
    return (
        "context has session && context.session <= context.at && "
        f'context.at < context.session.offset(duration("{minutes}m"))'
    )


def _level(vocabulary: Vocabulary, code: str) -> int:
    return tuple(vocabulary.thresholds).index(code) + 1


def _from(start: datetime, *, up: bool = True) -> str:
    return f"context.at >= {instant(start, up=up)}"


def _until(end: datetime, *, down: bool = True) -> str:
    return f"context.at < {instant(end, up=not down)}"


def instant(at: datetime, *, up: bool) -> str:
    """A Cedar datetime, to the millisecond above or below."""
    exact = at.astimezone(UTC)
    floor = exact.replace(microsecond=exact.microsecond // 1000 * 1000)
    if up and floor < exact:
        floor += timedelta(milliseconds=1)
    return f'datetime("{floor:%Y-%m-%dT%H:%M:%S}.{floor.microsecond // 1000:03}Z")'


def _entity(kind: str, name: str) -> str:
    return f"{kind}::{_text(name)}"


def _entity_list(kind: str, names: Iterable[str]) -> str:
    return ", ".join(_entity(kind, name) for name in sorted(names))


def _any(tests: Iterable[str]) -> str:
    return f"({' || '.join(tests)})"


def _all(tests: Iterable[str]) -> str:
    return f"({' && '.join(test if test.startswith(('(', '!(')) else f'({test})' for test in tests)})"


def _text(value: str) -> str:
    """A Cedar string: JSON's, as documents hold no control characters."""
    return json.dumps(value, ensure_ascii=False)


def _policy(name: str, words: str, head: str, tests: Iterable[str]) -> str:
    when = "\n".join(f"when {{ {test} }}" for test in tests)
    return f"@id({_text(name)})\n@text({_text(words)})\n{head}\n{when};\n"

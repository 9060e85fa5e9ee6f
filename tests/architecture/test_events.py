"""The set of events is closed and complete: each is written where `EVENTS.md` says, or reserved, and says why."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

import audit
from audit.events import EVENT_TYPES, OPS
from audit.taxonomy import KINDS, rendered
from broker.api.searches import in_service
from broker.store.log import EventRow
from tests.broker.test_considering import a_round
from tests.builders_area import ANALYST, DECIDER, MORNING, Area, the_time
from tests.builders_families import ELI, FAY, NOBODY, ROBIN, a_linked_area

BROKER: Final = Path(__file__).parents[2] / "broker"
EVENTS: Final = Path(audit.__path__[0]) / "EVENTS.md"

READ: Final = frozenset(
    {
        "broker.publishing", "broker.retention", "broker.web.pages", "broker.reports.breach", "broker.reports.estate", "broker.reports.fhir",
        "broker.reports.ocsf", "broker.reports.register", "broker.reports.running",
    }
)  # fmt: skip
"""Modules that name types of events to read them, and write none but those that `KINDS` gives them."""
READ_BESIDE: Final[Mapping[str, frozenset[str]]] = {
    "broker.considering": frozenset({"search.authorised", "disclosure.authorised", "disclosure.refused"}),
    "broker.sampling": frozenset({"search.authorised"}),
    "broker.reports.search": frozenset({"log.opened"}),
}
"""Modules that write some types and read these."""
COMPOSED: Final[Mapping[str, tuple[str, ...]]] = {
    "broker.validation": ("submission.accepted", "submission.quarantined", "submission.rejected"),
    "broker.register": ("agreement.suspended", "agreement.resumed", "agreement.withdrawn"),
    "broker.expiry": ("agreement.expired", "restriction.expired"),
}
"""Modules that put a type together from its parts."""


@cache
def named() -> Mapping[str, frozenset[str]]:
    """The types of events that each module of the broker names."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in BROKER.rglob("*.py"):
        if "migrations" in path.parts:
            continue
        module = ".".join(path.relative_to(BROKER.parent).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in OPS:
                found[module].add(node.value)
        found[module].update(COMPOSED.get(module, ()))
    return {module: frozenset(types) for module, types in found.items() if types}


def writers() -> Mapping[str, set[str]]:
    """By type the modules that write it, as `KINDS` says."""
    return {name: {f"broker.{one}" for one in kind.by} for name, kind in KINDS.items()}


def test_every_type_is_described_and_no_other() -> None:
    assert KINDS.keys() == set(EVENT_TYPES)
    assert all(bool(kind.by) is not bool(kind.reserved) for kind in KINDS.values())


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_a_type_is_written_where_it_says_and_nowhere_else(type_: str) -> None:
    naming = {
        module
        for module, types in named().items()
        if type_ in types and type_ not in READ_BESIDE.get(module, ()) and module not in READ
    }
    naming |= {one for one in writers()[type_] & READ if type_ in named()[one]}
    assert naming == writers()[type_]


def test_whoever_reads_beside_what_it_writes_still_does() -> None:
    assert {module: named()[module] & types for module, types in READ_BESIDE.items()} == dict(READ_BESIDE)
    assert named().keys() >= READ


def test_no_type_that_looks_like_ours_is_outside_the_closed_set() -> None:
    """Whatever is given as an event's type is a literal of the set, a composed one, or a variable that held one."""
    families = {name.split(".", 1)[0] for name in OPS}
    strange = set()
    for path in BROKER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for value in _types_given(node):
                if value.split(".", 1)[0] in families and value not in OPS:
                    strange.add((path.name, value))
    assert not strange


def _types_given(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("type", "type_"):
                yield from _texts(keyword.value)
        if isinstance(node.func, ast.Name) and node.func.id in ("record_change", "record_end", "logged", "_record"):
            for argument in node.args:
                yield from (text for text in _texts(argument) if "." in text)


def _texts(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def test_events_md_is_what_the_code_renders() -> None:
    assert EVENTS.read_text(encoding="utf-8") == rendered(), "python -m audit.taxonomy > audit/EVENTS.md"


# --- What they hold ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    with the_time(MORNING):
        made = a_linked_area(tmp_path_factory.mktemp("events") / "northshire")
        yield made
        made.close()


def test_an_event_holds_the_fields_that_are_described_and_no_other(area: Area) -> None:
    analyst, decider = area.asker(ANALYST), area.asker(DECIDER)
    answer = decider.search(ROBIN.typed(), case="D1")
    decider.threshold(answer, case="D1")
    decider.open(answer)
    analyst.search(FAY.typed(), case="D2")
    analyst.search(NOBODY.typed(), case="D3", purpose="S47")
    analyst.view(ELI.typed(), case="D4")
    a_round(area)
    assert in_service(area.broker).area() is not None
    area.size()
    with area.broker.store.reading() as reading:
        rows = reading.all(EventRow)
    seen: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        opening = area.broker.trail.opening(row.event_id, show=("what", "why", "detail"))
        for section in ("what", "why", "detail"):
            body: Any = opening.body(section)
            seen[row.type][section] |= body.keys() - {"v", "id", "type", "op"}
    assert {"search.authorised", "disclosure.authorised", "notice.batch", "submission.accepted"} <= seen.keys()
    told = {
        (type_, section): sorted(missing)
        for type_, sections in seen.items()
        for section, fields in sections.items()
        if (missing := fields - _fields_of(type_, section))
    }
    assert told == {}


def _fields_of(type_: str, section: str) -> set[str]:
    text: str = getattr(KINDS[type_], section)
    found = {word.strip(",:;()") for word in text.split()}
    for other in found & OPS.keys():  # "as search.authorised"
        found |= _fields_of(other, section) if other != type_ else set()
    return found

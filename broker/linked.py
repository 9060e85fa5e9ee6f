"""The published link run, opened: who is one person, who is whose family, and which shields lie over them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from broker.store import Store
from broker.store.runs import LinkRunRow, PublishedRow
from broker.vault import SegmentId, Vault
from linkage.matching.model import Model
from linkage.matching.overrides import RecordKey
from linkage.matching.search import Index

_KEPT: Final = ("agency", "flow", "record_ref", "birth_year", "sex", "person_role", "shield", "deceased")
RELATION_OF: Final[Mapping[str, str]] = {
    # person_a is the <type> of person_b: what a is to b, in the words of agreements
    "birth_parent": "parent", "step_parent": "parent", "parental_responsibility": "parent", "carer": "carer",
    "sibling": "sibling", "partner": "other", "household": "household",
}  # fmt: skip
_FROM_B: Final[Mapping[str, str]] = {"sibling": "sibling", "household": "household"}
_RANK: Final = ("sibling", "parent", "carer", "household", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFlags:
    """What a record says beside its encodings: coarse, and never who it is."""

    birth_year: int | None
    sex: str | None
    person_role: str
    shield: str
    deceased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """One statement of one agency on how two persons are related."""

    type: str
    source: str
    verified: bool
    since: date | None
    until: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Someone of a person's family.  `relation` is what they are to the person, in the words of agreements."""

    person_id: str
    relation: str
    stated: tuple[Stated, ...]


@dataclass(frozen=True, kw_only=True)
class LinkedArea:
    """One published run, read only."""

    run: str
    index: Index
    persons: pa.Table
    pairs: pa.Table

    @cached_property
    def _flags(self) -> Mapping[RecordKey, RecordFlags]:
        """By record.  Of alternative rows the strictest shield counts."""
        flags: dict[RecordKey, RecordFlags] = {}
        columns = [self.persons[name].to_pylist() for name in _KEPT]
        for agency, flow, ref, year, sex, role, shield, deceased in zip(*columns, strict=True):
            key = (agency, flow, ref)
            before = flags.get(key)
            strictest = max(shield or "none", before.shield if before else "none", key=_strictness)
            flags[key] = RecordFlags(
                birth_year=year if year is not None or before is None else before.birth_year,
                sex=sex or (before.sex if before else None),
                person_role=role,
                shield=strictest,
                deceased=bool(deceased) or bool(before and before.deceased),
            )
        return flags

    @cached_property
    def _firm(self) -> frozenset[RecordKey]:
        """Records that a pair over the higher bar ties to another record of their person."""
        upper = self.pairs.filter(pc.field("upper"))
        return frozenset(
            key
            for side in ("l", "r")
            for key in zip(*(upper[f"{name}_{side}"].to_pylist() for name in _KEPT[:3]), strict=True)
        )

    def flags(self, record: RecordKey) -> RecordFlags:
        """What is known of one record of this run.  Raises KeyError for a stranger."""
        return self._flags[record]

    def firm(self, record: RecordKey) -> bool:
        """Whether the record is tied to its person over the higher bar."""
        return record in self._firm

    def birth_year(self, person_id: str) -> int | None:
        """The year most of a person's records give; of equals the earliest."""
        years = [flags.birth_year for flags in self._all(person_id) if flags.birth_year is not None]
        return min(years, key=lambda year: (-years.count(year), year)) if years else None

    def person_role(self, person_id: str) -> str:
        """What a person is in most records: child, parent, carer, other."""
        roles = [flags.person_role for flags in self._all(person_id)]
        return min(roles, key=lambda role: (-roles.count(role), role)) if roles else "other"

    def family(self, person_id: str) -> tuple[Relative, ...]:
        """Everyone stated to be family or household, and the other children of the same stated parents."""
        found: dict[str, dict[str, list[Stated]]] = defaultdict(lambda: defaultdict(list))
        parents = []
        for other, relation, stated in self._edges(person_id):
            found[other][relation].append(stated)
            if relation == "parent":
                parents.append((other, stated))
        for parent, stated in parents:
            for other, relation, theirs in self._edges(parent):
                is_child = relation == "child" and theirs.type == stated.type
                if is_child and other != person_id and "sibling" not in found[other]:
                    found[other]["sibling"].append(theirs)
        relatives = []
        for other, by_relation in found.items():
            nearest = min((r for r in by_relation if r in _RANK), key=_RANK.index, default=None)
            relation = nearest if nearest not in (None, "household") else next(iter(by_relation))
            stated_all = tuple(s for statements in by_relation.values() for s in statements)
            relatives.append(Relative(person_id=other, relation=relation or "other", stated=stated_all))
        return tuple(sorted(relatives, key=lambda relative: (relative.relation, relative.person_id)))

    def tags(self, person_id: str) -> frozenset[str]:
        """The tags that lie over every record of a person.

        One source's flag covers the whole cluster.  A full shield covers the household too; a shielded address
        covers household, parents, carers and siblings, since any of them may tell the place.
        """
        own = {flags.shield for flags in self._all(person_id)}
        tags = set()
        relatives = self.family(person_id)
        near = {shield for relative in relatives for shield in self._shields(relative.person_id)}
        home = {
            shield
            for relative in relatives
            if any(stated.type == "household" for stated in relative.stated)
            for shield in self._shields(relative.person_id)
        }
        if "full" in own | home:
            tags.add("shield_full")
        if (own | near) & {"address", "full"}:
            tags.add("shield_address")
        if all(flags.deceased for flags in self._all(person_id)) and own:
            tags.add("deceased")
        return frozenset(tags)

    def _edges(self, person_id: str) -> list[tuple[str, str, Stated]]:
        edges = self.index.family_of(person_id).to_pylist()
        listed = []
        for edge in edges:
            stated = Stated(
                type=edge["type"], source=edge["agency"], verified=bool(edge["verified"]),
                since=edge["valid_from"], until=edge["valid_to"],
            )  # fmt: skip
            if edge["person_b"] == person_id:
                listed.append((edge["person_a"], RELATION_OF.get(edge["type"], "other"), stated))
            else:
                listed.append((edge["person_b"], _FROM_B.get(edge["type"], "child"), stated))
        return listed

    def _all(self, person_id: str) -> list[RecordFlags]:
        return [self._flags[record] for record in self.index.records_of(person_id)]

    def _shields(self, person_id: str) -> set[str]:
        return {flags.shield for flags in self._all(person_id)}


class InService:
    """The run that the pointer names, opened once and kept until the pointer moves."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._opening = threading.Lock()
        self._area: LinkedArea | None = None

    def area(self) -> LinkedArea | None:
        """The published run, or None before the first.  While a new one is being opened, others wait for it."""
        with self._store.reading() as tx:
            published = tx.one(PublishedRow)
            run = tx.one(LinkRunRow, id=published.run) if published else None
        if run is None:
            return None
        area = self._area
        if area is not None and area.run == run.id:
            return area
        with self._opening:
            if self._area is None or self._area.run != run.id:
                self._area = self._open(run)
            return self._area

    def _open(self, run: LinkRunRow) -> LinkedArea:
        tables = {
            name: self._vault.read(SegmentId(run.segments[name])) for name in ("persons", "clusters", "family", "pairs")
        }
        model = Model.parse(self._vault.read(SegmentId(run.segments["model"]))["model"][0].as_py())
        area = LinkedArea(
            run=run.id,
            index=Index(tables["persons"], tables["clusters"], tables["family"], model),
            persons=tables["persons"].select(list(_KEPT)),
            pairs=tables["pairs"],
        )
        _ = area._flags, area._firm  # so that the first search does not wait for them
        return area


def _strictness(shield: str) -> int:
    return ("none", "address", "full").index(shield)

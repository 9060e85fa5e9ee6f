"""The published link run, opened: who is one person, who is whose family, and which shields lie over them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache, partial
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from broker.errors import WrongState
from broker.store import Store
from broker.store.runs import LinkRunRow, PublishedRow
from broker.vault import GONE, OTHERS, SegmentId, Vault
from linkage.matching.families import Known, Statement, disagreements, family_of
from linkage.matching.keeping import CLUSTERS, PEOPLE, RECORDS, ROWS
from linkage.matching.keeping import PAIRS as KEPT_PAIRS
from linkage.matching.kin import KEPT_EDGES, KEPT_FLOWS
from linkage.matching.lazily import Lazy, Piece
from linkage.matching.model import BadModel, Model
from linkage.matching.overrides import RecordKey, severed_pairs
from linkage.matching.search import Index
from linkage.matching.settling import NO_RULE, RULES
from linkage.matching.texts import texts_at, texts_of, whole

H = TypeVar("H", bound=Hashable)
_KEPT: Final = ("agency", "flow", "record_ref", "birth_year", "sex", "person_role", "shield", "deceased")
RELATION_OF: Final[Mapping[str, str]] = {
    # person_a is the <type> of person_b: what a is to b, in the words of agreements
    "birth_parent": "parent", "step_parent": "parent", "parental_responsibility": "parent", "carer": "carer",
    "sibling": "sibling", "partner": "other", "household": "household",
}  # fmt: skip
_FROM_B: Final[Mapping[str, str]] = {"sibling": "sibling", "household": "household"}
_RANK: Final = ("sibling", "parent", "carer", "household", "other")
_FOR_GOOD: Final = ("birth_parent", "sibling")  # relations that do not end


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
    """One statement of one agency's flow on how two persons are related."""

    type: str
    source: str
    flow: str
    verified: bool
    since: date | None
    until: date | None

    def holds(self, on: date) -> bool:
        """Whether it still makes a relation on a day: a carer ceases to be one, a parent by birth does not."""
        return self.type in _FOR_GOOD or self.until is None or self.until >= on


@dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    """Someone of a person's family.  `relation` is what they are to the person, in the words of agreements."""

    person_id: str
    relation: str
    stated: tuple[Stated, ...]
    flows: frozenset[tuple[str, str]]  # agency and flow of those that each state the whole relation, not half of it


@dataclass(frozen=True, kw_only=True)
class LinkedArea:
    """One published run, read only.  `pairs` are those it kept: they number records by row of `clusters`."""

    run: str
    index: Index
    persons: pa.Table
    pairs: pa.Table
    clusters: pa.Table
    epoch: str = ""  # of the linkage key; not told by a run of before

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
    def _ties(self) -> Mapping[RecordKey, tuple[RecordKey, ...]]:
        """The records of the same person that a pair over the higher bar ties to a record."""
        upper = self.pairs.filter(pc.field("upper"))
        left, right = (upper[f"rec_{side}"] for side in "lr")
        owner = self.clusters["person_id"]
        one = upper.filter(pc.equal(owner.take(left), owner.take(right)))
        ties: dict[RecordKey, list[RecordKey]] = defaultdict(list)
        ends = [self.clusters.take(one[f"rec_{side}"]) for side in "lr"]
        for left_key, right_key in zip(*map(_keys, ends), strict=True):
            ties[left_key].append(right_key)
            ties[right_key].append(left_key)
        return {record: tuple(others) for record, others in ties.items()}

    def warm(self) -> LinkedArea:
        """Itself, with what is derived from the tables derived, so that the first search does not wait for it."""
        _ = self._flags, self._ties
        return self

    def weights(self, records: Iterable[RecordKey]) -> dict[tuple[RecordKey, RecordKey], float]:
        """The match weights of the pairs of some records that reached `possible`, as the run had them."""
        wanted = set(records)
        refs = pa.array(sorted({ref for _, _, ref in wanted}), pa.string())
        places = pc.indices_nonzero(pc.is_in(self.clusters["record_ref"], value_set=refs))
        keys = dict(zip(places.to_pylist(), _keys(self.clusters.take(places)), strict=True))
        near = self.pairs.filter(
            pc.and_(*(pc.is_in(self.pairs[f"rec_{side}"], value_set=places.cast(pa.int32())) for side in "lr"))
        )
        near = near.filter(pc.not_equal(near["rule"], RULES.index(NO_RULE)))
        ends = [[keys[place] for place in near[f"rec_{side}"].to_pylist()] for side in "lr"]
        return {
            (left, right): weight
            for left, right, weight in zip(*ends, near["weight"].to_pylist(), strict=True)
            if left in wanted and right in wanted
        }

    def tied(self, sure: Iterable[RecordKey]) -> frozenset[RecordKey]:
        """These records, and all that a chain of pairs over the higher bar ties to one of them."""
        reached = set(sure)
        queue = list(reached)
        while queue:
            new = [record for record in self._ties.get(queue.pop(), ()) if record not in reached]
            reached.update(new)
            queue += new
        return frozenset(reached)

    def birth_year(self, shown: Iterable[RecordKey]) -> int | None:
        """The year most of these records give; of equals the earliest.  Hidden ones must not be among them."""
        return _most(year for record in shown if (year := self._flags[record].birth_year) is not None)

    def sex(self, shown: Iterable[RecordKey]) -> str | None:
        """What most of these records give; of equals the first in the alphabet."""
        return _most(sex for record in shown if (sex := self._flags[record].sex) is not None)

    def person_role(self, shown: Iterable[RecordKey]) -> str:
        """What a person is in most of these records: child, parent, carer, other."""
        return _most(self._flags[record].person_role for record in shown) or "other"

    def family(self, person_id: str, told: Callable[[Stated], bool] = lambda _: True) -> tuple[Relative, ...]:
        """Family and household as those statements have it that `told` lets through, and the other children of the
        same stated parents: both halves of such a sibling must be let through."""
        found: dict[str, list[tuple[str, Stated, bool]]] = defaultdict(list)
        parents: dict[str, list[Stated]] = defaultdict(list)
        for other, relation, stated in self._edges(person_id, told):
            found[other].append((relation, stated, True))
            if relation == "parent":
                parents[other].append(stated)
        for parent, ours in parents.items():
            for other, relation, stated in self._edges(parent, told):
                alike = [half for half in ours if half.type == stated.type]
                if relation == "child" and other != person_id and alike:
                    alone = any((half.source, half.flow) == (stated.source, stated.flow) for half in alike)
                    found[other].append(("sibling", stated, alone))
        return tuple(
            Relative(
                person_id=other,
                relation=_nearest(relation for relation, _, _ in several),
                stated=tuple(stated for _, stated, _ in several),
                flows=frozenset((stated.source, stated.flow) for _, stated, alone in several if alone),
            )
            for other, several in sorted(found.items())
        )

    def conflicts(
        self, person_id: str, known: Mapping[str, Known], told: Callable[[Stated], bool]
    ) -> Mapping[str, tuple[str, ...]]:
        """By relative, how statements contradict each other on what they are to a person: codes of DISAGREEMENTS.

        Nothing counts but the statements that `told` lets through, on those who are in `known`, and what is known of
        them there: what is hidden contradicts nothing.
        """
        others, said = [], []
        for edge in self.index.family_of(person_id).to_pylist():
            other = edge["person_b"] if edge["person_a"] == person_id else edge["person_a"]
            if other in known and edge["type"] != "household" and told(_stated(edge)):
                others.append(other)
                source = (edge["agency"], edge["flow"])
                said.append(
                    Statement(
                        a=edge["person_a"], b=edge["person_b"], type=edge["type"], source=source, until=edge["valid_to"]
                    )
                )
        found: dict[str, set[str]] = defaultdict(set)
        for other, codes in zip(others, disagreements(said, known), strict=True):
            found[other] |= codes
        return {other: tuple(sorted(codes)) for other, codes in found.items()}

    def tags(self, person_id: str) -> frozenset[str]:
        """The tags that lie over every record of a person.

        One source's flag covers the whole cluster.  A full shield covers the household too; a shielded address covers
        everyone of the family and the household, since any of them may tell the place.  Who said so makes no
        difference here, nor whether it has ended: the strictest wins.
        """
        own = self._shields(person_id)
        tags = set()
        near, home = set[str](), set[str]()
        for relative in self.family(person_id):
            theirs = self._shields(relative.person_id)
            near |= theirs
            if any(stated.type == "household" for stated in relative.stated):
                home |= theirs
        if "full" in own | home:
            tags.add("shield_full")
        if (own | near) & {"address", "full"}:
            tags.add("shield_address")
        if own and all(flags.deceased for flags in self._all(person_id)):
            tags.add("deceased")
        return frozenset(tags)

    def shielding(self, person_id: str) -> frozenset[RecordKey]:
        """The records for whose flag a person is shielded: those of the strictest shield that lies over the person."""
        own = list(self.index.records_of(person_id))
        family = self.family(person_id)
        home = [one for one in family if any(stated.type == "household" for stated in one.stated)]
        full = [*own, *(record for one in home for record in self.index.records_of(one.person_id))]
        sealed = frozenset(record for record in full if self._flags[record].shield == "full")
        near = [*own, *(record for one in family for record in self.index.records_of(one.person_id))]
        return sealed or frozenset(record for record in near if self._flags[record].shield != "none")

    def _edges(self, person_id: str, told: Callable[[Stated], bool]) -> list[tuple[str, str, Stated]]:
        listed = []
        for edge in self.index.family_of(person_id).to_pylist():
            stated = _stated(edge)
            if not told(stated):
                continue
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
        vault, segments = self._vault, run.segments
        if KEPT_EDGES not in segments:
            raise WrongState(f"what was linked {OTHERS}")
        persons, clusters = self._records(run)
        pairs, severed = (vault.read(segments[name]) for name in (KEPT_PAIRS, "severed"))
        try:
            model = Model.parse(vault.read(SegmentId(segments["model"]))["model"][0].as_py())
        except BadModel:
            raise WrongState(f"the linkage model in service {OTHERS}") from None
        return LinkedArea(
            run=run.id,
            index=Index(
                persons,
                clusters,
                family_in(vault, run),
                model,
                duplicates={(agency, flow) for agency, flow in (name.split("/") for name in run.counts["duplicates"])},
                severed=severed_pairs(severed),
            ),
            persons=persons.select(list(_KEPT)),
            pairs=pairs,
            clusters=clusters,
            epoch=run.counts.get("key_epoch", ""),
        ).warm()

    def _records(self, run: LinkRunRow) -> tuple[pa.Table, pa.Table]:
        """The rows of persons of a run, and whose its records are."""
        persons = persons_of(self._vault, run)
        return persons, clusters_of(self._vault, run, persons)


def persons_of(vault: Vault, run: LinkRunRow, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of persons of a run, or some of their columns, in the order in which it had them."""
    tables = []
    for name in (name for name, _ in run.counts["lengths"] if name.startswith("persons/")):
        mine = (f"{name}/", f"{GONE}{name}/")
        parts = {part: segment for part, segment in run.segments.items() if f"{part}/".startswith(mine)}
        tables.append(vault.read_parts(parts, "persons", columns))
    return pa.concat_tables(tables)


def clusters_of(vault: Vault, run: LinkRunRow, persons: pa.Table | None = None) -> pa.Table:
    """Every record of a run, once, and whose it is: of CLUSTERS, in the order in which its pairs number them.

    A run keeps this by number; `persons` are its rows (with agency, flow and record_ref), where they are at hand.
    """
    if "clusters" in run.segments:  # of an earlier version's run, which left out rows: records are not numbered by them
        return vault.read(run.segments["clusters"])
    rec, person = vault.read(run.segments[ROWS])["rec"].to_numpy(), vault.read(run.segments[RECORDS], ["person"])
    people = whole(vault.read(run.segments[PEOPLE])["person_id"])
    first = np.zeros(person.num_rows, np.int64)
    first[rec[::-1]] = np.arange(len(rec) - 1, -1, -1)  # the last to be written is the first
    named = persons_of(vault, run, list(_KEPT[:3])) if persons is None else persons
    columns = {name: texts_of(named[name], first) for name in _KEPT[:3]}
    return pa.table({**columns, "person_id": texts_at(people, person["person"].to_numpy())}, schema=CLUSTERS)


def family_in(vault: Vault, run: LinkRunRow) -> pa.Table:
    """The family network of a run: of FAMILY."""
    edges, flows, people = (vault.read(run.segments[name]) for name in (KEPT_EDGES, KEPT_FLOWS, PEOPLE))
    sources = list(zip(*(flows[name].to_pylist() for name in ("agency", "flow")), strict=True))
    return family_of(edges.filter(pc.invert(edges["cut"])), whole(people["person_id"]), sources)


def clusters_read_when_asked(vault: Vault, run: LinkRunRow) -> Lazy:
    """The same, of which nothing is read before something is asked of it."""
    found = lru_cache(1)(partial(clusters_of, vault, run))
    return Lazy(CLUSTERS, [Piece(read=lambda name, _: found()[name], rows=run.counts["records"])])


def _stated(edge: Mapping[str, Any]) -> Stated:
    return Stated(
        type=edge["type"], source=edge["agency"], flow=edge["flow"], verified=bool(edge["verified"]),
        since=edge["valid_from"], until=edge["valid_to"],
    )  # fmt: skip


def _strictness(shield: str) -> int:
    return ("none", "address", "full").index(shield)


def _nearest(relations: Iterable[str]) -> str:
    return min((each if each in _RANK else "other" for each in relations), key=_RANK.index)


def _most(values: Iterable[H]) -> H | None:
    several = sorted(values, key=str)
    return max(several, key=several.count) if several else None


def _keys(table: pa.Table, side: str = "") -> Iterable[RecordKey]:
    return zip(*(table[f"{name}{side}"].to_pylist() for name in _KEPT[:3]), strict=True)

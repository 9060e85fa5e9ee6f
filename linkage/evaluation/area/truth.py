"""What is true, written beside the extracts: who is who, who must never be joined, and whom a demo may search for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from linkage.evaluation.area.families import CHILD, ROLE_NAMES, SHIELD_FULL, Area, Longs
from linkage.evaluation.area.items import LEADS, Lives
from linkage.evaluation.area.names import CANARY, CUSTOMS
from linkage.evaluation.area.records import SHIELD_NAMES, Rows

_SHOWN = ("given_name", "family_name", "date_of_birth", "postcode", "sex")


def person_ids(who: npt.NDArray[np.integer[Any]]) -> pa.Array:
    """True identities as text: `p0000012`."""
    return pa.array([f"p{person:07d}" for person in who.tolist()], pa.string())


def write_truth(folder: Path, area: Area, every: list[tuple[Rows, pa.Array]]) -> dict[str, int]:
    """persons.parquet, severed.parquet and twins.parquet; returns how many pairs of each."""
    folder.mkdir(parents=True, exist_ok=True)
    people = area.people
    pq.write_table(pa.concat_tables(_persons(area, rows, ids) for rows, ids in every), folder / "persons.parquet")
    new = np.flatnonzero(people.severed >= 0)
    pq.write_table(
        pa.table({"person_old": person_ids(people.severed[new]), "person_new": person_ids(new)}),
        folder / "severed.parquet",
    )
    one, other = _twin_pairs(area)
    pq.write_table(pa.table({"person_a": person_ids(one), "person_b": person_ids(other)}), folder / "twins.parquet")
    return {"severed_pairs": len(new), "twin_pairs": len(one)}


def _persons(area: Area, rows: Rows, ids: pa.Array) -> pa.Table:
    people, who = area.people, rows.who
    count = len(who)
    recent = (people.earlier[who] >= 0) & ((area.on - people.moved_on[who]).astype(np.float64) < 730)
    twin = np.full(len(people), -1, np.int64)
    one, other = _twin_pairs(area)
    twin[one], twin[other] = other, one
    twins, severed = twin[who], people.severed[who]
    return pa.table(
        {
            "agency": pa.array([rows.flow.agency] * count),
            "flow": pa.array([rows.flow.flow] * count),
            "local_id": rows.local_id,
            "person_id": ids,
            "family_id": pa.array([f"f{family:07d}" for family in people.family[who].tolist()]),
            "role": pa.array(np.array(ROLE_NAMES, object)[people.role[who]]),
            "naming_custom": pa.array(np.array(CUSTOMS, object)[people.custom[who]]),
            "decile": pa.array(area.decile[area.hood[people.family[who]]]),
            "looked_after": pa.array(people.looked_after[who]),
            "moved": pa.array(recent),
            "unborn": pa.array(people.unborn[who]),
            "twin_of": _ids_or_null(twins),
            "severed_from": _ids_or_null(severed),
            "old_identity": pa.array(people.old_life[who]),
            "shield": pa.array(np.array(SHIELD_NAMES, object)[people.shield[who]]),
            "second_record": pa.array(rows.again),
        }
    )


def _ids_or_null(who: npt.NDArray[np.integer[Any]]) -> pa.Array:
    return pa.array([f"p{person:07d}" if person >= 0 else None for person in who.tolist()], pa.string())


def _twin_pairs(area: Area) -> tuple[Longs, Longs]:
    """Every two of one birth; of triplets three pairs."""
    places = np.flatnonzero((area.people.twins >= 0) & ~area.people.old_life)
    order = places[np.argsort(area.people.twins[places], kind="stable")]
    group = area.people.twins[order]
    ones, others = [], []
    for step in (1, 2):
        same = np.flatnonzero(group[step:] == group[:-step])
        ones.append(order[same])
        others.append(order[same + step])
    return np.concatenate(ones), np.concatenate(others)


class Desk:
    """Rows of all flows looked up by person, for the few people a showcase needs."""

    def __init__(self, area: Area, every: list[tuple[Rows, pa.Array]]) -> None:
        self.area, self.every = area, [rows for rows, _ in every]
        self.place = {}
        for rows in self.every:
            place = np.full(len(area.people), -1, np.int64)
            place[rows.who[::-1]] = np.arange(len(rows.who))[::-1]
            self.place[rows.flow.flow] = place

    def knows(self, flow: str, person: int) -> bool:
        return bool(self.place[flow][person] >= 0)

    def row(self, flow: str, person: int) -> dict[str, Any]:
        rows = next(rows for rows in self.every if rows.flow.flow == flow)
        found: dict[str, Any] = rows.table.slice(int(self.place[flow][person]), 1).to_pylist()[0]
        return found

    def flows(self, person: int) -> list[Rows]:
        return [rows for rows in self.every if self.knows(rows.flow.flow, person)]

    def consistent(self, person: int, *flows: str) -> bool:
        """Do these flows hold the person under one name, date of birth, postcode and sex?"""
        seen = {tuple(str(self.row(flow, person)[field]).upper() for field in _SHOWN) for flow in flows}
        return len(seen) == 1 and "NONE" not in next(iter(seen))

    def typed(self, kind: str, why: str, person: int, flow: str, *, number: bool = False) -> dict[str, Any]:
        """What an analyst would type, as `flow` holds it, and what a search should then find."""
        row = self.row(flow, person)
        people, words = self.area.people, self.area.book.words
        nhs = int(people.nhs[person]) if number else None
        household = []
        for relation, other in (("mother", int(people.mother[person])), ("father", int(people.father[person]))):
            if other >= 0:
                household.append(
                    {
                        "relation": relation,
                        "given_name": words[people.given[other]],
                        "family_name": words[people.surname[other]],
                        "date_of_birth": str(people.born[other]),
                    }
                )
        return {
            "kind": kind, "why": why, "person_id": f"p{person:07d}",
            **{field: "" if row[field] is None else str(row[field]) for field in _SHOWN},
            "nhs_number": "" if nhs is None else str(nhs), "household": household,
            "known_to": sorted(rows.flow.key for rows in self.flows(person)),
            "organisations": sorted({rows.flow.agency for rows in self.flows(person)}),
            "local_ids": {
                rows.flow.key: rows.local_id[int(self.place[rows.flow.flow][person])].as_py()
                for rows in self.flows(person)
            },
        }  # fmt: skip


def showcase(area: Area, lives: Lives, every: list[tuple[Rows, pa.Array]]) -> list[dict[str, Any]]:
    """Children worth searching for, the first of each kind by number; a kind with nobody is left out."""
    desk, people = Desk(area, every), area.people
    plain = (people.role == CHILD) & (people.shield == 0) & (people.twins < 0) & (people.severed < 0)
    plain &= ~people.old_life & ~people.unborn & (people.family > 1) & ~people.looked_after
    on_plan = ~np.isnat(lives.plan) & np.isnat(lives.plan_to)
    in_need = ~np.isnat(lives.in_need) & np.isnat(lives.in_need_to)
    helped = ~np.isnat(lives.help) & np.isnat(lives.help_to) & (lives.lead == LEADS.index("SCHOOL"))
    new = people.severed >= 0
    found: list[dict[str, Any]] = []

    def first(kind: str, why: str, among: Iterator[int], flow: str, *, number: bool = False) -> None:
        person = next(among, None)
        if person is not None:
            found.append(desk.typed(kind, why, person, flow, number=number))

    def all_of(flags: Any, *flows: str, agree: bool = True) -> Iterator[int]:
        """In order; those whose records agree, or else just those whom the flows know."""
        fit = flags.copy()
        for flow in flows:
            fit &= desk.place[flow] >= 0
        for person in np.flatnonzero(fit).tolist():
            if not agree or desk.consistent(person, *flows):
                yield person

    young = (people.role == CHILD) & ~people.old_life & ~people.unborn
    siblings = young & (np.bincount(people.family[young], minlength=int(people.family.max()) + 1)[people.family] > 1)
    first(
        "open_case", "known to three organisations, with a child protection plan or an open social-care case",
        (
            p
            for flows in (("social_care", "education", "health", "police"), ("social_care", "health", "police"))
            for group in (on_plan & siblings, on_plan, in_need & siblings, in_need)
            for p in all_of(plain & group, *flows)
        ), "social_care", number=True,
    )  # fmt: skip
    first(
        "early_help", "no social worker; an open early-help episode that a school leads",
        all_of(plain & helped & (desk.place["social_care"] < 0), "early_help", "education", "health"), "early_help",
    )  # fmt: skip
    shielded = (people.role == CHILD) & (people.shield == 1) & ~people.looked_after & ~people.unborn
    for flows in (("health", "social_care", "education"), ("health", "social_care")):
        if not any(entry["kind"] == "address_shield" for entry in found):
            first(
                "address_shield", "found, but no page may say where the child is",
                all_of(shielded, *flows), "social_care", number=True,
            )  # fmt: skip
    full = (people.role == CHILD) & (people.shield == SHIELD_FULL) & ~people.unborn
    first(
        "full_shield", "must look like no record at all", all_of(full, "health", "social_care", agree=False), "health",
        number=True,
    )  # fmt: skip
    old = np.zeros(len(people), bool)
    old[people.severed[new]] = True
    first(
        "severed_old_identity", "adopted since: the search must not lead to the new identity",
        all_of(old, "health", "social_care", agree=False), "social_care",
    )  # fmt: skip
    twin = (people.twins >= 0) & (people.role == CHILD) & (people.family > 1) & (people.shield == 0)
    first("twin", "the other twin's records must stay out", all_of(twin, "health", "education"), "health")
    return found


def canaries(area: Area, every: list[tuple[Rows, pa.Array]]) -> dict[str, list[str]]:
    """Strings of the first two families that stand in the extracts and may stand nowhere at a broker."""
    people, homes = area.people, area.homes
    members = set(np.flatnonzero((people.family <= 1) & ~people.old_life).tolist())
    held: dict[str, set[str]] = {"identifiers": set(), "local_ids": set(), "postcodes": set(), "addresses": set()}
    for rows, _ in every:
        for place in np.flatnonzero(np.isin(rows.who, list(members))).tolist():
            row = rows.table.slice(place, 1).to_pylist()[0]
            held["local_ids"].add(row["local_id"])
            for field in ("nhs_number", "superseded_nhs_number", "upn", "pnc_id", "cro", "uln"):
                if row[field] and field in rows.flow.columns:
                    held["identifiers"].add(row[field])
    for person in sorted(members):
        if people.role[person] == CHILD:
            held["postcodes"].add(homes.postcodes[homes.postcode[people.home[person]]])
            held["addresses"].add(homes.streets[homes.postcode[people.home[person]]])
    return {"names": list(CANARY), **{kind: sorted(values) for kind, values in held.items()}}


def write_json(path: Path, body: object) -> None:
    """JSON with sorted keys: the same bytes for the same body."""
    text = json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")

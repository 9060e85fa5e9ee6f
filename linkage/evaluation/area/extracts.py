"""Extracts as files: each flow in its own words, and the mapping.toml that says which word is which field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from linkage.evaluation.area.agencies import CONTACTS, FLOWS, Flow
from linkage.evaluation.area.families import CARER, CHILD, COUPLE, STEP, Area, Ints, Longs
from linkage.evaluation.area.items import COLUMNS
from linkage.evaluation.area.names import CUSTOMS
from linkage.evaluation.area.records import Rows

AGREEMENT: Final = "northshire-mash@3.0.0"
_ITEM_COLUMNS: Final = ("local_id", *COLUMNS[1:])
_ITEM_DATES: Final = ("occurred_on", "recorded_on", "ended_on")
_TIE_COLUMNS: Final = ("local_id_a", "local_id_b", "type", "verified")
_RARE: Final = 100  # a category with fewer rows than this may have none in a smaller area, or another night


def write_flow(folder: Path, rows: Rows, area: Area, items: Mapping[str, pa.Table]) -> dict[str, Any]:
    """Write one flow's files and mapping into `folder`; returns how many persons, ties and items they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    flow = rows.flow
    _write(folder / flow.file, _in_its_own_words(rows, area))
    ties = relationships(rows, area)
    kinds = pa.array([flow.relations[kind] for kind in ties.column("type").to_pylist()], pa.string())
    _write(folder / "relationships.csv", ties.set_column(2, "type", kinds))
    for category, table in items.items():
        _write(folder / _items_file(category), _items(rows, table))
    communal = area.homes.uprn[area.homes.communal]
    text = _mapping(flow, items, [str(uprn) for uprn in np.unique(communal).tolist()])
    (folder / "mapping.toml").write_text(text, encoding="utf-8", newline="\n")
    counts = {category: table.num_rows for category, table in items.items()}
    return {
        "persons": len(rows.who), "relationships": ties.num_rows, "items": sum(counts.values()), "categories": counts
    }  # fmt: skip


def write_contacts(extracts: Path) -> None:
    """The registered contacts of each agency."""
    for agency, contacts in CONTACTS.items():
        lines = []
        for contact, (name, phone, out_of_hours) in contacts.items():
            lines += [f"[{contact}]", f"name = {_text(name)}", f"phone = {_text(phone)}"]
            lines += [f"out_of_hours = {_text(out_of_hours)}", ""]
        path = extracts / agency / "contacts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8", newline="\n")


def relationships(rows: Rows, area: Area) -> pa.Table:
    """Ties between people whom this flow knows, in our words: `local_id_a` is the `type` of `local_id_b`."""
    people, who = area.people, rows.who
    place = np.full(len(people), -1, np.int64)
    place[who[::-1]] = np.arange(len(who))[::-1]  # of two records of one person, the first
    first = np.flatnonzero(~rows.again)
    kids = first[people.role[who[first]] == CHILD]
    child = who[kids]
    ties: list[tuple[Longs, Longs, str]] = []

    def tie(adults: Ints | Longs, children: Ints | Longs, kind: str) -> None:
        known = (adults >= 0) & (place[np.maximum(adults, 0)] >= 0)
        ties.append((place[adults[known]], place[children[known]], kind))

    adopted = people.severed[child] >= 0
    for parent in (people.mother[child], people.father[child]):
        tie(parent[~adopted], child[~adopted], "birth_parent")
        tie(parent[adopted], child[adopted], "parental_responsibility")
    for role, kind in ((STEP, "step_parent"), (CARER, "carer")):
        of_family = np.full(len(area.structure), -1, np.int32)
        adults = np.flatnonzero(people.role == role).astype(np.int32)
        of_family[people.family[adults]] = adults
        other = of_family[people.family[child]]
        other[(other == people.father[child]) | people.old_life[child]] = -1
        tie(other, child, kind)
    if rows.flow.flow in ("social_care", "early_help"):
        order = child[np.argsort(people.family[child], kind="stable")]
        for step in range(1, 6):
            one, other = order[:-step], order[step:]
            related = (
                (people.mother[one] == people.mother[other]) & (people.severed[one] < 0) & (people.severed[other] < 0)
            )
            tie(one[related], other[related], "sibling")
        couples = np.unique(child[(area.structure[people.family[child]] == COUPLE) & ~adopted])
        _, at = np.unique(people.family[couples], return_index=True)
        pairs = couples[at]
        both = (people.father[pairs] >= 0) & (place[np.maximum(people.father[pairs], 0)] >= 0)
        tie(people.mother[pairs[both]], people.father[pairs[both]], "partner")
    left = np.concatenate([one for one, _, _ in ties])
    right = np.concatenate([other for _, other, _ in ties])
    kinds = np.concatenate([np.full(len(one), kind, object) for one, _, kind in ties])
    order = np.lexsort((right, left))
    # a school or a GP takes a parent's word; social care has seen a birth certificate
    seen = (left[order] * 2_654_435_761 + right[order]) % 100 < (85 if rows.flow.flow == "social_care" else 35)
    return pa.table(
        {
            "local_id_a": rows.local_id.take(pa.array(left[order])),
            "local_id_b": rows.local_id.take(pa.array(right[order])),
            "type": pa.array(kinds[order], pa.string()),
            "verified": pa.array(np.where(seen, "true", "false")),
        }
    )


def _in_its_own_words(rows: Rows, area: Area) -> pa.Table:
    flow, table = rows.flow, rows.table
    made: dict[str, pa.Array] = {}
    for field, column in flow.columns.items():
        values = table.column(field).combine_chunks()
        if field in ("date_of_birth", "valid_from"):
            values = pc.strftime(values, format=flow.date_format)
        elif field == "sex":
            values = _coded(values, flow.sexes)
        elif field == "person_role":
            values = _coded(values, flow.roles)
        elif field == "shield":
            values = _coded(values, flow.shields)
        made[column] = values
    # columns that an encoder has no use for, as in any real extract
    homes = area.homes
    number = pa.array(homes.number[rows.home]).cast(pa.string())
    street = pa.array(homes.streets).take(pa.array(homes.postcode[rows.home]))
    made["Address Line 1" if " " in flow.columns["postcode"] else "ADDRESS_LINE_1"] = pc.binary_join_element_wise(
        number, street, " "
    )
    if flow.flow == "social_care":
        expected = pa.array(area.people.born[rows.who], pa.date32(), mask=~area.people.unborn[rows.who])
        made["pers_expected_dob"] = expected.cast(pa.string())
    return pa.table(made)


def _coded(values: pa.Array, codes: Mapping[str, str]) -> pa.Array:
    encoded = values.dictionary_encode()
    words = [codes[word] or None for word in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.string()).take(encoded.indices)


def _items(rows: Rows, table: pa.Table) -> pa.Table:
    made = {"local_id": rows.local_id.take(table.column("row").combine_chunks())}
    for column in COLUMNS[1:]:
        values = table.column(column)
        if column == "opinion":
            values = pc.if_else(values, "true", "false")
        elif column in _ITEM_DATES:
            values = pc.strftime(values, format=rows.flow.date_format)
        made[column] = values
    return pa.table(made)


def _write(path: Path, table: pa.Table) -> None:
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="needed"))


def _items_file(category: str) -> str:
    return category.replace(".", "-").replace("_", "-") + ".csv"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _table(values: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{_key(name)} = {_text(value)}" for name, value in values.items()) + "}"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _text(name)


def _mapping(flow: Flow, items: Mapping[str, pa.Table], communal: list[str]) -> str:
    lines = [
        f"agency = {_text(flow.agency)}", f"flow = {_text(flow.flow)}", f"agreements = [{_text(AGREEMENT)}]", "",
        "[persons]", f"file = {_text(flow.file)}", f"duplicates = {str(flow.duplicates).lower()}",
        f"default_date = [{', '.join(map(_text, flow.default_date))}]", "", "[persons.columns]",
    ]  # fmt: skip
    lines += [f"{field} = {_text(column)}" for field, column in flow.columns.items()]
    lines += ["", "[persons.formats]"]
    lines += [
        f"{field} = {_text(flow.date_format)}" for field in ("date_of_birth", "valid_from") if field in flow.columns
    ]
    own = {"sex": flow.sexes, "person_role": flow.roles, "shield": flow.shields}
    for field, codes in own.items():
        if field in flow.columns:
            lines += ["", f"[persons.values.{field}]"]
            lines += [f"{_text(theirs)} = {_text(ours)}" for ours, theirs in codes.items() if theirs]
    lines += ["", "[relationships]", 'file = "relationships.csv"']
    lines += [f"columns = {_table({name: name for name in _TIE_COLUMNS})}", "may_be_empty = true"]
    used = {theirs: ours for ours, theirs in flow.relations.items()}
    lines += ["", "[relationships.values.type]", *(f"{_text(theirs)} = {_text(ours)}" for theirs, ours in used.items())]
    for category, table in items.items():
        lines += ["", f"[items.{_text(category)}]", f"file = {_text(_items_file(category))}"]
        held = [name for name in _ITEM_COLUMNS if name == "local_id" or table.column(name).null_count < table.num_rows]
        own_contact = "contact_ref" in held and table.column("contact_ref").null_count == 0
        columns = {name.removesuffix("_ref"): name for name in held if name != "contact_ref" or own_contact}
        lines += [f"columns = {_table(columns)}"]
        if flow.date_format != "%Y-%m-%d":
            lines += [f"formats = {_table({name: flow.date_format for name in _ITEM_DATES if name in held})}"]
        if table.num_rows < _RARE:
            lines += ["may_be_empty = true"]
        if not own_contact:
            contact = "health-visiting" if category == "health.developmental_review" else flow.contact
            lines += [f"contact = {_text(contact)}"]
    lines += ["", "[households]", f"communal = [{', '.join(map(_text, communal))}]"]
    return "\n".join(lines) + "\n"


LABELLED_MAPPING: Final = """# For `linkage.evaluation quality`, with --truth person_id --dataset dataset
[persons]
duplicates = false
default_date = []

[persons.columns]
"""


GROUPS: Final = ("naming_custom", "decile", "looked_after", "moved")
"""What `labelled.csv` says of the true person, to report match rates by; `moved` is within the last year."""


def write_labelled(out: Path, area: Area, every: list[tuple[Rows, pa.Array]]) -> int:
    """`labelled.csv`: the rows of all flows in our own words, each with its true `person_id`; returns their number."""
    fields = list(dict.fromkeys(field for flow in FLOWS for field in flow.columns))
    schema = pa.schema(
        [("person_id", pa.string()), ("dataset", pa.string()), *((name, pa.string()) for name in (*fields, *GROUPS))]
    )
    count = 0
    with csv.CSVWriter(out / "labelled.csv", schema, write_options=csv.WriteOptions(quoting_style="needed")) as writer:
        for rows, person_ids in every:
            columns = [person_ids, pa.array([rows.flow.key] * len(rows.who))]
            for name in fields:
                held = name in rows.flow.columns
                values = rows.table.column(name).cast(pa.string()).combine_chunks()
                columns.append(values if held or name == "dob_quality" else pa.nulls(len(rows.who), pa.string()))
            if rows.flow.default_date:
                place = fields.index("dob_quality") + 2
                born = columns[fields.index("date_of_birth") + 2]
                first = pc.fill_null(pc.ends_with(born, "-01-01"), False)
                columns[place] = pc.if_else(first, "default", columns[place])
            columns += _groups(area, rows.who)
            table = pa.table(columns, schema=schema).filter(pa.array(~rows.again))
            writer.write_table(table)
            count += table.num_rows
    text = LABELLED_MAPPING + "".join(f'{name} = "{name}"\n' for name in fields)
    (out / "labelled-mapping.toml").write_text(text, encoding="utf-8", newline="\n")
    return count


def _groups(area: Area, who: Longs) -> list[pa.Array]:
    people = area.people
    moved = (people.earlier[who] >= 0) & ((area.on - people.moved_on[who]).astype(np.float64) < 365)
    return [
        pa.array(np.array(CUSTOMS, object)[people.custom[who]], pa.string()),
        pa.array(area.decile[area.hood[people.family[who]]]).cast(pa.string()),
        *(pa.array(np.where(flags, "yes", "no")) for flags in (people.looked_after[who], moved)),
    ]

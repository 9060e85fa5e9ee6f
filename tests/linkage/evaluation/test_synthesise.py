"""The synthetic area: it is what it says it is, and its truth is complete."""

from __future__ import annotations

import csv
import hashlib
import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import strptime
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from stdnum.gb import nhs
from typer.testing import CliRunner

from agreements.vocabulary import codes_for_agencies
from linkage.agency import mapping as mappings
from linkage.evaluation.__main__ import app
from linkage.evaluation.area.families import CHILD, make_area
from linkage.evaluation.area.identifiers import cro_numbers, pnc_ids, ulns, upns
from linkage.evaluation.synthesise import TODAY, synthesise

LETTERS = "ABCDEFGHJKLMNPQRTUVWXYZ"


@dataclass(frozen=True)
class Made:
    """An area on disk."""

    folder: Path
    summary: dict[str, Any]

    def flows(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted(self.folder.glob("extracts/*/*/mapping.toml")):
            yield path.parent, tomllib.loads(path.read_text("utf-8"))

    def people(self, folder: Path, mapping: dict[str, Any]) -> list[dict[str, str]]:
        columns = mapping["persons"]["columns"]
        return [
            {field: row[column] for field, column in columns.items()}
            for row in rows_of(folder / mapping["persons"]["file"])
        ]

    def truth(self, name: str) -> list[dict[str, Any]]:
        return list(pq.read_table(self.folder / "truth" / f"{name}.parquet").to_pylist())

    def json(self, name: str) -> Any:
        return json.loads((self.folder / "truth" / f"{name}.json").read_text("utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def day(text: str, form: str) -> date:
    return date(*strptime(text, form)[:3])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("small")
    return Made(folder, synthesise(folder, children=300, seed=4))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("town")
    return Made(folder, synthesise(folder, children=2500, seed=4))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(small: Made, tmp_path: Path) -> None:
    synthesise(tmp_path / "again", children=300, seed=4)
    synthesise(tmp_path / "other", children=300, seed=5)
    assert digests(tmp_path / "again") == digests(small.folder)
    assert digests(tmp_path / "other")["labelled.csv"] != digests(small.folder)["labelled.csv"]


@pytest.mark.parametrize("children", [50, 300, 1001])
def test_there_are_as_many_children_as_asked_for(children: int) -> None:
    area = make_area(children, np.random.default_rng(1), TODAY)
    people = area.people
    assert int(((people.role == CHILD) & ~people.unborn & ~people.old_life).sum()) == children


def test_every_mapping_is_one_that_the_encoder_reads_and_every_column_it_names_is_there(
    small: Made, town: Made
) -> None:
    for made in (small, town):
        for folder, mapping in made.flows():
            read = mappings.load(folder / "mapping.toml")
            for source in (read.persons, read.relationships, *read.items):
                assert source is not None
                assert source.file is not None
                path = folder / source.file
                with path.open(encoding="utf-8", newline="") as lines:
                    header = next(csv.reader(lines))
                assert set(source.columns.values()) <= set(header), (mapping["flow"], path.name)
        labelled = mappings.load(made.folder / "labelled-mapping.toml", persons_only=True)
        with (made.folder / "labelled.csv").open(encoding="utf-8", newline="") as lines:
            assert {*labelled.persons.columns.values(), "person_id", "dataset"} <= set(next(csv.reader(lines)))


def test_every_category_that_may_be_sent_is_there_and_every_item_passes_its_code_list(town: Made) -> None:
    categories = codes_for_agencies()["categories"]
    faults: Counter[tuple[str, ...]] = Counter()
    seen = set()
    for folder, mapping in town.flows():
        known = {person["local_id"] for person in town.people(folder, mapping)}
        for category, block in mapping["items"].items():
            lists = categories[category]
            assert not lists["never_ingest"]
            rows = rows_of(folder / block["file"])
            if rows:
                seen.add(category)
            form = block.get("formats", {}).get("occurred_on", "%Y-%m-%d")
            for row in rows:
                started = day(row["occurred_on"], form)
                ended = day(row["ended_on"], form) if row["ended_on"] else date.max
                outcome = row["outcome_code"]
                fine = {
                    "unknown person": row["local_id"] in known,
                    "code": row["code"] in lists["codes"].get(row["code_system"], ()),
                    "number": not row["number"] or lists["number"],
                    "outcome": not outcome or outcome in (lists["outcomes"] or ()) or lists["outcome_pattern"],
                    "dates": started <= ended and started <= TODAY,
                    "role": row["role"] in ("subject", "victim", "suspect", "witness", "parent"),
                    "regime": row["regime"] == "GENERAL" or category.startswith("police."),
                }
                faults.update((category, fault) for fault, passed in fine.items() if not passed)
    assert not faults
    assert seen == {name for name, lists in categories.items() if not lists["never_ingest"]}


def test_custody_is_law_enforcement_data(town: Made) -> None:
    folder, mapping = next(pair for pair in town.flows() if pair[1]["flow"] == "police")
    assert {row["regime"] for row in rows_of(folder / mapping["items"]["police.custody"]["file"])} == {"LE"}


def upn_passes(upn: str) -> bool:
    values = [LETTERS.index(sign) if sign.isalpha() else int(sign) for sign in upn[1:]]
    return LETTERS[sum(value * weight for value, weight in zip(values, range(2, 14), strict=True)) % 23] == upn[0]


def test_identifiers_pass_their_check_but_for_planted_faults(town: Made) -> None:
    bad: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for folder, mapping in town.flows():
        for person in town.people(folder, mapping):
            for field, passes in (
                ("nhs_number", nhs.is_valid), ("superseded_nhs_number", nhs.is_valid), ("upn", upn_passes),
                ("former_upn", upn_passes),
            ):  # fmt: skip
                if value := person.get(field):
                    held[field] += 1
                    bad[field] += not passes(value)
                    assert field != "nhs_number" or value.startswith("9")  # never issued
            if value := person.get("uln"):
                assert sum(int(sign) * weight for sign, weight in zip(value, range(10, 0, -1), strict=True)) % 11 == 10
    assert held["nhs_number"] > 3000
    assert 0 < bad["nhs_number"] < 0.01 * held["nhs_number"]
    assert not bad["superseded_nhs_number"] + bad["upn"] + bad["former_upn"]


def test_identifiers_agree_with_the_published_examples() -> None:
    assert pnc_ids(np.array([1979, 2002]), np.array([163001, 73319])) == ["1979/0163001B", "2002/0073319Z"]
    assert cro_numbers(np.array([1991]), np.array([65656])) == ["065656/91H"]
    assert len(set(ulns(500, 1).tolist())) == 500
    temporary = np.arange(40) % 2 == 0
    made = upns(np.full(40, 2101), np.full(40, 18), np.arange(40) * 7, temporary=temporary).to_pylist()
    assert all(map(upn_passes, made))
    assert [upn[-1].isalpha() for upn in made] == temporary.tolist()


def test_families_hang_together() -> None:
    area = make_area(1500, np.random.default_rng(3), TODAY)
    people = area.people
    child = people.role == CHILD
    mothers = people.mother[child]
    assert (mothers >= 0).all()
    years = (people.born[child] - people.born[mothers]).astype(int) / 365.2425
    assert years.min() > 13
    fathers = people.father[child]
    theirs = fathers >= 0
    assert ((people.born[child][theirs] - people.born[fathers[theirs]]).astype(int) / 365.2425).min() > 13
    assert (people.sex[mothers] == 1).all()
    siblings = Counter(zip(people.family[child].tolist(), people.given[child].tolist(), strict=True))
    assert max(siblings.values()) == 1
    assert len(np.unique(people.nhs)) == len(people)


def test_twins_share_a_date_of_birth_and_some_a_sex_and_an_initial(town: Made) -> None:
    health = {
        row["person_id"]: row
        for row in rows_of(town.folder / "labelled.csv")
        if row["dataset"] == "northshire-icb/health"
    }
    pairs = [(health.get(pair["person_a"]), health.get(pair["person_b"])) for pair in town.truth("twins")]
    both = [(one, other) for one, other in pairs if one and other and one["date_of_birth"] and other["date_of_birth"]]
    assert len(both) > 20
    alike = sum(one["date_of_birth"] == other["date_of_birth"] for one, other in both)
    assert alike > 0.9 * len(both)  # the rest is a slip of one of the two
    assert any(one["sex"] == other["sex"] and one["given_name"][:1] == other["given_name"][:1] for one, other in both)
    assert all(one["nhs_number"] != other["nhs_number"] or not one["nhs_number"] for one, other in both)


def test_truth_names_everyone_in_the_extracts_once(small: Made) -> None:
    told = {(row["agency"], row["flow"], row["local_id"]): row["person_id"] for row in small.truth("persons")}
    assert len(told) == len(small.truth("persons"))
    written = {
        (mapping["agency"], mapping["flow"], person["local_id"])
        for folder, mapping in small.flows()
        for person in small.people(folder, mapping)
    }
    assert written == set(told)
    labelled = {
        (*row["dataset"].split("/"), row["local_id"]): row["person_id"]
        for row in rows_of(small.folder / "labelled.csv")
    }
    assert labelled.items() <= told.items()


def test_ties_are_between_known_people_and_no_parent_is_younger_than_the_child(small: Made) -> None:
    for folder, mapping in small.flows():
        people = {person["local_id"]: person for person in small.people(folder, mapping)}
        form = mapping["persons"]["formats"]["date_of_birth"]
        kinds = mapping["relationships"]["values"]["type"]
        for tie in rows_of(folder / mapping["relationships"]["file"]):
            older, younger = people[tie["local_id_a"]], people[tie["local_id_b"]]
            if kinds[tie["type"]] in ("birth_parent", "carer") and older["date_of_birth"] and younger["date_of_birth"]:
                ages = [day(person["date_of_birth"], form) for person in (older, younger)]
                assert ages[0] < ages[1]


def test_an_adopted_child_has_two_identities_that_share_no_number_and_bear_one_reference(town: Made) -> None:
    severed = town.truth("severed")
    assert len(severed) >= 4
    rows = defaultdict(list)
    for row in rows_of(town.folder / "labelled.csv"):
        rows[row["person_id"]].append(row)
    references = 0
    for pair in severed:
        old, new = rows[pair["person_old"]], rows[pair["person_new"]]
        assert old
        assert new
        for number in ("nhs_number", "upn", "superseded_nhs_number", "former_upn"):
            assert not {row[number] for row in old} & {row[number] for row in new} - {""}
        by_flow = {row["dataset"]: row["sever_ref"] for row in old}
        for row in new:
            if row["dataset"] in by_flow and row["dataset"] != "northshire-police/police":
                assert row["sever_ref"] == by_flow[row["dataset"]] != ""
                references += 1
    assert references >= len(severed)


def test_shields_stand_in_the_flows_that_have_such_a_flag(town: Made) -> None:
    shields = Counter((row["flow"], row["shield"]) for row in town.truth("persons"))
    assert shields["social_care", "full"] >= 1
    assert shields["social_care", "address"] >= 3
    folder, mapping = next(pair for pair in town.flows() if pair[1]["flow"] == "social_care")
    codes = mapping["persons"]["values"]["shield"]
    written = Counter(codes.get(person["shield"], "none") for person in town.people(folder, mapping))
    assert written["full"] == shields["social_care", "full"]


def test_some_children_have_no_name_yet_or_are_not_yet_born(town: Made) -> None:
    given = Counter(row["given_name"] for row in rows_of(town.folder / "labelled.csv"))
    assert given["Baby"] >= 1
    assert given["Unborn"] >= 1


def test_agencies_err_as_their_profiles_say(town: Made) -> None:
    """Against health, the best of them: education a little, police a lot; nobody not at all."""
    rows: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for row in rows_of(town.folder / "labelled.csv"):
        rows[row["dataset"]][row["person_id"]] = row
    health = rows["northshire-icb/health"]

    def differ(dataset: str, field: str) -> float:
        both = [
            (row[field].upper(), health[person][field].upper())
            for person, row in rows[dataset].items()
            if person in health and row[field] and health[person][field]
        ]
        return sum(one != other for one, other in both) / len(both)

    for field, low, high in (("family_name", 0.01, 0.12), ("date_of_birth", 0.002, 0.03), ("postcode", 0.05, 0.25)):
        assert low < differ("northshire-council/education", field) < high
    assert differ("northshire-police/police", "given_name") > differ("northshire-council/education", "given_name")


def test_blank_leaves_out_that_share_of_dates_and_postcodes(tmp_path: Path) -> None:
    synthesise(tmp_path, children=300, seed=4, blank=0.5, items=False)
    rows = [row for row in rows_of(tmp_path / "labelled.csv") if row["dataset"] == "northshire-icb/health"]
    for field in ("date_of_birth", "postcode"):
        assert 0.4 < sum(not row[field] for row in rows) / len(rows) < 0.6


def test_canaries_stand_in_the_extracts(small: Made) -> None:
    text = "".join(path.read_text("utf-8") for path in (small.folder / "extracts").rglob("*.csv"))
    canaries = small.json("canaries")
    assert set(canaries) == {"names", "identifiers", "local_ids", "postcodes", "addresses"}
    for kind, strings in canaries.items():
        assert strings, kind
        for string in strings:
            assert string in text, kind


def test_the_showcase_has_every_kind_of_child_that_a_demo_needs(town: Made) -> None:
    entries = {entry["kind"]: entry for entry in town.json("showcase")}
    assert set(entries) == {"open_case", "early_help", "address_shield", "full_shield", "severed_old_identity", "twin"}
    case = entries["open_case"]
    assert case["organisations"] == ["northshire-council", "northshire-icb", "northshire-police"]
    assert all(case[field] for field in ("given_name", "family_name", "date_of_birth", "postcode", "nhs_number"))
    assert "northshire-council/social_care" not in entries["early_help"]["known_to"]
    truth = {(f"{row['agency']}/{row['flow']}", row["local_id"]): row for row in town.truth("persons")}
    for entry in entries.values():
        for flow, local_id in entry["local_ids"].items():
            assert truth[flow, local_id]["person_id"] == entry["person_id"]
    assert (
        truth[
            "northshire-council/social_care", entries["address_shield"]["local_ids"]["northshire-council/social_care"]
        ]["shield"]
        == "address"
    )


def test_the_command_line_writes_an_area_and_says_what_is_in_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["synthesise", "--children", "60", "--seed", "2", "--out", str(tmp_path), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == json.loads((tmp_path / "truth" / "summary.json").read_text("utf-8"))
    assert (
        CliRunner().invoke(app, ["synthesise", "--children", "60", "--blank", "2", "--out", str(tmp_path)]).exit_code
        == 2
    )


def test_labelled_records_say_which_groups_their_person_belongs_to(town: Made) -> None:
    rows = rows_of(town.folder / "labelled.csv")
    assert {row["looked_after"] for row in rows} == {row["moved"] for row in rows} == {"yes", "no"}
    assert {row["decile"] for row in rows} <= {str(decile) for decile in range(1, 11)}
    customs = {row["person_id"]: row["naming_custom"] for row in town.truth("persons")}
    assert all(row["naming_custom"] == customs[row["person_id"]] for row in rows)
    sectors = Counter(row["postcode"][:-2] for row in rows)
    theirs = Counter(row["postcode"][:-2] for row in rows if row["naming_custom"] == "pakistani")
    shares = [theirs[sector] / count for sector, count in sectors.items() if count > 500]
    assert max(shares) > 2 * min(shares)  # customs live in some neighbourhoods more than in others


def test_some_names_are_written_in_their_own_script_and_mostly_transliterate_to_the_plain_one(town: Made) -> None:
    rows = rows_of(town.folder / "labelled.csv")
    own = [row for row in rows if not row["family_name"].isascii() and row["family_name"][0] > "\u0250"]
    assert {row["naming_custom"] for row in own} == {"arabic", "chinese"}
    assert 10 < len(own) < 0.02 * len(rows)
    assert not [row for row in own if row["dataset"].endswith(("/police", "/housing"))]


def test_an_area_can_be_made_harder_by_more_twins_and_adoptions(tmp_path: Path) -> None:
    plain = synthesise(tmp_path / "plain", children=400, seed=4, items=False)
    harder = synthesise(tmp_path / "harder", children=400, seed=4, items=False, twins=6.0, adoptions=5.0)
    assert harder["twin_pairs"] > 2 * plain["twin_pairs"]
    assert harder["severed_pairs"] > 2 * plain["severed_pairs"]

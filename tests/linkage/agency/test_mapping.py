"""mapping.toml: read strictly, each fault named by its key."""

from pathlib import Path

import pytest

from linkage.agency import codes, mapping
from linkage.agency.codes import BadCodes
from linkage.agency.mapping import BadMapping
from tests.linkage.agency.builders import MAPPING, an_extract


def loaded(tmp_path: Path, text: str, *, persons_only: bool = False) -> mapping.Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text, encoding="utf-8")
    return mapping.load(path, persons_only=persons_only)


def test_a_mapping_says_what_the_design_says(tmp_path: Path) -> None:
    read = mapping.load(an_extract(tmp_path))
    assert (read.agency, read.flow, read.agreements) == ("northshire-council", "education", ("northshire-mash@3.0.0",))
    assert read.persons.file == tmp_path / "pupils.csv"
    assert read.persons.columns["given_name"] == "Forename"
    assert read.persons.formats == {"date_of_birth": "%d/%m/%Y"}
    assert read.persons.values == {"shield": {"Y": "address"}}
    (items,) = read.items
    assert (items.category, items.constants) == ("education.attendance", {"contact": "safeguarding-desk"})


def test_evaluation_needs_persons_alone(tmp_path: Path) -> None:
    read = loaded(tmp_path, '[persons]\n[persons.columns]\ngiven_name = "first"\n', persons_only=True)
    assert (read.persons.file, read.persons.columns) == (None, {"given_name": "first"})


def test_a_category_may_have_several_files(tmp_path: Path) -> None:
    block = (
        '[[items."health.not_brought"]]\nfile = "{}.csv"\ncolumns = {{local_id = "i", code = "c", occurred_on = "d"}}\n'
    )
    read = loaded(tmp_path, MAPPING + block.format("one") + block.format("two"))
    assert [items.key for items in read.items][1:] == ['items."health.not_brought"[0]', 'items."health.not_brought"[1]']


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('agency = "northshire-council"', "", "agency is missing"),
        ('agency = "northshire-council"', 'agency = "North Shire"', "agency: the agency's id"),
        ('agreements = ["northshire-mash@3.0.0"]', "", "agreements is missing"),
        ('"northshire-mash@3.0.0"', '"northshire-mash"', "agreements: each is an id, @ and a version"),
        ("max_bad_share = 0.9", "max_bad_share = 9", "max_bad_share: a share from 0 to 1"),
        ("max_bad_share = 0.9", "max_bad_shar = 0.1", "max_bad_shar is not a key known here; is 'max_bad_share' meant"),
        ('file = "pupils.csv"', "", "persons.file is missing"),
        ('file = "pupils.csv"', 'file = "pupils.csv"\nduplicates = 1', "persons.duplicates: true or false is due"),
        ('file = "pupils.csv"', 'file = "pupils.csv"\nrole = "pupil"', "persons.role: one of child, parent"),
        (
            'file = "pupils.csv"',
            'file = "pupils.csv"\nrole = "child"',
            "persons.role and persons.columns.person_role exclude",
        ),
        (
            'file = "pupils.csv"',
            'file = "pupils.csv"\ndefault_date = ["13-01"]',
            "persons.default_date: each is a month",
        ),
        ('local_id = "PupilID"\nperson', "person", "persons.columns.local_id is missing"),
        ('given_name = "Forename"', 'forename = "Forename"', "persons.columns.forename is not a field known here; is"),
        ('given_name = "Forename"', "given_name = 3", "persons.columns.given_name: the name of a column is due"),
        ('"%d/%m/%Y"', '"%d/%m"', "persons.formats.date_of_birth: a format with day, month and year"),
        ("[persons.formats]", '[persons.formats]\nsex = "%Y"', "persons.formats.sex: formats are for the mapped dates"),
        (
            "[persons.values.shield]",
            "[persons.values.postcode]",
            "persons.values.postcode: values are for mapped codes",
        ),
        ('type = "Relation", ', "", "relationships.columns.type is missing"),
        ('items."education.attendance"', "items.attendance", "write the category in quotes"),
        (
            'occurred_on = "HalfTermEnd"',
            'when = "HalfTermEnd"',
            'items."education.attendance".columns.when is not a field',
        ),
        ('contact = "safeguarding-desk"', 'contact = "Mrs Jones"', 'items."education.attendance".contact: lower-case'),
        ('contact = "safeguarding-desk"', 'role = "baddie"', 'items."education.attendance".role: one of subject'),
        ("[persons]", "[persons", "not TOML"),
        ("[relationships]", "[households]\ncommunal_over = 0\n[relationships]", "households.communal_over: 1 or more"),
        (
            "[relationships]",
            '[households]\ncommunal = ["Flat 1"]\n[relationships]',
            "households.communal: each is a UPRN",
        ),
    ],
)
def test_a_fault_is_named_by_its_key(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in MAPPING
    with pytest.raises(BadMapping) as caught:
        loaded(tmp_path, MAPPING.replace(old, new, 1))
    assert told in str(caught.value)
    assert "mapping.toml" in str(caught.value)


def test_a_mapping_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadMapping, match="No such file"):
        mapping.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'agency = "\xe9"')
    with pytest.raises(BadMapping, match="UTF-8"):
        mapping.load(tmp_path / "latin.toml")


def test_the_code_lists_that_ship_are_those_of_the_vocabulary() -> None:
    from agreements.vocabulary import codes_for_agencies

    assert codes.Codes(codes_for_agencies()).sha256 == codes.load().sha256, (
        "linkage/agency/codes.json is out of date: write agreements.vocabulary.codes_for_agencies() to it"
    )


def test_code_lists_that_can_not_be_read_are_told(tmp_path: Path) -> None:
    for content in (b"{", b"{}", b'{"version": 1, "categories": {"a": {}}}'):
        (tmp_path / "codes.json").write_bytes(content)
        with pytest.raises(BadCodes):
            codes.load(tmp_path / "codes.json")
    with pytest.raises(BadCodes, match="install the package anew"):
        codes.load(tmp_path / "none.json")

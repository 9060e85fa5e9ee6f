"""A batch: what is in it, what is left out of it, and that it appears whole or not at all."""

import base64
import hashlib
import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rfc8785
from cryptography.exceptions import InvalidSignature

from linkage.agency import batch, crosswalk
from linkage.agency.batch import BatchExists, TooManyBad
from linkage.agency.codes import SHIPPED
from linkage.agency.encode import household_token
from linkage.agency.extract import BadExtract
from linkage.agency.mapping import BadMapping
from linkage.agency.settings import Home
from linkage.agency.standardise import AmbiguousDates
from linkage.matching import intake
from linkage.records import FILTERS, TABLES, TOKENS, Manifest, schema_of
from tests.linkage.agency.builders import BAND, CODES, CONTACT, MAPPING, MOTHER, NOW, PUPIL, a_batch, a_home, an_extract


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return found


def codes_of(made: batch.Encoded) -> list[tuple[str, str]]:
    return [(line.field, line.code) for line in made.report.rejects]


def test_a_batch_holds_the_wires_tables_and_its_manifest_tells_their_bytes(tmp_path: Path) -> None:
    made = a_batch(tmp_path)
    payload = (made.folder / "manifest.json").read_bytes()
    manifest = Manifest.parse(payload)
    assert manifest.canonical() == payload
    for name, entry in manifest.tables.items():
        path = made.folder / f"{name}.parquet"
        assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert entry.size == path.stat().st_size
        assert entry.rows == pq.read_metadata(path).num_rows
        assert pq.read_schema(path).equals(schema_of(name, "guarded-3"))  # type: ignore[arg-type]
    assert (manifest.agency, manifest.flow, manifest.sequence, manifest.kind) == (
        "northshire-council",
        "education",
        1,
        "full",
    )
    assert manifest.extracted_at == "2026-11-22T02:30:00Z"
    assert (
        manifest.codes_sha256
        == hashlib.sha256(
            rfc8785.dumps(json.loads(Path(batch.__file__).with_name("codes.json").read_text()))
        ).hexdigest()
    )


def test_the_signature_is_a_detached_jws_over_the_manifests_bytes(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = a_batch(tmp_path, home)
    protected, nothing, signature = (made.folder / "manifest.jws").read_text().split(".")
    payload = base64.urlsafe_b64encode((made.folder / "manifest.json").read_bytes()).rstrip(b"=").decode()
    assert nothing == ""
    assert json.loads(base64.urlsafe_b64decode(protected + "==")) == {"alg": "Ed25519", "kid": "northshire-council/1"}
    key, raw = home.signing_key.public_key(), base64.urlsafe_b64decode(signature + "==")
    key.verify(raw, f"{protected}.{payload}".encode())
    with pytest.raises(InvalidSignature):
        key.verify(raw, f"{protected}.{payload}A".encode())


def test_chunks_are_digested_in_order(tmp_path: Path) -> None:
    made = a_batch(tmp_path)
    path = made.folder / "persons.parquet"
    entry = batch.digest(path, chunk_size=1000)
    content = path.read_bytes()
    assert entry.chunks == tuple(
        hashlib.sha256(content[at : at + 1000]).hexdigest() for at in range(0, len(content), 1000)
    )


def test_no_clear_value_is_in_any_file_of_a_batch(tmp_path: Path) -> None:
    pupil = {**PUPIL, "KnownAs": "Canaryzed", "FormerSurname": "Canaryjones", "PupilID": "CANARY-77"}
    made = a_batch(
        tmp_path,
        pupils=[pupil, MOTHER],
        contacts=[{**CONTACT, "ContactID": "CANARY-77"}],
        bands=[{**BAND, "PupilID": "CANARY-77"}],
    )
    clear = ["canary", "cassandra", "zoe", "zoë", "9434765919", "943 476 5919", "9434765870", "B801200005001", "SW1A", "100023336956",
             "20150314", "2015-03-14", "14/03/2015", "19851102"]  # fmt: skip
    files = list(made.folder.iterdir())
    assert len(files) == 5
    for path in files:
        texts = [path.read_bytes()]
        if path.suffix == ".parquet":  # also what is compressed
            texts.append(json.dumps(pq.read_table(path).to_pylist(), default=str, ensure_ascii=False).encode())
            texts.append(repr(pq.read_metadata(path).metadata).encode())
        for text in texts:
            for value in clear:
                assert value.lower().encode() not in text.lower(), (path.name, value)
    assert "canary" not in made.rejects.read_text().lower()
    assert "canary" not in json.dumps(made.summary()).lower()


def test_under_guarded_a_batchs_bytes_hold_no_single_name_no_unsalted_filter_and_no_constant(tmp_path: Path) -> None:
    same = [{**PUPIL, "PupilID": f"P{n}", "DOB": f"{n + 1:02}/03/2015", "Postcode": f"SW1A {n}AA", "UPRN": str(n + 1), "UPN": "", "NHS": ""}
            for n in range(8)]  # fmt: skip
    blank = [
        {**PUPIL, "PupilID": f"B{n}", "DOB": "", "Postcode": "ZZ99 3VZ", "UPRN": "", "UPN": "", "NHS": ""}
        for n in range(3)
    ]
    made = a_batch(
        tmp_path,
        pupils=[*same, *blank],
        contacts=[],
        bands=[{**BAND, "PupilID": "P0"}],
        mapping=MAPPING.replace("[relationships]", "[relationships]\nmay_be_empty = true"),
    )
    table = pq.read_table(made.folder / "persons.parquet")
    names = set(table.column_names)
    assert not names & {f"t_{name}" for name in set(TOKENS["accurate-2"]) - set(TOKENS["guarded-3"])}
    assert not names & {f"{name}_w0" for name in FILTERS["accurate-2"]}
    for column in table.column_names:
        if column.startswith("t_") or "_w" in column:
            values = [value for value in table.column(column).to_pylist() if value is not None]
            assert len(values) <= 8  # the three without salt have null, not some constant
            assert len(values) == len(set(values)), column  # one name, eight children: nothing shared
    for name in FILTERS["guarded-3"]:
        assert table.column(f"{name}_n").null_count == 3


def test_every_record_ref_leads_back_by_the_crosswalk_alone(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = a_batch(tmp_path, home)
    refs = {row["record_ref"] for row in rows(made.folder, "persons")}
    with crosswalk.opened(home.crosswalk_path) as known:
        assert {known.local_id(ref) for ref in refs} == {("education", "P1"), ("education", "C1")}
        held = {one["field"]: one for one in known.identifiers(home.record_ref("education", "P1"))}
        assert (held["nhs_number"]["raw"], held["nhs_number"]["normal"], held["nhs_number"]["valid"]) == (
            "943 476 5919",
            "9434765919",
            True,
        )
        assert known.counts() == {"education": 2}


def test_items_and_relationships_carry_codes_dates_and_refs(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = a_batch(tmp_path, home)
    pupil, mother = home.record_ref("education", "P1"), home.record_ref("education", "C1")
    (item,) = rows(made.folder, "items")
    assert (item["record_ref"], item["category"], item["code_system"], item["code"], item["number"]) == (
        pupil, "education.attendance", "attendance_band", "PERSISTENT", 87.5,
    )  # fmt: skip
    assert (str(item["occurred_on"]), item["role"], item["regime"], item["opinion"], item["contact_ref"]) == (
        "2026-10-23", "subject", "GENERAL", False, "safeguarding-desk",
    )  # fmt: skip
    related = {(row["ref_a"], row["ref_b"], row["type"], row["verified"]) for row in rows(made.folder, "relationships")}
    assert related == {
        (mother, pupil, "birth_parent", True),
        (pupil, None, "household", False),
        (mother, None, "household", False),
    }
    tokens = {row["household"] for row in rows(made.folder, "relationships")} - {None}
    assert tokens == {household_token(home.link_keys, "guarded-3", "100023336956")}


def test_communal_addresses_are_no_household(tmp_path: Path) -> None:
    crowd = [{**PUPIL, "PupilID": f"P{n}"} for n in range(1, 14)]
    made = a_batch(tmp_path, pupils=[*crowd, MOTHER])
    assert not [row for row in rows(made.folder, "relationships") if row["type"] == "household"]
    listed = MAPPING + '[households]\ncommunal = ["100023336956"]\n'
    made = a_batch(tmp_path / "listed", mapping=listed)
    assert not [row for row in rows(made.folder, "relationships") if row["type"] == "household"]


def test_other_names_and_earlier_addresses_are_further_rows_of_one_record(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    pupil = {**PUPIL, "KnownAs": "Zed", "FormerSurname": "Jones"}
    earlier = {**PUPIL, "Postcode": "M1 1AE"}
    made = a_batch(tmp_path, home, pupils=[pupil, earlier, MOTHER])
    ref = home.record_ref("education", "P1")
    found = [row for row in rows(made.folder, "persons") if row["record_ref"] == ref]
    assert len(found) == 4
    assert len({row["t_given_name_d"] for row in found}) == 2
    assert len({row["t_family_name_d"] for row in found}) == 2
    assert len({row["postcode_d_w0"] for row in found}) == 2
    assert len({row["id_nhs_number"] for row in found}) == 1


def test_a_name_from_before_an_adoption_order_is_never_sent(tmp_path: Path) -> None:
    adopted = {**PUPIL, "KnownAs": "Zed", "FormerSurname": "Jones", "Severed": "S1"}
    old = {**PUPIL, "PupilID": "P0", "Surname": "Jones", "Severed": "S1", "UPN": "", "NHS": ""}
    made = a_batch(tmp_path, pupils=[adopted, old, MOTHER])
    found = rows(made.folder, "persons")
    assert len(found) == 3
    severed = [row["sever_ref"] for row in found if row["sever_ref"]]
    assert len(severed) == 2
    assert len(set(severed)) == 1
    assert "S1" not in severed


def test_a_protected_place_does_not_leave_even_encoded(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = a_batch(tmp_path, home, pupils=[{**PUPIL, "Protected": "Y"}, MOTHER])
    (hidden,) = [row for row in rows(made.folder, "persons") if row["shield"] == "address"]
    assert hidden["q_no_postcode"]
    assert not [
        name
        for name, value in hidden.items()
        if value is not None and (("postcode" in name and name[:2] != "q_") or "_p_w" in name)
    ]
    assert hidden["t_given_name_d"] is not None
    homes = {row["ref_a"] for row in rows(made.folder, "relationships") if row["type"] == "household"}
    assert homes == {home.record_ref("education", "C1")}


def test_the_order_of_an_extract_is_not_that_of_the_batch(tmp_path: Path) -> None:
    made = a_batch(tmp_path, pupils=[{**PUPIL, "PupilID": f"P{n}"} for n in range(1, 10)] + [MOTHER])
    refs = [row["record_ref"] for row in rows(made.folder, "persons")]
    assert refs == sorted(refs)


def test_bad_rows_are_left_out_and_reported_by_place_and_never_by_value(tmp_path: Path) -> None:
    bad_date = {**PUPIL, "PupilID": "P2", "DOB": "31/02/2015"}
    no_id = {**PUPIL, "PupilID": ""}
    bad_shield = {**PUPIL, "PupilID": "P3", "Protected": "MAYBE"}
    bands = [
        BAND,
        {**BAND, "PupilID": "P3"},
        {**BAND, "PupilID": "P9"},
        {**BAND, "Band": "AWFUL"},
        {**BAND, "HalfTermEnd": "soon"},
        {**BAND, "Percent": "=1+1"},
        BAND,
    ]
    contacts = [CONTACT, {**CONTACT, "ContactID": "C1"}, {**CONTACT, "Relation": "household"}]
    made = a_batch(tmp_path, pupils=[PUPIL, MOTHER, bad_date, no_id, bad_shield], bands=bands, contacts=contacts)
    assert made.rejects == tmp_path / "batch.rejects.csv"
    lines = made.rejects.read_text().splitlines()
    assert lines[0] == "file,row,field,code,hint,severity"
    assert [tuple(line.split(",")[:4]) for line in lines[1:]] == [
        ("attendance.csv", "3", "local_id", "person_left_out"), ("attendance.csv", "4", "local_id", "unknown_person"),
        ("attendance.csv", "5", "code", "unknown_code"), ("attendance.csv", "6", "occurred_on", "bad_date"),
        ("attendance.csv", "7", "number", "bad_number"), ("attendance.csv", "8", "local_id", "repeated_row"),
        ("contacts.csv", "3", "local_id_b", "bad_endpoint"), ("contacts.csv", "4", "type", "unknown_value"),
        ("pupils.csv", "4", "date_of_birth", "bad_date"), ("pupils.csv", "5", "local_id", "missing"),
        ("pupils.csv", "6", "shield", "unknown_value"),
    ]  # fmt: skip
    assert not any(value in made.rejects.read_text() for value in ("AWFUL", "MAYBE", "31/02", "soon", "=1+1", "P9"))
    assert (made.report.bad_rows, made.report.bad_dates, made.report.rows) == (8, 1, 15)
    people = rows(made.folder, "persons")
    assert len(people) == 3  # a child whose date is none is there, without one
    (dateless,) = [row for row in people if row["q_default_dob"]]
    assert (dateless["given_d_n"], dateless["birth_year"], dateless["given_p_n"] is None) == (None, None, False)
    assert {row["record_ref"] for row in rows(made.folder, "items")} <= {
        row["record_ref"] for row in rows(made.folder, "persons")
    }


def refused(tmp_path: Path, error: type[Exception], match: str, **extract: Any) -> None:
    home = a_home(tmp_path / "home")
    with pytest.raises(error, match=match) as caught:
        a_batch(tmp_path, home, **extract)
    assert "Canary" not in str(caught.value)
    assert not (tmp_path / "batch").exists()
    assert not list(tmp_path.glob(".batch*"))
    assert not home.crosswalk_path.exists()


def test_over_one_per_cent_of_bad_rows_leaves_no_batch_but_a_report(tmp_path: Path) -> None:
    strict = MAPPING.replace("max_bad_share = 0.9", "")
    refused(
        tmp_path,
        TooManyBad,
        "more than max_bad_share 1.0%.*pupils.csv shield unknown_value",
        pupils=[PUPIL, {**MOTHER, "Protected": "x"}],
        mapping=strict,
    )
    assert "unknown_value" in (tmp_path / "batch.rejects.csv").read_text()


def test_a_wrong_date_format_stops_the_extract(tmp_path: Path) -> None:
    american = MAPPING.replace("%d/%m/%Y", "%Y.%m.%d")
    refused(tmp_path, TooManyBad, "bad_date", mapping=american)


def test_a_never_ingest_category_stops_the_encoder(tmp_path: Path) -> None:
    sealed = MAPPING.replace("education.attendance", "social_care.adoption")
    refused(tmp_path, BadMapping, r'items\."social_care\.adoption": this category is never sent', mapping=sealed)


def test_a_never_ingest_code_never_leaves(tmp_path: Path) -> None:
    looked_after = MAPPING.replace("education.attendance", "social_care.looked_after").replace(
        'number = "Percent", ', ""
    )
    made = a_batch(tmp_path, bands=[{**BAND, "Band": code} for code in ("A3", "E1", "C2", "U1")], mapping=looked_after)
    assert codes_of(made) == [("code", "never_ingest"), ("code", "never_ingest")]
    assert sorted(row["code"] for row in rows(made.folder, "items")) == ["C2", "U1"]


def test_a_closure_by_adoption_never_leaves(tmp_path: Path) -> None:
    in_need = MAPPING.replace("education.attendance", "social_care.child_in_need").replace(
        'number = "Percent"', 'outcome_code = "Percent"'
    )
    bands = [{**BAND, "Band": "N1", "Percent": reason} for reason in ("RC1", "RC2", "RC9")]
    made = a_batch(tmp_path, bands=bands, mapping=in_need)
    assert codes_of(made) == [("outcome_code", "never_ingest")]
    assert sorted(row["outcome_code"] for row in rows(made.folder, "items")) == ["RC2", "RC9"]


def test_an_unknown_category_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    unknown = MAPPING.replace("education.attendance", "education.attendence")
    refused(tmp_path, BadMapping, "'education.attendence' is not one of early_help.episode", mapping=unknown)


def test_an_extract_without_a_mapped_column_is_refused_by_key_and_column(tmp_path: Path) -> None:
    refused(
        tmp_path,
        BadExtract,
        r"pupils.csv: no column 'Vorname', which persons\.columns\.given_name names",
        mapping=MAPPING.replace("Forename", "Vorname"),
    )


@pytest.mark.parametrize(
    ("name", "file"), [("pupils", "pupils.csv"), ("contacts", "contacts.csv"), ("bands", "attendance.csv")]
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, file: str) -> None:
    refused(tmp_path, BadExtract, f"{file}: it has no rows", **{name: []})


def test_another_agencys_mapping_is_refused(tmp_path: Path) -> None:
    refused(
        tmp_path,
        BadMapping,
        "the mapping is of 'southshire-council'",
        mapping=MAPPING.replace("northshire-council", "southshire-council"),
    )


def test_an_undeclared_default_date_stops_the_extract(tmp_path: Path) -> None:
    crowd = [{**PUPIL, "PupilID": f"P{n}", "DOB": "01/01/2008"} for n in range(4)]
    refused(tmp_path, AmbiguousDates, "persons.default_date", pupils=[*crowd, PUPIL, MOTHER])


def test_a_batch_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    first = a_batch(tmp_path, home)
    again = a_batch(tmp_path, home)
    assert again.manifest.tables["items"].sha256 == first.manifest.tables["items"].sha256
    (tmp_path / "batch" / "thesis.docx").write_text("mine")
    with pytest.raises(BatchExists):
        a_batch(tmp_path, home)
    assert (tmp_path / "batch" / "thesis.docx").read_text() == "mine"


def test_a_fault_while_writing_leaves_the_last_batch_as_it_was(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    before = a_batch(tmp_path, home).manifest
    (home.folder / "keys" / "signing.pem").chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        a_batch(tmp_path, Home(home.folder), pupils=[PUPIL, MOTHER, {**PUPIL, "PupilID": "P2"}])
    assert Manifest.parse((tmp_path / "batch" / "manifest.json").read_bytes()) == before
    assert not list(tmp_path.glob(".batch*"))


def test_the_next_batch_follows_the_last_that_was_accepted(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    home.remember("education", sequence=4, manifest_sha256="ab" * 32)
    manifest = a_batch(tmp_path, home).manifest
    assert (manifest.sequence, manifest.previous) == (5, "ab" * 32)


def test_parquet_with_typed_dates_gives_the_same_people(tmp_path: Path) -> None:
    home = a_home(tmp_path / "home")
    made = a_batch(tmp_path, home)
    path = an_extract(tmp_path / "typed", mapping=MAPPING.replace("pupils.csv", "pupils.parquet"))
    typed = [
        {
            **{name: value or None for name, value in row.items()},
            "DOB": date(int(row["DOB"][6:]), int(row["DOB"][3:5]), int(row["DOB"][:2])),
            "UPRN": int(row["UPRN"]),
        }
        for row in (PUPIL, MOTHER)
    ]
    pq.write_table(pa.Table.from_pylist(typed), path.with_name("pupils.parquet"))
    again = batch.encode_extract(path, home, tmp_path / "typed-batch", codes=CODES, now=NOW)
    assert rows(again.folder, "persons") == rows(made.folder, "persons")


def test_the_brokers_intake_finds_nothing_wrong_with_a_batch(tmp_path: Path) -> None:
    pupil = {**PUPIL, "KnownAs": "Zed", "FormerSurname": "Jones"}
    made = a_batch(
        tmp_path, pupils=[pupil, {**PUPIL, "Postcode": "M1 1AE"}, MOTHER, {**PUPIL, "PupilID": "P7", "Protected": "Y"}]
    )
    folder = tmp_path / "spool"
    folder.mkdir()
    for name in TABLES:
        shutil.copy(made.folder / f"{name}.parquet", folder)
    lists = json.loads(SHIPPED.read_text(encoding="utf-8"))
    verdict = intake.check(folder, made.manifest, lists)
    assert verdict.accepted, verdict.totals
    assert verdict.counts == {name: entry.rows for name, entry in made.manifest.tables.items()}

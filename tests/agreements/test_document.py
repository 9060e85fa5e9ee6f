"""Reading agreements: strict, whole or not at all, canonical."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agreements import (
    Agreement,
    DocumentRefused,
    Mode,
    Restriction,
    check,
    from_canonical,
    json_schema,
    read,
)
from agreements.export.prose import described, text
from tests.spec import table

HERE = Path(__file__).resolve().parents[1] / "spec"
BAD: list[dict[str, Any]] = tomllib.loads((HERE / "bad_documents.toml").read_text(encoding="utf-8"))["bad"]
TEXT = (HERE / "northshire-mash.toml").read_text(encoding="utf-8")
UMBRELLA = read((HERE / "northshire-tier1.toml").read_bytes())
assert isinstance(UMBRELLA, Agreement)


def mash(source: str | bytes = TEXT) -> Agreement:
    document = read(source, umbrellas=[UMBRELLA])
    assert isinstance(document, Agreement)
    return document


def test_the_example_of_the_specification_loads() -> None:
    agreement = mash()
    assert agreement.ref == "northshire-mash@3.0.0"
    assert [grant.id for grant in agreement.grants] == ["screen-index", "health-cp", "police-s47", "health-emergency"]
    assert agreement.grant("police-s47").modes["police.custody"] is Mode.DETAIL
    assert agreement.under is not None and agreement.under.digest == UMBRELLA.digest


def test_a_restriction_is_its_own_file() -> None:
    restriction = read((HERE / "northshire-icb-r12.toml").read_bytes())
    assert isinstance(restriction, Restriction)
    assert restriction.record == "r_7Q2M4XK9TD" and restriction.at_most is Mode.STATUS


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad["what"])
def test_a_bad_document_is_refused_with_its_place_and_its_fix(bad: Mapping[str, Any]) -> None:
    if "replace" in bad:
        old, new = bad["replace"]
        assert old in TEXT
        text = TEXT.replace(old, new, 1)
    else:
        body = copy.deepcopy(tomllib.loads(TEXT))
        for path, value in bad["edit"]:
            table.edited(body, path, value)
        text = table.text_of(body)
    with pytest.raises(DocumentRefused) as refused:
        read(text, umbrellas=[UMBRELLA])
    assert any(
        finding.path.startswith(bad["path"]) and finding.fix.startswith(bad.get("fix", ""))
        for finding in refused.value.findings
    ), refused.value
    for finding in refused.value.findings:  # the list of what may stand there is said once
        assert not finding.message.startswith("Input should be") and "Value error" not in finding.message
    assert all(finding.fix and finding.message for finding in refused.value.findings)
    assert {finding.severity for finding in check(text, umbrellas=[UMBRELLA])} == {"refused"}


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"\xef\xbb\xbf" + TEXT.encode(), "line 1"),
        (TEXT.encode().replace(b"Northshire MASH", b"Northshire \xff", 1), "line 5"),
        (b"a = " + b"[" * 3000 + b"]" * 3000, "document"),
        (TEXT.encode() + b"# " + b"x" * (256 * 1024), "document"),
        (b"a = " + b"9" * 5000, "document"),
        (b".".join([b"a"] * 3000) + b" = 1", "document"),
        (b"[" + b".".join([b"a"] * 3000) + b"]", "document"),
        (b"", "kind"),
    ],
    ids=[
        "byte order mark",
        "not UTF-8",
        "3,000 nested arrays",
        "too large",
        "a number of 5,000 digits",
        "a key of 3,000 steps",
        "a table 3,000 deep",
        "empty",
    ],
)
def test_bytes_that_are_no_document_are_refused(raw: bytes, path: str) -> None:
    with pytest.raises(DocumentRefused) as refused:
        read(raw, umbrellas=[UMBRELLA])
    assert refused.value.findings[0].path == path


def test_all_that_is_wrong_is_found_at_once() -> None:
    body = tomllib.loads(TEXT)
    table.edited(body, "grants.0.for", ["CURIOSITY"])
    table.edited(body, "grants.1.for", ["NOSINESS"])
    with pytest.raises(DocumentRefused) as refused:
        read(table.text_of(body), umbrellas=[UMBRELLA])
    assert {finding.path for finding in refused.value.findings} == {"grants[0].for", "grants[1].for"}


@pytest.mark.parametrize(
    ("written", "meant", "path", "fix"),
    [
        ('threshold = "L4"', 'treshold = "L4"', "grants[1].given.<unknown key>", "write threshold, if that is meant"),
        ('"SOCIAL_WORKER"', '"social_worker"', "grants[1].to.roles", "write SOCIAL_WORKER, if that is meant; else one of "),
        ('"health.cp_is"', '"HE7"', "grants[1].disclose.status", "write health.cp_is, if that is meant; else one of "),
        ('for = ["S47"]', 'for = ["s.47"]', "grants[2].for", "write S47, if that is meant; else one of "),
        ('version = "3.0.0"', 'version = "3"', "version", 'write it as "3.0.0"'),
        ('within = "P28D"', 'within = "28 days"', "grants[1].duties[1].within", 'write it as "P28D" (days), '),
        ("effective = 2026-04-01", "effective = 01/04/2026", "line 8, column 24", "write a day as 2026-04-01"),
        ('["S47"]', "[\u201cS47\u201d]", "line 52, column 8", "write straight quotes"),
        ("public_authority = true", "public_authority = True", "line 11", "write true or false"),
        ('dpia = "DPIA-2026-014"', "dpia =", "line 9", "write a value after ="),
        ("basis = {art6", "basis = {\nart6", "line 26", "keep all of { ... } on one line"),
    ],
)  # fmt: skip
def test_a_slip_is_answered_with_what_was_meant(written: str, meant: str, path: str, fix: str) -> None:
    assert written in TEXT
    found = check(TEXT.replace(written, meant, 1), umbrellas=[UMBRELLA])
    assert any(one.path.startswith(path) and one.fix.startswith(fix) for one in found), found


def test_what_could_be_no_term_is_not_repeated() -> None:
    (found,) = check(TEXT.replace('"subject_child"', '"Mary Example, 4 Any Street"', 1), umbrellas=[UMBRELLA])
    assert found.path == "grants[0].about" and "Mary" not in str(found) and "subject_child" in found.fix


@pytest.mark.parametrize(
    ("where", "written", "path"),
    [
        ('id = "health-cp"', '"Jane Smith" = true', "grants[1].<unknown key>"),
        ('id = "health-cp"', 'jane_smith = {born = 1e5, text = "\\u202e"}', "grants[1].<unknown key>"),
        ('id = "health-cp"', "jane_smith.born = 2015", "grants[1].<unknown key>"),
        ('id = "health-cp"', "jane_smith = 1\njane_smith = 2", "line 36"),
        ('id = "health-cp"', "x = {jane_smith = 1, jane_smith = 2}", "line 35"),
        ('id = "health-cp"', "[jane_smith]\n[jane_smith]", "line 36"),
        ("[[grants]]", 'given."Jane Smith" = "L4"', "given"),
    ],
)
def test_a_key_that_no_document_has_is_told_by_its_line_and_not_repeated(where: str, written: str, path: str) -> None:
    assert where in TEXT
    found = check(TEXT.replace(where, f"{where}\n{written}", 1), umbrellas=[UMBRELLA])
    assert found and not any("jane" in str(one).lower() for one in found), found
    if path != "given":
        assert found[0].path.startswith(path)
    unclean = 'jane_smith = {born = 1e5, text = "\\u202e"}'
    if path.endswith("<unknown key>") and written != unclean:
        assert "line 35" in found[0].message


@pytest.mark.parametrize("role", ["DATA_STEWARD", "LINK_REVIEWER", "IG_OFFICER", "SYS_ADMIN", "SERVICE_PLANNER"])
def test_a_role_that_sees_no_items_is_looked_at_before_it_is_given_casework(role: str) -> None:
    told = [one for one in check(TEXT.replace('"MASH_ANALYST"', f'"{role}"', 1), umbrellas=[UMBRELLA])
            if one.path == "grants[0].to.roles"]  # fmt: skip
    assert [(one.severity, role in one.message) for one in told] == [("lint", True)]
    assert not any(one.path == "grants[0].to.roles" for one in check(TEXT, umbrellas=[UMBRELLA]))


def test_a_missing_paper_is_told_once() -> None:
    found = check(TEXT.replace('dpia = "DPIA-2026-014", ', "", 1), umbrellas=[UMBRELLA])
    assert [one.path for one in found] == ["assurance.dpia"]


def test_the_canonical_form_is_rfc_8785_and_pins_vocabulary_and_umbrella() -> None:
    agreement = mash()
    body = json.loads(agreement.canonical)
    assert rfc8785.dumps(body) == agreement.canonical
    assert body["vocabulary"] == {"ref": agreement.vocabulary.ref, "sha256": agreement.vocabulary.digest}
    assert body["under"]["sha256"] == UMBRELLA.digest
    assert from_canonical(agreement.canonical, umbrellas=[UMBRELLA]) == agreement


def test_layout_and_comments_do_not_change_the_digest_and_a_word_does() -> None:
    assert mash(table.text_of(tomllib.loads(TEXT))).digest == mash().digest
    assert mash(TEXT.replace("which of its services know", "which services know")).digest != mash().digest


@given(st.data())
def test_a_byte_flipped_in_the_canonical_form_is_refused_or_another_document(data: st.DataObject) -> None:
    agreement = mash()
    raw = bytearray(agreement.canonical)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 127))
    try:
        other = from_canonical(bytes(raw), umbrellas=[UMBRELLA])
    except DocumentRefused:
        return
    assert other.digest != agreement.digest


def test_descriptive_clauses_are_signed_and_listed_and_never_evaluated() -> None:
    agreement = mash(TEXT + '\n[rights]\nlead = "Northshire"\nsubject_access = "One month."\n')
    assert agreement.body["rights"]["lead"] == "Northshire"
    assert agreement.grants == mash().grants and agreement.digest != mash().digest


def test_both_kinds_have_a_json_schema_that_forbids_unknown_keys() -> None:
    schemas = json_schema()
    assert schemas["agreement"]["additionalProperties"] is False
    assert "from" in schemas["agreement"]["$defs"]["GrantText"]["properties"]
    assert schemas["restriction"]["properties"]["at_most"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("grants.0.for", ["s.47"]), ("grants.0.to.roles", ["social_worker"]), ("grants.0.but_not_for", ["CURIOSITY"]),
        ("grants.0.about", ["neighbour"]), ("grants.0.basis.art6", ["consent"]), ("grants.0.given.threshold", "L9"),
        ("grants.0.disclose.status", ["health.sealed"]), ("limits.0.categories", ["HE7"]),
        ("limits.0.when.tag", "shield_adress"), ("parties.0.discloses", ["gossip"]), ("vocabulary", "other@1"),
    ],
)  # fmt: skip
def test_the_json_schema_knows_the_closed_lists(path: str, value: Any) -> None:
    schema = json_schema()["agreement"]
    jsonschema.Draft202012Validator.check_schema(schema)
    body = tomllib.loads(TEXT)
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(in_json(body)))
    table.edited(body, path, value)
    (wrong,) = jsonschema.Draft202012Validator(schema).iter_errors(in_json(body))
    assert path.startswith(".".join(str(step) for step in list(wrong.absolute_path)[: len(path.split("."))]))


def in_json(body: Any) -> Any:
    """A TOML table as JSON has it."""
    return json.loads(json.dumps(body, default=str))


def test_all_that_an_agreement_must_be_able_to_say_has_its_key() -> None:
    said = """
liability = "Each party bears its own."
foi = "The party asked answers."
[obligations]
onward_sharing = "None."
[[flows]]
source = "northshire-icb"
destination = ["northshire-la"]
categories = ["health.not_brought"]
modes = ["existence", "summary"]
frequency = "nightly"
channel = "the broker"
format = "batch-1"
trigger = "a change"
"""
    top, tables = said.split("[obligations]")
    agreement = mash(TEXT.replace("[[grants]]", top + "[[grants]]", 1) + "[obligations]" + tables)
    assert agreement.body["flows"][0]["modes"] == ["existence", "summary"]
    told = text(described(agreement))
    assert all(words in told for words in ("Each party bears its own.", "The party asked answers.", "batch-1"))
    assert agreement.grants == mash().grants


@pytest.mark.parametrize("name", ["northshire-mash", "northshire-early-help", "northshire-planning"])
def test_the_demonstrations_agreements_load_without_a_finding(name: str) -> None:
    folder = Path(__file__).resolve().parents[2] / "deploy" / "demo" / "agreements"
    umbrella = read((folder / "northshire-tier1.toml").read_bytes())
    assert isinstance(umbrella, Agreement)
    assert check((folder / f"{name}.toml").read_bytes(), umbrellas=[umbrella]) == ()

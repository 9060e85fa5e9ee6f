"""What leaves the register: one document with its signatures, all in force, and the bundle that decides again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import cedarpy
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from agreements import VOCABULARY, Basis, Facts, Held, Link, Mode, Request, Threshold, decide, make_receipt
from agreements.bundle import unpack
from broker import exporting, register
from broker.cli import app
from broker.cli.export import printed
from broker.errors import Malformed, NotFound
from broker.keys import Keys
from broker.store import Store
from broker.trail import Trail
from tests.broker.test_register import AGREEMENTS, AT, COUNCIL, ICB, MASH, UMBRELLA, in_force, signatories

__all__ = ["signatories"]

FILES = (AGREEMENTS / "northshire-mash.toml", "--umbrella", AGREEMENTS / "northshire-tier1.toml")


@pytest.fixture
def refs(store: Store, trail: Trail, signatories: Mapping[str, Ed25519PrivateKey]) -> list[str]:
    return in_force(store, trail, signatories)


def test_a_bundle_of_the_register_decides_a_receipt_again(store: Store, keys: Keys, refs: list[str]) -> None:
    request = Request(
        organisation=COUNCIL,
        role="SOCIAL_WORKER",
        purpose="S47",
        basis=Basis(art6="public_task", conditions=frozenset({"dpa18-sch1-18"}), gateways=frozenset({"ca1989-s47"})),
        case="C1",
        threshold=Threshold(level="L4", decided_by="MASH_DECISION_MAKER"),
        asked={"health.not_brought": Mode.DETAIL, "health.cp_is": Mode.DETAIL},
    )
    facts = Facts(
        source=ICB, record="r1", relation="subject_child", case="C1", link=Link.CERTAIN,
        held={name: (Held(AT.date() - timedelta(days=30)),) for name in request.asked},
    )  # fmt: skip
    at = AT + timedelta(hours=1)
    with store.reading() as reading:
        snapshot = register.snapshot(reading)
        opened = unpack(exporting.bundle(reading, keys))
    decision = decide(snapshot, VOCABULARY, request, facts, at)
    assert decision.mode("health.not_brought") is Mode.SUMMARY
    receipt = make_receipt(
        snapshot, VOCABULARY, request, [decision], source=ICB, at=at, salt=b"s" * 32, kid=keys.receipt_kid,
        key=keys.receipt_key,
    )  # fmt: skip
    assert opened.replay(receipt.jws) == ()
    assert {one.ref for one in opened.snapshot.agreements} == set(refs)


def test_one_document_leaves_with_what_is_known_of_its_signatures(store: Store, refs: list[str]) -> None:
    with store.reading() as reading:
        chosen = exporting.of_register(reading, refs[1])
    body = json.loads(exporting.export(chosen, "odrl"))
    signed = {one["dsa:is"]["uid"] for one in body["dsa:party"] if "dsa:signedAt" in one}
    assert signed == {f"party:{COUNCIL}", f"party:{ICB}"}
    page = printed(chosen)
    assert page.count("Signed electronically on 2 November 2026 at 09:30, London time") == 2
    assert page.count('<div class="line">') == 3  # the police sign by hand: signature, name, date
    assert page.count(chosen.documents[0].digest) >= 4
    with store.reading() as reading, pytest.raises(NotFound):
        exporting.of_register(reading, "nobody@1.0.0")


def test_all_that_is_in_force_leaves_together(store: Store, refs: list[str]) -> None:
    with store.reading() as reading:
        chosen = exporting.of_register(reading, None)
    parts = exporting.cedar_parts(chosen)
    assert cedarpy.validate_policies(parts["cedar"], parts["cedarschema"]).validation_passed
    assert all(ref in exporting.export(chosen, "text") for ref in refs)
    assert len(json.loads(exporting.export(chosen, "odrl"))["@graph"]) == 2
    with pytest.raises(Malformed):
        printed(chosen)


def test_a_draft_is_printed_for_signature_and_compiled_as_if_signed() -> None:
    chosen = exporting.of_file(MASH, [UMBRELLA])
    page = printed(chosen)
    assert page.count('class="line"') == 3 * 3
    assert "<script" not in page and "http-equiv" not in page and "src=" not in page
    assert exporting.export(chosen, "cedar").startswith("// A draft, as if each party had signed it")
    assert "permit (" in exporting.export(chosen, "cedar")


def test_what_a_document_says_is_never_markup() -> None:
    nasty = MASH.replace(b"7.1 24 months rolling.", b"7.1 <script>alert(1)</script> & more.")
    assert nasty != MASH
    page = printed(exporting.of_file(nasty, [UMBRELLA]))
    assert "<script" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "to", ["text", "print", "odrl", "cedar", "article30", "article30-csv", "article30-markdown", "dfe"]
)
def test_the_command_writes_a_file_in_each_language_without_a_database(to: str, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    done = CliRunner().invoke(app, ["agreements", "export", *map(str, FILES), "--to", to, "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    written = [Path(one) for one in json.loads(done.stdout)["out"]]
    assert all(path.stat().st_size > 300 for path in written)
    assert len(written) == (3 if to == "cedar" else 1)


@pytest.mark.parametrize(("to", "holds"), [("schema", "restriction"), ("vocabulary", "@graph")])
def test_the_command_publishes_schemas_and_terms(to: str, holds: str) -> None:
    done = CliRunner().invoke(app, ["agreements", "export", "--to", to])
    assert done.exit_code == 0 and holds in json.loads(done.stdout)


def test_the_command_ends_as_it_promises() -> None:
    def typed(*arguments: str) -> int:
        return CliRunner().invoke(app, ["agreements", "export", *arguments]).exit_code

    assert typed(str(FILES[0])) == 1  # without its umbrella it does not load
    assert typed(str(FILES[0]), "--to", "poetry") == 2
    assert typed("some@1.0.0", "--bundle") == 2


def test_the_command_begins_an_agreement_from_the_dfes_rules(tmp_path: Path) -> None:
    policies, out = tmp_path / "policies.json", tmp_path / "draft.toml"
    policies.write_text(exporting.export(exporting.of_file(MASH, [UMBRELLA]), "dfe"))

    def typed(*arguments: str) -> int:
        return CliRunner().invoke(app, ["agreements", *arguments]).exit_code

    assert typed("draft", str(policies), "--source", ICB, "--id", "from-rules", "--out", str(out)) == 0
    assert typed("check", str(out)) == 1  # nobody has written yet what the rules can't say
    assert typed("draft", str(policies), "--source", "nobody", "--id", "from-rules") == 1

"""The demonstration as a stranger runs it, and what it leaves on the broker's disk: nothing of anybody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.demo.__main__ import ORGANISATIONS, Demo
from deploy.demo.ask import Analyst

pytestmark = pytest.mark.slow


def test_it_prints_one_child_known_to_three_organisations_and_whom_to_ring(told: tuple[Demo, str]) -> None:
    _, printed = told
    view = printed.split("Who knows this child")[1].split("The same analyst")[0]
    tiles = [line for line in view.splitlines() if ": up to " in line]
    assert {organisation.name for organisation in ORGANISATIONS} <= {line.split(",")[0].strip() for line in tiles}
    assert "Already open" in printed
    assert "Ring" in printed
    assert "One child, born" in printed


def test_it_prints_a_refusal_that_says_what_would_unlock_it(told: tuple[Demo, str]) -> None:
    refused = told[1].split("Not shown to you")[1]
    assert "THRESHOLD_NOT_MET" in refused
    assert "Would be unlocked by" in refused


def test_it_puts_what_was_refused_before_the_holder(told: tuple[Demo, str]) -> None:
    considered = told[1].split("To consider sharing")[1].split("checked offline")[0]
    assert "Share now, or say why not." in " ".join(considered.split())
    assert "northshire-mash@3.0.0, clause s47-core" in " ".join(considered.split())


def test_it_verifies_the_receipt_offline(told: tuple[Demo, str]) -> None:
    proved = told[1].split("checked offline")[1]
    assert "is entry" in proved
    for command in ("inclusion", "fsck", "consistency"):
        assert f"$ auditor {command}" in proved


def test_the_child_it_finds_is_one_child_in_truth(told: tuple[Demo, str]) -> None:
    demo, _ = told
    child = next(each for each in demo.showcase() if each["kind"] == "open_case")
    with demo.serving_broker():
        analyst = Analyst.of(demo.home(ORGANISATIONS[0]), "p-analyst", "MASH_ANALYST")
        answer, view = analyst.view(child, purpose="MASH_SCREEN")
    assert len(answer["candidates"]) == 1
    shown = {f"{tile['organisation']}/{tile['flow']}" for tile in view["tiles"]}
    assert shown <= set(child["known_to"])


def test_no_name_number_address_or_key_reaches_the_brokers_disk(told: tuple[Demo, str]) -> None:
    demo, _ = told
    canaries = json.loads((demo.folder / "area" / "truth" / "canaries.json").read_text())
    with demo.serving_broker():  # and a search for the planted family, typed at the gateway
        analyst = Analyst.of(demo.home(ORGANISATIONS[0]), "p-analyst", "MASH_ANALYST")
        for name in canaries["names"]:
            typed = {
                "given_name": name, "family_name": name, "date_of_birth": "2017-03-07", "sex": "F",
                "postcode": canaries["postcodes"][0], "nhs_number": None,
            }  # fmt: skip
            analyst.search(typed, purpose="MASH_SCREEN")
    looked_for = {text for texts in canaries.values() for text in texts}
    spellings = {form for text in looked_for for form in (text, text.lower(), text.upper(), text.replace(" ", ""))}
    needles = [form.encode(code) for form in spellings for code in ("utf-8", "utf-16-le")]
    for organisation in ORGANISATIONS:
        keys = demo.home(organisation) / "keys"
        for name in ("link.key", "record.key"):
            secret = (keys / name).read_text().strip()
            needles += [secret.encode(), bytes.fromhex(secret)]
        needles += [line.encode() for line in (keys / "signing.pem").read_text().splitlines()[1:-1]]
    broker = [path for path in (demo.folder / "broker").rglob("*") if path.is_file()]
    logs = [path for path in demo.folder.glob("*.log") if path.is_file()]
    assert any(path.suffix == ".seg" for path in broker)
    assert any(path.name.startswith("broker.sqlite") for path in broker)
    held = {path: path.read_bytes() for path in [*broker, *logs]}
    guilty = [(path.name, needle) for path, content in held.items() for needle in needles if needle in content]
    assert guilty == []
    extracts = b"".join(path.read_bytes() for path in (demo.folder / "area" / "extracts").rglob("*.csv"))
    assert all(name.encode() in extracts for name in canaries["names"])  # else nothing was looked for


def test_a_second_run_serves_what_is_there(told: tuple[Demo, str]) -> None:
    demo, _ = told
    before = sorted(path.name for path in Path(demo.folder / "broker" / "data" / "vault").iterdir())
    demo.prepare()
    assert sorted(path.name for path in Path(demo.folder / "broker" / "data" / "vault").iterdir()) == before

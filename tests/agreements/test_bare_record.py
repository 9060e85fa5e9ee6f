"""That an organisation holds a record of a child is information too: it takes what a category takes."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agreements import VOCABULARY, Agreement, check, read
from agreements.assurance import gaps
from tests.spec import table

SPEC = Path(__file__).resolve().parents[1] / "spec"
UMBRELLA = read((SPEC / "northshire-tier1.toml").read_bytes())
assert isinstance(UMBRELLA, Agreement)
ON = date(2026, 6, 1)


def of_a_bare_hit(source: str, **row: Any) -> dict[str, Any]:
    """An agreement whose one clause tells that a source holds a record, and no more."""
    body = tomllib.loads((SPEC / "northshire-mash.toml").read_text("utf-8"))
    grant = body["grants"][0] | {"from": [source], "disclose": {"existence": ["record"]}}
    grant["to"] = grant["to"] | {"orgs": [one["id"] for one in body["parties"] if one["id"] != source]}
    body |= {"grants": [grant], "limits": []}
    law = {"purpose": "MASH_SCREEN", "party": source, "regime": "GENERAL", "art6": "6(1)(e)", "statute": "CA 2004 s.11"}
    body["legal"] = [law | {"categories": ["record"]} | row]
    return body


def findings(body: dict[str, Any]) -> list[str]:
    return [one.path for one in check(table.text_of(body), umbrellas=[UMBRELLA]) if one.severity == "refused"]


def missing(body: dict[str, Any]) -> list[str]:
    agreement = read(table.text_of(body), umbrellas=[UMBRELLA])
    assert isinstance(agreement, Agreement)
    return [one.code for one in gaps(agreement, VOCABULARY, on=ON)]


@pytest.mark.parametrize("source", ["northshire-la", "northshire-icb", "northshire-police"])
def test_a_bare_hit_needs_a_legal_row_of_its_source_that_names_the_record(source: str) -> None:
    assert missing(of_a_bare_hit(source)) == []
    other = next(name for name in VOCABULARY.shareable)
    assert missing(of_a_bare_hit(source, categories=[other])) == ["NO_LEGAL_ROW"]
    assert missing(of_a_bare_hit(source, purpose="S47")) == ["NO_LEGAL_ROW"]
    (lint,) = [one for one in check(table.text_of(of_a_bare_hit(source, purpose="S47")), umbrellas=[UMBRELLA])
               if "legal row" in one.message]  # fmt: skip
    assert source in lint.message


@pytest.mark.parametrize(
    ("source", "tells"), [("northshire-la", False), ("northshire-icb", True), ("northshire-police", True)]
)
def test_a_hit_that_may_be_of_nothing_but_special_category_or_offence_data_takes_a_condition_and_its_policy_document(
    source: str, tells: bool
) -> None:
    without_condition = of_a_bare_hit(source)
    del without_condition["grants"][0]["basis"]["condition"]
    assert findings(without_condition) == (["grants[0].basis.condition"] if tells else [])
    without_paper = of_a_bare_hit(source)
    del without_paper["assurance"]["apd"]
    assert findings(without_paper) == (["assurance.apd"] if tells else [])


def test_whoever_tells_that_a_health_record_is_held_signs_as_guardian_or_names_one() -> None:
    body = of_a_bare_hit("northshire-icb")
    body["parties"] = [one | {"signs_as": "Chief Executive"} for one in body["parties"]]
    assert missing(body) == ["NO_CALDICOTT"]

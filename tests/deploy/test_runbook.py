"""What the runbook tells people to type is what the programs take, and what it points to is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker.reports import REASONS
from tests.deploy.commands import refusal

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
OURS = ("broker", "agency", "auditor")


def typed() -> Iterator[str]:
    """Every line of a block of commands, and every command of ours that stands in a sentence."""
    for block in re.findall(r"(?ms)^```sh\n(.*?)^```", RUNBOOK):
        yield from block.splitlines()
    prose = re.sub(r"(?ms)^```sh\n.*?^```", "", RUNBOOK)
    yield from (span for span in re.findall(r"`([^`\n]+)`", prose) if span.split()[0] in OURS and len(span.split()) > 1)


def ours() -> list[str]:
    found = {part.strip() for line in typed() for part in line.split("|") if part.split() and part.split()[0] in OURS}
    return sorted(found)


@pytest.mark.parametrize("line", ours())
def test_the_programs_take_what_the_runbook_types(line: str) -> None:
    assert refusal(shlex.split(line)) is None


def test_a_reason_for_which_the_log_is_consulted_is_one_of_the_closed_list() -> None:
    given = [line for line in ours() if line.startswith(("broker reports", "broker audit")) and "--reason" in line]
    assert len(given) > 2
    for line in given:
        words = shlex.split(line)
        assert words[words.index("--reason") + 1] in REASONS, line


def test_the_runbook_leads_through_a_partnership_s_whole_life() -> None:
    chapters = re.findall(r"(?m)^##+ (.+)$", RUNBOOK)
    for one in (
        "Install",
        "Onboard an agency",
        "Key ceremony",
        "Rotate",
        "Backup",
        "Restore",
        "Incident",
        "Upgrade",
        "Exit",
    ):
        assert one in chapters
    assert len(ours()) > 50


def test_every_file_and_unit_that_the_runbook_names_is_there() -> None:
    named = set(re.findall(r"deploy/[\w./-]*\w", RUNBOOK))
    assert [path for path in named if not (ROOT / path).exists()] == []
    units = set(re.findall(r"[\w-]+\.(?:service|timer)\b", RUNBOOK))
    assert {unit for unit in units if not (ROOT / "deploy" / "systemd" / unit).exists()} == set()


def test_each_alert_leads_to_a_place_of_the_runbook() -> None:
    headings = re.findall(r"(?m)^#+ (.+)$", RUNBOOK)
    anchors = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in headings}
    for group in yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert rule["annotations"]["runbook"].removeprefix("RUNBOOK.md#") in anchors, rule["alert"]

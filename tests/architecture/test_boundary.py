"""The trust boundary and the house rules that no single module can show."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker", "linkage", "agreements", "audit")


def tracked(*patterns: str) -> list[Path]:
    """Files of the tree that git knows, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_the_broker_runs_without_any_code_of_an_agency() -> None:
    program = (
        "import sys, pkgutil, importlib\n"
        "sys.modules['linkage.agency'] = None\n"
        "sys.modules['linkage.evaluation'] = None\n"
        "import broker\n"
        "for module in pkgutil.walk_packages(broker.__path__, 'broker.'):\n"
        "    if '.migrations' not in module.name: importlib.import_module(module.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_agency_and_an_auditor_need_neither_splink_nor_a_database() -> None:
    program = (
        "import sys\n"
        "for name in ('splink', 'duckdb', 'sqlmodel', 'sqlalchemy', 'jose'): sys.modules[name] = None\n"
        "import linkage.agency.cli, linkage.agency.encode, linkage.agency.batch, linkage.agency.client\n"
        "import linkage.agency.gateway.app, audit.cli, audit.verify\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "lock",
    [
        "requirements.lock", "requirements-test.lock", "requirements-deploy.lock", "deploy/images/broker.lock",
        "deploy/images/gateway.lock",
    ],
)  # fmt: skip
def test_a_lock_file_holds_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    pins = re.findall(r"^[a-z0-9][\w.\-\[\]]*==", text, re.MULTILINE)
    assert len(pins) > 30
    assert text.count("--hash=sha256:") >= len(pins)


def test_the_top_level_holds_the_folders_that_were_agreed_and_no_other() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert folders - {".ci"} == {"broker", "linkage", "agreements", "audit", "tests", "deploy"}


def test_no_drawer_without_a_name_is_opened() -> None:
    drawers = {"utils", "common", "core", "services", "helpers", "managers", "misc"}
    assert not [path for path in tracked("*.py") if path.stem in drawers or drawers & set(path.parts)]


def test_the_tree_names_no_machine_and_no_registry() -> None:
    place = re.compile(r"(?<![\w.])/(root|home|work|farm)/\w|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian")
    guilty = []
    for path in tracked("*.py", "*.md", "*.toml", "*.html", "Makefile", "*.json", "*.lock", "deploy"):
        if path == Path(__file__) or ".min." in path.name:
            continue
        if place.search(path.read_text(encoding="utf-8", errors="replace")):
            guilty.append(str(path.relative_to(ROOT)))
    assert guilty == []


def test_every_package_of_the_product_is_shipped_and_tests_are_not() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name for name in included if "." not in name} == set(PACKAGES)


def test_every_vocabulary_and_code_file_is_well_formed() -> None:
    for path in tracked("*.toml"):
        tomllib.loads(path.read_text(encoding="utf-8"))
    for path in tracked("*.json"):
        json.loads(path.read_text(encoding="utf-8"))

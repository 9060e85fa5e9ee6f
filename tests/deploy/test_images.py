"""What an image holds runs by itself, and the broker's holds no code of an agency."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "deploy" / "images"
PACKAGES = ("agreements", "audit", "broker", "linkage")
BROKER = """
import importlib.util, broker, linkage
assert broker.__file__.startswith(root), broker.__file__
import broker.app, broker.cli, broker.nightly, linkage.matching.parser
assert importlib.util.find_spec("linkage.agency") is None
assert importlib.util.find_spec("linkage.evaluation") is None
import audit.cli
"""
GATEWAY = """
import importlib.util, linkage
assert linkage.__file__.startswith(root), linkage.__file__
for name in ("splink", "duckdb", "sqlmodel", "sqlalchemy", "jose", "scipy"): sys.modules[name] = None
import linkage.agency.cli, linkage.agency.gateway.cli, linkage.agency.encode, linkage.agency.client, audit.cli
assert importlib.util.find_spec("broker") is None
assert importlib.util.find_spec("linkage.matching") is None
"""


def copied(name: str) -> list[str]:
    """What the Dockerfile copies of our packages, from the tree."""
    found = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", (IMAGES / f"{name}.Dockerfile").read_text())
    return [path for line in found for path in line.split() if path.split("/")[0] in PACKAGES]


@pytest.mark.parametrize(("name", "program"), [("broker", BROKER), ("gateway", GATEWAY)])
def test_what_an_image_copies_runs_without_the_rest(name: str, program: str, tmp_path: Path) -> None:
    for path in copied(name):
        source, to = ROOT / path, tmp_path / path
        to.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy(source, to)
    start = (
        f"import sys\nroot = {str(tmp_path)!r}\n"
        "sys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in repr(one).lower()]\n"
        "sys.path[:] = [root, *(one for one in sys.path if 'packages' in one or one.startswith(sys.base_prefix))]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + program], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", ["broker", "gateway"])
def test_the_builder_is_sent_nothing_that_the_image_does_not_copy(name: str) -> None:
    lines = (IMAGES / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    sent = {line[1:] for line in lines if line.startswith("!")}
    assert {path for path in sent if path.split("/")[0] in PACKAGES} == set(copied(name))


@pytest.mark.parametrize("name", ["broker", "gateway"])
def test_an_image_installs_what_the_tests_ran_with(name: str) -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"(?m)^([a-z0-9][\w.\-\[\]]*)==(\S+)", path.read_text()))

    ours, tested = pins(IMAGES / f"{name}.lock"), pins(ROOT / "requirements-test.lock")
    assert {one: version for one, version in ours.items() if tested.get(one) != version} == {}
    assert ("splink" in ours) is (name == "broker")


@pytest.mark.parametrize("name", ["broker", "gateway"])
def test_an_image_runs_as_a_user_of_its_own_and_takes_its_base_by_version(name: str) -> None:
    text = (IMAGES / f"{name}.Dockerfile").read_text()
    assert re.search(r"(?m)^ARG PYTHON=python:3\.\d+\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?$", text)
    assert set(re.findall(r"(?m)^FROM (\S+)", text)) == {"${PYTHON}"}
    assert re.findall(r"(?m)^USER (\d+):\d+$", text) in (["10001"], ["10003"])
    assert "--require-hashes" in text

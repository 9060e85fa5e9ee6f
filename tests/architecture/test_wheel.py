"""What is shipped is the wheel, not the source tree: it brings every template, static file, migration and list along."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SMOKE = """
import sys
from pathlib import Path
sys.path[:] = [path for path in sys.path if "site-packages" in path or path.startswith(sys.base_prefix)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
sys.path.insert(0, sys.argv[1])
import agreements, audit.cli, broker.app, broker.cli, broker.wiring, linkage.agency.cli
from agreements import VOCABULARY
from broker.settings import Settings
from linkage.agency import codes
from linkage.agency.gateway.pages import environment
from linkage.matching.model import default_model
assert broker.app.__file__.startswith(sys.argv[1]), broker.app.__file__
folder = Path(sys.argv[2])
settings = Settings(environment="demo", partnership="northshire", base_url="http://127.0.0.1:8400",
                    database_url=f"sqlite:///{folder}/b.sqlite", data_dir=folder / "data")
from broker.keys import Keys
Keys.make(settings.data_dir / "keys")
broker.wiring.open_installation(settings)
broker.app.create_app(settings)
assert len(VOCABULARY.shareable) > 20
codes.load()
default_model("guarded-3")
assert environment().get_template("search.html")
print("whole")
"""


def built(folder: Path) -> Path:
    """A wheel of the tree as it is, from a copy in `folder`."""
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--disable-pip-version-check", "--wheel-dir", str(folder), str(source),
        ],
        check=True, capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600"},
    )  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


def test_the_same_tree_makes_the_same_wheel_to_the_last_byte(wheel: Path, tmp_path: Path) -> None:
    """Wherever and whenever it is built, for whoever says of which day it is (SOURCE_DATE_EPOCH)."""
    assert sha256(built(tmp_path).read_bytes()).hexdigest() == sha256(wheel.read_bytes()).hexdigest()


def test_the_wheel_serves_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    unpacked, state = tmp_path / "unpacked", tmp_path / "state"
    state.mkdir()
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(unpacked)
    done = subprocess.run(
        [sys.executable, "-c", SMOKE, str(unpacked), str(state)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("whole")


def test_the_wheel_holds_every_data_file_of_the_tree_and_neither_tests_nor_deployment(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    data = {
        str(path.relative_to(ROOT))
        for package in ("broker", "linkage", "agreements", "audit")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert data - names == set()
    assert not {name for name in names if name.startswith(("tests/", "deploy/"))}

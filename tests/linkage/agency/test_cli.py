"""The `agency` command: its help, its exit codes, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from linkage.agency.cli import app
from tests.linkage.agency.builders import MAPPING, MOTHER, PUPIL, an_extract

CLI = CliRunner()


def keygen(home: Path) -> None:
    done = CLI.invoke(
        app,
        [
            "keygen",
            "--home",
            str(home),
            "--agency",
            "northshire-council",
            "--partnership",
            "northshire",
            "--epoch",
            "2026-1",
        ],
    )
    assert done.exit_code == 0, done.output


def test_help_is_the_manual_and_loads_no_framework() -> None:
    program = (
        "import sys; sys.argv = ['agency', 'encode', '--help']\n"
        "from linkage.agency.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('pyarrow', 'numpy', 'fastapi', 'httpx2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Exit codes: 0 a batch was made; 1 too many bad rows" in " ".join(done.stdout.split())
    assert done.stdout.splitlines()[-1] == "[]"


def test_keygen_then_encode_then_crosswalk(tmp_path: Path) -> None:
    home = tmp_path / "home"
    keygen(home)
    mapping = an_extract(tmp_path / "extract")
    done = CLI.invoke(app, ["encode", str(mapping), "--home", str(home), "--out", str(tmp_path / "batch"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"] == {"persons": 2, "relationships": 3, "items": 1}
    back = CLI.invoke(app, ["crosswalk", "P1", "--case", "--home", str(home), "--json"])
    ref = json.loads(back.stdout)[0]["record_ref"]
    there = CLI.invoke(app, ["crosswalk", ref, "--home", str(home)])
    assert there.stdout.split()[:2] == ["education", "P1"]
    assert CLI.invoke(app, ["crosswalk", "ffff", "--home", str(home)]).exit_code == 1


def test_exit_codes_are_a_promise(tmp_path: Path) -> None:
    home = tmp_path / "home"
    keygen(home)
    out = ["--home", str(home), "--out", str(tmp_path / "batch")]
    bad = an_extract(
        tmp_path / "bad", pupils=[PUPIL, {**MOTHER, "DOB": "never"}], mapping=MAPPING.replace("max_bad_share = 0.9", "")
    )
    finding = CLI.invoke(app, ["encode", str(bad), *out])
    assert (finding.exit_code, "never" in finding.output) == (1, False)
    assert CLI.invoke(app, ["encode", str(bad), *out, "--max-bad", "0.9"]).exit_code == 0
    assert CLI.invoke(app, ["encode", str(tmp_path / "none.toml"), *out]).exit_code == 2
    assert CLI.invoke(app, ["encode", str(bad), "--home", str(tmp_path), "--out", "x"]).exit_code == 2
    (tmp_path / "bad" / "contacts.csv").unlink()
    assert CLI.invoke(app, ["encode", str(bad), *out]).exit_code == 3
    assert CLI.invoke(app, ["submit", str(tmp_path / "none"), "--home", str(home)]).exit_code == 2
    keygen_again = ["keygen", "--home", str(home), "--agency", "a", "--partnership", "p", "--epoch", "1"]
    assert CLI.invoke(app, keygen_again).exit_code == 2


def test_an_unreachable_broker_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    keygen(home)
    monkeypatch.setenv("AGENCY_BROKER", "http://127.0.0.1:9")
    monkeypatch.setenv("AGENCY_TIMEOUTS__ATTEMPTS", "1")
    encoded = CLI.invoke(
        app, ["encode", str(an_extract(tmp_path / "e")), "--home", str(home), "--out", str(tmp_path / "batch")]
    )
    assert encoded.exit_code == 0
    again = [
        "encode",
        str(tmp_path / "e" / "mapping.toml"),
        "--home",
        str(home),
        "--out",
        str(tmp_path / "b"),
        "--delta",
    ]
    said = CLI.invoke(app, again)  # nothing was accepted yet
    assert (said.exit_code, "full, " in said.stdout, "This batch says it all" in said.stdout) == (0, True, True)
    done = CLI.invoke(app, ["submit", str(tmp_path / "batch"), "--home", str(home), "--json"])
    assert done.exit_code == 3
    assert json.loads(done.stdout)["error"] == "Unreachable"

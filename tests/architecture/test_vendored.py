"""The files taken from elsewhere are the ones we say they are, and carry nothing that only gov.uk may use."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROKER = ROOT / "broker" / "web" / "static"
GATEWAY = ROOT / "linkage" / "agency" / "gateway" / "static"
AXE = ROOT / "tests" / "vendor" / "axe-core"
OURS = ROOT / "deploy" / "frontend"
NOT_VENDORED = {"VENDORED.toml", "THIRD_PARTY_NOTICES", *(path.name for path in OURS.iterdir())}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", [BROKER, GATEWAY, AXE], ids=["broker", "gateway", "axe"])
def test_every_vendored_file_has_the_digest_that_is_written_down_and_no_other_file_lies_there(folder: Path) -> None:
    due = tomllib.loads((folder / "VENDORED.toml").read_text())["sha256"]
    found = {name: hashlib.sha256(content).hexdigest() for name, content in files_of(folder).items()}
    assert {name: digest for name, digest in found.items() if name not in NOT_VENDORED} == due


def test_both_sites_carry_the_same_files() -> None:
    assert files_of(BROKER) == files_of(GATEWAY)


def test_our_own_files_are_those_of_deploy_frontend() -> None:
    carried = files_of(BROKER)
    assert {name: carried[name] for name in files_of(OURS)} == files_of(OURS)


def test_no_font_crown_crest_or_favicon_of_gov_uk_is_shipped() -> None:
    names = " ".join(files_of(BROKER)).lower()
    assert not re.search(r"crest|crown|favicon|logotype|\.woff|\.ttf|\.otf", names)
    for name, content in files_of(BROKER).items():
        if name.endswith((".css", ".js")):
            assert b"GDS Transport" not in content, name
            assert b"@font-face" not in content, name
            assert b"sourceMappingURL" not in content, name


def test_a_stylesheet_shows_only_images_that_lie_beside_it() -> None:
    for name, content in files_of(BROKER).items():
        if name.endswith(".css"):
            for url in re.findall(r"url\(([^)]*)\)", content.decode()):
                assert (BROKER / url).is_file(), f"{name} asks for {url}"


def test_the_notice_of_every_package_travels_with_it() -> None:
    for folder, notice in [(BROKER, BROKER / "THIRD_PARTY_NOTICES"), (AXE, ROOT / "THIRD_PARTY_NOTICES")]:
        for package in tomllib.loads((folder / "VENDORED.toml").read_text())["packages"]:
            assert f"{package['name']} {package['version']} ({package['licence']})" in notice.read_text()

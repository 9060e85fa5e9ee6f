"""Write the vendored assets of both sites anew: a maintainer's command, the one thing here that needs node and npm.

    python deploy/vendor_frontend.py            # everything, from npm
    python deploy/vendor_frontend.py --ours     # only our own stylesheet and script again; needs no npm

It fetches three npm packages by exact version, checks npm's own integrity digest, keeps the compiled files that the
pages use, takes out what only gov.uk may use (the GDS Transport font, crown, crest), and writes, with digests:

- `broker/web/static/` and `linkage/agency/gateway/static/`, byte for byte alike (no site may import the other)
- `tests/vendor/axe-core/`: the accessibility checker, as it was published
- `THIRD_PARTY_NOTICES`

`deploy/frontend/` holds our own stylesheet and script, copied beside them.  A test holds every file to its digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "deploy" / "frontend"
SITES = (ROOT / "broker" / "web" / "static", ROOT / "linkage" / "agency" / "gateway" / "static")
AXE = ROOT / "tests" / "vendor" / "axe-core"
NOTICES = "THIRD_PARTY_NOTICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One npm package: its name, exact version, licence and who holds the copyright."""

    name: str
    version: str
    licence: str
    copyright: str
    changes: str


GOVUK = Package(
    name="govuk-frontend",
    version="6.6.0",
    licence="MIT",
    copyright="Copyright (C) 2017 Crown Copyright (Government Digital Service)",
    changes="fonts, crest and source map references taken out; 'GDS Transport' replaced by Arial",
)
MOJ = Package(
    name="@ministryofjustice/frontend",
    version="11.1.0",
    licence="MIT",
    copyright="Copyright (c) 2019 Ministry of Justice",
    changes="only the icons that the stylesheet shows; source map references taken out; 'GDS Transport' replaced",
)
AXE_CORE = Package(
    name="axe-core",
    version="4.14.1",
    licence="MPL-2.0",
    copyright="Copyright (c) 2015 - 2026 Deque Systems, Inc.",
    changes="none",
)

MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
MPL = """\
This Source Code Form is subject to the terms of the Mozilla Public License, v. 2.0. If a copy of the MPL was not
distributed with this file, You can obtain one at http://mozilla.org/MPL/2.0/. It is used by the tests alone.
"""


def main() -> None:
    """Fetch, rewrite, write; says what it wrote."""
    if sys.argv[1:] == ["--ours"]:
        for static in SITES:
            for path in OURS.iterdir():
                shutil.copyfile(path, static / path.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        govuk, moj, axe = (unpacked(package, Path(folder)) for package in (GOVUK, MOJ, AXE_CORE))
        site = govuk_files(govuk) | moj_files(moj)
        ours = {path.name: path.read_bytes() for path in sorted(OURS.iterdir())}
        for static in SITES:
            write(static, site | ours | {NOTICES: notices(GOVUK, MOJ).encode()})
            (static / "VENDORED.toml").write_text(vendored(site, GOVUK, MOJ), encoding="utf-8")
            print(f"{static.relative_to(ROOT)}: {len(site)} vendored files, {sum(map(len, site.values()))} bytes")
        checker = {"axe.min.js": (axe / "axe.min.js").read_bytes(), "LICENSE": (axe / "LICENSE").read_bytes()}
        write(AXE, checker)
        (AXE / "VENDORED.toml").write_text(vendored(checker, AXE_CORE), encoding="utf-8")
        (ROOT / NOTICES).write_text(notices(GOVUK, MOJ, AXE_CORE), encoding="utf-8")


def govuk_files(package: Path) -> dict[str, bytes]:
    """GOV.UK Frontend's compiled stylesheet and script, as any service may ship them."""
    dist = package / "dist" / "govuk"
    return {
        "govuk-frontend.min.css": stylesheet(dist / "govuk-frontend.min.css"),
        "govuk-frontend.min.js": script(dist / "govuk-frontend.min.js"),
    }


def moj_files(package: Path) -> dict[str, bytes]:
    """MoJ Frontend's compiled stylesheet and script, and the icons that the stylesheet names."""
    css = stylesheet(package / "moj" / "moj-frontend.min.css")
    images = package / "moj" / "assets" / "images"
    icons = sorted(set(re.findall(r"url\(images/(icon-[a-z-]+\.svg)\)", css.decode())))
    return {
        "moj-frontend.min.css": css,
        "moj-frontend.min.js": script(package / "moj" / "moj-frontend.min.js"),
        **{f"images/{icon}": (images / icon).read_bytes() for icon in icons},
    }


def stylesheet(path: Path) -> bytes:
    """A stylesheet without web fonts, crest or source map, its images beside it."""
    css = path.read_text(encoding="utf-8")
    css = re.sub(r"/\*![^*]*\*/(?=@font-face)", "", css)  # the font's own notice
    css = re.sub(r"@font-face\{[^}]*\}", "", css)
    css = re.sub(r'"?GDS Transport"?,\s*arial,\s*sans-serif', "arial,helvetica,sans-serif", css)
    css = re.sub(r"url\([^)]*crest[^)]*\)", "none", css)
    css = css.replace("url(/assets/images/", "url(images/")
    return (re.sub(r"/\*# sourceMappingURL=[^*]*\*/", "", css).rstrip() + "\n").encode()


def script(path: Path) -> bytes:
    """A script without its source map reference."""
    return (re.sub(r"//# sourceMappingURL=\S*", "", path.read_text(encoding="utf-8")).rstrip() + "\n").encode()


def unpacked(package: Package, folder: Path) -> Path:
    """The folder of one package as published; raises if npm's own digest differs."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not here: apt-get install -y npm")
    answer = subprocess.run(
        [npm, "pack", "--json", f"{package.name}@{package.version}"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (packed,) = json.loads(answer.stdout)
    target = folder / package.name.replace("/", "-")
    with tarfile.open(folder / packed["filename"]) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Exactly these files in `folder`: what an earlier version left is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def vendored(files: Mapping[str, bytes], *packages: Package) -> str:
    """VENDORED.toml: what was taken from where, what was changed, and the SHA-256 of every file."""
    lines = ["# Written by deploy/vendor_frontend.py; a test holds the files to it."]
    for package in packages:
        lines += [
            "",
            "[[packages]]",
            f'name = "{package.name}"',
            f'version = "{package.version}"',
            f'licence = "{package.licence}"',
            f'changes = "{package.changes}"',
        ]
    lines += ["", "[sha256]"]
    lines += [f'"{name}" = "{hashlib.sha256(content).hexdigest()}"' for name, content in sorted(files.items())]
    return "\n".join(lines) + "\n"


def notices(*packages: Package) -> str:
    """The licence notices that must travel with the files."""
    parts = ["This product carries files of the packages below.\n"]
    for package in packages:
        terms = MIT if package.licence == "MIT" else MPL
        parts.append(
            f"{package.name} {package.version} ({package.licence})\nChanges made: {package.changes}\n\n"
            f"{package.copyright}\n\n{terms}"
        )
    return ("\n" + "-" * 100 + "\n\n").join(parts)


if __name__ == "__main__":
    main()

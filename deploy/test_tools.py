"""Put in place what the tests need from the system: Chromium, PostgreSQL, strace, SoftHSM, nginx.

Installs by apt where that is possible (root, apt present); else prints the one line to run and exits 1 before any
test, so that no browser, database or fault test is ever left out in silence.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "chromium": "chromium", "postgres": "postgresql", "strace": "strace", "softhsm2-util": "softhsm2",
    "nginx": "nginx-light",
}  # fmt: skip
LINE = "apt-get install -y --no-install-recommends chromium fonts-liberation2 postgresql strace softhsm2 nginx-light"


def present(tool: str) -> bool:
    """Whether a tool is there; PostgreSQL's server lies outside PATH, in a folder of its version."""
    if tool == "postgres":
        return bool(shutil.which("postgres")) or any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if tool == "chromium":
        return any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return bool(shutil.which(tool) or shutil.which(tool, path="/usr/sbin"))


def main() -> int:
    """Exit code 0 once every tool is there, 1 with the line to run where it can't be put there."""
    missing = [tool for tool in PACKAGES if not present(tool)]
    if not missing:
        return 0
    print(f"The tests need {', '.join(missing)}.", flush=True)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"Install it, then run this again:\n  {LINE}")
        return 1
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in ("apt-get update", LINE):
        print(f"  {command}", flush=True)
        done = subprocess.run(
            command.split(), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            print(done.stderr.decode(errors="replace")[-2000:])
            return 1
    missing = [tool for tool in PACKAGES if not present(tool)]
    if missing:
        print(f"Still missing after the install: {', '.join(missing)}.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())

"""Behind the fence: a process that tries everything reads its folder, and nothing else; nobody but the kernel says no."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from linkage.matching import fence

HERE = pytest.mark.skipif(not fence.level(), reason="this kernel has no Landlock, or has it switched off")
TRIES = """
import json, os, signal, socket, subprocess, sys
from pathlib import Path
from linkage.matching import fence
mine, secret, port, fenced = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "fenced"
before = open(secret)
if fenced:
    fence.around(mine)
tries = {
    "its folder": lambda: (mine / "rows").read_bytes() and os.listdir(mine),
    "what was open": before.read,
    "another file": secret.read_bytes,
    "a link to it": (mine / "link").read_bytes,
    "up and down": (mine / ".." / secret.name).read_bytes,
    "a folder": lambda: os.listdir(secret.parent),
    "users": Path("/etc/passwd").read_bytes,
    "another process": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "a new file": lambda: (mine / "made").write_bytes(b"x"),
    "removing": (mine / "gone").unlink,
    "renaming": lambda: (mine / "renamed").rename(mine / "other"),
    "a program": lambda: subprocess.run(["/bin/true"], check=True),
    "the network": lambda: socket.create_connection(("127.0.0.1", port)),
    "listening": lambda: socket.create_server(("127.0.0.1", 0)),
    "a signal": lambda: os.kill(os.getppid(), 0),
}
said = {}
for name, attempt in tries.items():
    try:
        attempt()
        said[name] = "done"
    except PermissionError:
        said[name] = "refused"
print(json.dumps(said))
"""
NEEDS = {"the network": 4, "listening": 4, "a signal": 6}
"""What only newer versions hold back."""


def tried(folder: Path, how: str) -> dict[str, str]:
    mine, secret = folder / how / "mine", folder / how / "secret"
    mine.mkdir(parents=True)
    for name in ("rows", "gone", "renamed"):
        (mine / name).write_text("rows")
    secret.write_text("key")
    (mine / "link").symlink_to(secret)
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            [sys.executable, "-c", TRIES, str(mine), str(secret), str(server.getsockname()[1]), how],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    return said


@HERE
def test_what_is_fenced_in_reads_its_folder_and_does_nothing_else(tmp_path: Path) -> None:
    said = tried(tmp_path, "fenced")
    held = {name for name, answer in said.items() if answer == "refused"}
    due = said.keys() - {"its folder", "what was open"}
    assert held == {name for name in due if fence.level() >= NEEDS.get(name, 1)}


def test_without_the_fence_each_of_it_is_done(tmp_path: Path) -> None:
    assert set(tried(tmp_path, "free").values()) == {"done"}


def test_where_the_kernel_has_none_nothing_is_given_up_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_CREATE", 10_000)  # no such system call
    assert fence.level() == 0
    assert fence.around(Path("/")) == 0
    assert Path("/etc/hostname").exists()

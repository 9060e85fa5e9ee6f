"""`make deploy-check`: everything in deploy/ held to its own tool, without a network.

Exit codes: 0 all is well; 1 a finding; 2 a tool is missing, with the line that installs it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON_TOOLS = "make deploy-check installs it from requirements-deploy.lock"
EXPOSURE = 20  # of systemd-analyze, in tenths
TLS = ("broker.crt", "broker.key", "gateway.crt", "gateway.key", "agencies-ca.crt")


@dataclass(frozen=True)
class Check:
    """A command that must end with 0."""

    what: str
    command: Sequence[str | Path]
    install: str


def checks(folder: Path) -> Iterator[Check]:
    """Every check; what a tool wants to find in its place is put into `folder`."""
    yield Check("Dockerfiles", ["hadolint", *sorted(HERE.glob("images/*.Dockerfile"))], PYTHON_TOOLS)
    compose = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *sorted(HERE.glob("compose/*.yaml"))]
    yield Check("compose", compose, PYTHON_TOOLS)
    manifests = ["kubernetes-validate", "--strict", *sorted(HERE.glob("kubernetes/*.yaml"))]
    yield Check("Kubernetes manifests", manifests, PYTHON_TOOLS)
    units = _units(folder / "units")
    yield Check("systemd units", ["systemd-analyze", "verify", *units], "apt-get install systemd")
    for unit in (one for one in units if one.suffix == ".service"):
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", unit]
        yield Check(f"exposure of {unit.name}", command, "apt-get install systemd")
    yield Check("nginx", ["nginx", "-t", "-q", "-c", _nginx(folder / "nginx")], "apt-get install nginx-light")
    yield Check("Caddy", ["caddy", "validate", "--config", _caddy(folder / "caddy")], "apt-get install caddy")
    yield Check("shell scripts", ["bash", "-n", *sorted(HERE.glob("postgresql/*.sh"))], "apt-get install bash")


def main() -> int:
    """Run every check and say how each ended."""
    missing, found = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for check in checks(Path(folder)):
            program = shutil.which(str(check.command[0]), path=f"{BIN}:{SYSTEM}")
            if program is None:
                print(f"missing  {check.what}: {check.command[0]} is not here; {check.install}")
                missing += 1
                continue
            done = subprocess.run(
                [program, *map(str, check.command[1:])], capture_output=True, text=True, check=False,
                env={"PATH": SYSTEM, "HOME": folder},
            )  # fmt: skip
            print(f"{'ok' if done.returncode == 0 else 'WRONG':8} {check.what}", flush=True)
            if done.returncode:
                print((done.stdout + done.stderr)[-4000:])
                found += 1
    return 1 if found else 2 if missing else 0


def _units(folder: Path) -> list[Path]:
    """The units with programs that are there, as systemd looks for them."""
    folder.mkdir(parents=True)
    for unit in sorted(HERE.glob("systemd/*.*")):
        text = (
            unit.read_text()
            .replace("/opt/broker/bin/broker", "/bin/true")
            .replace("/opt/agency/bin/agency", "/bin/true")
        )
        (folder / unit.name).write_text(text)
    return sorted(folder.iterdir())


def _nginx(folder: Path) -> Path:
    shutil.copytree(HERE / "nginx", folder)
    _tls(folder / "tls")
    for name in ("broker.conf", "gateway.conf"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("/etc/nginx/", f"{folder}/").replace("/var/log/nginx/", f"{folder}/"))
    (folder / "nginx.conf").write_text(
        f"pid {folder}/nginx.pid; error_log {folder}/error.log;\nevents {{}}\nhttp {{ include {folder}/*.site; }}\n"
    )
    for name in ("broker", "gateway"):
        (folder / f"{name}.conf").rename(folder / f"{name}.site")
    return folder / "nginx.conf"


def _caddy(folder: Path) -> Path:
    shutil.copytree(HERE / "caddy", folder)
    _tls(folder / "tls")
    path = folder / "Caddyfile"
    path.write_text(path.read_text().replace("/etc/caddy/", f"{folder}/"))
    return path


def _tls(folder: Path) -> None:
    """A certificate for each name that a proxy's configuration asks for."""
    folder.mkdir()
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    subprocess.run(
        [*made, "-subj", "/CN=check", "-keyout", folder / "key", "-out", folder / "crt"],
        check=True,
        capture_output=True,
    )
    for name in TLS:
        shutil.copy(folder / ("key" if name.endswith(".key") else "crt"), folder / name)


if __name__ == "__main__":
    sys.exit(main())

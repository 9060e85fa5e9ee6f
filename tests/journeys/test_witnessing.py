"""Two agencies witness the log of a served broker, by the commands they would type; the broker opens no connection."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from typer.testing import CliRunner

from audit.cli import auditor
from audit.policy import Policy
from broker.cli import app as broker
from linkage.agency.cli import app as agency_command
from tests.journeys.conftest import ROOT
from tests.linkage.agency.test_log import a_stranger

AGENCIES: Final = {"northshire-icb": "health", "northshire-police": "police"}
DETAILS: Final = """
name = "{agency}"
party_type = "{flow}"
sector = "{flow}"
roles = ["MASH_ANALYST"]
[contacts.desk]
name = "Safeguarding desk"
phone = "01632 960001"
[flows.{flow}]
expected_by = "06:00"
contact = "desk"
"""
COMMANDS: Final = {"broker": broker, "agency": agency_command, "auditor": auditor}
WATCHED: Final = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect")
CONNECTS: Final = re.compile(r"connect\(\d+, \{sa_family=(AF_INET6?)")


class Partnership:
    """A broker and two agencies, each of which types its own commands."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        self.config, self.policy, self.trace = folder / "broker.toml", folder / "policy", folder / "connects"
        self.config.write_text(
            f'environment = "demo"\npartnership = "northshire"\nbase_url = "{self.url}"\nport = {self.port}\n'
            'database_url = "sqlite:///broker.sqlite"\ndata_dir = "data"\nlinger_ms = 0\n'
        )

    def types(self, command: str, *arguments: object, code: int = 0) -> Any:
        done = CliRunner().invoke(COMMANDS[command], [*map(str, arguments), "--json"])
        assert done.exit_code == code, (command, arguments, done.output)
        return json.loads(done.stdout or done.stderr)

    def broker(self, *arguments: object, code: int = 0) -> Any:
        return self.types("broker", *arguments, "--config", self.config, code=code)

    def home(self, agency: str) -> Path:
        return self.folder / agency

    def log(self, agency: str) -> Path:
        return self.home(agency) / "log"

    def enrols(self) -> None:
        self.broker("init")
        for agency, flow in AGENCIES.items():
            home = self.home(agency)
            self.types(
                "agency", "keygen", "--home", home, "--agency", agency, "--partnership", "northshire", "--epoch",
                "2026-1", "--broker", self.url,
            )  # fmt: skip
            (home / "details.toml").write_text(DETAILS.format(agency=agency, flow=flow.replace("health", "nhs")))
            self.broker("agencies", "enrol", home / "public.json", "--details", home / "details.toml")
            made = self.types("auditor", "witness-key", f"{agency}.example/witness", "--out", home / "witness.key")
            self.broker("witnesses", "enrol", made["vkey"], "--organisation", agency, "--by", "op-7")
        self.policy.write_text(self.broker("log", "policy")["policy"])

    @contextmanager
    def serves(self) -> Iterator[None]:
        """`broker serve`, each connection that it opens written down."""
        command = [sys.executable, "-c", "from broker.cli import main; main()", "serve", "--config", str(self.config)]
        traced = [*WATCHED, "-o", str(self.trace), *command]
        process = subprocess.Popen(traced, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            for _ in range(300):
                try:
                    httpx2.get(f"{self.url}/health/live").raise_for_status()
                    break
                except httpx2.HTTPError:
                    time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # ours alone: the session was made for it
            process.wait(timeout=60)

    def fetches(self, agency: str) -> None:
        self.types("agency", "log", "fetch", "--home", self.home(agency), "--out", self.log(agency))

    def checks(self, agency: str, *more: object, code: int = 0) -> Any:
        home = self.home(agency)
        return self.types(
            "auditor", "consistency", "--log", self.log(agency), "--policy", self.policy, "--state", home / "state",
            "--evidence", home / "evidence", *more, code=code,
        )  # fmt: skip

    def hands_in(self, agency: str, code: int = 0) -> Any:
        return self.types("agency", "log", "post", "--home", self.home(agency), "--log", self.log(agency), code=code)


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace here: apt-get install strace")
def test_agencies_pull_cosign_and_hand_in_and_the_broker_opens_no_connection_48(tmp_path: Path) -> None:
    there = Partnership(tmp_path)
    there.enrols()
    icb, police = AGENCIES
    with there.serves():
        there.fetches(icb)
        there.hands_in(icb, code=1)  # nothing is cosigned yet
        cosigned = there.checks(icb, "--cosign", there.home(icb) / "witness.key")["cosignature"]
        assert there.hands_in(icb) == {
            "size": cosigned["size"],
            "witnesses": [f"{icb}.example/witness"],
            "witnessed": False,
        }
        there.fetches(icb)
        there.checks(icb, code=5)  # one of two is no quorum

        there.fetches(police)
        there.checks(police, "--cosign", there.home(police) / "witness.key")
        assert there.hands_in(police)["witnessed"] is True
        there.fetches(icb)
        seen = there.checks(icb)
        assert (seen["witnessed"], len(seen["cosigned"])) == (cosigned["size"], 2)
        standing = httpx2.get(f"{there.url}/audit/witnesses").json()
        assert (standing["state"], standing["quorum"], standing["conflicts"]) == ("green", 2, 0)
        ready = httpx2.get(f"{there.url}/health/ready").json()
        assert ready["witnesses"]["state"] == "green"

        with a_stranger(tmp_path / "stranger", policy=Policy.parse(there.policy.read_bytes())) as outside:
            there.broker(
                "witnesses", "enrol", str(outside.witness.key.verifier), "--organisation", "w.example", "--by", "op-7"
            )
            there.fetches(icb)
            carry = ("agency", "log", "feed", outside.url, "--home", there.home(icb), "--log", there.log(icb))
            assert there.types(*carry)["lines"] == 1
            assert there.hands_in(icb)["witnesses"] == [outside.witness.key.name]
            there.types("agency", "log", "gossip", outside.url, "--home", there.home(icb), "--log", there.log(icb))
            compared = there.types(
                "auditor",
                "gossip",
                "--heard",
                there.log(icb) / "heard",
                "--log",
                there.log(icb),
                "--policy",
                there.policy,
            )
            assert len(compared["heard"]) == 1
    listed = there.broker("witnesses", "list")
    assert [one["state"] for one in listed["witnesses"]] == ["green"] * 3
    assert CONNECTS.findall(there.trace.read_text()) == []
    with socket.create_server(("127.0.0.1", 0)) as server:  # and one that is opened would have been seen
        opens = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        seen_by_it = subprocess.run([*WATCHED, sys.executable, "-c", opens], capture_output=True, text=True, check=True)
    assert CONNECTS.findall(seen_by_it.stderr) == ["AF_INET"]

"""`make demo`: the whole way on invented data, by the commands that a user types.

An area is made up; three organisations each encode their own extracts and push them; the broker links them by night;
an umbrella and three agreements, signed by these organisations, are put in force; an analyst asks; the receipt is
checked offline.  Then two sites are served until you stop it, or, with --once, one search is printed and all is
stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from deploy.demo import show
from deploy.demo.ask import Analyst

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PARTNERSHIP, EPOCH = "northshire", "2026-1"
AGREEMENTS = ("northshire-tier1", "northshire-mash", "northshire-early-help", "northshire-planning")


@dataclass(frozen=True)
class Organisation:
    """One agency of the demonstration."""

    id: str
    name: str
    party_type: str
    sector: str
    offset: int  # of its gateway's port
    flows: tuple[tuple[str, str], ...]  # flow, the desk to ring about it
    people: tuple[tuple[str, str, str], ...]  # id, label, role


ORGANISATIONS = (
    Organisation(
        "northshire-council", "Northshire Council", "local_authority", "council", 1,
        (
            ("education", "education-safeguarding"), ("social_care", "childrens-social-care-duty"),
            ("early_help", "early-help-hub"), ("housing", "housing-options"),
        ),
        (
            ("p-analyst", "Sample Analyst", "MASH_ANALYST"),
            ("p-decision-maker", "Sample Decision-maker", "MASH_DECISION_MAKER"),
            ("p-representative", "Sample Representative", "AGENCY_REP"),
            ("p-steward", "Sample Data Steward", "DATA_STEWARD"),
        ),
    ),
    Organisation(
        "northshire-icb", "Northshire Health", "nhs", "health", 2, (("health", ""),),
        (
            ("p-health", "Sample Health Analyst", "MASH_ANALYST"),
            ("p-health-representative", "Sample Health Representative", "AGENCY_REP"),
        ),
    ),
    Organisation(
        "northshire-police", "Northshire Police", "police", "police", 3, (("police", ""),),
        (
            ("p-police", "Sample Police Analyst", "MASH_ANALYST"),
            ("p-police-representative", "Sample Police Representative", "AGENCY_REP"),
        ),
    ),
)  # fmt: skip
REPRESENTATIVE = "AGENCY_REP"  # at each holder: who reads what it is to consider, and who has seen its data
OFFICERS = (
    ("ig-officer", "Sample IG Officer", "IG_OFFICER"),
    ("ig-second", "Sample Second Officer", "IG_OFFICER"),  # no review is closed, and nobody erased, by one alone
    ("link-reviewer", "Sample Link Reviewer", "LINK_REVIEWER"),
    ("link-second", "Sample Second Reviewer", "LINK_REVIEWER"),
    ("operator", "Sample Operator", "OPERATOR"),
)


class Stopped(Exception):
    """The demonstration can't go on; the message says why and what to do."""


@dataclass
class Demo:
    """One demonstration in one folder."""

    folder: Path
    port: int
    children: int
    seed: int
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "broker" / "broker.toml"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def home(self, organisation: Organisation) -> Path:
        return self.folder / "agencies" / organisation.id

    def extracts(self, organisation: Organisation) -> Path:
        return self.folder / "area" / "extracts" / organisation.id

    def showcase(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.folder / "area" / "truth" / "showcase.json").read_text())
        return found

    # The steps, in order -------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Everything up to the published view, unless this very demonstration is prepared already."""
        mark = self.folder / "prepared.json"
        wanted = {"children": self.children, "seed": self.seed, "port": self.port, "code": _code()}
        if mark.exists() and json.loads(mark.read_text()) == wanted:
            print("Prepared already; serving what is there (make clean starts anew).")
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        yesterday = datetime.now(UTC).date() - timedelta(days=1)  # noqa: TID251  (the demo's own clock)
        with step(f"Making up an area of {self.children:,} children"):
            self.run(
                sys.executable, "-m", "linkage.evaluation", "synthesise", "--children", str(self.children),
                "--seed", str(self.seed), "--on", yesterday.isoformat(), "--out", str(self.folder / "area"),
            )  # fmt: skip
        with step("Making each organisation's keys; the linkage key never goes to the broker"):
            self.make_agencies()
        with step("Setting up the broker and enrolling the organisations"):
            self.make_broker()
        with step("Signing four agreements, each by every party, and putting them in force"):
            self.sign_agreements()
        with step("Encoding six extracts, each inside its own organisation"):
            self.encode()
        with self.serving_broker(), step("Submitting six batches; each has its signed receipt"):
            self.submit()
        with step("Linking by night, and publishing"):
            done = self.broker("nightly", "--json")
        (self.folder / "nightly.json").write_text(done)
        mark.write_text(json.dumps(wanted))

    def make_agencies(self) -> None:
        link_key: Path | None = None
        for organisation in ORGANISATIONS:
            home = self.home(organisation)
            handed = ["--link-key", str(link_key)] if link_key else []
            self.agency(
                "keygen", "--home", str(home), "--agency", organisation.id, "--partnership", PARTNERSHIP,
                "--epoch", EPOCH, "--broker", self.url, *handed,
            )  # fmt: skip
            link_key = link_key or home / "keys" / "link.key"
            with (home / "agency.toml").open("a", encoding="utf-8") as settings:
                settings.write(self.gateway_settings(organisation))

    def gateway_settings(self, organisation: Organisation) -> str:
        contacts = self.contacts(organisation)
        desk = contacts[organisation.flows[0][1]] if organisation.flows[0][1] else next(iter(contacts.values()))
        lines = [
            "", "[gateway]", 'environment = "demo"', 'host = "127.0.0.1"', f"port = {self.port + organisation.offset}",
            f"organisation = {json.dumps(organisation.name)}",
            f"service = {json.dumps(organisation.name + ' gateway')}",
            f"desk = {{name = {json.dumps(desk['name'])}, phone = {json.dumps(desk['phone'])}}}",
            "people = [",
            *(
                f"  {{id = {json.dumps(person)}, name = {json.dumps(name)}, role = {json.dumps(role)}}},"
                for person, name, role in organisation.people
            ),
            "]", "[gateway.organisations]", *(f"{each.id} = {json.dumps(each.name)}" for each in ORGANISATIONS), "",
        ]  # fmt: skip
        return "\n".join(lines)

    def contacts(self, organisation: Organisation) -> dict[str, dict[str, str]]:
        return tomllib.loads((self.extracts(organisation) / "contacts.toml").read_text("utf-8"))

    def make_broker(self) -> None:
        self.config.parent.mkdir()
        people = "\n".join(
            f"[[demo_people]]\nperson = {json.dumps(person)}\nlabel = {json.dumps(label)}\nrole = {json.dumps(role)}"
            for person, label, role in OFFICERS
        )
        self.config.write_text(
            f'environment = "demo"\npartnership = "{PARTNERSHIP}"\nbase_url = "{self.url}"\n'
            f'database_url = "sqlite:///broker.sqlite"\ndata_dir = "data"\nport = {self.port}\n{people}\n'
        )
        self.broker("init")
        for organisation in ORGANISATIONS:
            details = self.folder / "broker" / f"{organisation.id}.toml"
            details.write_text(self.enrolment(organisation))
            self.broker("agencies", "enrol", str(self.home(organisation) / "public.json"), "--details", str(details))

    def enrolment(self, organisation: Organisation) -> str:
        contacts = self.contacts(organisation)
        roles = sorted({role for _, _, role in organisation.people})
        lines = [
            f"name = {json.dumps(organisation.name)}", f"party_type = {json.dumps(organisation.party_type)}",
            f"sector = {json.dumps(organisation.sector)}", f"roles = {json.dumps(roles)}",
        ]  # fmt: skip
        for ref, contact in contacts.items():
            lines += [f"[contacts.{ref}]", *(f"{key} = {json.dumps(text)}" for key, text in contact.items() if text)]
        for flow, desk in organisation.flows:
            contact_ref = desk or next(iter(contacts))
            lines += [f"[flows.{flow}]", 'expected_by = "06:00"', f"contact = {json.dumps(contact_ref)}"]
        return "\n".join(lines) + "\n"

    def sign_agreements(self) -> None:
        signed = self.folder / "agreements"
        documents = [HERE / "agreements" / f"{name}.toml" for name in AGREEMENTS]
        parties = {
            path: {party["id"] for party in tomllib.loads(path.read_text("utf-8"))["parties"]} for path in documents
        }
        for (
            organisation
        ) in ORGANISATIONS:  # a party that is none of these has not acceded yet: the others' flows are live
            own = [str(path) for path in documents if organisation.id in parties[path]]
            self.broker(
                "agreements", "sign", *own, "--key", str(self.home(organisation) / "keys" / "signatory.pem"),
                "--kid", f"{organisation.id}/signatory-1", "--out", str(signed), "--umbrella", own[0], configured=False,
            )  # fmt: skip
        signatures = [part for path in sorted(signed.iterdir()) for part in ("--signature", str(path))]
        self.broker("agreements", "import", *map(str, documents), *signatures, "--activate", "--by", "northshire-ig-1")

    def encode(self) -> None:
        for organisation in ORGANISATIONS:
            for flow, _ in organisation.flows:
                mapping = self.extracts(organisation) / flow / "mapping.toml"
                out = self.folder / "batches" / organisation.id / flow
                out.parent.mkdir(parents=True, exist_ok=True)
                self.agency("encode", str(mapping), "--home", str(self.home(organisation)), "--out", str(out))

    def submit(self) -> None:
        for organisation in ORGANISATIONS:
            for flow, _ in organisation.flows:
                batch = self.folder / "batches" / organisation.id / flow
                self.agency("submit", str(batch), "--home", str(self.home(organisation)))

    # Serving -------------------------------------------------------------------------------------------------------

    @contextmanager
    def serving_broker(self) -> Iterator[None]:
        process = self.start("broker", "serve", "--config", str(self.config))
        try:
            wait_for(f"{self.url}/health/ready", process)
            yield
        finally:
            self.end(process)

    @contextmanager
    def serving_gateways(self) -> Iterator[None]:
        started = []
        try:
            for organisation in ORGANISATIONS:
                started.append(self.start("agency", "gateway", "--home", str(self.home(organisation))))
            for organisation, process in zip(ORGANISATIONS, started, strict=True):
                wait_for(f"http://127.0.0.1:{self.port + organisation.offset}/", process)
            yield
        finally:
            for process in started:
                self.end(process)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{command[0]}-{command[1]}.log").open("ab")
        process = subprocess.Popen(  # in a group of its own: Ctrl-C reaches us alone, and we stop it in order
            [tool(command[0]), *command[1:]], stdout=log, stderr=log, cwd=ROOT, process_group=0
        )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        self.running.remove(process)

    # Commands ------------------------------------------------------------------------------------------------------

    def agency(self, *arguments: str) -> str:
        return self.run(tool("agency"), *arguments)

    def broker(self, *arguments: str, configured: bool = True) -> str:
        return self.run(tool("broker"), *arguments, *(["--config", str(self.config)] if configured else []))

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            shown = " ".join(Path(command[0]).name if n == 0 else part for n, part in enumerate(command[:4]))
            raise Stopped(f"{shown} ... ended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-3000:]}")
        return done.stdout


def tool(name: str) -> str:
    """A command of ours, from the virtual environment that runs this."""
    return str(Path(sys.executable).parent / name)


def _code() -> str:
    """A digest of the product's code and this demonstration's files: another version prepares anew."""
    digest = hashlib.sha256()
    for folder in ("broker", "linkage", "agreements", "audit", "deploy/demo"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".toml", ".json"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def step(words: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began = time.monotonic()
    print(f"  {words} ...", end="", flush=True)
    yield
    print(f" {time.monotonic() - began:.1f} s", flush=True)


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Return once `url` answers.  Raises Stopped if the process ends first, or takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise Stopped(f"a service ended before it answered at {url}; its log is in the demo's folder")
        try:
            if httpx2.get(url, timeout=2, follow_redirects=False).status_code < 400:
                return
        except httpx2.HTTPError:
            time.sleep(0.1)
    raise Stopped(f"nothing answers at {url} after {seconds:.0f} s")


def ports_free(ports: Sequence[int]) -> None:
    """Raises Stopped, naming the first port that is taken."""
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                raise Stopped(f"port {port} is taken: stop what uses it, or choose another with PORT=n") from None


def once(demo: Demo) -> None:
    """One search as an analyst, a refusal, and the receipt checked offline."""
    council = ORGANISATIONS[0]
    analyst = Analyst.of(demo.home(council), council.people[0][0], council.people[0][2])
    child = next((each for each in demo.showcase() if each["kind"] == "open_case"), None)
    if child is None:
        raise Stopped(
            "so small an area has no child with an open case known to three organisations: CHILDREN=1500 or more"
        )
    print(f"\nAn analyst at {council.name} screens a contact about {child['given_name']} {child['family_name']}.")
    print("The name is typed and encoded at the council; the broker gets encodings.\n")
    answer, view = analyst.view(child, purpose="MASH_SCREEN")
    show.search(answer)
    show.family_view(view)
    known = {tile["organisation"] for tile in view["tiles"]}
    if len(known) < 3:
        raise Stopped("the child should be known to three organisations: something is wrong")
    print("\nThe same analyst asks for a section 47 enquiry, without a manager's decision.\n")
    refused = analyst.search(child, purpose="S47")
    if refused["candidates"] or not refused["refusals"]:
        raise Stopped("the request should have been refused: something is wrong")
    show.refusals(refused["refusals"])
    consider(demo)
    verify(demo, view["receipt"])


def consider(demo: Demo) -> None:
    """What the analyst was not shown, before a holder: the asker learns nothing of it."""
    holder = ORGANISATIONS[0]  # it holds most of what the enquiry asks for
    print(f"\nAt a fixed time {holder.name}'s own desk reads what was nearly shown, and decides whether to share.\n")
    demo.broker("nightly", "--json")
    show.to_consider(Analyst.of(demo.home(holder), "p-representative", REPRESENTATIVE).to_consider())


def verify(demo: Demo, receipt: dict[str, Any]) -> None:
    """Copy the public log to a folder, and check the receipt against it: no network, none of the broker's code."""
    print("\nThe receipt, checked offline by `auditor`:\n", flush=True)
    council = ORGANISATIONS[0]
    log, kept = demo.folder / "log", demo.folder / "receipt"
    shutil.rmtree(log, ignore_errors=True)
    kept.mkdir(exist_ok=True)
    (kept / "event.json").write_text(json.dumps(receipt, indent=1))
    (kept / "event.tlog-proof").write_text(receipt["proof"])
    (kept / "policy").write_text(json.loads(demo.broker("log", "policy", "--json"))["policy"])
    demo.agency("log", "fetch", "--home", str(demo.home(council)), "--out", str(log))
    policy = ["--policy", str(kept / "policy")]
    for arguments in (
        ["inclusion", "--log", str(log), *policy, "--event", str(kept / "event.json"), "--proof",
         str(kept / "event.tlog-proof")],
        ["fsck", "--log", str(log), *policy],
        ["consistency", "--log", str(log), *policy, "--state", str(kept / "state.json")],
    ):  # fmt: skip
        print(f"$ auditor {arguments[0]} --log LOG --policy POLICY ...")
        print("  " + demo.run(tool("auditor"), *arguments).strip().replace("\n", "\n  "))


def serve(demo: Demo) -> None:
    """Say where to go and whom to be, and wait."""
    print("\nServing until you press Ctrl-C:\n")
    for organisation in ORGANISATIONS:
        who = ", ".join(f"{name} ({role})" for _, name, role in organisation.people)
        print(f"  {organisation.name} gateway  http://127.0.0.1:{demo.port + organisation.offset}   sign in as {who}")
    print(f"  Broker, IG pages         {demo.url}/   sign in as {', '.join(label for _, label, _ in OFFICERS)}")
    print("\nChildren worth searching for (case reference: anything, such as SAMPLE-0412):\n")
    for child in demo.showcase()[:3]:
        born = datetime.strptime(child["date_of_birth"], "%Y-%m-%d").date()  # noqa: DTZ007
        print(f"  {child['given_name']} {child['family_name']}, born {born:%-d %-m %Y}, {child['postcode']}")
        print(f"      {child['why']}")
    print(f"\nLogs and all state are in {os.path.relpath(demo.folder)}.", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("\nStopping.", flush=True)


def main() -> int:
    """Exit code 0 when all went well, 1 with the reason otherwise."""
    arguments = argparse.ArgumentParser(prog="make demo", description=__doc__)
    arguments.add_argument("--children", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--port", type=int, default=8400)
    arguments.add_argument("--once", action="store_true", help="one search, printed; then stop")
    arguments.add_argument("--folder", type=Path, default=ROOT / "build" / "demo")
    asked = arguments.parse_args()
    demo = Demo(asked.folder.resolve(), asked.port, asked.children, asked.seed)
    for stop in (signal.SIGINT, signal.SIGTERM):  # even where a shell made us ignore them
        signal.signal(stop, signal.default_int_handler)
    try:
        ports_free([asked.port, *(asked.port + organisation.offset for organisation in ORGANISATIONS)])
        demo.prepare()
        with demo.serving_broker():
            if asked.once:
                once(demo)
            else:
                with demo.serving_gateways():
                    serve(demo)
    except Stopped as reason:
        print(f"\n{reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped before it was done; the next start prepares anew what is missing.", file=sys.stderr)
        return 130
    finally:
        for process in list(demo.running):
            process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())

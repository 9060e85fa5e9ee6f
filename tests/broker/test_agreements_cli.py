"""What a signatory and an information governance officer type about agreements, and what they read."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typer.testing import CliRunner, Result

from broker import clock
from broker.cli import app
from broker.keys import b64url
from tests.broker.platform import AnAgency
from tests.broker.test_activation import RULE
from tests.broker.test_cli import DETAILS
from tests.broker.test_register import COUNCIL, ICB, MASH, UMBRELLA

POLICE = "northshire-police"
REF, TIER1, RULE_REF = "northshire-mash@3.0.0", "northshire-tier1@2.1.0", "northshire-icb-r12@1.0.0"
NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
SECRET = "BEGIN PRIVATE KEY"


@dataclass
class Desk:
    """A folder with documents, keys and a broker's settings; and what is typed in it."""

    folder: Path

    def typed(self, *words: object, code: int = 0) -> str:
        """What is printed in words, on either stream; the exit code is held."""
        done = self._run(*words)
        assert done.exit_code == code, done.output
        return done.stdout + done.stderr

    def data(self, *words: object, code: int = 0) -> Any:
        done = self._run(*words, "--json")
        assert done.exit_code == code, done.output
        return json.loads(done.stdout or done.stderr)

    def _run(self, *words: object) -> Result:
        config = self.folder / "broker.toml"
        env = {"BROKER_CONFIG": str(config)} if config.exists() else {}  # a signatory's machine has none
        done = CliRunner().invoke(app, ["agreements", *map(str, words)], env=env)
        assert SECRET not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    def file(self, name: str, content: bytes | str = b"") -> Path:
        path = self.folder / name
        if content:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @property
    def mash(self) -> Path:
        return self.file("mash.toml", MASH)

    @property
    def tier1(self) -> Path:
        return self.file("tier1.toml", UMBRELLA)

    def key(self, party: str) -> Path:
        return self.folder / f"{party}.pem"

    def sign(self, party: str, *documents: Path) -> list[str]:
        """The options that give these signatures."""
        told = self.data(
            "sign", *documents, "--umbrella", self.tier1, "--party", party, "--key", self.key(party),
            "--out", self.folder / "signed",
        )  # fmt: skip
        return [part for one in told for part in ("--signature", one["out"])]

    def event(self, act: str, party: str, document: Path, code: int = 0) -> Path:
        told = self.data(
            "sign-event", act, document, "--umbrella", self.tier1, "--party", party, "--key", self.key(party),
            "--out", self.folder / "events", code=code,
        )  # fmt: skip
        return Path(told[0]["out"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    return furnished(tmp_path)


def furnished(folder: Path) -> Desk:
    made = Desk(folder)
    for party in (COUNCIL, ICB, POLICE):
        made.key(party).write_bytes(key_of(party).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        made.key(party).chmod(0o600)
        made.file(f"{party}.json", json.dumps(public_of(party)))
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker set up, with three agencies enrolled: made once, and copied."""
    desk = furnished(tmp_path_factory.mktemp("installed"))
    desk.file(
        "broker.toml",
        'environment = "demo"\npartnership = "northshire"\nbase_url = "http://127.0.0.1:8400"\n'
        'database_url = "sqlite:///broker.db"\ndata_dir = "data"\n',
    )
    config, details = ["--config", str(desk.file("broker.toml"))], str(desk.file("details.toml", DETAILS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: NOW)
        assert CliRunner().invoke(app, ["init", *config]).exit_code == 0
        for party in (COUNCIL, ICB, POLICE):
            words = ["agencies", "enrol", str(desk.file(f"{party}.json")), "--details", details, *config]
            assert CliRunner().invoke(app, words).exit_code == 0
    return desk.folder


@pytest.fixture
def host(desk: Desk, installed: Path) -> Desk:
    """A broker of one's own."""
    shutil.copytree(installed, desk.folder, dirs_exist_ok=True)
    return desk


def key_of(party: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(party.encode().ljust(32, b".")[:32])


def public_of(party: str) -> dict[str, Any]:
    signs = b64url(key_of(party).public_key().public_bytes_raw())
    return AnAgency(party).public() | {"signatory": {"kid": f"{party}/signatory-1", "public": signs}}


def in_force(host: Desk) -> None:
    both = host.sign(COUNCIL, host.tier1, host.mash) + host.sign(ICB, host.tier1, host.mash)
    host.typed("import", host.tier1, host.mash, *both, "--activate", "--by", "ig-1")


# --- Without a database ----------------------------------------------------------------------------------------------


def test_checking_says_what_is_wrong_where_and_what_to_write(desk: Desk) -> None:
    spoilt = desk.file("spoilt.toml", MASH.replace(b'for = ["MASH_SCREEN"]', b'for = ["MASH_SCREENING"]', 1))
    said = desk.typed("check", spoilt, "--umbrella", desk.tier1, code=1)
    assert "refused: grants[0].for: 'MASH_SCREENING' is no purpose that may stand here; write MASH_SCREEN, if" in said
    assert said.endswith("spoilt.toml does not load.\n")
    assert "refused: under: northshire-tier1@2.1.0 is not at hand" in desk.typed("check", desk.mash, code=1)


def test_checking_says_what_would_keep_it_from_being_put_in_force(desk: Desk) -> None:
    unapproved = desk.file("unapproved.toml", MASH.replace(b"approved = 2026-02-11, ", b""))
    report = desk.data("check", unapproved, "--umbrella", desk.tier1, code=1)
    assert [(one["severity"], one["code"], one["path"]) for one in report["findings"]] == [
        ("gate", "NO_DPIA", "assurance.approved")
    ]


def test_checking_says_who_has_signed_by_files_alone(desk: Desk) -> None:
    _, signature = desk.sign(ICB, desk.mash)
    check = ("check", desk.mash, "--umbrella", desk.tier1, "--signature", signature)
    said = desk.typed(*check, "--public", desk.file(f"{ICB}.json"))
    assert f"{ICB} signed on 22 Nov 2026 with {ICB}/signatory-1." in said
    assert f"Not seen here as signed by: {COUNCIL}, {POLICE}." in said
    assert "give that agency's public.json with --public" in desk.typed(*check, code=3)
    other = desk.file("other.toml", MASH.replace(b"6.1 Where", b"6.1 If", 1))
    report = desk.data(
        "check", other, "--umbrella", desk.tier1, "--signature", signature, "--public", desk.file(f"{ICB}.json"), code=1
    )
    assert "another text" in report["signed"][0]["wrong"]
    assert ICB in report["awaited"]


def test_a_stranger_can_not_sign_and_a_file_that_can_not_be_read_is_named(desk: Desk) -> None:
    base = ("sign", desk.mash, "--umbrella", desk.tier1, "--out", desk.folder / "signed")
    assert "parties are northshire-council, northshire-icb, northshire-police" in desk.typed(
        *base, "--party", "northshire-housing", "--key", desk.key(ICB), code=1
    )
    assert "no-such.pem can't be read" in desk.typed(
        *base, "--party", ICB, "--key", desk.folder / "no-such.pem", code=3
    )
    assert "of one party" in desk.typed(*base, "--party", ICB, "--kid", f"{POLICE}/1", "--key", desk.key(ICB), code=2)
    assert "no-such.toml can't be read" in desk.typed("check", desk.folder / "no-such.toml", code=3)
    assert "is no party to" in desk.typed(
        "sign-event", "suspend", desk.mash, "--umbrella", desk.tier1, "--party", "northshire-housing",
        "--key", desk.key(ICB), "--out", desk.folder, code=1,
    )  # fmt: skip
    desk.key(ICB).chmod(0o644)
    assert "its mode must be 0600" in desk.typed(*base, "--party", ICB, "--key", desk.key(ICB), code=3)


def test_what_is_written_is_written_whole_or_not_at_all(desk: Desk) -> None:
    out = desk.folder / "signed"
    sign = ("--umbrella", desk.tier1, "--party", POLICE, "--key", desk.key(POLICE), "--out", out)
    rule = desk.file("r12.toml", RULE)
    assert "is no party to northshire-icb-r12@1.0.0" in desk.typed(
        "sign-event", "withdraw", desk.mash, rule, *sign, code=1
    )
    assert not out.exists()
    (out / f"{REF}.{POLICE}.json").mkdir(parents=True)
    assert "can't be written: Is a directory" in desk.typed("sign", desk.tier1, desk.mash, *sign, code=3)
    assert [path.name for path in out.iterdir()] == [f"{REF}.{POLICE}.json"]
    cedar = desk.folder / "policies.cedar"
    (desk.folder / "policies.entities.json").mkdir()
    export = ("export", desk.mash, "--umbrella", desk.tier1, "--to", "cedar", "--out", cedar)
    assert "policies.entities.json can't be written" in desk.typed(*export, code=3)
    assert [path.name for path in desk.folder.glob("*policies*")] == ["policies.entities.json"]


# --- At the host -------------------------------------------------------------------------------------------------------


def test_from_taking_in_to_stopping_one_party_and_going_on(host: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    both = host.sign(COUNCIL, host.tier1, host.mash) + host.sign(ICB, host.tier1, host.mash)
    assert host.data("import", host.tier1, host.mash, *both) == {
        "signed": {TIER1: [COUNCIL, ICB], REF: [COUNCIL, ICB]}, "cut_off": [],
    }  # fmt: skip
    said = host.typed("list")
    assert f"{REF}  in signature (not put in force here yet)" in said
    assert f"    has not signed: {POLICE}" in said
    assert "activate that first" in host.typed("activate", REF, "--by", "ig-1", code=1)
    assert "--by is a staff id" in host.typed("activate", REF, "--by", "a name", code=2)
    host.typed("activate", TIER1, "--by", "ig-1")
    said = host.typed("activate", REF, "--by", "ig-1")
    assert said == f"{REF} is in force. Nothing goes to or from {POLICE} under it, until signed.\n"
    listed = {one["ref"]: one for one in host.data("list")}
    assert (listed[REF]["state"], listed[REF]["approved_by"], listed[REF]["awaited"]) == ("active", "ig-1", [POLICE])

    event = host.event("suspend", ICB, host.mash)
    assert "either --party and --event, or --by" in host.typed("suspend", REF, "--party", ICB, code=2)
    assert f"is {ICB}'s, not {COUNCIL}'s" in host.typed("suspend", REF, "--party", COUNCIL, "--event", event, code=1)
    assert "sign-event resume writes the one due" in host.typed("resume", REF, "--party", ICB, "--event", event, code=1)
    said = host.typed("suspend", REF, "--party", ICB, "--event", event)
    assert said == f"{REF}: {ICB}: what it discloses has stopped; what others disclose is as it was.\n"
    assert host.typed("suspend", REF, "--party", ICB, "--event", event) == said  # twice is once
    assert f"signed, and has stopped its own disclosures: {ICB} since 22 Nov 2026" in host.typed("list")
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(minutes=1))
    said = host.typed("resume", REF, "--party", ICB, "--event", host.event("resume", ICB, host.mash))
    assert said == f"{REF}: {ICB}: it takes part again.\n"
    said = host.typed("suspend", REF, "--party", ICB, "--event", event, code=1)
    assert said == (
        f"{REF}: this event of {ICB} changes nothing: it takes part since 22 Nov 2026 by a later one; `sign-event"
        " suspend` writes a new one.\n"
    )
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(minutes=2))
    host.typed("event", host.event("withdraw", ICB, host.mash))
    said = host.typed("activate", REF, "--by", "ig-1", code=1)
    assert (
        said == f"This host holds {REF} in force. But nothing is shown under it: it is terminated (by its parties).\n"
    )
    said = host.typed("list")
    assert (REF in said, "1 that ended: --all lists them too." in said) == (False, True)
    assert f"{REF}  terminated since 22 Nov 2026 (by its parties)" in host.typed("list", "--all")


def test_who_signed_is_asked_of_the_register_too(host: Desk) -> None:
    in_force(host)
    for words in (("check",), ("lint", "--no-gaps"), ("who-can-see",), ("export", "--to", "odrl"), ("diff", host.mash)):
        said = host.typed(*words, host.mash, code=int("lint" in words))  # the register has its umbrella
        assert "is not at hand" not in said and "no such umbrella" not in said
        assert "it goes on after" not in said  # it ends on the day its umbrella does
    longer = host.file("longer.toml", MASH.replace(b"expires = 2028-03-31", b"expires = 2031-03-31", 1))
    assert "lint: period.expires: it goes on after northshire-tier1@2.1.0 ends, " in host.typed("check", longer)
    report = host.data("check", host.mash, "--umbrella", host.tier1, "--register")
    assert [one["party"] for one in report["signed"]] == [COUNCIL, ICB]
    assert report["awaited"] == [POLICE]


def test_an_umbrella_among_the_files_that_are_looked_at_is_at_hand(desk: Desk) -> None:
    for words in (("lint", "--no-gaps"), ("who-can-see",)):
        told = desk.typed(*words, desk.mash, desk.tier1, code=int("lint" in words))
        assert "northshire-mash@3.0.0" in told
        assert "is not at hand" not in told
    broken = desk.file("broken.toml", desk.tier1.read_bytes().replace(b"format = 1", b"format = 9", 1))
    assert "broken.toml: format" in desk.typed("lint", desk.mash, broken, code=1)


def test_what_is_missing_is_listed_with_its_code_and_the_text_stays_as_signed(host: Desk) -> None:
    in_force(host)
    text = MASH.replace(b"approved = 2026-02-11, ", b"").replace(b'version = "3.0.0"', b'version = "3.1.0"', 1)
    unapproved = host.file("unapproved.toml", text)
    host.typed("import", unapproved, *host.sign(COUNCIL, unapproved), *host.sign(ICB, unapproved))
    said = host.typed("activate", "northshire-mash@3.1.0", "--by", "ig-1", code=1)
    assert "NO_DPIA: assurance.approved:" in said
    assert "write these into a new version" in said
    (gap,) = host.data("activate", "northshire-mash@3.1.0", "--by", "ig-1", code=1)["missing"]
    assert gap["code"] == "NO_DPIA"


def test_a_party_that_a_newer_version_leaves_behind_is_named_by_whatever_cuts_it_off(host: Desk) -> None:
    in_force(host)
    both = host.sign(POLICE, host.tier1, host.mash)
    assert host.data("import", host.tier1, host.mash, *both)["cut_off"] == []
    text = MASH.replace(b'version = "3.0.0"', b'version = "3.1.0"', 1)
    newer = host.file("newer.toml", text.replace(b"effective = 2026-04-01", b"effective = 2026-12-01"))
    signed = host.sign(COUNCIL, newer) + host.sign(ICB, newer)
    host.typed("import", newer, *signed[:2])
    said = host.typed("activate", "northshire-mash@3.1.0", "--by", "ig-1")
    assert "two parties have yet to sign" in said
    assert f"Cut off: from 1 Dec 2026 {ICB} discloses nothing to {COUNCIL} nor is anything received from" in said
    assert f"have northshire-mash@3.1.0 signed by {POLICE}.\n" in said
    (left,) = host.data("import", newer, *signed[2:])["cut_off"]
    assert (left["party"], left["unsigned"], left["since"]) == (POLICE, "northshire-mash@3.1.0", "2026-12-01T00:00:00Z")
    assert left["no_longer_to"] == left["no_longer_from"] == [ICB]  # the council left it before


def test_what_shows_nothing_by_itself_is_held_against_another_among_all_that_is_in_force(host: Desk) -> None:
    rule = host.file("r12.toml", RULE)
    stricter = host.file("r13.toml", RULE.replace(b'"1.0.0"', b'"1.1.0"', 1).replace(b'"status"', b'"existence"', 1))
    in_force(host)
    said = host.typed("diff", rule, stricter, code=1)
    assert "health.not_brought at status (still existence)" in said and "[northshire-icb-r12@1.1.0]" in said
    assert "give each alone" in host.typed("diff", host.mash, rule, code=2)
    host.typed("import", rule, *host.sign(ICB, rule))
    as_well = f"{RULE_REF} holds back as well, until {ICB} withdraws it.\n"
    assert host.typed("import", stricter, *host.sign(ICB, stricter)).endswith(as_well)
    premise = f"As if {ICB} had withdrawn northshire-icb-r12@1.1.0: until then both hold back.\n"
    assert host.typed("diff", rule, code=1).startswith(premise)
    renewed = host.file("renewed.toml", UMBRELLA.replace(b'version = "2.1.0"', b'version = "2.2.0"', 1))
    premise = (
        f"As if {REF}, under {TIER1}, were signed anew under northshire-tier1@2.2.0: until then nothing changes.\n"
    )
    assert host.typed("diff", renewed) == premise + "Nothing changes.\n"
    assert host.data("what-if", renewed)["supposed"] == [premise.strip()]
    (host.folder / "broker.toml").unlink()
    assert "give --config as well" in host.typed("diff", rule, stricter, code=2)


def test_what_stops_with_its_umbrella_is_named_and_who_takes_no_part_in_that(host: Desk) -> None:
    in_force(host)
    said = host.typed("suspend", TIER1, "--by", "ig-1")
    assert said == f"{TIER1} is suspended at this host, and with it {REF}; `broker agreements activate` puts it back.\n"
    host.typed("activate", TIER1, "--by", "ig-1")
    host.typed("event", host.event("withdraw", COUNCIL, host.tier1))
    assert f"    no part is taken in its umbrella {TIER1}: {COUNCIL}\n" in host.typed("list", "--all")
    host.typed("import", host.mash, *host.sign(POLICE, host.mash))
    host.typed("suspend", REF, "--by", "ig-1")
    listed = {one["ref"]: one for one in host.data("list", "--all")}
    assert listed[REF]["outside_umbrella"] == [COUNCIL, POLICE]
    assert host.typed("activate", REF, "--by", "ig-1", code=1).endswith("it is terminated (by its parties).\n")


def test_a_refused_file_is_named_among_many(host: Desk) -> None:
    broken = host.file("broken.toml", b"format = 1\n")
    assert f"{broken}: kind:" in host.typed("import", host.tier1, broken, code=1)
    assert f"{broken} is not JSON" in host.typed("event", broken, code=3)
    assert "holds no event" in host.typed(
        "suspend", REF, "--party", ICB, "--event", host.file("empty.json", b"{}"), code=3
    )
    assert "there is no document" in host.typed("activate", "nothing@1.0.0", "--by", "ig-1", code=1)


def test_the_calendar_has_every_day_that_comes_and_an_overdue_review_is_a_finding(
    host: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_force(host)
    assert host.typed("calendar", "--days", "30") == "Nothing falls due within 30 days.\n"
    said = host.typed("calendar")
    assert f"{REF}: to be reviewed by 31 Mar 2027, in 129 days; its disclosures go on meanwhile." in said
    monkeypatch.setattr(clock, "now", lambda: datetime(2027, 4, 2, tzinfo=UTC))
    said = host.typed("calendar", code=1)
    assert f"{REF}: its review was due on 31 Mar 2027, 2 days ago; its disclosures go on." in said
    assert f"{REF}: its last day is 31 Mar 2028, in 364 days; then it ends by itself." in said
    due = host.data("calendar", "--days", "90", code=1)
    assert {(one["ref"], one["kind"], one["days"]) for one in due} == {
        (REF, "review_overdue", -2),
        (TIER1, "review_overdue", -2),
    }


def test_a_night_tells_what_falls_due_once(host: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    in_force(host)
    monkeypatch.setattr(clock, "now", lambda: datetime(2027, 3, 1, 3, tzinfo=UTC))
    config = ["--config", str(host.file("broker.toml"))]
    first = CliRunner().invoke(app, ["nightly", *config])
    assert first.exit_code == 0, first.output
    assert f"{REF}: to be reviewed by 31 Mar 2027, in 30 days" in first.output
    second = json.loads(CliRunner().invoke(app, ["nightly", *config, "--json"]).stdout)
    assert "agreements" not in second


def test_a_restriction_is_taken_in_listed_and_lifted_by_its_owner_alone(host: Desk) -> None:
    def restrictions(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["restrictions", *map(str, words), "--config", str(host.file("broker.toml"))])
        assert done.exit_code == code, done.output
        return done.stdout + done.stderr

    rule = host.file("r12.toml", RULE)
    assert restrictions("import", rule, *host.sign(ICB, rule)) == f"{RULE_REF}: signed by {ICB}\n"
    said = restrictions("list")
    assert f"{RULE_REF}  active" in said
    assert f"{ICB}, court_order: record r_7Q2M4XK9TD: health.not_brought at most status" in said
    assert restrictions("list", "--owner", COUNCIL) == "No restriction is in the register.\n"
    assert RULE_REF not in host.typed("list")
    assert "not a restriction" in restrictions("import", host.tier1, *host.sign(ICB, host.tier1), code=1)
    host.event("suspend", ICB, rule)
    assert "nobody pauses it" in restrictions("withdraw", host.event("suspend", ICB, rule), code=1)
    assert "holds nothing back any more" in restrictions("withdraw", host.event("withdraw", ICB, rule))
    assert restrictions("list") == "No restriction is in the register.\n"
    assert "terminated" in restrictions("list", "--all")

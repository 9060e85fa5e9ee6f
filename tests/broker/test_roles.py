"""The roles of PostgreSQL: the login that brokers sign in as can't rewrite the log, and is all that a broker needs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from typer.testing import CliRunner

from broker import clock as broker_clock
from broker import erasure, retention, unsticking
from broker.cli import app as command
from broker.cli.log import _logins
from broker.errors import LogUnavailable, Malformed, StoreUnavailable
from broker.keys import Keys
from broker.settings import LogRetention, Settings
from broker.shards import rotate, turn
from broker.store import Store
from broker.store.roles import grants, logins
from broker.store.searches import SearchCandidateRow
from broker.store.tables import metadata
from broker.store.tombstones import Tombstones
from broker.trail import EntryRef, Trail
from broker.wiring import open_installation
from tests.broker.test_erasure import AT, CHILD, looked, officer
from tests.builders import PARTNERSHIP
from tests.builders_area import BASE_URL, NIGHT, Area, Clock, the_time
from tests.builders_families import ROBIN, extracts
from tests.builders_signer import opened
from tests.postgres import a_database

pytestmark = pytest.mark.postgres
WHO = {"organisation": PARTNERSHIP}
ROLES = ("app", "sequencer", "eraser")
ADDED_TO = (
    "audit_entry", "audit_checkpoint", "audit_cosig", "audit_tombstone", "audit_rule_change", "audit_sample",
    "audit_flag", "agreement_status",
)  # fmt: skip


@dataclass(frozen=True)
class Granted:
    """A migrated database with its roles: what a DBA sets up."""

    owner: str
    prefix: str

    @property
    def login(self) -> str:
        return make_url(self.owner).set(username=f"{self.prefix}_login").render_as_string()

    def as_(self, role: str) -> psycopg.Connection[Any]:
        """A connection of the login, or of one role alone."""
        parts = make_url(self.owner)
        user = f"{self.prefix}_login" if role == "login" else parts.username
        made = psycopg.connect(host=str(parts.query["host"]), user=user, dbname=parts.database, autocommit=True)
        if role in ROLES:
            made.execute(f"SET SESSION AUTHORIZATION {self.prefix}_{role}")
        return made

    def grant(self, **others: str) -> None:
        with self.as_("owner") as owner:
            owner.execute(grants(self.prefix, f"{self.prefix}_login", **others))

    def url(self, use: str) -> str:
        """The address of a login of its own."""
        return make_url(self.owner).set(username=f"{self.prefix}_{use}_login").render_as_string()


@pytest.fixture
def granted(postgres_server: str, migrated_postgres: str) -> Iterator[Granted]:
    prefix = f"b{secrets.token_hex(4)}"
    with a_database(postgres_server, template=migrated_postgres) as url:
        made = Granted(url, prefix)
        made.grant()
        yield made
    with psycopg.connect(postgres_server, autocommit=True) as owner:
        for name in ("login", "sequencer_login", "eraser_login", *ROLES):
            owner.execute(f"DROP ROLE IF EXISTS {prefix}_{name}")


def refused(connection: psycopg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


@pytest.mark.parametrize("role", ["login", *ROLES])
def test_no_role_of_a_broker_changes_or_deletes_what_is_only_added_to_36(granted: Granted, role: str) -> None:
    with granted.as_(role) as broker:
        for table in ADDED_TO:
            first = next(iter(metadata.tables[table].columns)).name
            refused(
                broker, f"UPDATE {table} SET {first} = {first}", f"DELETE FROM {table}", f"TRUNCATE {table}",
                f"ALTER TABLE {table} DISABLE TRIGGER ALL", f"DROP TABLE {table}",
            )  # fmt: skip
        for table in ("audit_event", "audit_tile", "audit_head", "audit_shard"):
            refused(broker, f"DELETE FROM {table}", f"TRUNCATE {table}", f"UPDATE {table} SET log_id = log_id")
        refused(
            broker, "DROP TRIGGER audit_entry_no_update ON audit_entry", "UPDATE audit_event SET t_ms = 0",
            "UPDATE audit_head SET epoch = 0", "CREATE TABLE of_mine ()", "SET session_replication_role = replica",
        )  # fmt: skip


def test_only_the_sequencer_adds_to_the_log_and_only_the_eraser_empties_it(granted: Granted) -> None:
    into = {
        "audit_entry": "INSERT INTO audit_entry VALUES ('l', 0, '', '', 'e')",
        "audit_checkpoint": "INSERT INTO audit_checkpoint VALUES ('l', 1, '', now())",
        "audit_head": "INSERT INTO audit_head VALUES ('l', 0, '', '', 0, 0)",
    }
    empty = ("UPDATE audit_event SET sections = NULL, detail = NULL", "DELETE FROM audit_key", "DELETE FROM audit_blob")
    with granted.as_("app") as app, granted.as_("sequencer") as sequencer, granted.as_("eraser") as eraser:
        refused(app, *into.values(), *empty, "DELETE FROM audit_outbox", "UPDATE audit_outbox SET at_ms = 0")
        refused(sequencer, *empty, "INSERT INTO audit_tombstone VALUES ('e', 'i', now())", "DELETE FROM item")
        refused(eraser, *into.values(), "DELETE FROM audit_outbox", "DELETE FROM item")
        for statement in into.values():
            sequencer.execute(statement)
        for statement in empty:
            eraser.execute(statement)


def test_the_head_only_grows_and_a_tile_only_widens_whoever_asks(granted: Granted) -> None:
    with granted.as_("sequencer") as sequencer:
        sequencer.execute("INSERT INTO audit_head VALUES ('l', 7, '', '', 0, 0)")
        sequencer.execute("INSERT INTO audit_tile VALUES ('l', 0, 0, 1, 'ab')")
        sequencer.execute("UPDATE audit_head SET size = 8")
        sequencer.execute("UPDATE audit_tile SET width = 2, data = 'abcd'")
        for rewritten in (
            "UPDATE audit_head SET size = 7", "UPDATE audit_tile SET data = 'xbcd'",
            "UPDATE audit_tile SET width = 1, data = 'ab'",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
                sequencer.execute(rewritten)


def test_an_emptied_event_is_not_filled_again(granted: Granted) -> None:
    with granted.as_("owner") as owner, granted.as_("eraser") as eraser:
        owner.execute(
            "INSERT INTO audit_event (event_id, log_id, seq, t_ms, type, op, org, actor_ref, role, purpose, case_hmac, "
            "outcome, break_glass, sections, detail) "
            "VALUES ('e', 'l', 0, 1, 't', 'o', '', '', '', '', '', '', false, 's', 'd')"
        )
        eraser.execute("UPDATE audit_event SET sections = NULL, detail = NULL, erased_at = now()")
        with pytest.raises(psycopg.errors.RaiseException, match="only added to"):
            eraser.execute("UPDATE audit_event SET sections = 'other'")


def test_granting_twice_does_no_harm_and_takes_back_what_was_given_beside(granted: Granted) -> None:
    with granted.as_("owner") as owner:
        owner.execute(f"GRANT DELETE ON audit_entry TO {granted.prefix}_app, {granted.prefix}_login")
    granted.grant()
    with granted.as_("login") as login:
        refused(login, "DELETE FROM audit_entry")


def test_the_command_prints_what_grants_and_a_name_to_be_quoted_is_wrong_usage() -> None:
    done = CliRunner().invoke(command, ["roles", "--login", "broker", "--prefix", "northshire"])
    assert (done.exit_code, done.stdout) == (0, grants("northshire", "broker"))
    with pytest.raises(Malformed):
        grants("x; DROP TABLE audit_entry", "broker")
    with pytest.raises(Malformed):
        grants("broker", "broker", eraser="broker")
    apart = CliRunner().invoke(command, ["roles", "--login", "b", "--sequencer-login", "s", "--eraser-login", "e"])
    assert apart.stdout == grants("broker", "b", sequencer="s", eraser="e")
    assert CliRunner().invoke(command, ["roles", "--login", 'a"b']).exit_code == 2


def test_with_three_logins_what_serves_neither_adds_to_the_log_nor_empties_it(
    granted: Granted, keys: Keys, tmp_path: Path
) -> None:
    granted.grant(sequencer=f"{granted.prefix}_sequencer_login", eraser=f"{granted.prefix}_eraser_login")
    with granted.as_("login") as login:
        refused(
            login, "INSERT INTO audit_entry VALUES ('l', 0, '', '', 'e')", "DELETE FROM audit_key",
            "UPDATE audit_event SET sections = NULL", "DELETE FROM audit_outbox",
        )  # fmt: skip
    owner = Store(granted.owner)
    signers = opened(owner, tmp_path)
    store = Store(granted.login, others={use: granted.url(use) for use in ("sequencer", "eraser")})
    trail, kept = Trail(store, keys, signers), Tombstones(tmp_path)
    event = looked(store, trail, CHILD)
    trail.receipt(EntryRef(event))
    rotate(trail, who=WHO, at=AT)
    stuck = looked(store, trail, "person-3")  # under a key that does not open: given up by the sequencer's login
    with owner.transaction() as tx:
        tx.connection.exec_driver_sql(
            "UPDATE audit_outbox SET key_wrapped = %s WHERE event_id = %s", (bytes(60), stuck)
        )
    with pytest.raises(LogUnavailable, match="unstick"):
        trail.advance_pending()
    unsticking.give_up(store, trail, stuck, who=WHO, at=AT)
    trail.advance_pending()
    assert unsticking.held_up(store, keys) == ()
    assert [(one.use, one.appends, one.erases, one.owns) for one in logins(store)] == [
        ("app", False, False, False), ("sequencer", True, False, False), ("eraser", True, True, False),
    ]  # fmt: skip
    assert "BUT" not in _logins(logins(store))

    without = Store(granted.login, others={"sequencer": granted.url("sequencer")})  # as `broker serve` may be
    one = erasure.propose(
        without, Trail(without, keys, signers), keys, officer(), ids=[CHILD], authority="court_order", at=AT
    )
    with pytest.raises(StoreUnavailable, match="login may not"):
        erasure.approve(
            without, Trail(without, keys, signers), keys, kept, officer("ig-2"), erasure=one.answer.erasure, at=AT
        )
    assert trail.opening(event, show=("who",)).body("who")
    assert kept.read() == ()
    assert "nobody is erased from here" in _logins(logins(without))
    done = erasure.approve(store, trail, keys, kept, officer("ig-2"), erasure=one.answer.erasure, at=AT)
    assert done.answer.counts["events"] == 1
    retention.run(store, trail, LogRetention(), dict, who=WHO, at=AT)

    granted.grant()  # and back to one
    assert [(one.use, one.appends, one.erases) for one in logins(Store(granted.login))] == [("app", True, True)]
    assert "one login" in _logins(logins(Store(granted.login)))
    assert "BUT" in _logins(logins(store))  # another login is named, and this one may still do it all
    for each in (owner, store, without):
        each.close()


# --- A whole broker under that login ---------------------------------------------------------------------------------


@dataclass
class OnPostgres(Area):
    """An area whose broker keeps its tables in PostgreSQL; the owner sets up, and the login does the rest."""

    granted: Granted

    @cached_property
    def settings(self) -> Settings:
        return Settings(
            environment="production", partnership=PARTNERSHIP, base_url=BASE_URL, data_dir=self.folder / "data",
            database_url=SecretStr(self.granted.login), signer="inline", linger_ms=0, pace_ms=0,
        )  # fmt: skip

    def open(self, settings: Settings) -> None:
        open_installation(settings.model_copy(update={"database_url": SecretStr(self.granted.owner)}))
        self.granted.grant()

    def config(self, url: str) -> Path:
        """A broker.toml for commands."""
        file = self.folder / "broker.toml"
        file.write_text(
            f'environment = "production"\npartnership = "{PARTNERSHIP}"\nbase_url = "{BASE_URL}"\nsigner = "inline"\n'
            f'data_dir = "{self.folder / "data"}"\ndatabase_url = "{url}"\n'
        )
        return file


@pytest.fixture
def area(granted: Granted, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnPostgres]:
    made = OnPostgres(tmp_path / "northshire", granted)
    made.folder.mkdir()
    monkeypatch.setattr("tests.builders_area.open_installation", made.open)
    made.install()
    yield made
    made.broker.trail.stop()
    made.close()


@pytest.fixture
def clock() -> Iterator[Clock]:
    with the_time(NIGHT) as made:
        yield made


def by_command(area: OnPostgres, url: str) -> Callable[..., Any]:
    def run(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(command, [*arguments, "--config", str(area.config(url)), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run


def test_a_broker_serves_links_turns_erases_and_expires_under_the_login_alone(area: OnPostgres) -> None:
    broker, granted = area.broker, area.granted
    with granted.as_("login") as login:
        assert login.execute("SELECT bool_or(tableowner = session_user) FROM pg_tables").fetchone() == (False,)
    broker.trail.start()
    area.push(extracts())
    assert area.link()["state"] == "published"
    view = area.asker().view(ROBIN.typed(), case="E1")
    rotate(broker.trail, who=WHO, at=broker_clock.now())
    run = by_command(area, granted.login)
    assert run("nightly", "--date", "2026-11-23")["state"] == "unchanged"

    body = view["receipt"]["opening"]["what"]["body"]
    with broker.store.reading() as reading:
        person = reading.all(SearchCandidateRow, search=str(body["search"]))[0].person_id
    proposed = run("subjects", "erase", person, "--by", "ig-1", "--authority", "court_order")["erasure"]
    done = run("subjects", "approve", proposed, "--by", "ig-2")
    assert (done["state"], done["purged"]) == ("erased", False)
    assert done["counts"]["withheld"] > 0
    assert run("subjects", "purge", "--by", "ig-1", code=1) == {"purged": False}  # the tables are the owner's
    assert by_command(area, granted.owner)("subjects", "purge", "--by", "ig-1") == {"purged": True}
    assert run("subjects", "retention", "--by", "ig-1")["purged"] is False
    next_year = broker_clock.now().replace(year=broker_clock.now().year + 1)
    assert turn(broker.trail, broker.settings.log_base, who=WHO, at=next_year) is not None
    status = run("log", "status")
    assert [shard["state"] for shard in status["shards"]] == ["closed", "open"]
    assert [login["use"] for login in status["database"]["logins"]] == ["app"]

"""Transactions: durable, whole, one at a time where they must be."""

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import StatementError

from broker.errors import Conflict, NestedTransaction, StoreUnavailable, UnsafeDatabase
from broker.store import Store
from broker.store.sessions import SpentTokenRow

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)


def a_row(name: str = "a", *, at: datetime = AT) -> SpentTokenRow:
    return SpentTokenRow(issuer="northshire-icb", use="test", jti_sha256=name, expires_at=at)


def test_what_was_written_is_there_after_leaving(store: Store) -> None:
    with store.transaction() as tx:
        tx.add(a_row())
    with store.reading() as reading:
        found = reading.one(SpentTokenRow, jti_sha256="a")
    assert found is not None
    assert found.expires_at == AT


def test_a_raise_leaves_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.add(a_row())
        tx.flush()
        raise RuntimeError
    with store.reading() as reading:
        assert reading.all(SpentTokenRow) == []


def test_an_instant_keeps_its_zone_and_a_naive_one_is_refused(store: Store) -> None:
    in_tokyo = AT.astimezone(timezone(timedelta(hours=9)))
    with store.transaction() as tx:
        tx.add(a_row(at=in_tokyo))
    with store.reading() as reading:
        (found,) = reading.all(SpentTokenRow)
    assert found.expires_at == AT
    assert found.expires_at.tzinfo is not None
    with pytest.raises(StatementError), store.transaction() as tx:
        tx.add(a_row("b", at=AT.replace(tzinfo=None)))
        tx.flush()


def test_a_key_that_is_taken_is_a_conflict(store: Store) -> None:
    with store.transaction() as tx:
        tx.add(a_row())
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.add(a_row())


def test_a_reading_can_not_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable), store.reading() as reading:
        reading.session.add(a_row())
        reading.session.flush()


def test_a_transaction_inside_another_is_a_fault_and_not_a_deadlock(store: Store) -> None:
    with store.transaction(), pytest.raises(NestedTransaction), store.transaction():
        pass


def test_questions_by_equality_any_of_null_order_and_limit(store: Store) -> None:
    with store.transaction() as tx:
        tx.add(*(a_row(name, at=AT + timedelta(hours=hours)) for hours, name in enumerate("abc")))
    with store.reading() as reading:
        assert [row.jti_sha256 for row in reading.all(SpentTokenRow, order=("-expires_at",), limit=2)] == ["c", "b"]
        assert len(reading.all(SpentTokenRow, jti_sha256=("a", "c"), use="test")) == 2
        assert reading.all(SpentTokenRow, jti_sha256=()) == []
        with pytest.raises(ValueError, match="more than one"):
            reading.one(SpentTokenRow, use="test")
    with store.transaction() as tx:
        assert tx.delete_before(SpentTokenRow, "expires_at", AT + timedelta(hours=2)) == 2


def test_many_writers_all_get_their_turn(store: Store) -> None:
    def write(writer: int) -> None:
        for turn in range(20):
            with store.transaction() as tx:
                tx.add(a_row(f"{writer}-{turn}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.reading() as reading:
        assert len(reading.all(SpentTokenRow)) == 160


def test_every_connection_of_sqlite_is_durable(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/x.db")
    connections = [store.engine.raw_connection() for _ in range(4)]
    for connection in connections:
        due = {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
        assert {name: connection.cursor().execute(f"PRAGMA {name}").fetchone()[0] for name in due} == due
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("where", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(where: str) -> None:
    with pytest.raises(UnsafeDatabase):
        Store(where)


def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    store = Store(f"postgresql+psycopg://nobody@/nowhere?host={tmp_path}")
    with pytest.raises(StoreUnavailable) as raised, store.transaction():
        pass
    assert "the database can't be reached" in str(raised.value)
    assert "nobody" not in str(raised.value)

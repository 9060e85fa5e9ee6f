"""The schema goes forward and back, and is that of the tables, on both databases."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from broker.store import Store, migrate


def test_upgrade_check_downgrade_upgrade(url: str) -> None:
    store = Store(url)
    migrate.upgrade(store)
    assert migrate.at_head(store)
    assert migrate.differences(store) == []
    migrate.downgrade(store, "base")
    assert not migrate.at_head(store)
    migrate.upgrade(store)
    assert migrate.at_head(store)
    store.close()


def test_rounds_held_before_the_log_had_shards_are_of_the_one_log_there_was(url: str) -> None:
    store = Store(url)
    migrate.upgrade(store, "0005")
    with store.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO audit_head (log_id, size, frontier, root, last_ms, epoch) VALUES ('first', 7, :b, :b, 1, 1)"
            ),
            {"b": b"x"},
        )
        connection.execute(
            text("INSERT INTO consideration_round (slot, through, event_id) VALUES (:at, 7, 'e')"),
            {"at": datetime(2026, 11, 22, 9, 0, tzinfo=UTC)},
        )
    migrate.upgrade(store)
    assert migrate.differences(store) == []
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT log_id, through FROM consideration_round")).all() == [("first", 7)]
    store.close()


def test_going_back_refuses_where_it_would_lose_the_first_lines_of_samples(url: str) -> None:
    store = Store(url)
    migrate.upgrade(store)
    insert = "INSERT INTO audit_cosig (log_id, size, witness, t_s, line, first_t_s, first_line) VALUES ('l', 1, :w, 2, 'b', 1, :first)"
    with store.engine.begin() as connection:
        for witness, first in (("w0", "b"), ("w1", "a")):
            connection.execute(text(insert), {"w": witness, "first": first})
    with pytest.raises(RuntimeError, match="1 cosignatures"):
        migrate.downgrade(store, "0015")
    with store.engine.begin() as connection:
        assert connection.execute(text("SELECT first_line FROM audit_cosig ORDER BY witness")).scalars().all() == [
            "b",
            "a",
        ]
        connection.execute(text("DELETE FROM audit_cosig WHERE witness = 'w1'"))
    migrate.downgrade(store, "0015")
    migrate.upgrade(store)
    with store.engine.connect() as connection:
        assert connection.execute(text("SELECT first_line FROM audit_cosig")).scalars().all() == ["b"]
    store.close()


def test_the_logs_rows_are_only_added_to_36(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO audit_entry (log_id, seq, leaf, leaf_hash, event_id) VALUES ('l', 0, :b, :b, 'e')"),
            {"b": b"x"},
        )
    changes = ["DELETE FROM audit_entry", "UPDATE audit_entry SET seq = 7"]
    if not store.sqlite:
        changes += [f"TRUNCATE audit_{table} CASCADE" for table in ("entry", "event", "checkpoint", "head", "tile")]
    for change in changes:
        with pytest.raises(DBAPIError, match="only added to"), store.engine.begin() as connection:
            connection.execute(text(change))

"""Statements of our own: what they write and read is what SQLAlchemy would, whatever became of the connection before."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import inspect, text

from broker.errors import Conflict, StoreUnavailable
from broker.store import Store
from broker.store.agencies import AgencyRow
from broker.store.items import MANY, ItemRow, in_bulk, insert_items, kept_schema
from broker.store.log import FlagRow, OutboxRow, ReviewRow
from broker.store.sessions import SpentTokenRow
from broker.store.statements import Statement

AT = datetime(2026, 11, 2, 9, 30, 0, 120, tzinfo=UTC)
TOKEN = {"issuer": "a", "use": "work", "expires_at": AT}
OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
COUNT = Statement("SELECT count(*) AS many FROM spent_token")

OUTBOX: dict[str, Any] = {
    "event_id": "e" * 32, "idem_key": None, "at_ms": 1_762_075_800_000, "commitment": b"\0\1\xff" * 8, "sole": "",
    "columns": {"type": "search.authorised", "name": "Zoë ✓", "nothing": None}, "sections": b"", "detail": b"\\x00",
    "subjects": ["a", 'b"\\'], "key_wrapped": None,
}  # fmt: skip


def spend(store: Store, *ids: str) -> None:
    with store.transaction() as tx:
        for one in ids:
            tx.insert(SpentTokenRow, {**TOKEN, "jti_sha256": one})


def spent(store: Store) -> int:
    with store.reading() as reading:
        return int(reading.run(COUNT).scalar())


def test_a_row_of_columns_reads_back_as_it_was_given_whichever_way_it_went_in(store: Store) -> None:
    flag = {"id": "f", "event_id": "e", "rule": "r", "raised_at": AT, "version": 3, "figures": {"n": 2}, "recorded": ""}
    review = {
        "id": "v", "event_id": "e", "reviewer": "p", "decision": "d", "at": AT, "recorded": "", "signed_off_by": None,
        "signed_off_at": None, "second": "",
    }  # fmt: skip
    given: list[tuple[type[Any], dict[str, Any]]] = [(OutboxRow, OUTBOX), (FlagRow, flag), (ReviewRow, review)]
    with store.transaction() as tx:
        for row, values in given:
            tx.insert(row, values)
    with store.reading() as reading:
        for row, values in given:
            (kept,) = reading.all(row)
            assert {name: getattr(kept, name) for name in values} == values


def test_values_come_back_as_their_types(store: Store) -> None:
    with store.transaction() as tx:
        tx.insert(OutboxRow, OUTBOX)
        row = tx.run(
            Statement("SELECT event_id, idem_key, at_ms, commitment FROM audit_outbox WHERE at_ms > :than"), than=-1
        ).one_or_none()
    assert (row.event_id, row.idem_key, row.at_ms, row.commitment) == tuple(OUTBOX[name] for name in row._fields)


def test_an_instant_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="time zone"), store.transaction() as tx:
        tx.insert(SpentTokenRow, {**TOKEN, "jti_sha256": "x", "expires_at": AT.replace(tzinfo=None)})
    assert spent(store) == 0


def test_text_that_postgresql_can_not_keep_is_refused_whole(store: Store) -> None:
    if store.sqlite:
        return
    with pytest.raises(StoreUnavailable):
        spend(store, "cut\0short")
    assert spent(store) == 0


def test_what_was_left_for_later_is_there_for_whoever_reads_next_and_goes_with_a_rollback(store: Store) -> None:
    later = Statement("DELETE FROM spent_token")
    spend(store, "a", "b")
    with store.transaction() as tx:
        tx.later(later.of())
        assert tx.all(SpentTokenRow) == []
        tx.insert(SpentTokenRow, {**TOKEN, "jti_sha256": "c"})
    assert spent(store) == 1
    with pytest.raises(RuntimeError), store.transaction() as tx:
        tx.later(later.of())
        raise RuntimeError
    assert spent(store) == 1


def test_a_taken_key_is_a_conflict_and_nothing_of_its_transaction_stays(store: Store) -> None:
    spend(store, "a")
    with pytest.raises(Conflict):
        spend(store, "b", "a")
    assert spent(store) == 1


def test_what_the_driver_threw_away_is_prepared_anew(store: Store) -> None:
    spend(store, "a")
    for number in range(12):  # psycopg prepares what is asked often, and throws all away when it rolls back
        with store.transaction() as tx:
            assert tx.one(AgencyRow, id="nobody") is None
            tx.insert(SpentTokenRow, {**TOKEN, "jti_sha256": f"b{number}"})
        with pytest.raises(Conflict):
            spend(store, f"c{number}", "a")
        with pytest.raises(RuntimeError), store.transaction() as tx:
            tx.all(AgencyRow)
            raise RuntimeError
        spend(store, f"d{number}")
    assert spent(store) == 25


def test_a_reader_writes_nothing(store: Store) -> None:
    spend(store, "a")
    with pytest.raises(StoreUnavailable), store.reading() as reading:
        reading.run(Statement("DELETE FROM spent_token"))
    assert spent(store) == 1


def test_a_connection_that_the_server_ended_is_one_fault_and_then_made_anew(store: Store) -> None:
    if store.sqlite:
        return
    spend(store, "a")
    with store.reading() as one, store.reading() as other:  # several lie in the pool
        one.run(COUNT), other.run(COUNT)
    with store.engine.connect() as last:
        last.execute(text(OTHERS))
    with pytest.raises(StoreUnavailable):
        spend(store, "b")
    spend(store, "c", "d")
    assert spent(store) == 3


def test_what_is_the_same_in_every_row_is_kept_as_it_is_whatever_it_holds(store: Store) -> None:
    same = {"issuer": "o'Neil", "use": "a\", '); DROP TABLE spent_token; -- \u00e9", "expires_at": AT.isoformat()}
    refs = pa.record_batch([pa.array(["x", "y'"], pa.string())], names=["jti_sha256"])
    if not store.sqlite:
        del same["expires_at"]  # COPY is told text, bytes and days alone
        with store.transaction() as tx:
            tx.connection.exec_driver_sql("ALTER TABLE spent_token ALTER expires_at SET DEFAULT now()")
    with store.transaction() as tx:
        tx.copy("spent_token", same, [refs])
        rows = tx.connection.exec_driver_sql('SELECT issuer, "use", jti_sha256 FROM spent_token ORDER BY 3').all()
    assert [tuple(row) for row in rows] == [(same["issuer"], same["use"], ref) for ref in ("x", "y'")]


def test_a_key_that_is_taken_refuses_all_rows_that_were_copied(store: Store) -> None:
    refs = pa.record_batch([pa.array(["council", "icb", "icb"], pa.string())], names=["jti_sha256"])
    if not store.sqlite:
        with store.transaction() as tx:
            tx.connection.exec_driver_sql("ALTER TABLE spent_token ALTER expires_at SET DEFAULT now()")
    same = {"issuer": "a", "use": "work", **({"expires_at": AT.isoformat()} if store.sqlite else {})}
    with pytest.raises(Conflict), store.transaction() as tx:
        tx.copy("spent_token", same, [refs])
    assert spent(store) == 0
    spend(store, "a")  # the connection goes on


def test_items_read_back_as_they_went_in_many_at_once(store: Store) -> None:
    days = [date(1999, 12, 31), None, date(2000, 1, 1), date(2026, 11, 22)]
    refs = [f"{number:064x}" for number in range(len(days))]
    columns = [refs, refs, ["education.enrolment"] * 4, days, days[::-1], [None] * 4, [b"\0", b"", b"x" * 300, b"\xff"]]
    items = pa.record_batch(
        [pa.array(column, kind) for column, kind in zip(columns, kept_schema().types, strict=True)],
        schema=kept_schema(),
    )
    with store.transaction() as tx:
        if store.sqlite:
            tx.connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # no batch is here
        else:
            tx.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        insert_items(tx, [items.slice(0, 3), items.slice(3), items.slice(0, 0)], agency="a", flow="f", batch="b")
        rows = tx.all(ItemRow, order=("item_ref",))
        assert [(row.item_ref, row.occurred_on, row.recorded_on, row.retain_until, row.sealed) for row in rows] == [
            *zip(refs, days, days[::-1], [None] * 4, columns[-1], strict=True)
        ]
        tx.run(Statement("DELETE FROM item"))


@pytest.mark.parametrize("fails", [False, True])
def test_when_many_items_went_in_or_did_not_every_index_is_as_it_was(store: Store, fails: bool) -> None:
    def indexes() -> list[str]:
        return sorted(map(str, inspect(store.engine).get_indexes("item")))

    before = indexes()
    with suppress(RuntimeError), store.transaction() as tx:
        if store.sqlite:  # as who looks at a schema does: the connection has a temporary database from then on
            tx.connection.exec_driver_sql("SELECT * FROM sqlite_temp_master").all()
        with in_bulk(tx, MANY):
            if fails:
                raise RuntimeError
    assert indexes() == before != []
    with store.transaction() as tx, in_bulk(tx, MANY):
        aside = tx.sqlite and "ix_item_record" not in str(inspect(tx.connection).get_indexes("item"))
        assert aside == store.sqlite

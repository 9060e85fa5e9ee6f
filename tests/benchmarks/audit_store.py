"""The log's tables at a million events: who saw one child, that child erased, and a night on which nothing expires.

The bar of the subject's report is 50 ms.  Its peer is the floor measured in the same run: the same rows fetched by their
keys, and their bodies decrypted, which any report of what was sealed must do.
"""

from __future__ import annotations

import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from audit.events import Event, seal
from broker import access, retention
from broker.keys import Keys
from broker.settings import LogRetention
from broker.store import Reading, Store, migrate
from broker.store.erasing import bodies_before, empty_subject
from broker.store.event_keys import EventKeys, new_event_key, open_body, seal_body
from broker.store.log import EventRow
from tests.benchmarks import audit_search
from tests.benchmarks.sizes import sized

TOPIC = "audit"
EVENTS = sized(1_000_000, 20_000)
CHILDREN = EVENTS // 4
SUBJECTS = ((20, "a child with 20 events"), (200, "a child with 200 events"))
BODY = bytes(420)  # what six salted sections of a disclosure come to, sealed
LOG = "broker.example/audit/2026"
START_MS = 1_790_000_000_000
STEP_MS = 30_000
AT = datetime(2027, 9, 30, tzinfo=UTC)
RUNS = 15

Row = dict[str, object]


def rows() -> Iterator[Row]:
    """The rows of `make bench ONLY=audit`."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys.make(Path(folder) / "keys")
        store = Store(f"sqlite:///{folder}/log.sqlite")
        migrate.upgrade(store)
        began = time.process_time()
        _fill(Path(folder) / "log.sqlite")
        whom = {count: f"child-{count}" for count, _ in SUBJECTS}
        ids = {count: _child(store, keys, whom[count], count) for count in whom}
        print(f"  {EVENTS:,} events made in {time.process_time() - began:.0f} s", flush=True)
        for count, words in SUBJECTS:
            with store.reading() as reading:
                ours = _median(lambda r=reading, c=count: len(access.ledger(r, keys, [whom[c]])))
                floor = _median(lambda r=reading, c=count: _floor(r, keys, ids[c]))
                assert len(access.ledger(reading, keys, [whom[count]])) == count
            yield _row(
                f"subject's report, {words}, at {EVENTS:,} (p50)", ours, floor, "fetched by key, decrypted", 50.0
            )
        with store.reading() as reading:
            cuts = [(START_MS - 1, ["search.authorised", "disclosure.authorised", "auth.login"])]
            nothing = _median(lambda r=reading: len(bodies_before(r, cuts)))
        assert retention.kept_years(LogRetention(), "disclosure.authorised") == 7
        yield _row(f"what is due to expire, where nothing is, at {EVENTS:,} (p50)", nothing, None, None, 50.0)
        _child(store, keys, "child-searched", 120)
        yield from audit_search.rows(store, keys, child="child-searched", events=EVENTS)
        start = time.process_time()
        with store.transaction() as tx:
            gone = empty_subject(tx, keys, frozenset({keys.subject_index(whom[200])}), under="e" * 32, at=AT)
        assert gone.events == 200
        yield _row(
            f"erase a child with 200 events, at {EVENTS:,}", (time.process_time() - start) * 1e3, None, None, None
        )
        store.close()


def _fill(database: Path) -> None:
    """A million events about a quarter of a million children, as the tables hold them."""
    with sqlite3.connect(database, isolation_level=None) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        types = ("search.authorised", "disclosure.authorised", "search.completed", "auth.login")
        db.executemany(
            "INSERT INTO audit_event (event_id, log_id, seq, t_ms, type, op, org, actor_ref, role, purpose, case_hmac,"
            " outcome, break_glass, sections, detail) VALUES (?, ?, ?, ?, ?, 'consultation', ?, ?, 'MASH_ANALYST',"
            " 'S47', ?, 'shown', 0, ?, ?)",
            (
                (
                    f"{seq:032x}", LOG, seq, START_MS + seq * STEP_MS, types[seq % 4], f"agency-{seq % 40}",
                    f"p-{seq % 3000}", f"case-{seq // 5}", BODY, BODY[:90],
                )
                for seq in range(EVENTS)
            ),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO audit_key (event_id, wrapped, subject) VALUES (?, ?, '')",
            ((f"{seq:032x}", BODY[:60]) for seq in range(EVENTS)),
        )
        db.executemany(
            "INSERT INTO audit_subject (idx_hmac, log_id, seq) VALUES (?, ?, ?)",
            (
                (secrets.token_hex(4) + f"{(seq * 7919 + each) % CHILDREN:056x}", LOG, seq)
                for seq in range(EVENTS)
                for each in range(1 + (seq % 3 == 0))
            ),
        )
        db.execute("COMMIT")


def _child(store: Store, keys: Keys, person: str, count: int) -> list[str]:
    """Make so many of the events, spread over the whole log, real ones about one child; their ids."""
    made = []
    with store.transaction() as tx:
        for number in range(count):
            seq = (number * EVENTS) // count + count % 7
            event_id = f"{seq:032x}"
            event = Event(
                id=event_id, type="disclosure.authorised",
                who={"organisation": "northshire-icb", "person": "p-17", "role": "MASH_ANALYST", "session": "s-4"},
                what={"outcome": "disclosed", "view": event_id, "categories": {"northshire-council": {
                    "education.attendance": "status", "social_care.child_in_need": "existence"}}},
                why={"purpose": "S47", "case": "c" * 64, "clauses": ["northshire-mash@3.0.0#attendance"]},
                subjects=[person], recipients=[{"organisation": "northshire-icb", "person": "p-17"}],
                detail={"hidden": {}, "looked_at": "d" * 64},
            )  # fmt: skip
            sealed = seal(event, at_ms=START_MS + seq * STEP_MS)
            row = tx.one(EventRow, event_id=event_id)
            assert row is not None
            tx.session.connection().exec_driver_sql("DELETE FROM audit_key WHERE event_id = ?", (event_id,))
            tx.session.connection().exec_driver_sql("DELETE FROM audit_subject WHERE seq = ?", (seq,))
            key = new_event_key(tx, keys, event_id, subject=keys.subject_index(person))
            row.sections, row.detail = seal_body(key, event_id, sealed.opening(tuple(sealed.sections)))
            tx.add(row)
            tx.session.connection().exec_driver_sql(
                "INSERT INTO audit_subject (idx_hmac, log_id, seq) VALUES (?, ?, ?)",
                (keys.subject_index(person), LOG, seq),
            )
            made.append(event_id)
    return made


def _floor(reading: Reading, keys: Keys, ids: list[str]) -> int:
    """The rows by their keys, each decrypted and parsed."""
    found = reading.all(EventRow, event_id=ids)
    opened = EventKeys.of(reading, keys, ids)
    for row in found:
        key = opened.get(row.event_id)
        assert key is not None
        open_body(key, row.event_id, row.sections or b"", row.detail or b"")
    return len(found)


def _row(claim: str, ours: float, peer: float | None, name: str | None, limit: float | None) -> Row:
    ratio = None if peer is None else peer / ours
    held = None if limit is None else ours < limit
    goal = None if limit is None else f"under {limit:g} ms"
    return {
        "claim": claim, "ours": ours, "peer": peer, "peer_name": name, "ratio": ratio, "goal": goal, "held": held,
        "unit": "ms",
    }  # fmt: skip


def _median(work: Callable[[], object]) -> float:
    """Milliseconds of processor time: one thread works here, and a busy neighbour should not count."""
    taken = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        taken.append((time.process_time() - start) * 1e3)
    return statistics.median(taken)

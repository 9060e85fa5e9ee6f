"""The one way in: a transaction that commits on leaving, durably, or leaves nothing behind."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Connection, Engine, delete, event, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session, col, create_engine, select
from sqlmodel.sql.expression import SelectOfScalar

from broker.errors import Conflict, NestedTransaction, StoreFull, StoreUnavailable, UnsafeDatabase
from broker.store.columns import Row
from broker.store.durability import durable
from broker.store.inserting import insertion
from broker.store.statements import Answer, Asked, Statement, asked, copied

if TYPE_CHECKING:  # loaded where a batch is kept: what only asks never waits for it
    import pyarrow as pa

T = TypeVar("T", bound=Row)
BUSY_MS: Final = 5_000
POOL: Final = 20  # connections to PostgreSQL that are kept, and as many again when all are in use
IDLE_SECONDS: Final = 5
SYNCHRONOUS_FULL: Final = 2
POSTGRESQL_DISK_FULL: Final = ("53100", "58030")  # disk_full, io_error


class Reading:
    """A consistent look at the tables.  What it is given to write, the database refuses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: Session | None = None

    @property
    def connection(self) -> Connection:
        """For the statements of `broker.store`; nobody else can use it without SQLAlchemy."""
        return self._connection

    @property
    def session(self) -> Session:
        """The same, for rows as objects; made when it is first asked for, as much needs none."""
        if self._session is None:
            self._session = Session(self.connection, expire_on_commit=False)
        return self._session

    @property
    def sqlite(self) -> bool:
        """Whether this is SQLite."""
        return self._connection.dialect.name == "sqlite"

    def ask(self, *questions: Asked) -> list[Answer]:
        """The answers to statements, in their order; on PostgreSQL in one round trip."""
        return asked(self._connection, questions)

    def run(self, statement: Statement, **values: Any) -> Answer:
        """Run one statement."""
        return self.ask(statement.of(**values))[0]

    def close(self, *, flush: bool) -> None:
        """Give up the rows' objects, written first if `flush`; the transaction itself is its owner's to end."""
        if self._session is not None:
            if flush:
                self._session.flush()
            self._session.close()

    def one(self, row: type[T], **where: Any) -> T | None:
        """The row whose columns equal `where`, or None.  Raises ValueError if several do."""
        found = self.all(row, limit=2, **where)
        if len(found) > 1:
            raise ValueError(f"{row.__name__}: more than one row answers")
        return found[0] if found else None

    def all(self, row: type[T], *, order: Sequence[str] = (), limit: int | None = None, **where: Any) -> list[T]:
        """Rows whose columns equal `where` (a tuple or list: any of it); `order` names columns, `-name` descending."""
        query = _selecting(row, order, where)
        return list(self.session.exec(query.limit(limit) if limit is not None else query))


def _selecting(row: type[T], order: Sequence[str], where: Mapping[str, Any]) -> SelectOfScalar[T]:
    query = select(row)
    for name, value in where.items():
        column = col(getattr(row, name))
        if isinstance(value, tuple | list | set | frozenset):
            query = query.where(column.in_(value))
        else:
            query = query.where(column.is_(None) if value is None else column == value)
    for name in order:
        column = col(getattr(row, name.removeprefix("-")))
        query = query.order_by(column.desc() if name.startswith("-") else column.asc())
    return query


class Transaction(Reading):
    """A unit of work.  It holds the write lock of SQLite from its first moment; helpers never commit."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._later: list[Asked] = []
        self._wired = False

    def locked(self, row: type[T], *, order: Sequence[str] = (), **where: Any) -> list[T]:
        """As `all`, for who decides on these rows: another who does so waits for this transaction's end, and finds them
        decided.  On SQLite one transaction writes at a time.
        """
        query = _selecting(row, order, where).with_for_update()
        return list(self.session.exec(query, execution_options={"populate_existing": True}))

    def locked_one(self, row: type[T], **where: Any) -> T | None:
        """As `one`, and locked."""
        found = self.locked(row, **where)
        if len(found) > 1:
            raise ValueError(f"{row.__name__}: more than one row answers")
        return found[0] if found else None

    @property
    def connection(self) -> Connection:
        """As Reading says; what was left for later has run."""
        if self._later:
            self.ask()
        return self._connection

    @property
    def session(self) -> Session:
        """As Reading says; what was left for later has run."""
        if self._later:
            self.ask()
        return super().session

    def ask(self, *questions: Asked) -> list[Answer]:
        """As Reading says; after what was left for later."""
        before, self._later = self._later, []
        self._wired = not self.sqlite
        return asked(self._connection, (*before, *questions))[len(before) :]

    def copy(self, table: str, same: Mapping[str, str], rows: Iterable[pa.RecordBatch]) -> None:
        """Insert many rows; the columns that are the `same` in all of them are given once."""
        copied(self.connection, table, same, rows)

    def later(self, question: Asked) -> None:
        """Run a statement together with the next, or with the commit: its answer is not asked for, but it may fail."""
        if self.sqlite:
            self.ask(question)  # there is no round trip to be spared
        else:
            self._later.append(question)

    def close(self, *, flush: bool) -> None:
        """As Reading says; what was left for later runs, and PostgreSQL commits with it."""
        super().close(flush=flush)
        if flush and (self._later or self._wired):
            asked(self._connection, self._later, last=True)

    def add(self, *rows: Row) -> None:
        """Rows to be inserted, or changed rows; written at the next query or at the end."""
        self.session.add_all(rows)

    def insert(self, row: type[Row], *values: Mapping[str, Any]) -> None:
        """Insert rows given as their columns, at once and all of them: what is written often spares itself objects.

        Raises Conflict if a unique key is taken.
        """
        if not values:
            return
        try:
            if len(values) == 1 and (plain := insertion(row, values[0], sqlite=self.sqlite)) is not None:
                self.ask(plain)
            else:
                self.connection.execute(insert(row), list(values))
        except IntegrityError:
            raise Conflict("a row with this key is there already") from None

    def upsert(self, row: type[Row]) -> sqlite.Insert | postgresql.Insert:
        """An insert that may say what to do where the key is taken; the two databases spell that alike."""
        made = sqlite.insert if self.sqlite else postgresql.insert
        return made(row)

    def delete(self, *rows: Row) -> None:
        """Rows to be deleted."""
        for row in rows:
            self.session.delete(row)

    def delete_before(self, row: type[Row], column: str, at: datetime) -> int:
        """Delete the rows whose `column` is earlier than `at`; how many went."""
        gone = self.session.exec(delete(row).where(col(getattr(row, column)) < at))
        return int(gone.rowcount)

    def flush(self) -> None:
        """Write what waits.  Raises Conflict if a unique key is taken."""
        try:
            self.session.flush()
        except IntegrityError:
            raise Conflict("a row with this key is there already") from None


class Store:
    """The operational database: SQLite (one file, WAL, FULL) or PostgreSQL."""

    def __init__(self, url: str, *, others: Mapping[str, str] | None = None, standby: bool = False) -> None:
        """`others`: URLs of the same database under other logins, by what they do (`broker.store.roles`).  `standby`:
        PostgreSQL must keep a synchronous one.
        """
        self.url = url
        self.engine = _engine(url, standby=standby)
        self.others = {use: _engine(other, standby=standby) for use, other in (others or {}).items()}
        self.sqlite = self.engine.dialect.name == "sqlite"
        snapshot = {} if self.sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._writing = self.engine.execution_options(read_only=False)
        self._reading = self.engine.execution_options(read_only=True, **snapshot)
        self.full: Callable[[], None] = _nothing  # called when a write found no room
        self.before: Callable[[], None] = _nothing  # called before a write transaction begins
        self._writer = threading.Lock()  # SQLite's own waiting is unfair: in one process, take turns
        self._mine = threading.local()

    @contextmanager
    def transaction(self, use: str = "") -> Iterator[Transaction]:
        """A write transaction: commits on leaving, rolls back on a raise.  `use`: under the login of that, if there is.

        On return the commit is on disk.  Raises Conflict if a unique key was taken, StoreUnavailable if the database
        can't be reached, StoreFull if it has no room, NestedTransaction if this thread holds one already.
        """
        if getattr(self._mine, "held", False):
            raise NestedTransaction("this thread is inside a transaction already")
        self.before()
        if self.sqlite:
            self._writer.acquire()
        self._mine.held = True
        try:
            engine = self.others[use].execution_options(read_only=False) if use in self.others else self._writing
            with self._begun(engine) as connection:
                tx = Transaction(connection)
                try:
                    yield tx
                    tx.close(flush=True)
                except BaseException:
                    tx.close(flush=False)
                    raise
        finally:
            self._mine.held = False
            if self.sqlite:
                self._writer.release()

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """A read-only transaction: one consistent snapshot, never waiting for a writer."""
        with self._begun(self._reading) as connection:
            reading = Reading(connection)
            try:
                yield reading
            finally:
                reading.close(flush=False)

    def purge(self, tables: Sequence[type[Row]] = ()) -> bool:
        """Leave no byte of deleted rows in the files: SQLite is written anew; PostgreSQL writes `tables` anew.

        Whoever else writes waits meanwhile.  False if a reader kept SQLite's journal from being emptied: try again
        later.  PostgreSQL gives up the journal so far where this user may have it do so (pg_switch_wal, CHECKPOINT):
        its files go at once where the server says wal_recycle = off, else they are written over in time.  What the
        system, the disk or an archive of that journal still has is beyond this.
        Raises StoreUnavailable if another holds the database, or StoreFull: SQLite needs as much room again.
        """
        names = ", ".join(str(table.__tablename__) for table in tables)
        with self._writer:
            connection: Any = self.engine.raw_connection()
            try:
                if self.sqlite:
                    connection.execute("PRAGMA query_only=OFF")
                    connection.execute("VACUUM")
                    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    return not busy
                connection.dbapi_connection.autocommit = True
                connection.cursor().execute(f"VACUUM (FULL) {names}" if names else "VACUUM (FULL)")
                with suppress(InsufficientPrivilege):
                    connection.cursor().execute("SELECT pg_switch_wal()")
                    connection.cursor().execute("CHECKPOINT")
                return True
            except self.engine.dialect.loaded_dbapi.Error as wrong:
                raise _told(wrong) from None
            finally:
                if not self.sqlite:
                    connection.dbapi_connection.autocommit = False
                connection.close()

    def close(self) -> None:
        """Give back every connection."""
        for engine in (self.engine, *self.others.values()):
            engine.dispose()

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.connect() as connection, connection.begin():  # at once: a lock taken late is a lost race
                yield connection
        except IntegrityError:
            raise Conflict("a row with this key is there already") from None
        except (OperationalError, DBAPIError) as wrong:
            if _full(wrong.orig):
                self.full()
            if isinstance(wrong.orig, InsufficientPrivilege):
                raise StoreUnavailable("this broker's login may not do that: see `broker roles`") from None
            raise _told(wrong.orig) from None

    def has_room(self, size: int) -> bool:
        """Whether a PostgreSQL server would take `size` more bytes: tried, and taken back.  Yes for SQLite.

        SQLite's file lies on our own disk, where the ballast says it.
        """
        if self.sqlite:
            return True
        try:
            with self.engine.begin() as connection:
                connection.execute(
                    text(
                        "CREATE TEMPORARY TABLE room ON COMMIT DROP AS "
                        "SELECT md5(random()::text) || md5(random()::text) AS filler FROM generate_series(1, :rows)"
                    ),
                    {"rows": size // 64},
                )
        except DBAPIError:
            return False
        return True


def _nothing() -> None:
    return None


def _full(error: BaseException | None) -> bool:
    """Whether the disk has no room, or fails: both need a person, and neither is mended by a smaller write."""
    code = getattr(error, "sqlite_errorcode", None)
    failed = isinstance(code, int) and code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return failed or getattr(error, "sqlstate", None) in POSTGRESQL_DISK_FULL


def _told(error: BaseException | None) -> StoreUnavailable:
    """What a database's error is to whoever runs the broker: a kind, and no statement, value or address."""
    if _full(error):
        return StoreFull("the database finds no room on its disk, or the disk fails")
    return StoreUnavailable(f"the database can't be reached, or does not do what it is asked: {type(error).__name__}")


def _engine(url: str, *, standby: bool = False) -> Engine:
    parsed = make_url(url)
    arguments: dict[str, Any] = {"hide_parameters": True}
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise UnsafeDatabase("SQLite needs a file: what is in memory is not durable")
        arguments["connect_args"] = {"timeout": BUSY_MS / 1000, "check_same_thread": False}
    else:
        arguments |= {"pool_size": POOL, "max_overflow": POOL}
    engine = create_engine(parsed, **arguments)
    event.listen(engine, "checkin", _idle_from_now)
    event.listen(engine, "checkout", _still_there)
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _make_durable)
        event.listen(engine, "begin", _begin_at_once)
    else:
        event.listen(engine, "connect", partial(durable, standby=standby))
    return engine


def _idle_from_now(_: object, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = time.monotonic()


def _still_there(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
    """Ask a connection that lay idle whether it lives; of one used a moment ago that would be a round trip in vain."""
    if time.monotonic() - record.info.get("idle_since", time.monotonic()) < IDLE_SECONDS:
        return
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        connection.rollback()
    except Exception:  # whatever the driver says: the pool makes another
        raise DisconnectionError from None


def _make_durable(connection: Any, _: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's `begin` event says BEGIN, not the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON", "secure_delete=FAST",
    ):  # fmt: skip
        cursor.execute(f"PRAGMA {pragma}")
    # per connection, and silently ignored where it can't be had: so read it back
    journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
    keys = cursor.execute("PRAGMA foreign_keys").fetchone()[0]
    cursor.close()
    if journal != "wal" or synchronous != SYNCHRONOUS_FULL or keys != 1:
        raise UnsafeDatabase("SQLite would not take WAL, synchronous=FULL and foreign keys")


def _begin_at_once(connection: Connection) -> None:
    if connection.get_execution_options().get("read_only"):
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.exec_driver_sql("BEGIN")
    else:
        connection.exec_driver_sql("PRAGMA query_only=OFF")
        connection.exec_driver_sql("BEGIN IMMEDIATE")

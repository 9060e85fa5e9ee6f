"""What a PostgreSQL server must be, asked on every new connection: a receipt is a promise that outlives the machine."""

from __future__ import annotations

from typing import Any, Final

from psycopg import IsolationLevel

from broker.errors import StoreUnavailable, UnsafeDatabase

_ASKED: Final = (
    "SELECT pg_is_in_recovery(), current_setting('fsync'), current_setting('full_page_writes'),"
    " current_setting('synchronous_standby_names'), CASE WHEN current_setting('synchronous_commit') = 'remote_apply'"
    " THEN 'remote_apply' ELSE set_config('synchronous_commit', 'on', false) END"
)
"""A commit waits for the disk, and for a synchronous standby's, whatever the server's or the login's default says."""


def durable(connection: Any, _: object, *, standby: bool) -> None:
    """Have the connection commit to the disk, and to a synchronous standby's where there is one.

    What writes waits for locks, and then sees what was committed meanwhile, whatever the server's default is.  Raises
    StoreUnavailable for a standby, which may not know yet what was revoked; UnsafeDatabase for a server that loses what
    it committed, at a power cut or, with `standby`, when another takes over.
    """
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    with connection.cursor() as cursor:
        recovering, fsync, pages, standbys, commit = cursor.execute(_ASKED).fetchone()
    connection.commit()
    if wrong := _unsafe(fsync, pages, standbys, commit, standby=standby):
        connection.close()
        raise UnsafeDatabase(wrong)
    if recovering:
        connection.close()
        raise StoreUnavailable("this PostgreSQL is a standby: name both servers, and target_session_attrs=read-write")


def _unsafe(fsync: str, pages: str, standbys: str, commit: str, *, standby: bool) -> str:
    if fsync != "on" or pages != "on":
        return "PostgreSQL runs with fsync or full_page_writes off: a power cut would take what was acknowledged"
    if commit not in ("on", "remote_apply"):
        return "PostgreSQL would not take synchronous_commit"
    if standby and not standbys.strip():
        return (
            "failover is synchronous, and synchronous_standby_names is empty: a failover would lose receipts' batches"
        )
    return ""

"""The roles of PostgreSQL that a broker works under, and what each may do to each table: the SQL that grants it.

    owner            owns the tables: migrates, and writes them anew after an erasure.  No broker that serves is it
    PREFIX_app       the operational tables; of the log it reads all and writes what waits: the outbox, what lies sealed
                     beside an event
    PREFIX_sequencer adds entries, bodies, keys, tiles and checkpoints; takes from the outbox; moves the head, that only
                     grows
    PREFIX_eraser    empties the body of an event and deletes its keys: erasure and expiry

None of the last three may change or delete a leaf, a checkpoint or anything else that is only added to, nor drop the
triggers that say so.

One login may be in all three, or each has a login of its own: then what serves can neither add a leaf nor empty a body
but by the connections that are for that, and a broker that is not given the eraser's can't erase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import column, func, select, table, text

from broker.errors import Malformed
from broker.store.columns import Row
from broker.store.tables import metadata
from broker.store.transaction import Store

APP: Final = "app"
SEQUENCER: Final = "sequencer"
ERASER: Final = "eraser"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,47}")
_WHO: Final = text("""
    SELECT session_user, has_table_privilege('audit_entry', 'INSERT'), has_table_privilege('audit_key', 'DELETE'),
        (SELECT pg_has_role(tableowner, 'MEMBER') FROM pg_tables WHERE tablename = 'audit_entry')
""")
_ADDED_TO: Final = "INSERT"
_ANY: Final = "INSERT, UPDATE, DELETE"

GRANTS: Final[dict[str, dict[str, str]]] = {
    "audit_outbox": {APP: _ADDED_TO, SEQUENCER: "INSERT, DELETE"},  # the log's own events are written and moved at once
    "audit_key": {SEQUENCER: _ADDED_TO, ERASER: "INSERT, DELETE"},
    "audit_subject_key": {SEQUENCER: _ADDED_TO, ERASER: "INSERT, DELETE"},
    "audit_blob": {APP: _ADDED_TO, SEQUENCER: _ADDED_TO, ERASER: "DELETE"},
    "audit_entry": {SEQUENCER: _ADDED_TO},
    "audit_event": {
        SEQUENCER: _ADDED_TO,
        ERASER: "UPDATE (sections, detail, case_hmac, erased_at, erased_under, withheld_at)",
    },
    "audit_subject": {SEQUENCER: _ADDED_TO, ERASER: "DELETE"},
    "audit_tile": {SEQUENCER: "INSERT, UPDATE (width, data)"},
    "audit_head": {SEQUENCER: "INSERT, UPDATE (size, frontier, root, last_ms)"},
    "audit_checkpoint": {SEQUENCER: _ADDED_TO},
    "audit_shard": {SEQUENCER: "INSERT, UPDATE (closed_at, frozen, keys)"},
    "audit_cosig": {APP: "INSERT, UPDATE (t_s, line)"},  # a newer line of the same witness over one checkpoint
    "audit_conflict": {APP: "INSERT, UPDATE (event_id)"},
    "audit_witness": {APP: "INSERT, UPDATE (removed_at, late_since)"},
    "audit_flag": {APP: _ADDED_TO},
    "audit_review": {APP: "INSERT, UPDATE (signed_off_by, signed_off_at, second)"},
    "audit_rule_change": {APP: _ADDED_TO},
    "audit_sample": {APP: _ADDED_TO},
    "audit_tombstone": {APP: _ADDED_TO},
    "audit_lift": {APP: "INSERT, UPDATE (state, decided_by, decided_at, refused, event_id)"},
    "audit_hold": {APP: "INSERT, UPDATE (lifted_by, lifted_at)"},
    "agreement_status": {APP: _ADDED_TO},
    "alembic_version": {},
}
"""What a role may write, table by table; where a table is not named, the app writes it freely."""


def grants(prefix: str, login: str, *, sequencer: str | None = None, eraser: str | None = None) -> str:
    """SQL that makes the roles where they are missing, takes from them what they had and grants what they need.

    `login`: the user whom brokers sign in as; it is made too, and is a member of every role for which there is no login
    of its own.  `sequencer`, `eraser`: those.  An erasure sequences what waits and deletes what lies beside the log, so
    the eraser's login is in all three.  To be run by the tables' owner, who may make roles, after every migration.
    Raises Malformed for a name that PostgreSQL would have to quote, or one for two uses.
    """
    logins = [name for name in (login, sequencer, eraser) if name is not None]
    if not all(map(_NAME.fullmatch, (prefix, *logins))):
        raise Malformed("a role's name is lower case letters, digits and _, 48 at most")
    if len({*logins}) < len(logins):
        raise Malformed("a login of its own is another than the rest")
    return "\n".join(_statements(prefix, login, sequencer, eraser)) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Whom the database takes a broker's connection for, and what that user may do to the log."""

    use: str  # app, sequencer, eraser
    user: str
    appends: bool
    erases: bool
    owns: bool  # the tables: may drop what guards them


def logins(store: Store) -> tuple[Login, ...]:
    """The logins in use, the main one first, as the database itself sees them.  None for SQLite, which knows no users.

    Raises StoreUnavailable if one of them can't sign in.
    """
    if store.sqlite:
        return ()
    found = []
    for use in (APP, *(use for use in (SEQUENCER, ERASER) if use in store.others)):
        with store.transaction(use) as tx:
            user, appends, erases, owner = tx.connection.execute(_WHO).one()
        found.append(Login(use=use, user=user, appends=appends, erases=erases, owns=owner))
    return tuple(found)


def owns(store: Store, tables: Sequence[type[Row]]) -> bool:
    """Whether this broker's user owns these tables, as only an owner writes them anew.  SQLite knows no users."""
    if store.sqlite:
        return True
    owner = func.pg_has_role(column("tableowner"), "MEMBER")
    query = select(func.bool_and(owner)).select_from(table("pg_tables", column("tableowner"), column("tablename")))
    with store.reading() as reading:
        return bool(
            reading.session.connection().scalar(
                query.where(column("tablename").in_([str(one.__tablename__) for one in tables]))
            )
        )


def _statements(prefix: str, login: str, sequencer: str | None, eraser: str | None) -> Iterator[str]:
    roles = [f"{prefix}_{role}" for role in (APP, SEQUENCER, ERASER)]
    app_role, sequencer_role, eraser_role = roles
    members = {login: [app_role]}
    members[sequencer or login] = [*members.get(sequencer or login, ()), sequencer_role]
    members[eraser or login] = [*members[login], eraser_role] if eraser is None else roles
    logins_ = ", ".join(members)
    yield "BEGIN;"
    for role, how in (*((role, "NOLOGIN") for role in roles), *((name, "LOGIN") for name in members)):
        there = f"EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
        yield f"DO $$ BEGIN IF NOT {there} THEN CREATE ROLE {role} {how}; END IF; END $$;"
    all_ = ", ".join(roles)
    yield f"REVOKE {all_} FROM {logins_};"
    for name, of in members.items():
        yield f"GRANT {', '.join(of)} TO {name};"
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC;"
    yield f"GRANT USAGE ON SCHEMA public TO {all_};"
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {all_}, {logins_};"
    yield f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {app_role}, {sequencer_role};"
    yield f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {all_};"
    for name in (*sorted(metadata.tables), "alembic_version"):
        for role, may in GRANTS.get(name, {APP: _ANY}).items():
            yield f"GRANT {may} ON {name} TO {prefix}_{role};"
    yield "COMMIT;"

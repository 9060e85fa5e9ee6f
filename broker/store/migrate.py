"""Schema changes, forward and back, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from broker.store.tables import metadata
from broker.store.transaction import Store

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(store: Store, to: str = "head") -> None:
    """Bring the schema to a revision: every step, or none."""
    with store.engine.begin() as connection:
        command.upgrade(_config(connection), to)


def downgrade(store: Store, to: str) -> None:
    """Take the schema back to a revision (`base`: nothing)."""
    with store.engine.begin() as connection:
        command.downgrade(_config(connection), to)


def differences(store: Store) -> list[str]:
    """How the database differs from the tables of this code; empty when it is as it should be."""
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]


def at_head(store: Store) -> bool:
    """Whether every migration of this code has been run."""
    with store.engine.connect() as connection:
        here = set(MigrationContext.configure(connection).get_current_heads())
        return here == set(ScriptDirectory(str(MIGRATIONS)).get_heads())


def draft(store: Store, message: str) -> None:
    """Write a revision file from what differs (maintainers)."""
    with store.engine.begin() as connection:
        command.revision(_config(connection), message, autogenerate=True)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config

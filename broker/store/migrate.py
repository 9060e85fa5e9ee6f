"""Schema changes, forward and back, the same on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from broker.store.tables import metadata
from broker.store.transaction import Store

if TYPE_CHECKING:  # else loaded where the schema is changed: what only asks `at_head` never waits for it
    from alembic.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"


def upgrade(store: Store, to: str = "head") -> None:
    """Bring the schema to a revision: every step, or none."""
    from alembic import command

    with store.engine.begin() as connection:
        command.upgrade(_config(connection), to)


def downgrade(store: Store, to: str) -> None:
    """Take the schema back to a revision (`base`: nothing)."""
    from alembic import command

    with store.engine.begin() as connection:
        command.downgrade(_config(connection), to)


def differences(store: Store) -> list[str]:
    """How the database differs from the tables of this code; empty when it is as it should be."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, metadata)]


def at_head(store: Store) -> bool:
    """Whether every migration of this code has been run."""
    with store.engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [head()]


def head() -> str:
    """The newest revision of this code: revisions are numbered, and each file's name begins with its number."""
    return max(path.name for path in (MIGRATIONS / "versions").glob("[0-9]*.py")).split("_")[0]


def draft(store: Store, message: str) -> None:
    """Write a revision file from what differs (maintainers)."""
    from alembic import command

    with store.engine.begin() as connection:
        command.revision(_config(connection), message, autogenerate=True)


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config

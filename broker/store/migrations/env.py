"""How Alembic runs here: on the connection that `broker.store.migrate` hands over, in its transaction."""

from typing import Any, Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from broker.store.columns import PlainJSON, UTCDateTime
from broker.store.tables import metadata


def in_our_words(kind: str, what: Any, _: Any) -> str | Literal[False]:
    """Our column types by their short names in a drafted revision."""
    if kind == "type" and isinstance(what, UTCDateTime | PlainJSON):
        return f"{type(what).__name__}()"
    return "sa.String()" if kind == "type" and isinstance(what, AutoString) else False


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    render_item=in_our_words,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()

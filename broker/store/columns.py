"""Column types that mean the same on SQLite and PostgreSQL, and the base of every row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, DateTime, Dialect, LargeBinary, MetaData
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)


class Row(SQLModel, registry=registry(metadata=metadata)):
    """A stored row.  It checks nothing (a table model never does): what goes in was parsed before."""

    metadata: ClassVar[MetaData] = metadata


class UTCDateTime(TypeDecorator[datetime]):
    """An instant.  Naive values are refused, since SQLite would lose the zone without a word."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def instant_told(value: datetime, *, sqlite: bool) -> str:
    """An instant as a statement of our own tells it to the database."""
    if value.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    kept = value.astimezone(UTC)
    return (kept.replace(tzinfo=None) if sqlite else kept).isoformat(" ", timespec="microseconds")


class PlainJSON(TypeDecorator[Any]):
    """JSON; JSONB where there is."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSONB() if dialect.name == "postgresql" else JSON())


def instant(**arguments: Any) -> Any:
    """A field for an instant; required and never null unless told."""
    return Field(sa_type=UTCDateTime, **arguments)


def json_value(**arguments: Any) -> Any:
    """A field for plain JSON (lists, maps, strings, whole numbers): codes and counts, nobody's data."""
    return Field(sa_type=PlainJSON, **arguments)


def octets(**arguments: Any) -> Any:
    """A field for bytes."""
    return Field(sa_type=LargeBinary, **arguments)

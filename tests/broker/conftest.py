"""A migrated store of each kind, and what stands on it."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.keys import Keys
from broker.store import Store, migrate
from broker.trail import Trail, open_for_writing
from tests.postgres import postgres, postgres_server

__all__ = ["postgres", "postgres_server"]
ORIGIN = "broker.example/audit/2026"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/{secrets.token_hex(4)}.db"
    given: str = request.getfixturevalue("postgres")
    return given


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A migrated store."""
    made = Store(url)
    migrate.upgrade(made)
    yield made
    made.close()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Fresh keys of a broker."""
    return Keys.make(tmp_path_factory.mktemp("broker") / "keys")


@pytest.fixture
def trail(store: Store, keys: Keys, tmp_path: Path) -> Iterator[Trail]:
    """An open log without a thread: whoever waits does the work."""
    made = Trail(store, keys, open_for_writing(store, keys, tmp_path / "signer" / "state.json", ORIGIN))
    yield made
    made.stop()

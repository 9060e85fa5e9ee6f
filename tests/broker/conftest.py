"""A migrated store of each kind, and what stands on it."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from broker.keys import Keys
from broker.reception import Reception
from broker.settings import Settings
from broker.store import Store, migrate
from broker.trail import Trail
from broker.wiring import Broker
from tests.builders import COUNCIL, ICB
from tests.builders_area import MORNING, Area, Clock, the_time
from tests.builders_broker import a_copy, an_installation, reception, serving
from tests.builders_families import a_linked_area
from tests.builders_signer import opened
from tests.postgres import a_database, postgres, postgres_server

__all__ = ["postgres", "postgres_server"]
ORIGIN = "broker.example/audit/2026"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/{secrets.token_hex(4)}.db"
    given: str = request.getfixturevalue("postgres")
    return given


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "migrated.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> str:
    """The name of a migrated PostgreSQL database, to be a template."""
    with a_database(postgres_server, keep=True) as url:
        _migrate(url)
    return make_url(url).database or ""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A migrated store of each kind."""
    with ExitStack() as stack:
        if request.param == "sqlite":
            copy = shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "broker.db")
            url = f"sqlite:///{copy}"
        else:
            template = request.getfixturevalue("migrated_postgres")
            url = stack.enter_context(a_database(request.getfixturevalue("postgres_server"), template=template))
        made = Store(url)
        stack.callback(made.close)
        yield made


def _migrate(url: str) -> None:
    made = Store(url)
    migrate.upgrade(made)
    made.close()


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Fresh keys of a broker."""
    return Keys.make(tmp_path_factory.mktemp("broker") / "keys")


@pytest.fixture
def trail(store: Store, keys: Keys, tmp_path: Path) -> Iterator[Trail]:
    """An open log without a thread: whoever waits does the work."""
    made = Trail(store, keys, opened(store, tmp_path))
    yield made
    made.stop()


# --- A whole broker, for tests that hand in nights: made once, and a copy of it for each test ------------------------


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broker of two agencies with three flows, before the first night."""
    folder = tmp_path_factory.mktemp("installed")
    an_installation(folder, agencies={COUNCIL: ("education", "social_care"), ICB: ("health",)})
    return folder


@pytest.fixture
def settings(installed: Path, tmp_path: Path) -> Settings:
    """Those of a copy of one's own."""
    return a_copy(installed, tmp_path)


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    """Calls to that copy."""
    with serving(settings) as client:
        yield client


@pytest.fixture
def broker(http: TestClient) -> Broker:
    """What answers them."""
    found: Broker = http.app.state.broker  # type: ignore[attr-defined]
    return found


@pytest.fixture
def desk(http: TestClient) -> Reception:
    """Its reception."""
    return reception(http)


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    """Both programs' clocks, on the morning after an area's first night."""
    with the_time(MORNING) as made:
        yield made


@pytest.fixture(scope="module")
def linked(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Area]:
    """The small area after its first night, which the tests of a module share."""
    made = a_linked_area(tmp_path_factory.mktemp("linked") / "northshire")
    yield made
    made.close()


@pytest.fixture
def area(linked: Area, clock: Clock, tmp_path: Path) -> Iterator[Area]:
    """A copy that a test may change, and a clock that it may put on."""
    made = linked.copied(tmp_path / "northshire")
    yield made
    made.close()
    clock.put(MORNING)

"""What a host writes in broker.toml, and what no host can."""

from pathlib import Path

import pytest

from broker.errors import BadSettings
from broker.settings import Settings, read

DEMO = """
environment = "demo"
partnership = "northshire"
base_url = "http://127.0.0.1:8400"
database_url = "sqlite:///broker.db"
data_dir = "data"
demo_people = [{person = "ig-1", label = "IG officer", role = "IG_OFFICER"}]
"""
PRODUCTION = """
partnership = "northshire"
base_url = "https://broker.example"
database_url = "postgresql+psycopg://broker:canary-password@db/broker"
data_dir = "/srv/broker"
host = "0.0.0.0"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "broker.toml"
    path.write_text(text)
    return path


def test_a_demo_reads_relative_to_its_file(tmp_path: Path) -> None:
    found = read(written(tmp_path, DEMO))
    assert found.demo_sign_in
    assert found.data_dir == tmp_path / "data"
    assert found.database_url.get_secret_value() == f"sqlite:///{tmp_path}/broker.db"
    assert found.log_base == "127.0.0.1:8400/audit"
    assert found.signs_inline
    assert not found.model_copy(update={"environment": "production"}).signs_inline
    assert not found.model_copy(update={"signer": "process"}).signs_inline


def test_production_is_the_default_and_lets_nobody_in_without_a_password(tmp_path: Path) -> None:
    found = read(written(tmp_path, PRODUCTION))
    assert found.environment == "production"
    assert not found.demo_sign_in
    assert "canary" not in repr(found)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_PORT", "9000")
    assert read(written(tmp_path, DEMO)).port == 9000


@pytest.mark.parametrize(
    "change",
    [
        DEMO.replace('"demo"', '"production"'),
        DEMO + 'host = "0.0.0.0"\n',
        DEMO + 'host = "broker.example"\n',
        DEMO.replace("sqlite:///broker.db", "postgresql+psycopg://x@/x"),
        DEMO + "unknown = 1\n",
        DEMO.replace("IG_OFFICER", "MASH_ANALYST"),
        PRODUCTION.replace("https", "http"),
        PRODUCTION.replace("broker.example", "broker.example/"),
        PRODUCTION + "port = 0\n",
        PRODUCTION + "session_hours = 24\n",
        PRODUCTION + 'demo_people = [{person = "a", label = "b", role = "IG_OFFICER"}]\n',
        PRODUCTION + "not toml",
        "",
    ],
)
def test_what_is_unsafe_unknown_or_missing_is_refused_without_quoting_it(tmp_path: Path, change: str) -> None:
    with pytest.raises(BadSettings) as raised:
        read(written(tmp_path, change))
    assert "canary" not in str(raised.value)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="with --config or BROKER_CONFIG"):
        read(tmp_path / "none.toml")


def test_every_setting_says_what_it_is() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []

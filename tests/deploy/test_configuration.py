"""The example configuration is the programs' own settings, and is read by the programs."""

import re
from pathlib import Path

import pytest

from broker.settings import Settings, read
from deploy.configuration.__main__ import DEMO_ONLY, files
from linkage.agency.gateway.settings import GatewaySettings, load
from linkage.agency.settings import AgencySettings, Home

EXAMPLES = Path(__file__).parents[2] / "deploy" / "configuration"
SETTING = re.compile(r"(?m)^# (?=(?:\w+ = |\[[\w.]+\]\n))")


def in_full(text: str) -> str:
    """The example with every setting that is commented out brought to life."""
    return SETTING.sub("", text)


@pytest.mark.parametrize("name", ["broker.toml", "agency.toml"])
def test_an_example_is_as_the_settings_are_now(name: str) -> None:
    assert (EXAMPLES / name).read_text() == files()[name], "python -m deploy.configuration writes it anew"


def test_every_setting_is_explained_in_the_example() -> None:
    for model, name in ((Settings, "broker.toml"), (AgencySettings, "agency.toml"), (GatewaySettings, "agency.toml")):
        text = in_full((EXAMPLES / name).read_text())
        for setting, field in model.model_fields.items():
            if setting not in DEMO_ONLY:
                assert field.description, f"{name}: {setting} says nothing"
                assert re.search(rf"(?m)^(?:{setting} = |\[(?:gateway\.)?{setting}\]$)", text), f"{name}: {setting}"


@pytest.mark.parametrize("whole", [False, True], ids=["as it is", "with everything set"])
def test_the_broker_reads_the_example(whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("BROKER_CONFIG", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    text = (EXAMPLES / "broker.toml").read_text()
    path = tmp_path / "broker.toml"
    path.write_text(in_full(text) if whole else text)
    found = read(path)
    assert found.environment == "production"
    assert not found.signs_inline
    assert (found.oidc is not None) is whole
    assert found.client_certificates == "offered"


@pytest.mark.parametrize("whole", [False, True], ids=["as it is", "with everything set"])
def test_an_agency_and_its_gateway_read_the_example(whole: bool, tmp_path: Path) -> None:
    text = (EXAMPLES / "agency.toml").read_text()
    (tmp_path / "agency.toml").write_text(in_full(text) if whole else text)
    home, gateway = Home(tmp_path), load(tmp_path)
    assert home.settings.broker.startswith("https://")
    assert (home.settings.tls.certificate is not None) is whole
    assert gateway.environment == "production"
    assert (gateway.oidc is not None) is whole


def test_a_secret_may_be_a_file_that_systemd_hands_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    (handed / "broker_database_url").write_text("postgresql+psycopg://broker:canary@db/broker\n")
    config = tmp_path / "broker.toml"
    config.write_text((EXAMPLES / "broker.toml").read_text())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    found = read(config)
    assert found.database_url.get_secret_value() == "postgresql+psycopg://broker:canary@db/broker"
    monkeypatch.setenv("BROKER_DATABASE_URL", "postgresql+psycopg://another@db/broker")
    assert "another" in read(config).database_url.get_secret_value()

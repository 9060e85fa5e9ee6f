"""Writes broker.toml and agency.toml beside this file: every setting with what it means, its default and an example.

`python -m deploy.configuration` writes them anew; a test holds them to the programs' own settings.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from broker.settings import Settings
from linkage.agency.gateway.settings import GatewaySettings
from linkage.agency.settings import AgencySettings

HERE: Final = Path(__file__).parent
ISSUER: Final = "https://login.northshire.example"
OIDC: Final = {"issuer": ISSUER, "client_id": "safeguarding", "client_secret": "from-the-environment"}
BROKER: Final[Mapping[str, Any]] = {
    "partnership": "northshire", "base_url": "https://broker.northshire.example",
    "database_url": "postgresql+psycopg://broker@db.northshire.example/broker?sslmode=verify-full",
    "sequencer_url": "postgresql+psycopg://broker_sequencer@db.northshire.example/broker?sslmode=verify-full",
    "eraser_url": "postgresql+psycopg://broker_eraser@db.northshire.example/broker?sslmode=verify-full",
    "data_dir": "/var/lib/broker", "metrics_port": 9400, "signer": "process", "client_certificates": "offered",
    "trusted_proxies": ["127.0.0.1/32"],
    "pkcs11": {"module": "/usr/lib/softhsm/libsofthsm2.so", "token": "broker", "pin": "from-the-environment"},
    "log_retention": {"by_type": {"auth.login": 1}},
    "inspections": [{"person": "the-id-that-the-provider-gives", "first": "2026-11-23", "last": "2026-11-27"}],
    "oidc": {
        **OIDC, "roles": {"ig-officers": "IG_OFFICER", "link-reviewers": "LINK_REVIEWER", "operators": "OPERATOR"},
    },
}  # fmt: skip
AGENCY: Final[Mapping[str, Any]] = {
    "agency": "northshire-council", "partnership": "northshire", "key_epoch": "2026-1",
    "broker": "https://broker.northshire.example",
    "tls": {"certificate": "tls/agency.crt", "key": "tls/agency.key", "authorities": "tls/broker-ca.crt"},
}  # fmt: skip
GATEWAY: Final[Mapping[str, Any]] = {
    "organisation": "Northshire Council", "address": "https://gateway.northshire.example",
    "allowed_hosts": ["gateway.northshire.example"],
    "desk": {"name": "the safeguarding desk", "phone": "01632 960104"},
    "organisations": {"northshire-police": "Northshire Police"},
    "oidc": {**OIDC, "roles": {"mash-analysts": "MASH_ANALYST", "mash-managers": "MASH_DECISION_MAKER"}},
}  # fmt: skip
DEMO_ONLY: Final = ("demo_people", "people")
LIVE: Final = frozenset(
    {
        "base_url",
        "data_dir",
        "client_certificates",
        "trusted_proxies",
        "metrics_port",
        "broker",
        "address",
        "allowed_hosts",
    }
)
"""What an installation will nearly always set, beside what is due: not commented out."""


_BROKER_WORDS: Final = """\
Each may also be given as the variable that stands with it, which wins; one that is a secret better so, or as a file
named like the variable, in lower case, in the folder that CREDENTIALS_DIRECTORY names (systemd's LoadCredential). What
is commented out shows its default, or an example where there is none. `python -m deploy.configuration` writes this."""
_AGENCY_WORDS: Final = """\
It lies in the home, mode 0600. Each may also be given as the variable that stands with it, which wins. `agency keygen`
writes the first lines of it. What is commented out shows its default, or an example where there is none. `python -m
deploy.configuration` writes this."""


def files() -> dict[str, str]:
    """The two files' texts, by name."""
    broker = _head("broker.toml: every setting of the broker", _BROKER_WORDS), *_table(Settings, BROKER, "BROKER_")
    agency = (
        _head("agency.toml: every setting of an agency's home and of its gateway", _AGENCY_WORDS),
        *_table(AgencySettings, AGENCY, "AGENCY_"),
        "\n# The gateway: the pages of this agency's people. Left out where it has none.\n[gateway]\n",
        *_table(GatewaySettings, GATEWAY, "GATEWAY_", "gateway"),
    )
    return {"broker.toml": "".join(broker), "agency.toml": "".join(agency)}


def _head(title: str, words: str) -> str:
    return f"# {title}\n" + textwrap.indent(textwrap.fill(words, 116), "# ") + "\n"


def _table(model: type[BaseModel], examples: Mapping[str, Any], variable: str, inside: str = "") -> Iterator[str]:
    """A model's settings, tables last, as TOML has it."""
    tables = {}
    for name, field in model.model_fields.items():
        if name in DEMO_ONLY:
            continue
        if (part := _part(field)) is not None:
            tables[name] = (part, field)
            continue
        due = field.is_required()
        default = None if due else field.get_default(call_default_factory=True)
        shown = examples.get(name, _plain(default))
        live = due or (not inside.count(".") and name in LIVE and name in examples)
        yield f"\n{_comment(field.description or '')}# {variable}{name.upper()}"
        if not due and default not in (None, "", (), {}):
            yield f"; default {_toml(_plain(default))}"
        yield f"\n{'' if live else '# '}{name} = {_toml(shown)}\n"
    for name, (part, field) in tables.items():
        given = examples.get(name, {})
        live = field.is_required()
        place = f"{inside}.{name}" if inside else name
        lines = "".join(_table(part, given, f"{variable}{name.upper()}__", place))
        head = f"\n{_comment(field.description or '')}"
        yield head + (f"[{place}]\n{lines}" if live else f"# [{place}]\n{_quieted(lines)}")


def _quieted(lines: str) -> str:
    return "".join(line if line.startswith("#") or not line.strip() else f"# {line}" for line in lines.splitlines(True))


def _part(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a setting that is a table of its own; several of a kind are a list in a line."""
    if get_origin(field.annotation) is tuple:
        return None
    for one in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def _comment(words: str) -> str:
    return textwrap.indent(textwrap.fill(words, 116), "# ") + "\n" if words else ""


def _plain(value: Any) -> Any:
    if value is PydanticUndefined or value is None:
        return ""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    for name, text in files().items():
        (HERE / name).write_text(text, encoding="utf-8")

"""`broker keys`: make and show the broker's own keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from broker.cli.shared import AsJson, Config, answering, say, settings_of

if TYPE_CHECKING:
    from broker.settings import Settings

app = typer.Typer(help="The broker's own keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command("init")
def keys_init(config: Config = None, as_json: AsJson = False) -> None:
    """Make the keys that are missing, mode 0600, in the data folder's keys/.  Never replaces one.

    A secret that the environment gives (BROKER_KEK_KEY, BROKER_PEPPER_KEY, BROKER_VAULT_KEY, BROKER_INDEX_KEY,
    BROKER_CASE_KEY: 32 bytes in hex) is used in its file's place, and not made.
    """
    with answering(as_json):
        settings = settings_of(config)
        public = make_keys(settings)
        say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


@app.command("show")
def keys_show(config: Config = None, as_json: AsJson = False) -> None:
    """Print the public half of the key that signs receipts.  The log's are printed by `broker log policy`."""
    with answering(as_json):
        from broker.keys import Keys

        settings = settings_of(config)
        public = public_halves(Keys.load(settings.data_dir / "keys"))
        say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


def make_keys(settings: Settings) -> dict[str, str]:
    from broker.keys import Keys

    return public_halves(Keys.make(settings.data_dir / "keys"))


def public_halves(made: Any) -> dict[str, str]:
    from broker.keys import b64url

    return {
        "receipts_kid": made.receipt_kid,
        "receipts": b64url(made.receipt_public()),
    }

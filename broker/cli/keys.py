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

    Where the settings name a PKCS#11 token (pkcs11), the key-encryption key is made in it and never leaves it, and the
    other keys' files are sealed under it: whoever has the disk has none of them. `broker keys seal` moves a broker
    that has its keys in files.
    """
    with answering(as_json):
        settings = settings_of(config)
        public = make_keys(settings)
        say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


@app.command("show")
def keys_show(config: Config = None, as_json: AsJson = False) -> None:
    """Print the public half of the key that signs receipts.  The log's are printed by `broker log policy`."""
    with answering(as_json):
        from broker.wiring import keys_of

        public = public_halves(keys_of(settings_of(config)))
        say(as_json, public, "\n".join(f"{name}: {value}" for name, value in public.items()))


@app.command("seal")
def keys_seal(config: Config = None, as_json: AsJson = False) -> None:
    """Move a broker's keys into the PKCS#11 token that the settings name, for good.

    The key-encryption key is brought into the token, the other keys' files are sealed under it, and the clear ones
    are removed. Nothing stored is sealed anew. Stop the broker first. Copies of the files (backups) still open what was
    sealed until now: destroy them. A key that the environment gives stays there, but for BROKER_KEK_KEY, which may go.
    """
    with answering(as_json):
        from broker.errors import BadSettings
        from broker.hsm import move_in
        from broker.wiring import token_key

        settings = settings_of(config)
        kek = token_key(settings)
        if kek is None:
            raise BadSettings("pkcs11: the settings name no token")
        sealed = move_in(settings.data_dir / "keys", kek)
        say(
            as_json,
            {"sealed": sealed},
            f"sealed under the token's key: {', '.join(sealed) or 'nothing was left to seal'}",
        )


def make_keys(settings: Settings) -> dict[str, str]:
    from broker.wiring import make_keys as made

    return public_halves(made(settings))


def public_halves(made: Any) -> dict[str, str]:
    from broker.keys import b64url

    return {
        "receipts_kid": made.receipt_kid,
        "receipts": b64url(made.receipt_public()),
    }

"""`broker init | migrate | serve`: set the broker up, and serve."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from broker.cli.keys import make_keys
from broker.cli.shared import USAGE, AsJson, Config, answering, fail, say, settings_of

if TYPE_CHECKING:
    from broker.settings import Settings


def init(config: Config = None, as_json: AsJson = False) -> None:
    """Make the keys that are missing, bring the schema up to date and open the log.  Twice does no harm."""
    with answering(as_json):
        settings = settings_of(config)
        make_keys(settings)
        _migrate(settings)
        say(as_json, {"data_dir": str(settings.data_dir), "log": settings.log_base}, "The broker is ready to serve.")


def migrate(config: Config = None, as_json: AsJson = False) -> None:
    """Bring the database's schema to this version, and open the log if there is none."""
    with answering(as_json):
        _migrate(settings_of(config))
        say(as_json, {"migrated": True}, "The schema is up to date.")


def serve(config: Config = None) -> None:
    """Serve the API, the public log and the pages until stopped."""
    with answering(False):
        import uvicorn

        from broker.app import create_app
        from broker.wiring import configure_logging

        settings = settings_of(config)
        configure_logging()
        listening = _listen(settings.host, settings.port)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings), access_log=False, server_header=False, log_level="warning",
                timeout_graceful_shutdown=5,
            )
        )  # fmt: skip
        print(f"broker: {settings.base_url} ({settings.environment})", flush=True)
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as wrong:
        fail(f"can't listen on {host} port {port}: {wrong.strerror}", USAGE, False)
    return listening


def _migrate(settings: Settings) -> None:
    from broker.wiring import open_installation

    open_installation(settings)

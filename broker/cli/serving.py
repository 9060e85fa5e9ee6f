"""`broker init | migrate | roles | serve | signer`: set the broker up, and serve."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from broker.cli.keys import make_keys
from broker.cli.shared import UNKNOWN, USAGE, AsJson, Config, answering, fail, say, settings_of

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI
    from prometheus_client import CollectorRegistry

    from broker.settings import Settings

LONGEST_HEAD: Final = 64 * 1024  # bytes of a request's line and headers: two tokens, a certificate, and room


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


def roles(
    login: Annotated[str, typer.Option("--login", help="Whom brokers sign in to PostgreSQL as: their database_url's.")],
    prefix: Annotated[str, typer.Option("--prefix", help="What the roles' names begin with.")] = "broker",
    sequencer: Annotated[
        str | None, typer.Option("--sequencer-login", help="A login of its own for adding to the log: sequencer_url's.")
    ] = None,
    eraser: Annotated[
        str | None, typer.Option("--eraser-login", help="A login of its own for erasing and expiring: eraser_url's.")
    ] = None,
) -> None:
    """Print the SQL that gives brokers a login of PostgreSQL which can't change or delete what the log says.

    Three roles: PREFIX_app writes what waits for the log and the operational tables; PREFIX_sequencer adds to the log
    and moves its head; PREFIX_eraser empties bodies and deletes keys. The login is a member of all three but of those
    that have a login of their own, and owns nothing. Run it as the tables' owner, and again after each `broker
    migrate`, which is the owner's too:

        broker roles --login broker | psql -v ON_ERROR_STOP=1 postgresql://owner@host/database

    With three logins, give each broker the addresses that it needs (database_url, sequencer_url, eraser_url): one that
    serves without eraser_url can't erase, and `broker subjects approve` and the nights run where it is. `broker log
    status` says which logins are in use, and what the database lets each do.
    """
    with answering(False):
        from broker.store.roles import grants

        print(grants(prefix, login, sequencer=sequencer, eraser=eraser), end="")


def serve(config: Config = None) -> None:
    """Serve the API, the public log and the pages until stopped."""
    with answering(False):
        import uvicorn

        from broker.app import create_app
        from broker.log_lines import configure_logging

        settings = settings_of(config)
        configure_logging()
        listening = _listen(settings.host, settings.port)
        app = create_app(settings)
        if settings.metrics_port is not None:
            _tell_figures(app.state.registry, settings.metrics_host, settings.metrics_port)
        server = uvicorn.Server(how_to_serve(app))
        print(f"broker: {settings.base_url} ({settings.environment})", flush=True)
        server.run(sockets=[listening])


def how_to_serve(app: FastAPI) -> uvicorn.Config:
    """The server of HTTP: it writes no line that names an address, no header of its own, and reads no long head."""
    import uvicorn

    return uvicorn.Config(
        app, access_log=False, server_header=False, log_level="warning", log_config=None,
        http="h11", h11_max_incomplete_event_size=LONGEST_HEAD,  # the other parser it may find has no limit
        timeout_graceful_shutdown=5, proxy_headers=False,  # whose peer it is decides whose header is believed
    )  # fmt: skip


def signer(
    config: Config = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", envvar="BROKER_SIGNER_DIR", help="Its own folder: keys and what was signed.")
    ] = None,
    listen: Annotated[
        Path | None, typer.Option("--socket", envvar="BROKER_SIGNER_SOCKET", help="Where it listens: a Unix socket.")
    ] = None,
    allow_uid: Annotated[
        list[int] | None, typer.Option("--allow-uid", help="A user who is answered, by number; default: its own.")
    ] = None,
    post_quantum: Annotated[
        bool, typer.Option("--post-quantum", help="New keys come with an ML-DSA-44 one, whose line stands beside.")
    ] = False,
) -> None:
    """Sign the log's checkpoints, in a process that holds the log's private keys alone, until stopped.

    It keeps what it signed last, and refuses whatever is not a growth of that: a database put back, or rewritten, gets
    no signature. So run it as another user than the broker's, with its folder on a disk that the broker's backups do
    not put back: broker signer --dir /var/lib/signer --socket /run/signer/signer.sock --allow-uid 1234, where 1234 is
    the broker's user, and the two share the socket's group. The broker finds it by its setting signer_socket.

    Without --dir and --socket they are those of --config, in the broker's own folder: enough to try, and against
    mistakes; not against whoever owns the broker's host.

    Exit codes: 0 stopped; 2 wrong usage; 3 it can't listen, or another signer does.
    """
    with answering(False):
        import os
        import signal

        from broker.log_lines import configure_logging
        from broker.signing import SignerFolder, SignerServer

        if folder is None or listen is None:
            settings = settings_of(config)
            folder = folder or settings.data_dir / "signer"
            listen = listen or settings.data_dir / settings.signer_socket
        configure_logging()
        uids = frozenset(allow_uid or [os.geteuid()])
        try:
            server = SignerServer(SignerFolder(folder, post_quantum=post_quantum), listen, uids=uids)
        except BlockingIOError:
            fail(f"another signer listens on {listen}", UNKNOWN, False)
        except OSError as wrong:
            fail(f"can't listen on {listen}: {wrong.strerror}", UNKNOWN, False)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: server.stop())
        print(f"signer: {listen}", flush=True)
        server.serve()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as wrong:
        fail(f"can't listen on {host} port {port}: {wrong.strerror}", USAGE, False)
    return listening


def _tell_figures(registry: CollectorRegistry, host: str, port: int) -> None:
    from broker import metrics

    try:
        metrics.listen(registry, host, port)
    except OSError as wrong:
        fail(f"can't tell figures on {host} port {port}: {wrong.strerror}", USAGE, False)


def _migrate(settings: Settings) -> None:
    from broker.wiring import open_installation

    open_installation(settings)

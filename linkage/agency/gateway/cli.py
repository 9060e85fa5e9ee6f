"""`agency gateway`: serve one agency's pages from its home."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated, Final

import typer
import uvicorn
from fastapi import FastAPI

from linkage.agency import clock
from linkage.agency.client import Tokens, client_jwk, connection
from linkage.agency.gateway.app import create_gateway
from linkage.agency.gateway.broker_client import TIMEOUT_SECONDS, BrokerClient
from linkage.agency.gateway.encoder import SearchEncoder
from linkage.agency.gateway.settings import GatewaySettings, load
from linkage.agency.gateway.store import GatewayStore
from linkage.agency.journal import Journal
from linkage.agency.keys import BadKey, read_hex_key, write_secret
from linkage.agency.settings import BadHome, Home

LONGEST_HEAD: Final = 64 * 1024  # bytes of a request's line and headers
HomeFolder = Annotated[Path, typer.Option("--home", envvar="AGENCY_HOME", help="The agency's home.")]


def register(app: typer.Typer) -> None:
    """Add `gateway` to the command."""
    app.command("gateway")(gateway)


def gateway(home: HomeFolder) -> None:
    """Serve the pages of this agency's people, until it is interrupted.

    Host, port and all else are in the [gateway] table of the home's agency.toml.  Names are typed, encoded and kept
    (encrypted, for an hour) here alone.

    Exit codes: 0 stopped; 2 a setting or key can't be used, or the port is taken.
    """
    try:
        settings = load(home)
        app = open_gateway(home, settings)
        bound = _bind(settings)
    except (BadHome, BadKey, OSError, ValueError) as problem:
        typer.echo(f"agency gateway: {problem}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{settings.service}: http://{settings.host}:{settings.port}")
    uvicorn.Server(how_to_serve(app)).run(sockets=[bound])


def how_to_serve(app: FastAPI) -> uvicorn.Config:
    """The server of HTTP: no line with an address and none but warnings, as a line may quote nothing that was typed."""
    return uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False,
        http="h11", h11_max_incomplete_event_size=LONGEST_HEAD,  # the other parser it may find has no limit
    )  # fmt: skip


def open_gateway(home: Path, settings: GatewaySettings | None = None) -> FastAPI:
    """The gateway of a home, wired.  Raises BadHome, BadKey, or ValueError for a setting."""
    opened = Home(home)
    settings = settings or load(home)
    broker_url = settings.broker_url or opened.settings.broker
    http = connection(opened, seconds=TIMEOUT_SECONDS)
    broker = BrokerClient(
        broker_url,
        agency=opened.agency,
        key=client_jwk(opened),
        kid=opened.client_kid,
        token=Tokens(opened, http, now=clock.now, broker=broker_url),
        now=clock.now,
        http=http,
        journal=Journal(home, now=clock.now),
    )
    store = GatewayStore(home / "gateway.sqlite", _store_key(home / "keys" / "gateway.key"))
    return create_gateway(settings, store=store, encoder=SearchEncoder(opened), broker=broker, now=clock.now)


def _store_key(path: Path) -> bytes:
    if not path.exists():
        write_secret(path, secrets.token_hex(32).encode())
    return read_hex_key(path)


def _bind(settings: GatewaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as problem:
        bound.close()
        raise OSError(f"port {settings.port} on {settings.host}: {problem.strerror}") from None
    return bound

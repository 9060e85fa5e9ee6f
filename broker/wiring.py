"""One broker, put together from its settings: what serving, a night and each command work with.  No HTTP here."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from audit.events import Event
from broker import clock
from broker.ballast import Ballast
from broker.errors import KeyUnavailable, UnsafeDatabase
from broker.hsm import HsmKey, make_in
from broker.keys import Keys
from broker.settings import Settings
from broker.shards import open_for_writing
from broker.signing import RemoteSigners, SignerFolder, Signers
from broker.store import Store, migrate
from broker.store.erasures import LiftRow, tombstones
from broker.store.sessions import InstallationRow
from broker.store.tombstones import Tombstones
from broker.tokens import Tokens
from broker.trail import Trail, new_event_id
from broker.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """What one running broker is made of.  `parts` holds what a router's own worker keeps (the index in service)."""

    settings: Settings
    store: Store
    keys: Keys
    vault: Vault
    tokens: Tokens
    trail: Trail
    parts: dict[str, Any] = field(default_factory=dict)


def token_key(settings: Settings) -> HsmKey | None:
    """The key-encryption key in its token, where the settings name one.  Raises KeyUnavailable."""
    if (named := settings.pkcs11) is None:
        return None
    return HsmKey(named.module, token=named.token, label=named.key, pin=named.pin.get_secret_value())


def keys_of(settings: Settings) -> Keys:
    """The broker's keys.  Raises KeyUnavailable."""
    kek = token_key(settings)
    if kek is not None and not kek.there():
        raise KeyUnavailable("the token holds no key of that label: `broker keys init` makes one")
    return Keys.load(settings.data_dir / "keys", kek=kek)


def make_keys(settings: Settings) -> Keys:
    """The broker's keys, those that are missing made first.  Raises KeyUnavailable."""
    kek, folder = token_key(settings), settings.data_dir / "keys"
    return Keys.make(folder) if kek is None else make_in(folder, kek)


def wire(settings: Settings, *, agreeing: bool = True) -> Broker:
    """Everything that serving or a nightly run needs, checked: keys, schema, installation, log, erasures.

    `agreeing`: raises LogUnavailable if the signer has signed what the tables do not hold; else that is passed over.
    """
    keys = keys_of(settings)
    store = Store(settings.database_url.get_secret_value(), others=settings.logins, standby=settings.standby)
    if not migrate.at_head(store):
        raise UnsafeDatabase("the schema is not this version's: run `broker migrate`")
    _claim_installation(store, settings.environment, at=clock.now())
    signers = signers_of(settings)
    if agreeing:
        open_for_writing(store, signers, settings.log_base, at=clock.now())
    trail = Trail(
        store, keys, signers, seconds=settings.receipt_seconds, linger_ms=settings.linger_ms,
        host=settings.partnership, ballast=_ballast(settings),
    )  # fmt: skip
    if agreeing:
        _keep_erased(settings, store, keys, trail)
    return Broker(
        settings=settings,
        store=store,
        keys=keys,
        vault=Vault(settings.data_dir / "vault", keys.vault_key()),
        tokens=Tokens(
            keys.token_key, base_url=settings.base_url, token_endpoint=settings.token_endpoint,
            seconds=settings.token_seconds, bound_always=settings.client_certificates == "required",
        ),
        trail=trail,
    )  # fmt: skip


def open_installation(settings: Settings) -> None:
    """Bring the schema to this version, mark what the database is for, and open the log.  Twice does no harm."""
    keys = keys_of(settings)
    store = Store(settings.database_url.get_secret_value(), standby=settings.standby)
    migrate.upgrade(store)
    _claim_installation(store, settings.environment, at=clock.now())
    signers = signers_of(settings)
    open_for_writing(store, signers, settings.log_base, at=clock.now())
    trail = Trail(store, keys, signers, host=settings.partnership)
    with store.transaction() as tx:
        if not trail.opened(tx):
            trail.record(
                tx,
                Event(
                    id=new_event_id(), type="log.opened", who={"organisation": settings.partnership},
                    what={"origin": trail.origin}, why={}, detail={},
                ),
            )  # fmt: skip
    if trail.unsequenced():
        trail.advance_pending()
    store.close()


def signers_of(settings: Settings) -> Signers:
    """Who signs the log: a process of its own, or this one."""
    if settings.signs_inline:
        return SignerFolder(settings.data_dir / "signer", post_quantum=settings.log_post_quantum)
    return RemoteSigners(settings.data_dir / settings.signer_socket)


def _ballast(settings: Settings) -> Ballast:
    """Beside the database file where there is one: its disk is the one that the log is kept on."""
    url = settings.database_url.get_secret_value()
    folder = Path(url.removeprefix("sqlite:///")).parent if settings.sqlite else settings.data_dir
    return Ballast(folder / "ballast", settings.ballast_kb * 1024)


def _keep_erased(settings: Settings, store: Store, keys: Keys, trail: Trail) -> None:
    """A database put back from an older copy forgets again whom it had forgotten, before anything is served from it."""
    kept = Tombstones(settings.data_dir)
    with store.reading() as reading:
        known = {row.erasure for row in tombstones(reading)}
        lifted = {row.id for row in reading.all(LiftRow, state="lifted")}
    if known != {one.erasure for one in kept.read()} or lifted != {one.lift for one in kept.lifts()}:
        from broker import erasure, lifting  # loads all of linkage, so only where there is something to do

        who = {"organisation": settings.partnership, "method": "start"}
        erasure.replay(store, trail, keys, kept, who=who, at=clock.now())
        lifting.replay(store, trail, kept, who=who, at=clock.now())


def _claim_installation(store: Store, environment: str, *, at: datetime) -> None:
    """Mark an empty database as a demo's or as production's; later refuse to open it as the other.

    Raises UnsafeDatabase: real data are never served by a broker that lets people in without a password.
    """
    with store.reading() as reading:
        mark = reading.one(InstallationRow, id=1)
    if mark is None:
        with store.transaction() as tx:
            mark = tx.one(InstallationRow, id=1)
            if mark is None:
                mark = InstallationRow(id=1, environment=environment, at=at)
                tx.add(mark)
    if mark.environment != environment:
        raise UnsafeDatabase(f"this database is of a {mark.environment} installation, not of a {environment} one")

"""What every command shares: its options, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn

import typer

if TYPE_CHECKING:
    from broker.callers import Caller
    from broker.settings import Settings
    from broker.wiring import Broker

FINDING, USAGE, UNKNOWN = 1, 2, 3
_UNDER = re.compile(rb"(?m)^\s*['\"]?under['\"]?\s*=")
STAFF_ID = re.compile(r"[A-Za-z0-9._@-]{1,64}")

Config = Annotated[
    Path | None, typer.Option("--config", envvar="BROKER_CONFIG", help="broker.toml; BROKER_ variables win over it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]


class Unreadable(Exception):
    """A file that can't be read, or does not hold what it should; the message names it."""


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Turn what went wrong into one line and an exit code."""
    from audit.signer import SignerRefused
    from broker import errors

    unreachable = (errors.StoreUnavailable, errors.LogUnavailable, errors.KeyUnavailable, errors.UnsafeDatabase)
    try:
        yield
    except (errors.BadSettings, errors.Malformed) as wrong:
        fail(str(wrong), USAGE, as_json)
    except unreachable as wrong:
        fail(str(wrong), UNKNOWN, as_json)
    except errors.BrokerError as wrong:
        fail(str(wrong), FINDING, as_json)
    except Unreadable as wrong:
        fail(str(wrong), UNKNOWN, as_json)
    except SignerRefused as wrong:
        fail(f"the signer refuses: {wrong}", UNKNOWN, as_json)
    except FileNotFoundError as wrong:
        fail(f"there is no file {wrong.filename}", UNKNOWN, as_json)
    except (PermissionError, IsADirectoryError, NotADirectoryError) as wrong:
        fail(f"{wrong.filename} can't be read or written: {wrong.strerror}", UNKNOWN, as_json)


@contextmanager
def open_broker(config: Path | None, *, agreeing: bool = True) -> Iterator[Broker]:
    """A broker, put together for one command.  `agreeing`: not if the signer has signed what is not in the tables."""
    from broker.log_lines import configure_logging
    from broker.wiring import wire

    configure_logging()
    broker = wire(settings_of(config), agreeing=agreeing)
    try:
        yield broker
    finally:
        broker.store.close()


def settings_of(config: Path | None) -> Settings:
    from broker.settings import read

    return read(config)


def operator_of(broker: Broker, by: str = "") -> dict[str, str]:
    """Who acts by a command: the host, and the person who gave a staff id."""
    who = {"organisation": broker.settings.partnership, "role": "OPERATOR", "method": "command"}
    return who | {"person": by} if by else who


def officer_of(broker: Broker, by: str, as_json: bool) -> Caller:
    """Information governance, acting by a command: a person who gave a staff id."""
    from broker.callers import Caller

    return Caller(
        kind="officer", organisation=broker.settings.partnership, person=staff_id(by, as_json), role="IG_OFFICER",
        method="command",
    )  # fmt: skip


def staff_id(by: str, as_json: bool) -> str:
    """A staff id as it was typed; anything else ends the command."""
    if not STAFF_ID.fullmatch(by):
        fail("--by is a staff id: letters, digits and . _ @ -", USAGE, as_json)
    return by


def bytes_of(path: Path) -> bytes:
    """A file's bytes.  Raises Unreadable, which names it."""
    try:
        return path.read_bytes()
    except OSError as wrong:
        raise Unreadable(f"{path} can't be read: {wrong.strerror}") from None


def json_of(path: Path) -> Any:
    """A file's JSON.  Raises Unreadable, which names it."""
    try:
        return json.loads(bytes_of(path))
    except (ValueError, RecursionError):
        raise Unreadable(f"{path} is not JSON in UTF-8") from None


def toml_of(path: Path) -> dict[str, Any]:
    """A file's TOML.  Raises Unreadable, which names it and the place."""
    import tomllib

    from broker.settings import place_in_toml

    try:
        return tomllib.loads(bytes_of(path).decode())
    except ValueError as wrong:
        raise Unreadable(f"{path} is not TOML in UTF-8{place_in_toml(wrong)}") from None
    except RecursionError:
        raise Unreadable(f"{path} is nested too deep") from None


def write_all(files: Mapping[Path, bytes], *, folder: int | None = None) -> None:
    """Write files, each whole and all or none; to what is no file, as a pipe, straight.  `folder`: the mode in which
    one that is missing is made.

    Raises Unreadable, which names the one that can't be written.
    """
    parts: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in files.items():
            if folder is not None:
                path.parent.mkdir(folder, parents=True, exist_ok=True)
            whole = path.resolve()
            if whole.exists() and not whole.is_file():
                path.write_bytes(content)
                continue
            parts[whole] = whole.with_name(f".{whole.name}.part")
            parts[whole].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    except OSError as wrong:
        for part in parts.values():
            part.unlink(missing_ok=True)
        raise Unreadable(f"{path} can't be written: {wrong.strerror}") from None


def is_file(name: str) -> bool:
    """Whether a document that was named is a file, and not one of the register."""
    return "@" not in name or Path(name).exists()


def stands_under(document: bytes) -> bool:
    """Whether a TOML text says that it stands under another."""
    return _UNDER.search(document) is not None


def umbrellas(given: Sequence[Path] | None, config: Path | None, *documents: bytes) -> list[bytes]:
    """The texts of the umbrellas given, else of those in the register, where there is one and a document asks for one.

    Without --config nothing but files is read.
    """
    if config is not None:
        bytes_of(config)  # named, it is there
    if given:
        return [bytes_of(path) for path in given]
    if config is None or not any(map(stands_under, documents)):
        return []
    from broker.analysing import umbrellas_here
    from broker.store import Store

    store = Store(settings_of(config).database_url.get_secret_value())
    try:
        with store.reading() as reading:
            return umbrellas_here(reading)
    finally:
        store.close()


@contextmanager
def new_file(out: Path, as_json: bool) -> Iterator[BinaryIO]:
    """A file that only its owner reads; it has its name once it is whole, and is not there if it failed."""
    if out.exists():
        fail(f"{out} is there already", USAGE, as_json)
    part = out.with_name(f"{out.name}.part")
    try:
        opened = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as wrong:
        fail(f"{out} can't be written: {wrong.strerror}", UNKNOWN, as_json)
    try:
        with os.fdopen(opened, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.rename(out)
    except OSError as wrong:
        fail(f"{out} can't be written: {wrong.strerror}", UNKNOWN, as_json)
    finally:
        part.unlink(missing_ok=True)


def say(as_json: bool, value: Any, words: str) -> None:
    print(json.dumps(value, default=str) if as_json else words)


def fail(message: str, code: int, as_json: bool) -> NoReturn:
    print(json.dumps({"error": message}) if as_json else f"broker: {message}", file=sys.stderr)
    raise typer.Exit(code)

"""What every command of `agency` shares: its options, what it prints, how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from linkage.agency.client import Broker
    from linkage.agency.settings import Home

FINDING, USAGE, UNKNOWN = 1, 2, 3

HomeFolder = Annotated[
    Path, typer.Option("--home", envvar="AGENCY_HOME", help="The agency's home: settings, keys, crosswalk, receipts.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of words, and no progress.")]


def home_of(folder: Path, epoch: str = "") -> Home:
    """The home of a folder, under an epoch of the linkage key not yet in use if one is named.  Raises BadHome."""
    from linkage.agency.settings import Home

    home = Home(folder)
    return home if epoch in ("", home.settings.key_epoch) else Home(folder, shadow=epoch)


def broker_of(home: Home) -> Broker:
    """The broker that a home's settings name."""
    from linkage.agency import clock
    from linkage.agency.client import Broker

    return Broker(home, now=clock.now)


@contextmanager
def progress_bar(as_json: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal; nothing for a machine."""
    if as_json or not sys.stderr.isatty():
        yield lambda step, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield show


def say(as_json: bool, told: object, words: str) -> None:
    """What was done, as data or in words."""
    print(json.dumps(told, indent=2, sort_keys=True) if as_json else words)


@contextmanager
def answering(as_json: bool) -> Iterator[None]:
    """Turn what went wrong into one line on standard error and the promised exit code."""
    try:
        yield
    except Exception as problem:
        code = _exit_code(problem)
        if code is None:
            raise
        if as_json:
            print(json.dumps({"error": type(problem).__name__, "detail": str(problem)}, indent=2, sort_keys=True))
        else:
            print(f"agency: {problem}", file=sys.stderr)
        raise typer.Exit(code) from None


def _exit_code(problem: Exception) -> int | None:
    from linkage.agency.batch import BatchExists, TooManyBad
    from linkage.agency.client import BadBatch, Refused, Unreachable
    from linkage.agency.codes import BadCodes
    from linkage.agency.crosswalk import BadCrosswalk
    from linkage.agency.extract import BadExtract, UnreadableExtract
    from linkage.agency.keys import BadKey
    from linkage.agency.log import BadCheckpoint
    from linkage.agency.log_carrying import BadWitness, Disagrees, NotCosigned
    from linkage.agency.mapping import BadMapping
    from linkage.agency.settings import BadHome
    from linkage.agency.standardise import AmbiguousDates

    codes: dict[int, tuple[type[Exception], ...]] = {
        UNKNOWN: (Unreachable, UnreadableExtract, OSError),
        FINDING: (TooManyBad, BadExtract, BadCheckpoint, AmbiguousDates, Refused, NotCosigned, Disagrees),
        USAGE: (BadMapping, BadHome, BadKey, BadBatch, BatchExists, BadCodes, BadCrosswalk, BadWitness),
    }
    return next((code for code, kinds in codes.items() if isinstance(problem, kinds)), None)

"""The folder that mirrors a public log, and what an auditor may find instead of a yes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

from audit.checkpoint import MAX_NOTE_BYTES, SignedCheckpoint
from audit.merkle import HASH_BYTES
from audit.tiles import ENTRIES, TILE_WIDTH, Tile, TileMalformed, TileUnreadable, bundle_prefix

CHECKPOINT: Final = "checkpoint"
HISTORY: Final = "history"
WITNESSED: Final = "checkpoint.witnessed"
TO_WITNESS: Final = "checkpoint.witness"
_MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + 0xFFFF)
_MAX_HISTORY_BYTES: Final = 16 * 1024 * 1024


class Finding(Exception):
    """Not a yes.  `code` is the exit code; `evidence` is what to keep, by file name."""

    code: ClassVar[int]

    def __init__(self, message: str, evidence: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.evidence: Final[Mapping[str, str]] = evidence or {}


class Broken(Finding):
    """Integrity failure: something was changed, cut off, forked, or signed by somebody else."""

    code = 1


class Unreadable(Finding):
    """A file can't be read: that proves nothing."""

    code = 3


class Stale(Finding):
    """Nothing is wrong with it, but it is older than asked for."""

    code = 4


class NoQuorum(Finding):
    """The log signed; too few witnesses did."""

    code = 5


class LogFolder:
    """A folder that mirrors the public log: `checkpoint`, `tile/<L>/...`, `tile/entries/...`.  A `TileReader`."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def note(self, name: str = CHECKPOINT) -> str:
        """A checkpoint's text.  Raises Unreadable, or Broken if it is not text at all."""
        try:
            with (self.path / name).open("rb") as file:
                return file.read(MAX_NOTE_BYTES + 1).decode()
        except OSError:
            raise Unreadable(f"the folder's {name} can't be read") from None
        except UnicodeDecodeError:
            raise Broken(f"the folder's {name} is not a signed note") from None

    def has(self, name: str) -> bool:
        """Whether the folder holds a checkpoint, or a history, of this name."""
        return (self.path / name).exists()

    def read(self, tile: Tile) -> bytes:
        """A tile's bytes; a partial tile that is gone is cut from the full one, as C2SP tlog-tiles lets it be."""
        data = self._bytes(tile)
        if data is None and tile.width < TILE_WIDTH:
            full = self._bytes(Tile(tile.level, tile.index))
            if full is not None:
                data = bundle_prefix(full, tile.width) if tile.level == ENTRIES else full[: tile.width * HASH_BYTES]
        if data is None:
            raise TileUnreadable(f"{tile.path} can't be read")
        return data

    def history(self) -> str:
        """What the log published of itself.  Raises Unreadable, or Broken if it is not text at all."""
        try:
            with (self.path / HISTORY).open("rb") as file:
                return file.read(_MAX_HISTORY_BYTES).decode()
        except OSError:
            raise Unreadable("the folder's history can't be read") from None
        except UnicodeDecodeError:
            raise Broken("the folder's history is not text") from None

    def tiles(self) -> Iterator[Tile]:
        """Every tile and bundle in the folder, whatever the checkpoint says; other files are passed over."""
        for path in sorted(self.path.glob("tile/**/*")):
            if path.is_file():
                try:
                    yield Tile.parse(path.relative_to(self.path).as_posix())
                except ValueError:
                    continue

    def _bytes(self, tile: Tile) -> bytes | None:
        limit = _MAX_BUNDLE_BYTES if tile.level == ENTRIES else TILE_WIDTH * HASH_BYTES
        try:
            with (self.path / tile.path).open("rb") as file:
                return file.read(limit + 1)
        except OSError:
            return None


def logs_in(folder: Path) -> tuple[LogFolder, ...]:
    """The logs of a folder: its own, or one in each folder in it (a log has a new folder each year)."""
    if (folder / CHECKPOINT).exists():
        return (LogFolder(folder),)
    inner = sorted(path.parent for path in folder.glob(f"*/{CHECKPOINT}"))
    return tuple(map(LogFolder, inner)) or (LogFolder(folder),)


class Reading:
    """Tiles that can't be read prove nothing; tiles that are not what they say are a finding."""

    def __init__(self, signed: SignedCheckpoint) -> None:
        self._signed = signed

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, TileUnreadable):
            raise Unreadable(str(fault)) from None
        if isinstance(fault, TileMalformed):
            raise Broken(str(fault), {"checkpoint": self._signed.note}) from None

"""Where a batch waits, encrypted under its own key, until the segments that hold it are in service.

    <folder>/<batch>/<table>.<number>    one chunk: blocks of 1 MiB, each sealed, in order

A chunk is on disk, file and folder synced, before anyone is told it arrived.  The parser alone is given a decrypted
copy, in a memory-backed folder where there is room (else in `.work` here, which should then be on an encrypted disk),
and that is gone with the parser.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final

from broker import folders
from broker.errors import NotFound, Undecipherable, unwritable
from broker.keys import DataKey
from linkage.records import TABLES, Manifest, Table

BLOCK: Final = 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (memory-backed; nothing else of ours goes there)


class Spool:
    """A folder of batches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folders.make(folder)

    def batches(self) -> frozenset[str]:
        """Ids of the batches that have a folder here."""
        return frozenset(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def writer(self, batch: str, table: Table, number: int, key: DataKey) -> ChunkWriter:
        """Begin to write a chunk.  Raises StoreUnavailable, StoreFull if the disk won't take it."""
        folder = self.folder / batch
        try:
            if not folder.is_dir():
                folders.make(folder)
            return ChunkWriter(folder, batch, table, number, key)
        except OSError as wrong:
            raise unwritable("the spool", wrong) from None

    def chunk(self, batch: str, table: Table, number: int, key: DataKey) -> Iterator[bytes]:
        """A chunk's blocks.  Raises NotFound if it is not here, Undecipherable if it was altered or moved."""
        try:
            with (self.folder / batch / f"{table}.{number}").open("rb") as file:
                block = 0
                while head := file.read(_LENGTH.size):
                    if len(head) < _LENGTH.size:
                        raise Undecipherable("a chunk in the spool is torn")
                    sealed = file.read(_LENGTH.unpack(head)[0])
                    yield key.open_chunk(sealed, batch=batch, table=f"{table}/{number}", number=block)
                    block += 1
        except FileNotFoundError:
            raise NotFound("there is no such chunk in the spool") from None

    @contextmanager
    def opened(
        self, batch: str, manifest: Manifest, key: DataKey, *, tables: Sequence[Table] = TABLES, checked: bool = False
    ) -> Iterator[tuple[Path, list[Table]]]:
        """A folder with the batch's decrypted tables and nothing else, gone on leaving; and the tables that are wrong.

        A table is wrong if its bytes are not the manifest's.  `checked`: it was found right once, so that its size and
        its chunks' digests say that it still is.
        """
        needed = sum(manifest.tables[table].size for table in tables)
        with self._workspace(batch, needed) as folder:
            wrong: list[Table] = []
            for table in tables:
                try:
                    right = self._assemble(folder, batch, table, manifest, key, checked=checked)
                except (NotFound, Undecipherable):
                    right = False
                if not right:
                    wrong.append(table)
            yield folder, wrong

    def drop(self, batch: str) -> None:
        """Forget a batch's chunks.  That it is gone already is no fault."""
        shutil.rmtree(self.folder / batch, ignore_errors=True)

    def sweep(self) -> int:
        """Remove decrypted copies that a killed process left behind; those in use are locked and stay.  How many."""
        swept = 0
        for parent in {self._memory(), self.folder / ".work"}:
            for folder in tuple(parent.iterdir()) if parent.is_dir() else ():
                with suppress(OSError), _lock(folder.with_suffix(".lock") if folder.is_dir() else folder):
                    if folder.is_dir():
                        shutil.rmtree(folder, ignore_errors=True)
                        folder.with_suffix(".lock").unlink(missing_ok=True)
                        swept += 1
                    elif not folder.with_suffix("").exists():
                        folder.unlink(missing_ok=True)
            with suppress(OSError):
                parent.rmdir()
        return swept

    def _assemble(
        self, folder: Path, batch: str, table: Table, manifest: Manifest, key: DataKey, *, checked: bool
    ) -> bool:
        entry = manifest.tables[table]
        whole = sha256()
        right = True
        with (folder / f"{table}.parquet").open("wb") as file:
            for number, due in enumerate(entry.chunks):
                part = sha256()
                for block in self.chunk(batch, table, number, key):
                    (part if checked else whole).update(block)  # a chunk's was looked at when it arrived
                    file.write(block)
                right = right and (not checked or part.hexdigest() == due)
            return right and file.tell() == entry.size and (checked or whole.hexdigest() == entry.sha256)

    @contextmanager
    def _workspace(self, batch: str, needed: int) -> Iterator[Path]:
        parent = self._memory()
        try:
            parent.mkdir(mode=0o700, exist_ok=True)
            mine = parent.lstat()
            ours = stat.S_ISDIR(mine.st_mode) and mine.st_uid == os.getuid() and not mine.st_mode & 0o077
            room = shutil.disk_usage(parent).free if ours else 0  # anyone may make a folder there before us
        except OSError:
            room = 0
        if room < 2 * needed:
            parent = self.folder / ".work"
            parent.mkdir(mode=0o700, exist_ok=True)
        folder = parent / f"{batch}-{secrets.token_hex(4)}"
        with ExitStack() as held:
            for _ in range(5):  # whoever is done removes the folder of folders, perhaps just now
                parent.mkdir(mode=0o700, exist_ok=True)
                with suppress(FileNotFoundError):
                    held.enter_context(_lock(folder.with_suffix(".lock")))
                    break
            try:
                folder.mkdir(mode=0o700)
                yield folder
            except OSError as wrong:
                raise unwritable("the folder of an opened batch", wrong) from None
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                folder.with_suffix(".lock").unlink(missing_ok=True)
                with suppress(OSError):
                    parent.rmdir()

    def _memory(self) -> Path:
        # each spool its own, so that two brokers on one machine never sweep each other's
        return _MEMORY / f"broker-{sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]}"


class ChunkWriter:
    """Takes a chunk's bytes as they come; `finish`, then `keep`.  Left without `keep`, nothing stays."""

    def __init__(self, folder: Path, batch: str, table: Table, number: int, key: DataKey) -> None:
        self._folder, self._batch, self._key = folder, batch, key
        self._place, self._name = f"{table}/{number}", f"{table}.{number}"
        self._part = folder / f"{self._name}.{secrets.token_hex(8)}.part"
        self._file = self._part.open("xb")
        self._digest = sha256()
        self._waiting = bytearray()
        self._blocks = 0
        self._kept = False
        self.size = 0

    def write(self, data: bytes) -> None:
        """More bytes.  Raises StoreUnavailable, StoreFull if the disk won't take them."""
        self.size += len(data)
        self._digest.update(data)
        self._waiting += data
        while len(self._waiting) >= BLOCK:
            self._seal(bytes(self._waiting[:BLOCK]))
            del self._waiting[:BLOCK]

    def finish(self) -> str:
        """The SHA-256 (hex) of all that was written, which is on disk now but under no name that is read."""
        if self._waiting:
            self._seal(bytes(self._waiting))
            self._waiting.clear()
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as wrong:
            raise unwritable("the spool", wrong) from None
        return self._digest.hexdigest()

    def keep(self) -> None:
        """Give the chunk its name; on return file and folder are on disk."""
        try:
            self._file.close()
            self._part.rename(self._folder / self._name)
            self._kept = True
            folders.sync(self._folder)
        except OSError as wrong:
            raise unwritable("the spool", wrong) from None

    def __enter__(self) -> ChunkWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk refuses what is buffered again: it has been said already
            self._file.close()
        if not self._kept:
            self._part.unlink(missing_ok=True)

    def _seal(self, block: bytes) -> None:
        sealed = self._key.seal_chunk(block, batch=self._batch, table=self._place, number=self._blocks)
        self._blocks += 1
        try:
            self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        except OSError as wrong:
            raise unwritable("the spool", wrong) from None


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock; the system lets go of it when its process ends.  Raises OSError if another holds it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield

"""What a disk holds after a power cut: a real command's calls recorded by strace, and the disk rebuilt at any of them.

SIGKILL leaves the page cache, so that only this shows an fsync that is missing.  `recorded` runs a command and reads its
log of system calls; a `Disk` takes them one by one and can write, at any point, what might be left if the power went:

* of a file, what its last fsync covered, and of each write since any subset of its sectors of 512 bytes (torn writes);
* of a folder, the names its last fsync covered, and of what happened to names since the first few in their order.

Nothing ties one file or folder to another, as nothing on a disk does.  The method is that of Pillai et al., "All File
Systems Are Not Created Equal" (OSDI 2014); it sees the database, the spool, the vault, the signer and the keys alike.
SQLite's index of its write-ahead log lives in shared memory, is rebuilt on opening, and is left out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECTOR = 512
TRACED = (
    "openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,sendfile,"
    "copy_file_range,lseek,close,dup,dup2,dup3,fcntl,mmap"
)
SAID = "said "  # what a recorded command acknowledges begins so, on a line of its output
_HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)(.*)$", re.DOTALL)
_CUT_SHORT = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$", re.DOTALL)
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$", re.DOTALL)
_FD = re.compile(r"^(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


@dataclass(frozen=True)
class Act:
    """One thing that a process did to a disk: `kind` is write, length, sync, name, unname, rename, folder or said."""

    kind: str
    path: str = ""
    data: bytes = b""
    offset: int | None = 0  # None: at the end
    to: str = ""


@dataclass(eq=False)
class Kept:
    """A file: what the disk surely holds of it, and what happened to it since."""

    durable: bytes = b""
    pending: list[Act] = field(default_factory=list)
    now: bytearray = field(default_factory=bytearray)

    def after(self, chance: Random | None, share: float) -> bytes:
        """Its bytes after a cut: without `chance`, none of what is pending."""
        if chance is None or not self.pending:
            return self.durable
        content = bytearray(self.durable)
        for act in self.pending:
            if act.kind == "length":
                _resize(content, int(act.offset or 0))
            else:
                _write_torn(content, act, chance, share)
        return bytes(content)


class Disk:
    """A folder as its disk holds it, from a copy made when all of it was durable."""

    def __init__(self, copied: Path) -> None:
        self.names: dict[str, Kept | None] = {}  # None: a folder
        for path in sorted(copied.rglob("*")):
            content = None if path.is_dir() else path.read_bytes()
            kept = None if content is None else Kept(content, [], bytearray(content))
            self.names[path.relative_to(copied).as_posix()] = kept
        self.durable = dict(self.names)
        self.moved: dict[str, list[tuple[str, str, Kept | None]]] = defaultdict(list)  # folder: (added or gone, name)

    def do(self, act: Act) -> None:
        """Take one act."""
        match act.kind:
            case "name" if act.path not in self.names:
                self._add(act.path, Kept())
            case "folder":
                self._add(act.path, None)
            case "unname":
                self._drop(act.path)
            case "rename":
                moved = self.names[act.path]
                if _parent(act.path) != _parent(act.to) or moved is None:
                    raise AssertionError(f"not foreseen: {act.path} moves to {act.to}")
                self._drop(act.path)
                self._add(act.to, moved)
            case "sync":
                self._sync(act.path)
            case "write" | "length":
                self._write(act)

    def left(
        self, into: Path, *, chance: Random | None = None, share: float = 0.5, killed: bool = False
    ) -> None:  # fmt: skip
        """Write to `into` what a cut now may leave: with `chance` so much of what is pending, without it nothing.

        `killed`: the process alone has ended, and the machine goes on: everything that it did is there.
        """
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        names = dict(self.names if killed else self.durable)
        for ops in () if killed else self.moved.values():
            for kind, name, kept in ops[: chance.randint(0, len(ops)) if chance else 0]:
                if kind == "added":
                    names[name] = kept
                else:
                    names.pop(name, None)
        for name in sorted(names):
            kept, place = names[name], into / name
            if not place.parent.is_dir():
                continue  # the folder's own name was lost, and all that is in it
            if kept is None:
                place.mkdir()
            else:
                place.write_bytes(bytes(kept.now) if killed else kept.after(chance, share))
                place.chmod(0o600)

    def assert_is(self, folder: Path) -> None:
        """The real folder is what all acts together make: nothing was passed over."""
        real = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not _left_out(path.name)}
        assert set(real) == set(self.names)
        for name, kept in self.names.items():
            assert kept is None or real[name].read_bytes() == bytes(kept.now), name

    def _add(self, name: str, kept: Kept | None) -> None:
        self.names[name] = kept
        self.moved[_parent(name)].append(("added", name, kept))

    def _drop(self, name: str) -> None:
        self.names.pop(name)
        self.moved[_parent(name)].append(("gone", name, None))

    def _sync(self, name: str) -> None:
        kept = self.names.get(name)
        if kept is not None:
            kept.durable, kept.pending = bytes(kept.now), []
            return
        for kind, moved, node in self.moved.pop(name, []):
            if kind == "added":
                self.durable[moved] = node
            else:
                self.durable.pop(moved, None)

    def _write(self, act: Act) -> None:
        kept = self.names.get(act.path)
        if kept is None:
            return  # its name is gone: nobody will read it
        if act.kind == "length":
            if act.offset == len(kept.now):
                return
            _resize(kept.now, int(act.offset or 0))
        else:
            act = Act("write", act.path, act.data, len(kept.now) if act.offset is None else act.offset)
            assert act.offset is not None
            _resize(kept.now, max(len(kept.now), act.offset))
            kept.now[act.offset : act.offset + len(act.data)] = act.data
        kept.pending.append(act)


def _resize(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


def _write_torn(content: bytearray, act: Act, chance: Random, share: float) -> None:
    start = int(act.offset or 0)
    for at in range(start, start + len(act.data), SECTOR):
        end = min(at - at % SECTOR + SECTOR, start + len(act.data))
        if chance.random() < share:
            _resize(content, max(len(content), at))
            content[at:end] = act.data[at - start : end - start]


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _left_out(name: str) -> bool:
    return name.endswith("-shm")


# --- Reading strace's log ---------------------------------------------------------------------------------------------


def recorded(command: Sequence[str], folder: Path, log: Path, *, env: Mapping[str, str] | None = None) -> list[Act]:
    """Run a command to its end, and what it did in `folder`, in order, with what it said on its output between."""
    trace = ("strace", "-f", "-qq", "-y", "-xx", "-s", "4000000", "-e", f"trace={TRACED}", "-o", str(log))
    done = subprocess.run([*trace, *command], capture_output=True, text=True, check=False, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(acts(log.read_text("ascii").splitlines(), str(folder.resolve())))


def acts(lines: Sequence[str], folder: str) -> Iterator[Act]:
    """The acts in a log of strace, in the order in which the calls ended."""
    reading = _Reading(folder)
    waiting: dict[str, str] = {}
    for line in lines:
        if found := _CUT_SHORT.match(line):
            waiting[found[1]] = found[2]
            continue
        whole = line
        if found := _RESUMED.match(line):
            whole = f"{found[1]} {waiting.pop(found[1])}{found[2]}"
        call = _CALL.match(whole)
        if call is None or call[4].startswith("-") or call[4] == "?":
            continue
        yield from reading.call(call[2], call[3], call[4], call[5])


class _Reading:
    """Where each open file of the process stands."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.at: dict[int, list[int | None]] = {}  # of a descriptor: its place, shared by those made of it; None: end

    def inside(self, path: str) -> str | None:
        """A path within the folder, relative to it."""
        if path == self.folder:
            return ""
        name = path.removeprefix(self.folder + "/")
        return None if name == path or _left_out(name) or name.endswith(" (deleted)") else name

    def call(self, name: str, told: str, answer: str, rest: str) -> Iterator[Act]:
        if name in ("close", "dup", "dup2", "dup3", "fcntl", "lseek", "openat", "open", "creat"):
            yield from self._descriptor(name, told, answer, rest)
            return
        paths = self._paths(name, told)
        if name in ("rename", "renameat", "renameat2"):
            assert paths.count(None) in (0, 2), "not foreseen: a file moves into the folder or out of it"
            if paths[0] is not None and paths[1] is not None:
                yield Act("rename", paths[0], to=paths[1])
        elif name in ("unlink", "unlinkat", "rmdir") and paths[0] is not None:
            yield Act("unname", paths[0])
        elif name in ("mkdir", "mkdirat") and paths[0] is not None:
            yield Act("folder", paths[0])
        else:
            yield from self._file(name, told, answer)

    def _file(self, name: str, told: str, answer: str) -> Iterator[Act]:
        found = _FD.match(told)
        if name == "mmap":
            mapped = re.search(r"MAP_SHARED[^,]*, (\d+<[^>]*>)", told)
            where = _text(_FD.match(mapped[1])[2]) if mapped and "PROT_WRITE" in told else ""  # type: ignore[index]
            assert self.inside(where) is None, f"a file is written through memory: {where}"
            return
        if found is None or found[1] == "AT_FDCWD":
            return
        fd, path = int(found[1]), _text(found[2])
        data = _bytes(told) if name in ("write", "pwrite64") else b""
        if name == "write" and fd == 1:
            yield from (Act("said", data=line) for line in data.splitlines() if line.startswith(SAID.encode()))
        inside = self.inside(path)
        if inside is None:
            return
        match name:
            case "write":
                place = self.at.setdefault(fd, [0])
                yield Act("write", inside, data[: int(answer)], place[0])
                if place[0] is not None:
                    place[0] += int(answer)
            case "pwrite64":
                yield Act("write", inside, data[: int(answer)], int(told.rpartition(", ")[2]))
            case "ftruncate":
                yield Act("length", inside, offset=int(told.rpartition(", ")[2]))
            case "fsync" | "fdatasync":
                yield Act("sync", inside)
            case _:
                raise AssertionError(f"not foreseen: {name} of {inside}")

    def _descriptor(self, name: str, told: str, answer: str, rest: str) -> Iterator[Act]:
        first = re.match(r"\d+", told)
        match name:
            case "close":
                self.at.pop(int(first[0]) if first else -1, None)
            case "dup" | "dup2" | "dup3" | "fcntl":
                if first and int(first[0]) in self.at and (name != "fcntl" or "F_DUPFD" in told):
                    self.at[int(answer)] = self.at[int(first[0])]
            case "lseek":
                place = self.at.get(int(first[0]) if first else -1)
                if place is not None and place[0] is not None:
                    place[0] = int(answer)
            case _:
                opened = re.match(r"<((?:\\x[0-9a-f]{2})*)>", rest)
                path = self.inside(_text(opened[1])) if opened else None
                if not path:
                    return
                self.at[int(answer)] = [None if "O_APPEND" in told else 0]
                if "O_CREAT" in told:
                    yield Act("name", path)
                if "O_TRUNC" in told:
                    yield Act("length", path, offset=0)

    def _paths(self, name: str, told: str) -> list[str | None]:
        if not name.startswith(("rename", "unlink", "rmdir", "mkdir")):
            return []
        found: list[str | None] = []
        for part in re.finditer(r'(?:AT_FDCWD|\d+)?(?:<((?:\\x[0-9a-f]{2})*)>, )?"((?:\\x[0-9a-f]{2})*)"', told):
            path = _text(part[2])
            found.append(self.inside(path if path.startswith("/") or not part[1] else f"{_text(part[1])}/{path}"))
        return found


def _text(hexed: str) -> str:
    return bytes.fromhex(hexed.replace("\\x", "")).decode()


def _bytes(told: str) -> bytes:
    found = _HEX.search(told)
    return bytes.fromhex(found[1].replace("\\x", "")) if found else b""

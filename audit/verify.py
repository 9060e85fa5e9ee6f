"""What an auditor proves, from a folder that mirrors the public log, a policy file, and what was kept last time.

Each function returns what it found to be so, or raises a `Finding` whose class says what kind of no it is: `Broken`
(somebody changed something; the evidence is in it), `Unreadable` (a file can't be read, which proves nothing),
`NoQuorum`, `Stale`.  A tile is never trusted by itself: every yes ends in a proof against a signed root, or in the root
computed anew from the entries up.

`consistency` in steps, after sigstore's habit of numbering them:
1. the folder's checkpoint is signed by a log of the policy, under the key that signed before, or one that that key
   handed over to (`audit.rotation`);
2. the folder's tiles hash to its root;
3. it is not smaller than the kept one, and it begins with it;
4. a quorum of witnesses signed it;
5. it is not older than asked for.
What the caller MUST do: hand the policy over out of band, and keep the new checkpoint if, and only if, all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from audit.checkpoint import MAX_NOTE_BYTES, NoteInvalid, SignedCheckpoint
from audit.events import InvalidEvent, Json, leaf_ms
from audit.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Frontier,
    ProofInvalid,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)
from audit.policy import Policy, QuorumMissing
from audit.receipts import LogReceipt, ReceiptInvalid
from audit.rotation import HistoryInvalid, follow, parse, signers
from audit.tiles import (
    ENTRIES,
    TILE_WIDTH,
    Tile,
    TileHashes,
    TileMalformed,
    TileReader,
    TileUnreadable,
    bundle_prefix,
    bundles_of,
    checked,
    decode_bundle,
    split_hashes,
)

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

    def note(self) -> str:
        """The checkpoint's text.  Raises Unreadable, or Broken if it is not text at all."""
        try:
            with (self.path / "checkpoint").open("rb") as file:
                return file.read(MAX_NOTE_BYTES + 1).decode()
        except OSError:
            raise Unreadable("the folder's checkpoint can't be read") from None
        except UnicodeDecodeError:
            raise Broken("the folder's checkpoint is not a signed note") from None

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
            with (self.path / "history").open("rb") as file:
                return file.read(_MAX_HISTORY_BYTES).decode()
        except OSError:
            raise Unreadable("the log's key has changed, and the folder's history can't be read") from None
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


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found to be so.  `note` is the checkpoint to keep; `facts` say it to people and programs."""

    note: str
    facts: Mapping[str, Json]


def inclusion(receipt: LogReceipt, policy: Policy, log: LogFolder | None = None) -> Seen:
    """The event, as opened, is in the log, under a checkpoint that meets the policy.

    With a folder, also: the folder's log is the one the receipt was given for, and holds the leaf at its place; and a
    quorum may have signed either checkpoint, since a receipt leaves before witnesses have signed.  Without one, the
    receipt's own checkpoint must have the quorum.  A folder older than the receipt is Stale.
    """
    _signed(policy, receipt.proof.signed, "the receipt's checkpoint")
    try:
        receipt.verify_itself()
    except ReceiptInvalid as fault:
        raise Broken(f"the receipt proves nothing: {fault}", {"receipt.json": receipt.dumps()}) from None
    best = receipt.proof.signed
    if log is not None:
        newest = _folder_checkpoint(log, policy)
        _holds(receipt, newest, log)
        if not _has_quorum(policy, best):
            best = newest
    _quorum(policy, best)
    return Seen(best.note, {**_facts(best, policy), "event_id": receipt.event_id, "index": receipt.proof.index})


def consistency(log: LogFolder, policy: Policy, kept: str | None, *, now_s: int, max_age_s: int | None = None) -> Seen:
    """The log has only grown since `kept`, the note that was kept last time (None: nothing was; this is the first).

    The age asked for by `max_age_s` is that of the newest sign of life: a witness's time, or that of the last leaf.
    """
    newest = _folder_checkpoint(log, policy, since=kept)
    tiles = TileHashes(log, newest.checkpoint.size)
    before = _grown(policy, kept, newest, tiles)
    _quorum(policy, newest)
    facts = _facts(newest, policy)
    if max_age_s is not None:
        life = max([*policy.accept(newest).cosigned.values(), _last_leaf_s(log, newest, tiles)])
        facts["age_s"] = now_s - life
        if now_s - life > max_age_s:
            raise Stale(f"the last sign of life is {now_s - life} s old, more than {max_age_s} s")
    return Seen(newest.note, {**facts, "grown_from": before})


def fsck(log: LogFolder, policy: Policy, kept: str | None = None) -> Seen:
    """Every bundle, tile and checkpoint, hashed anew from the entries up.  Names each file that is not as it should be.

    The whole folder is gone through before anything is raised.
    """
    newest = _folder_checkpoint(log, policy, since=kept, hashed=False)
    before = None if kept is None else _kept(policy, kept, newest)
    rebuilt = _Rebuilt(log, newest.checkpoint.size, 0 if before is None else before.checkpoint.size)
    rebuilt.run()
    found = list(rebuilt.altered)
    if rebuilt.complete and newest.checkpoint.root != rebuilt.root:
        found.append("checkpoint: the entries do not hash to its root")
    if rebuilt.complete and before is not None and rebuilt.kept_root != before.checkpoint.root:
        found.append(f"history was rewritten: the first {before.checkpoint.size} entries are not those that were kept")
    if found:
        raise Broken("; ".join(found + rebuilt.unreadable), _notes(newest, before))
    if rebuilt.unreadable:
        raise Unreadable("; ".join(rebuilt.unreadable))
    _quorum(policy, newest)
    facts = _facts(newest, policy)
    return Seen(newest.note, {**facts, "entries": newest.checkpoint.size, "files": rebuilt.files})


def receipts(kept: Mapping[str, LogReceipt], log: LogFolder, policy: Policy, state: str | None) -> dict[str, Finding]:
    """Each receipt against the newest checkpoint, by name; those that hold are not in the answer.

    Raises as `consistency` does if the log itself is not a growth of `state`.
    """
    newest = _folder_checkpoint(log, policy, since=state)
    _grown(policy, state, newest, TileHashes(log, newest.checkpoint.size))
    wrong: dict[str, Finding] = {}
    for name, receipt in kept.items():
        try:
            inclusion(receipt, policy, log)
        except Finding as finding:
            wrong[name] = finding
    return wrong


def _folder_checkpoint(
    log: LogFolder, policy: Policy, *, since: str | None = None, hashed: bool = True
) -> SignedCheckpoint:
    """The folder's checkpoint, signed by a log of the policy, and (`hashed`) the root of the folder's own tiles.

    Its key is one that signed `since`, the kept note, or was handed over by it; without one, the policy's first.
    """
    note = log.note()
    try:
        signed = SignedCheckpoint.parse(note)
    except NoteInvalid as fault:
        raise Broken(f"the folder's checkpoint is no checkpoint: {fault}", {"checkpoint": note}) from None
    _signed(policy, signed, "the folder's checkpoint")
    _handed_over(log, policy, signed, since)
    if hashed:
        size = signed.checkpoint.size
        with _Reading(signed):
            if root_at(TileHashes(log, size), size) != signed.checkpoint.root:
                raise Broken("the folder's tiles do not hash to its checkpoint's root", {"checkpoint": note})
    return signed


def _signed(policy: Policy, signed: SignedCheckpoint, what: str) -> None:
    try:
        policy.signed_by_log(signed)
    except NoteInvalid as fault:
        raise Broken(f"{what} is not signed as the policy says: {fault}", {"checkpoint": signed.note}) from None


def _handed_over(log: LogFolder, policy: Policy, newest: SignedCheckpoint, since: str | None) -> None:
    """The log's key is that of before, or follows from it by entries that the log published and its tiles hold."""
    own = [key for key in policy.logs if key.name == newest.checkpoint.origin]
    start = own[:1] if since is None else signers(_parsed(since) or newest, own)
    now = signers(newest, own)
    if not start or set(start) & set(now):
        return
    told = log.history()
    evidence = _notes(newest, None) | {"history": told}
    try:
        milestones = parse(told, newest.checkpoint.origin)
    except HistoryInvalid as fault:
        raise Broken(f"the log's key has changed, and its history proves nothing: {fault}", evidence) from None
    covered = [each for each in milestones if each.receipt.size <= newest.checkpoint.size]
    if not set(follow(covered, start)) & set(now):
        raise Broken("the log's key has changed, and no entry of the log hands over to the new one", evidence)
    for milestone in covered:
        _holds(milestone.receipt, newest, log)


def _parsed(note: str) -> SignedCheckpoint | None:
    try:
        return SignedCheckpoint.parse(note)
    except NoteInvalid:
        return None


def _kept(policy: Policy, note: str, newest: SignedCheckpoint) -> SignedCheckpoint:
    """The kept checkpoint, if the log is not smaller, nor another tree of the same size."""
    try:
        kept = SignedCheckpoint.parse(note)
        policy.signed_by_log(kept)
    except NoteInvalid as fault:
        raise Unreadable(f"the kept state is no checkpoint under this policy: {fault}") from None
    if kept.checkpoint.origin != newest.checkpoint.origin:
        raise Unreadable("the kept state is of another log than the folder")
    old, new = kept.checkpoint, newest.checkpoint
    if new.size < old.size:
        raise Broken(f"the log was cut off: it had {old.size} leaves and has {new.size}", _notes(newest, kept))
    if new.size == old.size and new.root != old.root:
        raise Broken(f"the log was forked: there are two trees of {old.size} leaves", _notes(newest, kept))
    return kept


def _grown(policy: Policy, note: str | None, newest: SignedCheckpoint, tiles: TileHashes) -> int | None:
    """The size it grew from."""
    if note is None:
        return None
    kept = _kept(policy, note, newest)
    _begins_with(newest, kept, tiles)
    return kept.checkpoint.size


def _begins_with(newest: SignedCheckpoint, older: SignedCheckpoint, tiles: TileHashes) -> None:
    old, new = older.checkpoint, newest.checkpoint
    with _Reading(newest):
        proof = consistency_proof(tiles, old.size, new.size)
    try:
        verify_consistency(old.size, new.size, old.root, new.root, proof)
    except ProofInvalid as fault:
        raise Broken(
            f"history was rewritten: the {new.size} leaves do not begin with the {old.size} seen before ({fault})",
            _notes(newest, older),
        ) from None


def _holds(receipt: LogReceipt, newest: SignedCheckpoint, log: LogFolder) -> None:
    """The folder's log begins with the receipt's, and has the leaf in its bundle."""
    then, now = receipt.proof.signed.checkpoint, newest.checkpoint
    if then.origin != now.origin:
        raise Unreadable("the receipt is of another log than the folder")
    if now.size < then.size:
        raise Stale(f"the folder has {now.size} leaves and the receipt is for {then.size}: fetch the log again")
    _begins_with(newest, receipt.proof.signed, TileHashes(log, now.size))
    if _leaf_text(log, newest, receipt.proof.index) != receipt.proof.leaf.text:
        raise Broken("the folder holds another leaf in the receipt's place", {"receipt.json": receipt.dumps()})


def _leaf_text(log: TileReader, signed: SignedCheckpoint, index: int) -> bytes:
    number, at = divmod(index, TILE_WIDTH)
    width = min(TILE_WIDTH, signed.checkpoint.size - number * TILE_WIDTH)
    with _Reading(signed):
        bundle = Tile(ENTRIES, number, width)
        return decode_bundle(bundle, log.read(bundle))[at]


def _last_leaf_s(log: LogFolder, signed: SignedCheckpoint, tiles: TileHashes) -> int:
    """When the last leaf was written, in unix seconds, proved against the root; 0 for an empty log."""
    size, root = signed.checkpoint.size, signed.checkpoint.root
    if not size:
        return 0
    text = _leaf_text(log, signed, size - 1)
    with _Reading(signed):
        proof = inclusion_proof(tiles, size - 1, size)
    try:
        verify_inclusion(leaf_hash(text), size - 1, size, proof, root)
        return leaf_ms(text) // 1000
    except (ProofInvalid, InvalidEvent) as fault:
        raise Broken(f"the folder's last entry is not the log's: {fault}", _notes(signed, None)) from None


def _quorum(policy: Policy, signed: SignedCheckpoint) -> None:
    try:
        policy.accept(signed)
    except QuorumMissing as fault:
        raise NoQuorum(str(fault)) from None


def _has_quorum(policy: Policy, signed: SignedCheckpoint) -> bool:
    try:
        policy.accept(signed)
    except QuorumMissing:
        return False
    return True


def _facts(signed: SignedCheckpoint, policy: Policy) -> dict[str, Json]:
    origin, size, root = signed.checkpoint.text.split("\n")[:3]
    cosigned = dict(policy.accept(signed).cosigned)
    return {"origin": origin, "size": int(size), "root": root, "cosigned": cosigned}


def _notes(newest: SignedCheckpoint, kept: SignedCheckpoint | None) -> dict[str, str]:
    """Two notes one key signed that can't both be true are the evidence of a fork: kept whole."""
    return {"checkpoint": newest.note} | ({} if kept is None else {"checkpoint.kept": kept.note})


class _Reading:
    """Tiles that can't be read prove nothing; tiles that are not what they say are a finding."""

    def __init__(self, signed: SignedCheckpoint) -> None:
        self._signed = signed

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, TileUnreadable):
            raise Unreadable(str(fault)) from None
        if isinstance(fault, TileMalformed):
            raise Broken(str(fault), _notes(self._signed, None)) from None


class _Rebuilt:
    """The whole log hashed from its entries up, each file held against what it ought to be."""

    def __init__(self, log: LogFolder, size: int, kept_size: int) -> None:
        self.altered: list[str] = []
        self.unreadable: list[str] = []
        self.complete = True
        self.files = 0
        self.kept_root = EMPTY_ROOT
        self._log = log
        self._size = size
        self._kept_size = kept_size
        self._done = 0
        self._last_ms = 0
        self._rows: list[list[bytes]] = [[]]  # level by level, the hashes of the tile that is not yet full
        self._made: dict[tuple[int, int], bytes] = {}

    @property
    def root(self) -> bytes:
        """The root over the entries read so far."""
        rows = reversed(self._rows)  # each row's maximal subtrees, the highest level's first, are the frontier
        hashes = tuple(each for row in rows for each in Frontier().extend(row).hashes)
        return Frontier(self._done, hashes).root

    def run(self) -> None:
        for bundle in bundles_of(self._size):
            hashes = self._bundle(bundle)
            if hashes is None:
                self.complete = False
                return
            until = self._kept_size - self._done
            if 0 < until <= len(hashes):
                self._add(hashes[:until])
                self.kept_root = self.root
                hashes = hashes[until:]
            self._add(hashes)
        for level, row in enumerate(self._rows):
            if row:
                self._tile(Tile(level, self._done >> (8 * level) >> 8, len(row)), b"".join(row))
        self._older_partials()

    def _bundle(self, bundle: Tile) -> list[bytes] | None:
        """The leaf hashes of a bundle; of its tile, if the bundle can't be read."""
        try:
            leaves = decode_bundle(bundle, self._log.read(bundle))
        except TileUnreadable as fault:
            self.unreadable.append(str(fault))
            return self._from_tile(bundle)
        except TileMalformed as fault:
            self.altered.append(str(fault))
            return self._from_tile(bundle)
        self.files += 1
        self._times(bundle, leaves)
        return [leaf_hash(leaf) for leaf in leaves]

    def _from_tile(self, bundle: Tile) -> list[bytes] | None:
        tile = Tile(0, bundle.index, bundle.width)
        try:
            return split_hashes(checked(tile, self._log.read(tile)))
        except (TileUnreadable, TileMalformed) as fault:
            self.unreadable.append(str(fault))
            return None

    def _times(self, bundle: Tile, leaves: Sequence[bytes]) -> None:
        try:
            times = [leaf_ms(leaf) for leaf in leaves]
        except InvalidEvent:
            self.altered.append(f"{bundle.path} holds an entry that is no leaf of ours")
            return
        if any(later < earlier for earlier, later in zip([self._last_ms, *times], times, strict=False)):
            self.altered.append(f"{bundle.path} holds an entry that is earlier than the one before")
        self._last_ms = times[-1]

    def _add(self, hashes: Sequence[bytes]) -> None:
        self._done += len(hashes)
        level, added = 0, list(hashes)
        while added:
            row = self._rows[level]
            row += added
            added = []
            if len(row) == TILE_WIDTH:  # never more: a bundle fills at most one tile
                self._tile(Tile(level, (self._done >> (8 * level + 8)) - 1), b"".join(row))
                added = [Frontier().extend(row).root]
                row.clear()
                level += 1
                if level == len(self._rows):
                    self._rows.append([])

    def _tile(self, tile: Tile, data: bytes) -> None:
        self._made[tile.level, tile.index] = data
        try:
            held = self._log.read(tile)
        except TileUnreadable as fault:
            self.unreadable.append(str(fault))
            return
        self.files += 1
        if held != data:
            self.altered.append(f"{tile.path} is not what the entries hash to")

    def _older_partials(self) -> None:
        """Partial tiles of earlier sizes, where the folder still has them."""
        for tile in self._log.tiles():
            whole = self._made.get((tile.level, tile.index))
            if whole is not None and tile.width * HASH_BYTES < len(whole):
                self._tile_prefix(tile, whole)

    def _tile_prefix(self, tile: Tile, whole: bytes) -> None:
        self.files += 1
        if self._log.read(tile) != whole[: tile.width * HASH_BYTES]:
            self.altered.append(f"{tile.path} is not what the entries hash to")

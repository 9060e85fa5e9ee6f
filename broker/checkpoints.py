"""What has grown is signed: the newest shard's checkpoint each time, and those before it to their end."""

from __future__ import annotations

from collections.abc import Iterable

from audit.checkpoint import SignedCheckpoint
from audit.merkle import consistency_proof
from audit.sequencer import Head
from audit.signer import Growth
from audit.tiles import Tile, TileHashes
from broker import clock
from broker.errors import LogUnavailable
from broker.places import RecentTiles
from broker.signing import Signers
from broker.store import Store
from broker.store.roles import SEQUENCER
from broker.store.sequence import Batch, SqlTiles, head_of, keep_checkpoint, newest_checkpoint
from broker.store.shards import every_shard


class Checkpoints:
    """Asks the signer, and keeps what it signs."""

    def __init__(self, store: Store, signers: Signers) -> None:
        self._store = store
        self._signers = signers
        self._tiles = RecentTiles(store, "")
        self._kept: SignedCheckpoint | None = None  # the newest that is known to be in the table
        self._newest = ""  # the shard before which all are signed to their end
        self._finished: set[str] = set()  # shards that were closed, signed to their end, and closed at the signer

    def sign(self, batch: Batch) -> tuple[SignedCheckpoint, TileHashes]:
        """The newest checkpoint of the shard that a batch went to, signed and kept, and the hashes at the batch's head.

        It is of a later head if another process has signed one.  Raises SignerRefused, or what `Signers` raises.
        """
        if self._newest != batch.log_id:
            self._finish_older(batch.log_id)
            self._newest, self._tiles = batch.log_id, RecentTiles(self._store, batch.log_id)
        self._tiles.keep(batch.tiles)
        hashes, kept = TileHashes(self._tiles, batch.head.size), self._kept
        if (
            kept is None
            or not kept.checkpoint.size == batch.head.size == self._signers.signed(batch.log_id)
            or (not batch.entries and not self._in_the_table(kept))  # which its database may have lost
        ):
            kept = self._kept = self._signed(batch.log_id, batch.head, hashes)
        return kept, hashes

    def _in_the_table(self, kept: SignedCheckpoint) -> bool:
        with self._store.reading() as reading:
            newest = newest_checkpoint(reading, self._newest)
        return newest is not None and newest.size >= kept.checkpoint.size

    def hashes(self, log_id: str, size: int, tiles: Iterable[tuple[Tile, bytes]]) -> TileHashes:
        """The hashes of a log at this size; `tiles` of it were read just now, others are as they are asked for."""
        known = self._tiles if self._tiles.log_id == log_id else RecentTiles(self._store, log_id)
        known.keep(tiles)
        return TileHashes(known, size)

    def _finish_older(self, newest: str) -> None:
        with self._store.reading() as reading:
            shards = [(shard, head_of(reading, shard.log_id)) for shard in every_shard(reading)]
        for shard, head in shards:
            log_id = shard.log_id
            if log_id in self._finished or log_id == newest:
                continue
            if not shard.frozen and head is not None and self._signers.signed(log_id) is not None:
                self._signed(log_id, head, TileHashes(RecentTiles(self._store, log_id), head.size))
                self._signers.close(log_id)
            self._finished.add(log_id)  # of a frozen one nothing more is signed: it is as it was left
        self._kept = None

    def _signed(self, log_id: str, head: Head, hashes: TileHashes) -> SignedCheckpoint:
        def newest(signed: int) -> Growth:
            if head.size >= signed:
                return Growth(head.frontier, consistency_proof(hashes, signed, head.size))
            with self._store.reading() as later:  # another process has signed more since we looked
                grown = head_of(later, log_id)
                if grown is None:
                    raise LogUnavailable("the log has not been opened: run `broker migrate`")
                if grown.size < signed:
                    return Growth(grown.frontier)  # which the signer refuses
                proof = consistency_proof(TileHashes(SqlTiles(later, log_id), grown.size), signed, grown.size)
                return Growth(grown.frontier, proof)

        note = self._signers.sign(log_id, newest)
        signed = SignedCheckpoint.parse(note)
        with self._store.transaction(SEQUENCER) as tx:
            keep_checkpoint(tx, log_id, signed.checkpoint.size, note.encode(), at=clock.now())
        return signed

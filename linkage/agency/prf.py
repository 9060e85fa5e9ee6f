"""The pseudo-random function under every encoding: AES-256, of single blocks and as CMAC, over whole columns at once.

`Prf.of_blocks` is the bare block cipher.  A block cipher under a secret key can't be told from a random function on
distinct blocks until about 2**64 of them.  `Prf.of_texts` is AES-CMAC of each row's texts joined by 0x1F; messages of
the same number of blocks go through the chain together.

Sources: NIST FIPS 197 (AES); NIST SP 800-38B and RFC 4493 (CMAC).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC

from linkage.agency.columns import WORD, Ints, Texts, Words

SEPARATOR: Final = b"\x1f"
BLOCK_BYTES: Final = 16
_MOST_BLOCKS: Final = 16  # of a message that goes with others; a longer one goes alone
_DOUBLING: Final = 0x87  # of GF(2**128), RFC 4493 section 2.3


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC (RFC 4493) of one message, 16 bytes."""
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def as_words(blocks: bytes) -> Words:
    """Blocks as rows of two little-endian words."""
    return np.frombuffer(blocks, "<u8").reshape(-1, 2)


class Prf:
    """AES-256 under one key.  Its `repr` shows no secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Not a mode for messages but the bare function of one block, over many blocks at once.
        self._cipher = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
        zero = int.from_bytes(self._cipher.update(bytes(BLOCK_BYTES)), "big")
        whole, padded = _doubled(zero), _doubled(_doubled(zero))
        self._last = as_words(b"".join(subkey.to_bytes(BLOCK_BYTES, "big") for subkey in (whole, padded)))

    def of_blocks(self, blocks: Words) -> Words:
        """The cipher's output for each block (rows x 2)."""
        blocks = np.ascontiguousarray(blocks)
        made = np.empty(blocks.nbytes + BLOCK_BYTES, np.uint8)
        size = self._cipher.update_into(blocks.reshape(-1).view(np.uint8).data, made.data)
        return made[:size].view("<u8").reshape(-1, 2)

    def of_texts(self, parts: Sequence[Texts], which: Sequence[Ints]) -> Words:
        """CMAC (rows x 2) of the joined parts: in each row the value `which[n]` of `parts[n]`, none missing."""
        sizes = [part.lengths[chosen] for part, chosen in zip(parts, which, strict=True)]
        total = np.full(len(which[0]), len(parts) - 1, np.int64)
        for size in sizes:
            total += size
        counts = np.maximum((total + BLOCK_BYTES - 1) // BLOCK_BYTES, 1)
        made = np.empty((len(total), 2), "<u8")
        for count in np.flatnonzero(np.bincount(counts)).tolist():
            rows = np.flatnonzero(counts == count)
            alike = len(rows) == len(total)
            chosen = [*which] if alike else [index[rows] for index in which]
            if count > _MOST_BLOCKS:
                made[rows] = self._one_by_one(parts, chosen)
            else:
                some = [size if alike else size[rows] for size in sizes]
                made[rows] = self._chained(parts, chosen, some, total if alike else total[rows], count)
        return made

    def _chained(
        self, parts: Sequence[Texts], which: Sequence[Ints], sizes: Sequence[Ints], total: Ints, count: int
    ) -> Words:
        """CMAC of messages that are all `count` blocks long."""
        messages = _messages(parts, which, sizes, total, count)
        whole = total == count * BLOCK_BYTES
        last = messages[:, count - 1] ^ self._last[np.where(whole, 0, 1)]
        if count == 1:
            return self.of_blocks(last)
        state = self.of_blocks(messages[:, 0])
        for at in range(1, count - 1):
            state = self.of_blocks(state ^ messages[:, at])
        return self.of_blocks(state ^ last)

    def _one_by_one(self, parts: Sequence[Texts], which: Sequence[Ints]) -> Words:
        made = []
        for row in zip(*which, strict=True):
            texts = [
                part.data[part.starts[one] : part.starts[one] + part.lengths[one]].tobytes()
                for part, one in zip(parts, row, strict=True)
            ]
            made.append(cmac(self._key, SEPARATOR.join(texts)))
        return as_words(b"".join(made))


def _messages(parts: Sequence[Texts], which: Sequence[Ints], sizes: Sequence[Ints], total: Ints, count: int) -> Words:
    """The joined parts, padded as CMAC pads: rows x `count` x 2 words.

    Words are written at any byte.  What one writes beyond the end of its part is zero, and is written over by what
    follows; a row has room for that.
    """
    words = [-(-int(size.max()) // WORD) for size in sizes]
    room = count * BLOCK_BYTES + WORD * max(1, *words)
    flat = np.zeros(len(total) * room + WORD, np.uint8)
    anywhere = np.lib.stride_tricks.as_strided(flat[:WORD].view("<u8"), (len(flat) - WORD + 1,), (1,))
    at: Ints = np.arange(0, len(total) * room, room)
    for n, (part, chosen, size) in enumerate(zip(parts, which, sizes, strict=True)):
        if n:
            flat[at] = SEPARATOR[0]
            at = at + 1
        for word in range(words[n]):
            anywhere[at + WORD * word] = part.word(word, chosen)
        at = at + size
    flat[at] = 0x80  # falls beyond a last block that is full
    rows = flat[: len(total) * room].reshape(len(total), room)
    return np.ascontiguousarray(rows[:, : count * BLOCK_BYTES]).view("<u8").reshape(len(total), count, 2)


def _doubled(block: int) -> int:
    """`block` times x in GF(2**128)."""
    doubled = block << 1
    return doubled ^ (1 << 128) ^ _DOUBLING if doubled >> 128 else doubled

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
PADDING: Final = b"\x80"  # after a message whose last block is not full
BLOCK_BYTES: Final = 16
_MOST_BLOCKS: Final = 4  # of a message that goes with others; a longer one goes alone
_DOUBLING: Final = 0x87  # of GF(2**128), RFC 4493 section 2.3


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC (RFC 4493) of one message, 16 bytes."""
    mac = CMAC(AES(key))
    mac.update(message)
    return mac.finalize()


def as_words(blocks: bytes) -> Words:
    """Blocks as rows of two little-endian words."""
    return np.frombuffer(blocks, "<u8").reshape(-1, 2)


class Joined:
    """In each row the value `which[n]` of `parts[n]`, none missing, joined: laid out once, whatever keys follow."""

    def __init__(self, parts: Sequence[Texts], which: Sequence[Ints]) -> None:
        last = len(parts) - 1
        self.parts, self.which = parts, which
        self._framed = [
            part.framed(SEPARATOR if n else b"", PADDING if n == last else b"") for n, part in enumerate(parts)
        ]
        self._sizes = [part.lengths[chosen] for part, chosen in zip(self._framed, which, strict=True)]
        self.total: Ints = np.add.reduce(self._sizes) - len(PADDING)
        self.first = _blocks(self._framed, which, self._sizes, 1)
        longer = np.flatnonzero(self.total > BLOCK_BYTES)
        counts = (self.total[longer] + BLOCK_BYTES - 1) // BLOCK_BYTES
        self.longer = [(count, longer[counts == count]) for count in np.flatnonzero(np.bincount(counts)).tolist()]

    def blocks(self, rows: Ints, count: int) -> Words:
        """The first `count` blocks of some rows."""
        return _blocks(self._framed, [index[rows] for index in self.which], [size[rows] for size in self._sizes], count)


class Prf:
    """AES-256 under one key.  Its `repr` shows no secret."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        # Not a mode for messages but the bare function of one block, over many blocks at once.
        self._cipher = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
        zero = int.from_bytes(self._cipher.update(bytes(BLOCK_BYTES)), "big")
        whole, padded = _doubled(zero), _doubled(_doubled(zero))
        self._padded = as_words(padded.to_bytes(BLOCK_BYTES, "big"))[0]
        self._whole = as_words((whole ^ padded).to_bytes(BLOCK_BYTES, "big"))[0]  # instead of the other

    def of_blocks(self, blocks: Words) -> Words:
        """The cipher's output for each block (rows x 2)."""
        blocks = np.ascontiguousarray(blocks)
        made = np.empty(blocks.nbytes + BLOCK_BYTES, np.uint8)
        size = self._cipher.update_into(blocks.reshape(-1).view(np.uint8).data, made.data)
        return made[:size].view("<u8").reshape(-1, 2)

    def of_texts(self, joined: Joined) -> Words:
        """CMAC (rows x 2) of each row's message."""
        made = self._chained(joined.first, joined.total, 1)  # right for most
        for count, rows in joined.longer:
            if count > _MOST_BLOCKS:
                made[rows] = self._one_by_one(joined.parts, [index[rows] for index in joined.which])
            else:
                made[rows] = self._chained(joined.blocks(rows, count), joined.total[rows], count)
        return made

    def _chained(self, blocks: Words, total: Ints, count: int) -> Words:
        """CMAC of messages that are all `count` blocks long."""
        blocks = blocks.copy()  # other keys read them too
        last = blocks[:, count - 1]
        last ^= self._padded
        last[total == count * BLOCK_BYTES] ^= self._whole
        state = self.of_blocks(blocks[:, 0])
        for at in range(1, count):
            state = self.of_blocks(state ^ blocks[:, at])
        return state

    def _one_by_one(self, parts: Sequence[Texts], which: Sequence[Ints]) -> Words:
        made = []
        for row in zip(*which, strict=True):
            texts = [
                part.data[part.starts[one] : part.starts[one] + part.lengths[one]].tobytes()
                for part, one in zip(parts, row, strict=True)
            ]
            made.append(cmac(self._key, SEPARATOR.join(texts)))
        return as_words(b"".join(made))


def _blocks(framed: Sequence[Texts], which: Sequence[Ints], sizes: Sequence[Ints], count: int) -> Words:
    """The first `count` blocks of each row's parts, end to end: rows x `count` x 2 words."""
    words = [np.zeros(len(sizes[0]), "<u8") for _ in range(2 * count)]
    begins = np.zeros(len(sizes[0]), np.int64)  # bits before the part
    for part, chosen, size in zip(framed, which, sizes, strict=True):
        for at in range(min(-(-int(size.max(initial=0)) // WORD), 2 * count)):
            word = part.word(at, chosen)
            for to in range(at, 2 * count):
                # A shift by 64 bits or more gives zero, and so does one by a negative number, as that is a huge one.
                left = begins + 64 * (at - to)
                words[to] |= word << left.view("<u8")
                if to > at:
                    words[to] |= word >> np.negative(left).view("<u8")
        begins = begins + WORD * size
    return np.stack(words, axis=1).reshape(len(sizes[0]), count, 2)


def _doubled(block: int) -> int:
    """`block` times x in GF(2**128)."""
    doubled = block << 1
    return doubled ^ (1 << 128) ^ _DOUBLING if doubled >> 128 else doubled

"""Blocks that are read again and again, kept decoded: what a page shows, what many clients look at.

To decode the blocks around a small window costs several times what copying the window does. A block is kept
when it is read for the second time, so that a pass over all of a dataset, which comes by only once, neither costs
anything here nor pushes out what is of use (the idea of 2Q: T. Johnson, D. Shasha, VLDB 1994).
"""

import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.model.dataset import ArrayGeometry

Key: TypeAlias = tuple[Hashable, int, tuple[int, ...]]
"""Of a block: its lineage, its chunk, and its place among the blocks of the chunk."""

Block: TypeAlias = npt.NDArray[Any]

Corner: TypeAlias = list[int]

BLOCKS_OF_READ_MAX = 16
"""A read of more is large enough for decoding not to matter so much, and would push out many others."""

SEEN_ONCE_MAX = 8192
"""Blocks at most of which it is known that they were read: about 1 MB."""


class DecodedBlocks:
    """A number of bytes of decoded blocks. Any thread may call."""

    def __init__(self, bytes_max: int) -> None:
        """Keep at most ``bytes_max`` bytes of items; with 0, nothing."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Key, Block] = OrderedDict()
        self._seen_once: OrderedDict[Key, int] = OrderedDict()
        self._seen_once_bytes = 0
        self.held_bytes = 0
        self.hits = 0

    def find(self, keys: Sequence[Key], block_bytes: int) -> list[Block | None] | None:
        """Look for the blocks of a read.

        Args:
            keys: of all blocks that the read touches.
            block_bytes: what each of them would take.

        Returns:
            The blocks, not to be written to, with None in place of those to be decoded and `put`. None where it is
            not worth the while: a block of the read was not asked for before.
        """
        if not self._bytes_max:
            return None
        with self._lock:
            found = [self._blocks.get(key) for key in keys]
            is_known = True
            for key, block in zip(keys, found, strict=True):
                if block is not None:
                    self._blocks.move_to_end(key)
                elif key not in self._seen_once:
                    is_known = False
                    self._seen_once[key] = block_bytes
                    self._seen_once_bytes += block_bytes
            self._forget()
            self.hits += all(block is not None for block in found)
            return found if is_known else None

    def put(self, key: Key, block: Block) -> None:
        """Keep a block, which nobody writes to any more; what was of no use for longest makes room."""
        if block.nbytes > self._bytes_max:
            return
        with self._lock:
            self._seen_once_bytes -= self._seen_once.pop(key, 0)
            before = self._blocks.pop(key, None)
            self.held_bytes += block.nbytes - (before.nbytes if before is not None else 0)
            self._blocks[key] = block
            while self.held_bytes > self._bytes_max:
                _, dropped = self._blocks.popitem(last=False)
                self.held_bytes -= dropped.nbytes

    def _forget(self) -> None:
        """Know no more blocks than there would be room for.

        Else windows anywhere in something large seem to come again, and all of them push each other out.
        """
        while self._seen_once_bytes > self._bytes_max or len(self._seen_once) > SEEN_ONCE_MAX:
            _, block_bytes = self._seen_once.popitem(last=False)
            self._seen_once_bytes -= block_bytes


class _Lineage:
    """A lineage of an array, as part of a key. PERF: it is hashed once, not for each block and each look: 2 us."""

    __slots__ = ("_hash", "_what")

    def __init__(self, *what: Hashable) -> None:
        self._what = what
        self._hash = hash(what)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lineage) and self._what == other._what


class KeptBlocks:
    """What is kept of one lineage of an array."""

    def __init__(self, decoded: DecodedBlocks, lineage: Hashable, array: ArrayGeometry) -> None:
        """Say which.

        Args:
            decoded: where it is kept.
            lineage: what no other lineage is equal to.
            array: how it is cut.
        """
        self._decoded = decoded
        self._lineage = _Lineage(lineage, array)
        self._array = array

    def read(self, nchunk: int, low: Corner, out: Block, decode: Callable[[Corner, Corner], Block]) -> bool:
        """Fill ``out`` with a box of a chunk, from blocks that are kept or from now on will be.

        Args:
            nchunk: the chunk.
            low: first corner of the box, inside the chunk.
            out: of the box's shape; the box ends inside the chunk, and inside the array.
            decode: gives the items between two corners of the chunk, as a new array.

        Returns:
            False where nothing was done, since these blocks are not read often.
        """
        blocks = self._array.blocks
        numbers = [
            range(first // block, (first + length - 1) // block + 1)
            for first, length, block in zip(low, out.shape, blocks, strict=True)
        ]
        if math.prod(map(len, numbers)) > BLOCKS_OF_READ_MAX:
            return False
        places = list(itertools.product(*numbers))
        keys = [(self._lineage, nchunk, place) for place in places]
        found = self._decoded.find(keys, math.prod(blocks) * self._array.itemsize)
        if found is None:
            return False
        for key, place, block in zip(keys, places, found, strict=True):
            start = [at * size for at, size in zip(place, blocks, strict=True)]
            if block is None:
                block = decode(start, self._end(nchunk, start))
                self._decoded.put(key, block)
            _copy(block, start, low, out)
        return True

    def _end(self, nchunk: int, start: Corner) -> Corner:
        """Return the last corner of a block, which the end of its chunk, or of the array, may cut."""
        array = self._array
        origin = np.unravel_index(nchunk, array.grid) if array.grid else ()
        return [
            min(first + block, chunk, length - int(at) * chunk)
            for first, block, chunk, length, at in zip(
                start, array.blocks, array.chunks, array.shape, origin, strict=True
            )
        ]


def _copy(block: Block, start: Corner, low: Corner, out: Block) -> None:
    """Copy what a block, whose first corner is ``start``, has of the box from ``low`` on."""
    source: list[Any] = []
    target: list[Any] = []
    for at, size, first, length in zip(start, block.shape, low, out.shape, strict=True):
        begin, end = max(at, first), min(at + size, first + length)
        source.append(slice(begin - at, end - at))
        target.append(slice(begin - first, end - first))
    out[tuple(target)] = block[tuple(source)]

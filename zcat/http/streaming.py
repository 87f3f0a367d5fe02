"""Large answers in constant memory: a part of a dataset is read, encoded and sent piece by piece.

A few pieces are read and compressed ahead, by threads of the answer's own, which let others run while Blosc2
works. So a slow client costs a few pieces, whatever it asked for, and one that goes away stops the work.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from zcat.http.bodies import Kept
from zcat.limits import MIB
from zcat.model.dataset import Compression
from zcat.storage.answers import chunk_stream
from zcat.storage.in_order import in_order

STREAM_BYTES_MIN = 8 * MIB
"""Smaller answers are read in one go."""

PIECE_BYTES = 8 * MIB
PIECE_BYTES_MAX = 32 * MIB
"""Of a piece, where a smaller one would have chunks decoded twice."""

THREADS = 2
AHEAD_MAX = 3
HELD_BYTES = (AHEAD_MAX + 2) * PIECE_BYTES_MAX
"""What one answer takes at most: pieces ahead, the one that is sent, and the one that waits behind it."""

Block: TypeAlias = npt.NDArray[Any]
Pieces: TypeAlias = Iterable[Callable[[], Block]]
"""Each reads a piece: a block in C order, whose items follow those of the piece before."""


def blocks(pieces: Pieces) -> Generator[Block, None, None]:
    """Yield what the pieces read."""
    return in_order(pieces, THREADS, AHEAD_MAX)


def raw_stream(pieces: Pieces, head: bytes = b"") -> Iterator[Kept | bytes]:
    """Yield ``head``, if any, and the items."""
    with contextlib.closing(blocks(pieces)) as made:
        if head:
            yield head
        for block in made:
            yield Kept(memoryview(block.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]  # arrays are buffers


def compressed_stream(pieces: Pieces, compression: Compression) -> Iterator[bytes]:
    """Yield a stream of chunks, as `zcat.storage.answers` has it."""
    works = (partial(_compressed, piece, compression) for piece in pieces)
    with contextlib.closing(in_order(works, THREADS, AHEAD_MAX)) as made:
        for chunks in made:
            yield from chunks


def begun(stream: Iterator[Any]) -> Iterator[Any]:
    """Have the first piece read now, so that what goes wrong with it can still be said with a status."""
    first = next(stream)
    return _behind(first, stream)


def _behind(first: Any, stream: Any) -> Iterator[Any]:
    with contextlib.closing(stream):
        yield first
        yield from stream


def _compressed(piece: Callable[[], Block], compression: Compression) -> list[bytes]:
    return list(chunk_stream(piece(), compression))

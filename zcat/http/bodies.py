"""Bodies without copies, and the answers that carry them.

A body whose bytes are all at hand is handed to the server as a file over the buffers themselves: waitress then
sends slices of them and holds no worker thread meanwhile, which is 3 to 6 times as fast as one ``bytes``. What
must be fetched on the way is an iterator instead, so that a slow network never stops the server's own loop.
"""

import bisect
import itertools
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import falcon

from zcat.errors import ZcatError
from zcat.http.reads import Buffer
from zcat.limits import KIB
from zcat.logs import kv

log = logging.getLogger(__name__)

WRAP_BYTES_MIN = 64 * KIB
"""Smaller bodies are sent as ``bytes``: joining them costs less than the file around them."""

BINARY = "application/octet-stream"
REVALIDATE = "private, no-cache"
"""A URL names a dataset, not a version: keep the answer, but ask with its tag each time."""


class Closeable(Protocol):
    """What keeps the memory behind some buffers alive."""

    def close(self) -> None:
        """Let go of it."""


class BufferFile:
    """A readable, seekable file over buffers that stay where they are.

    A read never crosses from one buffer to the next. The owner of the buffers is closed with the file.
    """

    def __init__(self, buffers: Sequence[Buffer], owner: Closeable | None = None) -> None:
        self._owner = owner
        self._views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        self._starts = list(itertools.accumulate((len(view) for view in self._views), initial=0))
        self._at = 0

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as ``io.IOBase.seek`` does."""
        self._at = offset + (0, self._at, self._starts[-1])[whence]
        return self._at

    def read(self, size: int = -1) -> memoryview:
        """Return a view of at most ``size`` bytes; an empty one at the end."""
        number = bisect.bisect_right(self._starts, self._at) - 1
        if number == len(self._views):
            return memoryview(b"")
        start = self._at - self._starts[number]
        piece = self._views[number][start : len(self._views[number]) if size < 0 else start + size]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        """Let the buffers go."""
        self._views, self._starts, self._at = [], [0], 0
        if self._owner is not None:
            self._owner.close()
            self._owner = None


class Kept:
    """A piece of a body whose memory nobody writes to again: it need not be copied to be sent later."""

    __slots__ = ("buffer",)

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer

    def __len__(self) -> int:
        return len(self.buffer)

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)


class Phases:
    """How long the parts of an answer took, for the ``Server-Timing`` header."""

    __slots__ = ("_last_s", "_texts")

    def __init__(self) -> None:
        self._last_s = time.perf_counter()
        self._texts: list[str] = []

    def end(self, name: str) -> None:
        """Give the time since the last call to phase ``name``."""
        now_s = time.perf_counter()
        self._texts.append(f"{name};dur={(now_s - self._last_s) * 1e3:.3f}")
        self._last_s = now_s

    def __str__(self) -> str:
        return ", ".join(self._texts)


@dataclass(slots=True)
class Answer:
    """A response before it is one, so that it can be made again when the dataset's version changes."""

    tag: str | None = None
    status: str = falcon.HTTP_200
    content_type: str | None = BINARY
    headers: dict[str, str] = field(default_factory=dict)
    body: Sequence[Buffer] | Iterator[Buffer] | None = None
    """Buffers if all bytes are at hand, an iterator if not, None for a HEAD."""
    nbytes: int | None = None
    """Of an iterator or of what a HEAD leaves out; None if nobody knows yet."""
    owner: Closeable | None = None
    """Of the buffers; it is closed when they are sent."""

    def put(self, resp: Any) -> None:
        """Make it the response."""
        resp.status = self.status
        if self.content_type is not None:
            resp.content_type = self.content_type
        if self.tag is not None:
            self.headers["ETag"] = self.tag
        self.headers.setdefault("Cache-Control", REVALIDATE)
        resp.set_headers(self.headers)
        body, nbytes = self.body, self.nbytes
        if isinstance(body, Sequence):
            put_buffers(resp, body, self.owner)
            return
        resp.stream = iter(()) if body is None else _Pieces(body, self.owner)
        if nbytes is not None:
            resp.content_length = nbytes


def put_buffers(resp: Any, buffers: Sequence[Buffer], owner: Closeable | None = None) -> None:
    """Send buffers one after the other: joined when they are small, as they are when they are not."""
    nbytes = sum(map(len, buffers))
    if nbytes >= WRAP_BYTES_MIN:
        resp.set_stream(BufferFile(buffers, owner), nbytes)
        return
    resp.data = bytes(buffers[0]) if len(buffers) == 1 else b"".join(buffers)
    if owner is not None:
        owner.close()


def not_modified(tag: str) -> Answer:
    """Return the answer to a client that has what it asks for."""
    return Answer(tag, falcon.HTTP_304, content_type=None, body=(b"",))


class _Pieces:
    """A body that is fetched while it is sent; the server asks for the next piece when it has queued the last.

    What goes wrong is logged in one line and goes on to the server, which closes the connection: so the client
    knows that the body is not whole.
    """

    def __init__(self, pieces: Iterator[Buffer], owner: Closeable | None) -> None:
        self._pieces = pieces
        self._owner = owner

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Buffer:
        try:
            return next(self._pieces)
        except ZcatError as error:
            log.warning("body cut short %s", kv(code=error.code, why=error.message))
            raise

    def close(self) -> None:
        """Stop fetching."""
        if isinstance(self._pieces, Generator):
            self._pieces.close()
        if self._owner is not None:
            self._owner.close()

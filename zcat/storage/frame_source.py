"""Read users' frames chunk by chunk: by ``pread`` only, never by mmap, never by ``blosc2.open``.

A file that somebody else may truncate must not be mapped (the kernel kills whoever touches the missing part),
and a foreign frame must not be given to Blosc2 as a whole. What leaves this module passed the gate.

Whether the file is still the version that it was is not asked here: whoever owns the file descriptor looks
before and after each read.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``, ``README_SFRAME_FORMAT.rst``.
"""

import os
import stat
import time
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from zcat.errors import BadChunk, BadContent, Busy
from zcat.limits import BLOSC2_CHUNK_OVERHEAD
from zcat.model.dataset import Compression, Geometry
from zcat.storage.attributes import (
    TRAILER_BYTES_MAX,
    TRAILER_END_BYTES,
    decode_attributes,
    read_trailer,
    trailer_bytes,
)
from zcat.storage.beneath import SPARSE_INDEX
from zcat.storage.block_layout import BlockLayout, ChunkPart, cut, head_bytes, spans_of
from zcat.storage.chunk_gate import (
    HEADER_BYTES,
    SPECIAL_NONE,
    check_header,
    plain_chunk,
    special_chunk,
    special_kind,
)
from zcat.storage.disk import pread_exactly
from zcat.storage.frame_format import (
    FrameHeader,
    geometry_of,
    header_bytes,
    index_bytes_max,
    parse_header,
    read_index,
    special_of,
)
from zcat.storage.frame_template import PADDING

_FIRST_READ_BYTES = 4096
_CHUNK_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not make us wait


SIZED_CHUNKS_MAX = 1 << 20
"""Frames of more chunks do not say how long each is: it would take a look at all of them."""


class FrameSource(Protocol):
    """A dataset's chunks, wherever they are. Its methods may be called by several threads at once."""

    @property
    def geometry(self) -> Geometry:
        """How the dataset is cut."""
        ...

    @property
    def compression(self) -> Compression:
        """How it is compressed."""
        ...

    @property
    def attributes(self) -> dict[str, Any]:
        """Its attributes, as in ``DatasetInfo``."""
        ...

    def read_chunk(self, nchunk: int) -> bytes:
        """Return chunk ``nchunk`` as stored; one of a special kind as a repeat-value chunk.

        Raises:
            BadContent: it is damaged, does not agree with the geometry (``BadChunk``), or its file is cut.
            StorageFailed: the disk refused.
        """
        ...

    def read_part(self, nchunk: int, blocks: tuple[int, ...]) -> ChunkPart | None:
        """Return blocks of a chunk; None if all of it should be read: it is hardly more, or cannot be cut.

        Args:
            nchunk: which chunk.
            blocks: ascending.

        Raises:
            BadContent, StorageFailed: as for `read_chunk`.
        """
        ...

    def stored_sizes(self) -> NDArray[np.int64] | None:
        """Return the length of what `read_chunk` gives, ``(nchunks,)``; None if that is too much work.

        Raises:
            BadContent, StorageFailed: as for `read_chunk`.
        """
        ...


class ContiguousFrame:
    """A frame that is one file.

    Args:
        fd: open for reading. It stays the caller's, and must stay open as long as chunks are read.

    Raises:
        BadContent: the file is no frame, or cut, damaged or hostile.
        NotReadable: a sound frame of a kind that is not offered.
        StorageFailed: the disk refused.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        header = _read_header(fd, is_sparse=False)
        self.geometry = geometry_of(header)
        self.compression = header.compression
        self._begin = header.header_len
        self._cbytes = header.cbytes
        self._is_slotted = PADDING in header.metalayers
        index_at = header.header_len + header.cbytes
        self._offsets = _read_offsets(fd, index_at, self.geometry.nchunks)
        self.attributes = _read_attributes(fd, header)

    def read_chunk(self, nchunk: int) -> bytes:
        """Return chunk ``nchunk``, as `FrameSource` says."""
        offset = int(self._offsets[nchunk])
        header = self._chunk_header(nchunk)
        if header is None:
            return special_chunk(special_of(offset), self.geometry, nchunk)
        cbytes = int.from_bytes(header[12:16], "little")
        return plain_chunk(pread_exactly(self._fd, cbytes, self._begin + offset), self.geometry, nchunk)

    def read_part(self, nchunk: int, blocks: tuple[int, ...]) -> ChunkPart | None:
        """Return blocks of a chunk, as `FrameSource` says. Nothing else of the chunk is read."""
        at = self._begin + int(self._offsets[nchunk])
        header = self._chunk_header(nchunk)
        if header is None or special_kind(header) != SPECIAL_NONE:
            return None
        check_header(header, int.from_bytes(header[12:16], "little"), self.geometry, nchunk)
        head = pread_exactly(self._fd, head_bytes(header), at)
        try:
            layout = BlockLayout.read(head)
            if not layout.is_worth_cutting(blocks):
                return None
            runs = {
                start: pread_exactly(self._fd, stop - start, at + start) for start, stop in layout.runs(blocks)
            }
            part = ChunkPart(head, blocks, b"".join(_cut_out(runs, layout, nblock) for nblock in blocks))
            for nblock, span in spans_of(part, layout):
                layout.check_block(nblock, span)
        except BadChunk:
            return None
        return part

    def _chunk_header(self, nchunk: int) -> bytes | None:
        """Read the header of a chunk; None of one that is only in the index."""
        offset = int(self._offsets[nchunk])
        if offset < 0:
            return None
        if offset > self._cbytes - HEADER_BYTES:
            raise BadChunk(f"chunk {nchunk}: at {offset}, but there are only {self._cbytes} bytes of chunks")
        header = pread_exactly(self._fd, HEADER_BYTES, self._begin + offset)
        cbytes = int.from_bytes(header[12:16], "little")
        room = min(self._cbytes - offset, self.geometry.chunk_nbytes(nchunk) + BLOSC2_CHUNK_OVERHEAD)
        if not HEADER_BYTES <= cbytes <= room:
            raise BadChunk(f"chunk {nchunk}: {cbytes} bytes, there is room for {room}")
        return header

    def stored_sizes(self) -> NDArray[np.int64] | None:
        """Return the lengths, at a look at each chunk's header: `SIZED_CHUNKS_MAX` of them take two seconds."""
        nchunks = self.geometry.nchunks
        if self._is_slotted or nchunks > SIZED_CHUNKS_MAX:
            return None
        sizes = np.zeros(nchunks, np.int64)
        # chunks that are only in the index are alike, but for the last one, which may be shorter
        absent = np.flatnonzero(self._offsets[: nchunks - 1] < 0)
        if len(absent):
            sizes[absent] = len(self.read_chunk(int(absent[0])))
        for nchunk in np.flatnonzero(sizes == 0).tolist():
            header = self._chunk_header(nchunk)
            if header is not None and special_kind(header) == SPECIAL_NONE:
                sizes[nchunk] = int.from_bytes(header[12:16], "little")
            else:
                sizes[nchunk] = len(self.read_chunk(nchunk))
        return sizes


class SparseFrame:
    """A frame that is a folder: an index file, and one file per chunk.

    Args:
        dir_fd: the folder. It stays the caller's, and must stay open as long as chunks are read.

    Raises:
        BadContent: the index file is none, or cut, damaged or hostile.
        NotReadable: a sound frame of a kind that is not offered.
        StorageFailed: the disk refused.
    """

    def __init__(self, dir_fd: int) -> None:
        self._dir_fd = dir_fd
        self._opened_ns = time.time_ns()
        fd = _open_inside(dir_fd, SPARSE_INDEX)
        try:
            header = _read_header(fd, is_sparse=True)
            self.geometry = geometry_of(header)
            self.compression = header.compression
            self._numbers = _read_offsets(fd, header.header_len, self.geometry.nchunks)
            self.attributes = _read_attributes(fd, header)
        finally:
            os.close(fd)

    def read_chunk(self, nchunk: int) -> bytes:
        """Return chunk ``nchunk``, as `FrameSource` says."""
        number = int(self._numbers[nchunk])
        if number < 0:
            return special_chunk(special_of(number), self.geometry, nchunk)
        try:
            fd = _open_inside(self._dir_fd, f"{number:08X}.chunk")
        except BadContent as error:
            raise BadChunk(f"chunk {nchunk}: {error.message}") from None
        try:
            room = self.geometry.chunk_nbytes(nchunk) + BLOSC2_CHUNK_OVERHEAD
            cbytes = os.fstat(fd).st_size
            if cbytes > room:
                raise BadChunk(f"chunk {nchunk}: a file of {cbytes} bytes, at most {room} wanted")
            data = pread_exactly(fd, cbytes, 0)
            # C-Blosc2 rewrites a chunk first and the index later: between the two, only this tells
            if os.fstat(fd).st_mtime_ns > self._opened_ns:
                raise Busy(f"chunk {nchunk} is being rewritten")
            return plain_chunk(data, self.geometry, nchunk)
        finally:
            os.close(fd)

    def read_part(self, nchunk: int, blocks: tuple[int, ...]) -> ChunkPart | None:
        """Return blocks of a chunk, as `FrameSource` says."""
        return cut(self.read_chunk(nchunk), blocks)

    def stored_sizes(self) -> NDArray[np.int64] | None:
        """Return None: it would take a look at every file."""
        return None


def _cut_out(runs: dict[int, bytes], layout: BlockLayout, nblock: int) -> memoryview:
    """Find a block in the run of neighbours that was read."""
    start, stop = int(layout.starts[nblock]), int(layout.stops[nblock])
    begin = max(run for run in runs if run <= start)
    return memoryview(runs[begin])[start - begin : stop - begin]


def _read_header(fd: int, *, is_sparse: bool) -> FrameHeader:
    size = os.fstat(fd).st_size
    raw = pread_exactly(fd, min(_FIRST_READ_BYTES, size), 0)
    length = header_bytes(raw)
    if length > len(raw):
        raw = pread_exactly(fd, length, 0)
    header = parse_header(raw)
    if header.is_sparse != is_sparse:
        raise BadContent("the index file of a sparse frame without its folder, or a whole frame in its place")
    if header.frame_len > size:
        raise BadContent(f"a frame of {header.frame_len} bytes is cut after {size}")
    if not is_sparse and header.cbytes > header.frame_len - header.header_len:
        raise BadContent(f"{header.cbytes} bytes of chunks in a frame of {header.frame_len}")
    return header


def _read_offsets(fd: int, at: int, nchunks: int) -> NDArray[np.int64]:
    if nchunks == 0:
        return read_index(b"", 0)
    cbytes = int.from_bytes(pread_exactly(fd, HEADER_BYTES, at)[12:16], "little")
    if not HEADER_BYTES <= cbytes <= index_bytes_max(nchunks):
        raise BadContent(f"an index of {cbytes} bytes for {nchunks} chunks")
    return read_index(pread_exactly(fd, cbytes, at), nchunks)


def _read_attributes(fd: int, header: FrameHeader) -> dict[str, Any]:
    length = trailer_bytes(pread_exactly(fd, TRAILER_END_BYTES, header.frame_len - TRAILER_END_BYTES))
    if length > header.frame_len - header.header_len:
        raise BadContent(f"a trailer of {length} bytes in a frame of {header.frame_len}")
    if not header.has_vlmeta:
        return {}
    if length > TRAILER_BYTES_MAX:
        return {"unreadable": f"<unreadable: attributes of {length} bytes, the limit is {TRAILER_BYTES_MAX}>"}
    try:
        return decode_attributes(read_trailer(pread_exactly(fd, length, header.frame_len - length)))
    except BadContent as error:
        return {"unreadable": f"<unreadable: {error.message}>"}


def _open_inside(dir_fd: int, name: str) -> int:
    try:
        fd = os.open(name, _CHUNK_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        raise BadContent(f"{name} of a sparse frame cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadContent(f"{name} of a sparse frame is no regular file")
    return fd

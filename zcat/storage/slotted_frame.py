"""The slotted frame: a Blosc2 frame on our own disk in which every chunk has a fixed place.

Chunk *i* lives at ``header_len + i * slot_bytes``, and a slot holds the largest chunk that there can be. The file
is sparse, so an absent chunk is a hole and costs nothing; the index is plain arithmetic and is written once.
A chunk arrives by one ``pwrite`` at a known place: no lock, no index to update, and several writers of the same
bytes do no harm. A torn slot fails its digest. Every reader of Blosc2 frames can open the file at any time; an
absent chunk is an error for it, never garbage.

What must be known of C-Blosc2: it looks at chunk 0 when it opens a frame, so slot 0 always holds a chunk, at
first a placeholder; and chunks of special kinds other than "repeated value" may not stand in a file at all.

These files are ours, so they may be mapped: nobody else truncates them. There is no fsync: this is a cache.

Source: c-blosc2 ``README_CFRAME_FORMAT.rst``.
"""

import contextlib
import errno
import mmap
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgpack
import numpy as np

from zcat.errors import BadChunk, BadContent, StorageFailed
from zcat.limits import BLOSC2_CHUNK_OVERHEAD, KIB
from zcat.model.dataset import Compression, Geometry
from zcat.names import shown
from zcat.storage import slot_locks
from zcat.storage.chunk_gate import HEADER_BYTES, SPECIAL_ZEROS, Buffer, special_chunk
from zcat.storage.disk import allocate, pread_exactly, punch_hole, pwrite_all, storage_failed
from zcat.storage.frame_format import geometry_of, header_bytes, parse_header
from zcat.storage.frame_template import PADDING, FrameTemplate, frame_template

PAGE_BYTES = 4096
"""Slots and headers begin at pages of this size, so that a hole frees whole pages and a view is aligned."""

ALLOCATED_BYTES_MIN = 128 * KIB
"""Room for smaller chunks is not asked for beforehand: the system call costs more than it saves."""

_LAYOUT_VERSION = 1


class SlottedFrame:
    """One dataset's chunks, on our disk. Made by `create` or `open`, ended by `close`.

    `write_chunk` and `chunk_view` may be called by several threads and processes at once. `punch` needs the slots
    to itself, because a view of a slot that is punched reads zeros: other processes are kept off by `take`.
    """

    def __init__(self, fd: int, geometry: Geometry, compression: Compression, header_len: int) -> None:
        self.geometry = geometry
        self.compression = compression
        self.header_len = header_len
        """Where slot 0 begins."""
        self.slot_bytes = slot_bytes(geometry)
        self.nchunks = geometry.nchunks
        self._fd = fd
        size = header_len + self.nchunks * self.slot_bytes
        try:
            self._map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        except OSError as error:
            raise storage_failed(f"mapping {size} bytes of a cached dataset", error) from None
        self._view = memoryview(self._map)

    @classmethod
    def create(
        cls, path: Path, geometry: Geometry, compression: Compression, attributes: dict[str, Any] | None = None
    ) -> Self:
        """Make a frame with all chunks absent, in place of whatever had that path.

        Others see the whole frame or none of it.

        Args:
            path: in a folder that exists.
            geometry: of the dataset, checked.
            compression: for the header.
            attributes: for the trailer.

        Raises:
            StorageFailed: the disk is full, or the file system's files cannot be as long as the dataset.
        """
        slot = slot_bytes(geometry)
        text = msgpack.packb([_LAYOUT_VERSION, slot, geometry.nchunks])
        template = frame_template(geometry, compression, attributes, padding=(PAGE_BYTES, text))
        aside = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
        try:
            fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_failed(f"making {shown(path.name)}", error) from None
        try:
            _write_frame(fd, template, slot)
            frame = cls(fd, geometry, compression, template.header_len)
            os.rename(aside, path)
        except BaseException as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(aside)
            if isinstance(error, OSError) and not isinstance(error, StorageFailed):
                raise storage_failed(f"making {shown(path.name)}", error) from None
            raise
        return frame

    @classmethod
    def open(cls, path: Path, *, writable: bool = True) -> Self:
        """Open a frame that `create` made.

        Raises:
            BadContent: it is not one, or it is damaged: make it anew.
            StorageFailed: the disk refused, or there is no such file.
        """
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise storage_failed(f"opening {shown(path.name)}", error) from None
        try:
            size = os.fstat(fd).st_size
            length = header_bytes(pread_exactly(fd, min(PAGE_BYTES, size), 0))
            header = parse_header(pread_exactly(fd, length, 0))
            geometry = geometry_of(header)
            if geometry.array is None:  # unlike others, a header of ours tells the truth about blocks
                geometry = replace(geometry, blocksize=header.blocksize)
            slot = slot_bytes(geometry)
            wanted = msgpack.packb([_LAYOUT_VERSION, slot, geometry.nchunks])
            if not header.metalayers.get(PADDING, b"").startswith(wanted):
                raise BadContent(f"{shown(path.name)}: not a slotted frame, or one of another layout")
            aligned = header.header_len % PAGE_BYTES == 0
            end = header.header_len + header.cbytes
            if not aligned or header.cbytes != slot * geometry.nchunks or not end < header.frame_len == size:
                raise BadContent(f"{shown(path.name)}: {size} bytes, its header says {header.frame_len}")
            return cls(fd, geometry, header.compression, header.header_len)
        except BaseException:
            os.close(fd)
            raise

    def write_chunk(self, nchunk: int, data: Buffer) -> None:
        """Put a chunk into its slot. It has passed the gate, so it fits.

        Raises:
            StorageFailed: the disk refused; ``errno`` says whether it is full. The slot may be torn.
        """
        assert 0 <= nchunk < self.nchunks
        assert HEADER_BYTES <= len(data) <= self.slot_bytes
        at = self._slot_at(nchunk)
        if len(data) >= ALLOCATED_BYTES_MIN:
            allocate(self._fd, at, -(-len(data) // PAGE_BYTES) * PAGE_BYTES)
        pwrite_all(self._fd, data, at)

    def write_part(self, nchunk: int, at: int, data: Buffer) -> None:
        """Put a part of a chunk into its slot, ``at`` bytes behind the chunk's begin. It has passed the gate.

        Raises:
            StorageFailed: as for `write_chunk`.
        """
        assert 0 <= nchunk < self.nchunks
        assert 0 <= at <= at + len(data) <= self.slot_bytes
        pwrite_all(self._fd, data, self._slot_at(nchunk) + at)

    def slot_view(self, nchunk: int, start: int, stop: int) -> memoryview:
        """Return bytes of a slot without copying them, whatever they are."""
        assert 0 <= nchunk < self.nchunks
        assert 0 <= start <= stop <= self.slot_bytes
        at = self._slot_at(nchunk)
        return self._view[at + start : at + stop]

    def chunk_view(self, nchunk: int) -> memoryview:
        """Return the bytes of a chunk without copying them; as many as its own header says.

        A view stays valid after `close`. That the chunk is whole is for the caller to know.

        Raises:
            BadChunk: the slot is empty or damaged.
        """
        assert 0 <= nchunk < self.nchunks
        at = self._slot_at(nchunk)
        cbytes = int.from_bytes(self._view[at + 12 : at + 16], "little")
        if not HEADER_BYTES <= cbytes <= self.slot_bytes:
            raise BadChunk(
                f"chunk {nchunk}: not in the cache" if not cbytes else f"chunk {nchunk}: {cbytes} bytes"
            )
        return self._view[at : at + cbytes]

    def punch(self, nchunks: range) -> None:
        """Make chunks absent and give their disk space back. No view of them may be in use.

        Args:
            nchunks: neighbours, in ascending order.

        Raises:
            StorageFailed: the disk refused.
        """
        assert nchunks.step == 1
        if not nchunks:
            return
        assert 0 <= nchunks.start < nchunks.stop <= self.nchunks
        if not punch_hole(self._fd, self._slot_at(nchunks.start), len(nchunks) * self.slot_bytes):
            for nchunk in nchunks:  # absent at least, if not free
                pwrite_all(self._fd, bytes(HEADER_BYTES), self._slot_at(nchunk))
        if nchunks.start == 0:
            pwrite_all(self._fd, _placeholder(self.geometry), self.header_len)

    def take(self, nchunk: int) -> bool:
        """Keep other processes from reading a slot until `give_back`; False if one of them is at it."""
        return slot_locks.take(self._fd, self._slot_at(nchunk), self.slot_bytes)

    def give_back(self) -> None:
        """Let other processes read the slots that `take` took."""
        slot_locks.give_back(self._fd)

    def span(self, nchunks: range) -> tuple[int, int]:
        """Return where the slots of neighbours begin in the file, and how many bytes they take."""
        return self._slot_at(nchunks.start), len(nchunks) * self.slot_bytes

    @property
    def number(self) -> int:
        """Of the file; another one that is made in its place has another."""
        return os.fstat(self._fd).st_ino

    def around(self) -> bytes:
        """Read all but the slots: the header before them, index and trailer behind them.

        Raises:
            BadContent, StorageFailed: as for `open`.
        """
        end = self._slot_at(self.nchunks)
        trailer = pread_exactly(self._fd, os.fstat(self._fd).st_size - end, end)
        return pread_exactly(self._fd, self.header_len, 0) + trailer

    def disk_bytes(self) -> int:
        """Return how much of the disk the frame takes; its length says nothing about that."""
        return os.fstat(self._fd).st_blocks * 512

    def close(self) -> None:
        """Close the file. Views that are still in use keep their part of it readable."""
        if self._fd < 0:
            return
        self._view.release()
        with contextlib.suppress(BufferError):  # somebody holds a view; the map goes when the last one does
            self._map.close()
        os.close(self._fd)
        self._fd = -1

    def _slot_at(self, nchunk: int) -> int:
        return self.header_len + nchunk * self.slot_bytes


def slot_bytes(geometry: Geometry) -> int:
    """Return the distance of slots: the largest chunk, in whole pages if it is larger than one."""
    largest = geometry.chunksize + BLOSC2_CHUNK_OVERHEAD
    return largest if largest <= PAGE_BYTES else -(-largest // PAGE_BYTES) * PAGE_BYTES


def _write_frame(fd: int, template: FrameTemplate, slot: int) -> None:
    nchunks = template.geometry.nchunks
    cbytes = nchunks * slot
    index = template.index(np.arange(nchunks, dtype=np.int64) * slot)
    tail = index + template.trailer
    length = template.header_len + cbytes + len(tail)
    try:
        pwrite_all(fd, tail, template.header_len + cbytes)
    except StorageFailed as failure:
        if failure.errno != errno.EFBIG:
            raise
        raise storage_failed(
            f"a file of {length} bytes, mostly holes, is longer than this file system's files can be; "
            "put the cache on another, such as XFS",
            failure,
        ) from None
    if nchunks:
        pwrite_all(fd, _placeholder(template.geometry), template.header_len)
    pwrite_all(fd, template.header(cbytes, length), 0)


def _placeholder(geometry: Geometry) -> bytes:
    return special_chunk(SPECIAL_ZEROS, geometry, 0)

"""Files that are no Blosc2 frames, served as byte frames: chunks of one MiB, compressed when asked for.

What was compressed once is kept in a cache of the publisher's own, as slotted frames, so that the next reader
costs a read. The cache may be full, fail, or be thrown away: then chunks are compressed again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from zcat.errors import StorageFailed
from zcat.limits import CHUNK_BYTES_MAX, MIB, NCHUNKS_MAX
from zcat.model.dataset import Compression, DatasetInfo, Entry, Geometry, check_geometry
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.chunk_gate import digest, plain_chunk
from zcat.storage.disk import pread_exactly
from zcat.storage.disk_budget import DiskLimits
from zcat.storage.frame_template import compress_options

CHUNK_BYTES = MIB
COMPRESSION = Compression(codec=5, clevel=1, filters=(0,) * 6)
"""ZSTD, without a filter: bytes have no neighbours to be shuffled with."""


class ByteFrames:
    """What a root compressed of its plain files and HDF5 datasets, in a folder of its own. Any thread may call."""

    def __init__(self, folder: Path, limits: DiskLimits, root: str, owner: str) -> None:
        """Open the folder, which is created if need be.

        Raises:
            CacheInUse: another process has it.
            StorageFailed: it cannot be made.
        """
        blosc2.set_releasegil(True)  # else one thread that compresses would stop all the others
        self._cache = ChunkCache(folder, limits)
        self._root = root
        self._owner = owner

    @property
    def used_bytes(self) -> int:
        """On disk."""
        return self._cache.used_bytes

    def get(self, info: DatasetInfo, nchunk: int) -> bytes | None:
        """Give a chunk of a file's version if it is kept."""
        try:
            kept = self._cache.dataset(self._root, self._owner, info)
            with kept.reading([nchunk]):
                view = kept.chunk(nchunk)
                return None if view is None else bytes(view)
        except StorageFailed:  # no room, or a broken disk; the cache has logged it
            return None

    def put(self, info: DatasetInfo, nchunk: int, data: bytes, known_digest: bytes | None = None) -> None:
        """Keep a chunk, if there is room.

        Args:
            info: of the version.
            nchunk: which chunk.
            data: of it.
            known_digest: of ``data``, for who has it already.
        """
        try:
            kept = self._cache.dataset(self._root, self._owner, info)
            kept.store(nchunk, data, known_digest or digest(data))
        except StorageFailed:
            return

    def close(self) -> None:
        """Let go of the folder."""
        self._cache.close()


class ByteFrame:
    """A plain file as a ``FrameSource``."""

    def __init__(self, fd: int, entry: Entry, kept: ByteFrames, check_unchanged: Callable[[], None]) -> None:
        """Cut the file into chunks.

        Args:
            fd: of the file; it stays the caller's, and must stay open as long as chunks are read.
            entry: its line in the catalogue; ``cbytes`` is its size.
            kept: where chunks are kept.
            check_unchanged: raises ``Stale`` when the file is not the version of ``entry`` any more.

        Raises:
            BadContent: the file is larger than can be offered.
        """
        size = entry.cbytes
        self._fd = fd
        self._kept = kept
        self._check_unchanged = check_unchanged
        self.geometry = check_geometry(
            Geometry(nbytes=size, chunksize=min(size, CHUNK_BYTES), blocksize=0, typesize=1),
            CHUNK_BYTES_MAX,
            NCHUNKS_MAX,
        )
        self.compression = COMPRESSION
        self.attributes: dict[str, Any] = {}
        self._info = DatasetInfo(replace(entry, nbytes=size), self.geometry, self.compression)

    def read_chunk(self, nchunk: int) -> bytes:
        """Return a chunk, as ``FrameSource`` says."""
        data = self._kept.get(self._info, nchunk)
        if data is None:
            raw = pread_exactly(self._fd, self.geometry.chunk_nbytes(nchunk), nchunk * self.geometry.chunksize)
            # of nothing but zeros C-Blosc2 makes a special chunk, which may neither travel nor stand in a file
            data = plain_chunk(
                blosc2.compress2(raw, **compress_options(self.compression, 1, 0)), self.geometry, nchunk
            )
            self._check_unchanged()  # else one version's bytes would be kept under another's name
            self._kept.put(self._info, nchunk, data)
        return data

    def read_part(self, nchunk: int, blocks: tuple[int, ...]) -> None:
        """Return None: a chunk is compressed as a whole."""
        return

    def stored_sizes(self) -> NDArray[np.int64] | None:
        """Return None: they are known once the chunks are made."""
        return None

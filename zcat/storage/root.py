"""What a publisher needs of a root, whatever the root is made of.

A root may be a folder of files, or later one HDF5 file, or something in memory. All methods but `watch` and
`close` may be called by several threads at a time, may wait for a disk, and raise ``ZcatError`` only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from zcat.errors import BadSelection
from zcat.model.blocks import block_count
from zcat.model.dataset import DatasetInfo, Entry, Geometry
from zcat.names import shown
from zcat.protocol.messages import Change
from zcat.storage.block_layout import ChunkPart, cut

OnChange = Callable[[set[str] | None], None]
"""Told that something changed: at or below these paths, or anywhere (None). Called by a thread of the root."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A compressed chunk as it may leave: it passed the gate, and its special kinds are repeat-value chunks."""

    data: bytes
    digest: bytes
    """blake3-256 of ``data``."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at a root found."""

    changes: list[Change] = field(default_factory=list)
    """Against what was known; entries that are the same as before are left out."""
    unsettled: set[str] = field(default_factory=set)
    """Being written at this moment: they are not announced, and have to be looked at again soon."""


class Root(Protocol):
    """A tree of datasets, read only."""

    def look(self, paths: set[str] | None, known: Mapping[str, Entry]) -> Looked:
        """Compare what is there with what was known.

        Args:
            paths: where to look; a path that is a folder stands for all below it. None: everywhere.
            known: entries by path, as of earlier looks.

        Raises:
            NotReadable, Busy, StorageFailed: the root itself cannot be looked at; nothing is known to be gone.
        """
        ...

    def info(self, path: str) -> DatasetInfo:
        """Describe the version of a dataset that is there now.

        Raises:
            DatasetUnknown: there is none of that path.
            NotReadable, BadContent: it cannot be offered.
            Busy: it is being written.
            StorageFailed: the disk failed.
        """
        ...

    def sizes(self, path: str, lineage: str) -> bytes:
        """Give the compressed size of each chunk as int32, little-endian, without reading the chunks.

        Raises:
            NotReadable: they are not known before the chunks are made; or as for `info`.
            Stale: ``lineage`` is not what is there now.
        """
        ...

    def chunk(self, path: str, lineage: str, nchunk: int) -> Chunk:
        """Read one chunk of one lineage; never anything of another.

        Raises:
            Stale: ``lineage`` is not what is there now.
            BadSelection: there is no such chunk.
            DatasetUnknown, NotReadable, BadContent, Busy, StorageFailed: as for `info`.
        """
        ...

    def part(
        self, path: str, lineage: str, nchunk: int, blocks: tuple[int, ...], vouch: bool
    ) -> ChunkPart | Chunk:
        """Read some blocks of one chunk, or all of it where that is hardly more or cannot be cut.

        Args:
            path: of an array.
            lineage: of it.
            nchunk: which chunk.
            blocks: which blocks, ascending.
            vouch: also give the digest of the whole chunk.

        Raises:
            BadSelection: there is no such chunk or block.
            ZcatError: as `chunk` says.
        """
        ...

    def watch(self, on_change: OnChange) -> None:
        """Begin to tell about changes, first that everything has to be looked at. Once only."""
        ...

    def close(self) -> None:
        """Stop watching and close all files. Comes after the last call of any other method."""
        ...


def part_of(chunk: Chunk, blocks: tuple[int, ...], vouch: bool) -> ChunkPart | Chunk:
    """Cut a chunk that is at hand, as `Root.part` says."""
    part = cut(chunk.data, blocks)
    if part is None:
        return chunk
    return replace(part, whole_digest=chunk.digest) if vouch else part


def check_blocks(path: str, geometry: Geometry, nchunk: int, blocks: tuple[int, ...]) -> None:
    """Make sure that a dataset has a chunk and some of its blocks.

    Raises:
        BadSelection: it has not.
    """
    if not 0 <= nchunk < geometry.nchunks:
        raise BadSelection(f"{shown(path)} has chunks 0 to {geometry.nchunks - 1}, not {nchunk}")
    if geometry.array is None:
        raise BadSelection(f"{shown(path)} is no array: its chunks are given whole")
    if blocks and blocks[-1] >= block_count(geometry.array):
        raise BadSelection(f"{shown(path)} has blocks 0 to {block_count(geometry.array) - 1}, not {blocks[-1]}")

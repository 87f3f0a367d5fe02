"""What a publisher needs of a root, whatever the root is made of.

A root may be a folder of files, or later one HDF5 file, or something in memory. All methods but `watch` and
`close` may be called by several threads at a time, may wait for a disk, and raise ``ZcatError`` only.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from zcat.model.dataset import DatasetInfo, Entry
from zcat.protocol.messages import Change

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

    def watch(self, on_change: OnChange) -> None:
        """Begin to tell about changes, first that everything has to be looked at. Once only."""
        ...

    def close(self) -> None:
        """Stop watching and close all files. Comes after the last call of any other method."""
        ...

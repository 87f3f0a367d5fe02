"""What a dataset is, without its content.

A dataset is an n-d array (``.b2nd``), a byte frame (``.b2frame``), or any other file, which is served as a
byte frame. `Geometry` says how its bytes are cut into chunks; `Entry` is its line in a root's catalogue;
`DatasetInfo` is all that is known of one version of it.
"""

import enum
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from zcat.errors import BadContent

DIMENSIONS_MAX = 8  # Blosc2's B2ND_MAX_DIM


class Kind(enum.Enum):
    """What a path in a root names."""

    ARRAY = "array"
    FRAME = "frame"
    FILE = "file"
    GROUP = "group"
    """Of an HDF5 file: it has attributes, and no content."""


@dataclass(frozen=True, slots=True)
class Compression:
    """How Blosc2 compressed a dataset: numbers as in C-Blosc2's ``blosc2_cparams``."""

    codec: int = 5  # BLOSC_ZSTD
    codec_meta: int = 0
    clevel: int = 1
    filters: tuple[int, ...] = (0, 0, 0, 0, 0, 1)  # the last slot: BLOSC_SHUFFLE
    filters_meta: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    splitmode: int = 4


@dataclass(frozen=True, slots=True)
class ArrayGeometry:
    """The n-d side of an array: items per axis of the whole, of a chunk, of a block."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: str
    """As NumPy writes it: ``'<f4'``, or the ``str`` of a structured type's ``descr``."""
    itemsize: int

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks per axis: ``ceil(shape / chunks)``; 0 where the axis is empty."""
        return tuple(-(-s // c) if c else 0 for s, c in zip(self.shape, self.chunks, strict=True))

    @property
    def padded_chunk(self) -> tuple[int, ...]:
        """Items per axis of a chunk as stored: ``chunks`` rounded up to whole blocks."""
        return tuple(-(-c // b) * b if b else 0 for c, b in zip(self.chunks, self.blocks, strict=True))


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the bytes of a dataset are cut into chunks and blocks. All sizes in bytes, uncompressed."""

    nbytes: int
    """Of all chunks together; for an array this counts the padding of edge chunks, as C-Blosc2 does."""
    chunksize: int
    blocksize: int
    """0 when it may differ from chunk to chunk (byte frames): then each chunk's header says."""
    typesize: int
    """As the frame's header has it: the item size, or 1 where items are wider than 255 bytes."""
    array: ArrayGeometry | None = None

    @property
    def nchunks(self) -> int:
        """Number of chunks."""
        if self.array is not None:
            return math.prod(self.array.grid)
        return -(-self.nbytes // self.chunksize) if self.chunksize else 0

    def chunk_nbytes(self, nchunk: int) -> int:
        """Size of chunk ``nchunk``; only the last one of a byte frame may be smaller than ``chunksize``."""
        if self.array is None and nchunk == self.nchunks - 1:
            return self.nbytes - nchunk * self.chunksize
        return self.chunksize


@dataclass(frozen=True, slots=True)
class Version:
    """Names exactly what a read sees."""

    lineage: str
    """32 hexadecimal digits. A rewrite starts a new lineage; appending along axis 0 does not."""
    length: int
    """Items along axis 0 (1 for a scalar), or bytes of a byte frame."""

    @property
    def text(self) -> str:
        """As JSON, headers and people have it."""
        return f"{self.lineage}-{self.length}"

    @property
    def etag(self) -> str:
        """Strong entity tag for HTTP, in its quotes."""
        return f'"{self.text}"'


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a root's catalogue: enough to list a dataset, and to see that it changed."""

    path: str
    kind: Kind
    lineage: str
    nbytes: int
    """Of the content, uncompressed: ``size * itemsize`` of an array, bytes of a frame or file."""
    cbytes: int
    """On the publisher's disk."""
    mtime_ns: int
    """Since 1970-01-01 UTC."""
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    problem: str | None = None
    """Why the content cannot be offered; None for nearly all."""
    is_root: bool | None = None
    """True of the HDF5 file that a root consists of: its attributes are the root's."""


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """All that is known of one version of a dataset, besides its chunks."""

    entry: Entry
    geometry: Geometry
    compression: Compression
    attributes: dict[str, Any] = field(default_factory=dict)
    """Variable-length metadata (vlmeta): values of None, bool, int, float, str, bytes, list, dict only."""

    @property
    def version(self) -> Version:
        """The version that this describes."""
        array = self.geometry.array
        if array is None:
            return Version(self.entry.lineage, self.geometry.nbytes)
        return Version(self.entry.lineage, array.shape[0] if array.shape else 1)


def check_compression(compression: Compression) -> Compression:
    """Return ``compression`` if its numbers can be written into the header of a frame.

    Raises:
        BadContent: the message says which number, and what was wanted.
    """
    c = compression
    for name, values, count in (("filters", c.filters, 6), ("filters_meta", c.filters_meta, 6)):
        if len(values) != count or not all(0 <= value <= 255 for value in values):
            raise BadContent(f"impossible compression: {name} are {values[:8]}, wanted {count} numbers up to 255")
    for name, value, most in (
        ("codec", c.codec, 255),
        ("codec_meta", c.codec_meta, 255),
        ("clevel", c.clevel, 9),
        ("splitmode", c.splitmode, 4),
    ):
        if not (name == "splitmode") <= value <= most:
            raise BadContent(f"impossible compression: {name} is {value}, the most is {most}")
    return compression


def check_geometry(geometry: Geometry, chunk_bytes_max: int, nchunks_max: int) -> Geometry:
    """Return ``geometry`` if its numbers agree with one another and stay within the limits.

    Whoever reads a geometry from a file or from the wire calls this once; behind it, code may compute
    with the numbers without fear of a zero, a negative one, or one that asks for all memory.

    Raises:
        BadContent: the message says which number, what it was, and what was wanted.
    """
    faults = itertools.chain(_faults_of_bytes(geometry, chunk_bytes_max), _faults_of_array(geometry))
    for fault in faults:  # the first one ends it: what follows would compute with wrong numbers
        raise BadContent(f"impossible geometry: {fault}")
    if geometry.nchunks > nchunks_max:
        raise BadContent(f"impossible geometry: {geometry.nchunks} chunks, the limit is {nchunks_max}")
    return geometry


def _faults_of_bytes(g: Geometry, chunk_bytes_max: int) -> Iterator[str]:
    if not 0 <= g.nbytes < 1 << 62:
        yield f"nbytes is {g.nbytes}"
    if not 0 <= g.chunksize <= chunk_bytes_max:
        yield f"a chunk of {g.chunksize} bytes, the limit is {chunk_bytes_max}"
    if not 0 <= g.blocksize <= g.chunksize:
        yield f"a block of {g.blocksize} bytes in a chunk of {g.chunksize}"
    if not 1 <= g.typesize <= 255:
        yield f"typesize is {g.typesize}, wanted 1 to 255"
    if g.nbytes and not g.chunksize:
        yield f"{g.nbytes} bytes in chunks of {g.chunksize}"


def _faults_of_array(g: Geometry) -> Iterator[str]:
    a = g.array
    if a is None:
        return
    if len(a.shape) > DIMENSIONS_MAX:
        yield f"{len(a.shape)} dimensions, Blosc2 has at most {DIMENSIONS_MAX}"
    if not len(a.shape) == len(a.chunks) == len(a.blocks):
        yield "shape, chunks and blocks differ in length"
    if a.itemsize < 1 or g.typesize not in (a.itemsize, 1):
        yield f"typesize {g.typesize} of items of {a.itemsize} bytes"
    if not all(0 <= s < 1 << 62 for s in a.shape):
        yield f"shape is {a.shape}"
    if 0 not in a.shape:
        yield from _faults_of_chunks(g, a)


def _faults_of_chunks(g: Geometry, a: ArrayGeometry) -> Iterator[str]:
    if not all(0 < b <= c for b, c in zip(a.blocks, a.chunks, strict=True)):
        yield f"blocks {a.blocks} in chunks {a.chunks}"
    padded, block = math.prod(a.padded_chunk) * a.itemsize, math.prod(a.blocks) * a.itemsize
    if padded != g.chunksize:
        yield f"chunks {a.chunks} make {padded} bytes, the frame says {g.chunksize}"
    if block != g.blocksize:
        yield f"blocks {a.blocks} make {block} bytes, the frame says {g.blocksize}"
    count = math.prod(a.grid)
    if count * g.chunksize != g.nbytes:
        yield f"{count} chunks make {count * g.chunksize} bytes, the frame says {g.nbytes}"

"""Datasets as a publisher would give them: an info, and chunks with their digests."""

import itertools
import math
from dataclasses import dataclass

import blosc2
import numpy as np

from zcat.model.dataset import ArrayGeometry, Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.model.dtypes import dtype_text
from zcat.storage.block_order import to_block_order
from zcat.storage.chunk_gate import digest, plain_chunk
from zcat.storage.frame_template import compress_options

OWNER = "0123456789abcdef" * 2
LINEAGE = "0f" * 16
ZSTD = Compression()


@dataclass(frozen=True)
class Sample:
    info: DatasetInfo
    chunks: list[bytes]

    def stored_in(self, dataset, chunks=None):
        for nchunk in range(len(self.chunks)) if chunks is None else chunks:
            dataset.store(nchunk, self.chunks[nchunk], digest(self.chunks[nchunk]))
        return dataset


def sample_array(array, chunks, blocks, lineage=LINEAGE, path="folder/data.b2nd", compression=ZSTD):
    """Cut and compress a NumPy array."""
    itemsize = array.dtype.itemsize
    n_d = ArrayGeometry(array.shape, chunks, blocks, dtype_text(array.dtype), itemsize)
    chunksize, blocksize = math.prod(n_d.padded_chunk) * itemsize, math.prod(blocks) * itemsize
    typesize = itemsize if itemsize < 256 else 1
    count = math.prod(n_d.grid)
    geometry = Geometry(count * chunksize, chunksize, blocksize, typesize, n_d)
    options = compress_options(compression, typesize, blocksize)
    boxes = (
        tuple(slice(i * c, (i + 1) * c) for i, c in zip(corner, chunks, strict=True))
        for corner in itertools.product(*map(range, n_d.grid))
    )
    raw = (blosc2.compress2(to_block_order(array[(*box, ...)], n_d), **options) for box in boxes)
    made = [plain_chunk(chunk, geometry, nchunk) for nchunk, chunk in enumerate(raw)]
    entry = Entry(path, Kind.ARRAY, lineage, array.nbytes, 0, 0, array.shape, n_d.dtype)
    return Sample(DatasetInfo(entry, geometry, compression, {"unit": "K"}), made)


def sample_frame(content, chunksize, lineage=LINEAGE, path="folder/data.bin", typesize=1):
    """Cut and compress bytes."""
    geometry = Geometry(len(content), chunksize, 0, typesize)
    pieces = [content[at : at + chunksize] for at in range(0, len(content), chunksize)]
    made = [blosc2.compress2(piece, typesize=typesize, nthreads=1, blocksize=1024) for piece in pieces]
    entry = Entry(path, Kind.FILE, lineage, len(content), 0, 0)
    return Sample(DatasetInfo(entry, geometry, Compression()), made)


def noise(shape, seed=0):
    """Make uint8 items that do not compress, so that sizes on disk are known."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)

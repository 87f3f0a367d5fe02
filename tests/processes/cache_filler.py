"""A process that fills a cache folder until it is killed: ``python cache_filler.py FOLDER SEED``.

It says on standard output what it has done, one line each, after it has done it: ``stored N``, ``part N`` (some
blocks of it), ``catalogue N``; and ``evicting`` before it does.
"""

import random
import sys

import blosc2
import numpy as np

from zcat.model.dataset import ArrayGeometry, Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.storage.block_layout import cut
from zcat.storage.chunk_cache import ChunkCache
from zcat.storage.chunk_gate import digest
from zcat.storage.disk_budget import DiskLimits

ROOT, OWNER = "root", "ab" * 16
NCHUNKS = 64
CHUNK_BYTES = 256 * 1024
NBLOCKS = 64
LIMITS = DiskLimits(1 << 30, 0, 0)

_LENGTH = NCHUNKS * CHUNK_BYTES
INFO = DatasetInfo(
    Entry("data.b2nd", Kind.ARRAY, "cd" * 16, _LENGTH, 0, 0, (_LENGTH,), "|u1"),
    Geometry(_LENGTH, CHUNK_BYTES, 4096, 1, ArrayGeometry((_LENGTH,), (CHUNK_BYTES,), (4096,), "|u1", 1)),
    Compression(),
)


def chunk(nchunk: int) -> bytes:
    """Make chunk ``nchunk``, always the same; it does not compress."""
    content = np.random.default_rng(nchunk).integers(0, 256, CHUNK_BYTES, np.uint8)
    return blosc2.compress2(content, typesize=1, blocksize=4096, clevel=1, nthreads=1)


def catalogue(number: int) -> bytes:
    """Make a catalogue that shows whether it is whole."""
    return f"{number:08d}".encode() * 4096


def main(folder: str, seed: int) -> None:
    """Fill and empty the cache without end."""
    choice = random.Random(seed)
    chunks = [chunk(nchunk) for nchunk in range(NCHUNKS)]
    cache = ChunkCache(folder, LIMITS)
    while True:
        dataset = cache.dataset(ROOT, OWNER, INFO)
        for nchunk in choice.sample(range(NCHUNKS), NCHUNKS):
            if choice.random() < 0.5:
                part = cut(chunks[nchunk], tuple(sorted(choice.sample(range(NBLOCKS), 20))))
                assert part is not None
                dataset.store_part(nchunk, part)
                print("part", nchunk, flush=True)
            if choice.random() < 0.2:
                continue
            dataset.store(nchunk, chunks[nchunk], digest(chunks[nchunk]))
            print("stored", nchunk, flush=True)
        number = choice.randrange(10**8)
        cache.save_catalogue(ROOT, OWNER, catalogue(number))
        print("catalogue", number, flush=True)
        print("evicting", 0, flush=True)
        dataset.evict(choice.randrange(_LENGTH))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

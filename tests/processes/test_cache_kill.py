import random
import subprocess
import sys
from pathlib import Path

import cache_filler
from cache_filler import INFO, LIMITS, NCHUNKS, OWNER, ROOT, catalogue, chunk

from zcat.storage.chunk_cache import ChunkCache

KILLS = 10
"""Raise it for a long run; each takes half a second."""


def killed_after(folder, seed, nlines):
    """Let a process fill the cache, kill it after so many lines, and return all that it said."""
    command = [sys.executable, cache_filler.__file__, folder, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline() for _ in range(nlines)]
        process.kill()
        rest = process.stdout.read()
    whole = ("".join(lines) + rest).rpartition("\n")[0]
    return [(word, int(number)) for word, number in map(str.split, whole.splitlines())]


def test_a_killed_cache_has_all_that_was_stored_and_nothing_wrong(tmp_path):
    choice = random.Random(0)
    chunks = [chunk(nchunk) for nchunk in range(NCHUNKS)]
    stored = set()  # for certain: over all lives
    for seed in range(KILLS):
        for word, number in killed_after(str(tmp_path), seed, choice.randrange(1, 150)):
            stored = stored | {number} if word == "stored" else set() if word == "evicting" else stored

        with ChunkCache(tmp_path, LIMITS) as cache:
            dataset = cache.dataset(ROOT, OWNER, INFO)
            missing = set(dataset.missing(range(NCHUNKS)))
            assert not stored & missing
            assert all(dataset.blocks_there(nchunk) is None for nchunk in missing)
            for nchunk in set(range(NCHUNKS)) - missing:
                found = dataset.chunk(nchunk)
                assert found is not None
                assert found == chunks[nchunk]
            kept = cache.load_catalogue(ROOT, OWNER)
            assert kept is None or kept == catalogue(int(kept[:8]))
            assert cache.saved(ROOT, OWNER, INFO.entry.path) == INFO
            assert not list(Path(tmp_path).rglob("unfinished-*"))

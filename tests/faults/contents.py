"""What datasets hold, so that each item says which path, which generation and which place it is of.

An item is a hash of its place, xor a base that names path and generation. So it does not compress, real bytes
travel, and whoever reads any part can tell without asking anybody whether all of it is right, and of one version.
"""

import zlib
from pathlib import Path

import blosc2
import numpy as np

ROWS, COLUMNS = 16, 4096
CHUNKS, BLOCKS = (1, COLUMNS), (1, COLUMNS // 4)
"""A row is a chunk of 32 KiB: a read of several rows that mixes versions is seen."""

_PATH_BITS, _GENERATION_BIT = 16, 40


class WrongContent(Exception):
    """A read gave what no version of the dataset holds."""


def array(path: str, generation: int) -> np.ndarray:
    """All items of an array, in one generation."""
    return _noise(0, ROWS * COLUMNS).reshape(ROWS, COLUMNS) ^ _base(path, generation)


def generation_of(values: np.ndarray, path: str, first_row: int) -> int:
    """Say of which generation these rows are.

    Raises:
        WrongContent: they are of none, of several, or of another path.
    """
    bases = values.reshape(-1) ^ _noise(first_row * COLUMNS, values.size)
    generation = int(bases[0]) >> _GENERATION_BIT
    if (bases != _base(path, generation)).any():
        found = sorted({int(base) >> _GENERATION_BIT for base in np.unique(bases)[:5]})
        raise WrongContent(f"{path} from row {first_row}: {values.shape[0]} rows look like generations {found}")
    return generation


def write(folder: Path, path: str, generation: int) -> None:
    """Put one generation of a dataset in its place, at once."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}")
    made = blosc2.asarray(
        array(path, generation), urlpath=str(aside), mode="w", chunks=CHUNKS, blocks=BLOCKS,
        cparams={"clevel": 0, "nthreads": 1},
    )  # fmt: skip
    del made
    aside.replace(target)


def _base(path: str, generation: int) -> np.uint64:
    name = zlib.crc32(path.encode()) & ((1 << _PATH_BITS) - 1)
    return np.uint64(generation << _GENERATION_BIT | name)


def _noise(begin: int, count: int) -> np.ndarray:
    """The finalizer of splitmix64 over the places, without the highest bits, which are the generation's."""
    with np.errstate(over="ignore"):
        z = np.arange(begin, begin + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

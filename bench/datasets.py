"""The data that is measured on: a smooth field with noise, as an instrument or a simulation would write it."""

from pathlib import Path

import blosc2
import numpy as np

ROWS, COLUMNS = 1024, 1024


def cube(folder: Path, planes: int) -> Path:
    """Write a float32 cube of ``planes`` x 1024 x 1024, a chunk of 4 MiB for each plane, zstd-1.

    Blocks are as Blosc2 chooses them; values are rounded to 0.01, so that they compress about 2.3 times. An
    existing file is kept.
    """
    path = folder / f"cube{planes}.b2nd"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:ROWS, 0:COLUMNS] / 200.0
    noise = rng.normal(0, 0.5, (4, ROWS, COLUMNS))
    made = blosc2.empty(
        (planes, ROWS, COLUMNS),
        dtype="f4",
        chunks=(1, ROWS, COLUMNS),
        urlpath=str(path.with_suffix(".part")),
        mode="w",
        cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1},
    )
    for plane in range(planes):
        field = 280 + 10 * np.sin(x + plane / 20) * np.cos(y - plane / 30) + noise[plane % 4]
        made[plane] = np.round(field, 2).astype("f4")
    path.with_suffix(".part").rename(path)
    return path


def chunk_sizes(path: Path) -> list[int]:
    """Give the compressed size of each chunk of a contiguous file."""
    array = blosc2.open(str(path), mode="r")
    return [len(array.schunk.get_chunk(number)) for number in range(array.schunk.nchunks)]

"""How long zarr takes on the spot: ``python local_zarr.py FOLDER SLICES REPEATS``, in an environment that has it.

Reads the values of ``blosc2.h5`` once, and keeps them as a Zarr 3 array of the same chunks, zstd-1 with shuffle.
Prints the median milliseconds of each slice as JSON.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  # so that HDF5 knows Blosc2
import zarr


def main() -> None:
    """Measure and print."""
    folder, slices, repeats = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    target = folder / "cube.zarr"
    if not target.exists():
        with h5py.File(folder / "blosc2.h5") as file:
            cube = file["cube"]
            codec = zarr.codecs.BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
            part = folder / "cube.zarr.part"
            made = zarr.create_array(
                str(part),
                shape=cube.shape,
                chunks=cube.chunks,
                dtype=cube.dtype,
                compressors=codec,
                overwrite=True,
            )
            for plane in range(cube.shape[0]):
                made[plane] = cube[plane]
        part.rename(target)
    array = zarr.open_array(str(target), mode="r")
    told = {}
    for name, text in slices.items():
        parts = [[int(number) for number in part.split(":")] for part in text.split(",")]
        key = tuple(slice(*part) if len(part) > 1 else part[0] for part in parts)
        times = []
        for number in range(repeats[name]):
            at = key if isinstance(key[0], slice) else (number * 7 % array.shape[0], *key[1:])
            begun_s = time.perf_counter()
            array[at]
            times.append(time.perf_counter() - begun_s)
        told[name] = statistics.median(times) * 1e3
    print(json.dumps(told))


if __name__ == "__main__":
    main()

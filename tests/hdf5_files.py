"""HDF5 files for tests, and what a worker would tell of their datasets."""

import os

import h5py
import numpy as np

from zcat.storage.beneath import stamp_of
from zcat.storage.hdf5 import chunk_table
from zcat.storage.hdf5.checks import open_dataset
from zcat.storage.hdf5.inventory import walk
from zcat.storage.hdf5.open_files import OpenFile
from zcat.storage.hdf5.stored import ChunkTable


def described(path, name="d"):
    """Give the item of a dataset, and the table of its chunks if it has some."""
    fd = os.open(path, os.O_RDONLY)
    try:
        file = OpenFile(fd, stamp_of(fd))
        try:
            item = next(item for item in walk(file) if item.path == name)
            is_chunked = item.layout.kind == "chunked"
            dataset = open_dataset(file.h5, item.hdf5_path)
            table = ChunkTable(*chunk_table.table_of(dataset)) if is_chunked else None
        finally:
            file.close()
    finally:
        os.close(fd)
    return item, table


def wave(shape, dtype="<f4"):
    """Make values that compress, and differ from one another."""
    count = int(np.prod(shape))
    return (np.arange(count) % 251 * 3 + np.arange(count) // 97).astype(dtype).reshape(shape)


def write(path, **datasets):
    """Write datasets: each an array, or a dict of what ``create_dataset`` takes."""
    with h5py.File(path, "w") as file:
        for name, given in datasets.items():
            options = given if isinstance(given, dict) else {"data": given}
            file.create_dataset(name, **options)
    return path

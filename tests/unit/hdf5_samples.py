"""HDF5 files that tests make, and what is told of them."""

import os
from contextlib import contextmanager

from zcat.storage.hdf5.inventory import walk
from zcat.storage.hdf5.open_files import OpenFiles


@contextmanager
def opened(path):
    """Open as a worker does, but here: for files that are not hostile."""
    fd = os.open(path, os.O_RDONLY)
    file = OpenFiles().get(fd)
    try:
        yield file
    finally:
        file.close()
        os.close(fd)


def told(path):
    """Give all items of a file by path, from its inventory."""
    with opened(path) as file:
        items = list(walk(file))
    assert len({item.path for item in items}) == len(items)
    return {item.path: item for item in items}

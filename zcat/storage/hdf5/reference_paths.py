"""The paths of the objects of an HDF5 file, by their addresses: what references lead to. In worker processes only.

A reference, as it is stored, is the address of an object. HDF5 would look through the whole file for the name of
each; here all links are gone through once, when the first reference is met.
"""

import h5py
from h5py import h5l, h5o, h5r

from zcat.storage.hdf5.items import NODES_MAX

NOTHING = b"<a reference to nothing>"
"""Stands for one whose object has no name: it is gone, or was never linked; or its name was not come to."""

_DEPTH_MAX = 512  # HDF5 takes some of its stack for each level


class ReferencePaths:
    """Of one open file."""

    def __init__(self, file: h5py.File) -> None:
        """Find out nothing yet."""
        self._file = file
        self._by_address: dict[int, bytes] | None = None

    def of(self, address: int) -> bytes:
        """Give the absolute path of the object at an address; an empty one for 0, which is a null reference."""
        if not address:
            return b""
        if self._by_address is None:
            self._by_address = _addresses(self._file)
        return self._by_address.get(address, NOTHING)

    def of_reference(self, reference: h5r.Reference) -> bytes:
        """Do as `of`, for a reference that h5py has read: it opens the object to find out its address."""
        if not reference:
            return b""
        try:
            return self.of(h5o.get_info(h5r.dereference(reference, self._file.id)).addr)
        except (ValueError, RuntimeError, KeyError, OSError):
            return NOTHING


def _addresses(file: h5py.File) -> dict[int, bytes]:
    root = h5o.open(file.id, b"/")
    paths = {h5o.get_info(root).addr: b"/"}

    def take(name: bytes, info: h5l.LinkInfo) -> bool | None:
        if info.type == h5l.TYPE_HARD:
            paths.setdefault(info.u, b"/" + name)
        return True if len(paths) > NODES_MAX or name.count(b"/") > _DEPTH_MAX else None

    root.links.visit(take, info=True)
    return paths

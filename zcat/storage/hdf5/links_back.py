"""Links from an import's notes back to HDF5: other names of objects, soft and external links, and their order."""

from typing import Any

import h5py

from zcat.storage.hdf5.names import decoded

_BETWEEN = ".zcat-relinked"
"""A name that an object has while its own is made anew; no import gives one that begins with a dot."""


def hdf5_path(path: str) -> str:
    """Give the path in HDF5 of what has the path ``path`` in a folder."""
    return "/" + "/".join(map(decoded, path.split("/"))) if path else "/"


def add_link(file: h5py.File, path: str, target: Any) -> None:
    """Make a link.

    Args:
        file: open for writing.
        path: of the link, as a folder has it.
        target: the path of the object of which it is another name; or a list: what a soft link says, and, of an
            external one, the file besides.

    Raises:
        OSError, RuntimeError, ValueError, TypeError, LookupError: it cannot be made.
    """
    name = hdf5_path(path)
    match target:
        case str():
            file[name] = object_at(file, hdf5_path(target))
        case [str() as inside]:
            file[name] = h5py.SoftLink(inside)
        case [str() as inside, str() as other]:
            file[name] = h5py.ExternalLink(other, inside)
        case _:
            raise ValueError("a link that is noted in no known form")


def object_at(file: h5py.File, path: str) -> h5py.HLObject:
    """Open an object by its absolute path in a file that is being written, and never another file.

    Raises:
        LookupError: nothing is there, or the way leads through a soft or external link: paths that were told of
            an object never do.
    """
    found = file["/"]
    for name in filter(None, path.split("/")):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(name, getlink=True), h5py.HardLink):
            raise LookupError(f"nothing at {path}")
        found = found[name]
    return found


def restore_order(group: h5py.Group, names: list[str]) -> None:
    """Make the links of a group anew, so that the order of their creation is that of ``names``.

    Raises:
        OSError, RuntimeError, ValueError, TypeError, LookupError: HDF5 refuses.
    """
    present = list(group)
    wanted = [name for name in map(decoded, names) if name in group or group.get(name, getlink=True, default=None)]
    if [name for name in present if name in set(wanted)] == wanted:
        return
    for name in wanted:
        link = group.get(name, getlink=True)
        target = group[name] if isinstance(link, h5py.HardLink) else link
        group[_BETWEEN] = target  # it is never without a name
        del group[name]
        group[name] = target
        del group[_BETWEEN]

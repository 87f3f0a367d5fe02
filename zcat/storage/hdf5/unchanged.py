"""What stays the same when an HDF5 file changes: lineages name one content each, and are not renewed without need.

A dataset or group of the new version is what it was in the old one if all that was ever told of it is still so:

- its line in the catalogue: type, shape, chunks, filters, fill value, and small values and texts themselves;
- its attributes, and how it is cut, if it was described to anybody;
- each chunk that was given out: the stored bytes that it is made of are compared by their digests, wherever they
  lie in the file. So a file that was written anew, as a whole, keeps what did not change.

What nobody has read may be anything without harm. Small files are read once all the same (``witnessing``). Of the
rest it is taken to be the same if the file is the same inode, and nothing was moved in it; of another inode,
nothing is known.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zcat.errors import ZcatError
from zcat.limits import GIB
from zcat.storage.beneath import Stamp
from zcat.storage.hdf5.asking import read_attribute_digests
from zcat.storage.hdf5.dataset import Hdf5Dataset, description_of, whole_of
from zcat.storage.hdf5.direct import is_direct
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.layout import cut_of
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.hdf5.served import DESCRIPTION, TOO_MANY, WHOLE, Served, Witnesses

COMPARED_BYTES_MAX = GIB
"""Of stored bytes that are read again when a file changed; what would need more counts as changed."""


@dataclass(frozen=True, slots=True)
class Version:
    """A file, open, and what is in it."""

    sandbox: Sandbox
    fd: int
    stamp: Stamp
    items: Mapping[str, Item]


def unchanged(before: Mapping[str, Item], stamp: Stamp, served: Served, now: Version) -> Iterator[str]:
    """Tell the paths of what is the same.

    Args:
        before: the items of the old version.
        stamp: of the old version.
        served: what was given out of the old version; sealed.
        now: the new version.

    Raises:
        ZcatError: the new version cannot be read.
    """
    alike = [path for path, item in now.items.items() if path in before and _is_alike(before[path], item)]
    given = served.of_all(alike)
    described = [path for path in alike if not {DESCRIPTION, WHOLE}.isdisjoint(given.get(path, ()))]
    digests = read_attribute_digests(now.sandbox, now.fd, [now.items[path].hdf5_path for path in described])
    attributes = dict(zip(described, digests, strict=True))
    is_in_place = (stamp.device, stamp.inode) == (now.stamp.device, now.stamp.inode)
    left_bytes = COMPARED_BYTES_MAX
    for path in alike:
        witnesses, item = given.get(path, {}), now.items[path]
        units = [number for number in witnesses if number >= 0]
        is_still = is_in_place and before[path].places == item.places
        if TOO_MANY in witnesses or not (WHOLE in witnesses or units or is_still or _is_told_whole(item)):
            continue
        compared_bytes = _compared_bytes(item, -1 if WHOLE in witnesses else len(units))
        if compared_bytes > left_bytes:
            continue
        left_bytes -= compared_bytes
        if _holds(now, item, witnesses, attributes.get(path, b"")):
            yield path


def _is_alike(before: Item, now: Item) -> bool:
    was = (before.kind, before.fingerprint, before.problem, before.note)
    return was == (now.kind, now.fingerprint, now.problem, now.note)


def _is_told_whole(item: Item) -> bool:
    """Say whether there is nothing more to an item than what its fingerprint says, and its attributes."""
    return item.kind == "group" or item.by_value or item.problem is not None or 0 in (item.shape or ())


def _compared_bytes(item: Item, units: int) -> int:
    """Say how many stored bytes are to be read again for that many units; for -1, all."""
    of_all = item.layout.stored_bytes if item.layout is not None else 0
    if units <= 0:
        return -units * of_all
    geometry = cut_of(item).geometry
    return (
        max(of_all, geometry.nbytes if item.layout and item.layout.kind == "virtual" else 0)
        * units
        // max(geometry.nchunks, units)
    )


def _holds(now: Version, item: Item, witnesses: Witnesses, attributes: bytes) -> bool:
    """Compare the description and the chunks that were given out with what would be given now."""
    units = {number: witness for number, witness in witnesses.items() if number >= 0}
    if not witnesses:
        return True
    try:
        if WHOLE in witnesses:
            whole = None if item.kind == "group" else Hdf5Dataset(now.sandbox, now.fd, item)
            return witnesses[WHOLE] == whole_of(attributes, whole)
        dataset = Hdf5Dataset(now.sandbox, now.fd, item) if units or is_direct(item.layout) else None
        if DESCRIPTION in witnesses:
            cut = None if item.kind == "group" else dataset.cut if dataset else cut_of(item)
            if witnesses[DESCRIPTION] != description_of(attributes, cut):
                return False
        if dataset is None:
            return True
        nchunks = dataset.cut.geometry.nchunks
        return all(
            number < nchunks and dataset.witness(dataset.unit(number)) == witness
            for number, witness in units.items()
        )
    except ZcatError:
        return False

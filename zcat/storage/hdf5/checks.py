"""What HDF5 may be asked to read: nothing that lies outside of the file, nothing through an unknown filter.

In worker processes only. Each way in which a dataset leads elsewhere is looked for before it is read: raw external
storage, virtual datasets, filters that HDF5 would load a library for.
"""

import h5py
from h5py import h5d, h5p, h5z

from zcat.errors import DatasetUnknown, NotReadable
from zcat.names import shown
from zcat.storage.hdf5.items import Filter, Layout
from zcat.storage.hdf5.links import open_path

FILTERS = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32018: "fcidecomp",
    32024: "sz3",
    32026: "blosc2",
    32028: "sperr",
    32033: "htj2k",
}
"""Those of HDF5 itself, of h5py, and what hdf5plugin brings: by the numbers that the HDF Group registered."""

_SOURCES_MAX = 4096
_VIRTUAL_DEPTH_MAX = 8
_OPTIONS_MAX = 64  # of one filter that are told; a damaged file may have 65535
_KINDS = {h5d.COMPACT: "compact", h5d.CONTIGUOUS: "contiguous", h5d.CHUNKED: "chunked", h5d.VIRTUAL: "virtual"}


def open_dataset(file: h5py.File, path: str) -> h5d.DatasetID:
    """Open a dataset that may be read.

    Args:
        file: open.
        path: absolute, as HDF5 has it.

    Raises:
        DatasetUnknown: there is none.
        NotReadable: it leads out of the file, or needs a filter that is not here.
        BadContent: the file is damaged there.
    """
    found = open_path(file, path)
    if not isinstance(found, h5d.DatasetID):
        raise DatasetUnknown(f"{shown(path)} is no dataset")
    plist = found.get_create_plist()
    check_storage(file, plist, layout_of(found, plist))
    return found


def check_storage(file: h5py.File, plist: h5p.PropDCID, layout: Layout, depth: int = 0) -> None:
    """Say whether HDF5 may read the values of a dataset.

    Raises:
        NotReadable: it may not; the message says why.
    """
    if plist.get_external_count():
        name = plist.get_external(0)[0]
        raise NotReadable(f"its values lie in another file, {_text(name)}: not followed")
    if layout.kind == "virtual":
        _check_sources(file, plist, depth)
    for one in layout.filters:
        if one.id not in FILTERS or not h5z.filter_avail(one.id):
            raise NotReadable(
                f"it needs the HDF5 filter {one.id} ({one.name}), which is not one of those read here"
            )


def filters_of(plist: h5p.PropDCID) -> tuple[Filter, ...]:
    """List the filters of a dataset, in the order in which they are applied when it is written."""
    found = []
    for at in range(plist.get_nfilters()):
        number, _, options, name = plist.get_filter(at)
        found.append(Filter(number, FILTERS.get(number) or _text(name), tuple(options[:_OPTIONS_MAX])))
    return tuple(found)


def layout_of(dataset: h5d.DatasetID, plist: h5p.PropDCID) -> Layout:
    """Say how the bytes of a dataset lie in the file; axes inside its items are not among those of its chunks."""
    kind = _KINDS[plist.get_layout()]
    stored_bytes = dataset.get_storage_size() if kind != "virtual" else 0
    chunks = plist.get_chunk() if kind == "chunked" else None
    # where nothing is stored yet, HDF5 gives an impossible address, plus the length of the user block
    offset = dataset.get_offset() if kind == "contiguous" and stored_bytes else None
    return Layout(kind, chunks, filters_of(plist) if chunks else (), offset, stored_bytes)


def plain_layout_of(dataset: h5d.DatasetID) -> Layout | None:
    """Say how the bytes of a dataset lie that is contiguous and all there, in this file; None of any other.

    Of such a one nothing else matters: it has no filters, no other files, and no use for a fill value.

    Args:
        dataset: open, in a file without a user block: otherwise HDF5 adds its length to addresses that are none.
    """
    offset = dataset.get_offset()
    stored_bytes = dataset.get_storage_size() if offset is not None else 0
    return Layout("contiguous", None, (), offset, stored_bytes) if stored_bytes else None


def _check_sources(file: h5py.File, plist: h5p.PropDCID, depth: int) -> None:
    count = plist.get_virtual_count()
    if count > _SOURCES_MAX or depth == _VIRTUAL_DEPTH_MAX:
        raise NotReadable(f"a virtual dataset of {count} sources, {depth + 1} deep: too many")
    checked: set[str] = set()
    for at in range(count):
        name, source = plist.get_virtual_filename(at), plist.get_virtual_dsetname(at)
        if name != ".":
            raise NotReadable(f"a virtual dataset with a source in another file, {_text(name)}: not followed")
        if "%" in source:
            raise NotReadable("a virtual dataset whose sources are told by a pattern")
        if source in checked:
            continue
        checked.add(source)
        try:
            found = open_path(file, "/" + source.lstrip("/"))
        except DatasetUnknown:
            continue  # fill value
        if isinstance(found, h5d.DatasetID):
            inner = found.get_create_plist()
            check_storage(file, inner, layout_of(found, inner), depth + 1)


def _text(name: bytes | str) -> str:
    return shown(name if isinstance(name, str) else name.decode("utf-8", "replace"), 200)

"""Catalogue lines and datasets as JSON values.

An array has the shape that Caterva2's clients read: geometry at the top, the super-chunk's numbers in
``schunk``; of a byte frame or file the super-chunk's numbers are the top. What zcat adds stands beside it.
Nothing here says where a file lies on somebody's disk.
"""

import datetime
from typing import Any

from zcat.http.reads import Dataset, RootState
from zcat.model.dataset import DatasetInfo, Entry
from zcat.model.dtypes import parse_dtype

_STUNE = 0  # BLOSC_STUNE, the tuner that only follows the parameters


def describe_root(root: RootState) -> dict[str, Any]:
    """Describe a root."""
    return {
        "name": root.name,
        "subscribed": root.followed,
        "owner": root.owner,
        "state": root.state,
        "datasets": root.datasets,
        "contested": root.contested,
        "synced": root.synced,
    }


def describe_entry(entry: Entry, path: str) -> dict[str, Any]:
    """Describe one line of a listing; ``path`` is relative to what is listed."""
    return {
        "path": path,
        "kind": entry.kind.value,
        "shape": entry.shape,
        "dtype": entry.dtype,
        "nbytes": entry.nbytes,
        "cbytes": entry.cbytes,
        "mtime": _time(entry.mtime_ns),
        "problem": entry.problem,
    }


def describe_folder(entries: list[Entry]) -> dict[str, Any]:
    """Describe a folder, or a whole root, by what lies under it."""
    newest_ns = max((entry.mtime_ns for entry in entries), default=None)
    return {
        "kind": "group",
        "nfiles": len(entries),
        "size": sum(entry.cbytes for entry in entries),
        "mtime": None if newest_ns is None else _time(newest_ns),
    }


def describe_group(info: DatasetInfo, entries: list[Entry]) -> dict[str, Any]:
    """Describe a group of an HDF5 file: as a folder, and its attributes besides."""
    return {**describe_folder(entries), "mtime": _time(info.entry.mtime_ns), "attributes": info.attributes}


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """Describe one version of a dataset."""
    info = dataset.info
    version = info.version
    own = {
        "mtime": _time(info.entry.mtime_ns),
        "accept_ranges": "bytes",
        "kind": info.entry.kind.value,
        "lineage": version.lineage,
        "version": version.text,
        "size": info.entry.nbytes,
        "complete": dataset.complete,
        "attributes": info.attributes,
    }
    array = info.geometry.array
    if array is None:
        return _super_chunk(info) | own
    return {
        "shape": array.shape,
        "chunks": array.chunks,
        "blocks": array.blocks,
        "dtype": str(parse_dtype(array.dtype)),
        "schunk": _super_chunk(info),
        **own,
    }


def _super_chunk(info: DatasetInfo) -> dict[str, Any]:
    geometry, cbytes = info.geometry, info.entry.cbytes
    return {
        "nbytes": geometry.nbytes,
        "cbytes": cbytes,
        "cratio": geometry.nbytes / cbytes if cbytes else 0.0,
        "chunksize": geometry.chunksize,
        "chunkshape": geometry.chunksize // geometry.typesize,
        "blocksize": geometry.blocksize,
        "nchunks": geometry.nchunks,
        "contiguous": True,
        "urlpath": None,
        "vlmeta": info.attributes,
        "mtime": None,
        "cparams": _parameters(info),
    }


def _parameters(info: DatasetInfo) -> dict[str, Any]:
    c = info.compression
    return {
        "codec": c.codec,
        "codec_meta": c.codec_meta,
        "clevel": c.clevel,
        "filters": c.filters,
        "filters_meta": c.filters_meta,
        "filters, meta": [pair for pair in zip(c.filters, c.filters_meta, strict=True) if pair[0]],
        "splitmode": c.splitmode,
        "typesize": info.geometry.typesize,
        "blocksize": info.geometry.blocksize,
        "nthreads": 1,
        "tuner": _STUNE,
        "use_dict": False,
    }


def _time(mtime_ns: int) -> str:
    at = datetime.datetime.fromtimestamp(mtime_ns // 1_000_000_000, datetime.UTC)
    return at.replace(microsecond=mtime_ns // 1000 % 1_000_000).isoformat().replace("+00:00", "Z")

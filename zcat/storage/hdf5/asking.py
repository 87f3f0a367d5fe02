"""What is asked of the worker processes, and what their answers must look like: they are a stranger's."""

from typing import Any

import numpy as np

from zcat.errors import BadContent, BadMessage
from zcat.limits import ATTRIBUTES_BYTES_MAX, KIB, NCHUNKS_MAX
from zcat.protocol.codec import from_plain, to_plain, unpack
from zcat.storage.chunk_gate import HEADER_BYTES, plain_chunk
from zcat.storage.hdf5.convert import Job
from zcat.storage.hdf5.items import Item
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.hdf5.stored import ChunkTable

ITEMS_MAX = 1_000_000
"""Groups and datasets of one file."""

_TABLE_PAGE = 1 << 22


def read_inventory(sandbox: Sandbox, fd: int) -> list[Item]:
    """List all groups and datasets of a file, each group before what is in it.

    Raises:
        BadContent: it cannot be read, or what came is no inventory.
        Busy: another program writes it, or no worker is free.
        StorageFailed, Closed: as ``Sandbox.call`` says.
    """
    items: list[Item] = []
    start = 0
    while True:
        fields, _ = sandbox.call("inventory", {"start": start}, fd)
        plain = fields.get("items")
        if not isinstance(plain, list) or len(items) + len(plain) > ITEMS_MAX:
            raise BadContent(f"wanted an inventory of at most {ITEMS_MAX} items")
        try:
            items.extend(from_plain(Item, one) for one in plain)
        except BadMessage as error:
            raise BadContent(f"an inventory that is none: {error.message}") from None
        following = fields.get("next")
        if not plain or type(following) is not int or following <= start:
            return items
        start = following


def read_attributes(sandbox: Sandbox, fd: int, hdf5_path: str) -> dict[str, Any]:
    """Read the attributes of a group or dataset, as plain values.

    Raises:
        ZcatError: as `read_inventory`; or what is wrong with the object.
    """
    return _read_maps(sandbox, fd, "attributes", hdf5_path)[0]


def read_typed_attributes(sandbox: Sandbox, fd: int, hdf5_path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the attributes of a group or dataset: plain values, and types as ``forms`` has them, both by name.

    Raises:
        ZcatError: as `read_attributes`.
    """
    values, types = _read_maps(sandbox, fd, "attributes", hdf5_path, 2)
    return values, types


def read_creation(sandbox: Sandbox, fd: int, hdf5_path: str) -> dict[str, Any]:
    """Read what a dataset was made with, as ``values.creation_of`` tells it.

    Raises:
        ZcatError: as `read_attributes`.
    """
    return _read_maps(sandbox, fd, "creation", hdf5_path)[0]


def read_table(sandbox: Sandbox, fd: int, hdf5_path: str) -> ChunkTable:
    """Read where the chunks of a dataset lie.

    Raises:
        ZcatError: as `read_inventory`; or what is wrong with the dataset.
    """
    parts: list[ChunkTable] = []
    told, count = 0, 1
    while told < count:
        wanted = {"path": hdf5_path, "start": told, "count": _TABLE_PAGE}
        fields, bodies = sandbox.call("chunk_table", wanted, fd)
        count = fields.get("chunks", -1)
        try:
            offsets, sizes, masks = bodies
            part = ChunkTable(
                *(np.frombuffer(b, t) for b, t in ((offsets, "<i8"), (sizes, "<i8"), (masks, "<u4")))
            )
        except ValueError:
            raise BadContent("a table of chunks that is none") from None
        length = len(part.offsets)
        is_right = (
            type(count) is int and 0 <= count <= NCHUNKS_MAX and len(part.sizes) == len(part.masks) == length
        )
        if not is_right or (count and not length):
            raise BadContent("a table of chunks that is none")
        parts.append(part)
        told += length
    return ChunkTable(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.sizes for part in parts]),
        np.concatenate([part.masks for part in parts]),
    )


def read_chunks(sandbox: Sandbox, fd: int, job: Job) -> list[bytes]:
    """Have chunks read and converted by HDF5.

    Raises:
        ZcatError: as `read_inventory`; or what is wrong with the dataset. ``BadChunk``: what came does not agree
            with the geometry.
    """
    _, bodies = sandbox.call("chunk", to_plain(job), fd)
    body = memoryview(bodies[0] if bodies else b"")
    chunks: list[bytes] = []
    at = 0
    for number in job.numbers:
        size = int.from_bytes(body[at + 12 : at + 16], "little")
        if not HEADER_BYTES <= size <= len(body) - at:
            raise BadContent(f"chunk {number}: {size} bytes where {len(body) - at} are left")
        chunks.append(plain_chunk(body[at : at + size], job.geometry, number))
        at += size
    return chunks


def _read_maps(sandbox: Sandbox, fd: int, op: str, hdf5_path: str, count: int = 1) -> list[dict[str, Any]]:
    """Ask for things by name, each a body of msgpack; take the first ``count``."""
    _, bodies = sandbox.call(op, {"path": hdf5_path}, fd)
    try:
        maps = [unpack(body, ATTRIBUTES_BYTES_MAX + 64 * KIB) for body in bodies[:count]]
    except BadMessage as error:
        raise BadContent(f"an answer that is none: {error.message}") from None
    if len(maps) != count or not all(type(one) is dict and all(type(n) is str for n in one) for one in maps):
        raise BadContent(f"wanted {op} by name")
    return maps

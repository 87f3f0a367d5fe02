"""What is asked of the worker processes, and what their answers must look like: they are a stranger's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import blake3
import numpy as np

from zcat.errors import BadContent, BadMessage
from zcat.limits import ATTRIBUTES_BYTES_MAX, KIB, NCHUNKS_MAX
from zcat.protocol.codec import to_plain, unpack
from zcat.storage.chunk_gate import DIGEST_BYTES, HEADER_BYTES, plain_chunk
from zcat.storage.hdf5.convert import Job
from zcat.storage.hdf5.items import Item, read_page
from zcat.storage.hdf5.sandbox import Sandbox
from zcat.storage.hdf5.stored import ChunkTable

ITEMS_MAX = 1_000_000
"""Groups and datasets of one file."""

_TABLE_PAGE = 1 << 22
_PATHS_MAX = 512


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Some groups and datasets of a file."""

    items: list[Item]
    packed: bytearray
    """The same as they came; `items.read_page` reads them again."""


def read_inventory(sandbox: Sandbox, fd: int) -> list[Item]:
    """List all groups and datasets of a file, each group before what is in it.

    Raises:
        BadContent: it cannot be read, or what came is no inventory.
        Busy: another program writes it, or no worker is free.
        StorageFailed, Closed: as ``Sandbox.call`` says.
    """
    return [item for page in read_pages(sandbox, fd) for item in page.items]


def read_pages(sandbox: Sandbox, fd: int) -> Iterator[Page]:
    """Do as `read_inventory`, page by page: what is done with one, is done while the next one is made."""
    count = 0
    start: int | None = 0
    with ThreadPoolExecutor(1) as ahead:  # a page is made while the one before it is read
        page = ahead.submit(sandbox.call, "inventory", {"start": start}, fd)
        while start is not None:
            fields, bodies = page.result()
            start = _following(fields, start)
            if start is not None:
                page = ahead.submit(sandbox.call, "inventory", {"start": start}, fd)
            one = _page_of(bodies)
            count += len(one.items)
            if count > ITEMS_MAX:
                raise BadContent(f"an inventory of more than {ITEMS_MAX} items")
            yield one


def read_attributes(sandbox: Sandbox, fd: int, hdf5_path: str) -> tuple[dict[str, Any], bytes]:
    """Read the attributes of a group or dataset: as plain values, and their digest.

    Raises:
        ZcatError: as `read_inventory`; or what is wrong with the object.
    """
    bodies = _read_bodies(sandbox, fd, "attributes", hdf5_path, 1)
    return _map_of(bodies[0]), blake3.blake3(bodies[0]).digest()


def read_attribute_digests(sandbox: Sandbox, fd: int, hdf5_paths: list[str]) -> list[bytes]:
    """Read the digests of the attributes of some groups and datasets, without the attributes.

    Raises:
        ZcatError: as `read_inventory`.
    """
    digests: list[bytes] = []
    for at in range(0, len(hdf5_paths), _PATHS_MAX):
        paths = hdf5_paths[at : at + _PATHS_MAX]
        _, bodies = sandbox.call("attribute_digests", {"paths": paths}, fd)
        if len(bodies) != 1 or len(bodies[0]) != DIGEST_BYTES * len(paths):
            raise BadContent("digests of attributes that are none")
        digests += [bytes(bodies[0][n : n + DIGEST_BYTES]) for n in range(0, len(bodies[0]), DIGEST_BYTES)]
    return digests


def read_typed_attributes(sandbox: Sandbox, fd: int, hdf5_path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the attributes of a group or dataset: plain values, and types as ``forms`` has them, both by name.

    Raises:
        ZcatError: as `read_attributes`.
    """
    values, types = map(_map_of, _read_bodies(sandbox, fd, "attributes", hdf5_path, 2))
    return values, types


def read_creation(sandbox: Sandbox, fd: int, hdf5_path: str) -> dict[str, Any]:
    """Read what a dataset was made with, as ``values.creation_of`` tells it.

    Raises:
        ZcatError: as `read_attributes`.
    """
    return _map_of(_read_bodies(sandbox, fd, "creation", hdf5_path, 1)[0])


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


def _following(fields: dict[str, Any], start: int) -> int | None:
    """Say where the next page of an inventory starts, if there is one."""
    following = fields.get("next")
    return following if type(following) is int and following > start else None


def _page_of(bodies: list[bytearray]) -> Page:
    packed = bodies[0] if bodies else bytearray()
    try:
        return Page(read_page(packed), packed)
    except BadMessage as error:
        raise BadContent(f"an inventory that is none: {error.message}") from None


def _read_bodies(sandbox: Sandbox, fd: int, op: str, hdf5_path: str, count: int) -> list[bytearray]:
    """Ask for what an object has; take the first ``count`` bodies."""
    _, bodies = sandbox.call(op, {"path": hdf5_path}, fd)
    if len(bodies) < count:
        raise BadContent(f"wanted {op} by name")
    return bodies[:count]


def _map_of(body: bytearray) -> dict[str, Any]:
    """Read things by name."""
    try:
        made = unpack(body, ATTRIBUTES_BYTES_MAX + 64 * KIB)
    except BadMessage as error:
        raise BadContent(f"an answer that is none: {error.message}") from None
    if type(made) is not dict:
        raise BadContent("an answer that is no map")
    return made

"""Parts of a dataset: what a query means for it, and the forms in which its items are sent."""

import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zcat.errors import BadSelection, NotReadable, TooLarge
from zcat.http.query import Query
from zcat.http.reads import Buffer, Dataset
from zcat.http.streaming import (
    PIECE_BYTES,
    PIECE_BYTES_MAX,
    STREAM_BYTES_MIN,
    Pieces,
    begun,
    blocks,
    compressed_stream,
    raw_stream,
)
from zcat.limits import MIB
from zcat.model.dataset import ArrayGeometry, DatasetInfo, Kind
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.model.geometry import WholeChunks, chunks_touched, whole_chunks
from zcat.model.selection import Points, Read, Selection, parse_key
from zcat.model.slabs import keeps_order, slabs
from zcat.names import shown
from zcat.services.preview import PreviewAsk, PreviewLimits, plan_preview, read_preview
from zcat.storage.answers import STREAM_CHUNK_BYTES, answer_compression, cframe_of_bytes, chunk_stream
from zcat.storage.block_order import is_block_order
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.slice_frames import cframe_of_pieces, cframe_of_slice

BROUGHT_BYTES_MAX = 256 * MIB
"""A part of so much is brought into the cache as a whole before any of it is sent: should its dataset change
meanwhile, the read begins anew. Of a larger one, the connection is cut."""

PREVIEW_HEADER = "X-Zcat-Preview"
"""What was done to make a preview, as JSON: is it exact, how many items became one, how many chunks were read."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a dataset that is known, but not yet read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], npt.NDArray[Any]]
    held_nbytes: int
    """What must be in memory to make it: whole records for one field, all that lies between for a step."""
    stored: WholeChunks | None = None
    """The part as it is stored already, where it is made of whole chunks."""
    told: str = ""
    """What was done to make a preview of it; empty for the part itself."""
    pieces: Callable[[], Pieces] | None = None
    """The part, piece by piece; None where it can only be made as a whole."""

    @property
    def is_streamed(self) -> bool:
        """It is so large that it is sent while it is read."""
        return self.pieces is not None and self.nbytes > STREAM_BYTES_MIN

    @property
    def nbytes(self) -> int:
        """Of the items, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def headers(self) -> dict[str, str]:
        """Shape and dtype, for formats that do not carry them."""
        told = {PREVIEW_HEADER: self.told} if self.told else {}
        return {"Accept-Ranges": "none", **shape_headers(self.shape, self.dtype), **told}

    def length(self, fmt: str) -> int | None:
        """Return the length of the body in bytes if it is known without reading."""
        if fmt == "raw":
            return self.nbytes
        return len(_npy_head(self.shape, self.dtype)) + self.nbytes if fmt == "npy" else None


def check_content(info: DatasetInfo) -> None:
    """Refuse to read what has no content.

    Raises:
        NotReadable: it is a group.
    """
    if info.entry.kind is Kind.GROUP:
        raise NotReadable(f"{shown(info.entry.path)} is a group: it has attributes and members, but no content")


def part_of(dataset: Dataset, query: Query) -> Part:
    """Say what a query means for a dataset.

    Raises:
        BadSelection: the dataset has no such part.
    """
    return (_array_part if dataset.info.entry.kind is Kind.ARRAY else _bytes_part)(dataset, query)


def preview_of(dataset: Dataset, query: Query, limits: PreviewLimits) -> Part:
    """Say what a query with a ``fit`` means for a dataset, and how much of it is read.

    Raises:
        BadSelection: the dataset has no such part, or its items no such preview.
        NotReadable: it is no array.
        TooLarge: even a sample would be.
    """
    geometry = dataset.info.geometry.array
    if geometry is None:
        raise BadSelection("fit is for arrays; this is a byte frame or file, which has slices")
    assert query.fit is not None
    read = parse_key(query.key(geometry.shape), geometry.shape)
    plan = plan_preview(dataset, PreviewAsk(read, query.fit, query.field, query.is_exact), limits)
    return Part(plan.shape, plan.dtype, lambda: read_preview(dataset, plan), plan.held_nbytes, told=plan.told.text)


def _array_part(dataset: Dataset, query: Query) -> Part:
    geometry = dataset.info.geometry.array
    assert geometry is not None
    dtype = _dtype(geometry.dtype)
    read = parse_key(query.key(geometry.shape), geometry.shape)
    held_nbytes = read.what.size * dtype.itemsize
    name = query.field
    if not name:
        stored = whole_chunks(dataset.info.geometry, read)
        finished = lambda: _in_order(read.finish(dataset.read(read.what)))  # noqa: E731
        return Part(read.shape, dtype, finished, held_nbytes, stored, pieces=_slabs_of(dataset, read, dtype, None))
    if dtype.fields is None or name not in dtype.fields:
        names = ", ".join(dtype.names or ()) or "none, it is not structured"
        raise BadSelection(f"field {shown(name)}: the dataset has {names}")
    field = dtype.fields[name][0]
    shape = read.shape + field.shape
    named = lambda: _in_order(read.finish(dataset.read(read.what))[name])  # noqa: E731
    return Part(shape, field.base, named, held_nbytes, pieces=_slabs_of(dataset, read, dtype, name))


def _slabs_of(dataset: Dataset, read: Read, dtype: np.dtype, field: str | None) -> Callable[[], Pieces] | None:
    array, what = dataset.info.geometry.array, read.what
    if not isinstance(what, Selection) or what.is_empty or not keeps_order(read):
        return None
    assert array is not None

    def slab(part: Selection) -> npt.NDArray[Any]:
        block = dataset.read(part)
        return block if field is None else _in_order(block[field])

    def pieces() -> Pieces:
        if what.size * dtype.itemsize <= BROUGHT_BYTES_MAX:
            dataset.bring(chunks_touched(array, what))
        parts = slabs(what, dtype.itemsize, array.chunks, PIECE_BYTES, PIECE_BYTES_MAX)
        return (functools.partial(slab, part) for part in parts)

    return pieces


def _bytes_part(dataset: Dataset, query: Query) -> Part:
    """Return a part of a byte frame, which is sliced by its items: one axis."""
    if query.indices or query.field:
        raise BadSelection("indices and field are for arrays; this is a byte frame or file, which has slices")
    geometry = dataset.info.geometry
    itemsize = geometry.typesize if dataset.info.entry.kind is Kind.FRAME else 1
    dtype = np.dtype(f"V{itemsize}" if itemsize > 1 else "u1")
    shape = (geometry.nbytes // itemsize,)
    key = query.key(shape)
    read = parse_key(key, shape)
    if len(read.shape) == 0:  # one item: a frame has no scalars
        read = Read(read.what, None, (1,))
    axis = read.what.axes[0] if not isinstance(read.what, Points) else range(0)
    assert isinstance(axis, range)
    start, stop = (axis[0] * itemsize, (axis[-1] + 1) * itemsize) if axis else (0, 0)

    def work() -> npt.NDArray[Any]:
        span = np.frombuffer(dataset.read_bytes(start, stop), dtype)
        return _in_order(read.finish(span[:: axis.step]))

    def span(low: int) -> npt.NDArray[Any]:
        return np.frombuffer(dataset.read_bytes(low, min(low + step, stop)), dtype)

    chunksize = max(geometry.chunksize, itemsize)
    step = max(PIECE_BYTES // chunksize, 1) * chunksize // itemsize * itemsize
    is_plain = keeps_order(read) and axis.step == 1 and stop > start
    pieces = (lambda: (functools.partial(span, low) for low in range(start, stop, step))) if is_plain else None
    return Part(read.shape, dtype, work, stop - start, pieces=pieces)


def check_size(nbytes: int, nbytes_max: int) -> None:
    """Refuse an answer that is too large to be made in memory.

    Raises:
        TooLarge: with what to do instead.
    """
    if nbytes > nbytes_max:
        raise TooLarge(
            f"the answer would take {nbytes} bytes of memory, the limit (answer_max_bytes) is {nbytes_max}; ask "
            "for less; what has no lists and no negative steps is streamed as raw, npy or chunks, as a dataset is"
        )


def check_wanted(nbytes: int, query: Query, slice_max_bytes: int | None) -> None:
    """Refuse an answer of more bytes, uncompressed, than the client or the operator wants.

    Raises:
        TooLarge: with both figures.
    """
    limits = {"max_bytes of the request": query.max_bytes, "slice_max_bytes of this server": slice_max_bytes}
    for name, limit in limits.items():
        if limit is not None and nbytes > limit:
            raise TooLarge(f"the answer has {nbytes} bytes, uncompressed, and {name} is {limit}: ask for less")


def shape_headers(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, str]:
    """Say in headers what a body without a header of its own holds."""
    # names of fields may have any letters, a header may not; a Python literal reads the escapes back
    text = dtype_text(dtype).encode("ascii", "backslashreplace").decode()
    return {"X-Zcat-Shape": ",".join(map(str, shape)), "X-Zcat-Dtype": text}


def encode(block: npt.NDArray[Any], fmt: str, info: DatasetInfo, told: str = "") -> Sequence[Buffer]:
    """Return the body for an array in C order.

    Args:
        block: the items.
        fmt: one of `query.FORMATS`.
        info: of the dataset.
        told: of a preview: becomes an attribute where the form has attributes.
    """
    if fmt == "raw":
        return (_raw(block),)
    if fmt == "npy":
        return _npy_head(block.shape, block.dtype), _raw(block)
    compression = answer_compression(info.compression, block.nbytes)
    if fmt == "cframe":
        is_array = info.entry.kind is Kind.ARRAY
        return cframe_of_slice(block, compression, told) if is_array else cframe_of_bytes(block, compression)
    return list(chunk_stream(block, compression))


def stream(part: Part, fmt: str, info: DatasetInfo, nbytes_max: int) -> Sequence[Buffer] | Iterator[Buffer]:
    """Return the body for a part that is streamed: an iterator, but for a frame.

    Args:
        part: to be read.
        fmt: one of `query.FORMATS`.
        info: of the dataset.
        nbytes_max: of a frame, which says its length at its beginning, and so is compressed before it is sent.
    """
    assert part.pieces is not None
    pieces = part.pieces()
    if fmt in ("raw", "npy"):
        return begun(raw_stream(pieces, _npy_head(part.shape, part.dtype) if fmt == "npy" else b""))
    compression = answer_compression(info.compression, part.nbytes)
    if fmt == "chunks":
        return begun(compressed_stream(pieces, compression))
    if info.entry.kind is Kind.ARRAY:
        return cframe_of_pieces(part.shape, blocks(pieces), compression, nbytes_max)
    return cframe_of_bytes(part.read(), compression)


def stored_body(
    dataset: Dataset, stored: WholeChunks | None, fmt: str
) -> Sequence[Buffer] | Iterator[Buffer] | None:
    """Return the body for a part that is made of whole chunks, without decoding any; None where that is not so.

    A plane of a stack that has a chunk for each costs then no more than its bytes on the way.
    """
    array = stored.geometry.array if stored is not None else None
    if stored is None or array is None or fmt not in ("cframe", "chunks"):
        return None
    is_stream = _is_c_order(array) and stored.geometry.chunksize <= STREAM_CHUNK_BYTES
    if fmt == "chunks" and not is_stream:
        return None
    if fmt == "chunks":
        numbers, step = stored.numbers, max(1, PIECE_BYTES // stored.geometry.chunksize)
        if len(numbers) <= step:
            return dataset.chunks(numbers)
        windows = [numbers[low : low + step] for low in range(0, len(numbers), step)]
        return begun(bytes(view) for _, view in dataset.views(windows, bulk=False))
    chunks = dataset.chunks(stored.numbers)
    template = frame_template(stored.geometry, dataset.info.compression)
    header, tail = assemble_cframe(template, [len(chunk) for chunk in chunks])
    return [header, *chunks, tail]


def _is_c_order(array: ArrayGeometry) -> bool:
    """Say whether the chunks, decoded one after the other, are the array in C order."""
    is_slab = array.chunks[1:] == array.shape[1:] and array.shape[0] % array.chunks[0] == 0
    return is_slab and array.padded_chunk == array.chunks and is_block_order(array)


@functools.lru_cache(maxsize=256)
def _dtype(text: str) -> np.dtype:
    return parse_dtype(text)


def _in_order(value: Any) -> npt.NDArray[Any]:
    return np.asarray(value, order="C")  # ascontiguousarray would give a scalar an axis


def _raw(block: npt.NDArray[Any]) -> memoryview:
    return memoryview(block.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # arrays are buffers


def _npy_head(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    head = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(head, described)
    return head.getvalue()

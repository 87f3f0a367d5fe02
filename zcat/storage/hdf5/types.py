"""HDF5 types and the NumPy types that they are offered as; and values read so. In worker processes only.

The rule: what h5py reads, in the type that h5py gives it, as far as ``model.dtypes`` offers that. Besides:

- *Text of variable length*, also inside a compound, becomes bytes of fixed width (``S``): as wide as the longest
  one that is there, in the file's encoding, filled up with NULs. To know that, all of it is read: so not too much.
- *Arrays as items* become axes of the dataset, behind its own, as NumPy does it.
- *Enumerations* become their numbers (the names are told with the attributes); HDF5's FALSE and TRUE become bool.
- *References and sequences of variable length* have no form in an array of fixed items: a reason is given.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import blake3
import h5py
import numpy as np
from h5py import h5s, h5t
from numpy.typing import NDArray

from zcat.errors import NotReadable
from zcat.limits import CHUNK_BYTES_MAX, MIB
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.names import shown

TEXTS_MAX = 1 << 20
"""Items of variable text in one dataset."""

TEXT_BYTES_MAX = MIB
"""Of the longest text in a dataset."""

_SLAB_ITEMS = 1 << 13
_DEPTH_MAX = 16


@dataclass(frozen=True, slots=True)
class Offer:
    """What a dataset's items become."""

    text: str
    """Their dtype, written out."""
    dtype: np.dtype
    """As it is offered: plain, without a subarray at its top."""
    inner: tuple[int, ...] = ()
    """Axes inside each item."""
    raw: bool = False
    """HDF5 would not convert anything."""
    note: str | None = None
    digest: bytes = b""
    """Of the values, where they had to be read."""


def offer_of(dataset: h5py.h5d.DatasetID, stored: h5t.TypeID) -> Offer:
    """Say what the items of a dataset are offered as. Reads values only if there is text of variable length.

    Args:
        dataset: open.
        stored: its type.

    Raises:
        NotReadable: they cannot be; the message says which part of the type, and why.
        BadContent: the type is damaged.
    """
    wanted = memory_dtype(stored)
    base, inner = split(wanted)
    note: str | None
    _check_parts(base, "", _DEPTH_MAX)
    if base.hasobject:
        widths, digest = _measure(dataset, wanted)
        dtype = _bounded(base, iter(widths))
        note = "text of variable length, as bytes of fixed width"
    else:
        digest, note, dtype = b"", _note(stored, base), plain_dtype(base)
    text = dtype_text(dtype)
    dtype = parse_dtype(text)
    if dtype.itemsize * math.prod(inner) > CHUNK_BYTES_MAX:
        raise NotReadable(f"items of {dtype.itemsize * math.prod(inner)} bytes, the limit is {CHUNK_BYTES_MAX}")
    raw = not base.hasobject and bool(stored.equal(h5t.py_create(wanted, logical=True)))
    return Offer(text, dtype, inner, raw, note, digest)


def memory_dtype(stored: h5t.TypeID) -> np.dtype:
    """Give the type in which h5py reads values, with what it notes in the type's metadata.

    Raises:
        NotReadable: it has none for them.
    """
    try:
        return stored.dtype
    except (TypeError, ValueError, RuntimeError, OSError, NotImplementedError) as error:
        raise NotReadable(f"items of {class_name(stored)}: {error}") from None


def split(dtype: np.dtype) -> tuple[np.dtype, tuple[int, ...]]:
    """Split a dtype of arrays into that of their items and their axes, as NumPy does when it makes an array."""
    inner: tuple[int, ...] = ()
    while dtype.subdtype is not None:
        inner += dtype.shape
        dtype = dtype.base
    return dtype, inner


def class_name(stored: h5t.TypeID) -> str:
    """Name the class of a type, for people."""
    names = {
        h5t.INTEGER: "an integer type",
        h5t.FLOAT: f"a floating-point type of {stored.get_size()} bytes",
        h5t.TIME: "the type time",
        h5t.STRING: "a text type",
        h5t.BITFIELD: "a bit field",
        h5t.OPAQUE: "an opaque type",
        h5t.COMPOUND: "a compound type",
        h5t.REFERENCE: "a reference type",
        h5t.ENUM: "an enumeration",
        h5t.VLEN: "a sequence of variable length",
        h5t.ARRAY: "an array type",
    }
    return names.get(stored.get_class(), "an unknown type")


def read_box(dataset: h5py.h5d.DatasetID, box: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
    """Read a part of a dataset through HDF5, as it is offered.

    Args:
        dataset: as `Dataset.id` of h5py has it.
        box: one slice of step 1 per offered axis, inside the shape; whole along the axes inside an item.
        dtype: of the offer.

    Returns:
        A contiguous array of the box's shape.
    """
    rank = dataset.rank
    start = tuple(part.start for part in box[:rank])
    count = tuple(part.stop - part.start for part in box[:rank])
    values = _read(dataset, memory_dtype(dataset.get_type()), start, count)
    if not values.dtype.hasobject:
        return values.view(dtype)
    made: NDArray[Any] = np.zeros(values.shape, dtype)
    _fit(values, made)
    return made


def raw_items(dataset: h5py.h5d.DatasetID) -> bytes:
    """Read all items as they are stored, unconverted; nothing of those that hold pointers into the file."""
    stored = dataset.get_type()
    if memory_dtype(stored).hasobject:
        return b""
    values = np.zeros(dataset.shape, f"V{stored.get_size()}")
    if values.size:
        dataset.read(h5s.ALL, h5s.ALL, values, stored)
    return values.tobytes()


def fill_of(dataset: h5py.h5d.DatasetID, plist: h5py.h5p.PropDCID, offer: Offer, bytes_max: int) -> bytes | None:
    """Give the fill value as one offered item, None for zeros.

    Raises:
        NotReadable: it is one of an array type, for which h5py has no call, or of more than ``bytes_max``.
    """
    if plist.fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    if offer.inner:
        raise NotReadable("a fill value of an array type")
    if offer.dtype.itemsize > bytes_max:
        raise NotReadable(f"a fill value of {offer.dtype.itemsize} bytes, the limit is {bytes_max}")
    wanted = memory_dtype(dataset.get_type())
    value: NDArray[Any] = np.zeros(
        1 if wanted.hasobject else (), wanted
    )  # h5py has text in arrays of an axis only
    plist.get_fill_value(value)
    if wanted.hasobject:
        made = np.zeros(value.shape, offer.dtype)
        _fit(value, made)
        value = made
    raw = value.tobytes()
    return raw if any(raw) else None


def _read(
    dataset: h5py.h5d.DatasetID, wanted: np.dtype, start: tuple[int, ...], count: tuple[int, ...]
) -> NDArray[Any]:
    base, inner = split(wanted)
    values: NDArray[Any] = np.zeros(count + inner, base)
    if not values.size:
        return values
    memory = file = h5s.ALL
    if count:
        file = dataset.get_space()
        file.select_hyperslab(start, count)
        memory = h5s.create_simple(count)
    dataset.read(memory, file, values, h5t.py_create(wanted))
    return values


def _check_parts(dtype: np.dtype, name: str, depth: int) -> None:
    """Refuse what no array of fixed items can hold, and say where in a compound it is."""
    if depth == 0:
        raise NotReadable(f"a type nested deeper than {_DEPTH_MAX}")
    where: str = f"the field {shown(name)} holds " if name else ""
    if dtype.subdtype is not None:
        _check_parts(dtype.subdtype[0], name, depth - 1)
    elif dtype.names is not None:
        for field in dtype.names:
            _check_parts(dtype[field], f"{name}.{field}" if name else field, depth - 1)
    elif h5t.check_ref_dtype(dtype) is not None:
        raise NotReadable(f"{where}references to other objects, which mean nothing outside of the file")
    elif dtype.hasobject and h5t.check_string_dtype(dtype) is None:
        raise NotReadable(f"{where}sequences of variable length, which have no form in an array of fixed items")


def plain_dtype(dtype: np.dtype) -> np.dtype:
    """Drop what h5py notes in a dtype; its layout stays."""
    return _bounded(dtype, itertools.repeat(0))


def _bounded(dtype: np.dtype, widths: Iterator[int]) -> np.dtype:
    """Replace each text of variable length by one of a width; packed, if there is any."""
    if dtype.subdtype is not None:
        return np.dtype((_bounded(dtype.subdtype[0], widths), dtype.subdtype[1]))
    if dtype.names is not None:
        formats = [_bounded(dtype[name], widths) for name in dtype.names]
        if dtype.hasobject:
            return np.dtype({"names": dtype.names, "formats": formats})
        assert dtype.fields is not None
        offsets = [dtype.fields[name][1] for name in dtype.names]
        return np.dtype({"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
    return np.dtype(f"S{max(next(widths), 1)}") if dtype.hasobject else np.dtype(dtype.str)


def _measure(dataset: h5py.h5d.DatasetID, wanted: np.dtype) -> tuple[list[int], bytes]:
    """Read all items; give the width in bytes of each text in them, as `_bounded` takes them, and a digest."""
    shape = dataset.shape
    if math.prod(shape) > TEXTS_MAX:
        raise NotReadable(
            f"{math.prod(shape)} items with text of variable length: more than {TEXTS_MAX} are not measured"
        )
    digest = blake3.blake3()
    widths: list[int] = []
    for start, count in _slabs(shape):
        values = _read(dataset, wanted, start, count)
        found = []
        for leaf in _texts(values):
            texts = [_as_bytes(text) for text in leaf.flat]
            digest.update(b"\0".join(texts) + b"\0\0")
            found.append(max(map(len, texts), default=0))
        widths = [max(pair) for pair in zip(widths or found, found, strict=True)]
    if max(widths, default=0) > TEXT_BYTES_MAX:
        raise NotReadable(f"a text of {max(widths)} bytes, the limit is {TEXT_BYTES_MAX}")
    return widths or [0] * len(list(_texts(np.zeros(0, wanted)))), digest.digest()


def _slabs(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    steps = list(shape)
    for axis in range(len(shape)):
        others = math.prod(steps) // max(steps[axis], 1)
        steps[axis] = max(1, min(steps[axis], _SLAB_ITEMS // max(others, 1)))
    ranges = [range(0, length, step) for length, step in zip(shape, steps, strict=True)]
    for start in itertools.product(*ranges):
        yield start, tuple(min(step, s - at) for step, s, at in zip(steps, shape, start, strict=True))


def _texts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Go through the texts of variable length in an array, one array for each field that holds some."""
    if values.dtype.names is not None:
        for name in values.dtype.names:
            yield from _texts(values[name])
    elif values.dtype.hasobject:
        yield values


def _fit(values: NDArray[Any], made: NDArray[Any]) -> None:
    """Copy, with text of variable length into its place of fixed width."""
    if values.dtype.names is not None:
        for name in values.dtype.names:
            _fit(values[name], made[name])
    elif values.dtype.hasobject:
        made[...] = np.array([_as_bytes(text) for text in values.flat], made.dtype).reshape(made.shape)
    else:
        made[...] = values


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _note(stored: h5t.TypeID, dtype: np.dtype) -> str | None:
    if dtype.kind == "S" and stored.get_class() == h5t.STRING and stored.get_cset() == h5t.CSET_UTF8:
        return "UTF-8 text, as bytes"
    if h5t.check_enum_dtype(dtype) is not None:
        return "an enumeration, as its numbers"
    if dtype.kind == "f" and stored.get_size() != dtype.itemsize:
        return f"floating-point numbers of {stored.get_size()} bytes, as {dtype.str}"
    return None

"""HDF5 types and the NumPy types that they are offered as; and values read so. In worker processes only.

The rule: what h5py reads, in the type that h5py gives it, as far as ``model.dtypes`` offers that. Besides:

- *Text of variable length*, also inside a compound, becomes bytes of fixed width (``S``): as wide as the longest
  one that is there, in the file's encoding, filled up with NULs. To know that, all of it is read: so not too much.
- *Arrays as items* become axes of the dataset, behind its own, as NumPy does it.
- *Enumerations* become their numbers (the names are told with the attributes); HDF5's FALSE and TRUE become bool.
- *References to objects* become the paths of what they lead to, as text does; null ones are empty.
- *References to regions and sequences of variable length* have no form in an array of fixed items: a reason is
  given.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import blake3
import h5py
import numpy as np
from h5py import h5r, h5s, h5t
from numpy.typing import NDArray

from zcat.errors import NotReadable
from zcat.limits import CHUNK_BYTES_MAX, MIB
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.names import shown
from zcat.storage.hdf5.reference_paths import ReferencePaths

TEXTS_MAX = 1 << 20
"""Items of variable text, or references, in one dataset."""

TEXT_BYTES_MAX = MIB
"""Of the longest text in a dataset."""

FILL_BYTES_MAX = 1 << 16

_ADDRESS = np.dtype("<u8", metadata={"ref": h5r.Reference})
"""A reference as it is read here: the address of its object. h5py's own hide it."""

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


def offer_of(dataset: h5py.h5d.DatasetID, stored: h5t.TypeID, paths: ReferencePaths) -> Offer:
    """Say what the items of a dataset are offered as. Reads values only if there is text of variable length.

    Args:
        dataset: open.
        stored: its type.
        paths: of its file.

    Raises:
        NotReadable: they cannot be; the message says which part of the type, and why.
        BadContent: the type is damaged.
    """
    _check_parts(split(memory_dtype(stored))[0], "", _DEPTH_MAX)
    wanted = _with_addresses(memory_dtype(stored))
    base, inner = split(wanted)
    note: str | None
    if _has_texts(base):
        widths, digest = _measure(dataset, wanted, paths)
        dtype = _bounded(base, iter(widths))
        texts = ["text of variable length, as bytes of fixed width"] * base.hasobject
        note = "; ".join([*texts, *["references, as the paths of what they lead to"] * _has_references(base)])
    else:
        digest, note, dtype = b"", _note(stored, base), plain_dtype(base)
    text = dtype_text(dtype)
    dtype = parse_dtype(text)
    if dtype.itemsize * math.prod(inner) > CHUNK_BYTES_MAX:
        raise NotReadable(f"items of {dtype.itemsize * math.prod(inner)} bytes, the limit is {CHUNK_BYTES_MAX}")
    raw = not _has_texts(base) and bool(stored.equal(h5t.py_create(wanted, logical=True)))
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


def read_box(
    dataset: h5py.h5d.DatasetID, box: tuple[slice, ...], dtype: np.dtype, paths: ReferencePaths
) -> np.ndarray:
    """Read a part of a dataset through HDF5, as it is offered.

    Args:
        dataset: as `Dataset.id` of h5py has it.
        box: one slice of step 1 per offered axis, inside the shape; whole along the axes inside an item.
        dtype: of the offer.
        paths: of its file.

    Returns:
        A contiguous array of the box's shape.
    """
    rank = dataset.rank
    start = tuple(part.start for part in box[:rank])
    count = tuple(part.stop - part.start for part in box[:rank])
    values = _read(dataset, _with_addresses(memory_dtype(dataset.get_type())), start, count)
    if not _has_texts(values.dtype):
        return values.view(dtype)
    made: NDArray[Any] = np.zeros(values.shape, dtype)
    _fit(values, made, paths)
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


def fill_of(
    dataset: h5py.h5d.DatasetID, plist: h5py.h5p.PropDCID, offer: Offer, paths: ReferencePaths
) -> bytes | None:
    """Give the fill value as one offered item, None for zeros.

    Raises:
        NotReadable: it is one of an array type, for which h5py has no call, or of more than `FILL_BYTES_MAX`.
    """
    if plist.fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    if offer.inner:
        raise NotReadable("a fill value of an array type")
    if offer.dtype.itemsize > FILL_BYTES_MAX:
        raise NotReadable(f"a fill value of {offer.dtype.itemsize} bytes, the limit is {FILL_BYTES_MAX}")
    wanted = memory_dtype(dataset.get_type())
    value: NDArray[Any] = np.zeros(
        1 if wanted.hasobject else (), wanted
    )  # h5py has text in arrays of an axis only
    plist.get_fill_value(value)
    if wanted.hasobject:
        made = np.zeros(value.shape, offer.dtype)
        _fit(value, made, paths)
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
    dataset.read(memory, file, values, _memory_type(wanted))
    return values


def _memory_type(dtype: np.dtype) -> h5t.TypeID:
    """Give HDF5's type for values in memory; references are addresses there."""
    if not _has_references(dtype):
        return h5t.py_create(dtype)
    if dtype.subdtype is not None:
        return h5t.array_create(_memory_type(dtype.subdtype[0]), dtype.subdtype[1])
    if dtype.fields is None:
        return h5t.STD_REF_OBJ
    made = h5t.create(h5t.COMPOUND, dtype.itemsize)
    for name, (field, offset, *_) in dtype.fields.items():
        made.insert(name.encode("utf-8", "surrogateescape"), offset, _memory_type(field))
    return made


def _with_addresses(dtype: np.dtype) -> np.dtype:
    """Replace references to objects by what they are read as here, which is as wide."""
    if not _has_references(dtype):
        return dtype
    if dtype.subdtype is not None:
        return np.dtype((_with_addresses(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.fields is None:
        return _ADDRESS
    names, fields = list(dtype.fields), list(dtype.fields.values())
    formats = [_with_addresses(field[0]) for field in fields]
    offsets = [field[1] for field in fields]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})


def _has_references(dtype: np.dtype) -> bool:
    if dtype.subdtype is not None:
        return _has_references(dtype.subdtype[0])
    if dtype.names is not None:
        return any(_has_references(dtype[name]) for name in dtype.names)
    return h5t.check_ref_dtype(dtype) is h5r.Reference


def _has_texts(dtype: np.dtype) -> bool:
    """Say whether there is something that becomes text of a width that has to be measured."""
    return dtype.hasobject or _has_references(dtype)


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
    elif h5t.check_ref_dtype(dtype) is h5r.RegionReference:
        raise NotReadable(f"{where}references to regions of datasets, which mean nothing outside of the file")
    elif h5t.check_ref_dtype(dtype) is h5r.Reference:
        return
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
        if _has_texts(dtype):
            return np.dtype({"names": dtype.names, "formats": formats})
        assert dtype.fields is not None
        offsets = [dtype.fields[name][1] for name in dtype.names]
        return np.dtype({"names": dtype.names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})
    return np.dtype(f"S{max(next(widths), 1)}") if _has_texts(dtype) else np.dtype(dtype.str)


def _measure(dataset: h5py.h5d.DatasetID, wanted: np.dtype, paths: ReferencePaths) -> tuple[list[int], bytes]:
    """Read all items; give the width in bytes of each text in them, as `_bounded` takes them, and a digest."""
    shape = dataset.shape
    if math.prod(shape) > TEXTS_MAX:
        raise NotReadable(
            f"{math.prod(shape)} items with text of variable length, or references: more than {TEXTS_MAX} are "
            "not measured"
        )
    digest = blake3.blake3()
    widths: list[int] = []
    for start, count in _slabs(shape):
        values = _read(dataset, wanted, start, count)
        found = []
        for leaf in _texts(values):
            texts = _as_bytes(leaf, paths)
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
    """Go through the texts and references in an array, one array for each field that holds some."""
    if values.dtype.names is not None:
        for name in values.dtype.names:
            yield from _texts(values[name])
    elif _has_texts(values.dtype):
        yield values


def _fit(values: NDArray[Any], made: NDArray[Any], paths: ReferencePaths) -> None:
    """Copy, with text of variable length into its place of fixed width."""
    if values.dtype.names is not None:
        for name in values.dtype.names:
            _fit(values[name], made[name], paths)
    elif _has_texts(values.dtype):
        made[...] = np.array(_as_bytes(values, paths), made.dtype).reshape(made.shape)
    else:
        made[...] = values


def _as_bytes(values: NDArray[Any], paths: ReferencePaths) -> list[bytes]:
    if not values.dtype.hasobject:
        return [paths.of(address) for address in values.reshape(-1).tolist()]
    return [_text_of(one, paths) for one in values.flat]


def _text_of(item: bytes | str | h5r.Reference, paths: ReferencePaths) -> bytes:
    if isinstance(item, h5r.Reference):
        return paths.of_reference(item)
    return item if isinstance(item, bytes) else item.encode("utf-8", "surrogateescape")


def _note(stored: h5t.TypeID, dtype: np.dtype) -> str | None:
    if dtype.kind == "S" and stored.get_class() == h5t.STRING and stored.get_cset() == h5t.CSET_UTF8:
        return "UTF-8 text, as bytes"
    if h5t.check_enum_dtype(dtype) is not None:
        return "an enumeration, as its numbers"
    if dtype.kind == "f" and stored.get_size() != dtype.itemsize:
        return f"floating-point numbers of {stored.get_size()} bytes, as {dtype.str}"
    return None

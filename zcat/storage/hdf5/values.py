"""Attributes of HDF5 objects as plain values: None, bool, int, float, str, bytes, list, dict. Only in workers.

- Numbers and text are themselves, arrays are nested lists; an empty dataspace is None, complex is ``[re, im]``.
- Text that is not UTF-8 is read as Latin-1, which never fails and is what old files mean by "°"; with it all other
  text of the attribute, and the type says so.
- Enumerations are the names of their members, compounds maps, opaque values bytes.
- References are the paths of what they lead to, so that a netCDF ``DIMENSION_LIST`` is a list of lists of paths.
- Pickled Python objects (PyTables) are never opened; a sentence stands for them, and for all that is too large.

Besides, each attribute's HDF5 type is told, so that it can be written back as it was.
"""

import math
from dataclasses import dataclass
from typing import Any

import h5py
import msgpack
import numpy as np
from h5py import h5, h5a, h5d, h5p, h5r, h5s, h5t

from zcat.errors import NotReadable
from zcat.limits import ATTRIBUTE_BYTES_MAX, ATTRIBUTES_BYTES_MAX
from zcat.names import shown
from zcat.storage.hdf5.forms import form_of
from zcat.storage.hdf5.items import ENUM_NAMES
from zcat.storage.hdf5.links import Object
from zcat.storage.hdf5.types import class_name, memory_dtype, split

ATTRIBUTES_MAX = 1024
"""Of one object; further ones are not told."""

LATIN = "latin-1"
"""The encoding of text that is not UTF-8, as it is told with the type."""

_SENTENCE_BYTES = 512
_DEPTH_MAX = 16
_FAILURES = (OSError, RuntimeError, ValueError, TypeError, KeyError, NotImplementedError, NotReadable)


def attributes_of(
    file: h5py.File, found: Object, bytes_max: int = ATTRIBUTES_BYTES_MAX
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Read all attributes of a group or dataset.

    Args:
        file: that it is in.
        found: the object.
        bytes_max: of all of them, as msgpack.

    Returns:
        Values by name, in the order of creation where the file has it; and types by name: ``dtype`` (as NumPy
        writes it, or ``utf-8``, ``ascii``, ``reference``, ...), ``shape`` (None for an empty dataspace).
    """
    values: dict[str, Any] = {}
    types: dict[str, dict[str, Any]] = {}
    names = names_of(found, None if isinstance(found, h5t.TypeID) else found.get_create_plist())
    left = bytes_max - ATTRIBUTE_BYTES_MAX - _SENTENCE_BYTES * len(names)  # the names of an enumeration, sentences
    for raw in names:
        name = _text(raw)
        try:
            attribute = h5a.open(found, raw)
            shape, stored = attribute.shape, attribute.get_type()
            described = _type_of(shape, stored)
            try:
                value = _value(attribute, shape, stored, _Reading(file))
            except UnicodeDecodeError:
                value, described["encoding"] = _value(attribute, shape, stored, _Reading(file, LATIN)), LATIN
            if name.encode() != raw:
                described["name"] = raw
            size = len(msgpack.packb([value, described]))
            if size > min(ATTRIBUTE_BYTES_MAX, left):
                raise NotReadable(f"{size} bytes, which is too many")
        except _FAILURES as error:
            values[name] = f"<unreadable: {shown(str(error), 300)}>"
            continue
        left -= size
        values[name], types[name] = value, described
    members = _members(found)
    if members:
        values.setdefault(ENUM_NAMES, members)
    return values, types


def names_of(found: Object, plist: h5p.PropOCID | None) -> list[bytes]:
    """List the attributes of an object, at most `ATTRIBUTES_MAX`.

    Args:
        found: the object.
        plist: with which it was created; None for a named type.
    """
    names: list[bytes] = []

    def take(name: bytes) -> bool | None:
        names.append(name)
        return True if len(names) == ATTRIBUTES_MAX else None

    is_ordered = plist is not None and plist.get_attr_creation_order() & h5p.CRT_ORDER_TRACKED
    if h5a.get_num_attrs(found):
        h5a.iterate(found, take, index_type=h5.INDEX_CRT_ORDER if is_ordered else h5.INDEX_NAME)
    return names


def creation_of(dataset: h5d.DatasetID) -> dict[str, Any]:
    """Tell what a dataset was made with: its type and shape, as for attributes, ``chunks`` and ``maxshape``, and
    ``fill``, if it has such a value of one fixed size; ``is_ordered`` if it knows the order of its attributes."""
    made = _type_of(dataset.shape, dataset.get_type())
    plist = dataset.get_create_plist()
    if plist.get_attr_creation_order() & h5p.CRT_ORDER_TRACKED:
        made["is_ordered"] = True
    if plist.get_layout() == h5d.CHUNKED:
        limits = dataset.get_space().get_simple_extent_dims(True)
        made["chunks"] = list(plist.get_chunk())
        made["maxshape"] = [None if limit == h5s.UNLIMITED else limit for limit in limits]
    dtype = _dtype_or_none(dataset.get_type())
    if plist.fill_value_defined() == h5d.FILL_VALUE_USER_DEFINED and dtype is not None and _is_item(dtype):
        value = np.zeros((), dtype)
        plist.get_fill_value(value)
        made["fill"] = value.tobytes()
    return made


@dataclass(frozen=True, slots=True)
class _Reading:
    file: h5py.File
    encoding: str = "utf-8"


def _value(attribute: h5a.AttrID, shape: tuple[int, ...] | None, stored: h5t.TypeID, reading: _Reading) -> Any:
    if shape is None:
        return None
    size = stored.get_size() * math.prod(shape)
    if size > ATTRIBUTE_BYTES_MAX:
        raise NotReadable(f"{size} bytes, the limit is {ATTRIBUTE_BYTES_MAX}")
    wanted = memory_dtype(stored)
    base, inner = split(wanted)
    values = np.zeros(shape + inner, base)
    if values.size:
        attribute.read(values, mtype=h5t.py_create(wanted))
    return _plain(values, base, reading, _DEPTH_MAX)


def _plain(values: Any, dtype: np.dtype, reading: _Reading, depth: int) -> Any:
    """Turn an array into nested lists of items; one without axes into its item."""
    if depth == 0:
        raise NotReadable(f"nested deeper than {_DEPTH_MAX}")
    if isinstance(values, np.ndarray) and values.ndim:
        return [_plain(value, dtype, reading, depth) for value in values]
    item = values[()] if isinstance(values, np.ndarray) else values
    if dtype.names is not None:
        parts = ((name, *split(dtype[name])) for name in dtype.names)
        return {name: _plain(item[name], base, reading, depth - 1) for name, base, _ in parts}
    members = h5t.check_enum_dtype(dtype)
    if members is not None:
        return {number: name for name, number in members.items()}.get(int(item), int(item))
    if h5t.check_ref_dtype(dtype) is not None:
        return _path(item, reading.file)
    inner = None if h5t.check_string_dtype(dtype) is not None else h5t.check_vlen_dtype(dtype)
    if inner is not None:
        return _plain(np.asarray(item), split(inner)[0], reading, depth - 1)
    return _item(item, reading.encoding)


def _item(item: Any, encoding: str) -> Any:
    match item:
        case bytes() | str():
            return _text_or_pickle(item, encoding)
        case np.void():
            raw = item.tobytes()
            return _sentence_of_pickle(raw) if _is_pickle(raw) else raw
        case np.complexfloating():
            return [float(item.real), float(item.imag)]
        case np.bool_():
            return bool(item)
        case np.integer():
            return int(item)
        case np.floating():
            return float(item)
        case _:
            return str(item)  # dates, which h5py keeps as tagged opaque values


def _path(reference: Any, file: h5py.File) -> str | None:
    if not reference:
        return None
    try:
        name = h5r.get_name(reference, file.id)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        name = None
    return "<a reference to nothing>" if name is None else _text(name)


def _text_or_pickle(text: bytes | str, encoding: str) -> str:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return _sentence_of_pickle(raw) if _is_pickle(raw) else raw.decode(encoding)


def _is_pickle(raw: bytes) -> bool:
    return len(raw) > 3 and raw[0] == 0x80 and raw[1] in range(2, 6) and raw.rstrip(b"\0").endswith(b".")


def _sentence_of_pickle(raw: bytes) -> str:
    return f"<a pickled Python object of {len(raw)} bytes, which is not opened>"


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(LATIN)


def _type_of(shape: tuple[int, ...] | None, stored: h5t.TypeID) -> dict[str, Any]:
    """Describe a shape and a type so that h5py can make them again."""
    dtype = _dtype_or_none(stored)
    form = {"dtype": class_name(stored)} if dtype is None else form_of(dtype, stored)
    return {"shape": None if shape is None else list(shape), **form}


def _is_item(dtype: np.dtype) -> bool:
    """Say whether items of a type have one size, and are no arrays."""
    return not dtype.hasobject and dtype.subdtype is None and dtype.itemsize <= ATTRIBUTE_BYTES_MAX


def _members(found: Object) -> dict[str, int] | None:
    """Give the names of a dataset's numbers, if they have any."""
    if not isinstance(found, h5d.DatasetID):
        return None
    try:
        members = h5t.check_enum_dtype(split(memory_dtype(found.get_type()))[0])
        return members if members and len(msgpack.packb(members)) < ATTRIBUTE_BYTES_MAX else None
    except _FAILURES:
        return None


def _dtype_or_none(stored: h5t.TypeID) -> np.dtype | None:
    try:
        return memory_dtype(stored)
    except NotReadable:
        return None

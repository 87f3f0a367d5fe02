"""Attributes from vlmeta to HDF5: `values` and `forms`, the other way round."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5t
from numpy.typing import NDArray

from zcat.errors import NotReadable
from zcat.limits import MIB
from zcat.storage.hdf5.forms import dtype_of, memory_type, stored_type
from zcat.storage.hdf5.import_file import OTHERS, OURS, TYPES
from zcat.storage.hdf5.links_back import object_at
from zcat.storage.hdf5.types import split
from zcat.storage.hdf5.values import LATIN

_BYTES_MAX = 16 * MIB


def attributes_from(vlmeta: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any] | None]]:
    """Give name, value and form of each attribute; no form where none was noted.

    Args:
        vlmeta: of an array, as an import wrote it, or any.
    """
    noted, others = vlmeta.get(TYPES), vlmeta.get(OTHERS)
    types: dict[str, Any] = noted if isinstance(noted, dict) else {}
    together = {name: value for name, value in vlmeta.items() if name not in OURS}
    together |= others if isinstance(others, dict) else {}
    for name in [*(name for name in types if name in together), *(n for n in together if n not in types)]:
        yield name, together[name], types.get(name)


def write_attribute(
    file: h5py.File, found: h5py.HLObject, name: str, value: Any, form: dict[str, Any] | None
) -> None:
    """Write an attribute.

    Args:
        file: that references lead into.
        found: whose it is.
        name: of it.
        value: plain.
        form: of its type, with ``shape``; None to let h5py choose.

    Raises:
        NotReadable, BadContent: value and form do not fit, or the form cannot be made.
        OSError, RuntimeError, ValueError, TypeError, LookupError, OverflowError: HDF5 does not take it.
    """
    if form is None:
        _write_untyped(found, name, value)
        return
    dtype = dtype_of(form)
    raw_name = form.get("name") if isinstance(form.get("name"), bytes) else name.encode()
    if form.get("shape", ()) is None:
        h5py.h5a.create(found.id, raw_name, stored_type(form, dtype), h5py.h5s.create(h5py.h5s.NULL))
        return
    base, inner = split(dtype)
    shape = tuple(form.get("shape", ()))
    is_sound = all(type(length) is int and length >= 0 for length in shape)
    if not is_sound or math.prod(shape) * dtype.itemsize > _BYTES_MAX:
        raise NotReadable(f"an attribute of shape {shape}")
    items: NDArray[Any] = np.zeros(shape + inner, base)
    target = Target(file, LATIN if form.get("encoding") == LATIN else "utf-8")
    for at in np.ndindex(items.shape):
        items[at] = built(_item_of(value, at), base, target)
    space = h5py.h5s.create_simple(shape) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    attribute = h5py.h5a.create(found.id, raw_name, stored_type(form, dtype), space)
    if items.size:
        attribute.write(items, mtype=memory_type(form, dtype))


@dataclass(frozen=True, slots=True)
class Target:
    """Where items are to go."""

    file: h5py.File
    encoding: str
    """Of text."""


def built(value: Any, dtype: np.dtype, target: Target) -> Any:
    """Make an item of a type of a plain value.

    Raises:
        LookupError, ValueError, TypeError: it does not fit.
    """
    if dtype.names is not None:
        return tuple(_field(value[name], dtype[name], target) for name in dtype.names)
    members = h5t.check_enum_dtype(dtype)
    if members is not None:
        return members[value] if isinstance(value, str) else value
    if h5t.check_ref_dtype(dtype) is h5py.Reference:
        return h5py.Reference() if value is None else object_at(target.file, value).ref
    if h5t.check_ref_dtype(dtype) is not None:
        raise TypeError("a reference to a region, of which only the dataset is known")
    text = h5t.check_string_dtype(dtype)
    if text is not None:
        return value.encode(target.encoding)
    following = h5t.check_vlen_dtype(dtype)
    if following is not None:
        return _sequence(value, np.dtype(following), target)
    if dtype.kind == "c":
        return complex(*value)
    return np.frombuffer(value, dtype)[0] if dtype.kind == "V" else value


def _field(value: Any, dtype: np.dtype, target: Target) -> Any:
    base, inner = split(dtype)
    if not inner:
        return built(value, base, target)
    items: NDArray[Any] = np.zeros(inner, base)
    for at in np.ndindex(inner):
        items[at] = built(_item_of(value, at), base, target)
    return items


def _sequence(value: Any, dtype: np.dtype, target: Target) -> NDArray[Any]:
    items: NDArray[Any] = np.zeros(len(value), dtype)
    for at, one in enumerate(value):
        items[at] = built(one, dtype, target)
    return items


def _item_of(value: Any, at: tuple[int, ...]) -> Any:
    for number in at:
        value = value[number]
    return value


def _write_untyped(found: h5py.HLObject, name: str, value: Any) -> None:
    if value is None:
        value = h5py.Empty("<f8")
    elif isinstance(value, bytes):
        value = np.void(value)
    elif isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        value = np.array(value, h5py.string_dtype())
    elif isinstance(value, dict):
        raise NotReadable("a map, for which HDF5 has no form")
    found.attrs[name] = value

"""HDF5 types in plain words, and back: what is told of a type, so that it can be made again elsewhere.

A form is a map: ``dtype`` says the items, as NumPy writes it, or ``utf-8``, ``ascii`` (text of variable length;
with a number behind it, of that many bytes), ``reference``, ``region``, ``vlen`` and an item. Where needed there
are ``inner`` (axes inside each item), ``members`` (of an enumeration), ``of`` (the form of a sequence's items),
``fields`` with ``itemsize`` (of a compound: name, form and offset of each) and ``padding`` (of text: HDF5's
number for how it is filled up, where that is not h5py's own way).

A form may come from a stranger: it passes the allow-list of ``model.dtypes`` before NumPy sees it.
"""

from typing import Any

import h5py
import numpy as np
from h5py import h5r, h5t

from zcat.errors import NotReadable
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.storage.hdf5.types import plain_dtype, split

_DEPTH_MAX = 16
_ITEM_BYTES_MAX = 1 << 26
_PADDINGS = (h5t.STR_NULLTERM, h5t.STR_NULLPAD, h5t.STR_SPACEPAD)


def form_of(dtype: np.dtype, stored: h5t.TypeID | None = None) -> dict[str, Any]:
    """Tell a type.

    Args:
        dtype: as h5py reads it.
        stored: the type itself, which says more; if it is at hand.
    """
    base, inner = split(dtype)
    while stored is not None and stored.get_class() == h5t.ARRAY:
        stored = stored.get_super()
    form: dict[str, Any] = {"inner": list(inner)} if inner else {}
    members = h5t.check_enum_dtype(base)
    if members is not None:
        form["members"] = dict(members)
    if base.fields is not None:
        stored_parts = _members_of(stored, len(base.fields))
        fields: list[Any] = [
            [name, form_of(field, part), offset]
            for (name, (field, offset, *_)), part in zip(base.fields.items(), stored_parts, strict=True)
        ]
        if _has_more_than_numpy(base) or any(_has_padding(field) for _, field, _ in fields):
            form |= {"fields": fields, "itemsize": base.itemsize}
    is_text = h5t.check_string_dtype(base) is not None
    if is_text and stored is not None and stored.get_class() == h5t.STRING:
        usual = h5t.STR_NULLTERM if stored.is_variable_str() else h5t.STR_NULLPAD
        form |= {"padding": int(stored.get_strpad())} if stored.get_strpad() != usual else {}
    following = None if is_text else h5t.check_vlen_dtype(base)
    if following is not None:
        is_vlen = stored is not None and stored.get_class() == h5t.VLEN
        form["of"] = form_of(np.dtype(following), stored.get_super() if stored is not None and is_vlen else None)
    return {**form, "dtype": _text_of(base)}


def stored_type(form: dict[str, Any], dtype: np.dtype) -> h5t.TypeID:
    """Make the HDF5 type again.

    Args:
        form: of it.
        dtype: what `dtype_of` made of the form.
    """
    made = h5t.py_create(dtype, logical=True)
    return _padded(made, form, _PADDINGS) if _has_padding(form) else made


def memory_type(form: dict[str, Any], dtype: np.dtype) -> h5t.TypeID:
    """Make the type of values in memory that are to be written as `stored_type` says.

    Text that ends with a NUL is called so in memory, too: HDF5 would put one in the place of the last letter where
    the text fills all of its bytes, as others write it.

    Args:
        form, dtype: as for `stored_type`.
    """
    made = h5t.py_create(dtype)
    return _padded(made, form, (h5t.STR_NULLTERM,)) if _has_padding(form) else made


def dtype_of(form: Any) -> np.dtype:
    """Make a type again, with what h5py notes in its metadata.

    Raises:
        NotReadable, BadContent: the form is none, or of a type that cannot be made.
    """
    return _made(form, _DEPTH_MAX)


def storable(dtype: np.dtype) -> np.dtype:
    """Mark dates and durations in a type: HDF5 has none, so h5py keeps them as opaque items with a tag."""
    if dtype.subdtype is not None:
        return np.dtype((storable(dtype.subdtype[0]), dtype.subdtype[1]))
    if dtype.fields is None:
        return h5py.opaque_dtype(dtype) if dtype.kind in "mM" else dtype
    names, fields = list(dtype.fields), list(dtype.fields.values())
    formats, offsets = [storable(field[0]) for field in fields], [field[1] for field in fields]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})


def _members_of(stored: h5t.TypeID | None, count: int) -> list[h5t.TypeID | None]:
    if stored is None or stored.get_class() != h5t.COMPOUND or stored.get_nmembers() != count:
        return [None] * count
    return [stored.get_member_type(number) for number in range(count)]


def _has_padding(form: dict[str, Any]) -> bool:
    parts = [form["of"]] if "of" in form else [part for _, part, _ in form.get("fields", ())]
    return form.get("padding") in _PADDINGS or any(map(_has_padding, parts))


def _padded(made: h5t.TypeID, form: dict[str, Any], paddings: tuple[int, ...]) -> h5t.TypeID:
    """Make a type like another one, with its texts filled up as a form says, if that is one of some ways."""
    kind = made.get_class()
    if kind == h5t.ARRAY:
        return h5t.array_create(_padded(made.get_super(), form, paddings), made.get_array_dims())
    if kind == h5t.VLEN:
        return h5t.vlen_create(_padded(made.get_super(), form["of"], paddings))
    if kind == h5t.STRING and form.get("padding") in paddings:
        made = made.copy()
        made.set_strpad(form["padding"])
    if kind == h5t.COMPOUND and "fields" in form:
        other = h5t.create(h5t.COMPOUND, made.get_size())
        for number, (_, part, _) in enumerate(form["fields"]):
            name, offset = made.get_member_name(number), made.get_member_offset(number)
            other.insert(name, offset, _padded(made.get_member_type(number), part, paddings))
        return other
    return made


def _text_of(dtype: np.dtype) -> str:
    text = h5t.check_string_dtype(dtype)
    if text is not None:
        return text.encoding if text.length is None else f"{text.encoding} {text.length}"
    if h5t.check_ref_dtype(dtype) is not None:
        return "region" if h5t.check_ref_dtype(dtype) is h5r.RegionReference else "reference"
    inner = h5t.check_vlen_dtype(dtype)
    if inner is not None:
        return f"vlen {_text_of(np.dtype(inner))}"
    return str(dtype) if dtype.hasobject else dtype_text(plain_dtype(dtype))


def _has_more_than_numpy(dtype: np.dtype) -> bool:
    base = split(dtype)[0]
    if base.names is not None:
        return any(_has_more_than_numpy(base[name]) for name in base.names)
    return base.metadata is not None or base.hasobject


def _made(form: Any, depth: int) -> np.dtype:
    if depth == 0 or type(form) is not dict or type(form.get("dtype")) is not str:
        raise NotReadable("a type that is told in no known form")
    try:
        made = np.dtype((_base(form, depth), tuple(form.get("inner", ()))))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise NotReadable(f"a type that cannot be made again: {error}") from None
    if made.itemsize > _ITEM_BYTES_MAX:
        raise NotReadable(f"items of {made.itemsize} bytes")
    return made


def _base(form: dict[str, Any], depth: int) -> np.dtype:
    text: str = form["dtype"]
    encoding, _, length = text.partition(" ")
    if encoding in ("utf-8", "ascii"):
        return h5py.string_dtype(encoding, int(length) if length else None)
    if text in ("reference", "region"):
        return h5py.ref_dtype if text == "reference" else h5py.regionref_dtype
    if "of" in form:
        return h5py.vlen_dtype(_made(form["of"], depth - 1))
    if "fields" in form:
        names = [str(name) for name, _, _ in form["fields"]]
        formats = [_made(one, depth - 1) for _, one, _ in form["fields"]]
        offsets = [int(offset) for _, _, offset in form["fields"]]
        # NumPy itself refuses a field that reaches beyond the items, and objects that overlap
        return np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": int(form["itemsize"])}
        )
    base = storable(parse_dtype(text))
    if "members" in form:
        return h5py.enum_dtype({str(name): int(number) for name, number in form["members"].items()}, base)
    return base

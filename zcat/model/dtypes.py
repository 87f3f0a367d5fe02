"""Which item types are offered, and how a frame or an answer writes them down.

C-Blosc2 never looks at a dtype; python-blosc2 believes it. A dtype that was edited to "object" makes NumPy
treat foreign bytes as pointers. So a foreign dtype passes an allow-list before NumPy makes arrays of it.
"""

import ast
import re

import numpy as np

from zcat.errors import BadContent, NotReadable
from zcat.names import shown

DTYPE_TEXT_BYTES_MAX = 16 * 1024

_PLAIN = re.compile(r"[<>=|]?[A-Za-z_][A-Za-z0-9_]{0,30}(\[[0-9]{0,9}[A-Za-z]{1,8}\])?")
_NUMERIC_BYTES_MAX = {"b": 1, "i": 8, "u": 8, "f": 8, "c": 16}
_DEPTH_MAX = 16


def parse_dtype(text: str) -> np.dtype:
    """Read a dtype as a b2nd metalayer has it: ``<f4``, or a list or dict literal for a structured one.

    Raises:
        BadContent: the text is no dtype.
        NotReadable: it is one that is not offered: objects, long doubles, dates without a unit, empty items.
    """
    if len(text) > DTYPE_TEXT_BYTES_MAX:
        raise BadContent(f"a dtype of {len(text)} characters, the limit is {DTYPE_TEXT_BYTES_MAX}")
    try:
        if text[:1] in ("[", "{"):
            dtype = np.dtype(ast.literal_eval(text))
        elif _PLAIN.fullmatch(text):
            dtype = np.dtype(text)
        else:
            raise ValueError("neither a type code nor a list or dict of fields")
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError, KeyError) as error:
        raise BadContent(f"dtype {shown(text)}: {shown(str(error))}") from None
    return check_dtype(dtype)


def check_dtype(dtype: np.dtype) -> np.dtype:
    """Return ``dtype`` if arrays of it may be offered.

    Raises:
        NotReadable: the message says which part of it is not.
    """
    _check(dtype, _DEPTH_MAX)
    return dtype


def dtype_text(dtype: np.dtype) -> str:
    """Write ``dtype`` as python-blosc2 reads it back: ``'<f4'``, or the ``str`` of a structured type's ``descr``.

    A structured type whose layout ``descr`` cannot say without naming its padding is written as a dict.
    """
    if dtype.fields is None:
        return dtype.str
    try:
        described = dtype.descr
    except ValueError:  # fields that overlap or are out of order
        return str(dtype)
    return str(described) if np.dtype(described) == dtype else str(dtype)


def _check(dtype: np.dtype, depth: int) -> None:
    if dtype.itemsize == 0 or depth == 0:
        raise NotReadable(f"dtype {shown(str(dtype))}: items without a size, or nested too deeply")
    if dtype.subdtype is not None:
        _check(dtype.subdtype[0], depth - 1)
    elif dtype.fields is not None:
        for field in dtype.fields.values():
            _check(field[0], depth - 1)
    elif dtype.kind in "mM":
        if np.datetime_data(dtype)[0] == "generic":
            raise NotReadable(f"dtype {dtype.str}: a date or duration without a unit")
    elif dtype.kind not in "SUV" and dtype.itemsize > _NUMERIC_BYTES_MAX.get(dtype.kind, 0):
        raise NotReadable(f"dtype {shown(str(dtype))} is not offered: it has no fixed, portable form")

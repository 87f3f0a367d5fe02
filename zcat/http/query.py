"""What a data request asks for, read from a query string or from a JSON body with the same keys."""

import functools
import json
from dataclasses import dataclass
from typing import Any

from zcat.errors import BadName, BadRequest, BadSelection, TooLarge
from zcat.model.reduction import Fit, parse_fit
from zcat.model.selection import Key, key_of_text, parse_slice_text
from zcat.names import parse_root, shown, split_address

FORMATS = ("cframe", "raw", "npy", "chunks")
COORDINATES_MAX = 1_000_000
"""In the lists of one ``indices`` parameter."""

_KEYS = frozenset({"slice_", "field", "indices", "fmt", "filter", "fit", "reduce", "exact", "max_bytes"})
_TRUTHS = {"": False, "0": False, "false": False, "1": True, "true": True}


@dataclass(frozen=True, slots=True)
class Query:
    """Which part of a dataset, and in which form."""

    slice_text: str = ""
    field: str = ""
    indices: str = ""
    """JSON: a list with, per axis, an integer, a list of integers, a slice as text, or null for all."""
    fmt: str = "cframe"
    fit: Fit | None = None
    """Into what the part shall fit; None for all its items."""
    is_exact: bool = False
    """The fit is to be made of all items, however many there are."""
    max_bytes: int | None = None
    """What the client can bear, uncompressed."""

    @property
    def is_whole(self) -> bool:
        """The dataset as it is stored, which is served without being read."""
        return self.fmt == "cframe" and not (self.slice_text or self.indices or self.field or self.fit)

    def key(self, shape: tuple[int, ...]) -> Key:
        """Return the NumPy key that was asked for.

        Raises:
            BadSelection: it is malformed, or does not fit the shape.
        """
        return _indices_key(self.indices, shape) if self.indices else key_of_text(self.slice_text)


def address_of(req: Any, text: str) -> tuple[str, str]:
    """Split the dataset's address off a request; every path of a URL comes through here.

    Raises:
        BadName: it is not a legal address, or hides a slash as ``%2F``, which nothing behind here could see.
    """
    uri = req.env.get("REQUEST_URI") or req.env.get("RAW_URI") or ""
    if "%2f" in uri.partition("?")[0].lower():
        raise BadName(f"path {shown(text)}: a slash is a slash, not %2F")
    return _split(text)


def root_of(req: Any, text: str) -> str:
    """Return the root that a request names, as ``name`` or ``name@owner``.

    Raises:
        BadName: it is not legal, or a path follows it.
    """
    root, path = address_of(req, text)
    if path:
        raise BadName(f"root {shown(text)}: wanted the name of a root alone")
    parse_root(root)
    return root


def query_of_params(params: dict[str, Any]) -> Query:
    """Read a query string.

    Raises:
        BadRequest: an unknown key, or one given twice: ignoring it would answer something else.
    """
    if not params:
        return Query()
    return _query(params)


def query_of_body(body: bytes) -> Query:
    """Read the JSON body of a POST; ``indices`` may be the list itself or its text.

    Raises:
        BadRequest: it is no JSON object of these keys.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is no JSON; wanted an object with slice_, indices, field, fmt") from None
    if not isinstance(fields, dict):
        raise BadRequest(f"the body is a JSON {type(fields).__name__}, wanted an object")
    fields = {key: value for key, value in fields.items() if value is not None}
    if type(fields.get("max_bytes")) is int:
        fields["max_bytes"] = str(fields["max_bytes"])
    if isinstance(fields.get("indices"), list):
        fields["indices"] = json.dumps(fields["indices"], separators=(",", ":"))
    return _query(fields)


def whole_number(text: str | None, name: str) -> int:
    """Read a non-negative integer parameter.

    Raises:
        BadRequest: it is missing or something else.
    """
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadRequest(f"parameter {name}: wanted an integer from 0, got {shown(text or '')}")
    return int(text)


@functools.lru_cache(maxsize=4096)
def _split(text: str) -> tuple[str, str]:
    return split_address(text)  # PERF: 12 us, a tenth of a small answer; what is refused is not kept


def _query(fields: dict[str, Any]) -> Query:
    for key, value in fields.items():
        if key not in _KEYS:
            raise BadRequest(f"parameter {shown(key)} is not known; wanted {', '.join(sorted(_KEYS))}")
        if not isinstance(value, str):
            raise BadRequest(f"parameter {key}: wanted one text, got {shown(str(value))}")
    query = Query(
        fields.get("slice_", "").strip(),
        fields.get("field", ""),
        fields.get("indices", ""),
        fields.get("fmt", "cframe"),
        parse_fit(fields["fit"], fields.get("reduce", "mean")) if fields.get("fit") else None,
        _truth(fields.get("exact", ""), "exact"),
        whole_number(fields["max_bytes"], "max_bytes") if fields.get("max_bytes") else None,
    )
    if query.fmt not in FORMATS:
        raise BadRequest(f"fmt {shown(query.fmt)}: wanted one of {', '.join(FORMATS)}")
    if query.slice_text and query.indices:
        raise BadRequest("slice_ and indices exclude one another: an entry of indices may be a slice")
    if query.fit is None and (fields.get("reduce") or query.is_exact):
        raise BadRequest(
            "reduce and exact are for previews: say by fit how large one may be, such as fit=1024x768"
        )
    if fields.get("filter"):
        raise BadRequest("filter: conditions on items are not offered; read the field and compare")
    return query


def _truth(text: str, name: str) -> bool:
    if text not in _TRUTHS:
        raise BadRequest(f"parameter {name}: wanted true or false, got {shown(text)}")
    return _TRUTHS[text]


def _indices_key(text: str, shape: tuple[int, ...]) -> Key:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        raise BadSelection('indices is no JSON; wanted for instance [[1,5,9],450,"0:10",null]') from None
    if not isinstance(entries, list) or len(entries) > len(shape):
        raise BadSelection(f"indices: wanted a list of at most {len(shape)} entries, one per axis")
    count = sum(len(entry) for entry in entries if isinstance(entry, list))
    if count > COORDINATES_MAX:
        raise TooLarge(
            f"indices: {count} coordinates, the limit is {COORDINATES_MAX}; ask in parts, or POST points"
        )
    return tuple([_indices_part(entry, length) for entry, length in zip(entries, shape, strict=False)])


def _indices_part(entry: Any, length: int) -> Any:
    if entry is None:
        return slice(None)
    if type(entry) is int:
        return entry
    if isinstance(entry, list) and all(type(number) is int for number in entry):
        return entry
    if isinstance(entry, str) and len(part := parse_slice_text(entry, (length,))) == 1:
        return part[0]
    raise BadSelection(f"indices: {shown(str(entry))} is no integer, list of integers, slice or null")

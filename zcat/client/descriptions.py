"""From the JSON of a subscriber to values: roots, listings, descriptions of datasets.

What is no such description is refused here, once; behind it, code may trust the numbers.
"""

import base64
import datetime
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from zcat.client.backend import Listed, RootInfo
from zcat.errors import BadMessage
from zcat.limits import CHUNK_BYTES_MAX, NCHUNKS_MAX
from zcat.model.dataset import (
    ArrayGeometry,
    Compression,
    DatasetInfo,
    Entry,
    Geometry,
    Kind,
    check_geometry,
)
from zcat.model.dtypes import dtype_text, parse_dtype
from zcat.names import shown

FOLDER = "group"
"""The ``kind`` of what is no dataset."""

P = ParamSpec("P")
T = TypeVar("T")


def _checked(parse: Callable[P, T]) -> Callable[P, T]:
    """Turn whatever a wrong description does to a parser into one error."""

    @functools.wraps(parse)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = shown(f"{type(error).__name__}: {error}")
            raise BadMessage(f"the subscriber's description is not understood ({what})") from None

    return wrapped


@_checked
def parse_roots(value: Any) -> list[RootInfo]:
    """Read the answer of ``/api/roots``.

    Raises:
        BadMessage: it is something else; so for the others.
    """
    return [
        RootInfo(
            name=str(root["name"]),
            owner=root["owner"],
            state=str(root["state"]),
            followed=bool(root["subscribed"]),
            contested=bool(root["contested"]),
            datasets=root["datasets"],
            synced=bool(root["synced"]),
        )
        for _, root in sorted(value.items())
    ]


@_checked
def parse_listing(value: Any) -> list[Listed]:
    """Read the answer of ``/api/list/{path}?details=1``; paths are as there, relative to what was listed."""
    return [
        Listed(
            path=str(entry["path"]),
            kind=Kind(entry["kind"]),
            shape=None if entry["shape"] is None else _integers(entry["shape"]),
            dtype=entry["dtype"],
            nbytes=int(entry["nbytes"]),
            cbytes=int(entry["cbytes"]),
            mtime_ns=_nanoseconds(entry["mtime"]),
            problem=entry["problem"],
        )
        for entry in value
    ]


@_checked
def parse_info(value: Any, path: str) -> DatasetInfo | None:
    """Read the answer of ``/api/info/{path}``; None if it describes a folder.

    Raises:
        BadMessage: it is no description.
        BadContent: its numbers do not agree with one another, or its dtype is none.
        NotReadable: its dtype is not offered.
    """
    if value["kind"] == FOLDER:
        return None
    kind = Kind(value["kind"])
    frame = value["schunk"] if kind is Kind.ARRAY else value
    array = _array(value) if kind is Kind.ARRAY else None
    parameters = frame["cparams"]
    geometry = Geometry(
        nbytes=int(frame["nbytes"]),
        chunksize=int(frame["chunksize"]),
        blocksize=int(frame["blocksize"]),
        typesize=int(parameters["typesize"]),
        array=array,
    )
    entry = Entry(
        path=path,
        kind=kind,
        lineage=str(value["lineage"]),
        nbytes=int(value["size"]),
        cbytes=int(frame["cbytes"]),
        mtime_ns=_nanoseconds(value["mtime"]),
        shape=array.shape if array else None,
        dtype=array.dtype if array else None,
    )
    compression = Compression(
        codec=int(parameters["codec"]),
        codec_meta=int(parameters["codec_meta"]),
        clevel=int(parameters["clevel"]),
        filters=_integers(parameters["filters"]),
        filters_meta=_integers(parameters["filters_meta"]),
        splitmode=int(parameters["splitmode"]),
    )
    checked = check_geometry(geometry, CHUNK_BYTES_MAX, NCHUNKS_MAX)
    return DatasetInfo(entry, checked, compression, parse_attributes(value))


@_checked
def parse_attributes(value: Any) -> dict[str, Any]:
    """Read the attributes in the answer of ``/api/info/{path}``; a folder has none.

    Raises:
        BadMessage: it is no description.
    """
    return {str(name): _with_bytes(item) for name, item in value.get("attributes", {}).items()}


def _array(value: Any) -> ArrayGeometry:
    dtype = parse_dtype(value["dtype"])
    return ArrayGeometry(
        shape=_integers(value["shape"]),
        chunks=_integers(value["chunks"]),
        blocks=_integers(value["blocks"]),
        dtype=dtype_text(dtype),
        itemsize=dtype.itemsize,
    )


def _integers(values: Any) -> tuple[int, ...]:
    return tuple([int(value) for value in values])


def _nanoseconds(text: str) -> int:
    since = datetime.datetime.fromisoformat(text) - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _with_bytes(value: Any) -> Any:
    """Turn ``{"base64": …}``, as which bytes that are no text travel, back into bytes."""
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"base64"}:
        return base64.b64decode(value["base64"])
    return {name: _with_bytes(item) for name, item in value.items()}

"""Read from a subscriber over HTTP: small answers in one go, large arrays in parts, streamed into place."""

import contextlib
import functools
import io
import json
import logging
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import urllib3

from zcat.client import chunk_stream
from zcat.client.backend import Address, Asked, Body, BodyCut, Listed, PreviewKey, RootInfo
from zcat.client.connection import Connection
from zcat.client.cutting import COORDINATES_MAX, PART_BYTES, cut, cut_points
from zcat.client.descriptions import parse_attributes, parse_info, parse_listing, parse_roots
from zcat.client.preview import Preview
from zcat.errors import BadMessage, BadSelection, DatasetUnknown, Stale
from zcat.limits import MIB
from zcat.logs import kv
from zcat.model.dataset import ArrayGeometry, DatasetInfo, Kind
from zcat.model.dtypes import parse_dtype
from zcat.model.reduction import parse_reduced
from zcat.model.selection import Axis, Points, Selection, selection_text, slice_text
from zcat.names import shown

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_S = 60.0

# PERF: an answer of a few KiB is taken with one call instead of one for each header and chunk
_WHOLE_BYTES_MAX = MIB
_PIECE_BYTES = MIB


class HttpBackend:
    """A subscriber at a URL. Any number of threads may use it; a pickled copy makes connections of its own."""

    def __init__(self, url: str, timeout_s: float = DEFAULT_TIMEOUT_S, part_bytes: int = PART_BYTES) -> None:
        """Prepare; the first call connects.

        Args:
            url: of the subscriber.
            timeout_s: how long to wait for a connection, and each time for the next bytes of an answer.
            part_bytes: of one answer, uncompressed; larger reads are several.

        Raises:
            BadRequest: that is no URL of a subscriber.
        """
        self._connection = Connection(url, timeout_s)
        self._part_bytes = part_bytes

    @property
    def url(self) -> str:
        """Of the subscriber, without a slash at its end."""
        return self._connection.url

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_backend, (self.url, self._connection.timeout_s)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def roots(self) -> list[RootInfo]:
        """Return all roots that are known, by name."""
        return parse_roots(self._connection.json("GET", "/api/roots"))

    def follow(self, root: str) -> None:
        """Begin to follow a root."""
        self._connection.json("POST", _route("subscribe", root))

    def unfollow(self, root: str) -> None:
        """Stop following a root."""
        self._connection.json("POST", _route("unsubscribe", root))

    def health(self) -> dict[str, Any]:
        """Say how the subscriber is."""
        health = self._connection.json("GET", "/api/health")
        if not isinstance(health, dict):
            raise BadMessage(f"{self.url}/api/health answers a {type(health).__name__}, wanted an object")
        return health

    def network(self, what: str, is_asked: bool = True) -> list[dict[str, Any]]:
        """Tell how the ``brokers`` or the ``peers`` are."""
        route = f"/api/{what}" + ("" if is_asked else "?ask=0")
        told = self._connection.json("GET", route)
        rows = told.get(what) if isinstance(told, dict) else None
        if not isinstance(rows, list):
            raise BadMessage(f"{self.url}{route} answers something else than {what}")
        return rows

    def listing(self, root: str, under: str) -> list[Listed]:
        """Return the datasets of a root, or those under a folder, or one dataset."""
        address = f"{root}/{under}" if under else root
        listed = parse_listing(self._connection.json("GET", _route("list", address, details="1")))
        if not under:
            return listed
        # A dataset is listed by its last name; so is the only dataset of a folder, if both have the same name.
        is_dataset = len(listed) == 1 and listed[0].path == under.rpartition("/")[2]
        if is_dataset and self._info(Address(root, under)) is not None:
            return [_renamed(listed[0], under)]
        return [_renamed(entry, f"{under}/{entry.path}") for entry in listed]

    def info(self, address: Address) -> DatasetInfo:
        """Return what is known of the newest version."""
        info = self._info(address)
        if info is None:
            raise DatasetUnknown(f"{address} is a folder; wanted one of the datasets in it")
        return info

    def attributes(self, address: Address) -> dict[str, Any]:
        """Return the attributes of a dataset, a group or a root; none of a folder."""
        return parse_attributes(self._connection.json("GET", _route("info", str(address))))

    def read(self, asked: Asked, what: Selection | Points, field: str | None) -> npt.NDArray[Any]:
        """Read items of an array, all of one version."""
        array = asked.info.geometry.array
        assert array is not None
        dtype = _dtype(array.dtype)
        answers = _Answers(self, asked)
        if isinstance(what, Selection) and sum(not isinstance(axis, range) for axis in what.axes) < 2:
            block = np.empty(what.shape, dtype if field is None else dtype[field])
            # the subscriber holds whole records also where it sends one field of them
            for part, place in cut(what, array.itemsize, array.chunks, self._part_bytes):
                with _stretch(block, place) as out:
                    answers.fill(out, *_fetch(asked.address, part, field))
        else:
            block = np.empty(what.size if isinstance(what, Points) else what.shape, dtype)
            route = _route("points", str(asked.address), fmt="chunks")
            for points, place in _points(what, array, self._part_bytes):
                with _stretch(block, place) as out:
                    body = points.coordinates.astype("<i8", copy=False).tobytes()
                    answers.fill(out.reshape(-1), "POST", route, body)
            block = block if field is None else block[field]
        answers.finish()
        return block

    def preview(self, asked: Asked, what: PreviewKey) -> Preview:
        """Read a part of an array made small; one answer, so of one version."""
        text = slice_text(what.key)
        if text is None:
            raise BadSelection("preview: the selection is too long to be asked for")
        query = {"fmt": "chunks", "fit": what.fit.text, "reduce": what.fit.reduce.value, "slice_": text}
        query |= {"field": what.field} if what.field else {}
        query |= {"exact": "true"} if what.is_exact else {}
        with self._connection.open("GET", _route("fetch", str(asked.address), **query)) as response:
            told, version = response.headers.get("X-Zcat-Preview"), response.headers.get("X-Zcat-Version")
            shape, dtype = response.headers.get("X-Zcat-Shape"), response.headers.get("X-Zcat-Dtype")
            if told is None or version is None or shape is None or dtype is None:
                raise BadMessage(f"{self.url} does not know previews, or does not say what it has made")
            if version.rpartition("-")[0] != asked.info.entry.lineage:
                raise Stale(f"{asked.address} is now of version {version}, wanted {asked.info.version.etag}")
            block = np.empty(_shape(shape), _dtype(dtype))
            chunk_stream.decode(functools.partial(self._connection.take, response), block)
            return Preview(block, version, parse_reduced(told))

    def read_bytes(self, asked: Asked, start: int, stop: int) -> bytearray:
        """Read content bytes of a byte frame or file, all of one version."""
        info = asked.info
        itemsize = info.geometry.typesize if info.entry.kind is Kind.FRAME else 1
        first, last = start // itemsize, -(-stop // itemsize)
        step = max(self._part_bytes // itemsize, 1)
        answers = _Answers(self, asked)
        result = bytearray((last - first) * itemsize)
        items = np.frombuffer(result, f"V{itemsize}" if itemsize > 1 else "u1")
        for low in range(first, last, step):
            high = min(low + step, last)
            route = _route("fetch", str(asked.address), slice_=f"{low}:{high}", fmt="chunks")
            answers.fill(items[low - first : high - first], "GET", route, None)
        answers.finish()
        del items  # it holds on to the bytes, which then cannot be cut
        offset = start - first * itemsize
        del result[offset + stop - start :], result[:offset]
        return result

    @contextlib.contextmanager
    def body(self, address: Address, start: int, tag: str | None) -> Iterator[Body]:
        """Open the newest version as a file."""
        route = _route("download", str(address))
        wanted = {"Range": f"bytes={start}-", "If-Range": tag} if start and tag else {}
        with self._connection.open("GET", route, headers=wanted) as response:
            sent_tag, length = response.headers.get("ETag"), response.headers.get("Content-Length", "")
            if sent_tag is None or not length.isdecimal():
                raise BadMessage(f"{self.url} sends a file without saying which, or how long")
            begin = start if response.status == 206 else 0
            yield Body(sent_tag, begin, begin + int(length), self._pieces(response, int(length)))

    def _info(self, address: Address) -> DatasetInfo | None:
        return parse_info(self._connection.json("GET", _route("info", str(address))), address.path)

    def _pieces(self, response: urllib3.BaseHTTPResponse, nbytes: int) -> Iterator[bytes]:
        for start in range(0, nbytes, _PIECE_BYTES):
            wanted = min(_PIECE_BYTES, nbytes - start)
            piece = self._connection.take(response, wanted)
            yield piece
            if len(piece) < wanted:
                raise BodyCut(f"{self.url} ended a file early: {nbytes - start - len(piece)} bytes are missing")


class _Answers:
    """The answers that make up one read, and of which version they are."""

    def __init__(self, backend: HttpBackend, asked: Asked) -> None:
        self._backend = backend
        self._asked = asked
        self._count = 0
        self._all_named = True

    def fill(self, out: npt.NDArray[Any], method: str, route: str, body: bytes | None) -> None:
        """Ask for a part, and decode it into its place; once more if the answer is cut.

        One of the processes that answer at an address may die in the middle of it; the others go on.

        Raises:
            Stale: it is of another version.
        """
        try:
            self._fill(out, method, route, body)
        except BodyCut as error:
            log.info("an answer was cut, it is asked for again %s", kv(url=self._backend.url, why=error))
            self._fill(out, method, route, body)

    def _fill(self, out: npt.NDArray[Any], method: str, route: str, body: bytes | None) -> None:
        connection = self._backend._connection
        with connection.open(method, route, body) as response:
            self._check(response.headers, out)
            length = response.headers.get("Content-Length", "")
            if length.isdecimal() and int(length) <= _WHOLE_BYTES_MAX:
                chunk_stream.decode(io.BytesIO(connection.take(response, None)).read, out)
            else:
                chunk_stream.decode(functools.partial(connection.take, response), out)

    def finish(self) -> None:
        """Make sure that all of them were of the version that was asked for.

        A subscriber that does not name the version of an answer is asked for it at the end: a lineage that was
        there before and is there after was there all the time, as none ever comes again.
        """
        asked = self._asked
        if not self._all_named and (asked.exact or self._count > 1):
            now = self._backend.info(asked.address)
            if now.entry.lineage != asked.info.entry.lineage:
                raise Stale(f"{asked.address} has changed while it was read")

    def _check(self, headers: urllib3.HTTPHeaderDict, out: npt.NDArray[Any]) -> None:
        self._count += 1
        version = headers.get("X-Zcat-Version")
        self._all_named &= version is not None
        if version is not None and version.rpartition("-")[0] != self._asked.info.entry.lineage:
            raise Stale(
                f"{self._asked.address} is now of version {version}, wanted {self._asked.info.version.etag}"
            )
        shape, dtype = headers.get("X-Zcat-Shape"), headers.get("X-Zcat-Dtype")
        if shape is None or dtype is None:
            raise BadMessage("the answer does not say of which shape and dtype it is")
        if shape != ",".join(map(str, out.shape)) or _dtype(dtype) != out.dtype:
            raise Stale(
                f"{self._asked.address} has changed: wanted {out.dtype} of shape {out.shape}, "
                f"the answer has {dtype} of shape ({shape})"
            )


@functools.lru_cache(maxsize=16)
def shared_backend(url: str, timeout_s: float) -> HttpBackend:
    """Return the backend that the datasets which arrive in this process from another share.

    Each worker of a cluster takes datasets out of thousands of messages; with connections of its own for each
    it would run out of files.
    """
    return HttpBackend(url, timeout_s)


@functools.lru_cache(maxsize=256)
def _dtype(text: str) -> "np.dtype[Any]":
    return parse_dtype(text)


@functools.lru_cache(maxsize=1024)
def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="/@")


def _route(verb: str, address: str, **query: str) -> str:
    route = f"/api/{verb}/{_quoted(address)}"
    return f"{route}?{urllib.parse.urlencode(query, safe=',:')}" if query else route


def _fetch(address: Address, selection: Selection, field: str | None) -> tuple[str, str, bytes | None]:
    """Return method, route and body of the request for a selection."""
    query = {"fmt": "chunks"} if field is None else {"fmt": "chunks", "field": field}
    text = selection_text(selection)
    if text is not None:
        return "GET", _route("fetch", str(address), slice_=text, **query), None
    indices = [_axis_json(axis) for axis in selection.axes]
    return "POST", _route("fetch", str(address)), json.dumps({"indices": indices, **query}).encode()


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not all(size.isdecimal() and len(size) < 19 for size in sizes):
        raise BadMessage(f"the answer has the shape {shown(text)}")
    return tuple(map(int, sizes))


def _points(
    what: Selection | Points, array: ArrayGeometry, part_bytes: int
) -> Iterator[tuple[Points, tuple[slice, ...]]]:
    """Cut what no request for a box can say into requests of single items, with their place in the result."""
    if isinstance(what, Points):
        yield from cut_points(what, array.itemsize, part_bytes)
        return
    # Several lists in one request mean pairs of indices, as in a key of NumPy, and not all combinations of them.
    for part, place in cut(what, array.itemsize, array.chunks, min(part_bytes, COORDINATES_MAX * array.itemsize)):
        axes = np.meshgrid(*[np.asarray(axis, np.int64) for axis in part.axes], indexing="ij")
        yield Points(np.stack(axes, axis=-1).reshape(-1, len(axes))), place


@contextlib.contextmanager
def _stretch(block: npt.NDArray[Any], place: tuple[slice, ...]) -> Iterator[npt.NDArray[Any]]:
    """Give a place of a block to be filled: itself if it lies in one stretch, as it mostly does."""
    key: Any = (*place, ...)
    target: npt.NDArray[Any] = block[key]
    if target.flags.c_contiguous:
        yield target
    else:
        aside = np.empty(target.shape, target.dtype)
        yield aside
        target[...] = aside


def _axis_json(axis: Axis) -> Any:
    return f"{axis.start}:{axis.stop}:{axis.step}" if isinstance(axis, range) else axis.tolist()


def _renamed(entry: Listed, path: str) -> Listed:
    return Listed(
        path, entry.kind, entry.shape, entry.dtype, entry.nbytes, entry.cbytes, entry.mtime_ns, entry.problem
    )

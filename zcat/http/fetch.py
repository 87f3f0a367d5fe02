"""The routes that give parts of a dataset: slices, points and chunks."""

from typing import Any

import falcon
import numpy as np

from zcat.errors import BadRequest, BadSelection
from zcat.http import ranges
from zcat.http.allowance import AnswerLimits
from zcat.http.bodies import Answer, Phases, not_modified
from zcat.http.parts import (
    Part,
    check_content,
    check_size,
    check_wanted,
    encode,
    part_of,
    preview_of,
    shape_headers,
    stored_body,
    stream,
)
from zcat.http.query import Query, address_of, query_of_body, query_of_params, whole_number
from zcat.http.reads import Dataset, FrameOf, Reads
from zcat.http.streaming import HELD_BYTES
from zcat.http.whole import Conditions, frame_answer
from zcat.model.dataset import DatasetInfo
from zcat.model.selection import Points, check_points
from zcat.names import shown
from zcat.services.preview import PreviewLimits

VERSION_HEADER = "X-Zcat-Version"
"""What the answer was read from: the tag of a part hides it, and differs from part to part."""

_COORDINATE_BYTES = 8


class Fetch:
    """``/api/fetch/{path}``: a part of a dataset, or all of it as it is stored."""

    def __init__(
        self, reads: Reads, limits: AnswerLimits, preview_limits: PreviewLimits, frame_of: FrameOf
    ) -> None:
        self._reads = reads
        self._limits = limits
        self._preview_limits = preview_limits
        self._frame_of = frame_of

    def on_get(self, req: Any, resp: Any, path: str) -> None:
        """Answer a query string."""
        self._serve(req, resp, path, query_of_params(req.params))

    on_head = on_get

    def on_post(self, req: Any, resp: Any, path: str) -> None:
        """Answer a JSON body: for keys too long for a URL."""
        self._serve(req, resp, path, query_of_body(req.bounded_stream.read()))

    def _serve(self, req: Any, resp: Any, path: str, query: Query) -> None:
        phases = Phases()
        conditions = Conditions.of(req)

        def work(dataset: Dataset) -> Answer:
            phases.end("find")
            return self._answer(dataset, query, conditions, phases)

        answer = self._reads.on_version(*address_of(req, path), work)
        answer.headers["Server-Timing"] = str(phases)
        answer.put(resp)

    def _answer(self, dataset: Dataset, query: Query, conditions: Conditions, phases: Phases) -> Answer:
        info = dataset.info
        check_content(info)
        preview = preview_of(dataset, query, self._preview_limits) if query.fit else None
        told = preview.told if preview else ""
        tag = ranges.make_tag(info.version.etag, query.fmt, query.field, query.slice_text, query.indices, told)
        if ranges.is_known(conditions.if_none_match, tag):
            return not_modified(tag)
        if query.is_whole:
            frame = self._frame_of(dataset)
            check_wanted(frame.nbytes, query, None)
            answer = frame_answer(frame, tag, conditions)
            phases.end("frame")
            return answer
        if conditions.range_:
            raise falcon.HTTPError(416, description="a computed answer has no ranges; ask for the part as a slice")
        part = preview or part_of(dataset, query)
        nbytes = self._checked(part, query)
        headers = {**part.headers, VERSION_HEADER: info.version.text}
        if conditions.is_head:
            return Answer(tag, headers=headers, nbytes=part.length(query.fmt))
        answer = Answer(tag, headers=headers, owner=self._limits.together.take(nbytes))
        if part.nbytes <= self._limits.one_max_bytes or query.fmt != "cframe":
            answer.body = stored_body(dataset, part.stored, query.fmt)
        if answer.body is not None:
            phases.end("read")
        elif part.is_streamed:
            answer.body = stream(part, query.fmt, info, self._limits.one_max_bytes)
            answer.nbytes = part.length(query.fmt)
            phases.end("begin")
        else:
            block = part.read()
            phases.end("read")
            answer.body = encode(block, query.fmt, info, told)
            phases.end("encode")
        return answer

    def _checked(self, part: Part, query: Query) -> int:
        """Return how much memory a part takes, if that is not too much, and neither is the part.

        Raises:
            TooLarge: one of them is.
        """
        limits = self._limits
        check_wanted(part.nbytes, query, limits.slice_max_bytes)
        if not part.is_streamed:
            nbytes = max(part.nbytes, part.held_nbytes)
            check_size(nbytes, limits.one_max_bytes)
            return nbytes
        held = HELD_BYTES if query.fmt != "cframe" else limits.one_max_bytes
        return min(part.nbytes, held)


class FetchPoints:
    """``/api/points/{path}``: single items, at coordinates that the body lists."""

    def __init__(self, reads: Reads, limits: AnswerLimits) -> None:
        self._reads = reads
        self._limits = limits

    def on_post(self, req: Any, resp: Any, path: str) -> None:
        """Read int64 coordinates, little-endian, ``(npoints, ndim)``; answer the items in their order."""
        fmt = req.get_param("fmt", default="raw")
        if fmt not in ("raw", "chunks"):
            raise BadRequest(f"fmt {shown(fmt)}: wanted raw or chunks")
        body = req.bounded_stream.read()

        def work(dataset: Dataset) -> Answer:
            points = _points(body, dataset.info)
            array = dataset.info.geometry.array
            nbytes = points.size * (array.itemsize if array else 1)
            check_size(nbytes, self._limits.one_max_bytes)
            share = self._limits.together.take(nbytes)
            block = dataset.read(points)
            headers = {**shape_headers(block.shape, block.dtype), VERSION_HEADER: dataset.info.version.text}
            return Answer(headers=headers, body=encode(block, fmt, dataset.info), owner=share)

        self._reads.on_version(*address_of(req, path), work).put(resp)


class FetchChunk:
    """``/api/chunk/{path}?nchunk=N``: one compressed chunk."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_get(self, req: Any, resp: Any, path: str) -> None:
        """Answer the chunk as it is stored."""
        nchunk = whole_number(req.get_param("nchunk"), "nchunk")
        conditions = Conditions.of(req)

        def work(dataset: Dataset) -> Answer:
            tag = ranges.make_tag(dataset.info.version.etag, "chunk", str(nchunk))
            if ranges.is_known(conditions.if_none_match, tag):
                return not_modified(tag)
            return Answer(tag, body=(dataset.chunk(nchunk),))

        self._reads.on_version(*address_of(req, path), work).put(resp)

    on_head = on_get


def _points(body: bytes, info: DatasetInfo) -> Points:
    array = info.geometry.array
    if array is None or not array.shape:
        raise BadSelection("points are for arrays of one axis or more")
    row = _COORDINATE_BYTES * len(array.shape)
    if len(body) % row:
        raise BadRequest(f"{len(body)} bytes of coordinates: wanted int64, {row} bytes for each point")
    return check_points(np.frombuffer(body, "<i8").reshape(-1, len(array.shape)), array.shape)

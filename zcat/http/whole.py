"""Bodies that are there before anybody asks, such as a dataset's frame: sent whole, or in ranges."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import falcon

from zcat.http import ranges
from zcat.http.bodies import BINARY, Answer
from zcat.http.reads import Buffer, Frame
from zcat.limits import MIB

AT_HAND_BYTES_MAX = 256 * MIB
"""Of a body whose parts are gathered before it is sent: each is checked, and may come from a cold disk."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the headers of a request say about the answer."""

    is_head: bool
    if_none_match: str | None
    range_: str | None
    if_range: str | None

    @classmethod
    def of(cls, req: Any) -> "Conditions":
        """Read them from a request."""
        get = req.env.get
        is_head = req.method == "HEAD"  # for which the RFC defines no ranges
        range_ = None if is_head else get("HTTP_RANGE")
        return cls(is_head, get("HTTP_IF_NONE_MATCH"), range_, get("HTTP_IF_RANGE"))


def frame_answer(source: Frame, tag: str, conditions: Conditions, content_type: str = BINARY) -> Answer:
    """Answer bytes that are there before anybody asks: all of them, or the ranges that are wanted."""
    spans = ranges.wanted_spans(conditions.range_, conditions.if_range, tag, source.nbytes)
    answer = Answer(tag, content_type=content_type, headers={"Accept-Ranges": "bytes"}, owner=source)
    if conditions.is_head:
        answer.nbytes = source.nbytes
        return answer
    if spans is None:
        return _fill(answer, source, source.nbytes, lambda: source.iter_bytes())
    if not spans:
        raise falcon.HTTPRangeNotSatisfiable(
            source.nbytes, description=f"the body has {source.nbytes} bytes, the range lies behind them"
        )
    answer.status = falcon.HTTP_206
    if len(spans) == 1:
        (start, stop) = spans[0]
        answer.headers["Content-Range"] = ranges.content_range(spans[0], source.nbytes)
        return _fill(answer, source, stop - start, lambda: source.iter_bytes(start, stop))
    boundary = secrets.token_hex(16)
    heads = [ranges.part_head(boundary, content_type, span, source.nbytes) for span in spans]
    end = ranges.last_line(boundary)
    answer.content_type = f"multipart/byteranges; boundary={boundary}"

    def parts() -> Iterator[Buffer]:
        for head, span in zip(heads, spans, strict=True):
            yield head
            yield from source.iter_bytes(*span)
        yield end

    nbytes = sum(map(len, heads)) + sum(stop - start for start, stop in spans) + len(end)
    return _fill(answer, source, nbytes, parts)


def _fill(answer: Answer, source: Frame, nbytes: int, pieces: Callable[[], Iterator[Buffer]]) -> Answer:
    answer.body = list(pieces()) if source.local and nbytes <= AT_HAND_BYTES_MAX else pieces()
    answer.nbytes = nbytes
    return answer

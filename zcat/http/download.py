"""The route that gives a dataset as a file to keep."""

import mimetypes
import urllib.parse
from collections.abc import Iterator
from typing import Any

from zcat.http import ranges
from zcat.http.bodies import BINARY, Answer, not_modified
from zcat.http.parts import check_content
from zcat.http.query import address_of
from zcat.http.reads import Buffer, Dataset, FrameOf, Reads
from zcat.http.whole import Conditions, frame_answer
from zcat.limits import MIB
from zcat.model.dataset import Kind

_FILE_PIECE_BYTES = 4 * MIB


class Download:
    """``/api/download/{path}``: the dataset as a file to keep."""

    def __init__(self, reads: Reads, frame_of: FrameOf) -> None:
        self._reads = reads
        self._frame_of = frame_of

    def on_get(self, req: Any, resp: Any, path: str) -> None:
        """Answer a Blosc2 file as a frame, any other file as its bytes, or compressed for who asks for that."""
        conditions = Conditions.of(req)
        wants_frame = _accepts_blosc2(req.env.get("HTTP_ACCEPT_ENCODING", ""))
        root, inner = address_of(req, path)

        def work(dataset: Dataset) -> Answer:
            check_content(dataset.info)
            is_file = dataset.info.entry.kind is Kind.FILE
            as_frame = wants_frame or not is_file
            tag = ranges.make_tag(dataset.info.version.etag, "download", str(as_frame))
            if ranges.is_known(conditions.if_none_match, tag):
                return not_modified(tag)
            source = self._frame_of(dataset) if as_frame else _FileBytes(dataset)
            answer = frame_answer(source, tag, conditions, _content_type(inner))
            if is_file:
                answer.headers["Vary"] = "Accept-Encoding"
                if as_frame:
                    answer.headers["Content-Encoding"] = "blosc2"
            return answer

        answer = self._reads.on_version(root, inner, work)
        answer.headers["Content-Disposition"] = disposition(inner.rpartition("/")[2])
        answer.headers["Content-Security-Policy"] = "sandbox; default-src 'none'"
        answer.put(resp)

    on_head = on_get


def disposition(name: str) -> str:
    """Return a ``Content-Disposition`` that saves a file under its name, whatever letters it has (RFC 6266)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    extended = "" if plain == name else f"; filename*=UTF-8''{urllib.parse.quote(name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


class _FileBytes:
    """The content of a file, with the face of a frame."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.nbytes = dataset.info.geometry.nbytes
        self.local = dataset.complete and self.nbytes <= _FILE_PIECE_BYTES

    def iter_bytes(self, start: int = 0, stop: int | None = None) -> Iterator[Buffer]:
        """Yield the bytes in pieces of whole chunks."""
        chunksize = max(self._dataset.info.geometry.chunksize, 1)
        step = max(_FILE_PIECE_BYTES // chunksize, 1) * chunksize
        end = self.nbytes if stop is None else stop
        while start < end:
            piece_end = min((start // step + 1) * step, end)
            yield self._dataset.read_bytes(start, piece_end)
            start = piece_end

    def close(self) -> None:
        """Nothing is held."""


def _accepts_blosc2(header: str) -> bool:
    for item in header.split(","):
        coding, _, weight = item.partition(";")
        if coding.strip().lower() == "blosc2":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _content_type(path: str) -> str:
    return mimetypes.guess_type(path)[0] or BINARY

"""A whole dataset as the bytes of one file, whether or not all of it is here."""

import contextlib
from collections.abc import Iterator

import numpy as np

from zcat.errors import BadContent
from zcat.services.dataset import OpenDataset
from zcat.storage.frame_template import assemble_cframe, frame_template
from zcat.storage.reading import Buffer


class FrameView:
    """A whole dataset as the bytes of one contiguous cframe, the same for every reader of its version.

    So ranges, resumed downloads and caches in between fit together. `close` it, or drop it, when the views
    that it gave are no longer in use.
    """

    def __init__(self, dataset: OpenDataset) -> None:
        """Find out how long it is.

        Raises:
            NotReadable, Unavailable, Timeout, Stale: as for `OpenDataset.sizes`.
        """
        self._held = contextlib.ExitStack()  # first of all, since it is closed even if the rest of this fails
        info, sizes = dataset.info, dataset.sizes()
        template = frame_template(info.geometry, info.compression, info.attributes)
        self._head, self._tail = assemble_cframe(template, sizes)  # type: ignore[arg-type]
        self._dataset = dataset
        self._sizes = sizes
        self._starts = len(self._head) + np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.nbytes = int(self._starts[-1]) + len(self._tail)
        self.local = dataset.complete
        """All of it is cached: `iter_bytes` never waits for the network, and its views stay good until `close`."""
        if self.local:
            self._held.enter_context(dataset.hold())
            self.local = dataset.complete  # nothing was evicted before we held on

    def close(self) -> None:
        """Let go of the chunks."""
        self._held.close()

    def __del__(self) -> None:
        self.close()

    def iter_bytes(self, start: int = 0, stop: int | None = None) -> Iterator[Buffer]:
        """Give the bytes from ``start`` to ``stop``, fetching as it goes.

        Raises:
            Unavailable, Timeout, Stale: as for `OpenDataset.read`; what was given before stays right.
            BadContent: a chunk has another size than its publisher said.
        """
        stop = self.nbytes if stop is None else min(stop, self.nbytes)
        yield from _cut(self._head, 0, start, stop)
        first, last = np.searchsorted(self._starts, [start, max(start, stop - 1)], "right") - 1
        numbers = np.arange(max(0, first), min(len(self._sizes), last + 1))
        if stop > len(self._head) and len(numbers):
            step = self._dataset.chunks_max
            windows = [numbers[low : low + step] for low in range(0, len(numbers), step)]
            for nchunk, view in self._dataset.views(windows):
                if len(view) != self._sizes[nchunk]:
                    raise BadContent(
                        f"chunk {nchunk} has {len(view)} bytes, its publisher said {self._sizes[nchunk]}"
                    )
                yield from _cut(view, int(self._starts[nchunk]), start, stop)
        yield from _cut(self._tail, int(self._starts[-1]), start, stop)


def _cut(part: Buffer, at: int, start: int, stop: int) -> Iterator[Buffer]:
    low, high = max(start - at, 0), min(stop - at, len(part))
    if low < high:
        yield part if high - low == len(part) else memoryview(part)[low:high]

"""One version of one dataset, open for reading: fetches what is missing, then decodes from the cache.

A read of any size holds a bounded number of chunks: it goes on window by window, and while one window is
decoded the next one is on its way.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from zcat.config import SubscriberConfig
from zcat.errors import BadSelection, NotReadable, Unavailable
from zcat.limits import MIB
from zcat.model.dataset import ArrayGeometry, DatasetInfo, Version
from zcat.model.geometry import byte_pieces, chunks_touched, points_by_chunk
from zcat.model.selection import Indices, Points, Selection
from zcat.protocol.block_plan import PlanLimits
from zcat.protocol.messages import SizesReply
from zcat.services.described import sizes_of
from zcat.services.prefetcher import Prefetcher
from zcat.services.readers import Loose
from zcat.services.window import Plan, Supply, What, Window
from zcat.storage.reading import (
    Buffer,
    ChunkAbsent,
    ChunkSource,
    LooseChunks,
    read_bytes,
    read_points,
    read_selection,
)

T = TypeVar("T")
_Wanted = tuple[Indices, What | None]
"""Chunks of a window, and what is needed of them; None: the chunks themselves."""

_BROUGHT_BYTES = 32 * MIB
"""Of chunks that are brought at a time; the next are on their way meanwhile."""
_ATTEMPTS_MAX = 4
"""Chunks that were there may turn out damaged, or be evicted before they are held: then they are fetched again."""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much a read holds, and how long it waits."""

    window_bytes: int
    """Uncompressed bytes of chunks that are fetched at a time."""
    fetch_timeout_s: float
    """For each window."""
    in_blocks: bool = True
    """Small parts of chunks are fetched in blocks."""
    prefetch_bytes: int = 0
    """Compressed, that are fetched ahead of a reader who goes on in equal steps."""
    decoded_bytes: int = 0
    """Of blocks that are kept decoded, by all reads together."""

    @property
    def plan(self) -> PlanLimits | None:
        """When a chunk is fetched in blocks; None: never."""
        return PlanLimits() if self.in_blocks else None

    @classmethod
    def of(cls, config: SubscriberConfig) -> "ReadLimits":
        """Take them from a subscriber's configuration."""
        return cls(
            config.window_bytes,
            config.fetch_timeout_s,
            config.block_reads,
            config.prefetch_bytes,
            config.decoded_bytes,
        )


class SizeSource(Protocol):
    """Knows how large chunks are that are not here: a ``Subscription``, or what asks one in another process."""

    def sizes(self, path: str, lineage: str, wait_s: float) -> SizesReply:
        """Ask for the compressed sizes of all chunks."""


class OpenDataset:
    """A dataset as it is in one version. Any thread may call; nothing needs to be closed.

    Every method may raise `Stale` when the dataset has changed since: what was read before still belongs to
    one version, and the whole read begins anew on the next (``Subscriber.on_version`` does that).
    """

    def __init__(
        self, supply: Supply, origin: SizeSource, limits: ReadLimits, prefetcher: Prefetcher | None = None
    ) -> None:
        self._prefetcher = prefetcher
        self._supply = supply
        self._target = supply.target
        self._origin = origin
        self._limits = limits

    @property
    def info(self) -> DatasetInfo:
        """All that is known of this version."""
        return self._target.info

    @property
    def version(self) -> Version:
        """What this reads."""
        return self._target.info.version

    @property
    def complete(self) -> bool:
        """All chunks are cached: nothing here waits for the network."""
        return self._target.cached is not None and self._target.cached.complete

    @property
    def chunks_max(self) -> int:
        """Chunks of one window."""
        return max(1, self._limits.window_bytes // max(1, self.info.geometry.chunksize))

    def read(self, what: Selection | Points) -> npt.NDArray[Any]:
        """Read items of an array.

        Args:
            what: a box, or single points, inside the array.

        Returns:
            A new array, C-contiguous, of ``what.shape``, or ``(npoints,)``.

        Raises:
            NotReadable: the dataset is no array.
            Unavailable: chunks are missing and the origin is away. Timeout: it is too slow.
            Stale: the dataset has changed.
        """
        array = self.info.geometry.array
        if array is None:
            raise NotReadable(f"{self.info.entry.path} is no array: its bytes can be read, or downloaded")
        if isinstance(what, Points):
            return self._read_points(array, what)
        chunks = chunks_touched(array, what)
        if self._prefetcher is not None:
            self._prefetcher.saw(self._supply, what)
        if len(chunks) <= self.chunks_max:
            kept = self._supply.kept
            return self._window(chunks, lambda source: read_selection(source, what, kept=kept), what)
        result: npt.NDArray[Any] | None = None
        for place, block in self.parts(what):
            if result is None:
                result = np.empty(what.shape, block.dtype)
            result[place] = block
        assert result is not None
        return result

    def parts(
        self, what: Selection, window_bytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[Any]]]:
        """Read a box of an array part by part; while one is decoded, the next is on its way.

        Args:
            what: inside the array, not empty.
            window_bytes: of the chunks of a part, uncompressed, though never less than one chunk; None for those
                of a window.

        Yields:
            The place of a part in a block of ``what.shape``, and the part, in no order that matters.

        Raises:
            Unavailable, Timeout, Stale: as for `read`.
        """
        array = self.info.geometry.array
        assert array is not None
        chunks_max = self.chunks_max
        if window_bytes is not None:
            chunks_max = max(1, min(chunks_max, window_bytes // max(1, self.info.geometry.chunksize)))
        parts = list(_boxes(array, what, chunks_max))
        windows: list[_Wanted] = [(chunks_touched(array, part), part) for _, part in parts]
        for (place, part), ready in zip(parts, self._pipeline(windows), strict=True):
            yield place, self._decode(ready, functools.partial(read_selection, selection=part))

    def bring(self, chunks: Indices) -> None:
        """Bring chunks into the cache, as long as it has room.

        Raises:
            Unavailable, Timeout, Stale: as for `read`.
        """
        step = max(1, _BROUGHT_BYTES // max(1, self.info.geometry.chunksize))
        windows: list[_Wanted] = [(chunks[low : low + step], None) for low in range(0, len(chunks), step)]
        with contextlib.closing(self._pipeline(windows)) as ready:
            for window in ready:
                if window.wait(self._limits.fetch_timeout_s):
                    return  # no room: whoever reads them will have them sent again

    @property
    def in_blocks(self) -> bool:
        """Chunks that are missing can be fetched in blocks."""
        return self._supply.in_blocks

    def missing_count(self, chunks: Indices) -> int:
        """Say how many of these chunks would have to be fetched."""
        cached = self._target.cached
        return len(cached.missing(chunks)) if cached is not None else len(chunks)

    def read_bytes(self, start: int, stop: int) -> bytearray:
        """Read the content of a byte frame or file from byte ``start`` to ``stop``.

        Raises:
            NotReadable: the dataset is an array.
            BadSelection: not ``0 <= start <= stop <= nbytes``.
            Unavailable, Timeout, Stale: as for `read`.
        """
        geometry = self.info.geometry
        if geometry.array is not None:
            raise NotReadable(f"{self.info.entry.path} is an array: read a selection, or download it")
        if not 0 <= start <= stop <= geometry.nbytes:
            raise BadSelection(f"bytes {start} to {stop}: wanted 0 <= start <= stop <= {geometry.nbytes}")
        span = self.chunks_max * geometry.chunksize
        cuts = [*range(start, stop, span), stop] if stop - start > span else [start, stop]
        if start == stop:
            return bytearray()
        result = bytearray()
        for low, high in itertools.pairwise(cuts):
            numbers = np.array([piece.nchunk for piece in byte_pieces(geometry, low, high)], np.int64)
            part = self._window(numbers, functools.partial(read_bytes, start=low, stop=high))
            if len(cuts) == 2:
                return part
            result += part
        return result

    def chunk(self, nchunk: int) -> bytes:
        """Give one compressed chunk, checked.

        Raises:
            BadSelection: there is no such chunk.
            Unavailable, Timeout, Stale: as for `read`.
        """
        count = self.info.geometry.nchunks
        if not 0 <= nchunk < count:
            raise BadSelection(f"chunk {nchunk} of {self.info.entry.path}: it has {count}, numbered from 0")
        return self._window(np.array([nchunk]), lambda source: bytes(_needed(source, nchunk)))

    def chunks(self, numbers: Indices) -> list[bytes]:
        """Give several compressed chunks, checked, in the order of ``numbers``.

        Raises:
            Unavailable, Timeout, Stale: as for `read`.
        """
        step = self.chunks_max
        windows = [numbers[low : low + step] for low in range(0, len(numbers), step)]
        return [bytes(view) for _, view in self.views(windows, bulk=False)]

    def fetch(self, progress: Callable[[int], None] | None = None) -> None:
        """Bring all chunks into the cache.

        Args:
            progress: called with the number of chunks that are there, after each window.

        Raises:
            Unavailable, Timeout, Stale: as for `read`.
        """
        count = self.info.geometry.nchunks
        windows = [np.arange(low, min(low + self.chunks_max, count)) for low in range(0, count, self.chunks_max)]
        for ready in self._pipeline([(window, None) for window in windows], bulk=True):
            ready.wait(self._limits.fetch_timeout_s)
            if progress is not None:
                progress(int(ready.chunks[-1]) + 1)

    # -- for a view of the whole -------------------------------------------------------------------------

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Hold on to all cached chunks, for who gives views of them away."""
        cached = self._target.cached
        return cached.reading() if cached is not None else contextlib.nullcontext()

    def views(self, windows: Sequence[Indices], bulk: bool = True) -> Iterator[tuple[int, Buffer]]:
        """Give the chunks of ``windows`` one by one; each is good until the next is asked for."""
        for ready in self._pipeline([(window, None) for window in windows], bulk):
            with self._holding(ready.chunks):
                source = self._source(ready.wait(self._limits.fetch_timeout_s))
                for nchunk in ready.chunks.tolist():
                    view = source.chunk(nchunk)
                    yield nchunk, view if view is not None else self.chunk(nchunk)

    def sizes(self) -> npt.NDArray[np.int64]:
        """Give the compressed size of each chunk, in bytes.

        Raises:
            NotReadable: only fetching all of them would tell, and the cache has no room for that.
            BadContent: what the origin says cannot be.
            Unavailable, Timeout, Stale: as for `read`.
        """
        cached, geometry = self._target.cached, self.info.geometry
        if cached is not None and cached.complete:
            return cached.sizes()
        entry = self.info.entry
        try:
            reply = self._origin.sizes(entry.path, entry.lineage, self._limits.fetch_timeout_s)
        except NotReadable:  # a dataset that is converted on demand: only the chunks themselves tell
            self.fetch()
            if cached is None or not cached.complete:
                raise NotReadable(
                    f"{entry.path}: its length as a frame is not known before all of it is cached, and the cache "
                    "has no room for it: raise the quota, or read a part"
                ) from None
            return cached.sizes()
        return sizes_of(reply, entry.path, entry.lineage, geometry)

    # -- inside ------------------------------------------------------------------------------------------

    def _read_points(self, array: ArrayGeometry, points: Points) -> npt.NDArray[Any]:
        groups = [(nchunk, positions) for nchunk, _, positions in points_by_chunk(array, points)]
        chunks = np.array([nchunk for nchunk, _ in groups], np.int64)
        if len(chunks) <= self.chunks_max:
            return self._window(chunks, lambda source: read_points(source, points), points)
        places, windows = [], list[_Wanted]()
        for low in range(0, len(groups), self.chunks_max):
            batch = groups[low : low + self.chunks_max]
            places.append(np.concatenate([positions for _, positions in batch]))
            part = Points(points.coordinates[places[-1]])
            windows.append((np.array([nchunk for nchunk, _ in batch], np.int64), part))
        result: npt.NDArray[Any] | None = None
        for positions, (_, what), ready in zip(places, windows, self._pipeline(windows), strict=True):
            assert isinstance(what, Points)
            values = self._decode(ready, functools.partial(read_points, points=what))
            if result is None:
                result = np.empty(points.size, values.dtype)
            result[positions] = values
        assert result is not None
        return result

    def _window(self, chunks: Indices, decode: Callable[[ChunkSource], T], what: What | None = None) -> T:
        """Decode from chunks that fit one window, fetching what is missing of them."""
        cached = self._target.cached
        if cached is not None:
            with self._holding(chunks):
                try:
                    return decode(cached)  # PERF: when all is there, as it mostly is, nothing else is asked
                except ChunkAbsent as absent:
                    plan = self._supply.plan(absent.chunks, what)
                return self._decode(self._supply.begin(chunks, plan), decode)
        return self._decode(self._supply.begin(chunks, Plan(chunks.tolist())), decode)

    def _decode(self, ready: Window, decode: Callable[[ChunkSource], T]) -> T:
        with self._holding(ready.chunks):
            loose = ready.wait(self._limits.fetch_timeout_s)
            for _ in range(_ATTEMPTS_MAX):
                try:
                    return decode(self._source(loose))
                except ChunkAbsent as absent:
                    again = self._supply.begin(ready.chunks, Plan(list(absent.chunks)))
                    loose = {**loose, **again.wait(self._limits.fetch_timeout_s)}
        raise Unavailable(f"{self.info.entry.path}: chunks vanish from the cache faster than they are fetched")

    def _holding(self, chunks: Indices) -> contextlib.AbstractContextManager[None]:
        cached = self._target.cached
        return cached.reading(chunks) if cached is not None else contextlib.nullcontext()

    def _source(self, loose: Loose) -> ChunkSource:
        cached = self._target.cached
        return cached if cached is not None and not loose else LooseChunks(self.info, loose, cached)

    def _pipeline(self, windows: Sequence[_Wanted], bulk: bool = False) -> Generator[Window, None, None]:
        """Give window after window, the next one already on its way."""
        following: Window | None = None
        for number, wanted in enumerate(windows):
            ready = following or self._begin(wanted, bulk)
            following = self._begin(windows[number + 1], bulk) if number + 1 < len(windows) else None
            try:
                yield ready
            except BaseException:
                if following is not None:
                    following.abandon()
                raise

    def _begin(self, wanted: _Wanted, bulk: bool) -> Window:
        cached, (chunks, what) = self._target.cached, wanted
        missing = cached.missing(chunks) if cached is not None else chunks.tolist()
        return self._supply.begin(chunks, self._supply.plan(missing, what), bulk)


def _needed(source: ChunkSource, nchunk: int) -> Buffer:
    view = source.chunk(nchunk)
    if view is None:
        raise ChunkAbsent(source.info.entry.path, (nchunk,))
    return view


def _boxes(
    array: ArrayGeometry, selection: Selection, chunks_max: int
) -> Iterator[tuple[tuple[slice, ...], Selection]]:
    """Cut a selection along chunk borders into boxes of at most ``chunks_max`` chunks.

    Yields:
        The place of a box in the result, and the box.
    """
    pending = [(tuple(slice(0, len(axis)) for axis in selection.axes), selection)]
    while pending:
        place, box = pending.pop()
        counts = [_columns(axis, chunk) for axis, chunk in zip(box.axes, array.chunks, strict=True)]
        if math.prod(counts) <= chunks_max:
            yield place, box
            continue
        # the first axis that has several chunks: its halves lie one behind the other in the file and in the result
        cut = next(axis for axis, count in enumerate(counts) if count > 1)
        axis, chunk = box.axes[cut], array.chunks[cut]
        border = (int(axis[0]) // chunk + int(axis[-1]) // chunk + 1) // 2 * chunk
        if isinstance(axis, range):
            middle = -(-(border - axis.start) // axis.step)
        else:
            middle = int(np.searchsorted(axis, border))
        low, high = place[cut].start, place[cut].stop
        second, first = (axis[middle:], slice(low + middle, high)), (axis[:middle], slice(low, low + middle))
        for part, span in (second, first):
            axes = (*box.axes[:cut], part, *box.axes[cut + 1 :])
            pending.append(((*place[:cut], span, *place[cut + 1 :]), Selection(axes)))


def _columns(axis: range | Indices, chunk: int) -> int:
    """Count the chunks along one axis that hold something of it, or would if it had no steps."""
    return int(axis[-1]) // chunk - int(axis[0]) // chunk + 1 if len(axis) else 0

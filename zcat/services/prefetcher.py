"""Fetch ahead of readers that go on in equal steps: the shell of ``protocol.prefetch``.

What is predicted is planned as a read of all of it would be, so that many small steps through one chunk bring the
chunk whole, and asked for as a bulk request, to which whatever somebody waits for is preferred.
"""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from zcat.errors import ZcatError
from zcat.model.blocks import blocks_of_piece
from zcat.model.geometry import pieces
from zcat.model.selection import Selection
from zcat.protocol.prefetch import PrefetchLimits, Track, Tracks
from zcat.protocol.transfer import DatasetKey
from zcat.services.window import Needs, Supply, Window
from zcat.services.workers import Workers

DATASETS_MAX = 64
"""Datasets whose reads are remembered."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """One version of an array, and what is fetched ahead in it."""

    tracks: Tracks
    last: Selection | None = None
    """What was read last."""
    windows: dict[Track, list[Window]] = field(default_factory=dict)
    busy: set[Track] = field(default_factory=set)
    """Being extended."""


class Prefetcher:
    """Watches reads, and fetches what comes next. Any thread may call."""

    def __init__(self, limits: PrefetchLimits) -> None:
        """Begin with nothing watched."""
        self._limits = limits
        self._lock = threading.Lock()
        self._watched: OrderedDict[DatasetKey, _Watched] = OrderedDict()
        self._workers = Workers("prefetch", 1)

    def close(self) -> None:
        """Fetch nothing more."""
        self._workers.close()

    def saw(self, supply: Supply, what: Selection) -> None:
        """Take note of a read, and have a thread fetch what will probably be read next."""
        target = supply.target
        array = target.info.geometry.array
        if not self._limits.bytes_ahead or target.cached is None or target.cached.complete or array is None:
            return
        with self._lock:
            watched = self._watched.get(target.key)
            if watched is None:
                watched = self._watched[target.key] = _Watched(Tracks(array.shape, self._limits))
                if len(self._watched) > DATASETS_MAX:
                    _, gone = self._watched.popitem(last=False)
                    _abandon(gone, tuple(gone.windows))
            self._watched.move_to_end(target.key)
            if watched.last is not None and _is_same(watched.last, what):
                return  # PERF: many look at the same; a repetition is no step, and 50 us
            watched.last = what
            advice = watched.tracks.read(what)
            _abandon(watched, advice.given_up)
            track = advice.extend
            if track is None or track in watched.busy:
                return
            ahead = list(watched.tracks.ahead(track))
            if ahead:
                watched.busy.add(track)
                self._workers.do(partial(self._extend, watched, track, supply, ahead))

    def _extend(self, watched: _Watched, track: Track, supply: Supply, ahead: list[Selection]) -> None:
        needs, count = self._needs(supply, ahead)
        under_way = [window for window in watched.windows.get(track, []) if not window.is_done]
        coming = {nchunk for window in under_way for nchunk in window.chunks.tolist()}
        cached = supply.target.cached
        assert cached is not None
        missing = [nchunk for nchunk in cached.missing(sorted(needs)) if nchunk not in coming]
        try:
            plan = supply.plan(missing, needs)
            if not plan.is_empty:
                chunks = np.array([*plan.whole, *(wanted.part.nchunk for wanted in plan.parts)], np.int64)
                under_way.append(supply.begin(chunks, plan, bulk=True))
        except ZcatError as error:  # too much is wanted already, or all is being closed
            log.debug("not fetched ahead path=%s reason=%s", supply.target.key.path, error)
        with self._lock:
            watched.busy.discard(track)
            watched.windows[track] = under_way
            watched.tracks.planned(track, count)
            if track not in watched.tracks:  # it was given up meanwhile
                _abandon(watched, (track,))

    def _needs(self, supply: Supply, ahead: list[Selection]) -> tuple[Needs, int]:
        """Unite what the next reads touch, as many of them as the limit in bytes allows; say how many."""
        array = supply.target.info.geometry.array
        assert array is not None
        needs: Needs = {}
        nbytes = 0.0
        for count, what in enumerate(ahead):
            wider: Needs = {}
            for piece in pieces(array, what):
                blocks, before = blocks_of_piece(array, piece.inside), needs.get(piece.nchunk)
                wider[piece.nchunk] = blocks if before is None else np.union1d(before, blocks)
                nbytes += supply.block_bytes * (len(wider[piece.nchunk]) - (0 if before is None else len(before)))
                if nbytes > self._limits.bytes_ahead:
                    return needs, count
            needs.update(wider)
        return needs, len(ahead)


def _is_same(one: Selection, other: Selection) -> bool:
    return all(isinstance(axis, range) for axis in (*one.axes, *other.axes)) and one.axes == other.axes


def _abandon(watched: _Watched, tracks: tuple[Track, ...]) -> None:
    for track in tracks:
        for window in watched.windows.pop(track, []):
            window.abandon()

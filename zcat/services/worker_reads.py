"""What a worker reads: datasets of a subscriber in another process, through the cache that both have open.

What is cached is read by the thread that wants it, without a word to anybody: the board says whether what was
learnt of a dataset is still so. All else, versions and missing chunks, is asked of the subscriber.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from zcat.errors import BadContent, StorageFailed
from zcat.model.dataset import DatasetInfo
from zcat.net.loop import Loop
from zcat.protocol.block_transfer import WantedPart, batches
from zcat.protocol.codec import unpack_attributes
from zcat.protocol.messages import Sizes, SizesReply
from zcat.protocol.prefetch import PrefetchLimits
from zcat.protocol.transfer import DatasetKey, Origin
from zcat.protocol.worker_messages import Bring, BringParts, Open, Opened, Pass, Passed, Used
from zcat.services.at_hand import DatasetAtHand, NotAtHand
from zcat.services.board import ROOTS_CELL, Board
from zcat.services.dataset import OpenDataset, ReadLimits
from zcat.services.prefetcher import Prefetcher
from zcat.services.readers import Loose, Target
from zcat.services.versions import on_newest
from zcat.services.window import Supply
from zcat.services.worker_asking import Asking, Question
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.decoded_blocks import DecodedBlocks
from zcat.storage.reading import let_threads_run
from zcat.storage.shared_dataset import SharedDataset

T = TypeVar("T")

_KNOWN_MAX = 4096
_TICK_S = 0.5
_IDLE_S = 10.0
"""What nobody read for so long is closed: it may be a file that the cache has dropped."""
_PATIENCE_S = 2.0
"""Of this side, beyond what the subscriber was given: it has the better words for what went wrong."""

_Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Known:
    """A dataset that was asked about."""

    key: DatasetKey
    info: DatasetInfo
    cached: SharedDataset | None
    cell: int
    seen: tuple[int, int]
    """Generations of the roots and of ``cell`` before it was asked; (0, 0) never comes again."""


@dataclass(slots=True)
class _Opened:
    cached: SharedDataset
    key: DatasetKey
    used_s: float


class WorkerReads:
    """Reads datasets for the HTTP threads of one worker. Any thread may call."""

    def __init__(self, endpoint: str, board: Board, limits: ReadLimits) -> None:
        """Prepare.

        Args:
            endpoint: of the subscriber's desk.
            board: shared with it.
            limits: of each read.
        """
        self._board = board
        self._limits = limits
        self._decoded = DecodedBlocks(limits.decoded_bytes)
        self._asking = Asking(endpoint, self._tick, _TICK_S)
        self._lock = threading.Lock()  # of what follows
        self._known: OrderedDict[_Place, _Known] = OrderedDict()
        self._open: dict[str, _Opened] = {}
        self._pause = threading.Event()
        self._prefetcher = Prefetcher(PrefetchLimits(limits.prefetch_bytes))

    def start(self) -> None:
        """Begin."""
        let_threads_run()
        self._asking.start()

    def close(self) -> None:
        """Stop. Who waits gets `Closed`."""
        self._pause.set()
        self._prefetcher.close()
        self._asking.close()

    def on_version(
        self, root: str, path: str, work: Callable[[OpenDataset], T], timeout_s: float | None = None
    ) -> T:
        """Do something with a dataset, all of it on one version; see `Subscriber.on_version`."""
        wait_s = self._limits.fetch_timeout_s if timeout_s is None else timeout_s
        return on_newest(lambda is_fresh: self._dataset((root, path), wait_s, is_fresh), work, wait_s, self._pause)

    def at_hand(self, root: str, path: str, work: Callable[[OpenDataset], T]) -> T:
        """Do something with a dataset if that takes no more than a moment; see `Subscriber.at_hand`."""
        known = self._known.get((root, path))
        if known is None or not self._is_current(known):
            raise NotAtHand
        supply, bringer = self._supply(known)
        return work(DatasetAtHand(supply, bringer, self._limits, self._prefetcher))

    def passed(self, request: Pass) -> Passed:
        """Have the subscriber answer an HTTP request.

        Raises:
            Timeout: it does not.
        """
        answer: Passed = self._asking.ask(request, self._limits.fetch_timeout_s + _PATIENCE_S)
        return answer

    def _dataset(self, place: _Place, wait_s: float, is_fresh: bool) -> OpenDataset:
        known = self._known.get(place)
        if known is None or is_fresh or not self._is_current(known):
            known = self._learn(place, wait_s, is_fresh)
        supply, bringer = self._supply(known)
        return OpenDataset(supply, bringer, self._limits, self._prefetcher)

    def _is_current(self, known: _Known) -> bool:
        return known.seen == (self._board[ROOTS_CELL], self._board[known.cell])

    def _supply(self, known: _Known) -> "tuple[Supply, _Bringer]":
        bringer = _Bringer(self._asking, known)
        if known.cached is not None:
            held = self._open.get(known.cached.folder)
            if held is not None:
                held.used_s = Loop.now_s()
        # a SharedDataset does all that is done to a CachedDataset by those who read it
        target = Target(known.key, known.info, cast(CachedDataset | None, known.cached))
        parts = _PartsBringer(self._asking, known)
        return Supply(target, bringer, parts, self._limits.plan, self._decoded), bringer

    def _learn(self, place: _Place, wait_s: float, is_fresh: bool) -> _Known:
        before = self._board.generations()
        opened: Opened = self._asking.ask(Open(*place, wait_s, is_fresh), wait_s + _PATIENCE_S)
        attributes = unpack_attributes(opened.attributes[0]) if opened.attributes else {}
        info = DatasetInfo(opened.entry, opened.geometry, opened.compression, attributes)
        key = DatasetKey(opened.root, opened.owner, info.entry.path, info.entry.lineage)
        with self._lock:
            cached = self._shared(opened.folder, key, info) if opened.folder is not None else None
            seen = (before[ROOTS_CELL], before[opened.cell]) if opened.lasts and cached else (0, 0)
            known = self._known[place] = _Known(key, info, cached, opened.cell, seen)
            self._known.move_to_end(place)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return known

    def _shared(self, folder: str, key: DatasetKey, info: DatasetInfo) -> SharedDataset | None:
        held = self._open.get(folder)
        if held is not None and held.cached.is_current and held.cached.info == info:
            return held.cached
        try:
            cached = SharedDataset(folder, info)
        except (StorageFailed, BadContent):
            return None  # it was dropped a moment ago; chunks come in messages this time
        self._open[folder] = _Opened(cached, key, Loop.now_s())
        return cached

    def _tick(self) -> None:
        now_s = Loop.now_s()
        with self._lock:
            for folder, held in list(self._open.items()):
                used = held.cached.taken_use()
                if used is not None:
                    key, bits = held.key, np.packbits(used).tobytes()
                    number = held.cached.number
                    self._asking.tell(Used(key.root, key.owner, key.path, key.lineage, number, (bits,)))
                elif now_s > held.used_s + _IDLE_S:
                    del self._open[folder]  # its files are closed with the last reference to it
                    gone = [place for place, known in self._known.items() if known.cached is held.cached]
                    for place in gone:
                        del self._known[place]


class _Bringer:
    """Brings the missing chunks of one dataset, and what else only its origin knows."""

    def __init__(self, asking: Asking, known: _Known) -> None:
        self._asking = asking
        self._known = known

    def begin(self, _target: Target, nchunks: Sequence[int], bulk: bool = False) -> "_Fetch":
        """Have chunks brought into the cache."""
        return _Fetch(self._asking, self._known, nchunks, bulk)

    def sizes(self, path: str, lineage: str, wait_s: float) -> SizesReply:
        """Ask for the compressed sizes of all chunks."""
        key = self._known.key
        reply: SizesReply = self._asking.ask(Sizes(f"{key.root}@{key.owner}", path, lineage), wait_s + _PATIENCE_S)
        return reply


class _Fetch:
    """Chunks that a thread waits for, or will."""

    def __init__(self, asking: Asking, known: _Known, nchunks: Sequence[int], bulk: bool) -> None:
        self._asking = asking
        key, number = known.key, known.cached.number if known.cached is not None else 0
        numbers = np.asarray(nchunks, np.int64).tobytes()
        where = (key.root, key.owner, key.path, key.lineage, number)
        self._question: Question = asking.begin(Bring(*where, bulk=bulk, chunks=(numbers,)))

    def result(self, wait_s: float) -> Loose:
        """Wait until the chunks are in the cache; give those that are not."""
        loose: Loose = self._asking.wait(self._question, wait_s)
        return loose

    @property
    def is_done(self) -> bool:
        """All has come, or nothing will."""
        return self._question.answer.done()

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._asking.abandon(self._question)


class _PartsBringer:
    """Brings parts of chunks of one dataset, in the place of a ``BlockFetcher``."""

    def __init__(self, asking: Asking, known: _Known) -> None:
        self._asking = asking
        self._known = known

    def serves(self, _origin: Origin) -> bool:
        """Say whether blocks may be asked for: if the origin has none, the subscriber says so at once."""
        return self._known.cached is not None

    def begin(self, _target: Target, parts: Sequence[WantedPart], bulk: bool = False) -> "_PartsFetch":
        """Have parts of chunks brought into the cache."""
        return _PartsFetch(self._asking, self._known, parts, bulk)


class _PartsFetch:
    """Parts of chunks that a thread waits for."""

    def __init__(self, asking: Asking, known: _Known, parts: Sequence[WantedPart], bulk: bool) -> None:
        self._asking = asking
        assert known.cached is not None
        key, number = known.key, known.cached.number
        where = (key.root, key.owner, key.path, key.lineage, number)
        self._questions = []
        for batch in batches(parts):
            wanted, sizes = tuple(each.part for each in batch), tuple(each.nbytes for each in batch)
            self._questions.append(asking.begin(BringParts(*where, wanted, sizes, bulk)))

    def result(self, wait_s: float) -> None:
        """Wait until the blocks are in the cache; raises as ``Fetch.result`` does."""
        for question in self._questions:
            self._asking.wait(question, wait_s)

    @property
    def is_done(self) -> bool:
        """All has come, or nothing will."""
        return all(question.answer.done() for question in self._questions)

    def abandon(self) -> None:
        """Nobody waits any more."""
        for question in self._questions:
            self._asking.abandon(question)

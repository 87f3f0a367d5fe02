"""After a rewrite: chunks that are what they were are taken from the former lineage, not fetched again.

A file that is written anew is another lineage, though most of it may be as before. What the cache has of the
former one is compared by the origin, by digest; what is the same is copied here. So a rewrite costs the network
what changed, and a question.
"""

import logging
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from zcat.errors import BadChunk, Closed, StorageFailed, VerbUnknown
from zcat.limits import CHUNKS_PER_REQUEST_MAX
from zcat.protocol.compare_messages import Compare, Compared
from zcat.protocol.wanted import Origin
from zcat.services.readers import Fetch, Target
from zcat.services.workers import LoopWorkers, Outcome
from zcat.storage.cached_dataset import CachedDataset

IN_VAIN_MAX = 64
"""Chunks that were compared, one after the other, and were all others than before."""

log = logging.getLogger(__name__)

Then = Callable[[], None]
"""What is done on the loop's thread when all is adopted that can be."""
_Held = dict[int, bytes]
"""Digests of chunks of the former lineage, by number."""


class Asked(Protocol):
    """Who knows the origins. On the loop's thread."""

    def ask(self, origin: Origin, message: Compare) -> "Future[Any]":
        """Ask an origin; its answer, or why there is none."""


class Adopter:
    """Adopts chunks. On the loop's thread, but for what says otherwise."""

    def __init__(self, workers: LoopWorkers, origins: Asked) -> None:
        """Begin.

        Args:
            workers: read, check and write chunks.
            origins: how to ask them.
        """
        self._workers = workers
        self._origins = origins
        self._without: set[Origin] = set()
        self._waiting: set[Fetch[Any]] = set()
        self._in_vain: weakref.WeakKeyDictionary[CachedDataset, int] = weakref.WeakKeyDictionary()
        self.chunks_count = 0
        self.chunks_bytes = 0

    def begin(self, fetch: Fetch[Any], missing: Sequence[int], then: Then) -> bool:
        """Adopt chunks, and then call ``then``; False, and nothing happens, if there are none to be compared.

        Args:
            fetch: who waits for them; fails if the subscriber is closed meanwhile.
            missing: numbers of the chunks.
            then: has the rest fetched.
        """
        cached = fetch.target.cached
        former = cached.former if cached is not None else None
        if former is None or not missing or fetch.target.key.origin in self._without:
            return False
        self._waiting.add(fetch)
        done = partial(self._done, fetch, then)
        self._workers.do(partial(self._look, fetch, former, missing[:CHUNKS_PER_REQUEST_MAX], done))
        return True

    def close(self) -> None:
        """Fail all who wait; no thread of the workers, nor the loop, is at work any more."""
        for fetch in self._waiting:
            if not fetch.answer.done():
                fetch.answer.set_exception(Closed("the subscriber was closed"))
        self._waiting.clear()

    def moved(self, origin: Origin) -> None:
        """An origin restarted; it may be of another version now."""
        self._without.discard(origin)

    def _look(self, fetch: Fetch[Any], former: CachedDataset, missing: Sequence[int], then: Then) -> Outcome:
        """See what the former lineage has, in a thread."""
        numbers = [nchunk for nchunk in missing if nchunk < former.info.geometry.nchunks]
        held: _Held = {}
        try:
            with former.reading(numbers):
                held = {nchunk: former.digest(nchunk) for nchunk in numbers if former.chunk(nchunk) is not None}
        except (Closed, StorageFailed) as error:
            log.debug("nothing to compare path=%s reason=%s", fetch.target.key.path, error)
        return partial(self._ask, fetch, former, held, then) if held else then

    def _ask(self, fetch: Fetch[Any], former: CachedDataset, held: _Held, then: Then) -> None:
        key = fetch.target.key
        message = Compare(key.root, key.path, key.lineage, tuple(held), (b"".join(held.values()),))
        answer = self._origins.ask(key.origin, message)
        answer.add_done_callback(partial(self._answered, fetch, former, held, then))

    def _answered(
        self, fetch: Fetch[Any], former: CachedDataset, held: _Held, then: Then, answer: "Future[Any]"
    ) -> None:
        error = answer.exception()
        if isinstance(error, Closed):  # or no longer followed
            self._waiting.discard(fetch)
            fetch.answer.set_exception(error)
            return
        if isinstance(error, VerbUnknown):
            self._without.add(fetch.target.key.origin)
        reply = None if error else answer.result()
        if not isinstance(reply, Compared) or reply.lineage != fetch.target.key.lineage:
            then()  # whoever fetches the chunks hears why, if that is no better
            return
        same = {nchunk: held[nchunk] for nchunk in reply.same if nchunk in held}
        self._count_in_vain(fetch.target, 0 if same else len(held))
        self._workers.do(partial(self._adopt, fetch.target, former, same, then))

    def _count_in_vain(self, target: Target, count: int) -> None:
        """Ask no more if nothing seems to be as before: each question has the origin read what it is about."""
        assert target.cached is not None
        self._in_vain[target.cached] = self._in_vain.get(target.cached, 0) + count if count else 0
        if self._in_vain[target.cached] >= IN_VAIN_MAX:
            target.cached.former = None

    def _adopt(self, target: Target, former: CachedDataset, same: _Held, then: Then) -> Outcome:
        """Copy chunks, in a thread; whatever becomes of that, the rest is fetched."""
        adopted = nbytes = 0
        try:
            for nchunk, digest in same.items():
                with former.reading([nchunk]):
                    view = former.chunk(nchunk)
                    if view is not None and target.cached is not None:
                        target.cached.store(nchunk, view, digest)
                        adopted, nbytes = adopted + 1, nbytes + len(view)
        except (BadChunk, Closed, StorageFailed) as error:
            log.debug("not adopted path=%s reason=%s", target.key.path, error)
        except Exception:  # the top of this thread; who waits would wait until the end
            log.exception("bug in=adopt")
        return partial(self._adopted, adopted, nbytes, then)

    def _done(self, fetch: Fetch[Any], then: Then) -> None:
        self._waiting.discard(fetch)
        then()

    def _adopted(self, count: int, nbytes: int, then: Then) -> None:
        self.chunks_count += count
        self.chunks_bytes += nbytes
        then()

"""A subscriber that gives chunks of its cache to others: whole ones, as they came from their origin.

Nobody has to believe it: readers know the digest from the origin. What is not here is refused at once, so that
they ask elsewhere.
"""

import contextlib
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zcat import __version__
from zcat.config import SubscriberConfig
from zcat.errors import Unavailable, VerbUnknown
from zcat.net.loop import Loop
from zcat.net.sockets import SocketFactory, endpoint_of, exposure
from zcat.protocol.messages import ChunkReply, Chunks, Message, Pong
from zcat.protocol.serving import ServingLimits
from zcat.services.advertised import advertised, listening
from zcat.services.broker_sources import found_at
from zcat.services.request_server import RequestServer
from zcat.services.status import Teller
from zcat.services.workers import Workers
from zcat.storage.cached_dataset import CachedDataset

Find = Callable[[str, str, str], CachedDataset | None]
"""Gives what is cached of a root, path and lineage. Called by any thread."""

_WORKING_MAX = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GivenCounters:
    """What others got from here, as of now."""

    chunks: int = 0
    nbytes: int = 0
    failures: int = 0
    """Chunks that were asked for and are not here, or no more."""


class Sharing:
    """Answers requests for chunks from the cache. Made before the loop is started; `close` it after the loop."""

    def __init__(self, loop: Loop, sockets: SocketFactory, config: SubscriberConfig, owner: str) -> None:
        """Bind.

        Raises:
            AddressInUse: the endpoint cannot be bound.
            BadName: it, or the host that is to be advertised, is none.
        """
        self.find: Find = lambda root, path, lineage: None
        self._owner = owner
        router = sockets.router(listening(config.share_listen, config.interface))
        bound = endpoint_of(router)
        warning = exposure(bound)
        if warning:
            log.warning("%s", warning)
        self.endpoint = advertised(bound, config.share_advertise, found_at(config.brokers))
        """Where others are sent to."""
        self._workers = Workers("share", 1)
        limits = ServingLimits(
            peer_bytes_max=config.share_bytes,
            total_bytes_max=config.share_bytes,
            rate_bytes_s=config.share_rate_bytes,
            working_max=_WORKING_MAX,
        )
        self._server = server = RequestServer(loop, router, self, self._workers, limits)
        teller = Teller("subscriber", owner, lambda: 1, server.waiting, {}, loop.now_s())
        server.on_status = teller.answer

    @property
    def counters(self) -> GivenCounters:
        """As of now. Any thread may ask."""
        counters = self._server.counters
        return GivenCounters(counters.chunks, counters.chunks_bytes, counters.failures)

    def close(self) -> None:
        """End the threads."""
        self._workers.close()

    # -- what the request server asks --------------------------------------------------------------------

    def pong(self) -> Pong:
        """Say who answers."""
        return Pong("subscriber", self._owner, 1, 0, __version__)

    def admit(self, message: Message) -> None:
        """Refuse all but requests for chunks.

        Raises:
            VerbUnknown: it is another one.
        """
        if not isinstance(message, Chunks):
            raise VerbUnknown(f"a subscriber does not answer {message.verb!r}")

    def at_hand(self, message: Message) -> Message | None:
        """Nothing is."""
        return None

    def read(self, message: Message, nchunk: int | None) -> Message:
        """Give a chunk that is here, and right. Called by a worker.

        Raises:
            Unavailable: it is not here.
        """
        assert isinstance(message, Chunks)
        assert nchunk is not None
        cached = self.find(message.root, message.path, message.lineage)
        if cached is not None and 0 <= nchunk < cached.info.geometry.nchunks:
            data = _held(cached, nchunk)
            if data is not None:
                return ChunkReply(message.lineage, nchunk, cached.digest(nchunk), (data,))
        raise Unavailable(f"chunk {nchunk} is not in this cache")


def _held(cached: CachedDataset, nchunk: int) -> memoryview | None:
    """Give the bytes of a chunk, which are not evicted as long as anybody, such as ZeroMQ, has a view of them."""
    with contextlib.ExitStack() as held:
        held.enter_context(cached.reading([nchunk]))
        view = cached.chunk(nchunk)
        if view is None:
            return None
        array = np.frombuffer(view, np.uint8)
        release = weakref.finalize(array, held.pop_all().close)
        release.atexit = False
        return array.data

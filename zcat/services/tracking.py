"""A publisher that sends readers to one another: the shell of ``protocol.tracker``, beside a `RequestServer`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from zcat.net.loop import Loop, Timer
from zcat.protocol.messages import ChunkReply, Chunks, Failed, Message
from zcat.protocol.swarm_messages import Have, HeldChunk
from zcat.protocol.tracker import Effect, Refer, Tracker
from zcat.services.request_server import RequestServer


@dataclass(frozen=True, slots=True)
class SwarmCounters:
    """What a publisher spared itself, as of now."""

    sharers: int
    """Subscribers that give to others what they hold, and are here."""
    served: int
    """Chunks given by the publisher itself, to those who would have taken another's."""
    referred: int
    """Chunks for which it sent them to a holder."""
    waiting: int
    """Chunks that wait for a holder."""


class Tracking:
    """Decides on requests for chunks before they are queued. Lives on the loop's thread."""

    def __init__(self, root: str, loop: Loop, server: RequestServer) -> None:
        """Take part in what ``server`` answers from now on.

        Args:
            root: the one that is served.
            loop: whose thread this lives on.
            server: of the same loop.
        """
        self._root = root
        self._loop = loop
        self._server = server
        self._tracker = Tracker(random.random)
        self._timer: Timer | None = None
        server.tracking = self

    @property
    def counters(self) -> SwarmCounters:
        """As of now. Any thread may ask."""
        tracker = self._tracker
        sharers = tracker.sharers.count_usable(self._loop.now_s())
        return SwarmCounters(sharers, tracker.counters.served, tracker.counters.referred, tracker.waiting_count)

    def heard(self, peer: bytes) -> None:
        """Somebody gave a sign of life."""
        self._tracker.heard(peer, self._loop.now_s())

    def have(self, peer: bytes, message: Have) -> None:
        """Somebody says what it holds."""
        if message.root == self._root:
            self._carry_out(self._tracker.have(peer, message, self._loop.now_s()))

    def asked(self, peer: bytes, request: int, message: Chunks) -> None:
        """Take a request for chunks; it is answered in parts, some of them later."""
        self._carry_out(self._tracker.asked(peer, request, message, self._loop.now_s()))

    def answered(self, peer: bytes, message: Chunks, nchunk: int, answer: Message) -> None:
        """A chunk was read, or could not be."""
        place = message.path, message.lineage
        if isinstance(answer, ChunkReply):
            held = HeldChunk(nchunk, answer.digest, len(answer.data[0]))
            self._tracker.served(peer, place, held, self._loop.now_s())
        elif isinstance(answer, Failed):
            self._carry_out(self._tracker.unserved(peer, place, nchunk))

    def gone(self, peer: bytes) -> None:
        """Somebody is not connected any more."""
        self._tracker.gone(peer)

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Refer):
                self._server.say(effect.asker, effect.message, effect.request)
            else:
                (path, lineage), chunks = effect.content, effect.chunks
                message = Chunks(self._root, path, lineage, chunks, effect.bulk)
                self._server.submit(effect.asker, message, effect.request)
        if self._timer is None and self._tracker.is_busy:
            self._timer = self._loop.call_at(self._tracker.next_tick_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._carry_out(self._tracker.tick(self._loop.now_s()))

"""What a reader tells the publishers that keep track: which chunks it holds by now, and who failed it."""

from dataclasses import dataclass, field

from zcat.limits import CHUNKS_PER_REQUEST_MAX, HOLDERS_MAX, MIB
from zcat.names import is_local_endpoint
from zcat.protocol.messages import Chunks
from zcat.protocol.swarm_messages import Have
from zcat.protocol.wanted import DatasetKey, Origin

TELL_BYTES = MIB // 2
"""So much is stored before a publisher is told of it, unless time goes by or nothing more is asked for."""


@dataclass(slots=True)
class _Track:
    """A publisher that keeps track."""

    peer: str | None
    is_near: bool
    held: dict[DatasetKey, list[int]] = field(default_factory=dict)
    count: int = 0
    nbytes: int = 0
    failed: dict[str, None] = field(default_factory=dict)


class Gains:
    """Collects it for each origin."""

    def __init__(self) -> None:
        self._tracks: dict[Origin, _Track] = {}

    def track(self, origin: Origin, peer: str | None, is_near: bool) -> None:
        """An origin keeps track, and is told that chunks are given to others at ``peer`` (None: nowhere).

        An origin that ``is_near`` is on this host.
        """
        track = self._tracks.setdefault(origin, _Track(peer, is_near))
        track.peer, track.is_near = peer, is_near

    def untrack(self, origin: Origin) -> None:
        """An origin does not keep track, or is not there."""
        self._tracks.pop(origin, None)

    def is_tracking(self, origin: Origin) -> bool:
        """Say whether an origin keeps track."""
        return origin in self._tracks

    def may_name(self, origin: Origin, endpoint: str) -> bool:
        """Say whether an endpoint that an origin names can mean there what it means here."""
        track = self._tracks.get(origin)
        return not is_local_endpoint(endpoint) or (track is not None and track.is_near)

    def request(self, message: Chunks, origin: Origin, may_refer: bool) -> Chunks:
        """Give a request to an origin as it should be sent."""
        track = self._tracks.get(origin)
        if track is None:
            return message
        plain = message.root, message.path, message.lineage, message.chunks, message.bulk
        return Chunks(*plain, holders=may_refer, peer=track.peer)

    def gained(self, dataset: DatasetKey, nchunk: int, nbytes: int) -> None:
        """A chunk is in the cache."""
        track = self._tracks.get(dataset.origin)
        if track is not None:
            track.held.setdefault(dataset, []).append(nchunk)
            track.count += 1
            track.nbytes += nbytes

    def failed(self, origin: Origin, endpoint: str) -> None:
        """A peer did not give what the origin said that it holds."""
        track = self._tracks.get(origin)
        if track is not None and len(track.failed) < HOLDERS_MAX:
            track.failed[endpoint] = None

    def due(self, origin: Origin, is_time: bool) -> list[Have]:
        """Give what is to be told now.

        Args:
            origin: to whom.
            is_time: whether there is reason not to wait for more.
        """
        track = self._tracks.get(origin)
        if track is None or (not track.held and not track.failed):
            return []
        if not is_time and track.nbytes < TELL_BYTES and track.count < CHUNKS_PER_REQUEST_MAX:
            return []
        messages: list[Have] = []
        for dataset, numbers in track.held.items():
            for low in range(0, len(numbers), CHUNKS_PER_REQUEST_MAX):
                part = tuple(numbers[low : low + CHUNKS_PER_REQUEST_MAX])
                failed = tuple(track.failed) if not messages else ()
                messages.append(Have(dataset.root, dataset.path, dataset.lineage, part, track.peer, failed))
        if not messages:
            messages.append(Have(origin[0], "", "", (), track.peer, tuple(track.failed)))
        track.held, track.count, track.nbytes, track.failed = {}, 0, 0, {}
        return messages

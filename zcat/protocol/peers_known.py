"""What a reader thinks of those whom it asks: how long they take, who is to be avoided, who lied."""

from collections import deque
from dataclasses import dataclass

from zcat.protocol.wanted import Origin

SAMPLES_MAX = 32


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """How patient a reader is with other readers."""

    late_min_s: float = 0.25
    """No answer is called late before that, however quick its peer is."""
    late_first_s: float = 0.5
    """The same of a peer of which nothing is known, while nothing is known of any."""
    lost_min_s: float = 2.0
    """Without an answer for so long, at least, and for four times as long as would be late, none is expected."""
    avoided_first_s: float = 2.0
    """After an answer that did not come; doubled each further time in a row."""
    avoided_max_s: float = 300.0
    peers_max: int = 4096
    """Remembered; those beyond take the place of the oldest."""


class AnswerTimes:
    """How long the last few answers took."""

    def __init__(self) -> None:
        self._took_s: deque[float] = deque(maxlen=SAMPLES_MAX)
        self.p95_s: float | None = None
        """None while there is none."""

    def take(self, took_s: float) -> None:
        """Take one more."""
        self._took_s.append(took_s)
        ordered = sorted(self._took_s)
        self.p95_s = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]


@dataclass(slots=True)
class _Known:
    times: AnswerTimes
    failures: int = 0
    avoided_until_s: float = float("-inf")


class PeersKnown:
    """Endpoints of other readers. What they hold is not known here: their publisher says that, chunk by chunk."""

    def __init__(self, limits: PeerLimits | None = None) -> None:
        self._limits = limits or PeerLimits()
        self._known: dict[str, _Known] = {}
        self._liars: dict[tuple[Origin, str], None] = {}
        self._all = AnswerTimes()

    @property
    def liars_count(self) -> int:
        """Peers that sent something wrong, counted for each root."""
        return len(self._liars)

    def is_usable(self, origin: Origin, endpoint: str, now_s: float) -> bool:
        """Say whether to ask a peer for chunks of a root."""
        known = self._known.get(endpoint)
        return (origin, endpoint) not in self._liars and (known is None or now_s >= known.avoided_until_s)

    def late_after_s(self, endpoint: str) -> float:
        """Say after how long without an answer another one should be asked."""
        known = self._known.get(endpoint)
        if known is not None and known.times.p95_s is not None:
            return self.late_s(known.times)
        return max(self._limits.late_first_s, 2 * (self._all.p95_s or 0.0))

    def lost_after_s(self, endpoint: str) -> float:
        """Say after how long an answer is not expected any more."""
        return max(self._limits.lost_min_s, 4 * self.late_after_s(endpoint))

    def late_s(self, times: AnswerTimes) -> float:
        """Say the same of one who answered in these times so far."""
        if times.p95_s is None:
            return self._limits.late_first_s
        return max(self._limits.late_min_s, times.p95_s)

    def answered(self, endpoint: str, took_s: float) -> None:
        """A chunk came that is right."""
        known = self._get(endpoint)
        known.times.take(took_s)
        self._all.take(took_s)
        known.failures, known.avoided_until_s = 0, float("-inf")

    def late(self, endpoint: str, now_s: float) -> None:
        """A chunk takes long: ask others for as long again, unless it comes."""
        known = self._get(endpoint)
        known.avoided_until_s = max(known.avoided_until_s, now_s + self.late_after_s(endpoint))

    def failed(self, endpoint: str, now_s: float) -> None:
        """A chunk did not come: ask others for a while."""
        known, limits = self._get(endpoint), self._limits
        wait_s = min(limits.avoided_max_s, limits.avoided_first_s * 2.0 ** min(known.failures, 20))
        known.failures += 1
        known.avoided_until_s = now_s + wait_s

    def lied(self, origin: Origin, endpoint: str) -> None:
        """Something came that is not what the origin's digest says: never again for this root."""
        if len(self._liars) >= self._limits.peers_max:
            del self._liars[next(iter(self._liars))]
        self._liars[origin, endpoint] = None

    def _get(self, endpoint: str) -> _Known:
        known = self._known.get(endpoint)
        if known is None:
            if len(self._known) >= self._limits.peers_max:
                del self._known[next(iter(self._known))]
            known = self._known[endpoint] = _Known(AnswerTimes())
        return known

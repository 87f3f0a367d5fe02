"""Machine: which broker of a list a subscriber uses.

The Freelance pattern of the ZeroMQ guide: ask all, use the first that answers, ask that one all the time,
and move on when it is silent. The ping is answered by the broker's work loop, so it shows that this works; that a
connection stands shows nothing, since ZeroMQ and the kernel keep it up when the broker hangs.
"""

from dataclasses import dataclass

from zcat.protocol.brokers import Random, SendTo, backoff_s
from zcat.protocol.messages import Ping, Pong


@dataclass(frozen=True, slots=True)
class Use:
    """Effect: this broker is the one now; connect to what its answer names. Also when it came back as another."""

    broker: int
    pong: Pong


@dataclass(frozen=True, slots=True)
class Lost:
    """Effect: the broker in use is silent; no other is in use yet."""

    broker: int


Effect = SendTo | Use | Lost


@dataclass(frozen=True, slots=True)
class ChoiceTimes:
    """The patience of a broker choice."""

    ping_s: float = 1.0
    silent_s: float = 3.0
    """A ping that was not answered for so long ends the use of a broker."""
    search_first_s: float = 0.5
    """Between asking all the first time and the second; doubled from then on."""
    search_max_s: float = 2.0


class BrokerChoice:
    """The broker in use, if any."""

    def __init__(self, brokers_count: int, now_s: float, random: Random, times: ChoiceTimes | None = None) -> None:
        """Begin with none in use; the first `tick` asks all.

        Args:
            brokers_count: brokers that there are at the start, numbered from 0 as in the effects.
            now_s: the time.
            random: for the jitter.
            times: the defaults if None.
        """
        self.in_use: int | None = None
        self._brokers = list(range(brokers_count))
        self._random = random
        self._times = times or ChoiceTimes()
        self._next_at_s = now_s
        self._searches = 0
        self._unanswered_since_s: float | None = None
        self._pong: Pong | None = None

    def add(self, broker: int) -> list[Effect]:
        """Take another broker; ask it, if none is in use."""
        self._brokers.append(broker)
        return [SendTo(broker, Ping())] if self.in_use is None else []

    def drop(self, broker: int, now_s: float) -> list[Effect]:
        """Forget a broker."""
        self._brokers.remove(broker)
        if broker != self.in_use:
            return []
        self.in_use = self._unanswered_since_s = self._pong = None
        return [Lost(broker), *self._search(now_s)]

    def answered(self, broker: int, pong: Pong, now_s: float) -> list[Effect]:
        """Take an answer: the first one of a search decides."""
        if self.in_use is None:
            self.in_use, self._searches = broker, 0
            self._next_at_s = now_s + self._pause_s()
        elif broker != self.in_use:
            return []
        self._unanswered_since_s = None
        former, self._pong = self._pong, pong
        if former is not None and _place(former) == _place(pong):
            return []
        return [Use(broker, pong)]

    def tick(self, now_s: float) -> list[Effect]:
        """Ping the broker in use, give it up, or ask all."""
        late_s = now_s - self._next_at_s
        if late_s < 0:
            return []
        if self.in_use is None:
            return self._search(now_s)
        since_s = self._unanswered_since_s
        if since_s is None or late_s > self._times.ping_s:
            # When we were asleep ourselves, the answer may be waiting unread: begin to count now
            self._unanswered_since_s = now_s
        elif now_s >= since_s + self._times.silent_s:
            lost = Lost(self.in_use)
            self.in_use = self._unanswered_since_s = self._pong = None
            return [lost, *self._search(now_s)]
        self._next_at_s = now_s + self._pause_s()
        return [SendTo(self.in_use, Ping())]

    def next_deadline_s(self) -> float:
        """When `tick` wants to be called."""
        return self._next_at_s

    def _pause_s(self) -> float:
        # without the random part, all who were started together would notice a loss, and look for another, in step
        return self._times.ping_s * (1 - self._random() / 4)

    def _search(self, now_s: float) -> list[Effect]:
        times = self._times
        self._searches += 1
        self._next_at_s = now_s + backoff_s(self._searches, times.search_first_s, times.search_max_s, self._random)
        return [SendTo(broker, Ping()) for broker in self._brokers]


def _place(pong: Pong) -> tuple[str, int, str | None, str | None]:
    """What makes an answer that of the same broker in the same life."""
    return pong.owner, pong.incarnation, pong.ingress, pong.egress

"""Whom a tracker counts on: who was sent to which holder, and how long that takes."""

from collections import OrderedDict
from dataclasses import dataclass

from zcat.protocol.sharers import Sharer
from zcat.protocol.tracked import Content

Sent = tuple[bytes, Content, int]
"""An asker and a chunk."""


class Average:
    """A running mean of how long something takes."""

    def __init__(self, value: float) -> None:
        self.value = value

    def take(self, value: float) -> None:
        """Take one more sample."""
        self.value += (value - self.value) / 16


@dataclass(frozen=True, slots=True)
class _Referral:
    source: Sharer
    nbytes: int
    at_s: float


class Referrals:
    """Those that are open: the asker has not said yet that it has the chunk. Bounded; the oldest go first."""

    def __init__(self, count_max: int, patience_s: float) -> None:
        """Begin with none.

        Args:
            count_max: open ones.
            patience_s: how long one stays open, at least; four times as long as they take on average.
        """
        self._count_max = count_max
        self._patience_s = patience_s
        self._open: OrderedDict[Sent, _Referral] = OrderedDict()
        self._took_s = Average(1.0)

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, sent: Sent, source: Sharer, nbytes: int, now_s: float) -> None:
        """An asker is sent to ``source``, who is counted on for ``nbytes`` from now on."""
        self.drop(sent)
        while len(self._open) >= self._count_max:
            self.drop(next(iter(self._open)))
        source.load_bytes += nbytes
        self._open[sent] = _Referral(source, nbytes, now_s)

    def done(self, sent: Sent, now_s: float) -> Sharer | None:
        """The asker has it; give whom it was sent to."""
        referral = self._open.get(sent)
        if referral is not None:
            self._took_s.take(now_s - referral.at_s)
        return self.drop(sent)

    def drop(self, sent: Sent) -> Sharer | None:
        """The asker asks anew, or too much time has gone by; give whom it was sent to."""
        referral = self._open.pop(sent, None)
        if referral is None:
            return None
        referral.source.load_bytes -= referral.nbytes
        return referral.source

    def expire(self, now_s: float) -> None:
        """Drop those that take too long."""
        patience_s = max(self._patience_s, 4 * self._took_s.value)
        while self._open:
            sent, referral = next(iter(self._open.items()))
            if now_s - referral.at_s <= patience_s:
                return
            self.drop(sent)

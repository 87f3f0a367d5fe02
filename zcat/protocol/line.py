"""One origin, as a reader sees it: what waits to be asked of it, and what it, and the peers that it named, owe."""

from collections import deque
from collections.abc import Iterable, Mapping

from zcat.limits import CHUNKS_PER_REQUEST_MAX
from zcat.protocol.brokers import Random
from zcat.protocol.peers_known import AnswerTimes
from zcat.protocol.wanted import Wanted, WantedChunk


class Line:
    """Queues and credit of one origin."""

    def __init__(self, now_s: float) -> None:
        self.urgent: deque[Wanted] = deque()
        self.bulk: deque[Wanted] = deque()
        self.owed: dict[Wanted, None] = {}
        self.owed_bytes = 0
        self.progress_at_s = now_s
        self.held_until_s = 0.0
        self._gaps = AnswerTimes()  # between two answers
        self.is_shared = False
        """The origin named holders, or had something wait for one."""
        self.times = AnswerTimes()
        """Until the origin answered what somebody waits for."""
        self._second: dict[Wanted, int] = {}  # asked for a second time while the first may still come

    def progressed(self, now_s: float) -> None:
        """The origin answered something."""
        self._gaps.take(now_s - self.progress_at_s)
        self.progress_at_s = now_s

    def patience_s(self, least_s: float) -> float:
        """Say for how long the origin may be silent: longer, if many share its link and each has to wait."""
        return max(least_s, 4 * (self._gaps.p95_s or 0.0))

    def enqueue(self, key: Wanted, bulk: bool) -> None:
        """Put a chunk at the end of a queue."""
        (self.bulk if bulk else self.urgent).append(key)

    def put_back(self, key: Wanted, bulk: bool) -> None:
        """Put a chunk at the head of a queue."""
        (self.bulk if bulk else self.urgent).appendleft(key)

    def owe(self, key: Wanted, nbytes: int) -> None:
        """Note that a chunk is asked for, of whomever."""
        if key not in self.owed:
            self.owed[key] = None
            self.owed_bytes += nbytes

    def release(self, key: Wanted, nbytes: int) -> None:
        """Note that a chunk is owed no more."""
        self._second.pop(key, None)
        if key in self.owed:
            del self.owed[key]
            self.owed_bytes -= nbytes

    def ask_twice(self, key: Wanted, nbytes: int, bytes_max: int) -> bool:
        """Note that a chunk is asked for a second time; False if it was already, or too much is."""
        if key in self._second or (self._second and sum(self._second.values()) + nbytes > bytes_max):
            return False
        self._second[key] = nbytes
        return True

    def next_batch(self, chunks: Mapping[Wanted, WantedChunk], credit_bytes: int, is_begun: bool) -> list[Wanted]:
        """Take queued chunks of one dataset, as many as the credit allows.

        It waits until whole batches fit: with small chunks, a request for each one that is stored would cost more
        than the chunk. Where chunks may have to wait for a holder, copies leave a quarter of the credit alone, so
        that what somebody waits for can go on meanwhile.

        Args:
            chunks: all that are wanted.
            credit_bytes: that may be owed.
            is_begun: a request leaves now in any case, so that a small one may follow.
        """
        batch: dict[Wanted, None] = {}
        quarter = credit_bytes // 4
        for queue in (self.urgent, self.bulk):
            most_bytes = credit_bytes - (quarter if self.is_shared and queue is self.bulk else 0)
            may_be_small = is_begun or bool(batch) or (self.is_shared and queue is self.urgent)
            if self.owed and not may_be_small and most_bytes - self.owed_bytes < quarter:
                continue
            taken_bytes = self.owed_bytes + sum(chunks[key].nbytes for key in batch if key not in self.owed)
            while queue and len(batch) < CHUNKS_PER_REQUEST_MAX:
                key = queue[0]
                chunk = chunks.get(key)
                if chunk is None or not chunk.is_queued or key in batch:
                    queue.popleft()  # cancelled, or asked for from the other queue
                    continue
                first = next(iter(batch), key)
                if first[0] != key[0] or chunks[first].is_direct != chunk.is_direct:
                    return list(batch)
                new_bytes = 0 if key in self.owed else chunk.nbytes
                if taken_bytes + new_bytes > most_bytes and new_bytes and (self.owed or batch):
                    break
                queue.popleft()
                batch[key] = None
                taken_bytes += new_bytes
            if queue:
                break  # what somebody waits for does not fit: copies do not go before it
        return list(batch)


def in_order(wanted: Iterable[Wanted], random: Random | None) -> list[Wanted]:
    """Give chunks in the order in which to ask for them: ascending, or one of this reader's own.

    If all readers asked in the same order, they would all want the same chunk at once, of the few who have it.
    """
    keys = sorted(wanted, key=lambda key: key[1])
    if random is not None:
        for last in range(len(keys) - 1, 0, -1):
            other = int(random() * (last + 1))
            keys[last], keys[other] = keys[other], keys[last]
    return keys

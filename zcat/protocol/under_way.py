"""All chunks that a reader waits for: where each one stands, and how it goes from one place to the other."""

from zcat.protocol.asking import AskChunks
from zcat.protocol.line import Line
from zcat.protocol.wanted import DatasetKey, Origin, Request, Requests, Wanted, WantedChunk


class UnderWay:
    """Chunks, by what they are; the lines of their origins; and the requests that they are owed on."""

    def __init__(self) -> None:
        self.chunks: dict[Wanted, WantedChunk] = {}
        self.lines: dict[Origin, Line] = {}
        self.requests = Requests()

    def send(self, ask: AskChunks, dataset: DatasetKey, now_s: float) -> AskChunks:
        """Note that chunks are owed by whom they are asked of; give ``ask`` back."""
        line, numbers = self.lines[ask.origin], ask.message.chunks
        may_refer, bulk = ask.message.holders, ask.message.bulk
        request = Request(dataset, ask.peer, set(numbers), now_s, now_s, may_refer, bulk)
        self.requests.begin(ask.request, request)
        for nchunk in numbers:
            key = dataset, nchunk
            chunk = self.chunks[key]
            chunk.is_queued = False
            chunk.requests.add(ask.request)
            line.owe(key, chunk.nbytes)
        return ask

    def settle(self, key: Wanted) -> list[int]:
        """Forget a chunk; give the tickets that waited for it."""
        chunk = self.chunks.pop(key, None)
        if chunk is None:
            return []
        for number in chunk.requests:
            self.requests.settle(number, key[1])
        self._release(key, chunk)
        return sorted(chunk.tickets)

    def requeue(self, line: Line, key: Wanted) -> None:
        """Put a chunk at the head of its origin's queue; what it is owed on besides may still come."""
        chunk = self.chunks.get(key)
        if chunk is None:
            return
        if not chunk.tickets and not chunk.requests:
            self.settle(key)
            return
        if not chunk.requests:
            self._release(key, chunk)
        chunk.is_queued, chunk.is_here = True, False
        line.put_back(key, chunk.bulk)

    def forget_requests(self, key: Wanted) -> None:
        """Expect a chunk no more of its origin."""
        chunk = self.chunks[key]
        for number in [number for number in chunk.requests if self._is_of_origin(number)]:
            chunk.requests.discard(number)
            self.requests.settle(number, key[1])

    def asked_of_origin(self, line: Line) -> list[Wanted]:
        """Give the chunks that the origin itself owes; not those that came and are being stored."""
        return [key for key in line.owed if any(self._is_of_origin(id) for id in self.chunks[key].requests)]

    def _is_of_origin(self, number: int) -> bool:
        held = self.requests.get(number)
        return held is not None and held.peer is None

    def _release(self, key: Wanted, chunk: WantedChunk) -> None:
        line = self.lines.get(key[0].origin)
        if line is not None:
            line.release(key, chunk.nbytes)

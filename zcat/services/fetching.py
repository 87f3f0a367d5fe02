"""All that is on its way into the cache, whole chunks and parts, behind one door for the loop's thread."""

from zcat.errors import ZcatError
from zcat.protocol.block_messages import BlocksReply
from zcat.protocol.messages import ChunkReply, Failed
from zcat.protocol.swarm_messages import Holders
from zcat.protocol.wanted import Origin
from zcat.services.block_fetcher import BlockFetcher
from zcat.services.fetcher import Fetcher


class Fetching:
    """The fetchers of one subscriber; see there."""

    def __init__(self, whole: Fetcher, blocks: BlockFetcher) -> None:
        self.whole = whole
        self.blocks = blocks

    def arrived(self, origin: Origin, id: int, reply: ChunkReply | BlocksReply) -> None:
        """Take what an origin sent; a whole chunk may answer a request for a part of it."""
        if isinstance(reply, BlocksReply) or self.blocks.is_owed(origin, id):
            self.blocks.arrived(origin, id, reply)
        else:
            self.whole.arrived(origin, id, reply)

    def referred(self, origin: Origin, id: int, message: Holders) -> None:
        """Take an origin's word of who holds chunks."""
        self.whole.referred(origin, id, message)

    def track(self, origin: Origin, is_tracking: bool, peer: str | None, is_near: bool) -> None:
        """Learn whether an origin names holders; see `Transfer.track`."""
        self.whole.track(origin, is_tracking, peer, is_near)

    def failed(self, origin: Origin, id: int, failure: Failed) -> bool:
        """Take an origin's refusal; False if it is none of ours."""
        return self.blocks.failed(origin, id, failure) or self.whole.failed(origin, id, failure)

    def away(self, origin: Origin, error: ZcatError) -> None:
        """Fail all who wait for an origin that cannot be reached."""
        self.whole.away(origin, error)
        self.blocks.away(origin, error)

    def moved(self, origin: Origin) -> None:
        """The origin restarted or has another address."""
        self.whole.moved(origin)
        self.blocks.moved(origin)

    def tick(self, now_s: float) -> None:
        """Ask again for what is overdue."""
        self.whole.tick(now_s)
        self.blocks.tick(now_s)

    def close(self) -> None:
        """Fail all readers. The loop has stopped, or stops after this."""
        self.whole.close()
        self.blocks.close()

    def counters(self) -> dict[str, int]:
        """Give what came since the start, and what is owed."""
        return {
            "chunks": self.whole.chunks_count,
            "adopted": self.whole.adopter.chunks_count,
            "parts": self.blocks.parts_count,
            "bytes": self.whole.chunks_bytes + self.blocks.parts_bytes,
            "damaged": self.whole.damaged_count + self.blocks.damaged_count,
            "owed_bytes": self.whole.owed_bytes,
        }

"""How chunks that are missing are fetched: in blocks, or whole. Arithmetic only."""

from dataclasses import dataclass
from enum import Enum

from zcat.limits import BLOCKS_PER_REQUEST_MAX, KIB


class How(Enum):
    """What is asked for of one chunk."""

    BLOCKS = "blocks"
    """Only what is needed now."""
    REST = "rest"
    """All blocks that are not there yet; then the chunk is whole."""
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """Where the borders are.

    PERF: `bench/cold.py --sweep` over the loopback, where bytes cost least: a chunk of 4 MiB in 128 blocks, 1.9 MB
    compressed, until the values are there. Blocks against the whole: at 3 % of them 5.0 to 8.7 ms, at 12 % 7.4 to
    10.3, at 25 % 8.5 to 10.6, at 37 % 13.7 to 17.3, at 50 % 18.8 to 15.0, at 62 % 14.3 to 10.9. They cross a bit
    below a half; over a network on which bytes cost more, further up.
    """

    whole_bytes_max: int = 32 * KIB
    """A chunk of so few bytes comes whole: at 1 Gbit/s they take 0.3 ms, as much as one more answer does."""
    share_max: float = 1 / 2
    """Of a chunk's blocks, with those that are there: beyond, the whole is fetched. It can be decoded in one go,
    checked in a later run and passed on, which blocks cannot."""
    rest_share_min: float = 1 / 8
    """Of a chunk's blocks that are there: from so many on, its rest is fetched rather than the whole."""


@dataclass(frozen=True, slots=True)
class ChunkState:
    """What is known of a chunk that is not whole."""

    nbytes: int
    """Compressed; a guess."""
    nblocks: int
    there: int
    """Blocks that are there."""
    missing: int
    """Blocks that are needed now and are not there; all others, if the whole chunk is needed."""

    @property
    def whole_is_needed(self) -> bool:
        """Nothing less than the chunk will do."""
        return self.there + self.missing == self.nblocks


def how_to_fetch(chunk: ChunkState, limits: PlanLimits) -> How:
    """Decide how a chunk is fetched. Whatever the answer is, it takes one round trip.

    Args:
        chunk: of more than one block; its blocks can be had singly.
        limits: where the borders are.
    """
    wanted = chunk.there + chunk.missing
    head_bytes = 32 + 4 * chunk.nblocks
    is_long = chunk.nblocks - chunk.there > BLOCKS_PER_REQUEST_MAX or head_bytes * 8 > chunk.nbytes
    if chunk.nbytes <= limits.whole_bytes_max or is_long:
        return How.WHOLE
    if wanted <= chunk.nblocks * limits.share_max:
        return How.BLOCKS
    return How.REST if chunk.there >= chunk.nblocks * limits.rest_share_min else How.WHOLE

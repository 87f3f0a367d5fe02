"""Chunks that are needed together: what of them is missing is planned, asked for at once, and waited for.

The plan (`protocol.block_plan`) says of each chunk whether it comes whole or in blocks; both requests leave
together, so that whatever is missing costs one round trip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from zcat.errors import BadChunk, StorageFailed, VerbUnknown
from zcat.model.blocks import block_count, blocks_of_piece, blocks_of_points
from zcat.model.dataset import ArrayGeometry
from zcat.model.geometry import pieces, points_by_chunk
from zcat.model.selection import Indices, Points, Selection
from zcat.protocol.block_messages import Part
from zcat.protocol.block_plan import ChunkState, How, PlanLimits, how_to_fetch
from zcat.protocol.block_transfer import WantedPart
from zcat.protocol.wanted import Origin
from zcat.services.readers import Loose, Target
from zcat.storage.cached_dataset import CachedDataset
from zcat.storage.chunk_gate import DELTA
from zcat.storage.decoded_blocks import DecodedBlocks, KeptBlocks

What = Selection | Points
Needs = dict[int, Indices]
"""By chunk, which of its blocks."""


class Coming(Protocol):
    """What was asked for, and somebody waits for."""

    @property
    def is_done(self) -> bool:
        """All has come, or nothing will."""

    def result(self, wait_s: float) -> Loose | None:
        """Wait until it is in the cache; give the chunks that could not be kept."""

    def abandon(self) -> None:
        """Nobody waits any more."""


class ChunkFetcher(Protocol):
    """Brings whole chunks into the cache: a ``Fetcher``, or what asks one in another process."""

    def begin(self, target: Target, nchunks: Sequence[int], bulk: bool = False) -> Coming:
        """Ask for chunks."""


class PartFetcher(Protocol):
    """Brings blocks of chunks into the cache: a ``BlockFetcher``, or what asks one in another process."""

    def serves(self, origin: Origin) -> bool:
        """Say whether an origin gives blocks, as far as is known."""

    def begin(self, target: Target, parts: Sequence[WantedPart], bulk: bool = False) -> Coming:
        """Ask for parts of chunks."""


@dataclass(slots=True)
class Plan:
    """How missing chunks are to be fetched."""

    whole: list[int] = field(default_factory=list)
    parts: list[WantedPart] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Nothing is missing."""
        return not self.whole and not self.parts


class Supply:
    """Where the chunks of one version come from. Any thread may call."""

    def __init__(
        self,
        target: Target,
        fetcher: ChunkFetcher,
        blocks: PartFetcher | None = None,
        limits: PlanLimits | None = None,
        decoded: DecodedBlocks | None = None,
    ) -> None:
        """Take the fetchers; without that of blocks, or without ``limits``, chunks are always fetched whole."""
        self.target = target
        self.fetcher = fetcher
        self.blocks = blocks
        self._limits = limits
        self._decoded = decoded

    @property
    def kept(self) -> KeptBlocks | None:
        """What is kept decoded of this lineage."""
        array = self.target.info.geometry.array
        if self._decoded is None or array is None:
            return None
        return KeptBlocks(self._decoded, self.target.key, array)

    @property
    def in_blocks(self) -> bool:
        """Chunks that are missing can be had in blocks."""
        info = self.target.info
        if self.target.cached is None or self._limits is None or info.geometry.array is None:
            return False
        differs = DELTA in info.compression.filters
        return not differs and self.blocks is not None and self.blocks.serves(self.target.key.origin)

    @property
    def block_bytes(self) -> float:
        """A guess of the compressed size of a block."""
        return self.target.chunk_bytes / max(1, block_count(self._array))

    def plan(self, missing: Sequence[int], what: What | Needs | None) -> Plan:
        """Plan how to fetch what is needed.

        Args:
            missing: chunks that are not whole, ascending.
            what: is needed of them; None: all of them, as chunks.
        """
        cached, limits, array = self.target.cached, self._limits, self.target.info.geometry.array
        if cached is None or limits is None or array is None or not self.in_blocks:
            return Plan(list(missing))
        if not missing or (what is None and not cached.any_partial(missing)):
            return Plan(list(missing))
        plan = Plan()
        needs = what if isinstance(what, dict) else dict(_needs(array, what)) if what is not None else {}
        for nchunk in missing:
            if cached.may_store_parts(nchunk):
                self._plan_chunk(plan, nchunk, needs.get(nchunk), limits, cached)
            else:
                plan.whole.append(nchunk)
        return plan

    def begin(self, chunks: Indices, plan: Plan, bulk: bool = False) -> "Window":
        """Ask for what a plan says."""
        return Window(self, chunks, plan, bulk)

    def _plan_chunk(
        self, plan: Plan, nchunk: int, needed: Indices | None, limits: PlanLimits, cached: CachedDataset
    ) -> None:
        there = cached.blocks_there(nchunk)
        if there is None:
            there = np.zeros(block_count(self._array), np.bool_)
        absent = np.flatnonzero(~there)
        wanted = absent if needed is None else needed[~there[needed]]
        if needed is not None and not len(wanted):
            return
        chunk_bytes = self.target.chunk_bytes
        state = ChunkState(chunk_bytes, len(there), len(there) - len(absent), len(wanted))
        how = how_to_fetch(state, limits)
        if how is How.WHOLE:
            plan.whole.append(nchunk)
            return
        is_rest = how is How.REST
        blocks = absent if is_rest else wanted
        nbytes = chunk_bytes * len(blocks) // len(there) + 32 + 4 * len(there)
        plan.parts.append(WantedPart(Part(nchunk, tuple(blocks.tolist()), is_rest), nbytes))

    @property
    def _array(self) -> ArrayGeometry:
        array = self.target.info.geometry.array
        assert array is not None
        return array


class Window:
    """Chunks that are needed together, being fetched."""

    def __init__(self, supply: Supply, chunks: Indices, plan: Plan, bulk: bool) -> None:
        self.chunks = chunks
        self._supply = supply
        self._bulk = bulk
        self._cut = [wanted.part.nchunk for wanted in plan.parts]
        target = supply.target
        self._whole = supply.fetcher.begin(target, plan.whole, bulk) if plan.whole else None
        self._parts = supply.blocks.begin(target, plan.parts, bulk) if plan.parts and supply.blocks else None

    def wait(self, wait_s: float) -> Loose:
        """Wait until what is needed is cached; give the chunks that are not, for want of room.

        Raises:
            Stale, Unavailable, Timeout: as ``Fetch.result`` says.
        """
        loose: Loose = {}
        if self._parts is not None:
            try:
                self._parts.result(wait_s)
            except (VerbUnknown, StorageFailed, BadChunk):  # not to be had, or not to be kept, in blocks
                loose = self._supply.fetcher.begin(self._supply.target, self._cut, self._bulk).result(wait_s) or {}
        if self._whole is not None:
            loose = {**loose, **(self._whole.result(wait_s) or {})}
        return loose

    def abandon(self) -> None:
        """Nobody waits any more."""
        for fetch in (self._whole, self._parts):
            if fetch is not None:
                fetch.abandon()

    @property
    def is_done(self) -> bool:
        """Nothing is under way any more."""
        return all(fetch is None or fetch.is_done for fetch in (self._whole, self._parts))


def _needs(array: ArrayGeometry, what: What) -> Iterator[tuple[int, Indices]]:
    """Give the blocks that are needed of each chunk."""
    if isinstance(what, Selection):
        for piece in pieces(array, what):
            yield piece.nchunk, blocks_of_piece(array, piece.inside)
    else:
        for nchunk, coordinates, _ in points_by_chunk(array, what):
            yield nchunk, blocks_of_points(array, coordinates)

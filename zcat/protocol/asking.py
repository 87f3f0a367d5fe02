"""What a reader orders its shell to do, how much it may ask for, and what it counts."""

from dataclasses import dataclass

from zcat.errors import ZcatError
from zcat.limits import MIB
from zcat.protocol.messages import Chunks
from zcat.protocol.swarm_messages import Have
from zcat.protocol.wanted import Origin


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """What a transfer may hold, and how patient it is."""

    credit_bytes: int = 32 * MIB
    """Asked of one origin and not yet stored; at least one chunk is always allowed."""
    reply_wait_s: float = 5.0
    """Without any chunk from an origin for so long, and for four times as long as it mostly takes, what it owes is
    asked for again."""
    attempts_max: int = 3
    resend_after_s: float = 0.05
    """When a request could not leave (no connection yet)."""
    wanted_chunks_max: int = 1 << 20
    """Beyond, new readers are refused."""
    second_share: float = 0.125
    """Of the credit, that may be asked for a second time while the first answer may still come."""


@dataclass(frozen=True, slots=True)
class AskChunks:
    """Effect: send this to the origin, or to a peer; if it cannot leave, tell `Transfer.unsent`."""

    origin: Origin
    request: int
    message: Chunks
    peer: str | None = None
    """Endpoint of the peer to ask; None: the origin itself."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Effect: send this to the origin if it can leave. Nothing is owed for it."""

    origin: Origin
    message: Have


@dataclass(frozen=True, slots=True)
class Resolve:
    """Effect: the ticket is fulfilled, or failed with ``error``."""

    ticket: int
    error: ZcatError | None


Effect = AskChunks | Tell | Resolve


@dataclass(slots=True)
class PeerCounters:
    """What other readers did for this one. Any thread may read it."""

    chunks: int = 0
    """That came from peers, and were right."""
    nbytes: int = 0
    lies: int = 0
    failures: int = 0
    """Chunks that a peer did not give, or not in time."""
    seconds: int = 0
    """Chunks that were asked for a second time because the first answer was late."""

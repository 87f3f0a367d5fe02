"""What an operator may choose: one frozen dataclass for each service. Defaults stand here and nowhere else.

Durations end in ``_s`` (seconds), sizes in ``_bytes``. ``zcat.config_file`` reads them from TOML.
"""

import math
from dataclasses import dataclass, field
from typing import TypeVar

from zcat.limits import GIB, KIB, MIB

DEFAULT_BROKER = "tcp://127.0.0.1:5560"
"""Where a broker's directory listens, unless told otherwise."""

Number = TypeVar("Number", int, float)


def _within(default: Number, least: float, most: float = math.inf) -> Number:
    """Declare a setting for which not any number from 0 on will do.

    Beyond its bounds, a service would not start, never rest, or never answer. `zcat.config_file` looks at them.
    """
    return field(default=default, metadata={"least": least, "most": most})


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where a broker listens, and how much it remembers. It keeps nothing on a disk."""

    listen: str = DEFAULT_BROKER
    """The directory: the one endpoint that everybody has to know; a port of 0 takes a free one."""
    ingress: str | None = None
    """Where publishers send events. None: a free port of the same address, or a name beside that of ``listen``."""
    egress: str | None = None
    """Where subscribers hear events; None as for ``ingress``."""
    mesh: str | None = None
    """Where other brokers have the events that entered here; None as for ``ingress``."""
    advertise: str | None = None
    """Host name or address that others are told; None: for ingress, egress and mesh the one by which they reached
    us; for the directory the one that ``listen`` names, or else the one by which ``peers`` are reached."""
    interface: str | None = None
    """Network interface, such as ``ib0``, or network, such as ``10.1.0.0/16``: this host's address there is bound
    and told to others, in place of the loopback or of all addresses."""
    peers: tuple[str, ...] = ()
    """Directory endpoints of other brokers, or of some; all of them are one directory and one network.
    ``file:PATH`` names a file with one endpoint per line."""
    announce_file: str | None = None
    """A file on a file system that all share, into which the broker writes its endpoint while it runs."""
    lease_min_s: float = 1.0
    """The lease that a publisher asks for is moved into these bounds."""
    lease_max_s: float = _within(300.0, least=1.0)
    records_max: int = _within(100_000, least=1)
    """Claims listed at a time; beyond, new publishers are told that the broker is busy."""
    events_bytes: int = 64 * MIB
    """Queued for one subscriber, or for one other broker, that does not keep up: it is put out when more waits,
    connects again, and notices what it missed."""
    events_total_bytes: int = 256 * MIB
    """The same for all of them; the one that is furthest behind is put out first."""
    answers_bytes: int = 16 * MIB
    """Queued for each peer that does not read its answers."""


@dataclass(frozen=True, slots=True)
class SubscriberConfig:
    """What a subscriber follows, keeps, and how patient it is."""

    brokers: tuple[str, ...] = (DEFAULT_BROKER,)
    """Directory endpoints, or some of them; the first that answers is used, the others when it no longer does.
    ``file:PATH`` names a file with one endpoint per line."""
    follow: tuple[str, ...] = ()
    """Roots to follow from the start: ``name`` or ``name@owner``."""
    cache: str = "cache"
    """Folder of the cache; a local disk. Only one process may use it."""
    quota_bytes: int = 10 * GIB
    """What the cache may hold on disk."""
    reserve_bytes: int = GIB
    """What is left free on that disk in any case."""
    credit_bytes: int = 32 * MIB
    """Compressed bytes that are asked of one publisher and not yet stored."""
    window_bytes: int = 256 * MIB
    """Uncompressed bytes of chunks that one read fetches at a time; a larger read goes on window by window."""
    decoded_bytes: int = 32 * MIB
    """Blocks that are read again and again are kept decoded, up to so much; of each HTTP process. 0: none are."""
    block_reads: bool = True
    """Small parts of chunks are fetched in blocks; else always whole chunks."""
    prefetch_bytes: int = 32 * MIB
    """Compressed bytes that are fetched ahead of a reader who goes on in equal steps; 0: none."""
    fetch_timeout_s: float = _within(30.0, least=0.1)
    """How long a read waits for a window of chunks before it fails."""
    quiet_after_s: float = _within(3.5, least=2.0)
    """Without a sign of life for so long, a publisher counts as away."""
    storing_threads: int = _within(2, least=1)
    """Threads that check digests and write chunks."""
    share: bool = True
    """Other subscribers of the same roots may be sent here for chunks that are in the cache."""
    interface: str | None = None
    """Network interface, such as ``ib0``, or network, such as ``10.1.0.0/16``: this host's address there is bound
    for sharing and told to others, in place of the loopback or of all addresses."""
    share_listen: str = "tcp://127.0.0.1:0"
    """Where they ask for them; port 0 takes a free one. On the loopback, only those of this host do."""
    share_advertise: str | None = None
    """Host or address that they are told; None: the one that ``share_listen`` names, or else the one by which the
    first broker is reached."""
    share_bytes: int = 64 * MIB
    """Held for all of them at a time."""
    share_rate_bytes: int = 0
    """Given to all of them per second, on average; 0: as much as they take."""


@dataclass(frozen=True, slots=True)
class PublisherConfig:
    """What a publisher offers, to whom it tells it, and how much it holds."""

    root: str
    """Name of the root."""
    path: str
    """The folder, or the HDF5 file, that is offered."""
    state: str
    """Folder for the owner key, the count of lives and what was converted. Local; one process may use it."""
    brokers: tuple[str, ...] = (DEFAULT_BROKER,)
    """Directory endpoints, or some of them; each is told. ``file:PATH`` names a file with one per line."""
    listen: str = "tcp://127.0.0.1:0"
    """Where requests are answered; port 0 takes a free one."""
    advertise: str | None = None
    """Host or address that others reach this one by; None: the one that ``listen`` names, or else the one by which
    the first broker is reached."""
    interface: str | None = None
    """Network interface, such as ``ib0``, or network, such as ``10.1.0.0/16``: this host's address there is bound
    and told to others, in place of the loopback or of all addresses."""
    ipc: bool = True
    """Subscribers on this host are offered a Unix socket, beside the network, in the state folder."""
    lease_s: float = 20.0
    """How long brokers list the root without a sign of life."""
    renew_s: float = _within(2.0, least=0.02)
    """Between two signs of life."""
    settle_s: float = 0.1
    """A file that was modified less than so long ago is taken to be in the making."""
    poll_s: float = _within(2.0, least=0.02)
    """Between two looks at the folder where the system does not tell of changes."""
    rescan_s: float = _within(60.0, least=0.02)
    """Between two looks at all of it where it does."""
    track: bool = True
    """Subscribers that want the same chunks are sent to one another, once some of them have them."""
    io_threads: int = _within(2, least=1)
    """Threads that read and compress chunks."""
    hdf5_workers: int = _within(2, least=1)
    """Processes that read HDF5 files, at most; they run while they are asked."""
    peer_bytes: int = _within(32 * MIB, least=64 * KIB)
    """Read for one peer and not yet taken by it."""
    total_bytes: int = _within(256 * MIB, least=64 * KIB)
    """The same for all peers."""
    quota_bytes: int = 10 * GIB
    """What compressed copies of plain files and of HDF5 datasets may take on disk."""
    reserve_bytes: int = GIB
    """What is left free on that disk in any case."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The HTTP side of a subscriber."""

    host: str = "127.0.0.1"
    """Address or name to bind. Whatever is not this host's own loopback opens the data to others."""
    port: int = _within(8000, least=0, most=65535)
    """0 takes any free one."""
    workers: int = 0
    """Processes of ``zcat subscribe`` that answer; 0: one for each core, but no more than 8. With 1 the subscriber
    answers itself."""
    threads: int = _within(32, least=1)
    """For requests, in each process. Those that wait for other hosts, or for slow clients of large downloads, keep
    one each."""
    connections_max: int = _within(4096, least=1)
    """Further ones wait until one of these ends."""
    idle_timeout_s: float = 20.0
    """A connection without a request, or a client that takes nothing of its answer, is closed after this."""
    header_deadline_s: float = 10.0
    """From the first byte of a request to the end of its header."""
    body_rate_min_bytes: int = 4 * KIB
    """Per second, that a client must send on average once ``header_deadline_s`` is over."""
    header_max_bytes: int = _within(16 * KIB, least=KIB)
    """Of a request: its first line and all headers."""
    body_max_bytes: int = 16 * MIB
    """Of a request: coordinates, for instance."""
    answer_max_bytes: int = GIB
    """Of an answer that is made in memory: of lists and negative steps, uncompressed, or of a slice as a frame."""
    slice_max_bytes: int | None = None
    """Of a slice, uncompressed. None: there is no limit, since large slices are sent while they are read."""
    preview_fetch_bytes: int = 128 * MIB
    """Compressed bytes that one preview (``fit=``) brings into the cache; if more is missing, it is a sample."""
    preview_decode_bytes: int = 2 * GIB
    """Uncompressed bytes that one preview decodes; of more, it is a sample."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may read the API, such as ``https://viewer.example.org``; none by default."""

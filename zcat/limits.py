"""The limits that are part of the protocol: every size and count that a peer may not exceed.

What an operator may choose (budgets, quotas, time-outs) is in ``zcat.config``. What stands here is what
both sides of a wire must agree on, or what keeps one hostile message from taking a process down.
"""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

CONTROL_FRAME_BYTES_MAX = 64 * KIB
"""A msgpack frame larger than this is refused before it is decoded: 10 MB of b'\\x90' cost 5 s and 700 MB."""

PAGES_PER_MESSAGE_MAX = 64
"""Catalogue pages (control frames) in one reply, so that a whole catalogue takes few messages."""

CHUNK_BYTES_MAX = 64 * MIB
"""Uncompressed size of a chunk that is served; larger ones are listed and said to be unreadable."""

MESSAGE_FRAME_BYTES_MAX = CHUNK_BYTES_MAX + 64
"""ZeroMQ's own limit for a frame (ZMQ_MAXMSGSIZE): a chunk that did not compress, and its header."""

NCHUNKS_MAX = 1 << 24
"""Chunks of one dataset."""

CHUNKS_PER_REQUEST_MAX = 1024
"""Chunk numbers in one request."""

BLOCKS_PER_REQUEST_MAX = 4096
"""Block numbers in one request, of all its chunks together: it stays a control frame."""

ATTRIBUTES_BYTES_MAX = MIB
"""All attributes of a dataset, as msgpack."""

ATTRIBUTE_BYTES_MAX = 64 * KIB
"""One attribute; a larger one is replaced by a sentence that says so."""

BLOSC2_CHUNK_OVERHEAD = 32
"""C-Blosc2's BLOSC2_MAX_OVERHEAD: what a chunk that does not compress is larger than its content."""

BROKERS_MAX = 64
"""Brokers that one process knows of, and so the neighbours that one tells of."""

BUCKETS = 256
"""Parts of a directory that brokers compare one by one."""

HOLDERS_MAX = 64
"""Peers that one message names as holders of chunks."""

HELD_CHUNKS_MAX = 512
"""Chunks that one such message speaks of: with the digest of each it stays a control frame."""

PRESENCE_BYTES_MAX = 4 * KIB
"""What a subscriber may say of itself in a ping: its texts, each counting 12 bytes more."""

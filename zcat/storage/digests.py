"""Digests of the chunks that a publisher read last: what is asked for often is not hashed each time."""

import threading

from zcat.storage.chunk_gate import digest

DIGESTS_MAX = 1 << 16


class Digests:
    """By lineage and number. Any thread may call."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, int], bytes] = {}
        self._lock = threading.Lock()

    def known(self, lineage: str, nchunk: int) -> bytes | None:
        """Give the digest of a chunk if it was computed before."""
        return self._held.get((lineage, nchunk))

    def of(self, lineage: str, nchunk: int, data: bytes) -> bytes:
        """Give the digest of a chunk, computed at its first read."""
        key = (lineage, nchunk)
        held = self._held.get(key)
        if held is None:
            held = digest(data)
            with self._lock:
                self._held[key] = held
                if len(self._held) > DIGESTS_MAX:
                    del self._held[next(iter(self._held))]
        return held

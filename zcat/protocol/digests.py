"""Numbers by which two brokers find out cheaply where their directories differ.

A record is 63 bits of a BLAKE2b of its key and rank. It is in one of 256 buckets, by its key. The digest of
a bucket is the exclusive or of its records, so that it is kept current at the price of one record, and depends
on no order. It finds differences between brokers that mean well; it is no defence against others, who
could announce what they like anyway.
"""

from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b

from zcat.limits import BUCKETS

Key = tuple[str, str]
"""(root, owner)."""
Rank = tuple[int, int, bool]
"""(incarnation, seq, deleted)."""

_MASK = (1 << 63) - 1


class BucketDigests:
    """The digests of a set of records."""

    def __init__(self) -> None:
        self.whole = 0
        """Of all records."""
        self._buckets = [0] * BUCKETS
        self._keys: list[dict[Key, tuple[Rank, int]]] = [{} for _ in range(BUCKETS)]

    def buckets(self) -> tuple[int, ...]:
        """Give the digest of each bucket."""
        return tuple(self._buckets)

    def put(self, key: Key, rank: Rank) -> None:
        """Add a record, or replace the one of that key."""
        bucket = bucket_of(key)
        held = self._keys[bucket].get(key)
        if held is not None and held[0] == rank:
            return
        digest = record_digest(key, rank)
        self._turn(bucket, digest ^ (held[1] if held is not None else 0))
        self._keys[bucket][key] = rank, digest

    def remove(self, key: Key) -> None:
        """Take a record out; without effect if it is not there."""
        bucket = bucket_of(key)
        held = self._keys[bucket].pop(key, None)
        if held is not None:
            self._turn(bucket, held[1])

    def keys(self, buckets: Iterable[int], after: str = "") -> Iterator[Key]:
        """Give the keys of some buckets, in order of bucket and key, behind ``after``: ``root@owner``."""
        root, _, owner = after.rpartition("@")
        begin = (bucket_of((root, owner)), (root, owner)) if after else (-1, ("", ""))
        for bucket in sorted({bucket for bucket in buckets if begin[0] <= bucket < BUCKETS}):
            yield from (key for key in sorted(self._keys[bucket]) if (bucket, key) > begin)

    def buckets_of(self, keys: Collection[Key]) -> tuple[int, ...]:
        """Give the buckets that some keys are in, in order."""
        return tuple(sorted({bucket_of(key) for key in keys}))

    def _turn(self, bucket: int, digest: int) -> None:
        self._buckets[bucket] ^= digest
        self.whole ^= digest


def bucket_of(key: Key) -> int:
    """Give the bucket of a key: the first byte of the BLAKE2b-64 of ``root@owner``."""
    return blake2b("@".join(key).encode(), digest_size=8).digest()[0]


def record_digest(key: Key, rank: Rank) -> int:
    """Give the digest of one record: BLAKE2b-64 of ``root@owner@incarnation@seq@deleted`` (0 or 1), big-endian."""
    text = "@".join((*key, *(str(int(number)) for number in rank)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) & _MASK

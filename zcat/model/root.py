"""A root's claim: who says that it serves a root, where, and in which life."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Claim:
    """One publisher's claim on a root name. Its owner is the only one who ever writes it.

    Two claims on one record are merged by "the larger (incarnation, seq) wins", which is commutative,
    associative and idempotent, so that brokers may exchange them in any order, any number of times.
    """

    root: str
    owner: str
    """Stable key of the publisher: 32 hexadecimal digits, made once and kept in its state folder."""
    endpoints: tuple[str, ...]
    """Where its ROUTER answers, best first."""
    incarnation: int
    """Which life of the publisher this is: a counter on its disk, raised before the first announcement."""
    seq: int
    """Its event counter: one more at each change of the catalogue, 0 at the start of a life."""
    lease_s: float
    """Right to be listed, in seconds from the receipt of the last renewal, on the receiver's own clock."""
    deleted: bool = False
    """A tombstone: the owner withdrew the root."""
    host: str | None = None
    """Names the owner's host for who is on it, and may use the ``ipc`` endpoints; absent if there are none."""

    @property
    def key(self) -> tuple[str, str]:
        """What the record is filed under."""
        return self.root, self.owner

    @property
    def stamp(self) -> tuple[int, int]:
        """What decides between two records of one key: the larger is the later."""
        return self.incarnation, self.seq

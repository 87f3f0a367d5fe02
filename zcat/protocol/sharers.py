"""Peers that give to others what they hold, as a publisher sees them: who is there, how busy, and how reliable."""

from dataclasses import dataclass, field

from zcat.limits import MIB


@dataclass(frozen=True, slots=True)
class SharerLimits:
    """Whom a publisher names to others, and for how much."""

    sharers_max: int = 4096
    upload_bytes: int = 8 * MIB
    """What one is counted on for at a time; one chunk always."""
    silent_s: float = 10.0
    """Without a sign of life for so long, it is named to nobody."""
    forget_s: float = 120.0
    """And after so long, what it held is forgotten."""
    reporters_max: int = 2
    """So many different readers must have got nothing of it before it is named to nobody for a while."""
    out_s: float = 30.0
    """The first time; twice as long each further time."""


@dataclass(slots=True, eq=False)
class Sharer:
    """One of them."""

    endpoint: str
    seen_at_s: float
    load_bytes: int = 0
    """What others were sent to it for and have not got yet."""
    reporters: set[bytes] = field(default_factory=set)
    outs_count: int = 0
    out_until_s: float = float("-inf")
    is_forgotten: bool = False


class Sharers:
    """All of them, by endpoint and by what the ROUTER calls them."""

    def __init__(self, limits: SharerLimits | None = None) -> None:
        self._limits = limits or SharerLimits()
        self._by_endpoint: dict[str, Sharer] = {}
        self._by_asker: dict[bytes, Sharer] = {}

    def __len__(self) -> int:
        return len(self._by_endpoint)

    def met(self, asker: bytes, endpoint: str | None, now_s: float) -> Sharer | None:
        """Take a message; give the sharer that sent it, None if it gives nothing to others."""
        if endpoint is None:
            return None
        sharer = self._by_endpoint.get(endpoint)
        if sharer is None:
            if len(self._by_endpoint) >= self._limits.sharers_max:
                return None
            sharer = self._by_endpoint[endpoint] = Sharer(endpoint, now_s)
        self._by_asker[asker] = sharer
        sharer.seen_at_s = now_s
        return sharer

    def heard(self, asker: bytes, now_s: float) -> None:
        """Take a sign of life."""
        sharer = self._by_asker.get(asker)
        if sharer is not None:
            sharer.seen_at_s = now_s

    def gone(self, asker: bytes) -> None:
        """Forget under what name it was connected."""
        self._by_asker.pop(asker, None)

    def leave(self, asker: bytes) -> None:
        """It gives nothing to others any more."""
        sharer = self._by_asker.pop(asker, None)
        if sharer is not None:
            sharer.is_forgotten = True
            self._by_endpoint.pop(sharer.endpoint, None)

    def strike(self, endpoint: str, reporter: bytes, now_s: float) -> Sharer | None:
        """Take a reader's word that a sharer gave it nothing, or something wrong; give the sharer."""
        sharer = self._by_endpoint.get(endpoint)
        if sharer is None:
            return None
        sharer.reporters.add(reporter)
        if len(sharer.reporters) >= self._limits.reporters_max:
            sharer.reporters.clear()
            sharer.out_until_s = now_s + self._limits.out_s * 2.0 ** min(sharer.outs_count, 10)
            sharer.outs_count += 1
        return sharer

    def is_usable(self, sharer: Sharer, now_s: float) -> bool:
        """Say whether it may be named to others."""
        is_here = now_s - sharer.seen_at_s <= self._limits.silent_s
        return is_here and not sharer.is_forgotten and now_s >= sharer.out_until_s

    def has_room(self, sharer: Sharer, nbytes: int) -> bool:
        """Say whether it may be counted on for ``nbytes`` more."""
        return not sharer.load_bytes or sharer.load_bytes + nbytes <= self._limits.upload_bytes

    def tick(self, now_s: float) -> bool:
        """Forget those that have been silent for long; say whether there were any."""
        silent = [one for one in self._by_endpoint.values() if now_s - one.seen_at_s > self._limits.forget_s]
        for sharer in silent:
            sharer.is_forgotten = True
            del self._by_endpoint[sharer.endpoint]
        if len(self._by_asker) > 2 * len(self._by_endpoint):  # names of former connections
            self._by_asker = {name: one for name, one in self._by_asker.items() if not one.is_forgotten}
        return bool(silent)

    def count_usable(self, now_s: float) -> int:
        """Count those that may be named to others."""
        return sum(self.is_usable(sharer, now_s) for sharer in self._by_endpoint.values())

"""Machine: the readers that a broker knows of, so that operators see them. Soft state; nothing works by it.

A reader introduces itself with each ping. It is listed until its lease is over or it says that it leaves; this
broker alone knows of it, since it pings this one alone.
"""

from bisect import bisect_right, insort
from dataclasses import dataclass

from zcat.protocol.status_messages import Presence, Present


@dataclass(frozen=True, slots=True)
class AttendanceLimits:
    """How long and how many are remembered."""

    lease_max_s: float = 300.0
    present_max: int = 10_000
    """A reader more is served like the others, and is not listed."""


@dataclass(slots=True)
class _Seen:
    presence: Presence
    first_at_s: float
    last_at_s: float


class Attendance:
    """Who reads through this broker."""

    def __init__(self, limits: AttendanceLimits | None = None) -> None:
        """Begin with nobody."""
        self._limits = limits or AttendanceLimits()
        self._seen: dict[str, _Seen] = {}  # by owner, in the order in which they were last heard of
        self._owners: list[str] = []  # sorted, for answers in parts

    def __len__(self) -> int:
        return len(self._seen)

    def heard(self, presence: Presence, now_s: float) -> None:
        """Take what a reader says of itself."""
        seen = self._seen.pop(presence.owner, None)
        if presence.lease_s <= 0:
            if seen is not None:
                self._owners.remove(presence.owner)
            return
        if seen is None:
            if len(self._seen) >= self._limits.present_max:
                return
            seen = _Seen(presence, now_s, now_s)
            insort(self._owners, presence.owner)
        seen.presence, seen.last_at_s = presence, now_s
        self._seen[presence.owner] = seen

    def tick(self, now_s: float) -> None:
        """Forget whose lease is over."""
        for owner in [owner for owner, seen in self._seen.items() if self._ends_at_s(seen) <= now_s]:
            del self._seen[owner]
            self._owners.remove(owner)

    def listed(self, now_s: float, after: str, count_max: int) -> tuple[list[Present], str | None]:
        """List who is here, in order of owner.

        Returns:
            They, and what to ask ``after`` for the rest of them: None when there is none.
        """
        begin = bisect_right(self._owners, after)
        owners = self._owners[begin : begin + count_max]
        following = owners[-1] if begin + count_max < len(self._owners) else None
        seen = [self._seen[owner] for owner in owners]
        return [
            Present(each.presence, max(0.0, now_s - each.last_at_s), max(0.0, now_s - each.first_at_s))
            for each in seen
        ], following

    def _ends_at_s(self, seen: _Seen) -> float:
        return seen.last_at_s + min(seen.presence.lease_s, self._limits.lease_max_s)

"""Machine: a subscriber's copy of one broker's directory.

The Clone pattern: subscribe first, then ask for the whole, then apply changes in order; a gap asks for the
whole again. Claims are merged by (incarnation, seq), so that a broker that lags behind the one before it
(after a failover) never takes a newer claim back. What is here stays here when every broker is gone.
"""

from dataclasses import dataclass, replace

from zcat.errors import RootContested, RootUnknown, Unavailable
from zcat.names import OWNER_HEX_SHOWN, shown
from zcat.protocol.messages import DirectoryChanged, ListedClaim, Listing, Lookup, Pong
from zcat.protocol.pages import unpaged

LIVE = "live"
STALE = "stale"
HERE = (LIVE, STALE)
"""States of a claim that readers may use; ``stale`` is the broker's own doubt, not the publisher's end."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Effect: send this to the broker in use."""

    message: Lookup


@dataclass(frozen=True, slots=True)
class ClaimChanged:
    """Effect: a claim is new, or has other endpoints, another life or another state."""

    listed: ListedClaim


Effect = Ask | ClaimChanged


class DirectoryView:
    """Who serves which root, as far as this process knows."""

    def __init__(self, relook_s: float = 10.0, answer_wait_s: float = 3.0) -> None:
        self._relook_s = relook_s
        self._answer_wait_s = answer_wait_s
        self._claims: dict[tuple[str, str], ListedClaim] = {}
        self._of_root: dict[str, dict[tuple[str, str], ListedClaim]] = {}  # the same, by root
        self._broker: tuple[str, int] | None = None  # whose sequence `_seq` counts in
        self._seq = 0
        self._asked_at_s: float | None = None
        self._look_at_s = 0.0
        self._in_use = False
        self._arriving: list[ListedClaim] = []
        self._arriving_seq: int | None = None
        self._news: dict[tuple[str, str], int] = {}  # claims that changed while a listing is on its way, and when
        self._unconfirmed: dict[tuple[str, str], float] = {}  # since when a broker lists an earlier claim instead

    @property
    def synced(self) -> bool:
        """The broker in use has told everything it knows."""
        return self._in_use and self._broker is not None

    def use(self, now_s: float) -> list[Effect]:
        """Begin with a broker: after a start or a failover."""
        self._in_use, self._broker, self._asked_at_s = True, None, None
        return self._look(now_s)

    def lost(self) -> None:
        """No broker answers; what is known stays."""
        self._in_use, self._broker, self._asked_at_s = False, None, None

    def listing(self, answer: Listing, now_s: float) -> list[Effect]:
        """Take one part of the whole directory.

        Raises:
            BadMessage: a page cannot be read.
        """
        self._arriving.extend(unpaged(ListedClaim, answer.pages))
        if self._arriving_seq is None:
            self._arriving_seq = answer.seq  # later parts may hold more, which its events then repeat
        if answer.next is not None:
            self._asked_at_s = now_s
            return [Ask(Lookup(after=answer.next))]
        arrived, self._arriving = self._arriving, []
        self._broker, self._seq = (answer.broker, answer.incarnation), self._arriving_seq
        self._asked_at_s, self._look_at_s = None, now_s + self._relook_s
        fresh = [listed for listed in arrived if self._news.get(listed.claim.key, 0) <= self._arriving_seq]
        effects: list[Effect] = [change for listed in fresh for change in self._merge(listed)]
        named = {listed.claim.key: listed.claim.stamp for listed in arrived}
        for key, held in list(self._claims.items()):
            if held.state in HERE and self._has_lapsed(held, named.get(key), now_s):
                effects += self._merge(replace(held, state="lapsed"))
        return effects

    def changed(self, change: DirectoryChanged, now_s: float) -> list[Effect]:
        """Take one change that a broker published."""
        effects: list[Effect] = list(self._merge(change.listed))
        if self._asked_at_s is not None:
            self._news[change.listed.claim.key] = change.seq
        if (change.broker, change.incarnation) == self._broker:
            if change.seq > self._seq + 1:
                effects += self._look(now_s)
            self._seq = max(self._seq, change.seq)
        return effects

    def pong(self, pong: Pong, now_s: float) -> list[Effect]:
        """Compare the broker's sequence with ours: a lost change shows here even when no other follows it."""
        if (pong.owner, pong.incarnation) == self._broker and pong.seq <= self._seq:
            return []
        return self._look(now_s)

    def tick(self, now_s: float) -> list[Effect]:
        """Look again now and then, and when an answer did not come."""
        late = self._asked_at_s is not None and now_s >= self._asked_at_s + self._answer_wait_s
        if late:
            self._asked_at_s = None
        if self._in_use and (late or now_s >= self._look_at_s):
            return self._look(now_s)
        return []

    def claims(self, root: str | None = None) -> list[ListedClaim]:
        """Give the claims known, of one root or of all, in order of root and owner."""
        found = self._claims if root is None else self._of_root.get(root, {})
        return sorted(found.values(), key=lambda held: held.claim.key)

    def is_contested(self, root: str) -> bool:
        """Say whether several publishers that are there claim a root."""
        return sum(held.state in HERE for held in self.claims(root)) > 1

    def heir(self, root: str, gone: str) -> str | None:
        """Give the one owner who has a root's name, if it is not the one who is ``gone``."""
        here = [held.claim.owner for held in self.claims(root) if held.state in HERE]
        return here[0] if len(here) == 1 and here[0] != gone else None

    def resolve(self, root: str, owner: str | None = None) -> ListedClaim:
        """Give the one claim that a name means.

        Args:
            root: name of the root.
            owner: the owner's key, or its first digits; None where the name alone is enough.

        Raises:
            RootUnknown: nobody claims it (with that owner). Unavailable: nobody can be asked who may know it.
            RootContested: several publishers that are there claim it, and no owner was named.
        """
        claims = [held for held in self.claims(root) if held.claim.owner.startswith(owner or "")]
        here = [held for held in claims if held.state in HERE]
        if len(here) > 1:
            owners = ", ".join(f"{root}@{held.claim.owner[:OWNER_HEX_SHOWN]}" for held in here)
            raise RootContested(f"root {shown(root)} is claimed by {len(here)} publishers: name one of {owners}")
        if not claims:
            whose = f" of owner {shown(owner)}" if owner else ""
            if not self._in_use:
                raise Unavailable(
                    f"no broker answers who may know a root {shown(root)}{whose}: `zcat check` says why"
                )
            raise RootUnknown(f"no broker lists a root {shown(root)}{whose}: `zcat roots` shows those that are")
        return here[0] if here else max(claims, key=lambda held: held.claim.stamp)

    def _look(self, now_s: float) -> list[Effect]:
        if not self._in_use or self._asked_at_s is not None:
            return []
        self._asked_at_s, self._look_at_s = now_s, now_s + self._relook_s
        self._arriving, self._arriving_seq, self._news = [], None, {}
        return [Ask(Lookup())]

    def _has_lapsed(self, held: ListedClaim, named: tuple[int, int] | None, now_s: float) -> bool:
        """Say whether the broker's whole listing, in which the claim has the stamp ``named``, shows its end.

        What is not listed at all lapsed there so long ago that it was forgotten. A broker that lists an earlier
        claim lags behind, and hears of ours within a lease; or its owner lost its counter, and nobody renews ours.
        """
        key = held.claim.key
        if named is None:
            return True
        if named >= held.claim.stamp:
            self._unconfirmed.pop(key, None)
            return False
        return now_s >= self._unconfirmed.setdefault(key, now_s) + held.claim.lease_s

    def _merge(self, listed: ListedClaim) -> list[Effect]:
        held = self._claims.get(listed.claim.key)
        if held is not None and listed.claim.stamp < held.claim.stamp:
            return []
        self._claims[listed.claim.key] = listed
        self._of_root.setdefault(listed.claim.root, {})[listed.claim.key] = listed
        self._unconfirmed.pop(listed.claim.key, None)
        if held is not None and held.state == listed.state:
            same_life = held.claim.incarnation == listed.claim.incarnation
            if same_life and held.claim.endpoints == listed.claim.endpoints:
                return []  # only its seq moved on, which followers learn from the publisher itself
        return [ClaimChanged(listed)]

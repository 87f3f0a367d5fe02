"""Machine: a broker's directory of who serves which root. Soft state; nothing of it is ever on a disk.

Each record (root, owner) has one writer, its owner. Two records of one key are merged by "the larger
(incarnation, seq) wins, a tombstone before a claim", which is commutative, associative and idempotent: no
leader, no shared clock. A lease is relative and runs on this broker's own clock, from the last sign of life of the
owner itself. Another broker may tell of a later one only if the owner gave it to *that* broker, at first hand:
if hearsay counted, the dead would be passed around for ever (zyre #607). Two rules keep a whole cluster from
vanishing at once: a broker that was itself asleep gives everybody a new lease first, and when most of the
leases run out together it doubts its own network, and calls them stale (as Netflix's Eureka does).

Two live owners of one root name are both kept: the root is *contested*, and those who look it up decide.
"""

import heapq
from bisect import bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass

from zcat.errors import Busy, TooLarge
from zcat.model.root import Claim
from zcat.names import shown
from zcat.protocol.digests import BucketDigests, Key, Rank
from zcat.protocol.federation_messages import Records
from zcat.protocol.messages import DirectoryChanged, Granted, ListedClaim, Renew

LIVE = "live"
STALE = "stale"
LAPSED = "lapsed"
WITHDRAWN = "withdrawn"
HERE = frozenset([LIVE, STALE])
"""States of a claim that stands."""

ENDPOINTS_BYTES_MAX = 4096
"""All endpoints of a claim, so that each message that carries one fits a control frame."""

PULL_AFTER = 0.25
"""Of a lease: what was not heard of for so long here may have been heard of by another broker."""


@dataclass(frozen=True, slots=True)
class DirectoryLimits:
    """How long and how much a directory remembers."""

    lease_min_s: float = 1.0
    lease_max_s: float = 300.0
    """A lease that a claim asks for is moved into these bounds."""
    tick_s: float = 1.0
    """How often `Directory.tick` wants to be called: its lateness is how a broker learns that it slept."""
    ends_per_tick_max: int = 5000
    """Records that end in one tick; more wait for the next, so that a mass silence does not stop the broker."""
    preserve_count_min: int = 3
    """Fewer leases than this that run out together are no reason to doubt our own network."""
    stale_kept_s: float = 600.0
    """Then even what self-preservation keeps lapses."""
    lapsed_kept_s: float = 3600.0
    """How long a lookup still tells of a claim that lapsed."""
    tombstone_kept_s: float = 86400.0
    """Longer than any message of the withdrawn claim may be on its way."""
    records_max: int = 100_000
    """Records but tombstones. A new one takes the place of the one that lapsed first, or is refused."""
    tombstones_max: int = 100_000
    """Beyond, the first one made goes; its rank is still remembered."""
    remembered_max: int = 1_000_000
    """Ranks of records that are gone, about 200 bytes each; beyond, the first one goes."""


@dataclass(slots=True)
class _Record:
    claim: Claim
    lease_s: float
    heard_at_s: float
    """When the owner said something, here or to a broker that told of it, on our clock."""
    ends_at_s: float
    """When the present state ends, unless the owner is heard of."""
    state: str = LIVE
    queued_at_s: float = float("inf")
    """The end under which it waits in the queue of ends: never after ``ends_at_s``."""
    stale_since_s: float | None = None
    hearsay: bool = False
    """Another broker told of the last sign of life."""


class Directory:
    """The claims that one broker knows. Each change of it has a number: this broker's ``seq``.

    What a method returns in a list are the changes to publish, in order. That a record is forgotten, long
    after it lapsed or was withdrawn, is no change.
    """

    def __init__(self, broker: str, incarnation: int, now_s: float, limits: DirectoryLimits | None = None) -> None:
        """Begin empty.

        Args:
            broker: key of this broker, which its changes are published under.
            incarnation: of this broker.
            now_s: the time, on the clock that all later calls use.
            limits: the defaults if None.
        """
        self.broker = broker
        self.incarnation = incarnation
        self.seq = 0
        self._limits = limits or DirectoryLimits()
        self._ticked_at_s = now_s
        self._records: dict[Key, _Record] = {}
        self._keys: list[Key] = []  # of _records, sorted, for lookups in parts
        self._ends: list[tuple[float, Key]] = []  # heap; an entry counts if its record is queued under it
        self._lapsed: OrderedDict[Key, None] = OrderedDict()  # in order of lapsing
        self._tombstones: OrderedDict[Key, None] = OrderedDict()  # in order of arrival
        self._remembered: OrderedDict[Key, Rank] = OrderedDict()  # in order of being forgotten
        self._hearsay: set[Key] = set()  # keys of records that are so; some may stand no more
        self._digests = BucketDigests()  # of what stands or is withdrawn

    @property
    def digest(self) -> int:
        """Two brokers that say the same number list the same."""
        return self._digests.whole

    def digests(self) -> tuple[int, ...]:
        """One such number for each bucket."""
        return self._digests.buckets()

    def announce(self, claim: Claim, now_s: float) -> tuple[Granted, list[DirectoryChanged]]:
        """Take a claim, or a tombstone, from its owner itself.

        ``Granted.known`` is false when it was not taken, since something later is known of that owner. To the
        newest claim of an owner that says: go above ``Granted.incarnation``.

        Raises:
            Busy: the directory is full.
            TooLarge: the endpoints are too many.
        """
        _check_size(claim)
        held = self._records.get(claim.key)
        known = self._rank(claim.key)
        late = known is not None and _rank(claim) < known
        # A publisher that lost its counter begins again with numbers it had before, and other endpoints
        other_life = held is not None and _rank(claim) == known and claim != held.claim
        if late or other_life:
            assert known is not None
            return self._granted(False, claim.key, known[0]), []
        if held is None and not self._has_room(claim):
            raise Busy(f"the directory is full: it holds {len(self._records)} records; ask again later")
        changes = self._put(claim, 0.0, now_s)
        return self._granted(True, claim.key, claim.incarnation), changes

    def renew(self, message: Renew, now_s: float) -> tuple[Granted, list[DirectoryChanged]]:
        """Take a sign of life from the owner itself.

        A seq above the one that is listed renews the lease too, but is answered with unknown, so that the
        whole claim is announced.
        """
        key = message.root, message.owner
        held = self._records.get(key)
        if held is None:
            known = self._remembered.get(key)
            return self._granted(False, key, known[0] if known else 0), []
        stamp = message.incarnation, message.seq
        changes: list[DirectoryChanged] = []
        same_life = message.incarnation == held.claim.incarnation and message.seq >= held.claim.seq
        if same_life and not held.claim.deleted:
            changes = self._heard(key, held, now_s)
        known_so = stamp == held.claim.stamp and not held.claim.deleted
        return self._granted(known_so, key, held.claim.incarnation), changes

    def merge(self, listed: ListedClaim, now_s: float) -> list[DirectoryChanged]:
        """Take a claim as another broker sees it.

        It counts if it is later than all that is known here, or a later sign of life that the other broker had
        at first hand. Its lease began when the owner was heard of over there, so that what is passed on only
        ever ages.
        """
        claim = listed.claim
        known = self._rank(claim.key)
        if known is not None and _rank(claim) < known:
            return []
        if _rank(claim) == known and not self._is_sign_of_life(listed, now_s):
            return []
        if not claim.deleted and listed.age_s >= self._lease_s(claim):
            return []
        if claim.key not in self._records and not self._has_room(claim):
            return []
        return self._put(claim, listed.age_s, now_s, hearsay=True)

    def records(self, asked: Records, now_s: float, count_max: int) -> tuple[list[ListedClaim], str | None]:
        """List what stands or was withdrawn, of some buckets: what another broker asks for.

        Returns:
            The records, and what to ask ``after`` for the rest of them: None when there is none.
        """
        listed: list[ListedClaim] = []
        for key in self._digests.keys(asked.buckets, asked.after):
            record = self._records[key]
            if asked.first_hand and (record.hearsay or record.state not in HERE):
                continue
            if len(listed) == count_max:
                return listed, "@".join(listed[-1].claim.key)
            listed.append(self._listed(record, now_s))
        return listed, None

    def running_out(self, now_s: float) -> tuple[int, ...]:
        """Give the buckets of claims whose owners are heard of by other brokers only, and not lately."""
        for key in [key for key in self._hearsay if not self._is_hearsay(key)]:
            self._hearsay.discard(key)
        records = ((key, self._records[key]) for key in self._hearsay)
        due = {key for key, held in records if now_s > held.heard_at_s + PULL_AFTER * held.lease_s}
        return self._digests.buckets_of(due)

    def lookup(
        self, root: str | None, now_s: float, after: str = "", count_max: int | None = None
    ) -> tuple[list[ListedClaim], str | None]:
        """List the records of one root, or of all, in order of root and owner.

        Args:
            root: None for all.
            now_s: the time.
            after: what an earlier part gave as its second value; the empty text to begin.
            count_max: most records to give at a time, or None.

        Returns:
            The records, and what to ask ``after`` for the rest of them: None when there is none.
        """
        name, _, owner = after.rpartition("@")
        begin = bisect_right(self._keys, max((name, owner), (root or "", "")))
        end = len(self._keys) if root is None else bisect_right(self._keys, (root, "~"))
        stop = end if count_max is None else min(end, begin + count_max)
        keys = self._keys[begin:stop]
        following = "@".join(keys[-1]) if keys and stop < end else None
        return [self._listed(self._records[key], now_s) for key in keys], following

    def is_contested(self, root: str) -> bool:
        """Say whether two owners or more have a claim on ``root`` that stands."""
        begin, end = bisect_right(self._keys, (root, "")), bisect_right(self._keys, (root, "~"))
        here = (key for key in self._keys[begin:end] if self._records[key].state in HERE)
        return next(here, None) is not None and next(here, None) is not None

    def tick(self, now_s: float) -> list[DirectoryChanged]:
        """Let end what ends. Wants to be called every ``tick_s``, whether or not anything is due."""
        late_s = now_s - self._ticked_at_s - self._limits.tick_s
        self._ticked_at_s = now_s
        self._give_grace(late_s, now_s)
        due = self._pop_due(now_s)
        changes: list[DirectoryChanged] = []
        doubted: bool | None = None  # counted once, and only when something ends
        for key in due:
            record = self._records[key]
            if record.state not in HERE:
                self._forget(key)
                continue
            doubted = self._doubts_itself(now_s) if doubted is None else doubted
            changes += self._end(key, record, doubted, now_s)
        return changes

    def next_deadline_s(self) -> float:
        """When `tick` wants to be called."""
        return self._ticked_at_s + self._limits.tick_s

    def counts(self) -> dict[str, int]:
        """Count the records by state, and the ranks remembered of those that are gone."""
        counts = {state: 0 for state in (LIVE, STALE, LAPSED, WITHDRAWN)}
        for record in self._records.values():
            counts[record.state] += 1
        return {**counts, "remembered": len(self._remembered)}

    # -- one record ----------------------------------------------------------------------------------

    def _put(self, claim: Claim, age_s: float, now_s: float, hearsay: bool = False) -> list[DirectoryChanged]:
        """Make ``claim`` the record of its key; the caller has seen that its rank is not below the known one."""
        key, lease_s = claim.key, self._lease_s(claim)
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(claim, lease_s, now_s - age_s, 0.0, state="")
            insort(self._keys, key)
            self._remembered.pop(key, None)
        is_news = record.state == "" or record.claim != claim
        record.claim, record.lease_s = claim, lease_s
        if now_s - age_s >= record.heard_at_s:
            self._set_heard(key, record, now_s - age_s, hearsay)
        if claim.deleted:
            is_news = self._set_state(key, record, WITHDRAWN) or is_news
            record.ends_at_s = record.heard_at_s + self._limits.tombstone_kept_s
        else:
            is_news = self._set_state(key, record, LIVE) or is_news
            record.ends_at_s = record.heard_at_s + lease_s
        self._queue(key, record)
        self._digests.put(key, _rank(claim))
        self._trim_tombstones()
        return [self._change(record, now_s)] if is_news else []

    def _heard(self, key: Key, record: _Record, now_s: float) -> list[DirectoryChanged]:
        self._set_heard(key, record, now_s, hearsay=False)
        record.ends_at_s = now_s + record.lease_s
        is_news = self._set_state(key, record, LIVE)
        self._digests.put(key, _rank(record.claim))
        self._queue(key, record)
        return [self._change(record, now_s)] if is_news else []

    def _end(self, key: Key, record: _Record, doubted: bool, now_s: float) -> list[DirectoryChanged]:
        """Make a record whose lease ran out lapsed, or stale while this broker doubts itself."""
        since_s = now_s if record.stale_since_s is None else record.stale_since_s
        if doubted and now_s - since_s < self._limits.stale_kept_s:
            is_news = self._set_state(key, record, STALE)
            record.stale_since_s = since_s
            record.ends_at_s = min(now_s + record.lease_s, since_s + self._limits.stale_kept_s)
        else:
            is_news = self._set_state(key, record, LAPSED)
            self._digests.remove(key)
            record.ends_at_s = now_s + self._limits.lapsed_kept_s
        self._queue(key, record)
        return [self._change(record, now_s)] if is_news else []

    def _set_heard(self, key: Key, record: _Record, at_s: float, hearsay: bool) -> None:
        record.heard_at_s, record.hearsay = at_s, hearsay
        if hearsay:
            self._hearsay.add(key)

    def _is_hearsay(self, key: Key) -> bool:
        record = self._records.get(key)
        return record is not None and record.hearsay and record.state in HERE

    def _is_sign_of_life(self, listed: ListedClaim, now_s: float) -> bool:
        """Say whether a claim of the known rank is told of by who heard its owner later than we did."""
        if listed.hearsay or listed.claim.deleted or listed.state not in HERE:
            return False
        held = self._records.get(listed.claim.key)
        return held is None or (held.claim == listed.claim and now_s - listed.age_s > held.heard_at_s)

    def _set_state(self, key: Key, record: _Record, state: str) -> bool:
        """Change the state, and the lists that are kept by state. Say whether it is another one."""
        if record.state == state:
            return False
        self._lapsed.pop(key, None)
        self._tombstones.pop(key, None)
        if state == LAPSED:
            self._lapsed[key] = None
        elif state == WITHDRAWN:
            self._tombstones[key] = None
        record.state, record.stale_since_s = state, None
        return True

    def _forget(self, key: Key) -> None:
        """Drop a record, and remember its rank, so that an old message does not bring it back."""
        record = self._records.pop(key)
        del self._keys[bisect_right(self._keys, key) - 1]
        self._lapsed.pop(key, None)
        self._tombstones.pop(key, None)
        self._digests.remove(key)
        self._remembered[key] = _rank(record.claim)
        if len(self._remembered) > self._limits.remembered_max:
            self._remembered.popitem(last=False)

    # -- all records ---------------------------------------------------------------------------------

    def _give_grace(self, late_s: float, now_s: float) -> None:
        """After a sleep of this broker: nobody could renew, so nobody is late before one new lease."""
        if late_s <= self._limits.lease_min_s / 2:
            return
        for record in self._records.values():
            if record.state in HERE and late_s > record.lease_s / 2:
                record.ends_at_s = max(record.ends_at_s, now_s + record.lease_s)

    def _doubts_itself(self, now_s: float) -> bool:
        """Say whether more than half of the leases run out within one lease: then the fault is probably here.

        Counted as running out: what lapsed less than a lease ago, what is stale, and what was silent for more
        than half its lease, that is for several renewals.
        """
        silent = here = recent = 0
        for record in self._records.values():
            if record.state in HERE:
                here += 1
                silent += record.state == STALE or record.ends_at_s - now_s < record.lease_s / 2
        for key in reversed(self._lapsed):
            record = self._records[key]
            lapsed_at_s = record.ends_at_s - self._limits.lapsed_kept_s
            if lapsed_at_s <= now_s - record.lease_s:
                break
            recent += 1
        running_out = silent + recent
        return running_out >= self._limits.preserve_count_min and 2 * running_out > here + recent

    def _has_room(self, claim: Claim) -> bool:
        """Make room for one more record if need be; tombstones have room of their own."""
        if claim.deleted or len(self._records) - len(self._tombstones) < self._limits.records_max:
            return True
        if not self._lapsed:
            return False
        self._forget(next(iter(self._lapsed)))
        return True

    def _trim_tombstones(self) -> None:
        while len(self._tombstones) > self._limits.tombstones_max:
            self._forget(next(iter(self._tombstones)))

    def _queue(self, key: Key, record: _Record) -> None:
        """See that the record is looked at when it ends; a renewal, which only moves that on, costs nothing."""
        if record.ends_at_s >= record.queued_at_s:
            return
        record.queued_at_s = record.ends_at_s
        heapq.heappush(self._ends, (record.ends_at_s, key))
        if len(self._ends) > 2 * len(self._records) + 1000:  # mostly of records that are forgotten
            self._ends = [(held.queued_at_s, key) for key, held in self._records.items()]
            heapq.heapify(self._ends)

    def _pop_due(self, now_s: float) -> list[Key]:
        due: list[Key] = []
        while self._ends and self._ends[0][0] <= now_s and len(due) < self._limits.ends_per_tick_max:
            at_s, key = heapq.heappop(self._ends)
            record = self._records.get(key)
            if record is None or record.queued_at_s != at_s:
                continue  # forgotten, or queued again for an earlier end
            record.queued_at_s = float("inf")
            if record.ends_at_s <= now_s:
                due.append(key)
            else:
                self._queue(key, record)
        return due

    # -- small things --------------------------------------------------------------------------------

    def _rank(self, key: Key) -> Rank | None:
        held = self._records.get(key)
        return _rank(held.claim) if held else self._remembered.get(key)

    def _lease_s(self, claim: Claim) -> float:
        return min(max(claim.lease_s, self._limits.lease_min_s), self._limits.lease_max_s)

    def _granted(self, known: bool, key: Key, incarnation: int) -> Granted:
        return Granted(known, incarnation, contested=self.is_contested(key[0]))

    def _listed(self, record: _Record, now_s: float) -> ListedClaim:
        return ListedClaim(record.claim, max(0.0, now_s - record.heard_at_s), record.state, record.hearsay)

    def _change(self, record: _Record, now_s: float) -> DirectoryChanged:
        self.seq += 1
        return DirectoryChanged(self.broker, self.incarnation, self.seq, self._listed(record, now_s))


def _rank(claim: Claim) -> Rank:
    """What decides between two claims of one key; of equal stamps the tombstone is the later."""
    return *claim.stamp, claim.deleted


def _check_size(claim: Claim) -> None:
    size = sum(len(endpoint) for endpoint in claim.endpoints) + 4 * len(claim.endpoints)
    if size > ENDPOINTS_BYTES_MAX:
        raise TooLarge(
            f"claim on root {shown(claim.root)}: endpoints of {size} bytes, the limit is {ENDPOINTS_BYTES_MAX}"
        )

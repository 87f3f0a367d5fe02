"""Machine: keep one claim listed at every broker of a list, for as long as it stands.

The publisher's side of `zcat.protocol.directory`. Each broker is told directly, so that nothing depends on
what brokers tell each other, and each has its own little conversation: announce, renew, renew, … A broker
that does not answer is asked again, ever more slowly; one that has forgotten the claim is told again.
"""

from dataclasses import dataclass, replace

from zcat.model.root import Claim
from zcat.protocol.brokers import Random, SendTo, backoff_s
from zcat.protocol.messages import Announce, Failed, Granted, Renew


@dataclass(frozen=True, slots=True)
class RaiseIncarnation:
    """Effect: a broker remembers a later life of ours. Persist one above, then `Announcer.update` the claim.

    Until then nothing is sent.
    """

    above: int


Effect = SendTo | RaiseIncarnation


@dataclass(frozen=True, slots=True)
class AnnouncerTimes:
    """The rhythm of one announcer. A lease should outlive several renewals; ten are the rule here."""

    renew_s: float = 2.0
    change_s: float = 0.5
    """At least so long between two announcements of a dataset tree that changes all the time."""
    answer_wait_s: float = 1.0
    """Then a message counts as lost; also the first step of the back-off."""
    backoff_max_s: float = 5.0


@dataclass(slots=True)
class _Conversation:
    """What one broker was told and has confirmed."""

    next_at_s: float
    told: Claim | None = None
    asked: Claim | None = None
    asked_id: int = 0
    asked_at_s: float = float("-inf")
    announcing: bool = False
    failures: int = 0
    contested: bool = False


class Announcer:
    """Keeps a claim listed. `update` tells of a change, `withdraw` of the end."""

    def __init__(
        self, claim: Claim, brokers_count: int, now_s: float, random: Random, times: AnnouncerTimes | None = None
    ) -> None:
        """Begin; the first `tick` announces to all.

        Args:
            claim: what to list; its incarnation is on the disk already.
            brokers_count: brokers that there are at the start, numbered from 0 as in `SendTo`.
            now_s: the time.
            random: for the jitter.
            times: the defaults if None.
        """
        self.claim = claim
        self._times = times or AnnouncerTimes()
        self._random = random
        self._brokers = {number: _Conversation(now_s) for number in range(brokers_count)}
        self._last_id = 0
        self._raising = False

    @property
    def listed_count(self) -> int:
        """How many brokers have confirmed the claim as it is now."""
        return sum(broker.told == self.claim for broker in self._brokers.values())

    @property
    def contested(self) -> bool:
        """A broker said that another owner claims the same root."""
        return any(broker.contested and not broker.failures for broker in self._brokers.values())

    def notes(self) -> dict[int, tuple[str, ...]]:
        """Say of each broker whether it lists the claim as it is now, and as contested."""
        return {
            number: ("listed",) * (broker.told == self.claim) + ("contested",) * broker.contested
            for number, broker in self._brokers.items()
        }

    def lists(self, broker: int) -> bool:
        """Say whether a broker has confirmed the claim as it is now."""
        return broker in self._brokers and self._brokers[broker].told == self.claim

    @property
    def is_withdrawn(self) -> bool:
        """The claim is withdrawn, and every broker has confirmed it."""
        return self.claim.deleted and self.listed_count == len(self._brokers)

    def add(self, broker: int, now_s: float) -> list[Effect]:
        """Take another broker: it is told at once."""
        self._brokers[broker] = _Conversation(now_s)
        return self.tick(now_s)

    def drop(self, broker: int) -> None:
        """Forget a broker."""
        del self._brokers[broker]

    def update(self, claim: Claim, now_s: float) -> list[Effect]:
        """Announce a later claim in place of the present one: another seq, or a new life."""
        assert claim.key == self.claim.key
        assert claim.stamp > self.claim.stamp
        if claim.incarnation > self.claim.incarnation:
            self._raising = False
        self.claim = claim
        for broker in self._brokers.values():
            if broker.failures == 0:  # one that does not answer keeps its slow rhythm
                broker.next_at_s = min(broker.next_at_s, max(now_s, broker.asked_at_s + self._times.change_s))
        return self.tick(now_s)

    def withdraw(self, now_s: float) -> list[Effect]:
        """Announce the tombstone, to all at once. Goes on until every broker has confirmed it."""
        for broker in self._brokers.values():
            broker.failures, broker.asked, broker.asked_at_s = 0, None, float("-inf")
        self._raising = False
        return self.update(replace(self.claim, seq=self.claim.seq + 1, deleted=True), now_s)

    def answered(self, broker: int, answer: Granted | Failed, id: int, now_s: float) -> list[Effect]:
        """Take what a broker answered to the message of that ``id``. A late answer changes nothing."""
        talk = self._brokers[broker]
        asked = talk.asked
        if asked is None or id != talk.asked_id:
            return []
        talk.asked = None
        if isinstance(answer, Failed):
            self._fail(talk, now_s)
            return []
        talk.failures = 0
        talk.contested = answer.contested
        outdone = answer.incarnation > self.claim.incarnation
        # Refused in the same life: our counter was lost, and a former life of ours had this number too
        refused = talk.announcing and not answer.known and asked == self.claim
        if outdone or refused:
            return self._outdone(talk, answer.incarnation, now_s)
        talk.told = asked if answer.known else None
        if talk.told == self.claim:
            talk.next_at_s = float("inf") if self.claim.deleted else now_s + self._times.renew_s
        else:
            talk.next_at_s = min(talk.next_at_s, max(now_s, talk.asked_at_s + self._times.change_s))
        return self.tick(now_s)

    def heard(self, broker: int, now_s: float) -> list[Effect]:
        """A broker answered something else: if it is one that was away, tell it now rather than when it is due."""
        talk = self._brokers[broker]
        if talk.failures == 0 or self._raising:
            return []
        talk.failures, talk.asked = 0, None
        talk.next_at_s = min(talk.next_at_s, now_s)
        return self.tick(now_s)

    def tick(self, now_s: float) -> list[Effect]:
        """Send what is due."""
        if self._raising:
            return []
        effects: list[Effect] = []
        for index, talk in self._brokers.items():
            if now_s < talk.next_at_s:
                continue
            if talk.asked is not None and now_s >= talk.asked_at_s + self._times.answer_wait_s:
                talk.failures += 1
            effects.append(self._ask(index, talk, now_s))
        return effects

    def next_deadline_s(self) -> float | None:
        """When `tick` wants to be called, or None while there is nothing to send."""
        at_s = min((talk.next_at_s for talk in self._brokers.values()), default=float("inf"))
        return None if self._raising or at_s == float("inf") else at_s

    def _ask(self, index: int, talk: _Conversation, now_s: float) -> SendTo:
        self._last_id += 1
        claim = self.claim
        talk.announcing = talk.told != claim
        talk.asked, talk.asked_id, talk.asked_at_s = claim, self._last_id, now_s
        talk.next_at_s = now_s + self._wait_s(talk.failures + 1)
        if talk.announcing:
            return SendTo(index, Announce(claim), self._last_id)
        return SendTo(index, Renew(claim.root, claim.owner, claim.incarnation, claim.seq), self._last_id)

    def _fail(self, talk: _Conversation, now_s: float) -> None:
        talk.failures += 1
        talk.next_at_s = now_s + self._wait_s(talk.failures)

    def _outdone(self, talk: _Conversation, above: int, now_s: float) -> list[Effect]:
        talk.told = None
        if self.claim.deleted:  # a later life is listed there, and this one ends
            talk.told, talk.next_at_s = self.claim, float("inf")
            return []
        talk.next_at_s = now_s + self._times.change_s
        self._raising = True
        return [RaiseIncarnation(max(above, self.claim.incarnation))]

    def _wait_s(self, failures: int) -> float:
        times = self._times
        if failures == 1:
            return times.answer_wait_s
        return backoff_s(failures, times.answer_wait_s, times.backoff_max_s, self._random)

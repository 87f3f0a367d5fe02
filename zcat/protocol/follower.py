"""Machine: keep a copy of one root's catalogue current.

The Clone pattern for one origin: the shell has subscribed to the root's events before it starts this;
events that come while the catalogue is on its way are held and applied to it afterwards. Every event has
its number in the origin's life (incarnation, seq). A number that is missing is asked for; when the origin
no longer has it, or lives a new life, the whole catalogue is asked for again. The origin's answer to a ping
says its number too, so that a lost last event is noticed within one ping.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from zcat.errors import BadMessage, ZcatError
from zcat.model.dataset import Entry, Kind
from zcat.protocol.codec import Buffer
from zcat.protocol.messages import Change, Changes, Events, Ping, Pong, Tree, TreePage
from zcat.protocol.pages import unpaged


@dataclass(frozen=True, slots=True)
class FollowerLimits:
    """How patient a follower is, and how much it holds."""

    ping_every_s: float = 1.5
    quiet_after_s: float = 3.5
    """Without an answer for so long, the origin counts as away."""
    answer_wait_s: float = 5.0
    """Then a catalogue or events are asked for again."""
    datasets_max: int = 1_000_000
    """A catalogue with more is refused."""
    restarts_max: int = 3
    """Lives that an origin may begin while its catalogue is on its way; then it has to settle first."""
    held_changes_max: int = 100_000
    """Events held while the catalogue is on its way; beyond, it is asked for once more instead."""


@dataclass(frozen=True, slots=True)
class AskOrigin:
    """Effect: send this to the origin."""

    message: Ping | Tree | Events


@dataclass(frozen=True, slots=True)
class Updated:
    """Effect: what these paths name is new, changed or gone."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Synced:
    """Effect: the catalogue is now as the origin's was at the number that `Follower.stamp` gives."""


Effect = AskOrigin | Updated | Synced


class Follower:
    """The catalogue of one root of one owner, as it was at `stamp`."""

    def __init__(self, root: str, owner: str, limits: FollowerLimits | None = None) -> None:
        self.root = root
        self.owner = owner
        self.catalogue: dict[str, Entry] = {}
        self.datasets_count = 0
        """Of the catalogue; its groups are none."""
        self.incarnation = 0
        self.seq = 0
        self.synced = False
        self._limits = limits or FollowerLimits()
        self._pages: tuple[Buffer, ...] = ()
        self._arriving: dict[str, Entry] = {}
        self._arriving_from: tuple[int, int] | None = None
        self._restarts = 0
        self._held: list[Changes] = []
        self._held_count = 0
        self._asked: Tree | Events | None = None
        self._asked_at_s = 0.0
        self._pinged_at_s = float("-inf")
        self.heard_at_s = float("-inf")
        """When the last sign of life came from the origin itself."""
        self._origin_seq = (0, 0)

    @property
    def stamp(self) -> tuple[int, int]:
        """(incarnation, seq) of the last event applied."""
        return self.incarnation, self.seq

    def restore(self, catalogue: dict[str, Entry], incarnation: int, seq: int) -> None:
        """Begin with a copy from a former run, which the first answer of the origin brings up to date."""
        self.catalogue, self.incarnation, self.seq = catalogue, incarnation, seq
        self.datasets_count = _count(catalogue.values())

    def take_pages(self) -> tuple[Buffer, ...]:
        """Give the catalogue in the pages that it came in, once; none if it took several messages, or changed."""
        pages, self._pages = self._pages, ()
        return pages

    def is_here(self, now_s: float) -> bool:
        """Say whether the origin was heard of lately."""
        return now_s < self.heard_at_s + self._limits.quiet_after_s

    def heard(self, now_s: float) -> None:
        """Note a sign of life: any message from the origin's own socket."""
        self.heard_at_s = now_s

    def connected(self, now_s: float) -> list[Effect]:
        """Begin with an origin: after a start, or when it moved. A reconnect is a gap."""
        self._asked = None
        self._pinged_at_s = now_s
        return [AskOrigin(Ping())]

    def tick(self, now_s: float) -> list[Effect]:
        """Ping when it is time; ask again for what did not come."""
        effects: list[Effect] = []
        if now_s >= self._pinged_at_s + self._limits.ping_every_s:
            self._pinged_at_s = now_s
            effects.append(AskOrigin(Ping()))
        if self._asked is not None and now_s >= self._asked_at_s + self._limits.answer_wait_s:
            self._asked, self._restarts = None, 0
            if self.is_here(now_s):
                effects += self._catch_up(now_s)
        return effects

    def pong(self, pong: Pong, now_s: float) -> list[Effect]:
        """Compare the origin's number with ours."""
        self.heard(now_s)
        self._origin_seq = pong.incarnation, pong.seq
        if pong.incarnation == self.incarnation and pong.seq < self.seq and self._asked is None:
            # Events that overtook this answer, or that the origin never sent: it refuses to go on from the latter
            return self._ask(Events(self.root, self.incarnation, self.seq), now_s)
        return self._catch_up(now_s)

    def page(self, page: TreePage, now_s: float) -> list[Effect]:
        """Take one part of the catalogue.

        Raises:
            BadMessage: a page cannot be read, or leads nowhere. The catalogue is asked for again, later.
        """
        if not isinstance(self._asked, Tree) or (page.root, page.owner) != (self.root, self.owner):
            return []  # the answer to a question that was given up, or of somebody else
        self.heard(now_s)
        if self._arriving_from is None:
            self._arriving_from = page.incarnation, page.seq
        elif self._arriving_from[0] != page.incarnation:  # the origin restarted between two parts
            self._restarts += 1
            return self._ask_tree(now_s) if self._restarts <= self._limits.restarts_max else []
        is_whole = not self._arriving and page.next is None
        self._take_part(page, self._asked.after)
        if page.next is not None:
            return self._ask(Tree(self.root, after=page.next), now_s)
        arrived, (self.incarnation, self.seq) = self._arriving, self._arriving_from
        self._arriving, self._arriving_from, self._asked, self._restarts = {}, None, None, 0
        self._pages = page.pages if is_whole else ()
        effects = self._replace(arrived)
        effects += self._apply_held(now_s)
        return effects + self._catch_up(now_s)

    def changes(self, message: Changes, now_s: float) -> list[Effect]:
        """Take events: published, or the answer to a question for missed ones.

        Raises:
            BadMessage: a page cannot be read.
        """
        if (message.root, message.owner) != (self.root, self.owner) or message.incarnation < self.incarnation:
            return []
        if isinstance(self._asked, Tree) or message.incarnation > self.incarnation or self.incarnation == 0:
            self._origin_seq = max(self._origin_seq, (message.incarnation, message.first_seq))
            self._hold(message)
            return self._catch_up(now_s)
        if message.first_seq > self.seq + 1:
            self._origin_seq = max(self._origin_seq, (message.incarnation, message.first_seq))
            self._hold(message)
            return self._catch_up(now_s)
        effects = self._apply(message)
        if isinstance(self._asked, Events) and (self.seq > self._asked.since or not message.pages):
            self._asked = None  # an answer without events: there are none
        effects += self._apply_held(now_s)
        return effects + self._catch_up(now_s)

    def failed(self, error: ZcatError, now_s: float) -> list[Effect]:
        """The origin refused a question: it no longer has those events, or no such root."""
        self.heard(now_s)
        if isinstance(self._asked, Events):
            return self._ask_tree(now_s)
        return []  # a refused catalogue is asked for again when `answer_wait_s` is over

    def _catch_up(self, now_s: float) -> list[Effect]:
        """Ask for what is missing, if anything is, and nothing is asked already."""
        if self._asked is not None:
            return []
        if self.incarnation == 0 or self._origin_seq[0] not in (0, self.incarnation):
            return self._ask_tree(now_s)
        if self._origin_seq > self.stamp:
            self.synced = False
            return self._ask(Events(self.root, self.incarnation, self.seq), now_s)
        if not self.synced and self._origin_seq[0]:
            self.synced = True
            return [Synced()]
        return []

    def _take_part(self, page: TreePage, after: str) -> None:
        """Add a part to what has arrived; parts that do not go on behind ``after`` would never end."""
        entries = unpaged(Entry, page.pages)
        places = [after, *(entry.path for entry in entries)]
        if not all(low < high for low, high in pairwise(places)) or page.next not in (None, places[-1]):
            raise BadMessage(f"root {self.root}: a part of its catalogue is out of order")
        if page.next is not None and not entries:
            raise BadMessage(f"root {self.root}: a part of its catalogue is empty and not the last")
        if len(self._arriving) + len(entries) > self._limits.datasets_max:
            raise BadMessage(f"root {self.root}: more than {self._limits.datasets_max} datasets")
        self._arriving.update(zip(places[1:], entries, strict=True))

    def _ask_tree(self, now_s: float) -> list[Effect]:
        self.synced = False
        self._arriving, self._arriving_from = {}, None
        return self._ask(Tree(self.root), now_s)

    def _ask(self, message: Tree | Events, now_s: float) -> list[Effect]:
        self._asked, self._asked_at_s = message, now_s
        return [AskOrigin(message)]

    def _hold(self, message: Changes) -> None:
        self._held.append(message)
        self._held_count += sum(len(page) for page in message.pages) // 64 + 1
        if self._held_count > self._limits.held_changes_max:
            self._held, self._held_count = [], 0  # the gap shows by its numbers, and is asked for

    def _apply_held(self, now_s: float) -> list[Effect]:
        effects: list[Effect] = []
        held = sorted(self._held, key=lambda message: (message.incarnation, message.first_seq))
        self._held, self._held_count = [], 0
        for message in held:
            if message.incarnation == self.incarnation and message.first_seq <= self.seq + 1:
                effects += self._apply(message)
            elif message.incarnation >= self.incarnation:
                self._hold(message)
        return effects

    def _apply(self, message: Changes) -> list[Effect]:
        applied = []
        for number, change in enumerate(unpaged(Change, message.pages), message.first_seq):
            if number == self.seq + 1:
                self.seq = number
                applied.append(change.path)
                before, entry = self.catalogue.pop(change.path, None), change.entry
                if entry is not None:
                    self.catalogue[change.path] = entry
                self.datasets_count += _count([entry]) - _count([before])
        self._origin_seq = max(self._origin_seq, self.stamp)
        if not applied:
            return []
        self._pages = ()
        return [Updated(tuple(applied))]

    def _replace(self, arrived: dict[str, Entry]) -> list[Effect]:
        before, self.catalogue = self.catalogue, arrived
        self.datasets_count = _count(arrived.values())
        same_life = self._origin_seq[0] == self.incarnation
        self._origin_seq = max(self._origin_seq, self.stamp) if same_life else self.stamp
        gone = [path for path in before if path not in arrived]
        new = [path for path, entry in arrived.items() if before.get(path) != entry]
        return [Updated((*gone, *new))] if gone or new else []


def _count(entries: Iterable[Entry | None]) -> int:
    return sum(entry is not None and entry.kind is not Kind.GROUP for entry in entries)

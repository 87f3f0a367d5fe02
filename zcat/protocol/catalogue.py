"""The catalogue of a root at its origin: what it holds, and what changed in which order.

Only real differences become events. Each has the next number, ``seq``; a follower that missed some asks for
them by number, and for the whole tree when they are no longer held. Entries are kept packed as they travel,
so that an answer is a join of bytes. Sans-IO: looking at disks and sending is somebody else's.
"""

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from zcat.errors import DatasetUnknown, Stale
from zcat.limits import CONTROL_FRAME_BYTES_MAX, MIB, PAGES_PER_MESSAGE_MAX
from zcat.model.dataset import Entry
from zcat.names import shown
from zcat.protocol.codec import pack, to_plain
from zcat.protocol.messages import Change, Changes, TreePage
from zcat.protocol.pages import paged_packed

EVENTS_MAX = 16384
EVENTS_BYTES_MAX = 2 * MIB
"""Events that are held for repairs. They fit one message: a page is at least half full, and has 64 KiB."""

TREE_BYTES_MAX = PAGES_PER_MESSAGE_MAX * CONTROL_FRAME_BYTES_MAX // 2
ANSWERS_HELD_MAX = 64


class Catalogue:
    """One root's datasets in one life of its publisher. Belongs to one thread."""

    def __init__(self, root: str, owner: str, incarnation: int, entries: Iterable[Entry] = ()) -> None:
        """Begin a life with ``entries``; they are no events, since nobody has followed this life before."""
        self.root = root
        self.owner = owner
        self.incarnation = incarnation
        self.seq = 0
        """Number of the last event."""
        self._entries = {entry.path: entry for entry in entries}
        self._packed = {path: pack(to_plain(entry)) for path, entry in self._entries.items()}
        self._paths = sorted(self._entries)
        self._events: deque[bytes] = deque()  # packed `Change`s; the last one is number ``seq``
        self._events_bytes = 0
        self._answers: dict[str, TreePage] = {}
        self._digest: bytes | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[path] for path in self._paths])

    def get(self, path: str) -> Entry | None:
        """Give the line of ``path``, if there is one."""
        return self._entries.get(path)

    def entry(self, path: str) -> Entry:
        """Give the line of ``path``.

        Raises:
            DatasetUnknown: there is none.
        """
        entry = self._entries.get(path)
        if entry is None:
            raise DatasetUnknown(f"root {self.root!r} has no dataset {shown(path)}")
        return entry

    def known(self) -> dict[str, Entry]:
        """Copy the lines, by path: for another thread, which compares them with the disk."""
        return dict(self._entries)

    @property
    def digest(self) -> bytes:
        """Name the whole content in 32 bytes: equal catalogues have equal ones, whatever their history."""
        if self._digest is None:
            made = hashlib.sha256()
            for path in self._paths:
                made.update(self._packed[path])
            self._digest = made.digest()
        return self._digest

    def apply(self, changes: Iterable[Change]) -> list[Changes]:
        """Take over what was seen on disk.

        Returns:
            What to publish: the real differences, numbered; nothing when there is none.
        """
        news = [packed for change in changes if (packed := self._apply_one(change)) is not None]
        if not news:
            return []
        self._answers.clear()
        self._digest = None
        first = self.seq + 1
        self.seq += len(news)
        self._events.extend(news)
        self._events_bytes += sum(map(len, news))
        while len(self._events) > EVENTS_MAX or self._events_bytes > EVENTS_BYTES_MAX:
            self._events_bytes -= len(self._events.popleft())
        return [self._changes(first + at, part) for at, part in _parts(news)]

    def events(self, incarnation: int, since: int) -> Changes:
        """Give the events after number ``since`` of the life ``incarnation``, all in one message.

        Raises:
            Stale: of another life, or no longer held; the tree has to be asked for anew.
        """
        if incarnation != self.incarnation or since > self.seq:
            raise Stale(
                f"root {self.root!r} is in its life {self.incarnation} at event {self.seq}; "
                f"asked for those of life {incarnation} after {since}: ask for the tree"
            )
        missing = self.seq - since
        if missing > len(self._events):
            raise Stale(
                f"root {self.root!r} holds its last {len(self._events)} events, not {missing}: ask for the tree"
            )
        wanted = list(self._events)[len(self._events) - missing :]
        return self._changes(since + 1, wanted)

    def tree(self, after: str = "") -> TreePage:
        """Give the lines behind the path ``after``, as many as one message carries, in order of path.

        The catalogue may change between two parts of a tree: each says at which event it was taken.
        """
        held = self._answers.get(after)
        if held is None:
            held = self._tree(after)
            if len(self._answers) < ANSWERS_HELD_MAX:
                self._answers[after] = held
        return replace(held, seq=self.seq)

    # -- private -------------------------------------------------------------------------------------

    def _apply_one(self, change: Change) -> bytes | None:
        """Change one line; give the packed event, or None when there is no difference."""
        path, entry = change.path, change.entry
        held = self._entries.get(path)
        if held == entry:
            return None
        if entry is None:
            del self._entries[path], self._packed[path]
            del self._paths[bisect_left(self._paths, path)]
        else:
            if held is None:
                insort(self._paths, path)
            self._entries[path] = entry
            self._packed[path] = pack(to_plain(entry))
        return pack(to_plain(change))

    def _changes(self, first_seq: int, packed: Sequence[bytes]) -> Changes:
        return Changes(self.root, self.owner, self.incarnation, first_seq, tuple(paged_packed(packed)))

    def _tree(self, after: str) -> TreePage:
        begin = bisect_right(self._paths, after) if after else 0
        size, end = 0, begin
        while end < len(self._paths):
            size += len(self._packed[self._paths[end]])
            if size > TREE_BYTES_MAX:
                break
            end += 1
        pages = paged_packed(self._packed[path] for path in self._paths[begin:end])
        following = self._paths[end - 1] if end < len(self._paths) else None
        return TreePage(self.root, self.owner, self.incarnation, self.seq, following, tuple(pages))


def _parts(packed: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Cut packed events into what fits a message each; with the index of each part's first one."""
    begin, size = 0, 0
    for at, one in enumerate(packed):
        if size + len(one) > EVENTS_BYTES_MAX:
            yield begin, packed[begin:at]
            begin, size = at, 0
        size += len(one)
    yield begin, packed[begin:]

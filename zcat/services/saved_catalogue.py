"""The catalogue of one followed root on disk, for a start without a network.

It is kept in pages as they travel, so that what came by wire needs not be packed anew. What changed since then
does: that takes half a second for a hundred thousand datasets, in which the loop would answer nobody, so a thread
of the subscriber's does it, one catalogue at a time and in the order of the calls.
"""

import logging
from dataclasses import dataclass
from functools import partial

from zcat.errors import BadMessage, ZcatError
from zcat.logs import kv
from zcat.model.dataset import Entry
from zcat.protocol.codec import Buffer, pack, unpack
from zcat.protocol.pages import paged, unpaged
from zcat.services.workers import Workers
from zcat.storage.chunk_cache import ChunkCache

SAVE_EVERY_S = 5.0
"""At most so often while the catalogue changes."""

_BYTES_MAX = 1 << 30  # our own file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A catalogue as of one event."""

    entries: list[Entry]
    incarnation: int
    seq: int
    pages: tuple[Buffer, ...] = ()
    """The entries as they came, if nothing changed since then; see ``protocol.pages``."""

    @property
    def stamp(self) -> tuple[int, int]:
        """(incarnation, seq)."""
        return self.incarnation, self.seq


class SavedCatalogue:
    """The file of one root and owner. Lives on the loop's thread."""

    def __init__(self, cache: ChunkCache, root: str, owner: str, writer: Workers) -> None:
        """Say where.

        Args:
            cache: whose folder it is in.
            root: its name.
            owner: its owner's key.
            writer: has one thread.
        """
        self._cache = cache
        self._root = root
        self._owner = owner
        self._writer = writer
        self._stamp = (0, 0)  # of the last that was saved, or is being saved
        self._save_at_s = float("-inf")

    def load(self) -> Snapshot | None:
        """Return what was saved last; None if that is nothing, or nothing that can be read."""
        blob = self._cache.load_catalogue(self._root, self._owner)
        if blob is None:
            return None
        try:
            saved = unpack(blob, _BYTES_MAX)
            snapshot = Snapshot(unpaged(Entry, saved["pages"]), int(saved["incarnation"]), int(saved["seq"]))
        except (BadMessage, KeyError, TypeError, ValueError) as error:
            log.warning(
                "saved catalogue is unreadable, it is asked for again %s", kv(root=self._root, reason=error)
            )
            return None
        self._stamp = snapshot.stamp
        return snapshot

    def is_due(self, stamp: tuple[int, int], now_s: float) -> bool:
        """Say whether a catalogue of this stamp should be saved now."""
        return stamp != self._stamp and now_s >= self._save_at_s

    def save(self, snapshot: Snapshot, now_s: float) -> None:
        """Have it written soon. A failure is logged, and it is due again."""
        self._save_at_s = now_s + SAVE_EVERY_S
        if snapshot.stamp != self._stamp:
            self._stamp = snapshot.stamp
            self._writer.do(partial(self._write, snapshot))

    def forget(self) -> None:
        """Remove the file, after all that is being written."""
        self._writer.do(partial(self._cache.forget, self._root, self._owner))

    def _write(self, snapshot: Snapshot) -> None:
        plain = {
            "incarnation": snapshot.incarnation,
            "seq": snapshot.seq,
            "pages": list(map(bytes, snapshot.pages or paged(snapshot.entries))),
        }
        try:
            self._cache.save_catalogue(self._root, self._owner, pack(plain))
        except ZcatError as error:
            self._stamp = (0, 0)
            log.warning("catalogue not saved %s", kv(root=self._root, reason=error))

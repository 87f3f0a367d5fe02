"""The origin of one root: its catalogue, kept current by looking at the disk, and what it answers to peers.

The catalogue lives on the loop's thread. Looks at the disk are made by a worker, one at a time, because
something changed, because a read found that something had, or because a file was being written a moment ago.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from zcat import __version__
from zcat.errors import Busy, Closed, RootUnknown, Stale, VerbUnknown, ZcatError
from zcat.limits import MIB
from zcat.logs import kv
from zcat.net.loop import Loop
from zcat.protocol.block_messages import Blocks, BlocksReply
from zcat.protocol.catalogue import Catalogue
from zcat.protocol.compare_messages import Compare, Compared
from zcat.protocol.messages import (
    Changes,
    ChunkReply,
    Chunks,
    Events,
    Info,
    InfoReply,
    Message,
    Pong,
    Sizes,
    SizesReply,
    Tree,
)
from zcat.services.workers import Workers, hand_over
from zcat.storage.block_layout import ChunkPart
from zcat.storage.root import Chunk, Looked, Root

RETRY_S = 2.0
"""After the root could not be looked at."""
COMPARED_BYTES_MAX = 64 * MIB
COMPARED_S = 0.5
"""So much is read for one `Compare`, and for so long; what comes after it is not looked at."""

log = logging.getLogger(__name__)

_Paths = set[str] | None  # None: everywhere


class RootOrigin:
    """What a ``RequestServer`` asks. Lives on the loop's thread, but for `something_changed` and `read`."""

    def __init__(
        self,
        root: Root,
        catalogue: Catalogue,
        loop: Loop,
        on_changes: Callable[[list[Changes]], None],
        settle_s: float,
    ) -> None:
        """Begin with what is known.

        Args:
            root: to look at and to read from.
            catalogue: as of a first look.
            loop: whose thread this lives on.
            on_changes: told of the events to publish.
            settle_s: how soon to look again at a file that is being written.
        """
        self.catalogue = catalogue
        self._root = root
        self._loop = loop
        self._on_changes = on_changes
        self._settle_s = settle_s
        self._looker = Workers("look", 1)
        self.is_tracking = False
        """Readers are sent to one another, and may say what they hold."""
        self._wanted: _Paths = set()
        self._is_looking = False
        self._unsettled: set[str] = set()
        self._is_settling = False

    def close(self) -> None:
        """End the looks, before the root is closed."""
        self._looker.close()

    def new_life(self, incarnation: int) -> None:
        """Begin a new life with the same content: followers will ask for the tree."""
        old = self.catalogue
        self.catalogue = Catalogue(old.root, old.owner, incarnation, old)

    # -- answers -------------------------------------------------------------------------------------

    def pong(self) -> Pong:
        """Say who answers, and at which event the catalogue is."""
        c = self.catalogue
        return Pong("publisher", c.owner, c.incarnation, c.seq, __version__, tracks=self.is_tracking)

    def admit(self, message: Message) -> None:
        """Refuse what is not for this root.

        Raises:
            RootUnknown, DatasetUnknown, VerbUnknown: the answer to the whole request.
        """
        if not isinstance(message, Tree | Events | Info | Chunks | Blocks | Sizes | Compare):
            raise VerbUnknown(f"a publisher does not answer {message.verb!r}")
        if message.root != self.catalogue.root:
            raise RootUnknown(f"this publisher serves {self.catalogue.root!r}, not {message.root[:64]!r}")
        if isinstance(message, Info | Chunks | Blocks | Sizes | Compare):
            self.catalogue.entry(message.path)

    def at_hand(self, message: Message) -> Message | None:
        """Answer from the catalogue; None for what has to be read.

        Raises:
            Stale: the events asked for are no longer held.
        """
        match message:
            case Tree():
                return self.catalogue.tree(message.after)
            case Events():
                return self.catalogue.events(message.incarnation, message.since)
        return None

    def read(self, message: Message, nchunk: int | None) -> Message:
        """Read the answer from the disk. Called by any thread.

        Raises:
            ZcatError: as ``Root`` says.
        """
        match message:
            case Info():
                info = self._root.info(message.path)
                self._post(partial(self._seen, message.path, info.entry.lineage))
                return InfoReply.of(info)
            case Sizes():
                return SizesReply(message.lineage, (self._root.sizes(message.path, message.lineage),))
        assert isinstance(message, Chunks | Blocks | Compare)
        try:
            if isinstance(message, Compare):
                return self._compare(message)
            assert nchunk is not None
            read = self._read_chunk(message, nchunk)
        except Stale:
            self._post(partial(self._doubt, message.path, message.lineage))
            raise
        if isinstance(read, Chunk):
            return ChunkReply(message.lineage, nchunk, read.digest, (read.data,))
        frames = bytes(read.head), bytes(read.data)
        return BlocksReply(message.lineage, nchunk, read.blocks, read.digest, read.whole_digest, frames)

    def _compare(self, message: Compare) -> Compared:
        same: list[int] = []
        nbytes, until_s = 0, self._loop.now_s() + COMPARED_S
        for place, nchunk in enumerate(message.chunks):
            chunk = self._root.chunk(message.path, message.lineage, nchunk)
            if chunk.digest == message.digest(place):
                same.append(nchunk)
            nbytes += len(chunk.data)
            if nbytes >= COMPARED_BYTES_MAX or self._loop.now_s() >= until_s:
                break
        return Compared(message.lineage, tuple(same))

    def _read_chunk(self, message: Chunks | Blocks, nchunk: int) -> Chunk | ChunkPart:
        if isinstance(message, Chunks):
            return self._root.chunk(message.path, message.lineage, nchunk)
        part = next(part for part in message.parts if part.nchunk == nchunk)
        return self._root.part(message.path, message.lineage, nchunk, part.blocks, part.vouch)

    # -- looks ---------------------------------------------------------------------------------------

    def something_changed(self, paths: _Paths) -> None:
        """Look soon at these paths, or everywhere. Called by any thread."""
        self._post(partial(self._look, paths))

    def _post(self, action: Callable[[], None]) -> None:
        with suppress(Closed, Busy):  # Busy: the next full look sees it
            self._loop.post(action)

    def _seen(self, path: str, lineage: str) -> None:
        """A read met this version; if the catalogue has another, the disk was faster than its notice."""
        entry = self.catalogue.get(path)
        if entry is None or entry.lineage != lineage:
            self._look({path})

    def _doubt(self, path: str, lineage: str) -> None:
        """A read found this version gone; if the catalogue still has it, the disk was faster than its notice."""
        entry = self.catalogue.get(path)
        if entry is not None and entry.lineage == lineage:
            self._look({path})

    def _look(self, paths: _Paths) -> None:
        self._wanted = None if paths is None or self._wanted is None else self._wanted | paths
        self._look_if_wanted()

    def _look_if_wanted(self) -> None:
        if self._is_looking or self._wanted == set():
            return
        wanted, self._wanted = self._wanted, set()
        self._is_looking = True
        self._looker.do(partial(self._look_now, wanted, self.catalogue))

    def _look_now(self, wanted: _Paths, catalogue: Catalogue) -> None:
        """Look at the disk, in the looker's thread: nobody changes the catalogue meanwhile."""
        try:
            looked = self._root.look(wanted, catalogue.known())
        except ZcatError as error:
            hand_over(self._loop, partial(self._look_failed, error))
        except Exception:  # the top of this thread; a look that nobody hears of would be the last one
            log.exception("bug in=look")
            hand_over(self._loop, partial(self._look_failed, ZcatError("internal error")))
        else:
            hand_over(self._loop, partial(self._looked, looked))

    def _looked(self, looked: Looked) -> None:
        self._is_looking = False
        messages = self.catalogue.apply(looked.changes)
        if messages:
            self._on_changes(messages)
        self._unsettled |= looked.unsettled
        if self._unsettled and not self._is_settling:
            self._is_settling = True
            self._loop.call_after(self._settle_s, self._look_again)
        self._look_if_wanted()

    def _look_failed(self, error: ZcatError) -> None:
        log.warning("the root cannot be looked at %s", kv(root=self.catalogue.root, code=error.code, reason=error))
        self._is_looking = False
        self._loop.call_after(RETRY_S, partial(self._look, None))

    def _look_again(self) -> None:
        self._is_settling = False
        unsettled, self._unsettled = self._unsettled, set()
        self._look(unsettled)

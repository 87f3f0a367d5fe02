"""What the HTTP side needs of a subscriber, and nothing more.

The app is made over anything of this shape: the real subscriber, one that lives in another process, or a
test's dictionary of arrays. All calls block, are safe from several threads and raise only ``ZcatError``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy.typing as npt

from zcat.model.dataset import DatasetInfo, Entry
from zcat.model.selection import Indices, Points, Selection

Buffer: TypeAlias = bytes | bytearray | memoryview
T = TypeVar("T")
FrameOf: TypeAlias = Callable[[Any], "Frame"]
"""Makes a `Frame` of a dataset; of a file, the frame that holds its bytes."""


class Frame(Protocol):
    """A dataset as one contiguous Blosc2 frame: always the same bytes for one version."""

    @property
    def nbytes(self) -> int:
        """Of the whole frame."""

    @property
    def local(self) -> bool:
        """All of it is at hand: `iter_bytes` waits for no other host, and its views are good until `close`."""

    def iter_bytes(self, start: int = 0, stop: int | None = None) -> Iterator[Buffer]:
        """Yield bytes ``start`` to ``stop`` in order, fetching as it goes.

        A view is good until the next one is asked for.
        """

    def close(self) -> None:
        """Let go of what the views show."""


class Dataset(Protocol):
    """One version of a dataset."""

    @property
    def info(self) -> DatasetInfo:
        """All that is known of it besides its chunks."""

    @property
    def complete(self) -> bool:
        """All its chunks are in the cache."""

    def read(self, what: Selection | Points) -> npt.NDArray[Any]:
        """Return the items of an array, in C order, as a block of the selection's shape."""

    @property
    def in_blocks(self) -> bool:
        """Chunks that are missing can be fetched in blocks."""

    def parts(
        self, what: Selection, window_bytes: int | None = None
    ) -> Iterator[tuple[tuple[slice, ...], npt.NDArray[Any]]]:
        """Read a box part by part: the place of each in a block of its shape, and its items."""

    def bring(self, chunks: Indices) -> None:
        """Have chunks fetched that are not in the cache."""

    def views(self, windows: Sequence[Indices], bulk: bool = True) -> Iterator[tuple[int, Buffer]]:
        """Yield the compressed chunks of ``windows``, verified; each is good until the next is asked for."""

    def missing_count(self, chunks: Indices) -> int:
        """Say how many of these chunks would have to be fetched."""

    def read_bytes(self, start: int, stop: int) -> Buffer:
        """Return content bytes of a byte frame or file."""

    def chunk(self, nchunk: int) -> Buffer:
        """Return one compressed chunk, verified."""

    def chunks(self, numbers: Indices) -> list[bytes]:
        """Return several compressed chunks, verified, in the order of ``numbers``."""


class RootState(Protocol):
    """What is known of a root."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def owner(self) -> str | None: ...  # noqa: D102
    @property
    def state(self) -> str: ...  # noqa: D102
    @property
    def followed(self) -> bool: ...  # noqa: D102
    @property
    def contested(self) -> bool: ...  # noqa: D102
    @property
    def datasets(self) -> int | None: ...  # noqa: D102
    @property
    def synced(self) -> bool: ...  # noqa: D102


class Network(Protocol):
    """What asks others how they are."""

    def brokers(self) -> Sequence[Any]:
        """Return a ``BrokerView`` of each broker."""

    def peers(self, is_asked: bool = True) -> Sequence[Any]:
        """Return a ``PeerView`` of each publisher and subscriber, which are asked themselves, too, or not."""


class Reads(Protocol):
    """What answers: a subscriber."""

    @property
    def survey(self) -> Network:
        """What asks others how they are."""

    def roots(self) -> list[Any]:
        """Return a `RootState` of every root that is known."""

    def follow(self, root: str) -> Any:
        """Begin to follow a root, given as ``name`` or ``name@owner``."""

    def unfollow(self, root: str) -> None:
        """Stop following a root."""

    def entries(self, root: str, under: str = "") -> list[Entry]:
        """Return the catalogue by path: of the root, of a folder, or the one line of a dataset."""

    def on_version(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        """Run ``work`` on the newest version, and again if that turns out to be stale."""

    def at_hand(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        """Run ``work`` on the newest version if that takes no more than a moment; else raise `NotAtHand`."""

    def health(self) -> dict[str, Any]:
        """Say how the subscriber is; ``"status"`` is ``"ok"`` or ``"degraded"``."""

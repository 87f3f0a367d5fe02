"""What the Python interface needs of whoever has the data: a subscriber over HTTP, or one in this process."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from zcat.client.preview import Preview
from zcat.errors import Unavailable
from zcat.model.dataset import DatasetInfo, Kind
from zcat.model.reduction import Fit
from zcat.model.selection import Points, Selection


class Address(NamedTuple):
    """Where a dataset is."""

    root: str
    """``name``, or ``name@owner`` where several publishers claim the name."""
    path: str

    def __str__(self) -> str:
        return f"{self.root}/{self.path}" if self.path else self.root


@dataclass(frozen=True, slots=True)
class RootInfo:
    """One root, as the subscriber sees it now."""

    name: str
    owner: str | None
    """Key of its publisher: 32 hexadecimal digits."""
    state: str
    """``live``, ``stale``, ``lapsed`` or ``withdrawn`` as the brokers say; ``cached``: known from a former run."""
    followed: bool
    contested: bool
    """Several publishers claim the name; they differ in ``owner``."""
    datasets: int | None
    """Number of its datasets; None until its catalogue is there."""
    synced: bool
    """The catalogue is known to be current."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing."""

    path: str
    """In the root."""
    kind: Kind
    shape: tuple[int, ...] | None
    dtype: str | None
    nbytes: int
    """Of the content, uncompressed."""
    cbytes: int
    """On the publisher's disk."""
    mtime_ns: int
    """Since 1970-01-01 UTC; over HTTP in whole microseconds."""
    problem: str | None
    """Why the content cannot be offered; None for nearly all."""


@dataclass(frozen=True, slots=True)
class Body:
    """A dataset as the bytes of a file, from some byte on."""

    tag: str
    """Names the bytes: two bodies of one tag are the same file."""
    start: int
    """The first byte that ``pieces`` gives."""
    nbytes: int
    """Of the whole file."""
    pieces: Iterable[bytes | bytearray | memoryview]
    """The rest of the file; each piece is good until the next is asked for."""


class BodyCut(Unavailable):
    """The other side ended an answer before its end: it went away, or the dataset changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a read is about."""

    address: Address
    info: DatasetInfo
    exact: bool
    """Only this lineage will do. Else an answer that consists of one part may be of another one of equal form."""


@dataclass(frozen=True, slots=True)
class PreviewKey:
    """Of what a preview is wanted, and how large."""

    key: Any
    """A NumPy key of integers and slices."""
    fit: Fit
    field: str | None
    is_exact: bool
    """Made of all items, however many there are."""


class Backend(Protocol):
    """Who has the data. Every method blocks, is safe from several threads, and raises only ``ZcatError``."""

    @property
    def url(self) -> str:
        """Who it is, for people and for the names that dask gives."""

    def roots(self) -> list[RootInfo]:
        """Return all roots that are known, by name."""

    def follow(self, root: str) -> None:
        """Begin to follow a root."""

    def unfollow(self, root: str) -> None:
        """Stop following a root."""

    def listing(self, root: str, under: str) -> list[Listed]:
        """Return the datasets of a root, or those under a folder, or one dataset; by path."""

    def info(self, address: Address) -> DatasetInfo:
        """Return what is known of the newest version.

        Raises:
            DatasetUnknown: there is no such dataset; it may be a folder.
        """

    def attributes(self, address: Address) -> dict[str, Any]:
        """Return the attributes of a dataset, a group or a root; none of a folder.

        Raises:
            DatasetUnknown: there is no such thing.
        """

    def read(self, asked: Asked, what: Selection | Points, field: str | None) -> npt.NDArray[Any]:
        """Read items of an array, all of one version.

        Args:
            asked: of which version.
            what: not empty.
            field: of a structured dtype, to read it alone; one without a shape of its own.

        Returns:
            An array of ``what.shape``, or ``(npoints,)``.

        Raises:
            Stale: the dataset is, or has meanwhile become, another one than ``asked.info`` describes.
        """

    def preview(self, asked: Asked, what: PreviewKey) -> Preview:
        """Read a part of an array made small.

        Raises:
            BadSelection: its items have no such preview.
            Stale: as for `read`.
        """

    def read_bytes(self, asked: Asked, start: int, stop: int) -> bytes | bytearray:
        """Read content bytes of a byte frame or file, all of one version; ``start < stop``.

        Raises:
            Stale: as for `read`.
        """

    def body(self, address: Address, start: int, tag: str | None) -> AbstractContextManager[Body]:
        """Open the newest version as a file: from byte ``start`` if its tag is still ``tag``, else from 0."""

    def health(self) -> dict[str, Any]:
        """Say how the subscriber is."""

    def network(self, what: str, is_asked: bool = True) -> list[dict[str, Any]]:
        """Tell how the ``brokers`` or the ``peers`` are; of these, whether they are asked themselves."""

    def close(self) -> None:
        """Let go of connections, threads and files."""

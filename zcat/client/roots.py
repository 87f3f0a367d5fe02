"""Roots: what there is in one, by name."""

from collections.abc import Iterable, Iterator
from typing import Any

from zcat.client.array import Array
from zcat.client.backend import Address, Backend, Listed, RootInfo
from zcat.client.byte_frame import ByteFrame
from zcat.client.dataset import Dataset
from zcat.errors import BadName, DatasetUnknown, NotReadable, RootContested, RootUnknown
from zcat.names import check_path, parse_root, shown


class Root:
    """A named tree of datasets, as the subscriber sees it.

    Iteration, ``len`` and ``in`` ask the subscriber each time; they need a root that is followed. What `state`,
    `followed` and the like say is of the time when the object was made, or `refresh`-ed.

    Example:
        >>> root = zcat.connect()["weather"].follow()
        >>> "2024/wind.b2nd" in root
        True
        >>> root["2024/wind.b2nd"][0]
        >>> print(root.tree())
    """

    def __init__(self, backend: Backend, name: str, info: RootInfo) -> None:
        """Usually called by `Client`, as ``client["weather"]``."""
        self._backend = backend
        self._name = name
        self._info = info

    @property
    def name(self) -> str:
        """As it was asked for: ``name``, or ``name@owner``."""
        return self._name

    @property
    def owner(self) -> str | None:
        """Key of its publisher: 32 hexadecimal digits; None if nobody knows."""
        return self._info.owner

    @property
    def state(self) -> str:
        """``live``, ``stale``, ``lapsed`` or ``withdrawn`` as the brokers say; ``cached``: from a former run."""
        return self._info.state

    @property
    def followed(self) -> bool:
        """The subscriber knows what is in it, and offers that."""
        return self._info.followed

    @property
    def contested(self) -> bool:
        """Several publishers claim the name: ask for ``name@owner``."""
        return self._info.contested

    @property
    def synced(self) -> bool:
        """The subscriber's catalogue is known to be current."""
        return self._info.synced

    def follow(self) -> "Root":
        """Make the subscriber follow it, for all who use that subscriber; return this root.

        Raises:
            RootContested, RootUnknown: as the subscriber says.
            Timeout: its catalogue did not come in time.
        """
        self._backend.follow(self._name)
        return self.refresh()

    def unfollow(self) -> None:
        """Make the subscriber stop following it, for all who use that subscriber.

        Raises:
            RootNotFollowed: it was not followed.
        """
        self._backend.unfollow(self._name)
        self.refresh()

    def refresh(self) -> "Root":
        """Ask again how it is; return this root.

        Raises:
            RootUnknown: it is gone.
        """
        self._info = find_root(self._backend, self._name)
        return self

    def list(self, under: str = "") -> list[Listed]:
        """Return what there is, by path: in all of it, or in a folder.

        Raises:
            RootNotFollowed: follow it first.
        """
        return self._backend.listing(self._name, check_path(under) if under else "")

    def attributes(self, path: str = "") -> dict[str, Any]:
        """Return the attributes of a dataset, or of a group of an HDF5 file; a folder has none.

        Args:
            path: of it; empty for the root itself, which has some if it is an HDF5 file.

        Raises:
            DatasetUnknown: there is no such thing.
        """
        return self._backend.attributes(Address(self._name, check_path(path) if path else ""))

    def tree(self, under: str = "") -> str:
        """Draw the folders and datasets, one line each."""
        skipped = len(under) + 1 if under else 0
        lines = [f"{self._name}/{under}".rstrip("/")]
        lines += draw_tree((entry.path[skipped:] or entry.path, _summary(entry)) for entry in self.list(under))
        return "\n".join(lines)

    def __iter__(self) -> Iterator[str]:
        return iter([entry.path for entry in self.list()])

    def __len__(self) -> int:
        return len(self.list())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, path: object) -> bool:
        if not isinstance(path, str):
            return False
        try:
            self._backend.info(Address(self._name, check_path(path)))
        except (BadName, DatasetUnknown):
            return False
        except NotReadable:
            return True
        return True

    def __getitem__(self, path: str) -> Dataset:
        return open_dataset(self._backend, Address(self._name, check_path(path)))

    def __repr__(self) -> str:
        how = "followed" if self.followed else "not followed"
        count = "" if self._info.datasets is None else f", {self._info.datasets} datasets"
        return f"<zcat.Root {self._name} {self.state}, {how}{count}>"


def find_root(backend: Backend, name: str) -> RootInfo:
    """Return what is known of a root.

    Args:
        backend: who knows.
        name: ``name``, or ``name@owner`` with the first digits of the owner.

    Raises:
        BadName: that is no name.
        RootContested: ``owner`` leaves several.
        RootUnknown: there is no such root.
    """
    plain, owner = parse_root(name)
    known = backend.roots()
    named = [root for root in known if root.name == plain]
    fitting = [root for root in named if owner is None or (root.owner or "").startswith(owner)]
    followed = [root for root in fitting if root.followed]
    if len(followed or fitting) > 1:
        owners = ", ".join(f"{plain}@{root.owner}" for root in followed or fitting)
        raise RootContested(f"root {plain} is claimed by several publishers; name one: {owners}")
    if not fitting:
        names = ", ".join(sorted({root.name for root in known})) or "none"
        raise RootUnknown(f"no root {shown(name)}; there are: {names}")
    return (followed or fitting)[0]


def open_dataset(backend: Backend, address: Address) -> Dataset:
    """Open the newest version of a dataset.

    Raises:
        DatasetUnknown: there is none, or it is a folder.
        RootUnknown, RootNotFollowed, NotReadable, Unavailable, Timeout: as the subscriber says.
    """
    info = backend.info(address)
    return (ByteFrame if info.geometry.array is None else Array)(backend, address, info)


def draw_tree(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Draw paths with what is to be said of each, as lines; paths are sorted as a tree is."""
    folders: dict[str, object] = {}
    for path, words in named:
        *parents, name = path.split("/")
        here = folders
        for parent in parents:
            here = here.setdefault(parent + "/", {})  # type: ignore[assignment]  # a name with a slash is a folder
        here[name] = words
    yield from _draw(folders, "")


def _draw(folder: dict[str, object], indent: str) -> Iterator[str]:
    for number, (name, content) in enumerate(sorted(folder.items())):
        is_last = number == len(folder) - 1
        words = f"  {content}" if isinstance(content, str) else ""
        yield f"{indent}{'└── ' if is_last else '├── '}{name}{words}"
        if isinstance(content, dict):
            yield from _draw(content, indent + ("    " if is_last else "│   "))


def _summary(entry: Listed) -> str:
    if entry.problem is not None:
        return f"not readable: {entry.problem}"
    if entry.shape is not None:
        return f"{entry.shape} {entry.dtype}"
    return f"{entry.nbytes} bytes"

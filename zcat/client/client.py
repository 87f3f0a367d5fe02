"""A client: everything that one subscriber offers."""

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from zcat.client.backend import Address, Backend, Listed
from zcat.client.dataset import Dataset
from zcat.client.http_backend import DEFAULT_TIMEOUT_S, HttpBackend
from zcat.client.roots import Root, find_root, open_dataset
from zcat.errors import BadName, NotFound, NotReadable, RootContested
from zcat.names import shown, split_address

DEFAULT_URL = "http://127.0.0.1:8000"


def connect(url: str = DEFAULT_URL, timeout_s: float = DEFAULT_TIMEOUT_S) -> "Client":
    """Return a client of the subscriber at a URL. Nothing is sent yet: the first question connects.

    Args:
        url: of the subscriber's HTTP side, as ``zcat subscribe`` prints it.
        timeout_s: how long to wait for a connection, and each time for the next bytes of an answer, before
            `Timeout` is raised.

    Raises:
        BadRequest: that is no URL of a subscriber.

    Example:
        >>> with zcat.connect("http://127.0.0.1:8000") as client:
        ...     print(client.roots())
        ...     wind = client["weather/2024/wind.b2nd"]
        ...     print(wind[0, 10:74, 20:84])
    """
    return Client(HttpBackend(url, timeout_s))


class Client:
    """What a subscriber offers. Any number of threads may use one.

    ``client["weather"]`` is a `Root`, ``client["weather/2024/wind.b2nd"]`` a `Dataset`; ``in`` says
    whether there is such a thing, and iteration gives the names of the roots. All errors are
    ``zcat.ZcatError``; that nobody answers is `Unavailable`.
    """

    def __init__(self, backend: Backend) -> None:
        """Usually called by `zcat.connect` and `zcat.join`."""
        self._backend = backend

    @property
    def url(self) -> str:
        """Of the subscriber."""
        return self._backend.url

    def roots(self) -> list[Root]:
        """Ask for all roots that are known, followed or not, by name.

        Example:
            >>> [root.name for root in client.roots() if root.followed]
        """
        found = self._backend.roots()
        names = [root.name for root in found]
        return [
            Root(self._backend, root.name if names.count(root.name) == 1 else f"{root.name}@{root.owner}", root)
            for root in found
        ]

    def root(self, name: str) -> Root:
        """Return a root; it need not be followed.

        Args:
            name: ``name``, or ``name@owner`` where several publishers claim the name.

        Raises:
            RootUnknown: there is none. RootContested: there are several.
        """
        return Root(self._backend, name, find_root(self._backend, name))

    def open(self, address: str) -> Dataset:
        """Open the newest version of a dataset.

        Args:
            address: ``root/path``.

        Returns:
            An `Array`, or for byte frames and files a `ByteFrame`.

        Raises:
            BadName: that is no address.
            DatasetUnknown, RootUnknown, RootNotFollowed: there is no such dataset here.
            NotReadable: its content cannot be offered; the message says why.
            Unavailable, Timeout: the subscriber, or the dataset's publisher, does not answer.
        """
        root, path = split_address(address)
        if not path:
            raise BadName(f"{shown(address)} is a root; wanted a dataset: root/path")
        return open_dataset(self._backend, Address(root, path))

    def __getitem__(self, address: str) -> Any:
        root, path = split_address(address)
        return open_dataset(self._backend, Address(root, path)) if path else self.root(root)

    def __iter__(self) -> Iterator[str]:
        return iter([root.name for root in self.roots()])

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, str):
            return False
        try:
            self[address]
        except (BadName, NotFound):
            return False
        except (NotReadable, RootContested):
            return True
        return True

    def list(self, address: str) -> list[Listed]:
        """Return the datasets of a root, or of a folder in it, by path; folders in between are not listed.

        Args:
            address: ``root``, or ``root/folder``.

        Raises:
            RootUnknown, RootNotFollowed: there is no such root here.
        """
        root, under = split_address(address)
        return self._backend.listing(root, under)

    def follow(self, name: str) -> Root:
        """Make the subscriber follow a root, for all who use it; return the root.

        Args:
            name: ``name``, or ``name@owner``.

        Raises:
            RootUnknown, RootContested: as the subscriber says.
            Timeout: its catalogue did not come in time.
        """
        self._backend.follow(name)
        return self.root(name)

    def unfollow(self, name: str) -> None:
        """Make the subscriber stop following a root, for all who use it.

        Raises:
            RootNotFollowed: it was not followed.
        """
        self._backend.unfollow(name)

    def health(self) -> dict[str, Any]:
        """Ask how the subscriber is; ``"status"`` is ``"ok"`` or ``"degraded"``."""
        return self._backend.health()

    def brokers(self) -> Sequence[dict[str, Any]]:
        """Tell of each broker how it is, whom it is linked to, and who does not keep up with it."""
        return self._backend.network("brokers")

    def peers(self, is_asked: bool = True) -> Sequence[dict[str, Any]]:
        """Tell of the publishers and subscribers that the brokers know.

        Args:
            is_asked: ask each of them, too, and not only the brokers.

        Raises:
            Unavailable: no broker answers.
        """
        return self._backend.network("peers", is_asked)

    def close(self) -> None:
        """Let go of connections; datasets that were opened here raise `Closed` from now on."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<zcat.Client {self.url}>"

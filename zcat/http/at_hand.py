"""The app's answers that take no more than a moment: those of the data routes, out of what is cached.

It is the same resources, over a subscriber that never waits; what they cannot answer so is `NotAtHand`, and the
whole app answers it, in a thread of its own.
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from zcat.http.allowance import Allowance, Share
from zcat.http.reads import Dataset, Network, Reads
from zcat.limits import KIB
from zcat.model.dataset import Entry
from zcat.services.at_hand import NotAtHand

ANSWER_BYTES_MAX = 256 * KIB
"""Uncompressed, of an answer; to compress one takes half a millisecond."""

QUERY_LENGTH_MAX = 1024
"""A longer one names many items."""

T = TypeVar("T")


def may_be_at_hand(environ: dict[str, Any]) -> bool:
    """Say of a request to a data route whether it is worth a try: a preview, for one, takes long to be planned."""
    query = environ["QUERY_STRING"]
    return environ["REQUEST_METHOD"] == "GET" and len(query) <= QUERY_LENGTH_MAX and "fit=" not in query


class ReadsAtHand:
    """What a subscriber can say without waiting."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    def on_version(self, root: str, path: str, work: Callable[[Dataset], T]) -> T:
        """Run ``work`` on the newest version."""
        return self._reads.at_hand(root, path, work)

    at_hand = on_version

    def entries(self, _root: str, _under: str = "") -> list[Entry]:
        """Never: there may be many."""
        raise NotAtHand

    def roots(self) -> list[Any]:
        """Never."""
        raise NotAtHand

    def follow(self, _root: str) -> Any:
        """Never."""
        raise NotAtHand

    def unfollow(self, _root: str) -> None:
        """Never."""
        raise NotAtHand

    def health(self) -> dict[str, Any]:
        """Never."""
        raise NotAtHand

    @property
    def survey(self) -> Network:
        """Never."""
        raise NotAtHand


class SmallAllowance(Allowance):
    """For small answers, of which there is one at a time."""

    def __init__(self) -> None:
        super().__init__(ANSWER_BYTES_MAX, waiters_max=0)

    def take(self, nbytes: int) -> Share:
        """Take memory for an answer.

        Raises:
            NotAtHand: it is not small.
        """
        if nbytes > ANSWER_BYTES_MAX:
            raise NotAtHand
        return super().take(nbytes)


def no_frame(_dataset: Dataset) -> NoReturn:
    """Make no frame of a dataset: to list its chunks may take long."""
    raise NotAtHand


def reraise(_req: Any, _resp: Any, error: Exception, _params: Any) -> NoReturn:
    """Handle an error of a Falcon app by leaving the app with it."""
    raise error

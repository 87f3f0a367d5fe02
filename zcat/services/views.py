"""What a subscriber tells of roots: plain values for HTTP, the Python API and the command line."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RootView:
    """One root, as this subscriber sees it now."""

    name: str
    owner: str | None
    """Key of its publisher: 32 hexadecimal digits."""
    state: str
    """``live``, ``stale``, ``lapsed`` or ``withdrawn`` as the brokers say; ``cached``: known from a former run."""
    followed: bool
    contested: bool
    """Several publishers claim the name; they differ in ``owner``."""
    datasets: int | None
    """Number of its datasets; None until its catalogue is here."""
    endpoints: tuple[str, ...]
    incarnation: int | None
    seq: int | None
    synced: bool
    """The catalogue here is known to be the publisher's own; else it is the last one that was."""

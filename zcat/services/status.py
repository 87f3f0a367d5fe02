"""What a service tells of itself when it is asked for its status."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zcat import __version__
from zcat.errors import BadRequest
from zcat.names import shown
from zcat.net.loop import Loop
from zcat.protocol.pages import paged
from zcat.protocol.status_messages import SECTIONS, Status, StatusPage, counts_of

ITEMS_MAX = 200
"""In one answer: even the largest then fit the pages of a message."""

Section = Callable[[str], tuple[Sequence[Any], str | None]]
"""Gives what comes behind a place, and the place behind that; None when there is no more."""


@dataclass(frozen=True, slots=True)
class Teller:
    """Answers `Status` for one service. On its loop's thread."""

    service: str
    owner: str
    incarnation: Callable[[], int]
    counts: Callable[[], Mapping[str, int]]
    sections: Mapping[str, Section]
    """By name; others are empty."""
    started_at_s: float

    def answer(self, asked: Status) -> StatusPage:
        """Give what is asked for.

        Raises:
            BadRequest: there is no such section.
        """
        if asked.section not in SECTIONS:
            raise BadRequest(
                f"no section {shown(asked.section)}; wanted one of {', '.join(filter(None, SECTIONS))}"
            )
        section = self.sections.get(asked.section)
        items, following = section(asked.after) if section else ((), None)
        return StatusPage(
            self.service,
            self.owner,
            self.incarnation(),
            __version__,
            max(0.0, Loop.now_s() - self.started_at_s),
            asked.section,
            counts_of(dict(self.counts())),
            following,
            tuple(paged(items)),
        )


def all_at_once(items: Callable[[], Iterable[Any]]) -> Section:
    """Make a section of what is never long."""
    return lambda after: (() if after else tuple(items())[:ITEMS_MAX], None)

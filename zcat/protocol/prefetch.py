"""Machine: recognise that an array is read in equal steps, and say which parts will be read next.

A *track* is a series of reads of boxes of one shape, each as far from the one before. Three make one, also if
others read in between: the last few reads are remembered. A track that is not followed for some reads is given up,
and with it what was fetched ahead for it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from zcat.limits import MIB
from zcat.model.selection import Selection

Corner = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PrefetchLimits:
    """How far ahead, and how long a track is believed in."""

    bytes_ahead: int = 32 * MIB
    """Compressed, of what is predicted from the last read on, here or not; 0: nothing is fetched ahead."""
    reads_ahead: int = 64
    tracks_max: int = 4
    """Of one dataset."""
    missed_max: int = 8
    """Reads in a row that do not follow a track before it is given up; and so many are remembered."""


@dataclass(slots=True, eq=False)
class Track:
    """A series of reads in equal steps."""

    last: Selection
    step: Corner
    missed: int = 0
    """Reads that did not follow it since its last one."""
    planned: int = 0
    """Reads to come for which all is here or under way."""
    horizon: int = 0
    """What `planned` was when it was last extended: it is again when half of that is left."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What a read means for what is fetched ahead."""

    extend: Track | None = None
    """Fetch what is `Tracks.ahead` on this one, and say how much that is to `Tracks.planned`."""
    given_up: tuple[Track, ...] = ()
    """What was fetched ahead for these need not come any more."""


class Tracks:
    """How one version of an array is read. Calls are serialised by the caller."""

    def __init__(self, shape: tuple[int, ...], limits: PrefetchLimits) -> None:
        self._shape = shape
        self._limits = limits
        self._tracks: list[Track] = []  # the one that was followed last comes first
        self._recent: deque[Selection] = deque(maxlen=limits.missed_max)

    def __contains__(self, track: Track) -> bool:
        return track in self._tracks

    def read(self, what: Selection) -> Advice:
        """Take note of a read of a box.

        Boxes with steps or with lists of indices, or without items, fit no track.
        """
        if not what.axes or what.is_empty or any(not _is_plain(axis) for axis in what.axes):
            return Advice()
        track = next((each for each in self._tracks if _is_next(each, what)), None)
        if track is not None:
            self._tracks.remove(track)
            track.last, track.missed, track.planned = what, 0, max(0, track.planned - 1)
        else:
            track = self._begin(what)
            self._recent.append(what)
        for other in self._tracks:
            other.missed += 1
        if track is not None:
            self._tracks.insert(0, track)
        given_up = self._give_up()
        is_due = track is not None and 2 * track.planned <= track.horizon
        return Advice(track if is_due else None, given_up)

    def ahead(self, track: Track) -> Iterator[Selection]:
        """Give the boxes that a track will read next, up to the border of the array or the limit."""
        low = _corner(track.last)
        lengths = [len(axis) for axis in track.last.axes]
        for _ in range(self._limits.reads_ahead):
            low = tuple(first + distance for first, distance in zip(low, track.step, strict=True))
            if not all(0 <= first < end for first, end in zip(low, self._shape, strict=True)):
                return
            sides = zip(low, lengths, self._shape, strict=True)
            yield Selection(tuple(range(first, min(first + length, end)) for first, length, end in sides))

    def planned(self, track: Track, count: int) -> None:
        """Take note that the next ``count`` reads of a track are provided for."""
        track.planned = track.horizon = count

    def _begin(self, what: Selection) -> Track | None:
        """Find two earlier reads that lie in equal steps before this one."""
        before = {_corner(each) for each in self._recent if each.shape == what.shape}
        here = _corner(what)
        for each in reversed(self._recent):
            if each.shape != what.shape:
                continue
            there = _corner(each)
            step = tuple(b - a for a, b in zip(there, here, strict=True))
            if any(step) and tuple(a - s for a, s in zip(there, step, strict=True)) in before:
                return Track(what, step)
        return None

    def _give_up(self) -> tuple[Track, ...]:
        kept = [track for track in self._tracks if track.missed < self._limits.missed_max]
        kept = kept[: self._limits.tracks_max]
        given_up = tuple(track for track in self._tracks if track not in kept)
        self._tracks = kept
        return given_up


def _is_plain(axis: object) -> bool:
    return isinstance(axis, range) and axis.step == 1


def _corner(what: Selection) -> Corner:
    return tuple(int(axis[0]) for axis in what.axes)


def _is_next(track: Track, what: Selection) -> bool:
    """Say whether a read is the next one of a track; the last one, at the border, may be cut."""
    expected = tuple(first + step for first, step in zip(_corner(track.last), track.step, strict=True))
    sides = zip(what.shape, track.last.shape, strict=True)
    return _corner(what) == expected and all(length <= before for length, before in sides)

"""Which reads make a track, what is ahead of it, and when it is given up."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zcat.model.selection import Selection
from zcat.protocol.prefetch import PrefetchLimits, Tracks

SHAPE = (100, 60)
LIMITS = PrefetchLimits(reads_ahead=4, tracks_max=2, missed_max=5)


def box(row, column, height=10, width=20):
    return Selection((range(row, min(row + height, 100)), range(column, min(column + width, 60))))


def corners(tracks, track):
    return [(what.axes[0].start, what.axes[1].start) for what in tracks.ahead(track)]


def test_the_third_read_in_equal_steps_tells_what_comes_next():
    tracks = Tracks(SHAPE, LIMITS)
    assert tracks.read(box(0, 0)).extend is None
    assert tracks.read(box(10, 0)).extend is None
    track = tracks.read(box(20, 0)).extend
    assert corners(tracks, track) == [(30, 0), (40, 0), (50, 0), (60, 0)]


@pytest.mark.parametrize("step", [(10, 0), (0, 5), (-10, 0), (3, -2), (20, 1)])
def test_steps_of_all_directions_are_recognised_up_to_the_border(step):
    tracks = Tracks(SHAPE, LIMITS)
    start = (50, 20)
    reads = [box(start[0] + n * step[0], start[1] + n * step[1], 4, 4) for n in range(3)]
    track = [tracks.read(what).extend for what in reads][-1]
    for row, column in corners(tracks, track):
        assert 0 <= row < 100
        assert 0 <= column < 60
    assert len(corners(tracks, track)) <= 4


def test_what_is_ahead_is_cut_at_the_border():
    tracks = Tracks(SHAPE, LIMITS)
    for row in (65, 75, 85):
        track = tracks.read(box(row, 0)).extend
    (last,) = tracks.ahead(track)
    assert last.axes[0] == range(95, 100)
    assert tracks.read(box(95, 0)).extend is track


def test_a_track_is_extended_when_half_of_what_was_planned_is_read():
    tracks = Tracks(SHAPE, LIMITS)
    for row in (0, 5, 10):
        track = tracks.read(box(row, 0)).extend
    tracks.planned(track, 4)
    assert [tracks.read(box(row, 0)).extend for row in (15, 20, 25)] == [None, track, track]


@pytest.mark.parametrize(
    "reads",
    [
        [box(0, 0), box(10, 0), box(30, 0)],
        [box(0, 0), box(10, 0), box(20, 0, width=19)],
        [box(0, 0), box(0, 0), box(0, 0)],
        [Selection((range(n, n + 10, 2), range(20))) for n in (0, 10, 20)],
        [Selection((np.array([n, n + 3]), range(20))) for n in (0, 10, 20)],
        [Selection((range(0), range(20)))] * 3,
        [Selection(())] * 3,
    ],
    ids=["unequal steps", "another shape", "the same", "with gaps", "lists", "nothing", "no axes"],
)
def test_other_reads_make_no_track(reads):
    tracks = Tracks(SHAPE, LIMITS)
    assert [tracks.read(what).extend for what in reads] == [None] * 3


def test_readers_of_one_array_have_a_track_each():
    tracks = Tracks(SHAPE, LIMITS)
    found = []
    for n in range(3):
        found += [tracks.read(box(10 * n, 0)).extend, tracks.read(box(7, 12 * n, 5, 5)).extend]
    assert found[:4] == [None] * 4
    assert [corners(tracks, track)[0] for track in found[4:]] == [(30, 0), (7, 36)]


def test_a_track_that_nobody_follows_is_given_up():
    tracks = Tracks(SHAPE, LIMITS)
    for row in (0, 10, 20):
        track = tracks.read(box(row, 0)).extend
    others = [box(row, column, 3, 3) for row, column in ((50, 1), (90, 9), (3, 40), (77, 0), (20, 31))]
    given_up = [tracks.read(what).given_up for what in others]
    assert given_up == [(), (), (), (), (track,)]
    assert track not in tracks
    assert tracks.read(box(30, 0)).extend is not track


def test_of_too_many_tracks_the_one_that_was_not_followed_for_longest_is_given_up():
    tracks, made = Tracks(SHAPE, PrefetchLimits(tracks_max=2, missed_max=20)), []
    for first, column in ((0, 0), (3, 21), (9, 37)):
        for row in (0, 10, 20):
            advice = tracks.read(box(first + row, column, 4, 4))
        made.append(advice.extend)
    assert advice.given_up == (made[0],)


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_whatever_is_read_what_is_ahead_lies_in_the_array(seed):
    chance, tracks = random.Random(seed), Tracks(SHAPE, LIMITS)
    at, step = (0, 0), (1, 0)
    for _ in range(100):
        if chance.random() < 0.2:
            at, step = (
                (chance.randrange(100), chance.randrange(60)),
                (chance.randrange(-9, 9), chance.randrange(-9, 9)),
            )
        at = at[0] + step[0], at[1] + step[1]
        if not (0 <= at[0] < 100 and 0 <= at[1] < 60):
            at = (0, 0)
        advice = tracks.read(box(*at, chance.choice((5, 5, 5, 6)), 4))
        if advice.extend is not None:
            ahead = list(tracks.ahead(advice.extend))
            tracks.planned(advice.extend, len(ahead))
            for what in ahead:
                assert all(0 <= axis[0] <= axis[-1] < end for axis, end in zip(what.axes, SHAPE, strict=True))

"""A whole swarm of the real machines, in a network that is made up; ``bench/swarm_simulation.py`` has it large."""

import pytest

from bench.swarm_simulation import Swarm, World

SMALL = {"readers": 40, "chunks": 48, "window_chunks": 24, "link_bytes_s": 30e6}


@pytest.mark.parametrize("seed", range(2))
def test_everybody_ends_with_the_right_bytes_and_the_publisher_sent_few_copies(seed):
    outcome = Swarm(World(**SMALL, seed=seed)).run()
    assert (outcome.unfinished, outcome.wrong) == (0, 0)
    assert outcome.copies <= 1.5
    assert outcome.took[-1] <= 2.2


@pytest.mark.parametrize("seed", range(2))
def test_readers_that_die_lie_or_are_slow_are_survived(seed):
    outcome = Swarm(World(**SMALL, seed=seed, churn=0.05, liars=0.05, slow=0.05)).run()
    assert (outcome.unfinished, outcome.wrong) == (0, 0)
    assert outcome.counters["lies"] > 0
    assert outcome.copies <= 3.0
    assert outcome.took[-1] <= 3.5


def test_one_reader_alone_gets_all_of_the_publisher():
    outcome = Swarm(World(readers=1, chunks=48)).run()
    assert (outcome.copies, outcome.unfinished) == (1.0, 0)
    assert outcome.took[-1] < 1.05


def test_the_same_seed_gives_the_same_run():
    first, second = (Swarm(World(readers=12, chunks=16, churn=0.1, liars=0.1, seed=7)).run() for _ in range(2))
    assert first == second

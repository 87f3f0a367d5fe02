"""Random faults, several at a time. A failure prints its schedule: ``--faults-first SEED --faults-seeds 1``."""

import itertools
import time

import hosts
import pytest
from schedule import draw
from stage import Stage

LENGTH_S = 12.0
CONVERGED_S = 40.0
"""Two leases of publishers that have not chosen another."""
EXCUSED = {"unavailable", "timeout", "stale", "busy", "no-answer", "root-unknown", "root-not-followed", "closed"}
"""How a read may fail while publishers or subscribers are away."""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--faults-first")
        metafunc.parametrize("seed", range(first, first + metafunc.config.getoption("--faults-seeds")))


@pytest.mark.timeout(300)
def test_after_a_schedule_of_faults_everybody_sees_what_the_origins_hold(seed, tmp_path, figures):
    play(seed, tmp_path, figures)


@pytest.mark.timeout(0)
def test_further_schedules_for_as_long_as_there_is_time(request, tmp_path, figures):
    minutes = request.config.getoption("--faults-minutes")
    first = request.config.getoption("--faults-first") + request.config.getoption("--faults-seeds")
    until_s = time.monotonic() + 60 * minutes
    for seed in itertools.count(first):
        if time.monotonic() > until_s:
            break
        folder = tmp_path / str(seed)
        folder.mkdir()
        play(seed, folder, figures)


def play(seed, folder, figures):
    has_cables = hosts.missing() is None and seed % 2 == 0
    schedule = draw(seed, has_cables, LENGTH_S)
    print(schedule)
    stage = Stage(folder, schedule)
    try:
        judge(stage, figures)
    except BaseException as error:
        error.add_note(f"{schedule}\nlogs are in {folder}")
        raise
    finally:
        stage.close()


def judge(stage, figures):
    cluster = stage.cluster
    stage.play()
    for writer in stage.writers:
        writer.stop()
    took_s = cluster.checker.converged_s(stage.writers, CONVERGED_S)
    figures.note("schedules: everybody sees everything after", took_s, "s", CONVERGED_S)
    figures.note("schedules: longest pause of a reader", cluster.checker.longest_pause_s(0))
    failures = cluster.checker.failures()
    bad = [
        each
        for each in failures
        if each.code not in EXCUSED or not stage.is_trouble(each.when.begin_s, each.when.end_s)
    ]
    figures.note("schedules: reads of one", cluster.checker.reads_count(), "reads")
    figures.note("schedules: reads that failed without excuse", len(bad), "reads", 0)
    assert not bad, bad[:5]
    cluster.judge()

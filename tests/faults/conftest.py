"""Flags, fixtures and the table of the fault suite."""

from pathlib import Path

import hosts as hosts_module
import pytest
from cluster import Cluster
from figures import Figures
from hosts import Hosts

FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "the fault suite")
    group.addoption(
        "--faults-seeds", type=int, default=4, metavar="N", help="random schedules of faults (default: 4)"
    )
    group.addoption("--faults-first", type=int, default=0, metavar="SEED", help="number of the first schedule")
    group.addoption(
        "--faults-minutes", type=float, default=0, metavar="M", help="go on with further schedules for so long"
    )
    group.addoption(
        "--faults-long", action="store_true", help="every promised figure in its full length (about half an hour)"
    )
    group.addoption("--faults-json", type=Path, metavar="FILE", help="where the figures are written")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only a run with ``--faults-minutes`` has time for."""
    if not config.getoption("--faults-minutes"):
        further = [item for item in items if item.name.startswith("test_further_schedules")]
        items[:] = [item for item in items if item not in further]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[FIGURES]
    if found:
        terminalreporter.section("figures")
        for line in found.lines():
            terminalreporter.write_line(line)
        path = config.getoption("--faults-json")
        if path is not None:
            found.save(path)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[FIGURES]


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--faults-long"))


@pytest.fixture
def cluster(tmp_path):
    """Processes on the loopback interface. At the end nobody saw anything wrong, and no log shows a bug."""
    made = Cluster(tmp_path)
    yield made
    made.judge()


@pytest.fixture
def make_hosts():
    """Make hosts by name; skips where there can be none."""
    reason = hosts_module.missing()
    if reason is not None:
        pytest.skip(reason)
    made: list[Hosts] = []

    def make(*names: str) -> Hosts:
        made.append(Hosts(names))
        return made[-1]

    yield make
    for each in made:
        each.close()

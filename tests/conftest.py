"""What all shelves share: a network in one process, and how long the tests are that can be long."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from network import Network

# each default fits the everyday run
LENGTHS = {
    "--simulation-seeds": (64, "runs of the simulated brokers, publishers and subscribers"),
    "--kills": (8, "kills of a subscriber that fills its cache"),
    "--tiny-frames": (20_000, "small messages that a bad peer shouts at each socket"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zcat", "how long the long tests are")
    for flag, (default, what) in LENGTHS.items():
        group.addoption(flag, type=int, default=default, metavar="N", help=f"{what} (default: {default})")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with one broker."""
    made = Network(tmp_path)
    made.broker()
    yield made
    made.close()

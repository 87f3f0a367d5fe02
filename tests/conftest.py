"""How long the tests that can be long are: each flag has a default that fits the everyday run."""

import pytest

LENGTHS = {
    "--simulation-seeds": (64, "runs of the simulated brokers, publishers and subscribers"),
    "--kills": (8, "kills of a subscriber that fills its cache"),
    "--tiny-frames": (20_000, "small messages that a bad peer shouts at each socket"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("zcat", "how long the long tests are")
    for flag, (default, what) in LENGTHS.items():
        group.addoption(flag, type=int, default=default, metavar="N", help=f"{what} (default: {default})")

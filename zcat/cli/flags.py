"""Flags that several commands share, and the environment variables behind them."""

import argparse
import os

from zcat.logs import LEVELS

URL = "http://127.0.0.1:8000"

FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
FOLDER = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
"""How shells complete an argument: what ``shtab.FILE`` and ``shtab.DIRECTORY`` are, without loading it."""

# A command's own default would overwrite what stood before the command: `zcat --url URL roots`.
_UNSET = argparse.SUPPRESS


def add_log_level(parser: argparse.ArgumentParser, default: str | None = _UNSET) -> None:
    """Add ``--log-level``."""
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=default,
        metavar="LEVEL",
        help=f"what is logged: {', '.join(LEVELS)}",
    )


def add_url(parser: argparse.ArgumentParser, default: str | None = _UNSET) -> None:
    """Add ``--url``."""
    parser.add_argument(
        "--url", default=default, help=f"address of a subscriber [environment: ZCAT_URL; default: {URL}]"
    )


def add_config(parser: argparse.ArgumentParser, default: str | None = _UNSET) -> None:
    """Add ``--config``."""
    config = parser.add_argument(
        "--config", default=default, metavar="FILE", help="configuration in TOML [environment: ZCAT_CONFIG]"
    )
    completes(config, FILE)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def completes(argument: argparse.Action, what: dict[str, str]) -> None:
    """Say what an argument is, so that shells complete it."""
    argument.complete = what  # type: ignore[attr-defined]  # where shtab looks for it


def add_reading(parser: argparse.ArgumentParser, has_json: bool = True) -> None:
    """Add what all commands have that ask a subscriber."""
    add_url(parser)
    add_log_level(parser)
    if has_json:
        add_json(parser)


def url_of(args: argparse.Namespace) -> str:
    """Return the subscriber's address: from the flag, else the environment, else the default."""
    return args.url or os.environ.get("ZCAT_URL") or URL


def brokers_of_environment() -> tuple[str, ...]:
    """Return the brokers that the environment names: separated by commas or spaces."""
    return tuple(os.environ.get("ZCAT_BROKERS", "").replace(",", " ").split())


def config_of(args: argparse.Namespace) -> str | None:
    """Return the configuration file, if one is named by the flag or the environment."""
    return args.config or os.environ.get("ZCAT_CONFIG") or None

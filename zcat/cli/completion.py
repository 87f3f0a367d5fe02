"""``zcat completion``: what a shell needs to complete our commands."""

import argparse
from typing import Any

from zcat.cli import exits

SHELLS = ("bash", "zsh", "tcsh")

_EPILOG = """\
for bash, from its next start on:
  mkdir -p ~/.local/share/bash-completion/completions
  zcat completion bash > ~/.local/share/bash-completion/completions/zcat
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print a script by which a shell completes our commands",
        description="Print a script by which a shell completes our commands.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # what is to be copied must not be broken
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from zcat.cli.main import make_parser

    print(shtab.complete(make_parser(), args.shell))
    return exits.OK

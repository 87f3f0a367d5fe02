"""The command ``zcat``: parse, dispatch, and turn errors into one line and an exit status.

Nothing heavy is imported here: `zcat --help` and the hand-over to gzip's ``zcat`` take hardly longer than Python.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from zcat.cli import exits, handover
from zcat.errors import BadRequest, StorageFailed, ZcatError

if TYPE_CHECKING:
    import argparse

COMMANDS = (
    *("up", "broker", "publish", "subscribe", "config", "check", "brokers", "peers"),
    *("roots", "follow", "unfollow", "ls", "tree", "info", "show", "get", "export"),
    *("import", "export-hdf5", "completion"),
)
"""In the order of ``zcat --help``; a test compares with the parser."""

OPTIONS = ("-h", "--help", "--version", "--log-level", "--url", "--config")
"""What may stand before a command."""

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_EPILOG = """\
to begin with:
  zcat up                                     share a small example on http://127.0.0.1:8000
  zcat up DATA                                share the folder DATA
  zcat ls -l example                          list what there is
  zcat show 'example/waves.b2nd[0, ::32, :5]' look at a part of it
  zcat get example/waves.b2nd                 copy it here

exit status, and the codes of the errors that lead to it:
{exits}

A file name as the first argument, or data on standard input, is for gzip's zcat, which is called then.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    if arguments is None:
        arguments = sys.argv[1:]
        _open_what_is_closed()
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may lack a letter
    arguments = list(arguments)
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except ZcatError as error:
        return _say(error)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return exits.BROKEN_PIPE
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _drop_output()
        return _say(StorageFailed(f"the output cannot be written: {error.strerror}"))


def make_parser() -> "argparse.ArgumentParser":
    """Make the parser of all commands."""
    import argparse

    from zcat import __version__
    from zcat.cli import areas, flags

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise BadRequest(f"{message}; see '{self.prog} --help'")

    parser = Parser(
        prog="zcat",
        description="Share n-dimensional Blosc2 datasets among the hosts of a cluster.",
        epilog=_EPILOG.format(exits=exits.table()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zcat {__version__}")
    flags.add_log_level(parser, None)
    flags.add_url(parser, None)
    flags.add_config(parser, None)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for area in areas.ALL:
        area.add(commands)
    return parser


def _run(arguments: list[str]) -> int:
    if handover.is_meant_for_gzip(arguments, COMMANDS, OPTIONS):
        handover.hand_over(arguments)
    _check_command(arguments)
    parser = make_parser()
    try:
        args, unknown = parser.parse_known_args(arguments)
    except SystemExit as done:  # of --help and --version
        return int(done.code or 0)
    if unknown:
        called = f"zcat {args.command}" if args.command else "zcat"
        raise BadRequest(f"unrecognized arguments: {' '.join(unknown)}; see '{called} --help'")
    if args.command is None:
        parser.print_help()
        return exits.OK
    from zcat import logs

    logs.set_up(args.log_level or getattr(args, "log_level_default", "warning"))
    return int(args.run(args))


def _check_command(arguments: list[str]) -> None:
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        from zcat.config_file import nearest
        from zcat.names import shown

        name = shown(arguments[0])
        if os.path.isdir(arguments[0]):
            raise BadRequest(f"{name} is a folder, and no command; 'zcat up {arguments[0]}' shares it")
        advice = nearest(arguments[0], COMMANDS, otherwise="'zcat --help' lists the commands")
        raise BadRequest(f"{name} is neither a command nor a file{advice}")


def _open_what_is_closed() -> None:
    """Open standard streams that are closed, as ``2>&-`` or a service's starter may do.

    Python has None for them, to print to which is to print elsewhere; and their numbers would be those of the
    next files that are opened.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115


def _drop_output() -> None:
    # Python flushes at its end, and would complain there
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(error: ZcatError) -> int:
    print(f"zcat: {error.code}: {' '.join(error.message.split())}", file=sys.stderr)
    return exits.status_of(error)

"""Hand over to gzip's ``zcat``, which ours hides on PATH.

Whoever installs this package in an environment still types ``zcat access.log.gz`` there, and scripts do too.
So what can only be meant for gzip's goes to it: with the same arguments, byte for byte, by ``exec``, so that its
output, its exit status and the signals that it gets are its own.
"""

import os
import signal
import stat
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from zcat.errors import NotFound

NAME = "zcat"
SUFFIXES = ("", ".gz", ".z", "-z", ".Z")
"""``zcat notes`` means ``notes.gz`` if there is no ``notes``: gzip's own rule."""

_OURS = b"zcat.cli"
"""Stands in each script that starts this command, whoever wrote it: pip, pipx, uv, conda."""
_SCRIPT_HEAD_BYTES = 4096


def is_meant_for_gzip(arguments: Sequence[str], commands: Collection[str], options: Collection[str]) -> bool:
    """Say whether a command line is for gzip's ``zcat``.

    It is when it begins with none of our words and names a file that exists, or nothing but options while
    standard input is a pipe or a file.

    Args:
        arguments: without the program's name.
        commands: the names of our commands.
        options: our options that may stand before a command.
    """
    if not arguments:
        return _stdin_has_data()
    first = arguments[0]
    if first in commands or first.partition("=")[0] in options:
        return False
    names = _names(arguments)
    if not set(names) - {"-"}:
        return _stdin_has_data()
    # folders alone: somebody wants to share them; with an option such as -r they are gzip's again
    has_options = len(names) < len(arguments)
    return any(_exists(name) and (has_options or not os.path.isdir(name)) for name in names)


def hand_over(arguments: Sequence[str]) -> NoReturn:
    """Become gzip's ``zcat``.

    Raises:
        NotFound: there is none on PATH.
    """
    found = next_on_path(os.environ.get("PATH", os.defpath), sys.argv[0])
    if found is None:
        raise NotFound(
            "this looks like a call of gzip's zcat, but there is no other zcat on PATH: "
            "install gzip, or call 'gzip -cd'; for the commands of this one see 'zcat --help'"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and a program inherits that: gzip would complain of a broken pipe
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(found, [NAME, *arguments])


def next_on_path(path: str, script: str) -> Path | None:
    """Return the first ``zcat`` on PATH that is not ours, of this or of another environment.

    Args:
        path: the value of the variable.
        script: the file by which this process was started.
    """
    home = Path(sys.prefix, "bin").resolve()
    for folder in path.split(os.pathsep):
        candidate = Path(folder or ".", NAME)
        if candidate.is_file() and os.access(candidate, os.X_OK) and not _is_ours(candidate, script, home):
            return candidate
    return None


def _is_ours(candidate: Path, script: str, home: Path) -> bool:
    if candidate.parent.resolve() == home or (os.path.exists(script) and candidate.samefile(script)):
        return True
    try:
        with candidate.open("rb") as file:
            return _OURS in file.read(_SCRIPT_HEAD_BYTES)
    except OSError:
        return False  # may be run, but not read: not a script, then


def _names(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that may be files."""
    if "--" in arguments:
        at = arguments.index("--")
        return [*_names(arguments[:at]), *arguments[at + 1 :]]
    return [argument for argument in arguments if argument == "-" or not argument.startswith("-")]


def _exists(name: str) -> bool:
    return name != "-" and any(os.path.lexists(name + suffix) for suffix in SUFFIXES)


def _stdin_has_data() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False  # closed
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)

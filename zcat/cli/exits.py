"""Errors as exit statuses: one for each class, few enough for a shell script to tell apart."""

import textwrap

from zcat import errors

OK = 0
FAILED = 1
REFUSED = 2
MISSING = 3
CONTENT = 4
UNREACHABLE = 5
LATER = 6
LOCAL = 7
INTERRUPTED = 130
BROKEN_PIPE = 141

MEANINGS = {
    OK: "done",
    FAILED: "failed; of 'zcat check': something is wrong",
    REFUSED: "the command line, an address, a slice or a configuration cannot be",
    MISSING: "nothing has that name",
    CONTENT: "the content is damaged, or cannot be offered",
    UNREACHABLE: "nobody who has it can be reached, or no answer came in time",
    LATER: "busy or changing: the same command may succeed later",
    LOCAL: "this machine refuses: a disk, a folder in use, an address in use",
    INTERRUPTED: "interrupted by Ctrl-C",
    BROKEN_PIPE: "whoever read the output went away",
}

STATUS_OF: dict[type[errors.ZcatError], int] = {
    errors.ZcatError: FAILED,
    errors.BadRequest: REFUSED,
    errors.BadName: REFUSED,
    errors.BadSelection: REFUSED,
    errors.TooLarge: REFUSED,
    errors.BadConfig: REFUSED,
    errors.NotFound: MISSING,
    errors.RootUnknown: MISSING,
    errors.RootContested: REFUSED,
    errors.RootNotFollowed: MISSING,
    errors.DatasetUnknown: MISSING,
    errors.NotReadable: CONTENT,
    errors.BadMessage: FAILED,
    errors.VerbUnknown: FAILED,
    errors.Stale: LATER,
    errors.Busy: LATER,
    errors.Unavailable: UNREACHABLE,
    errors.Timeout: UNREACHABLE,
    errors.Closed: LATER,
    errors.BadContent: CONTENT,
    errors.BadChunk: CONTENT,
    errors.CacheInUse: LOCAL,
    errors.StorageFailed: LOCAL,
    errors.AddressInUse: LOCAL,
}
"""A test compares with the tree: a new error without a status cannot be forgotten."""


def status_of(error: errors.ZcatError) -> int:
    """Return the exit status of an error."""
    return next(STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF)


def table() -> str:
    """Return the statuses, what they mean and the codes that lead to them, as ``zcat --help`` prints them."""
    lines = []
    for status, meaning in MEANINGS.items():
        lines.append(f"  {status:>3}  {meaning}")
        codes = ", ".join(cls.code for cls, its_status in STATUS_OF.items() if its_status == status)
        lines += textwrap.wrap(codes, 100, initial_indent=" " * 9, subsequent_indent=" " * 9)
    return "\n".join(lines)

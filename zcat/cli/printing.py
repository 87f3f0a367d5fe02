"""What commands print: tables for people, JSON for programs.

Names and values come from elsewhere; nothing of them may act on a terminal, so characters that do not print are
escaped before people see them.
"""

import datetime
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

_WIDTH_UNLIMITED = 1 << 16
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def print_json(value: Any) -> None:
    """Print one JSON document on one line."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Callable[[Any], str]]) -> None:
    """Print rows under the names of the columns, each on one line, however wide.

    Args:
        rows: each with a value for every column; None prints as ``-``.
        columns: how to write the values of each column; what `count`, `size` and `duration` write is aligned to
            the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, write in columns.items():
        table.add_column(
            name.upper(), justify="right" if write in (count, size, duration) else "left", overflow="fold"
        )
    for row in rows:
        cells = [(row.get(name), write) for name, write in columns.items()]
        table.add_row(*[Text("-" if value is None else write(value)) for value, write in cells])
    # a terminal breaks a long line where it ends; rich would fold each column by itself
    console = Console(file=sys.stdout, highlight=False, width=_WIDTH_UNLIMITED)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def text(value: Any) -> str:
    """Write a value on one line, without anything that acts on a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def lines(value: str) -> str:
    """Write a text of several lines, without anything that acts on a terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in value.replace("\r\n", "\n"))


def things(value: int, name: str) -> str:
    """Write how many there are of something."""
    return f"{value} {name}" if value == 1 else f"{value} {name}s"


def count(value: int) -> str:
    """Write a number of things."""
    return str(value)


def size(nbytes: float) -> str:
    """Write a size with three digits: ``13.4 MiB``."""
    power = 0
    while nbytes >= 1000 and power < len(_UNITS) - 1:
        nbytes /= 1024
        power += 1
    digits = 0 if power == 0 or nbytes >= 100 else 1 if nbytes >= 10 else 2
    return f"{nbytes:.{digits}f} {_UNITS[power]}"


def shape(lengths: Iterable[int]) -> str:
    """Write a shape: ``3 x 512 x 512``; a scalar's is ``scalar``."""
    return " x ".join(map(str, lengths)) or "scalar"


def time(text: str) -> str:
    """Write a time in the zone of this process, as `ls` does: ``2026-11-22 19:53`` of ``2026-11-22T19:53:35Z``."""
    return f"{datetime.datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Write how long something takes or lasts: ``0.4 ms``, ``12 s``, ``3 h 20 min``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours, days = (int(seconds // length) for length in (60, 3600, 86400))
    if minutes < 100:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 3 else f"{days} d {hours % 24} h"


def yes(value: bool) -> str:
    """Write a truth."""
    return "yes" if value else "no"

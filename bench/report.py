"""What the measurements share: repeated rounds, medians, one table, the machine they ran on."""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

ROUNDS = 5


@dataclass
class Row:
    """One thing that was measured, several times."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.values)


def rounds(cases: Mapping[str, Callable[[], float]], unit: str, count: int) -> list[Row]:
    """Measure all cases in turn, ``count`` times over: the machine's moods then fall on all of them alike."""
    rows = [Row(name, unit) for name in cases]
    for number in range(count):
        for row, case in zip(rows, cases.values(), strict=True):
            row.values.append(case())
            progress(f"round {number + 1}/{count} {row.name}: {row.values[-1]:.4g} {unit}")
    return rows


def progress(text: str) -> None:
    """Tell whoever waits."""
    print(f"  {text}", file=sys.stderr)


def arguments(what: str) -> argparse.ArgumentParser:
    """Give a parser with what every measurement takes."""
    parser = _Parser(description=what)
    parser.add_argument("--quick", action="store_true", help="one round, on less data: to see that it works")
    parser.add_argument("--rounds", type=int, help=f"how often everything is measured (default: {ROUNDS})")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--folder", help="where to put the data (default: a temporary folder)")
    return parser


class _Parser(argparse.ArgumentParser):
    """Makes one round of a quick run, unless it is told how many."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and fill in the rounds."""
        parsed = super().parse_args(args, namespace)
        if parsed.rounds is None:
            parsed.rounds = 1 if parsed.quick else ROUNDS
        return parsed


def machine() -> dict[str, str]:
    """Say what ran this."""
    packages = ("blosc2", "pyzmq", "numpy", "falcon", "waitress", "h5py", "hdf5plugin")
    return {
        "cpus": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def show(title: str, rows: list[Row], against: Mapping[str, str], as_json: bool) -> None:
    """Print rows as a table.

    Args:
        title: of the table.
        rows: in order.
        against: for each column of ratios its heading and the row that it divides by; a row in seconds (or
            another unit where less is better) is turned round, so that a ratio above 1 is always the better one.
        as_json: for programs.
    """
    by_name = {row.name: row for row in rows}
    table = []
    for row in rows:
        line: dict[str, Any] = {"name": row.name, "median": row.median, "unit": row.unit}
        line["min"], line["max"] = min(row.values), max(row.values)
        for heading, other in against.items():
            if other in by_name and by_name[other].unit == row.unit:
                ratio = row.median / by_name[other].median
                line[heading] = ratio if row.unit.endswith("/s") else 1 / ratio
        table.append({**line, **row.notes})
    show_lines(title, table, as_json)


def show_lines(title: str, lines: list[dict[str, Any]], as_json: bool) -> None:
    """Print lines, each with its cells by heading, as a table, or for programs."""
    if as_json:
        print(json.dumps({"title": title, "machine": machine(), "rows": lines}, indent=1))
        return
    print(f"\n{title}\n{', '.join(f'{name} {value}' for name, value in machine().items())}\n")
    print_table(lines)


def print_table(lines: list[dict[str, Any]]) -> None:
    """Print lines, each with its cells by heading, as a table of Markdown."""
    print("\n".join(table_lines(lines)))


def table_lines(lines: list[dict[str, Any]]) -> list[str]:
    """Give the lines of a table of Markdown."""
    headings = list(dict.fromkeys(heading for line in lines for heading in line))
    cells = [headings, *([_text(line.get(heading)) for heading in headings] for line in lines)]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    return [rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 1000 else str(round(value))

"""From results to pages: the report, its plots, and the figures of a README."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from bench.plots import bars, number
from bench.report import table_lines

BEGIN, END = "<!-- figures of python -m bench -->", "<!-- end of figures -->"
_CLIENTS = (1, 8, 32, 128)

Results = Mapping[str, Any]
Rows = dict[str, dict[str, Any]]


def tables_of(text: str) -> tuple[list[dict[str, Any]], str]:
    """Take the JSON objects out of what a measurement printed; give them, and the rest."""
    decoder, tables, rest, at = json.JSONDecoder(), [], [], 0
    while at < len(text):
        if text[at] == "{":
            try:
                table, at = decoder.raw_decode(text, at)
                tables.append(table)
                continue
            except ValueError:
                pass
        end = text.find("\n", at) + 1 or len(text)
        rest.append(text[at:end])
        at = end
    return tables, "".join(rest).strip()


def report(results: Results) -> dict[str, str]:
    """Give the files of the report by name."""
    plots = {
        "requests.svg": bars(
            "64x64 of float32 over HTTP, by clients at a time (logarithmic)", _requests(results), "requests/s"
        ),
        "latency.svg": bars("One client, median (logarithmic): shorter is better", _latency(results), "ms"),
    }
    plots = {name: text for name, text in plots.items() if text}
    lines = ["# What was measured", "", *_machine(results), "", *figures(results), ""]
    lines += [line for name in plots for line in (f"![{name}]({name})", "")]
    for module, result in results.items():
        if module == "machine":
            continue
        lines += [f"## bench.{module}", ""]
        if result.get("failed"):
            lines += [f"It failed with status {result['failed']}.", ""]
        for table in result["tables"]:
            rows = table.get("rows")
            lines += [f"### {table.get('title', module)}", ""] if rows else []
            lines += [*table_lines(rows), ""] if rows else ["```json", json.dumps(table, indent=1), "```", ""]
        said = result["said"]
        if said:
            lines += [said, ""] if said.startswith("|") else ["```", said, "```", ""]
    return {"REPORT.md": "\n".join(lines), **plots}


def with_figures(readme: str, results: Results) -> str:
    """Put the figures between the marks of a page.

    Raises:
        ValueError: it has no marks.
    """
    if BEGIN not in readme or END not in readme:
        raise ValueError(f"no marks: wanted lines {BEGIN} and {END}")
    before, _, rest = readme.partition(BEGIN)
    return "\n".join([before + BEGIN, *_machine(results), "", *figures(results), "", END + rest.partition(END)[2]])


def figures(results: Results) -> list[str]:
    """Give the table of the most important figures: those that were measured."""
    lines = [
        {"what": what, "zcat": _text(ours, unit), "beside it": "; ".join(_text(v, unit, n) for n, v in others)}
        for what, unit, ours, others in filter(None, (make(results) for make in _FIGURES))
    ]
    return table_lines(lines) if lines else []


Figure = tuple[str, str, float, list[tuple[str, float]]]


def _compared(operation: str, ours: str, column: str, what: str, unit: str) -> Callable[[Results], Figure | None]:
    """Make a figure of one line of zcat's in a table of bench.compare, and of all others there."""

    def make(results: Results) -> Figure | None:
        rows = _rows(results, operation)
        if ours not in rows or rows[ours].get(column) is None:
            return None
        # of what is read on the spot, the quickest
        local = sorted(
            (row[column], name) for name, row in rows.items() if name.startswith("local") and column in row
        )
        others = [
            (name.partition(",")[0], row[column])
            for name, row in rows.items()
            if not name.startswith(("zcat", "local")) and row.get(column)
        ]
        return what, unit, rows[ours][column], others + [(name, value) for value, name in local[:1]]

    return make


def _measured(module: str, ours: str, others: Mapping[str, str], what: str) -> Callable[[Results], Figure | None]:
    """Make a figure of named rows of another measurement."""

    def make(results: Results) -> Figure | None:
        rows = {
            row.get("name"): row
            for table in results.get(module, {}).get("tables", [])
            for row in table.get("rows", [])
        }
        if ours not in rows:
            return None
        found = [(name, rows[row]["median"]) for row, name in others.items() if row in rows]
        return what, rows[ours]["unit"], rows[ours]["median"], found

    return make


_MANY = "32 clients, 1/s"
_COPIES = {
    "bare ROUTER-DEALER": "bare ROUTER to DEALER",
    "the least of a verified copy": "ten lines that read, digest, send, digest and write",
    "nginx and curl": "nginx and curl",
    "cp": "cp",
}
_LOCALLY = {"10000 points, local blosc2": "local blosc2"}
_ALONE = {"16 readers, publisher alone": "without the swarm"}
_FIGURES: list[Callable[[Results], Figure | None]] = [
    _compared("64x64", "zcat, raw", "p50 ms", "64x64 of a cube of float32, one client, raw", "ms"),
    _compared("64x64", "zcat, cframe", "p50 ms", "the same, as a cframe", "ms"),
    _compared("64x64", "zcat, raw", _MANY, "the same, raw, 32 clients", "requests/s"),
    _compared("64x64 of gzip HDF5", "zcat, raw", "p50 ms", "64x64 of a gzip HDF5 file, once converted", "ms"),
    _compared("plane", "zcat, cframe", "p50 ms", "a plane of 4 MiB, as it is stored", "ms"),
    _compared("100 MB", "zcat, raw", "p50 ms", "100 MB, decoded", "ms"),
    _compared("100 MB", "zcat, cframe", "p50 ms", "the same, as it is stored", "ms"),
    _compared("whole", "zcat, stored", "MB/s", "the whole dataset as a file", "MB/s"),
    _measured("replicate", "zcat", _COPIES, "cold copy: read, sent, verified, cached"),
    _measured("cold", "squares 64x64, blocks", {"squares 64x64, whole": "whole chunk"}, "64x64, nothing cached"),
    _measured("gather", "10000 points, cached", _LOCALLY, "10000 random points, in Python"),
    _measured("swarm", "16 readers, swarm", _ALONE, "a dataset copied by 16 at once, until the last is done"),
    _measured("hdf5", "slice gzip: warm", {"slice gzip: h5py": "h5py"}, "64x64 of a gzip HDF5 file, in Python"),
    _measured(
        "events", "two brokers away, p50", {"PUB to SUB, p50": "bare PUB to SUB"}, "an event, two brokers on"
    ),
]


def _rows(results: Results, operation: str) -> Rows:
    """Give the lines of one operation of bench.compare by server."""
    for table in results.get("compare", {}).get("tables", []):
        if table["title"].startswith(f"{operation} of ") and ("gzip" in operation) == ("gzip" in table["title"]):
            return {row["server"]: row for row in table["rows"]}
    return {}


def _requests(results: Results) -> dict[str, dict[str, float]]:
    rows = _rows(results, "64x64")
    groups = {}
    for count in _CLIENTS:
        column = f"{count} clients, 1/s"
        groups["1 client" if count == 1 else f"{count} clients"] = {
            name: row[column] for name, row in rows.items() if row.get(column)
        }
    return {heading: group for heading, group in groups.items() if group}


def _latency(results: Results) -> dict[str, dict[str, float]]:
    groups = {}
    for operation in ("info", "64x64", "64x64 of gzip HDF5", "chunk", "plane", "100 MB", "whole"):
        rows = _rows(results, operation)
        groups[operation] = {name: row["p50 ms"] for name, row in rows.items() if row.get("p50 ms")}
    return {heading: group for heading, group in groups.items() if group}


def _machine(results: Results) -> list[str]:
    told = results.get("machine", {})
    return [f"Measured by `python -m bench` on: {'; '.join(f'{name} {text}' for name, text in told.items())}."]


def _text(value: float, unit: str, name: str = "") -> str:
    return f"{name} {number(value)} {unit}".strip()

"""The report of the measurements."""

import json

import pytest

from bench import pages
from bench.plots import bars, number
from bench.report import table_lines

TABLE = {
    "title": "64x64 of 64 x 1024 x 1024 float32",
    "machine": {},
    "rows": [
        {"server": "zcat, raw", "p50 ms": 0.5, "32 clients, 1/s": 4000.0},
        {"server": "a <b>, raw", "p50 ms": 5.0, "32 clients, 1/s": 100.0},
        {"server": "local blosc2", "p50 ms": 0.25},
    ],
}
RESULTS = {"machine": {"processors": "2"}, "compare": {"tables": [TABLE], "said": "", "took_s": 1}}


def test_tables_are_found_in_whatever_a_measurement_prints():
    tables, rest = pages.tables_of(f"hello\n{json.dumps(TABLE, indent=1)}\n{{no json\n{json.dumps({'a': 1})}")

    assert tables == [TABLE, {"a": 1}]
    assert rest == "hello\n\n{no json"


def test_the_report_has_all_tables_and_plots_and_what_failed():
    failed = {"tables": [{"a": 1}], "said": "no room", "took_s": 1, "failed": 3}

    files = pages.report({**RESULTS, "cold": failed})

    assert set(files) == {"REPORT.md", "requests.svg", "latency.svg"}
    assert "![requests.svg](requests.svg)" in files["REPORT.md"]
    assert "| a <b>, raw" in files["REPORT.md"]
    assert "It failed with status 3." in files["REPORT.md"]
    assert "no room" in files["REPORT.md"]
    assert "a &lt;b&gt;, raw" in files["requests.svg"]


def test_figures_come_between_the_marks_of_a_page_and_replace_those_that_were_there():
    page = f"before\n{pages.BEGIN}\nold\n{pages.END}\nbehind\n"

    written = pages.with_figures(page, RESULTS)

    assert written.startswith("before\n")
    assert written.endswith(f"{pages.END}\nbehind\n")
    assert "old" not in written
    assert "| a <b> 5 ms; local blosc2 0.25 ms |" in written
    assert "| 4000 requests/s | a <b> 100 requests/s" in written
    assert pages.with_figures(written, RESULTS) == written
    with pytest.raises(ValueError, match="no marks"):
        pages.with_figures("nothing", RESULTS)


def test_bars_are_longer_for_more():
    text = bars("t", {"g": {"zcat": 1000.0, "other": 10.0, "none": 0.0}}, "1/s")

    widths = [float(part.split('"')[1]) for part in text.split("width=")[3:]]
    assert widths[0] > widths[1] > widths[2] == 1
    assert bars("t", {}, "1/s") == ""


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (1.234, "1.23"), (99.96, "100"), (12345.6, "12346")])
def test_numbers_have_about_three_digits(value, text):
    assert number(value) == text


def test_a_table_has_all_headings_and_aligned_cells():
    assert table_lines([{"a": 1.0}, {"a": "xyz", "b": 2.0}]) == [
        "| a   | b |",
        "|-----|---|",
        "| 1   |   |",
        "| xyz | 2 |",
    ]

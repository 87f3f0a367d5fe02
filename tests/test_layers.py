"""The floors of zcat: a module imports from lower floors and from its own package, never from above or beside."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLOORS = [
    {"errors", "limits"},
    {"names", "logs"},
    {"model", "config", "config_file"},
    {"protocol"},
    {"storage", "net", "client"},
    {"services"},
    {"http", "joined"},
    {"cli"},
]
OWNERS = {
    "zmq": {"net"},
    "falcon": {"http"},
    "waitress": {"http"},
    "h5py": {"storage"},
    "watchfiles": {"storage"},
    "blosc2": {"storage", "client"},
    "urllib3": {"client"},
    "rich": {"cli"},
    "shtab": {"cli"},
}
ZCAT = Path(__file__).parents[1] / "zcat"
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full, so that this test can read them"
            if node.module == "zcat":
                yield from (f"zcat.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


@pytest.mark.parametrize("path", sorted(ZCAT.rglob("*.py")), ids=lambda path: str(path.relative_to(ZCAT)))
def test_imports_point_down(path):
    home = path.relative_to(ZCAT).parts[0].removesuffix(".py")
    if home in {"__init__", "__main__"}:
        return
    assert home in FLOOR, f"give {home} a floor"
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "zcat" and rest and rest[0] != home and not rest[0].startswith("__"):
            assert FLOOR[rest[0]] < FLOOR[home], f"{home} imports {name}, which is not below it"
        elif top in OWNERS:
            assert home in OWNERS[top], f"only {OWNERS[top]} may import {top}"


@pytest.mark.parametrize("path", sorted(ZCAT.rglob("*.py")), ids=lambda path: str(path.relative_to(ZCAT)))
def test_no_module_is_too_long_to_read(path):
    assert len(path.read_text().splitlines()) <= 450


def test_import_zcat_loads_nothing_heavy():
    heavy = "{'zmq', 'h5py', 'falcon', 'waitress', 'blosc2', 'numpy', 'rich'}"
    program = f"import sys, zcat; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)

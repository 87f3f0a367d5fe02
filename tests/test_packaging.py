"""What is in the wheel: a package that setup.cfg forgets would be left out without a word."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_in_the_wheel():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = set(setup["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "zcat").rglob("__init__.py")}
    assert named == found

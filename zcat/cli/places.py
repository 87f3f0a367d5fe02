"""Where files go when nobody says: the folders of the XDG base directory specification."""

import os
from pathlib import Path


def state_folder() -> Path:
    """Return the folder of what must survive, such as owner keys: ``$XDG_STATE_HOME/zcat``."""
    return _xdg("XDG_STATE_HOME", ".local/state")


def cache_folder() -> Path:
    """Return the folder of what can be fetched again: ``$XDG_CACHE_HOME/zcat``."""
    return _xdg("XDG_CACHE_HOME", ".cache")


def _xdg(variable: str, below_home: str) -> Path:
    named = os.environ.get(variable, "")
    # the specification: a relative path is invalid, and to be ignored
    folder = Path(named) if os.path.isabs(named) else Path.home() / below_home
    return folder / "zcat"

"""Share n-dimensional Blosc2 datasets among the hosts of a cluster.

For those who read::

    import zcat

    client = zcat.connect("http://127.0.0.1:8000")      # a subscriber near you, or
    client = zcat.join("tcp://broker:5560", follow=["weather"])  # one inside this process

    wind = client["weather/2024/wind.b2nd"]
    wind[0, 10:74, 20:84]                                # a NumPy array

Importing this module loads next to nothing; what a name needs is loaded when the name is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from zcat.errors import ZcatError

if TYPE_CHECKING:
    from zcat.client.array import Array
    from zcat.client.byte_frame import ByteFrame
    from zcat.client.client import Client, connect
    from zcat.client.dataset import Dataset
    from zcat.client.preview import Preview
    from zcat.client.roots import Root
    from zcat.joined import join

__version__ = "0.1.0"

__all__ = [
    "Array",
    "ByteFrame",
    "Client",
    "Dataset",
    "Preview",
    "Root",
    "ZcatError",
    "connect",
    "join",
]

_HOME_OF = {
    "Array": "zcat.client.array",
    "ByteFrame": "zcat.client.byte_frame",
    "Client": "zcat.client.client",
    "Dataset": "zcat.client.dataset",
    "Preview": "zcat.client.preview",
    "Root": "zcat.client.roots",
    "connect": "zcat.client.client",
    "join": "zcat.joined",
}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'zcat' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

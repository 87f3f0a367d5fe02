"""The example that ``zcat up`` shares when it is given nothing: one dataset of each kind, made by formulas.

Small, the same on every machine, and with something to see in each.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zcat.storage.disk import storage_failed
from zcat.storage.save import Layout, replaced, save_array

Array = npt.NDArray[Any]

README = """\
# Example

Made by formulas, so that there is something to look at. Each file is a dataset:

| dataset | what it is | axes |
|---|---|---|
| `mandelbrot.b2nd` | steps until a point escapes, smoothed | y, x |
| `waves.b2nd` | two sources, interfering, through one period | time, y, x |
| `plasma.b2nd` | a film in colour, 8 bits each of red, green and blue | time, y, x, colour |
| `tide.b2nd` | a year of sea level each quarter of an hour: tides, a storm, noise | time |
| `stations.b2nd` | a table: stations on a spiral over the globe | station |
| `about/stations.txt` | what the columns of the table mean | |

Try:

```
zcat info example/waves.b2nd
zcat show 'example/waves.b2nd[5, ::32, ::32]'
zcat show --field latitude 'example/stations.b2nd[:5]'
zcat get example/mandelbrot.b2nd
```
"""

STATIONS_TEXT = """\
name        six letters and digits
latitude    degrees north
longitude   degrees east
height      metres above the sea
is_manned   whether anybody lives there
"""

_QUARTERS_PER_HOUR = 4
_HOURS_PER_YEAR = 365 * 24


def make_example(folder: Path) -> Path:
    """Make the example in ``folder``, unless it is there; return the folder.

    Raises:
        StorageFailed: the disk refused.
    """
    try:
        (folder / "about").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_failed(f"making {folder}", error) from error
    for name, (make, chunks, attributes) in _ARRAYS.items():
        path = folder / name
        if not path.exists():
            items = make()
            save_array(path, items, Layout(items.shape, items.dtype, chunks, None, attributes))
    for name, text in {"about/stations.txt": STATIONS_TEXT, "README.md": README}.items():
        if not (folder / name).exists():
            with replaced(folder / name) as partial:
                partial.write_text(text)
    return folder


def mandelbrot(side: int = 768, steps_max: int = 80) -> Array:
    """Count, for each point of the plane, the steps until it leaves a circle; 0 where it never does."""
    x = np.linspace(-2.2, 0.8, side)
    y = np.linspace(-1.5, 1.5, side)
    c = (x + 1j * y[:, np.newaxis]).ravel()
    z = np.zeros_like(c)
    steps = np.zeros(c.size, np.float32)
    inside = np.arange(c.size)
    for step in range(1, steps_max):
        z = z * z + c
        size = np.abs(z)
        gone = size > 16
        steps[inside[gone]] = step - np.log2(np.log2(size[gone])) + 2
        inside, z, c = inside[~gone], z[~gone], c[~gone]
    return steps.reshape(side, side)


def waves(frames: int = 32, side: int = 128) -> Array:
    """Return the height of water around two sources, through one period."""
    phase = np.linspace(0, 2 * np.pi, frames, endpoint=False)[:, np.newaxis, np.newaxis]
    x = np.linspace(-20, 20, side)
    y = x[:, np.newaxis]
    height = np.zeros((frames, side, side))
    for source in (-5, 5):
        distance = np.hypot(x - source, y)
        height += np.cos(2 * distance - phase) / np.sqrt(1 + distance)
    return height.astype(np.float32)


def plasma(frames: int = 24, side: int = 128) -> Array:
    """Return a film of moving colours."""
    time = np.linspace(0, 2 * np.pi, frames, endpoint=False)[:, np.newaxis, np.newaxis]
    x = np.linspace(0, 6, side)
    y = x[:, np.newaxis]
    field = np.sin(x + time) + np.sin(y - time) + np.sin(np.hypot(x - 3, y - 3) * 2 - time)
    colours = [127.5 + 127.5 * np.sin(field * 1.5 + shift) for shift in (0, 2.1, 4.2)]
    return np.stack(colours, axis=-1).astype(np.uint8)


def tide() -> Array:
    """Return a year of sea level: four tides by their periods, one storm, and the noise of the gauge."""
    hours = np.arange(_HOURS_PER_YEAR * _QUARTERS_PER_HOUR) / _QUARTERS_PER_HOUR
    # M2, S2, K1 and O1: the moon's and the sun's half-daily tides, and the two daily ones
    tides = [(1.2, 12.4206), (0.4, 12.0), (0.15, 23.9345), (0.1, 25.8193)]
    level = sum(height * np.cos(2 * np.pi * hours / period) for height, period in tides)
    storm = 1.8 * np.exp(-(((hours - 7_900) / 18) ** 2))
    # the fraction of a large sine: noise enough for the eye, and the same everywhere
    noise = np.modf(np.sin(hours * 12.9898) * 43_758.5453)[0] * 0.05
    return np.asarray((level + storm + noise).astype(np.float32))


def stations(count: int = 500) -> Array:
    """Return a table of stations on a spiral from pole to pole."""
    number = np.arange(count)
    table = np.zeros(
        count,
        dtype=[("name", "S6"), ("latitude", "f8"), ("longitude", "f8"), ("height", "i4"), ("is_manned", "?")],
    )
    table["name"] = [f"ST{n:04}".encode() for n in number]
    table["latitude"] = np.degrees(np.arcsin(1 - (2 * number + 1) / count)).round(4)
    golden_angle = 180 * (3 - math.sqrt(5))
    table["longitude"] = ((number * golden_angle) % 360 - 180).round(4)
    table["height"] = (1500 * np.sin(number * 0.7) ** 4).astype(np.int32)
    table["is_manned"] = number % 7 == 0
    return table


_ARRAYS: dict[str, Any] = {
    "mandelbrot.b2nd": (
        mandelbrot,
        (256, 256),
        {"long_name": "steps until a point escapes", "units": "1", "axes": ["y", "x"]},
    ),
    "waves.b2nd": (
        waves,
        (4, 128, 128),
        {"long_name": "height of water around two sources", "units": "cm", "axes": ["time", "y", "x"]},
    ),
    "plasma.b2nd": (
        plasma,
        (6, 128, 128, 3),
        {"long_name": "moving colours", "units": "1", "axes": ["time", "y", "x", "colour"]},
    ),
    "tide.b2nd": (
        tide,
        (8192,),
        {"long_name": "sea level above the mean", "units": "m", "axes": ["time"], "interval_s": 900},
    ),
    "stations.b2nd": (
        stations,
        (100,),
        {
            "long_name": "stations on a spiral over the globe",
            "units": {"latitude": "degrees_north", "longitude": "degrees_east", "height": "m"},
        },
    ),
}

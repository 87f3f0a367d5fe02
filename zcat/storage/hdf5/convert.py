"""From the values of a box of an HDF5 dataset to the Blosc2 chunks that it is offered as: in any process."""

from dataclasses import dataclass

import blosc2
import numpy as np
from numpy.typing import NDArray

from zcat.model.dataset import Compression, Geometry
from zcat.storage.block_order import to_block_order
from zcat.storage.chunk_gate import plain_chunk
from zcat.storage.frame_template import compress_options
from zcat.storage.hdf5.layout import Cut, Unit, box_of


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is asked for: some chunks of a dataset, converted together."""

    hdf5_path: str
    geometry: Geometry
    compression: Compression
    start: tuple[int, ...]
    stop: tuple[int, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, hdf5_path: str, cut: Cut, unit: Unit) -> "Job":
        """Say how ``unit`` of a dataset is to be converted."""
        start, stop = tuple(part.start for part in unit.box), tuple(part.stop for part in unit.box)
        return cls(hdf5_path, cut.geometry, cut.compression, start, stop, unit.numbers)

    @property
    def cut(self) -> Cut:
        """How the dataset is offered."""
        return Cut(self.geometry, self.compression)

    @property
    def unit(self) -> Unit:
        """What is to be read, and what is to be made of it."""
        return Unit(tuple(map(slice, self.start, self.stop)), self.numbers)


def convert_box(values: np.ndarray, cut: Cut, unit: Unit) -> list[bytes]:
    """Compress the chunks of a unit.

    Args:
        values: of the shape of ``unit.box``; its items have the bytes of the offered dtype.
        cut: of the dataset.
        unit: which chunks; they come back in its order.
    """
    geometry = cut.geometry
    options = compress_options(cut.compression, geometry.typesize, geometry.blocksize)
    chunks: list[bytes] = []
    for number in unit.numbers:
        inside = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(box_of(cut.array, number), unit.box, strict=True)
        )
        raw = to_block_order(values[inside], cut.array)
        chunks.append(plain_chunk(blosc2.compress2(raw, **options), geometry, number))
    return chunks


def as_items(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Let items be copied as a whole and not field by field: as integers, or as opaque bytes.

    Raises:
        AssertionError: they have another size than ``dtype``.
    """
    assert values.dtype.itemsize == dtype.itemsize
    if not values.flags.c_contiguous:
        values = np.ascontiguousarray(values)
    return values.view(item_type(dtype.itemsize))


def item_type(itemsize: int) -> np.dtype:
    """Return a plain dtype of that size, which NumPy copies fastest."""
    return np.dtype({1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}.get(itemsize, f"V{itemsize}"))


def filled(shape: tuple[int, ...], fill: bytes | None, itemsize: int) -> NDArray[np.generic]:
    """Return an array of fill values.

    Args:
        shape: of it.
        fill: one item; None for zeros.
        itemsize: in bytes.
    """
    array = np.zeros(shape, item_type(itemsize))
    if fill is not None and any(fill):
        array[...] = np.frombuffer(fill, array.dtype)[0]
    return array

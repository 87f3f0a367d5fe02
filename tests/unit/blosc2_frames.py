"""Frames that several test modules read: made by Blosc2 itself."""

import blosc2
import numpy as np

ARRAYS = [
    # shape, chunks, blocks, dtype
    ((), (), (), "<f8"),
    ((1,), (1,), (1,), "|b1"),
    ((100,), (30,), (7,), "<i2"),
    ((7, 9), (4, 5), (3, 2), "<f4"),
    ((5, 6, 7), (2, 6, 4), (1, 3, 4), ">f8"),
    ((3, 4, 5, 6), (2, 2, 5, 3), (1, 2, 2, 3), "<c16"),
    ((50,), (20,), (10,), "<M8[ns]"),
    ((9,), (4,), (2,), "<U3"),
    ((9,), (4,), (2,), "|S300"),
    ((40, 3), (15, 2), (4, 2), [("a", "<i4"), ("b", "|S3"), ("c", [("d", "<f8", (2,))])]),
    ((6,), (4,), (4,), "|V7"),
    ((0,), (10,), (3,), "<f4"),
    ((3, 0), (3, 0), (3, 0), "<i8"),
]
"""Edge chunks, blocks that don't divide chunks, wide items, no items."""


def values(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Make an array of that shape whose bytes are legal for its type and not all equal."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    raw = (np.arange(count * dtype.itemsize) % 3).astype("u1")
    if dtype.kind == "U":
        return np.array([str(i % 100) for i in range(count)], dtype).reshape(shape)
    if dtype.kind == "b":
        return (np.arange(count) % 2).astype(dtype).reshape(shape)
    return raw.view(dtype).reshape(shape) if count else np.empty(shape, dtype)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Compare by bytes: NaNs and records too."""
    return (
        left.shape == right.shape and np.ascontiguousarray(left).tobytes() == np.ascontiguousarray(right).tobytes()
    )


def made(shape: tuple, chunks: tuple, blocks: tuple, dtype: object, **storage: object) -> blosc2.NDArray:
    """Make one of `ARRAYS` in Blosc2, filled."""
    array = blosc2.uninit(shape, dtype=np.dtype(dtype), chunks=chunks, blocks=blocks, **storage)
    if array.size:
        array[...] = values(shape, dtype)
    return array

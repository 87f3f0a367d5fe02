"""Arrays that read like NumPy's and stay where they are."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zcat.client.backend import PreviewKey
from zcat.client.dataset import Dataset
from zcat.client.preview import Preview
from zcat.errors import BadSelection
from zcat.limits import MIB
from zcat.model.dataset import ArrayGeometry
from zcat.model.dtypes import parse_dtype
from zcat.model.reduction import bins_of, parse_fit
from zcat.model.selection import Points, parse_key

ITERATED_BYTES = 8 * MIB
"""What an iteration reads at a time, if chunks allow: many rows of small chunks, never less than a row of them."""


class Array(Dataset):
    """An n-dimensional array: slices of it are NumPy arrays, read when they are asked for.

    Keys, results and refusals are NumPy's: integers, slices, ``...``, ``np.newaxis``, lists and arrays of
    integers, boolean masks. Fields of structured dtypes go by name, ``ds["wind"]``, and also together with a
    key, ``ds["wind", 10:20]``, which reads that part of that field only. Nothing is fetched for an empty answer.
    Chunks that are not in the subscriber's cache are fetched by it, and stay there.

    Errors of a read: `BadSelection` (an ``IndexError`` and a ``ValueError``) for a key that does not fit;
    `Unavailable` and `Timeout` for chunks that nobody can be asked for; `Stale` as said at `Dataset`.

    Example:
        >>> ds = zcat.connect()["weather/2024/wind.b2nd"]
        >>> ds.shape, ds.dtype
        ((8760, 721, 1440), dtype('float32'))
        >>> ds[0, 10:74, ::4].mean()
        >>> numpy.asarray(ds)           # all of it
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Items per axis."""
        return self._geometry.shape

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Of the items."""
        return _dtype(self._geometry.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of items."""
        return self._info.entry.nbytes // self._geometry.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Items per axis of a chunk, the unit that is fetched and cached."""
        return self._geometry.chunks

    @property
    def blocks(self) -> tuple[int, ...]:
        """Items per axis of a block, the unit that is decompressed."""
        return self._geometry.blocks

    def __getitem__(self, key: Any) -> Any:
        info, dtype = self._info, self.dtype
        fields, rest = _split_fields(key, dtype)
        read = parse_key(rest, self.shape)
        what = read.what
        field = fields if isinstance(fields, str) and dtype[fields].subdtype is None else None
        if what.is_empty:
            shape = (0,) if isinstance(what, Points) else what.shape
            block = np.empty(shape, dtype if field is None else dtype[field])
        else:
            block = self._on_one_version(info, lambda asked: self._backend.read(asked, what, field))
        answer = read.finish(block)
        return answer if fields is None or field is not None else answer[fields]

    def preview(
        self,
        selection: Any = ...,
        *,
        fit: int | str | Sequence[int],
        reduce: str = "mean",
        field: str | None = None,
        exact: bool = False,
    ) -> Preview:
        """Read a part of the array made small, to be looked at: the subscriber goes through it chunk by chunk.

        Args:
            selection: a key of integers and slices, such as ``np.s_[3, ::2]``.
            fit: the most items along each of the last axes of the selection, in their order: ``(768, 1024)``,
                ``"768x1024"``, or one number for the last axis.
            reduce: how several items become one: ``mean``, ``min``, ``max``, or ``stride`` for the first of them.
                NaN does not count. Means are float32; of float64 and of integers wider than 16 bits float64.
            field: of a structured dtype.
            exact: use all items, however many there are. Else a part of which too much would have to be fetched
                or decoded is sampled: see ``exact`` and ``factors`` of what comes.

        Raises:
            BadRequest: that is no fit, or no way to reduce.
            BadSelection: the array has no such part, or its items no mean, or no order.
            TooLarge: even a sample would be.
            Unavailable, Timeout, Stale: as when it is read.

        Example:
            >>> ds = client["weather/2024/wind.b2nd"]
            >>> plt.imshow(ds.preview(0, fit=(768, 1024)))
            >>> peaks = ds.preview(np.s_[:, 360, 720], fit=2000, reduce="max").values
        """
        key = PreviewKey(selection, parse_fit(fit, reduce), field, exact)
        bins_of(parse_key(selection, self.shape), key.fit.sizes)
        return self._on_one_version(self._info, lambda asked: self._backend.preview(asked, key))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all of it.

        Raises:
            ValueError: ``copy=False``: what is elsewhere cannot be had without a copy.
        """
        if copy is False:
            raise ValueError(f"{self.address} is not in memory: it cannot be an array without a copy")
        whole = np.asarray(self[...])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                "the truth value of an array with other than one item is ambiguous; use .size, or read it"
            )
        return bool(np.asarray(self))

    def __iter__(self) -> Iterator[Any]:
        """Give the items along axis 0, all of one version; whole rows of chunks are read at a time."""
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return self._rows()

    def __repr__(self) -> str:
        pinned = ", pinned" if self.pinned else ""
        return f"<zcat.Array {self.address} {self.shape} {self.dtype} in chunks {self.chunks}{pinned}>"

    def __dask_tokenize__(self) -> tuple[str, ...]:
        return "zcat.Array", self._backend.url, self.address, self.version

    @property
    def _geometry(self) -> ArrayGeometry:
        array = self._info.geometry.array
        assert array is not None
        return array

    def _rows(self) -> Iterator[Any]:
        source = self.pin()
        row_bytes = max(self.nbytes // max(len(self), 1), 1)
        chunk = max(self.chunks[0], 1)
        step = max(ITERATED_BYTES // (row_bytes * chunk), 1) * chunk
        for start in range(0, len(self), step):
            yield from source[start : start + step]


def _split_fields(key: Any, dtype: "np.dtype[Any]") -> tuple[str | list[str] | None, Any]:
    """Take names of fields out of a key.

    Returns:
        A name, a list of names or None, and the key without them.
    """
    if dtype.names is None:
        return None, key
    parts = key if isinstance(key, tuple) else (key,)
    named = [number for number, part in enumerate(parts) if _is_names(part)]
    if not named:
        return None, key
    if len(named) > 1:
        raise BadSelection("several names of fields in one key: give them as one list")
    fields = parts[named[0]]
    for name in [fields] if isinstance(fields, str) else fields:
        if name not in dtype.names:
            raise BadSelection(f"no field of name {name!r}; there are {', '.join(dtype.names)}")
    return fields, (*parts[: named[0]], *parts[named[0] + 1 :]) or (Ellipsis,)


def _is_names(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, list) and bool(part) and all(isinstance(name, str) for name in part)
    )


@functools.lru_cache(maxsize=256)
def _dtype(text: str) -> "np.dtype[Any]":
    return parse_dtype(text)

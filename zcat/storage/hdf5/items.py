"""What a worker tells of an HDF5 file: values that travel from its process to the publisher's.

They come from a process that has opened a foreign file, so they pass `zcat.protocol.codec.from_plain` like
anything that came by wire.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a dataset's pipeline."""

    id: int
    name: str
    options: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset's bytes lie in the file."""

    kind: str
    """``chunked``, ``contiguous``, ``compact`` or ``virtual``."""
    chunks: tuple[int, ...] | None = None
    """Items per axis of an HDF5 chunk; None unless chunked."""
    filters: tuple[Filter, ...] = ()
    offset: int | None = None
    """Of a contiguous dataset's bytes in the file; None where there are none yet (then all is fill value)."""
    stored_bytes: int = 0
    """In the file."""


@dataclass(frozen=True, slots=True)
class Item:
    """A group or dataset of a file, under one of its names."""

    path: str
    """Inside the file, without a slash at either end, made legal by `names`; empty for the root group."""
    hdf5_path: str
    """As HDF5 has it, absolute."""
    kind: str
    """``group`` or ``dataset``."""
    address: int = 0
    """Of the object in the file: the same for all names (hard links) of one object."""
    shape: tuple[int, ...] | None = None
    """None for groups and for null dataspaces."""
    dtype: str | None = None
    """Of the array that is offered, as ``model.dtypes`` reads it; None where there is none."""
    layout: Layout | None = None
    fill: bytes | None = None
    """One item of the offered dtype: the value of what was never written; None for zeros."""
    problem: str | None = None
    """Why the content is not offered."""
    note: str | None = None
    """What of it is offered in another form, such as text of variable length as fixed-width strings."""
    fingerprint: str = ""
    """Changes whenever the content may have: 32 hexadecimal digits of layout, chunk table, type and times."""

"""Write an array to a ``.b2nd`` file of a user: compact, and there as a whole or not at all."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import numpy.typing as npt

from zcat.errors import StorageFailed, ZcatError
from zcat.limits import MIB
from zcat.storage.disk import storage_failed

PROBE_BYTES = MIB


@dataclass(frozen=True, slots=True)
class Layout:
    """What the new array is, besides its items."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None = None
    """None: as Blosc2 likes it."""
    blocks: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Written as variable-length metadata (vlmeta)."""


@contextmanager
def new_array(path: Path, layout: Layout) -> Iterator[Any]:
    """Give an array to be filled by ``array[key] = items``; it takes its place at the end, if all went well.

    Fill it in whole chunks, in their order: each is then compressed once.

    Raises:
        StorageFailed: the disk refused.
    """
    with replaced(path) as partial:
        array = None
        try:
            array = blosc2.empty(
                layout.shape,
                dtype=layout.dtype,
                chunks=layout.chunks,
                blocks=layout.blocks,
                urlpath=str(partial),
                mode="w",
                contiguous=True,
            )
            for name, value in layout.attributes.items():
                array.schunk.vlmeta[name] = value
            yield array
        except RuntimeError as error:
            chunk_bytes = array.schunk.chunksize if array is not None else 0
            raise _refusal(path, partial, chunk_bytes) or StorageFailed(f"writing {path}: {error}") from error


def save_array(path: Path, items: npt.NDArray[Any], layout: Layout | None = None) -> None:
    """Write a whole array.

    Raises:
        StorageFailed: the disk refused.
    """
    with new_array(path, layout or Layout(items.shape, items.dtype)) as array:
        array[...] = items


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give the name of a new file beside ``path``, and rename it to ``path`` at the end, if all went well.

    Raises:
        StorageFailed: the disk refused.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    except ZcatError:
        raise  # some of ours are OSErrors, too
    except OSError as error:
        raise storage_failed(f"writing {path}", error) from error
    finally:
        partial.unlink(missing_ok=True)


def _refusal(path: Path, partial: Path, chunk_bytes: int) -> StorageFailed | None:
    """Find out why the disk refused, which Blosc2 does not say: have it refuse the room for a chunk once more."""
    try:
        with partial.open("ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), max(chunk_bytes, PROBE_BYTES))
    except OSError as error:
        return storage_failed(f"writing {path}", error)
    return None

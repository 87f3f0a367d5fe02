"""What a publisher says of a dataset, held against itself before anybody computes with it."""

import numpy as np
import numpy.typing as npt

from zcat.errors import BadContent, BadMessage, Stale
from zcat.limits import BLOSC2_CHUNK_OVERHEAD
from zcat.model.dataset import DatasetInfo, Geometry, Kind
from zcat.model.dtypes import parse_dtype
from zcat.names import shown
from zcat.protocol.messages import InfoReply, SizesReply


def described(reply: InfoReply, path: str) -> DatasetInfo:
    """Give what a reply describes, if its parts agree. Each of them has passed the codec.

    Items that are larger or smaller than their dtype would be written beyond the end of an array, or leave it
    as it was found in memory.

    Raises:
        BadMessage: it is about another dataset, or its attributes cannot be read.
        BadContent: its parts contradict one another.
        NotReadable: items of its type are not offered.
    """
    entry, array = reply.entry, reply.geometry.array
    if entry.path != path:
        raise BadMessage(f"asked about {shown(path)}, told about {shown(entry.path)}")
    if (array is not None) != (entry.kind is Kind.ARRAY):
        raise BadContent(f"{path}: its publisher calls it {entry.kind.value!r} and describes something else")
    if array is not None:
        itemsize = parse_dtype(array.dtype).itemsize
        if itemsize != array.itemsize:
            raise BadContent(
                f"{path}: its publisher says items of {array.itemsize} bytes, and {shown(array.dtype)}, "
                f"which has {itemsize}"
            )
        if entry.shape != array.shape:
            raise BadContent(f"{path}: its publisher names two shapes, {entry.shape} and {array.shape}")
    return reply.info()


def sizes_of(reply: SizesReply, path: str, lineage: str, geometry: Geometry) -> npt.NDArray[np.int64]:
    """Give the compressed size of each chunk in bytes, if they can be.

    Raises:
        Stale: they are those of another lineage.
        BadContent: they cannot be.
    """
    if reply.lineage != lineage:
        raise Stale(f"{path}: asked for the sizes of one lineage, told those of another")
    raw = b"".join(bytes(frame) for frame in reply.sizes)
    sizes = np.frombuffer(raw, "<i4").astype(np.int64) if len(raw) % 4 == 0 else np.empty(0, np.int64)
    largest = geometry.chunksize + BLOSC2_CHUNK_OVERHEAD
    if len(sizes) != geometry.nchunks or (len(sizes) and not 0 < sizes.min() <= sizes.max() <= largest):
        raise BadContent(f"{path}: its publisher names impossible sizes of its chunks")
    return sizes

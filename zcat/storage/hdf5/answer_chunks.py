"""What a worker does when it is asked for chunks: read a box by HDF5, and convert it. In worker processes only.

HDF5 knows all filters, types, fill values and edges; ``raw_chunks`` does the simple ones faster.
"""

from collections.abc import Mapping
from typing import Any

from zcat.model.dtypes import parse_dtype
from zcat.protocol.codec import from_plain
from zcat.storage.hdf5.checks import open_dataset
from zcat.storage.hdf5.convert import Job, as_items, convert_box
from zcat.storage.hdf5.open_files import OpenFile
from zcat.storage.hdf5.types import read_box
from zcat.storage.hdf5.wire import Answer


def answer_chunks(file: OpenFile, fields: Mapping[str, Any]) -> Answer:
    """Make the chunks of a `Job`.

    Args:
        file: open.
        fields: the job, plain.

    Returns:
        One body: the chunks, one after the other; each says its length.

    Raises:
        BadMessage: it is no job.
        DatasetUnknown, NotReadable, BadContent: the dataset cannot be read.
    """
    job = from_plain(Job, fields)
    dataset = open_dataset(file.h5, job.hdf5_path)
    dtype = parse_dtype(job.cut.array.dtype)
    values = as_items(read_box(dataset, job.unit.box, dtype, file.paths), dtype)
    return Answer({}, [b"".join(convert_box(values, job.cut, job.unit))])

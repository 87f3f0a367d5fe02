"""A backend that holds everything in memory: what the Python interface reads from in its tests."""

import contextlib
import hashlib
import math

import numpy as np

from zcat.client.backend import Address, Body, Listed, RootInfo
from zcat.client.roots import open_dataset
from zcat.errors import DatasetUnknown, RootNotFollowed, RootUnknown, Stale, Unavailable
from zcat.model.dataset import ArrayGeometry, Compression, DatasetInfo, Entry, Geometry, Kind
from zcat.model.dtypes import dtype_text
from zcat.model.selection import Points

OWNER = "0123456789abcdef" * 2


class MemoryBackend:
    """One root, ``lab``. ``calls`` lists the names of the methods that were called."""

    url = "memory:"

    def __init__(self, **contents):
        self.contents = {name.replace("__", "/"): content for name, content in contents.items()}
        self.lives = dict.fromkeys(self.contents, 0)
        self.calls = []
        self.chunks = 3
        self.before_read = []  # functions that are called once each, before a read
        self.cut_at = None  # bodies end there
        self.followed = True

    def put(self, path, content, is_append=False):
        self.contents[path] = content
        self.lives[path] = self.lives.get(path, 0) + (not is_append)

    def close(self):
        self.calls.append("close")

    def roots(self):
        self.calls.append("roots")
        lab = RootInfo("lab", OWNER, "live", self.followed, False, len(self.contents), True)
        mine = RootInfo("twice", OWNER, "live", False, True, None, False)
        yours = RootInfo("twice", OWNER[::-1], "live", False, True, None, False)
        return [lab, mine, yours]

    def follow(self, root):
        self.calls.append("follow")
        self._known(root)
        self.followed = True

    def unfollow(self, root):
        self.calls.append("unfollow")
        self._known(root)
        self.followed = False

    def health(self):
        return {"status": "ok"}

    def listing(self, root, under):
        self._known(root)
        if not self.followed:
            raise RootNotFollowed(root)
        entries = [self._info(path).entry for path in sorted(self.contents)]
        return [
            Listed(e.path, e.kind, e.shape, e.dtype, e.nbytes, e.cbytes, e.mtime_ns, e.problem)
            for e in entries
            if not under or e.path == under or e.path.startswith(under + "/")
        ]

    def info(self, address):
        self.calls.append("info")
        if address.path not in self.contents:
            raise DatasetUnknown(f"no {address}")
        return self._info(address.path)

    def read(self, asked, what, field):
        content = self._content(asked)
        records = content if field is None else content[field]
        if isinstance(what, Points):
            return records[tuple(what.coordinates.T)]
        return np.array(records[np.ix_(*what.axes)] if what.axes else records)

    def read_bytes(self, asked, start, stop):
        return self._content(asked)[start:stop]

    @contextlib.contextmanager
    def body(self, address, start, tag):
        self.calls.append("body")
        data = self.contents[address.path]
        now = self._info(address.path).version.etag
        begin = start if tag == now else 0

        def pieces():
            for at in range(begin, len(data), 10):
                if self.cut_at is not None and at >= self.cut_at:
                    raise Unavailable("cut")
                yield data[at : at + 10]

        yield Body(now, begin, len(data), pieces())

    def _content(self, asked):
        self.calls.append("read")
        if self.before_read:
            self.before_read.pop(0)()
        if self._info(asked.address.path).entry.lineage != asked.info.entry.lineage:
            raise Stale("moved")
        return self.contents[asked.address.path]

    def _known(self, root):
        if root.partition("@")[0] not in ("lab", "twice"):
            raise RootUnknown(root)

    def _info(self, path):
        content = self.contents[path]
        lineage = hashlib.blake2b(f"{path} {self.lives[path]}".encode(), digest_size=16).hexdigest()
        if isinstance(content, bytes):
            entry = Entry(path, Kind.FILE, lineage, len(content), len(content), 0)
            return DatasetInfo(entry, Geometry(len(content), 100, 100, 1), Compression(), {"n": [1]})
        item = content.dtype.itemsize
        chunks = tuple(min(self.chunks, length) for length in content.shape)
        array = ArrayGeometry(content.shape, chunks, chunks, dtype_text(content.dtype), item)
        size = math.prod(chunks) * item
        geometry = Geometry(0, size, size, item if item < 256 else 1, array)
        entry = Entry(path, Kind.ARRAY, lineage, content.nbytes, content.nbytes, 0, array.shape, array.dtype)
        return DatasetInfo(entry, geometry, Compression(), {"units": "m/s"})


def opened(content):
    """Return a backend that holds one dataset, and the dataset."""
    backend = MemoryBackend(x=content)
    dataset = open_dataset(backend, Address("lab", "x"))
    backend.calls.clear()
    return backend, dataset

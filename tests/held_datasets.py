"""A subscriber that has everything in memory: what the HTTP side reads from in its tests."""

import hashlib
import itertools
from dataclasses import dataclass, replace

import blosc2
import numpy as np
from falcon import testing

from zcat.errors import BadSelection, DatasetUnknown, RootNotFollowed, RootUnknown, Stale
from zcat.http.app import make_app
from zcat.model.dataset import DatasetInfo, Entry, Kind
from zcat.model.selection import Points, Selection
from zcat.services.at_hand import NotAtHand
from zcat.storage.frame_format import geometry_of, header_bytes, parse_header

OWNER = "0123456789abcdef" * 2
MTIME_NS = 1_790_000_000_123_456_000


class HeldFrame:
    def __init__(self, cframe, local):
        self.nbytes = len(cframe)
        self.local = local
        self._view = memoryview(cframe)
        self._buffer = bytearray(100_000)

    def iter_bytes(self, start=0, stop=None):
        stop = self.nbytes if stop is None else stop
        for at in range(start, stop, 100_000):
            piece = self._view[at : min(at + 100_000, stop)]
            if not self.local:  # a view is good until the next is asked for
                self._buffer[: len(piece)] = piece
                piece = memoryview(self._buffer)[: len(piece)]
            yield piece

    def close(self):
        self._view = memoryview(b"")


class HeldDataset:
    """One dataset: its content, its frame, and what the frame says of it."""

    def __init__(self, path, content, schunk, kind, attributes=None):
        self.cframe = schunk.to_cframe()
        header = parse_header(self.cframe[: header_bytes(self.cframe)])
        geometry = geometry_of(header)
        array = geometry.array
        nbytes = content.nbytes if array else len(content)
        lineage = hashlib.blake2b(self.cframe, digest_size=16).hexdigest()
        shape, dtype = (array.shape, array.dtype) if array else (None, None)
        entry = Entry(path, kind, lineage, nbytes, len(self.cframe), MTIME_NS, shape, dtype)
        self.info = DatasetInfo(entry, geometry, header.compression, attributes or {})
        self.content = content
        self.complete = True
        self.in_blocks = False
        self.reads = 0
        self._schunk = schunk

    def read(self, what):
        self.reads += 1
        if isinstance(what, Points):
            return np.ascontiguousarray(self.content[tuple(what.coordinates.T)])
        if not what.axes:
            return np.array(self.content)
        if all(isinstance(axis, range) for axis in what.axes):
            box = tuple(slice(axis.start, axis.stop, axis.step) for axis in what.axes)
            return np.ascontiguousarray(self.content[box])
        return np.ascontiguousarray(self.content[np.ix_(*map(list, what.axes))])

    def parts(self, what, window_bytes=None):
        assert not what.is_empty
        first, *others = what.axes
        for low, high in itertools.pairwise(sorted({0, len(first) // 2, len(first)})):
            place = (slice(low, high), *(slice(0, len(axis)) for axis in others))
            yield place, self.read(Selection((first[low:high], *others)))

    def bring(self, chunks):
        pass

    def views(self, windows, bulk=True):
        for window in windows:
            yield from zip(window, self.chunks(window), strict=True)

    def missing_count(self, chunks):
        return 0 if self.complete else len(chunks)

    def read_bytes(self, start, stop):
        self.reads += 1
        return memoryview(self.content)[start:stop]

    def chunk(self, nchunk):
        if nchunk >= self.info.geometry.nchunks:
            raise BadSelection(f"chunk {nchunk}: the dataset has {self.info.geometry.nchunks}")
        return self._schunk.get_chunk(nchunk)

    def chunks(self, numbers):
        return [self.chunk(int(nchunk)) for nchunk in numbers]

    def frame(self):
        return HeldFrame(self.cframe, self.complete)


@dataclass(frozen=True)
class HeldRoot:
    name: str
    owner: str = OWNER
    state: str = "live"
    followed: bool = True
    contested: bool = False
    datasets: int | None = None
    synced: bool = True


class HeldRoots:
    """Everything a subscriber offers to HTTP, over a dictionary."""

    def __init__(self, datasets, root="lab"):
        self.views = {root: HeldRoot(root, datasets=len(datasets)), "other": HeldRoot("other", followed=False)}
        self.datasets = {root: {held.info.entry.path: held for held in datasets}, "other": {}}
        self.stale_left = 0
        self.is_at_hand = True

    def roots(self):
        return list(self.views.values())

    def follow(self, root):
        self._set(root, True)

    def unfollow(self, root):
        self._set(root, False)

    def entries(self, root, under=""):
        found = sorted(self._root(root).items())
        return [h.info.entry for p, h in found if not under or p == under or p.startswith(f"{under}/")]

    def on_version(self, root, path, work):
        held = self._root(root).get(path)
        if held is None:
            raise DatasetUnknown(f"root {root} has no dataset {path}")
        while self.stale_left:
            self.stale_left -= 1
            try:
                work(_Moved(held))
            except Stale:
                continue
        return work(held)

    def at_hand(self, root, path, work):
        if not self.is_at_hand:
            raise NotAtHand
        return self.on_version(root, path, work)

    def health(self):
        return {"status": "ok", "version": "0", "cache": {"hit_ratio": float("nan")}}

    def _root(self, root):
        if root not in self.views:
            raise RootUnknown(f"no root {root}")
        if not self.views[root].followed:
            raise RootNotFollowed(f"root {root} is not followed; follow it with POST /api/subscribe/{root}")
        return self.datasets[root]

    def _set(self, root, followed):
        if root not in self.views:
            raise RootUnknown(f"no root {root}")
        self.views[root] = replace(self.views[root], followed=followed)


class _Moved:
    """A version that is gone by the time that it is read."""

    def __init__(self, held):
        self._held = held

    def __getattr__(self, name):
        return getattr(self._held, name)

    def read(self, what):
        raise Stale("the file changed")


def held_array(path, array, chunks=None, blocks=None, attributes=None):
    compressed = blosc2.asarray(
        np.asarray(array), chunks=chunks, blocks=blocks, cparams={"codec": blosc2.Codec.ZSTD}
    )
    held = HeldDataset(path, np.asarray(array), compressed.schunk, Kind.ARRAY, attributes)
    held.keeps = compressed  # its super-chunk dangles without it
    return held


def held_bytes(path, content, kind=Kind.FILE, chunksize=100, typesize=1):
    schunk = blosc2.SChunk(chunksize=chunksize, data=content, contiguous=True, cparams={"typesize": typesize})
    return HeldDataset(path, content, schunk, kind)


FIELDS = np.dtype([("a", "<i4"), ("b", "<f8"), ("naïve", "S10"), ("d", "?")])


def example_roots():
    """Make a root of small datasets of many kinds, named as those that Caterva2 ships."""
    table = np.array([(i, i * 0.001, b"foobar%d" % i, i % 2) for i in range(1000)], FIELDS)
    many = np.arange(2 * 3 * 4 * 5)
    return HeldRoots(
        [
            held_array("ds-1d.b2nd", np.arange(1000), (100,), (10,), {"a": 1, "b": "foo", "nan": float("nan")}),
            held_array("ds-1d-b.b2nd", np.full(1000, b"foobar"), (100,), (10,)),
            held_array("ds-1d-fields.b2nd", table, (100,), (10,)),
            held_array("ds-sc.b2nd", np.array("foobar"), attributes={"raw": b"\xff"}),
            held_array("dir1/ds-2d.b2nd", np.arange(200, dtype="u2").reshape(10, 20), (5, 5), (2, 3)),
            held_array("dir1/ds-3d.b2nd", np.arange(60, dtype="f4").reshape(3, 4, 5), (2, 3, 4), (2, 2, 2)),
            held_array("dir2/ds-4d.b2nd", (many + many * 1j).reshape(2, 3, 4, 5), (1, 2, 3, 4), (1, 2, 2, 2)),
            held_bytes("ds-hello.b2frame", b"Hello world!" * 100, Kind.FRAME),
            held_bytes("numbers.b2frame", np.arange(64, dtype="<i4").tobytes(), Kind.FRAME, 100, 4),
            held_bytes("README.md", b"# Header example\n" * 5),
            held_bytes("dir1/größe.txt", b"0123456789"),
        ]
    )


def held_app(held, config=None):
    return make_app(held, config, lambda dataset: dataset.frame())


def wsgi_client(held, config=None):
    """Return a test client; views become bytes, since PEP 3333 knows no views and its validator refuses them."""
    app = held_app(held, config)
    return testing.TestClient(lambda env, start: map(bytes, app(env, start)))

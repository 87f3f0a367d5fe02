"""What a user of Caterva2 does, by its own unmodified client; run by an interpreter that has it.

Usage: python caterva2_session.py URL FOLDER. Prints the name of each step that went well.
"""

import pathlib
import sys

import blosc2
import caterva2
import httpx
import numpy as np


def done(step):
    print(step, flush=True)


def lists(client, url, folder):
    assert "lab" in client.get_roots()
    root = client.get("lab")
    assert root.name == "lab"
    assert "dir1/ds-2d.b2nd" in root
    assert "README.md" in root.file_list
    assert client.get_list("lab/dir1") == ["ds-2d.b2nd", "ds-3d.b2nd", "größe.txt"]
    assert [*client.get("lab/dir1")] == client.get_list("lab/dir1")


def describes(client, url, folder):
    array = client.get("lab/dir1/ds-3d.b2nd")
    assert [list(array.shape), list(array.chunks), list(array.blocks)] == [[3, 4, 5], [2, 3, 4], [2, 2, 2]]
    assert array.dtype == "float32"
    assert client.get("lab/ds-1d.b2nd").vlmeta == {"a": 1, "b": "foo", "nan": None}
    assert client.get_info("lab/README.md")["nbytes"] == 85


def slices(client, url, folder):
    wanted = np.arange(60, dtype="f4").reshape(3, 4, 5)
    array = client.get("lab/dir1/ds-3d.b2nd")
    for key in (1, slice(None), np.s_[1:3, 2], np.s_[0, 1, 2], np.s_[..., 2:4], slice(0, 0), np.s_[[2, 0], 1]):
        np.testing.assert_array_equal(array[key], wanted[key], err_msg=str(key))
    many = list(np.random.default_rng(0).integers(0, 1000, 5000))
    np.testing.assert_array_equal(client.get("lab/ds-1d.b2nd")[many], many)  # too long for a URL: by POST
    np.testing.assert_array_equal(client.get("lab/ds-1d-fields.b2nd")["b"][:], np.arange(1000) * 0.001)
    assert isinstance(array.slice(np.s_[1:2]), blosc2.NDArray)
    assert client.fetch("lab/ds-1d.b2nd", slice_="10:12").tolist() == [10, 11]
    assert client.get("lab/ds-hello.b2frame")[3:8] == b"lo wo"
    assert client.get("lab/ds-hello.b2frame")[0] == b"H"
    assert client.get("lab/README.md")[:8] == b"# Header"
    assert client.get("lab/ds-sc.b2nd")[()] == "foobar"


def refusals(client, url, folder):
    for wrong, text in (("lab/ds-1d.b2nd", "out of bounds"), ("lab/nothing.b2nd", "Not Found")):
        assert text in refusal_of(client, wrong)


def refusal_of(client, path):
    try:
        client.fetch(path, slice_="5000")
    except httpx.HTTPStatusError as error:
        return str(error)
    return "it was answered"


def downloads(client, url, folder):
    path = client.download("lab/dir1/ds-2d.b2nd", folder / "copy.b2nd")
    np.testing.assert_array_equal(blosc2.open(str(path))[:], np.arange(200, dtype="u2").reshape(10, 20))
    path = client.download("lab/README.md", folder / "README.md")
    assert path.read_bytes() == b"# Header example\n" * 5
    path = client.get("lab/dir1/größe.txt").download(folder / "size.txt")
    assert path.read_bytes() == b"0123456789"


def chunks(client, url, folder):
    chunk = client.get_chunk("lab/ds-1d.b2nd", 3)
    np.testing.assert_array_equal(np.frombuffer(blosc2.decompress2(chunk), "<i8"), np.arange(300, 400))


def c2arrays(client, url, folder):
    remote = blosc2.C2Array("lab/ds-1d.b2nd", urlbase=url)
    assert remote.shape == (1000,)
    assert remote.cparams.codec == blosc2.Codec.ZSTD
    np.testing.assert_array_equal(remote[990:], np.arange(990, 1000))
    np.testing.assert_array_equal(remote[[5, 3, 999]], [5, 3, 999])
    np.testing.assert_array_equal(np.frombuffer(blosc2.decompress2(remote.get_chunk(0)), "<i8"), np.arange(100))


def c2arrays_in_ranges(client, url, folder):
    remote = blosc2.C2Array("lab/noise.b2nd", urlbase=url)
    source = remote.block_source()
    assert source is not None
    spans = [(0, 100), (5000, 10), (90_000, 33)]
    whole = source.read_range(0, 100_000)
    assert source.read_ranges(spans) == [whole[at : at + size] for at, size in spans]
    assert source.max_ranges > 1
    proxy = blosc2.Proxy(remote, urlpath=str(folder / "proxy.b2nd"), mode="w")
    local = np.random.default_rng(7).integers(0, 256, (4096, 1024)).astype("u1")
    np.testing.assert_array_equal(proxy[10:20, 300:310], local[10:20, 300:310])


if __name__ == "__main__":
    url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    with caterva2.Client(url) as client:
        for step in (lists, describes, slices, refusals, downloads, chunks, c2arrays, c2arrays_in_ranges):
            step(client, url, folder)
            done(step.__name__)

"""HTTP over a real broker, publisher and subscriber, all in this process."""

import contextlib
import http.client
import json
import os
import pathlib
import subprocess
from dataclasses import dataclass

import blosc2
import numpy as np
import pytest
from falcon import testing

from zcat.config import BrokerConfig, HttpConfig, PublisherConfig, SubscriberConfig
from zcat.http.app import make_app
from zcat.http.server import HttpServer
from zcat.limits import GIB, MIB
from zcat.net.sockets import local_endpoint, make_context
from zcat.services.broker import Broker
from zcat.services.publisher import Publisher
from zcat.services.subscriber import Subscriber

LONG_AGO_NS = 1_700_000_000_000_000_000
RAMP = np.arange(600 * 500, dtype="f4").reshape(600, 500)
NOISE = np.random.default_rng(7).integers(0, 256, (4096, 1024)).astype("u1")
FIELDS = np.dtype([("a", "<i4"), ("b", "<f8")])
TABLE = np.array([(i, i / 8) for i in range(1000)], FIELDS)
TEXT = b"# Header example\n" * 5_000


@dataclass
class Cluster:
    folder: pathlib.Path
    subscriber: Subscriber

    @property
    def client(self):
        app = make_app(self.subscriber)
        return testing.TestClient(lambda env, start: map(bytes, app(env, start)))


def put(path, write):
    """Put a file in place by rename, as if it had been written long ago."""
    aside = path.with_name(f".{path.name}")
    write(aside)
    os.utime(aside, ns=(LONG_AGO_NS, LONG_AGO_NS))
    path.parent.mkdir(exist_ok=True)
    aside.rename(path)


def put_array(path, values, **options):
    put(path, lambda aside: blosc2.asarray(values, urlpath=str(aside), mode="w", **options))


def put_frame(path, content):
    put(path, lambda aside: blosc2.SChunk(100, content, urlpath=str(aside), contiguous=True))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    place = tmp_path_factory.mktemp("cluster")
    folder = place / "lab"
    (folder / "dir1").mkdir(parents=True)
    put_array(folder / "dir1" / "ramp.b2nd", RAMP, chunks=(100, 200), blocks=(20, 50))
    put_array(folder / "noise.b2nd", NOISE, chunks=(2048, 1024), blocks=(128, 128))
    put_array(folder / "table.b2nd", TABLE, chunks=(100,), blocks=(10,))
    put_frame(folder / "hello.b2frame", b"Hello world!" * 100)
    put(folder / "README.md", lambda aside: aside.write_bytes(TEXT))
    context = make_context()
    listen = local_endpoint("http-services")
    with contextlib.ExitStack() as stack:
        stack.callback(context.destroy, linger=0)
        broker = Broker(BrokerConfig(listen=listen), context)
        broker.start()
        stack.callback(broker.close)
        publisher = Publisher(
            PublisherConfig(root="lab", path=str(folder), state=str(place / "state"), brokers=(listen,)), context
        )
        publisher.start()
        stack.callback(publisher.close)
        cache = {"cache": str(place / "cache"), "quota_bytes": GIB, "reserve_bytes": MIB, "window_bytes": 4 * MIB}
        subscriber = Subscriber(SubscriberConfig(brokers=(listen,), **cache), context)
        subscriber.start()
        stack.callback(subscriber.close)
        made = Cluster(folder, subscriber)
        assert made.client.simulate_post("/api/subscribe/lab").json == "Ok"
        yield made


def fetch(cluster, path, **params):
    return cluster.client.simulate_get(f"/api/fetch/lab/{path}", params=params)


def test_a_root_is_listed_and_described(cluster):
    client = cluster.client

    assert client.simulate_get("/api/roots").json["lab"]["subscribed"] is True
    assert client.simulate_get("/api/list/lab").json == [
        "README.md",
        "dir1/ramp.b2nd",
        "hello.b2frame",
        "noise.b2nd",
        "table.b2nd",
    ]
    info = client.simulate_get("/api/info/lab/dir1/ramp.b2nd").json
    assert (info["shape"], info["chunks"], info["blocks"]) == ([600, 500], [100, 200], [20, 50])
    assert client.simulate_get("/api/info/lab").json["nfiles"] == 5
    assert client.simulate_get("/api/health").json["status"] == "ok"


def test_no_answer_names_a_place_on_the_publishers_disk(cluster):
    for path in ("info/lab/dir1/ramp.b2nd", "list/lab?details=1", "health", "roots"):
        assert str(cluster.folder) not in cluster.client.simulate_get(f"/api/{path}").text


@pytest.mark.parametrize(
    ("text", "key"),
    [("10:74, 64:128", np.s_[10:74, 64:128]), ("::-7, 3", np.s_[::-7, 3]), ("5, 5", np.s_[5, 5]), ("", np.s_[:])],
)
def test_slices_are_numpys(cluster, text, key):
    raw = fetch(cluster, "dir1/ramp.b2nd", slice_=text, fmt="raw")
    frame = blosc2.ndarray_from_cframe(fetch(cluster, "dir1/ramp.b2nd", slice_=text).content)

    assert raw.content == RAMP[key].tobytes()
    np.testing.assert_array_equal(frame[()] if frame.ndim == 0 else frame[:], RAMP[key])


def test_fields_indices_and_points_are_numpys(cluster):
    field = fetch(cluster, "table.b2nd", field="b", slice_="5:500:3", fmt="raw")
    picked = fetch(cluster, "dir1/ramp.b2nd", indices="[[599,0,3],[1,2,3]]", fmt="raw")
    points = np.array([[5, 7], [599, 499]], "<i8")
    pointed = cluster.client.simulate_post("/api/points/lab/dir1/ramp.b2nd", body=points.tobytes())

    assert field.content == TABLE["b"][5:500:3].tobytes()
    assert picked.content == RAMP[[599, 0, 3], [1, 2, 3]].tobytes()
    assert pointed.content == RAMP[[5, 599], [7, 499]].tobytes()


def test_byte_frames_and_files_are_read(cluster):
    whole = fetch(cluster, "hello.b2frame").content
    packed = cluster.client.simulate_get("/api/download/lab/README.md", headers={"Accept-Encoding": "blosc2"})
    part = cluster.client.simulate_get("/api/download/lab/README.md", headers={"Range": "bytes=2-7"})

    assert blosc2.schunk_from_cframe(whole)[:] == b"Hello world!" * 100
    assert fetch(cluster, "hello.b2frame", slice_="3:8", fmt="raw").content == b"lo wo"
    assert blosc2.schunk_from_cframe(packed.content)[:] == TEXT
    assert (part.status_code, part.content) == (206, b"Header")
    assert cluster.client.simulate_get("/api/download/lab/README.md").content == TEXT


def test_a_whole_dataset_over_the_real_server_is_the_same_before_and_after_it_is_cached(cluster):
    server = HttpServer(make_app(cluster.subscriber), HttpConfig(port=0, threads=2))
    server.start()
    try:
        host = server.url.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            bodies = []
            for headers in ({}, {}, {"Range": "bytes=1000000-3999999"}):
                connection.request("GET", "/api/fetch/lab/noise.b2nd", headers=headers)
                bodies.append(connection.getresponse().read())
            connection.request("GET", "/api/info/lab/noise.b2nd")
            assert json.loads(connection.getresponse().read())["complete"] is True
    finally:
        server.close()
    np.testing.assert_array_equal(blosc2.ndarray_from_cframe(bodies[0])[:], NOISE)
    assert bodies[1] == bodies[0]
    assert bodies[2] == bodies[0][1_000_000:4_000_000]


def test_chunks_are_those_of_the_file(cluster):
    local = blosc2.open(str(cluster.folder / "dir1" / "ramp.b2nd"))
    result = cluster.client.simulate_get("/api/chunk/lab/dir1/ramp.b2nd?nchunk=4")

    assert blosc2.decompress2(result.content) == blosc2.decompress2(local.schunk.get_chunk(4))
    assert cluster.client.simulate_get("/api/chunk/lab/dir1/ramp.b2nd?nchunk=18").json["code"] == "bad-selection"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/info/lab/none.b2nd", "dataset-unknown"),
        ("/api/list/nobody", "root-unknown"),
        ("/api/fetch/lab/dir1/ramp.b2nd?slice_=601", "bad-selection"),
    ],
)
def test_what_is_not_there_has_its_code(cluster, path, code):
    assert cluster.client.simulate_get(path).json["code"] == code


@pytest.mark.skipif("ZCAT_CATERVA2_PYTHON" not in os.environ, reason="ZCAT_CATERVA2_PYTHON is not set")
def test_blosc2s_own_remote_array_reads_through_us(cluster, tmp_path):
    server = HttpServer(make_app(cluster.subscriber), HttpConfig(port=0))
    server.start()
    program = (
        "import sys, blosc2, numpy as np\n"
        "a = blosc2.C2Array('lab/noise.b2nd', urlbase=sys.argv[1])\n"
        "np.save(sys.argv[2], blosc2.Proxy(a)[100:200, 300:310])\n"
        "assert a.block_source() is not None\n"
    )
    try:
        command = [os.environ["ZCAT_CATERVA2_PYTHON"], "-c", program, server.url, tmp_path / "part.npy"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        server.close()
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "part.npy"), NOISE[100:200, 300:310])

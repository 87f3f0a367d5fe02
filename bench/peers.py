"""The servers that are compared: zcat as its users start it, and others, where their environments are at hand.

All serve the same values, a cube of float32 with a chunk for each plane: as a ``.b2nd`` file, as HDF5 files
compressed by gzip and by the Blosc2 filter, and nginx the bytes of the ``.b2nd`` file. ``install_peers.sh``
installs them.
"""

import json
import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import blosc2

from bench.processes import Started, answers, free_port, started

PLANE = 40
SLICES = {"64x64": f"{PLANE},500:564,300:364", "plane": f"{PLANE}", "100 MB": "20:45"}
"""By operation, as every server takes them."""
FIRST, LAST = 20, 45

_HERE = {"PYTHONPATH": str(Path(__file__).parents[1])}
_H5GROVE = """
from fastapi import FastAPI
import hdf5plugin
from h5grove import fastapi_utils
fastapi_utils.settings.base_dir = {folder!r}
app = FastAPI()
app.include_router(fastapi_utils.router)
"""
_NGINX = """
daemon off; worker_processes auto; pid {room}/nginx.pid; error_log {room}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000;
    client_body_temp_path {room}; proxy_temp_path {room}; fastcgi_temp_path {room}; uwsgi_temp_path {room};
    scgi_temp_path {room};
    server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


@dataclass(frozen=True)
class Target:
    """What is asked of a server for one operation."""

    url: str
    form: str
    """Of the answer: ``raw`` and ``cframe`` hold values, ``stored`` holds compressed bytes, ``json`` describes."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """A server that runs."""

    name: str
    pid: int
    """Of the process that answers; its children count, too."""
    targets: dict[str, list[Target]]
    """By operation."""


@dataclass(frozen=True)
class Data:
    """The same values in several files."""

    folder: Path
    native: Path
    """A ``.b2nd`` file."""
    room: Path
    """Where servers may keep their state."""


def zcat(opened: ExitStack, data: Data, settings: list[str]) -> Server:
    """Start broker, publisher and subscriber, and have all of the data in the subscriber's cache.

    Args:
        opened: stops them.
        data: of its folder's files.
        settings: of the subscriber, as ``--set`` takes them.
    """
    room = data.room / "zcat"
    room.mkdir()

    def service(name: str, *arguments: str) -> tuple[Started, dict[str, object]]:
        process = started(opened, name, [sys.executable, "-m", "zcat", name, *arguments, "--json"], room, _HERE)
        until_s = time.monotonic() + 60
        while time.monotonic() < until_s:
            for line in process.log.read_text().splitlines():
                if line.startswith("{"):
                    return process, json.loads(line)
            time.sleep(0.05)
        raise RuntimeError(f"zcat {name} is not ready: {process.log.read_text()[-1000:]}")

    broker = str(service("broker", "--listen", "tcp://127.0.0.1:0")[1]["brokers"][0])  # type: ignore[index]
    service("publish", "bench", str(data.folder.resolve()), "--broker", broker, "--state", str(room / "state"))
    given = [part for setting in settings for part in ("--set", setting)]
    cache = ["--cache", str(room / "cache"), "--follow", "bench", "--http", "127.0.0.1:0"]
    subscriber, ready = service("subscribe", "--broker", broker, *cache, *given)
    api = f"{ready['http']}/api"
    native, packed = f"bench/{data.native.name}", "bench/gzip.h5/cube"
    answers(subscriber, f"{api}/info/{native}")
    answers(subscriber, f"{api}/info/{packed}")

    def fetch(name: str, form: str, address: str = native) -> Target:
        return Target(f"{api}/fetch/{address}?slice_={SLICES[name]}&fmt={form}", form)

    targets = {name: [fetch(name, "raw"), fetch(name, "cframe")] for name in SLICES}
    targets["64x64 of gzip HDF5"] = [fetch("64x64", "raw", packed)]
    targets["info"] = [Target(f"{api}/info/{native}", "json")]
    targets["chunk"] = [Target(f"{api}/chunk/{native}?nchunk={PLANE}", "stored")]
    targets["whole"] = [Target(f"{api}/download/{native}", "stored")]
    return Server("zcat", subscriber.pid, targets)


def hello(opened: ExitStack, room: Path) -> tuple[int, str]:
    """Start the least server that waitress and Falcon make; give its process and what to ask."""
    server = started(opened, "hello", [sys.executable, "-m", "bench.hello"], room, _HERE)
    while not (said := server.log.read_text().partition("\n")[0]):
        time.sleep(0.05)
    url = f"http://127.0.0.1:{json.loads(said)['port']}/hello"
    answers(server, url)
    return server.pid, url


def caterva2(opened: ExitStack, data: Data, environment: Path) -> Server:
    """Start a caterva2 server with the ``.b2nd`` file in its public root."""
    room = data.room / "caterva2"
    public = room / "state" / "public"
    public.mkdir(parents=True)
    try:
        os.link(data.native, public / data.native.name)
    except OSError:  # another file system
        shutil.copy(data.native, public / data.native.name)
    port = free_port()
    # the settings are read from the working directory, whatever the command line says
    settings = f'[server]\nlisten = "127.0.0.1:{port}"\nstatedir = "{room / "state"}"\nlogin = false\n'
    (room / "caterva2-server.toml").write_text(settings)
    listen = ["--listen", f"127.0.0.1:{port}", "--statedir", str(room / "state")]
    command = [str(environment / "bin/cat2-server"), *listen]
    server = started(opened, "server", command, room, {"CATERVA2_SECRET": "bench"})
    api, address = f"http://127.0.0.1:{port}/api", f"@public/{data.native.name}"
    answers(server, f"{api}/roots")
    targets = {name: [Target(f"{api}/fetch/{address}?slice_={text}", "cframe")] for name, text in SLICES.items()}
    targets["info"] = [Target(f"{api}/info/{address}", "json")]
    targets["chunk"] = [Target(f"{api}/chunk/{address}?nchunk={PLANE}", "stored")]
    targets["whole"] = [Target(f"{api}/download/{address}", "stored")]
    return Server("caterva2", server.pid, targets)


def h5grove(opened: ExitStack, data: Data, environment: Path) -> Server:
    """Start h5grove under uvicorn, on the HDF5 files."""
    room = data.room / "h5grove"
    room.mkdir()
    (room / "served.py").write_text(_H5GROVE.format(folder=str(data.folder)))
    port = free_port()
    uvicorn = [str(environment / "bin/uvicorn"), "served:app", "--port", str(port), "--no-access-log"]
    server = started(opened, "h5grove", uvicorn, room)
    base = f"http://127.0.0.1:{port}"
    answers(server, f"{base}/meta?file=gzip.h5&path=/cube")

    def read(name: str, file: str) -> Target:
        return Target(f"{base}/data?file={file}.h5&path=/cube&selection={SLICES[name]}&format=bin", "raw")

    targets = {name: [read(name, "blosc2")] for name in SLICES}
    targets["64x64 of gzip HDF5"] = [read("64x64", "gzip")]
    targets["info"] = [Target(f"{base}/meta?file=blosc2.h5&path=/cube", "json")]
    targets["whole"] = [Target(f"{base}/data?file=blosc2.h5&path=/cube&format=bin", "raw")]
    return Server("h5grove", server.pid, targets)


def tiled(opened: ExitStack, data: Data, environment: Path) -> Server:
    """Start Tiled on the HDF5 files; it refuses answers of more than 300 MB."""
    room = data.room / "tiled"
    served = room / "served"
    served.mkdir(parents=True)
    for name in ("gzip.h5", "blosc2.h5"):
        (served / name).symlink_to(data.folder / name)
    (room / "quiet.json").write_text('{"version": 1}')
    port = free_port()
    command = [str(environment / "bin/tiled"), "serve", "directory", "--public", "--port", str(port)]
    plugins = {"HDF5_PLUGIN_PATH": _plugins(environment)}
    server = started(opened, "tiled", [*command, "--log-config", "quiet.json", str(served)], room, plugins)
    api = f"http://127.0.0.1:{port}/api/v1"
    answers(server, f"{api}/metadata/gzip/cube")

    def read(name: str, file: str) -> Target:
        query = f"slice={quote(SLICES[name])}&format={quote('application/octet-stream')}"
        return Target(f"{api}/array/full/{file}/cube?{query}", "raw", {"Accept-Encoding": "identity"})

    targets = {name: [read(name, "blosc2")] for name in SLICES}
    targets["64x64 of gzip HDF5"] = [read("64x64", "gzip")]
    targets["info"] = [Target(f"{api}/metadata/blosc2/cube", "json")]
    return Server("tiled", server.pid, targets)


def nginx(opened: ExitStack, data: Data, program: Path) -> Server:
    """Start nginx on the ``.b2nd`` file: chunks are byte ranges of it."""
    room = data.room / "nginx"
    room.mkdir()
    port = free_port()
    (room / "nginx.conf").write_text(_NGINX.format(room=room, port=port, folder=data.folder))
    server = started(opened, "nginx", [str(program), "-p", str(room), "-c", str(room / "nginx.conf")], room)
    url = f"http://127.0.0.1:{port}/{data.native.name}"
    (data.folder / "info.json").write_text(json.dumps({"shape": [1, 2, 3], "of": "a small file " * 40}))
    answers(server, url.replace(data.native.name, "info.json"))
    chunk, span = chunk_range(data.native, PLANE, PLANE + 1), chunk_range(data.native, FIRST, LAST)
    targets = {
        "info": [Target(url.replace(data.native.name, "info.json"), "json")],
        "chunk": [Target(url, "stored", {"Range": chunk})],
        "100 MB": [Target(url, "stored", {"Range": span})],
        "whole": [Target(url, "stored")],
    }
    return Server("nginx", server.pid, targets)


def chunk_range(path: Path, first: int, end: int) -> str:
    """Give the bytes of some chunks that follow each other in a contiguous file, as a header says it."""
    array = blosc2.open(str(path), mode="r")
    sizes = [len(array.schunk.get_chunk(number)) for number in range(end)]
    with open(path, "rb") as file:
        head = int.from_bytes(file.read(15)[11:], "big")  # c-blosc2 README_CFRAME_FORMAT.rst: header_size
    return f"bytes={head + sum(sizes[:first])}-{head + sum(sizes) - 1}"


def _plugins(environment: Path) -> str:
    found = sorted(environment.glob("lib/python*/site-packages/hdf5plugin/plugins"))
    return str(found[0]) if found else ""

"""Other servers, where their environments are at hand."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


def caterva2(opened: ExitStack, python: str, dataset: Path, room: Path) -> str:
    """Start a caterva2 server with one dataset in its public root; give the URL of its API.

    Args:
        opened: stops it.
        python: of an environment with ``caterva2[server]``.
        dataset: a ``.b2nd`` file.
        room: where the server may keep its state.
    """
    state = room / "caterva2"
    (state / "public").mkdir(parents=True, exist_ok=True)
    target = state / "public" / dataset.name
    if not target.exists():
        os.link(dataset, target)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # the settings are read from the working directory, whatever the command line says
    settings = f'[server]\nlisten = "127.0.0.1:{port}"\nstatedir = "{state}"\nlogin = false\n'
    (room / "caterva2-server.toml").write_text(settings)
    command = [str(Path(python).parent / "cat2-server"), "--listen", f"127.0.0.1:{port}", "--statedir", str(state)]
    with open(room / "caterva2.log", "w") as log:
        environment = {**os.environ, "CATERVA2_SECRET": "bench"}
        server = subprocess.Popen(command, cwd=room, env=environment, stdout=log, stderr=log)
    opened.callback(shutil.rmtree, state, ignore_errors=True)
    opened.callback(server.wait)
    opened.callback(server.kill)
    url = f"http://127.0.0.1:{port}/api"
    for _ in range(100):
        try:
            with urlopen(f"{url}/roots", timeout=1):
                return url
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"caterva2 does not answer; its log: {(room / 'caterva2.log').read_text()[-1000:]}")

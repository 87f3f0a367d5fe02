"""The least that a server of slices can do: local Blosc2, and a socket. ``python -m bench.bare FILE``."""

import json
import socket
import sys
import threading
from typing import Any
from urllib.parse import unquote

import blosc2
import numpy as np

from zcat.model.selection import key_of_text


def main() -> None:
    """Serve ``GET /SLICE`` as raw bytes, a thread for each connection, until killed."""
    array = blosc2.open(sys.argv[1], mode="r", mmap_mode="r")
    with socket.create_server(("127.0.0.1", 0), backlog=256) as server:
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(client, array), daemon=True).start()


def _serve(client: socket.socket, array: Any) -> None:
    with client, client.makefile("rb") as lines:
        while line := lines.readline():
            while lines.readline() not in (b"\r\n", b""):
                pass
            items = np.ascontiguousarray(array[key_of_text(unquote(line.split()[1].decode())[1:])])
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % items.nbytes)
            client.sendall(items.reshape(-1).view(np.uint8))


if __name__ == "__main__":
    main()

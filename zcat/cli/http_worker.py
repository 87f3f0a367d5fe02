"""One worker of ``zcat subscribe``, as a program: ``python -m zcat.cli.http_worker``, started by `zcat.cli.crew`
alone.

It reads one line of JSON from its standard input, serves the listening socket that it inherited, says so in a
line on its standard output, and ends as soon as its standard input does.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading

from zcat import logs
from zcat.config import HttpConfig
from zcat.http.passing import WorkerApp
from zcat.http.server import HttpServer
from zcat.net.descriptors import watch_descriptors
from zcat.services.board import Board
from zcat.services.dataset import ReadLimits
from zcat.services.worker_reads import WorkerReads

CLOSE_WAIT_S = 1.0


def main() -> None:
    """Serve."""
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the subscriber has ended already
    order = json.loads(line)
    logs.set_up(order["level"])
    http = HttpConfig(**{**order["http"], "cors_origins": tuple(order["http"]["cors_origins"])})
    board = Board(order["board"])
    seat = board.seat(order["number"])
    reads = WorkerReads(order["endpoint"], board, ReadLimits(**order["limits"]))
    reads.start()
    listener = socket.socket(fileno=order["listener"])
    server = HttpServer(WorkerApp(reads, http, seat.counted), http, listener, seat)
    server.start()
    threading.Thread(target=watch_descriptors, daemon=True).start()
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        sys.stdin.buffer.read()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # of who stops the whole group, as systemd does; the subscriber is about to end this anyway
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    closing = threading.Thread(target=server.close, daemon=True)
    closing.start()
    closing.join(CLOSE_WAIT_S)
    os._exit(0)  # threads that wait for a slow client or a far host keep nobody waiting


if __name__ == "__main__":
    main()

"""The least that an HTTP server in Python can do: Falcon under waitress, one route. ``python -m bench.hello``."""

import json
import socket
from typing import Any

import falcon
from waitress import serve


class Hello:
    """Answers as many bytes as a 64x64 slice of float32 has."""

    def on_get(self, req: Any, resp: Any) -> None:
        """Answer 16 KiB."""
        resp.data = bytes(16384)


def main() -> None:
    """Serve ``GET /hello`` until killed."""
    app = falcon.App()
    app.add_route("/hello", Hello())
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    serve(app, sockets=[listener], _quiet=True)


if __name__ == "__main__":
    main()

"""Why nobody answers at an endpoint: what a TCP connection tells and ZeroMQ, which waits and tries, does not.

Source of what is said on the connection: rfc.zeromq.org/spec/23 (ZMTP 3.0), greeting and NULL mechanism.
"""

import socket
from dataclasses import dataclass

_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
_GREETING = _SIGNATURE + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_GREETING_BYTES = 64
_SOCKET_TYPE = b"\x0bSocket-Type"
_COMMAND_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Reach:
    """What became of a connection."""

    found: str
    """A sentence, about the endpoint."""
    advice: str
    """What to do."""


def reach(endpoint: str, timeout_s: float) -> Reach:
    """Try a connection over TCP, and find out who is at its other end."""
    if not endpoint.startswith("tcp://"):
        return Reach(f"{endpoint}: nobody answers", "is the process there running, on this host?")
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s) as connection:
            connection.settimeout(timeout_s)
            return _who(endpoint, connection)
    except socket.gaierror:
        return Reach(
            f"{endpoint}: this host does not know the name {host}", "write its address, or mend the names"
        )
    except ConnectionRefusedError:
        return Reach(
            f"{endpoint}: refused, so the host is there and nobody listens at that port",
            "is the port right, is the process running, and not bound to the loopback only?",
        )
    except TimeoutError:
        return Reach(
            f"{endpoint}: no answer at all within {timeout_s:g} s",
            "a firewall drops it, or the host is down: open the port, or name another interface",
        )
    except OSError as error:
        return Reach(f"{endpoint}: {error.strerror or error}", "is there a way from this host to that network?")


def _who(endpoint: str, connection: socket.socket) -> Reach:
    """Greet as ZeroMQ does, and read what kind of socket answers."""
    not_zeromq = Reach(f"{endpoint}: something listens there that does not speak ZeroMQ", "is the port right?")
    try:
        connection.sendall(_GREETING)
        greeting = _exactly(connection, _GREETING_BYTES)
        if greeting[:1] + greeting[9:10] != b"\xff\x7f":
            return not_zeromq
        ready = connection.recv(_COMMAND_BYTES_MAX)
    except TimeoutError:
        return Reach(
            f"{endpoint}: takes connections and says nothing", "the process hangs, or it is another program"
        )
    except OSError:
        return not_zeromq
    kind = _socket_type(ready)
    if kind in ("XPUB", "XSUB", "PUB", "SUB"):
        advice = "name the broker's directory: the endpoint that it is started with, by default port 5560"
        return Reach(f"{endpoint}: is a port for events ({kind}), and no directory", advice)
    if kind == "ROUTER":
        advice = "it hangs or is stopped, speaks another version of the wire, or is another program"
        return Reach(f"{endpoint}: a ROUTER of ZeroMQ is there, and does not answer in zcat's words", advice)
    return Reach(
        f"{endpoint}: another program that speaks ZeroMQ ({kind or 'of unknown kind'})", "is the port right?"
    )


def _exactly(connection: socket.socket, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        more = connection.recv(nbytes - len(data))
        if not more:
            raise ConnectionError
        data += more
    return data


def _socket_type(ready: bytes) -> str:
    at = ready.find(_SOCKET_TYPE)
    if at < 0:
        return ""
    length_at = at + len(_SOCKET_TYPE)
    length = int.from_bytes(ready[length_at : length_at + 4], "big")
    return ready[length_at + 4 : length_at + 4 + length].decode("ascii", "replace")

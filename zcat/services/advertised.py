"""Under which address others are told to find a service that listens."""

import socket
from contextlib import suppress

from zcat.names import check_endpoint

_SOMEWHERE = ("192.0.2.1", 9)  # TEST-NET-1: nothing is ever sent there, it only names a direction


def advertised(bound: str, host: str | None, brokers: tuple[str, ...]) -> str:
    """Give the endpoint that others reach a bound one by.

    Args:
        bound: as the socket says, with its real port.
        host: what the operator says: a host, an address, or a whole endpoint; None to find out.
        brokers: the way to the first of them decides which address of this host is told.

    Raises:
        BadName: ``host`` is none.
    """
    if not bound.startswith("tcp://"):
        return bound
    if host is not None and "://" in host:
        return check_endpoint(host)
    address, _, port = bound.removeprefix("tcp://").rpartition(":")
    if host is None and address.strip("[]") not in ("0.0.0.0", "::", "*"):
        return bound
    told = (host if host is not None else _own_address(brokers)).strip("[]")
    return check_endpoint(f"tcp://[{told}]:{port}" if ":" in told else f"tcp://{told}:{port}")


def _own_address(brokers: tuple[str, ...]) -> str:
    """Give this host's address on the way to the first broker; connecting a UDP socket sends nothing."""
    towards = [_SOMEWHERE]
    for broker in brokers[:1]:
        host, _, port = broker.removeprefix("tcp://").rpartition(":")
        if broker.startswith("tcp://"):
            towards.insert(0, (host.strip("[]"), int(port)))
    for towards_host, towards_port in towards:
        with suppress(OSError):
            family, kind, _, _, address = socket.getaddrinfo(towards_host, towards_port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    return "127.0.0.1"

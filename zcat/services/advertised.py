"""Where a service listens, and under which address others are told to find it."""

import socket
from contextlib import suppress

from zcat.errors import BadConfig
from zcat.names import check_endpoint
from zcat.net.interfaces import host_on, interfaces, is_loopback, is_own, is_wildcard

_SOMEWHERE = ("192.0.2.1", 9)  # TEST-NET-1: nothing is ever sent there, it only names a direction


def listening(endpoint: str, interface: str | None) -> str:
    """Give the endpoint to bind: on an interface, if one is named.

    Args:
        endpoint: as it is configured.
        interface: name of a network interface, or a network, whose address takes the place of the loopback or
            of all addresses; None for the endpoint as it is.

    Raises:
        BadConfig: this host has no address there; or the endpoint names another one.
    """
    if interface is None or not endpoint.startswith("tcp://"):
        return endpoint
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    chosen = host_on(interface)
    if not is_loopback(host) and not is_wildcard(host) and host != chosen:
        raise BadConfig(f"{endpoint} names the address {host}, and interface {interface!r} has {chosen}: name one")
    return check_endpoint(f"tcp://{chosen}:{port}")


def advertised(bound: str, host: str | None, brokers: tuple[str, ...]) -> str:
    """Give the endpoint that others reach a bound one by.

    Args:
        bound: as the socket says, with its real port.
        host: what the operator says: a host, an address, or a whole endpoint; None to find out.
        brokers: the way to the first of them that is on another host decides which address of this one is told.

    Raises:
        BadName: ``host`` is none.
        BadConfig: it means all addresses, which is none that others could use.
    """
    if not bound.startswith("tcp://"):
        return bound
    if host is not None:
        return _as_told(bound, host)
    address, _, port = bound.removeprefix("tcp://").rpartition(":")
    if not is_wildcard(address):
        return bound
    told = _own_address(brokers)
    return check_endpoint(f"tcp://[{told}]:{port}" if ":" in told else f"tcp://{told}:{port}")


def check_reachable(endpoint: str, others: tuple[str, ...], is_chosen: bool) -> str | None:
    """Look whether others can reach what they are told.

    Args:
        endpoint: that is told.
        others: brokers, to whom it is told.
        is_chosen: an operator wrote it, who may know of a way that we do not, such as a tunnel.

    Returns:
        What to warn of; None if nothing is wrong.

    Raises:
        BadConfig: nobody but this host can reach it, and one of the others is elsewhere.
    """
    if not _is_loopback_endpoint(endpoint):
        return None
    away = next((other for other in others if not _is_here(other)), None)
    if away is None:
        return None
    wrong = f"{endpoint} can be reached from this host only, and broker {away} is on another one"
    if is_chosen:
        return wrong
    addresses = ", ".join(each.host for each in interfaces() if not each.address.is_loopback) or "none"
    raise BadConfig(
        f"{wrong}: listen where others reach you, with '--interface NAME', '--interface NETWORK' or "
        f"'--listen tcp://ADDRESS:PORT' (addresses of this host: {addresses}); or name a way in with '--advertise'"
    )


def _as_told(bound: str, host: str) -> str:
    port = bound.rpartition(":")[2]
    name = host.strip("[]")
    told = check_endpoint(
        host if "://" in host else f"tcp://[{name}]:{port}" if ":" in name else f"tcp://{name}:{port}"
    )
    if told.startswith("tcp://") and is_wildcard(told.removeprefix("tcp://").rpartition(":")[0]):
        raise BadConfig(f"cannot advertise {host}: it means all addresses, and others need one that they can use")
    return told


def _own_address(brokers: tuple[str, ...]) -> str:
    """Give this host's address on the way to a broker elsewhere; connecting a UDP socket sends nothing.

    Without one, that on the way to anywhere: a broker on this host tells others of us, too.
    """
    towards = []
    for broker in brokers:
        host, _, port = broker.removeprefix("tcp://").rpartition(":")
        if broker.startswith("tcp://") and not is_loopback(host):
            towards.append((host.strip("[]"), int(port)))
    for towards_host, towards_port in [*towards[:1], _SOMEWHERE]:
        with suppress(OSError):
            family, kind, _, _, address = socket.getaddrinfo(towards_host, towards_port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
    return next((str(each.address) for each in interfaces() if each.address.is_global), "127.0.0.1")


def _is_loopback_endpoint(endpoint: str) -> bool:
    return endpoint.startswith("tcp://") and is_loopback(endpoint.removeprefix("tcp://").rpartition(":")[0])


def _is_here(endpoint: str) -> bool:
    """Say whether an endpoint is on this host."""
    if not endpoint.startswith("tcp://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0]
    return is_loopback(host) or is_wildcard(host) or is_own(host)

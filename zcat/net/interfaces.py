"""The addresses of this host, by network interface: which one to bind, and which ones others can reach.

Sources: Linux' netdevice(7), SIOCGIFCONF; proc(5), ``/proc/net/if_inet6``.
"""

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from zcat.errors import BadConfig
from zcat.names import shown

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_SIOCGIFCONF = 0x8912
_IFREQ_BYTES = 40
_INTERFACES_MAX = 1024
_INET6 = Path("/proc/net/if_inet6")


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of a network interface."""

    name: str
    address: Address

    @property
    def host(self) -> str:
        """As it stands in an endpoint; a link-local address needs the name of its interface."""
        if self.address.version == 4:
            return str(self.address)
        scope = f"%{self.name}" if self.address.is_link_local else ""
        return f"[{self.address}{scope}]"


def interfaces() -> list[Interface]:
    """List the addresses of this host: of IPv4 first, and those that mean something on one link only last."""
    found = [*_of_ipv4(), *_of_ipv6()]
    return sorted(found, key=lambda each: (each.address.is_link_local, each.address.version))


def host_on(wanted: str, among: Sequence[Interface] | None = None) -> str:
    """Return this host's address on an interface, or in a network, as it stands in an endpoint.

    Args:
        wanted: the name of an interface, such as ``ib0``; or a network or an address, such as ``10.1.0.0/16``.
        among: the addresses to choose from; those of this host if None.

    Raises:
        BadConfig: it has none there; the message says which there are.
    """
    known = interfaces() if among is None else among
    network = _network(wanted)
    for each in known:
        if each.address in network if network is not None else each.name == wanted:
            return each.host
    there = ", ".join(f"{each.name} {each.address}" for each in known) or "none"
    what = "address in network" if network is not None else "address on an interface"
    raise BadConfig(f"this host has no {what} {shown(wanted)}; it has {there}")


def is_own(host: str) -> bool:
    """Say whether a name or an address is one of this host's; if nobody knows the name, it is not."""
    try:
        infos = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    own = {each.address for each in interfaces()}
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    return any(address in own or address.is_loopback for address in addresses)


def is_loopback(host: str) -> bool:
    """Say whether a name or an address means the host that it is used on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_wildcard(host: str) -> bool:
    """Say whether it stands for all addresses of a host, and so for none that others could use."""
    return host.strip("[]") in ("*", "0.0.0.0", "::", "0", "::0")


def _network(wanted: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(wanted.strip("[]"), strict=False)
    except ValueError:
        return None


def _of_ipv4() -> list[Interface]:
    buffer = array.array("B", bytes(_INTERFACES_MAX * _IFREQ_BYTES))
    where, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        answer = fcntl.ioctl(asker.fileno(), _SIOCGIFCONF, struct.pack("iP", length, where))
    (filled,) = struct.unpack_from("i", answer)
    raw = buffer.tobytes()[:filled]
    found = []
    for at in range(0, filled, _IFREQ_BYTES):
        name = raw[at : at + 16].partition(b"\0")[0].decode(errors="replace")
        # struct sockaddr_in: family, port, address
        found.append(Interface(name.partition(":")[0], ipaddress.IPv4Address(raw[at + 20 : at + 24])))
    return found


def _of_ipv6() -> list[Interface]:
    try:
        lines = _INET6.read_text().splitlines()
    except OSError:  # without IPv6
        return []
    fields = [line.split() for line in lines]
    return [Interface(each[5], ipaddress.IPv6Address(bytes.fromhex(each[0]))) for each in fields]

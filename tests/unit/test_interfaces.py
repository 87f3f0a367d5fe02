import ipaddress
import socket

import pytest

from zcat.errors import BadConfig
from zcat.net.interfaces import Interface, host_on, interfaces, is_loopback, is_own, is_wildcard

HOST = [
    Interface("lo", ipaddress.ip_address("127.0.0.1")),
    Interface("eth0", ipaddress.ip_address("192.0.2.7")),
    Interface("ib0", ipaddress.ip_address("10.1.3.4")),
    Interface("ib1", ipaddress.ip_address("fd00::7")),
    Interface("ib2", ipaddress.ip_address("fe80::7")),
]


@pytest.mark.parametrize(
    ("wanted", "host"),
    [
        ("ib0", "10.1.3.4"),
        ("10.1.0.0/16", "10.1.3.4"),
        ("10.1.3.4", "10.1.3.4"),
        ("10.1.255.255/16", "10.1.3.4"),
        ("fd00::/64", "[fd00::7]"),
        ("ib2", "[fe80::7%ib2]"),
        ("0.0.0.0/0", "127.0.0.1"),
    ],
)
def test_an_interface_is_chosen_by_its_name_or_its_network(wanted, host):
    assert host_on(wanted, HOST) == host


@pytest.mark.parametrize("wanted", ["ib9", "10.2.0.0/16", "", "eth", "10.1.0.0/99"])
def test_what_there_is_stands_in_the_refusal(wanted):
    with pytest.raises(BadConfig, match=r"ib0 10\.1\.3\.4"):
        host_on(wanted, HOST)


def test_this_host_has_its_loopback_and_each_address_once():
    found = interfaces()
    assert Interface("lo", ipaddress.ip_address("127.0.0.1")) in found
    assert len(set(found)) == len(found)


def test_every_address_that_is_listed_can_be_bound():
    for each in interfaces():
        if not each.address.is_link_local:
            with socket.create_server((str(each.address), 0), family=socket.AF_INET6 if ":" in each.host else 2):
                pass


def test_own_addresses_are_known_and_others_are_not():
    assert all(is_own(str(each.address)) for each in interfaces() if not each.address.is_link_local)
    assert is_own("localhost")
    assert not is_own("203.0.113.9")
    assert not is_own("no-such-host.invalid")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "::1"])
def test_loopbacks_are_loopbacks(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "node7", "[fd00::1]", "*", ""])
def test_others_are_not(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(("host", "is_one"), [("*", True), ("0.0.0.0", True), ("[::]", True), ("10.0.0.1", False)])
def test_a_wildcard_is_known(host, is_one):
    assert is_wildcard(host) == is_one

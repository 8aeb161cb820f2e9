"""What an address or a name means to us."""

import ipaddress
import socket

import pytest

from mailtui.routing import addresses
from mailtui.routing.addresses import Ourselves, is_local, refusal


def ourselves(*listeners: tuple[str, int]) -> Ourselves:
    return Ourselves(["Relay.Test.", ""], ["192.0.2.66", "2001:db8::66"], lambda: listeners)


def test_names() -> None:
    us = ourselves()
    assert us.is_name("relay.test")
    assert not us.is_name("")
    assert not us.is_name("other.test")


@pytest.mark.parametrize("address", ["192.0.2.66", "::ffff:192.0.2.66", "2001:db8::66", "2001:db8:0:0::66"])
def test_own_addresses_are_ours_at_any_port(address: str) -> None:
    assert ourselves().is_address(address, 1)


def test_listener_is_ours_at_its_port_only() -> None:
    us = ourselves(("127.0.0.1", 2525), ("::1", 2526), ("unix", 2527))
    assert us.is_listener("127.0.0.1", 2525)
    assert us.is_listener("::ffff:127.0.0.1", 2525)
    assert us.is_listener("::1", 2526)
    assert not us.is_listener("127.0.0.1", 2526)
    assert not us.is_listener("127.0.0.2", 2525)
    assert not us.is_listener("127.0.0.1", 2527)


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"])
def test_wildcard_listener_is_every_address_of_this_machine(wildcard: str) -> None:
    us = ourselves((wildcard, 25))
    assert us.is_listener("127.0.0.1", 25)
    assert us.is_listener("127.1.2.3", 25)
    assert us.is_listener("0.0.0.0", 25)
    assert not us.is_listener("203.0.113.77", 25)


@pytest.mark.parametrize("foreign", [False, True])
def test_machine_is_asked_also_where_the_kernel_lets_us_bind_to_anything(
    monkeypatch: pytest.MonkeyPatch, foreign: bool
) -> None:
    monkeypatch.setattr(addresses, "_binds_foreign", lambda version: foreign)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.77", 9))
        except OSError:
            pass
        else:
            assert is_local(ipaddress.ip_address(probe.getsockname()[0]))
    assert is_local(ipaddress.ip_address("::1"))
    assert not is_local(ipaddress.ip_address("203.0.113.77"))
    assert not is_local(ipaddress.ip_address("2001:db8::77"))


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "8.8.8.8", "2001:db8::1", "2606:4700::1", "172.32.0.1", "100.128.0.1"]
)
def test_public_addresses_are_fine(address: str) -> None:
    assert refusal(address, ()) == ""


def test_refusal_says_what_the_address_is() -> None:
    assert refusal("10.1.1.1", ()) == "10.1.1.1 is a private address and in none of allow_networks"
    assert "loopback" in refusal("::ffff:127.0.0.1", ())
    assert "link-local" in refusal("169.254.169.254", (ipaddress.ip_network("10.0.0.0/8"),))

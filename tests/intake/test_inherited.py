"""Sockets of the service manager: `address = "systemd:NAME"`."""

import os
import socket
from collections.abc import Iterator

import pytest

from mailtui import config
from mailtui.intake import inherited
from mailtui.intake.inherited import NotInherited
from mailtui.intake.listener import ListenError
from tests.intake.conftest import TOML
from tests.support.client import Client

SYSTEMD = TOML.replace("127.0.0.1:0", "systemd:smtp") + '[mail]\npostmaster = "hostmaster@example.org"\n'


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Three sockets at consecutive descriptors, as if a service manager had opened them: two listen, one does not."""
    found = [socket.socket() for _ in range(2)] + [socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    for sock in found:
        sock.bind(("127.0.0.1", 0))
    for sock in found[:2]:
        sock.listen()
    first = 200
    for index, sock in enumerate(found):
        os.dup2(sock.fileno(), first + index)
    monkeypatch.setattr(inherited, "FIRST", first)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "3")
    monkeypatch.setenv("LISTEN_FDNAMES", "smtp:smtp:udp")
    yield found
    for index, sock in enumerate(found):
        os.close(first + index)
        sock.close()


async def test_every_socket_of_the_name_is_a_listener(relay, passed):
    one = await relay(SYSTEMD)
    ports = [sock.getsockname()[1] for sock in passed[:2]]
    assert [port for _, port in one.intake.addresses()] == ports
    assert [each["name"] for each in one.intake.listeners()] == ["mx", "mx"]
    for port in ports:
        client = await Client.connect(port)
        assert client.greeting.code == 220
        await client.close()
    assert not os.get_inheritable(200)


async def test_a_listener_that_a_reload_took_away_comes_back(relay, passed):
    one = await relay(SYSTEMD)
    port = one.port
    await one.intake.apply(config.parse(TOML))
    assert port not in [number for _, number in one.intake.addresses()]
    await one.intake.apply(config.parse(SYSTEMD))
    assert (await Client.connect(port)).greeting.code == 220


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"LISTEN_FDNAMES": "a:b:c"},
            "no socket smtp was inherited .there are a, b, c.; start mailtui by a socket",
        ),
        ({"LISTEN_FDNAMES": ""}, "there are unknown"),
        ({"LISTEN_PID": "1"}, "none was passed to this process at all"),
        ({"LISTEN_PID": ""}, "none was passed to this process at all"),
        ({"LISTEN_FDS": "x"}, "none was passed to this process at all"),
        ({"LISTEN_FDNAMES": "a:b:smtp"}, r"descriptor 202 \(smtp\) is no TCP socket that listens"),
        ({"LISTEN_FDS": "4", "LISTEN_FDNAMES": "smtp:b:c:smtp"}, r"descriptor 203 \(smtp\) cannot be used: Bad file"),
    ],
)
async def test_what_cannot_be_used_is_said(relay, passed, monkeypatch, change, says):
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ListenError, match=f"listener mx: .*{says}"):
        await relay(SYSTEMD)


def test_a_socket_that_cannot_be_used_leaves_no_descriptor(passed, monkeypatch):
    monkeypatch.setenv("LISTEN_FDNAMES", "smtp:smtp:smtp")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotInherited):
        inherited.sockets("smtp")
    assert len(os.listdir("/proc/self/fd")) == before

"""Behind front ends that others wrote: haproxy's PROXY headers, XCLIENT as swaks says it, and systemd's sockets."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Start, smarthost
from tests.peers.certificates import Certificates
from tests.peers.conftest import listener, port_of
from tests.peers.content import MESSAGE, our_trace
from tests.peers.programs import Directory, Port, Server, need, run
from tests.support.client import Client
from tests.support.nexthop import NextHop

# 192.0.2.7 may relay, 127.0.0.0/8 may not: whoever is taken for the front end cannot.
ACCESS = '[access]\nnetworks = ["192.0.2.7/32"]\n'


@pytest.fixture
def directory() -> Iterator[Directory]:
    found = Directory()
    yield found
    found.remove()


def door(way: str, certificates: Certificates, more: str) -> str:
    return listener("door", way, certificates) + more + "\n"


async def hands_in(port: int, *options: str) -> int:
    """Exit status of swaks; 24 means that no recipient was accepted."""
    need("swaks")
    done = await run(
        "swaks", "--server", "127.0.0.1", "--port", str(port), "--helo", "client.test", "--from", "ann@sender.test",
        "--to", "bob@dest.test", "--no-data-fixup", "--data", "-", *options,
        given=MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n",
    )  # fmt: skip
    assert done.status in (0, 24), done.output
    return done.status


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("way", ["none", "starttls", "implicit"])
async def test_haproxy(
    relay_of: Start, hop: NextHop, certificates: Certificates, directory: Directory, send: str, way: str
) -> None:
    """haproxy announces where its client comes from: here 127.0.0.9, which may relay, or 127.0.0.1, which may not."""
    need("haproxy")
    access = ACCESS.replace("192.0.2.7/32", "127.0.0.9/32")
    async with relay_of(door(way, certificates, 'proxy_from = ["127.0.0.1/32"]') + access + smarthost(hop)) as relay:
        front = Port()
        file = directory.path / "haproxy.cfg"
        file.write_text(
            "global\n  maxconn 20\ndefaults\n  mode tcp\n"
            "  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
            f"listen smtp\n  bind 127.0.0.1:{front}\n"
            f"  server relay 127.0.0.1:{port_of(relay, 'door')} {send} source 127.0.0.1\n"
        )
        options = {"none": [], "starttls": ["-tls"], "implicit": ["-tlsc"]}[way]
        command = ["haproxy", "-db", "-f", file]
        server = await asyncio.to_thread(_start, command, front, directory.path / "log", way)
        try:
            assert await hands_in(front.number, *options) == 24
            assert await hands_in(front.number, "--local-interface", "127.0.0.9", *options) == 0
            [got] = await hop.received(1)
            await relay.told("delivered")
            assert "[127.0.0.9]" in our_trace(got.data)
        finally:
            await asyncio.to_thread(server.stop)
            front.close()


def _start(command: list[str | Path], port: Port, log: Path, way: str) -> Server:
    if way == "implicit":  # nothing greets before TLS: that it takes connections is enough
        port.greets = lambda: _connects(port)  # type: ignore[method-assign]
    return Server(command, port, log)


def _connects(port: Port) -> bool:
    import socket

    try:
        socket.create_connection(("127.0.0.1", port.number), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("version", ["1", "2"])
async def test_swaks_with_a_proxy_header(
    relay_of: Start, hop: NextHop, certificates: Certificates, version: str
) -> None:
    async with relay_of(door("none", certificates, 'proxy_from = ["127.0.0.1/32"]') + ACCESS + smarthost(hop)) as relay:
        for client, status in (("192.0.2.7", 0), ("192.0.2.8", 24)):
            header = [
                "--proxy-version", version, "--proxy-family", "TCP4" if version == "1" else "AF_INET",
                "--proxy-source", client, "--proxy-source-port", "4000", "--proxy-dest", "198.51.100.1",
                "--proxy-dest-port", "25",
            ]  # fmt: skip
            assert await hands_in(port_of(relay, "door"), *header) == status
        [got] = await hop.received(1)
        assert "[192.0.2.7]" in our_trace(got.data)


@pytest.mark.parametrize("way", ["none", "starttls"])
async def test_swaks_with_xclient(relay_of: Start, hop: NextHop, certificates: Certificates, way: str) -> None:
    tls = ["-tls"] if way == "starttls" else []
    async with relay_of(door(way, certificates, 'xclient_from = ["127.0.0.1/32"]') + ACCESS + smarthost(hop)) as relay:
        for client, status in (("192.0.2.7", 0), ("192.0.2.8", 24)):
            said = ["--xclient-addr", client, "--xclient-name", "mail.b.example", "--xclient-port", "4000"]
            assert await hands_in(port_of(relay, "door"), *said, *tls) == status
        [got] = await hop.received(1)
        assert "(mail.b.example [192.0.2.7])" in our_trace(got.data).replace("\r\n\t", " ")


async def test_systemd_passes_the_socket(directory: Directory) -> None:
    need("systemd-socket-activate", "systemd")
    port, state = Port(), directory.path / "state"
    file = directory.path / "mailtui.toml"
    file.write_text('[[listener]]\naddress = "systemd:smtp"\n[mail]\npostmaster = "postmaster@ours.test"\n')
    command: list[str | Path] = [
        "systemd-socket-activate", "-l", f"127.0.0.1:{port}", "--fdname=smtp", sys.executable, "-m", "mailtui", "serve",
        "--config", file, "--state", state, "--socket", directory.path / "control.sock",
    ]  # fmt: skip
    # It binds the port alone: what holds it for us has to go before.
    port.close()
    server = await asyncio.to_thread(Server, command, port, directory.path / "log")
    try:
        async with await Client.connect(port.number) as client:
            assert client.greeting.code == 220
            assert (await client.command("EHLO client.test")).code == 250
    finally:
        await asyncio.to_thread(server.stop)


async def test_the_relay_is_told_apart_from_its_front_end_in_the_log(
    relay_of: Start, hop: NextHop, certificates: Certificates
) -> None:
    async with relay_of(
        door("none", certificates, 'xclient_from = ["127.0.0.1/32"]') + ACCESS + smarthost(hop)
    ) as relay:
        await hands_in(port_of(relay, "door"), "--xclient-addr", "192.0.2.7")
        await relay.told("delivered")
        assert [each["client"] for each in relay.events.recent if each["event"] == "accepted"] == ["192.0.2.7"]
        [said] = [each for each in relay.events.recent if each["event"] == "xclient"]
        assert said["text"] == "said by 127.0.0.1"

"""Listeners, the limits on connections, the clock of a session, reload and drain."""

import asyncio
import socket

import pytest

from mailtui import config
from mailtui.intake.access import parse_client
from mailtui.intake.limits import client_key
from mailtui.intake.listener import ListenError
from mailtui.intake.terms import Timeouts
from tests.intake.conftest import STRANGER, TOML, over_every_wire, until
from tests.support.client import Client


async def test_listeners_are_shown_as_bound(relay):
    toml = TOML + '[[listener]]\nname = "six"\naddress = "[::1]:0"\n'
    one = await relay(toml)
    first, second = one.intake.listeners()
    assert first == {"name": "mx", "address": f"127.0.0.1:{one.port}", "role": "relay", "tls": "none"}
    assert second["address"].startswith("[::1]:")
    assert (await _connect(one.intake.addresses()[1])).startswith(b"220 ")


async def _connect(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.readline()
    finally:
        writer.close()


async def test_address_in_use_is_said_and_nothing_stays_open(relay):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        toml = TOML + f'[[listener]]\nname = "b"\naddress = "127.0.0.1:{port}"\n'
        with pytest.raises(ListenError, match=f"listener b: cannot listen on 127.0.0.1:{port}: .* in use; stop what"):
            await relay(toml)


async def test_too_many_connections(relay):  # R02, R03
    one = await relay(TOML + "[limits]\nconnections = 2\n")
    first, second = await one.client(), await one.client()
    third = await one.client()
    assert third.greeting.text.startswith("421 4.7.0 relay.example.org Too many connections")
    assert await third.reader.read() == b""
    await second.command("QUIT")
    assert await second.reader.read() == b""
    assert (await one.client()).greeting.code == 220
    assert (await first.command("NOOP")).code == 250
    assert one.told("refused")[0]["rule"] == "connections"


async def test_too_many_connections_from_one_stranger(relay):
    one = await relay(STRANGER + "[limits]\nconnections_per_client = 2\n")
    kept = [await one.client(source="127.0.0.1") for _ in range(2)]
    assert (await one.client(source="127.0.0.1")).greeting.text.startswith("421 4.7.0")
    assert (await one.client(source="127.0.0.2")).greeting.code == 220
    await kept[0].command("QUIT")
    await kept[0].reader.read()
    assert (await one.client(source="127.0.0.1")).greeting.code == 220


async def test_our_networks_are_not_limited(relay):
    one = await relay(TOML + "[limits]\nconnections_per_client = 2\n")
    clients = [await one.client() for _ in range(5)]
    assert all(client.greeting.code == 220 for client in clients)


def test_a_client_is_an_address_or_a_64_of_ipv6():
    def same(a: str, b: str) -> bool:
        return client_key(parse_client(a)) == client_key(parse_client(b))

    assert same("192.0.2.1", "::ffff:192.0.2.1")
    assert not same("192.0.2.1", "192.0.2.2")
    assert same("2001:db8::1", "2001:db8::ffff:1")
    assert not same("2001:db8::1", "2001:db8:0:1::1")
    assert not same("::1", "0.0.0.0")


async def test_idle_client_is_told_and_closed(relay):  # S29
    one = await relay(timeouts=Timeouts(command=0.05))
    client = await one.client()
    assert (await client.reply()).text.startswith("421 4.4.2 relay.example.org Timeout")
    assert await client.reader.read() == b""


async def test_time_for_a_command_is_not_renewed_by_octets(relay):  # S29, R04
    one = await relay(timeouts=Timeouts(command=0.3))
    client = await one.client()
    with pytest.raises((TimeoutError, ConnectionError)):
        async with asyncio.timeout(5):
            while True:
                await client.send(b"N")
                await asyncio.sleep(0.02)
                if client.reader._buffer:  # type: ignore[attr-defined]
                    assert (await client.reply()).text.startswith("421 4.4.2")
                    raise ConnectionError


async def test_time_is_renewed_by_commands_and_by_data(relay):
    one = await relay(timeouts=Timeouts(command=0.4, data_block=0.4))
    client = await one.session()
    for _ in range(5):
        await asyncio.sleep(0.1)
        assert (await client.command("NOOP")).code == 250
    await client.command("MAIL FROM:<a@b.example>")
    await client.command("RCPT TO:<c@d.example>")
    await client.command("DATA")
    for _ in range(5):
        await asyncio.sleep(0.1)
        await client.send(b"line\r\n")
    assert (await client.command(".")).code == 250


async def test_data_that_stops_or_drips(relay):  # R04
    one = await relay(timeouts=Timeouts(data_block=0.05))
    client = await one.in_data()
    await client.send(b"line\r\n")
    assert (await client.reply()).text.startswith("421 4.4.2")
    assert await client.reader.read() == b""
    dripping = await relay(timeouts=Timeouts(data_start=0.1, data_rate=1e6))
    client = await dripping.in_data()
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(5):
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.02)
                if client.reader._buffer:  # type: ignore[attr-defined]
                    assert (await client.reply()).text.startswith("421 4.4.2")
                    raise ConnectionError
    assert not one.queue.messages and not dripping.queue.messages


async def test_session_ends_in_any_case(relay):
    one = await relay(timeouts=Timeouts(session=0.2))
    client = await one.client()
    with pytest.raises(ConnectionError):
        while True:
            await asyncio.sleep(0.01)
            reply = await client.command("NOOP")
            if reply.code == 421:
                assert reply.text.startswith("421 4.4.2")
                assert await client.reader.read() == b""
                raise ConnectionError


async def test_a_commit_is_waited_for_however_long_it_takes(relay):
    one = await relay(timeouts=Timeouts(command=0.05, data_block=0.05, session=0.1))
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b".\r\n")
    await asyncio.sleep(0.3)
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).text.startswith("250 2.0.0 queued as")


async def test_client_that_does_not_close_is_cut(relay):
    one = await relay(timeouts=Timeouts(command=0.05, linger=0.05))
    client = await one.client()
    assert (await client.reply()).code == 421
    await client.send(b"NOOP\r\n")
    await until(lambda: not one.intake.sessions)


@over_every_wire
async def test_drain_tells_idle_clients_at_once_and_lets_transactions_end(relay):  # S30
    one = await relay(timeouts=Timeouts(linger=0.1))
    idle, busy, late = await one.session(), await one.in_data(), await one.in_data()
    draining = asyncio.ensure_future(one.intake.drain(0.3))
    assert (await idle.reply()).text.startswith("421 4.3.2 relay.example.org Shutting down")
    assert await idle.reader.read() == b""
    if one.wire != "implicit":
        late_comer = await Client.connect(one.port)
        assert late_comer.greeting.text.startswith("421 4.3.2 relay.example.org Shutting down")
        await late_comer.close()
    assert (await busy.command("x\r\n.")).code == 250
    assert (await busy.reply()).text.startswith("421 4.3.2")
    assert await busy.reader.read() == b""
    assert (await late.reply()).text.startswith("421 4.3.2")
    late.writer.close()
    await draining
    assert len(one.queue.messages) == 1
    assert not one.intake.sessions


@over_every_wire
async def test_drain_waits_for_a_commit(relay):
    one = await relay()
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b".\r\n")
    await until(lambda: one.queue.commits)
    draining = asyncio.ensure_future(one.intake.drain(0))
    await asyncio.sleep(0.05)
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).text.startswith("250 2.0.0 queued as")
    assert (await client.reply()).text.startswith("421 4.3.2")
    client.writer.close()
    await draining


async def test_reload_changes_rules_and_listeners_and_keeps_sessions(relay):
    one = await relay()
    client = await one.in_data()
    other = await one.session()
    old = one.intake.listeners()
    new = STRANGER.replace("127.0.0.1:0", '127.0.0.1:0"\n[[listener]]\nname = "b"\naddress = "127.0.0.1:0')
    await one.intake.apply(config.parse(new + '[limits]\nmessage_size = "1M"\n'))
    listeners = one.intake.listeners()
    assert listeners[0] == old[0] and [each["name"] for each in listeners] == ["mx", "b"]
    assert (await client.command(".")).code == 250
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 554
    assert "250-SIZE 1048576" in (await other.command("EHLO x")).lines
    await one.intake.apply(config.parse(TOML))
    assert [each["name"] for each in one.intake.listeners()] == ["mx"]
    with pytest.raises(ConnectionRefusedError):
        await _connect(("127.0.0.1", int(listeners[1]["address"].split(":")[1])))
    await client.command("RSET")
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250


async def test_reload_that_cannot_listen_changes_nothing(relay):
    one = await relay()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        toml = STRANGER + f'[[listener]]\nname = "b"\naddress = "127.0.0.1:{taken.getsockname()[1]}"\n'
        with pytest.raises(ListenError):
            await one.intake.apply(config.parse(toml))
    assert len(one.intake.listeners()) == 1
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250


async def test_recipients_file_is_watched(relay, tmp_path, monkeypatch):
    monkeypatch.setattr("mailtui.intake.listener.CHECK_INTERVAL", 0.01)
    path = tmp_path / "recipients"
    path.write_text("ann@ours.example\n")
    one = await relay(STRANGER.replace('"any"', f'"{path}"'))
    client = await one.session()
    await client.command("MAIL FROM:<a@b.example>")
    assert (await client.command("RCPT TO:<bob@ours.example>")).text.startswith("550 5.1.1")
    path.write_text("ann@ours.example\nbob@ours.example\nnonsense\n")
    await until(lambda: one.told("recipients"))
    assert (await client.command("RCPT TO:<bob@ours.example>")).code == 250
    assert "line 3 is no address" in one.told("recipients")[0]["text"]


async def test_connections_are_told_at_debug_level(relay):
    one = await relay()
    client = await one.client()
    await client.command("QUIT")
    await client.reader.read()
    await until(lambda: not one.intake.sessions)
    assert one.told("connect")[0]["client"] == "127.0.0.1"
    assert one.told("disconnect")[0]["listener"] == "mx"

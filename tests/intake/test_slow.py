"""Clients that speak before they are greeted, that hold on to a session, or that take their time to go."""

import asyncio
import socket
from dataclasses import replace

import pytest

from mailtui.intake.session import ERROR_LIMIT, PATIENT_ERRORS
from mailtui.intake.terms import Timeouts
from tests.intake.conftest import STRANGER, TOML, listener, over_every_wire, until
from tests.support.certificates import client_context
from tests.support.client import Answer, Client

TOO_SOON = b"EHLO early.test\r\nMAIL FROM:<a@b.example>\r\n"


async def early(port: int) -> Client:
    """A client whose first octets are in the relay's socket before its loop has seen the connection."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(TOO_SOON)
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    return Client(reader, writer, 10.0)


async def test_a_stranger_that_speaks_before_the_greeting_is_refused(relay):  # M14
    one = await relay(STRANGER)
    client = await early(one.port)
    assert (await client.reply()) == Answer(554, ("554 5.5.1 relay.example.org You spoke before the greeting",))
    assert await client.closed() == b""
    assert one.told("early-talker")[0]["text"] == "spoke before it was greeted: refused"
    await client.close()
    await until(lambda: not one.intake.sessions)


async def test_one_of_ours_that_speaks_before_the_greeting_is_noticed_and_served_in_order(relay):  # M14
    one = await relay(TOML)
    client = await early(one.port)
    assert [(await client.reply()).code for _ in range(3)] == [220, 250, 250]
    assert [event["text"] for event in one.told("early-talker")] in ([], ["spoke before it was greeted"])


async def test_who_speaks_within_the_handshake_is_early_too(relay, tls_files):  # M14
    """The octets stand right behind the client's last of the handshake, so that they are read with it."""
    one = await relay(listener("implicit", tls_files, STRANGER))
    client = await Client.connect(one.port, tls=client_context(verify=False), greeting=False)
    await client.send(TOO_SOON)
    first = await client.reply()
    assert first.code in (554, 220)  # whether it is seen depends on the network; what follows is in order then
    if first.code == 220:
        assert [(await client.reply()).code for _ in range(2)] == [250, 250]
    else:
        assert await client.closed() == b""


async def test_who_waits_for_the_greeting_is_not_early(relay):
    one = await relay(STRANGER)
    for _ in range(20):
        await (await one.session()).close()
    assert not one.told("early-talker")


@over_every_wire
async def test_one_octet_at_a_time_renews_nothing(relay):  # S29
    """A command has one deadline, set when the one before is done; octets of it do not move it."""
    one = await relay(STRANGER, Timeouts(command=300.0))
    client = await one.session()
    [session] = one.intake.sessions
    await until(lambda: session._deadline)
    deadline = session._deadline
    for octet in b"NOO":
        await client.send(bytes((octet,)))
        before = len(session._input)
        await until(lambda before=before: len(session._input) >= before)
    await until(lambda: session._input == b"NOO")
    assert session._deadline == deadline
    await client.send(b"P\r\n")
    assert (await client.reply()).code == 250
    assert session._deadline >= deadline


@over_every_wire
@pytest.mark.parametrize("how", ["a stranger", "one of ours"])
async def test_errors_slow_a_stranger_down(relay, how):  # R06
    if how == "a stranger":
        one = await relay(STRANGER, Timeouts(error_pause=0.03))
    else:  # who would not live to see the end of a pause
        one = await relay(TOML, Timeouts(error_pause=60.0))
    client = await one.session()
    [session] = one.intake.sessions
    begun = session.loop.time()
    await client.send(b"FROB\r\n" * (ERROR_LIMIT - 1) + b"NOOP\r\n")
    assert [(await client.reply()).code for _ in range(ERROR_LIMIT)] == [500] * (ERROR_LIMIT - 1) + [250]
    if how == "a stranger":
        assert session.loop.time() - begun >= 0.03 * (ERROR_LIMIT - 1 - PATIENT_ERRORS)


async def test_a_client_that_goes_while_it_is_slowed_down_leaves_nothing(relay):  # R06, S32
    one = await relay(STRANGER, Timeouts(error_pause=0.05))
    client = await one.session()
    await client.send(b"MAIL FROM:<>\r\nRCPT TO:<x@ours.example>\r\nBDAT 3\r\nx\r\n" + b"FROB\r\n" * 12)
    await until(lambda: one.intake.budget.used)
    client.reader._transport.abort()  # type: ignore[attr-defined]
    await until(lambda: not one.intake.sessions)
    await until(lambda: not one.intake.budget.used)


@over_every_wire
@pytest.mark.parametrize("reads", [True, False])
async def test_who_is_closed_for_others_is_gone_at_once(relay, reads):  # R04
    one = await relay(STRANGER + "[limits]\nconnections = 1\n", Timeouts(linger=0.2 if reads else 60))
    client = await one.session()
    [session] = one.intake.sessions
    if not reads:
        await client.command("MAIL FROM:<a@b.example>")
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        while not session.unread:
            client.writer.write(b"RCPT TO:<x@ours.example>\r\n" * 1000)
            await asyncio.sleep(0)
    other = await one.session()
    assert one.intake.sessions and session not in one.intake.sessions
    await until(lambda: session.transport is None)
    assert (await other.command("NOOP")).code == 250
    if reads:
        assert (await client.reply()).text.startswith("421 4.3.2 relay.example.org Too many connections")
        assert await client.closed() == b""
    client.reader._transport.abort()  # type: ignore[attr-defined]


@over_every_wire
async def test_who_is_in_a_handshake_makes_room_too(relay):  # R04
    one = await relay(STRANGER + "[limits]\nconnections = 1\n")
    hanging = await Client.connect(one.port, greeting=False)
    if one.wire == "starttls":
        await hanging.reply()
        await hanging.command("STARTTLS")
    await until(lambda: one.intake.sessions)
    client = await one.session()
    assert (await client.command("NOOP")).code == 250
    assert await hanging.closed() in (
        b"",
        b"220 relay.example.org ESMTP mailtui\r\n421 4.3.2 relay.example.org Too many connections, try again later\r\n",
    )


async def test_a_pause_for_errors_does_not_end_the_wait_for_the_disk(
    relay,
):  # 250 comes after the commit, and nothing before
    one = await relay(STRANGER)
    one.intake.timeouts = replace(one.intake.timeouts, error_pause=0.05)
    one.queue.hold = True
    client = await one.session()
    (session,) = one.intake.sessions
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<x@ours.example>\r\nBDAT 3\r\nx\r\n")
    assert [(await client.reply()).code for _ in range(3)] == [250, 250, 250]
    session.errors = PATIENT_ERRORS
    await client.send(b"NOOP " + b"z" * 5000)  # too long, and not at its end
    await until(lambda: session._skipped)
    await client.send(b"\r\nBDAT 0 LAST\r\nNOOP\r\nQUIT\r\n")
    assert (await client.reply()).code == 500
    await until(lambda: one.queue.commits)
    assert session.busy and session.committing
    await asyncio.sleep(0.1)  # longer than the pause
    assert session.busy and session.committing
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).text.startswith("250 2.0.0 queued as ")
    assert (await client.reply()).text == "250 2.0.0 Ok"
    assert (await client.reply()).code == 221

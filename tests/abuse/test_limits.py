"""Limits and times: too many connections, recipients and errors; clients that are slow, silent, or never read.

Times are cut short by `Timeouts`; what is measured is which of them ends a session, never how long it took.
"""

import asyncio
import contextlib

import pytest

from mailtui.intake.commands import EXCESS
from mailtui.intake.limits import IDLE_COMMANDS, IDLE_COMMANDS_TRUSTED
from mailtui.intake.session import ERROR_LIMIT
from mailtui.intake.terms import Timeouts
from tests.abuse.talk import BODY, KEPT, MAIL, RCPT, Taken, check, check_queue, expect, in_step
from tests.intake.conftest import STRANGER, TOML, over_every_wire, until
from tests.support.certificates import client_context
from tests.support.client import Answer, Client

LIMITED = STRANGER + "[limits]\nconnections = 3\nconnections_per_client = 2\nrecipients = 100\n"
SHORT = 0.15


@over_every_wire
async def test_the_hundred_and_first_recipient_is_for_another_transaction(relay):  # S27, R02
    one = await relay(LIMITED)
    client = await one.session()
    names = [f"r{n}@ours.example" for n in range(100)]
    await client.send(f"{MAIL}\r\n".encode() + "".join(f"RCPT TO:<{name}>\r\n" for name in names).encode())
    await expect(client, "250 " + "250/2.1.5 " * 100)
    await client.send(
        b"RCPT TO:<r100@ours.example>\r\nRCPT TO:<r0@ours.example>\r\nRCPT TO:<v@other.example>\r\nDATA\r\n"
    )
    await expect(client, "452/4.5.3 250/2.1.5 554/5.7.1 354")
    await client.send(BODY)
    await expect(client, "250")
    await in_step(one, client, [KEPT._replace(to=" ".join(names))])


async def refused_connection(one) -> None:
    """A connection that is told at once that it is one too many; over TLS from the first octet it cannot be told."""
    if one.wire == "implicit":
        with pytest.raises((ConnectionError, OSError)):
            await Client.connect(one.port, tls=client_context(verify=False))
        return
    client = await Client.connect(one.port)
    assert check(client.greeting).code == 421
    assert client.greeting.text.startswith("421 4.7.0")
    assert await client.closed() == b""


@over_every_wire
async def test_one_stranger_may_have_so_many_connections(relay):  # R02, R03
    one = await relay(LIMITED)
    clients = [await one.session() for _ in range(2)]
    await refused_connection(one)
    for client in clients:
        assert check(await client.command("NOOP")).code == 250
    await clients[0].close()
    await until(lambda: len(one.intake.sessions) == 1)
    await in_step(one, await one.client())


@over_every_wire
@pytest.mark.parametrize("where", ["greeted", "transaction", "data", "mid-line"])
async def test_a_silent_client_is_told_and_closed(relay, where):  # S29, R04
    one = await relay(STRANGER, Timeouts(command=SHORT, data_block=SHORT))
    client = await one.client()
    if where != "greeted":
        await client.send(b"EHLO c\r\n" + f"{MAIL}\r\n".encode())
        await expect(client, "250 250")
    if where == "data":
        await client.send(f"{RCPT}\r\nDATA\r\n".encode())
        await expect(client, "250 354")
        await client.send(b"Subject: x\r\n\r\nx\r\n.\r")
    elif where == "mid-line":
        await client.send(b"RCPT TO:<x@ours")
    await expect(client, "421/4.4.2")
    assert await client.closed() == b""
    check_queue(one, [])
    await in_step(one, await one.client())


@over_every_wire
@pytest.mark.parametrize("where", ["command", "data"])
async def test_a_client_that_drips_is_told_and_closed(relay, where):  # S29, R04
    one = await relay(STRANGER, Timeouts(command=SHORT, data_block=60, data_start=SHORT, data_rate=1e6))
    client = await (one.session() if where == "command" else one.in_data(recipient="x@ours.example"))
    answer = asyncio.ensure_future(client.reply())
    while not answer.done():  # each octet renews nothing
        await client.send(b"x")
        await asyncio.sleep(0.005)
    assert check(await answer).text.startswith("421 4.4.2")
    check_queue(one, [])


@over_every_wire
async def test_a_session_ends_after_its_time_however_busy_it_is(relay):  # R04
    one = await relay(STRANGER, Timeouts(session=SHORT))
    client = await one.session()
    answers = asyncio.ensure_future(_until_refused(client))
    while not answers.done():
        with contextlib.suppress(ConnectionError):  # over TLS the last reply closes both sides
            await client.send(b"NOOP\r\n")
        await asyncio.sleep(0.005)
    assert (await answers).text.startswith("421 4.4.2")
    assert await client.closed() == b""


@over_every_wire
async def test_who_sends_commands_without_end_keeps_nobody_waiting(relay):  # R04, S02
    one = await relay(STRANGER)
    flood = await one.session()
    [flooding] = one.intake.sessions
    other = await one.session()
    assert (await flood.command(MAIL)).code == 250
    flood.writer.write(f"{RCPT}\r\n".encode() * 20_000)
    assert check(await other.command("NOOP")).code == 250
    assert len(flooding._input) > 60_000  # most of it waits
    for _ in range(20_000):
        assert (await flood.reply()).code == 250
    await in_step(one, flood)


@over_every_wire
@pytest.mark.parametrize("words", [b"NOOP RSET", b"EHLO_x HELO_x", b"VRFY_x HELP"])
async def test_a_session_has_so_many_commands_without_a_message(relay, words):  # R02
    one = await relay(STRANGER)
    client = await one.session()
    [session] = one.intake.sessions
    lines = [word.replace(b"_", b" ") + b"\r\n" for word in words.split()]
    session.idle = 0  # what comes before TLS counts too
    for n in range(IDLE_COMMANDS):
        await client.send(lines[n % 2])
        assert check(await client.reply()).code in (250, 252, 214)
    assert session.idle == IDLE_COMMANDS
    await client.send(f"{MAIL}\r\n".encode())  # which is none
    await expect(client, "250")
    await client.send(lines[0] + b"QUIT\r\n")
    await expect(client, "421/4.7.0")
    assert await client.closed() == b""


@over_every_wire
async def test_a_message_that_is_kept_pays_for_new_commands_and_a_refused_one_does_not(relay):  # R02
    one = await relay(STRANGER)
    client = await one.session()
    [session] = one.intake.sessions
    for line in (BODY, b"\rx\r\n.\r\n"):
        await client.send(b"NOOP\r\n" * (IDLE_COMMANDS - session.idle))
        await expect(client, "250 " * (IDLE_COMMANDS - session.idle))
        await client.send(f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode())
        await expect(client, "250 250 354")
        await client.send(line)
        check(await client.reply())
    await client.send(b"NOOP\r\n")
    await expect(client, "421/4.7.0")
    check_queue(one, [KEPT])


@over_every_wire
async def test_who_may_relay_has_more_commands_without_a_message_but_not_without_end(relay):  # R02
    one = await relay(TOML)
    client = await one.session()
    [session] = one.intake.sessions
    left = IDLE_COMMANDS_TRUSTED - session.idle
    await client.send(b"NOOP\r\n" * (left + 1))
    await expect(client, "250 " * left + "421/4.7.0")
    assert await client.closed() == b""


@over_every_wire
async def test_recipients_beyond_the_limit_are_errors_when_they_do_not_end(relay):  # S27, R02
    one = await relay(LIMITED)
    client = await one.session()
    [session] = one.intake.sessions
    await client.send(f"{MAIL}\r\n".encode() + b"".join(b"RCPT TO:<r%d@ours.example>\r\n" % n for n in range(100)))
    await expect(client, "250 " * 101)
    await client.send(b"RCPT TO:<more@ours.example>\r\n" * EXCESS)
    await expect(client, "452/4.5.3 " * EXCESS)
    assert session.errors == 0
    await client.send(b"RCPT TO:<more@ours.example>\r\n" * (ERROR_LIMIT + 1))
    await expect(client, "452/4.5.3 " * ERROR_LIMIT + "421/4.7.0")
    assert await client.closed() == b""


async def _until_refused(client: Client) -> Answer:
    """The first reply that is not 250."""
    while (answer := check(await client.reply())).code == 250:
        pass
    return answer


@over_every_wire
async def test_a_client_that_reads_no_replies_is_read_no_further(relay):  # S02, R04
    one = await relay(STRANGER)
    client = await one.session()
    assert (await client.command(MAIL)).code == 250
    reply = (check(await client.command(RCPT)).text + "\r\n").encode()
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    [session] = one.intake.sessions
    sent = 0
    async with asyncio.timeout(20):
        while not session.unread:
            if client.writer.transport.get_write_buffer_size() < 10_000:
                client.writer.write(f"{RCPT}\r\n".encode() * 1000)
                sent += 1000
            await asyncio.sleep(0)
    assert session.transport.get_write_buffer_size() < 1 << 20
    client.reader._transport.resume_reading()  # type: ignore[attr-defined]
    assert await client.reader.readexactly(len(reply) * sent) == reply * sent
    await in_step(one, client)


@over_every_wire
async def test_a_stop_tells_who_waits_and_lets_the_transaction_end(relay):  # S30
    one = await relay(STRANGER)
    idle, busy = await one.session(), await one.in_data(recipient="x@ours.example")
    drained = asyncio.ensure_future(one.intake.drain(10))
    await expect(idle, "421/4.3.2")
    assert await idle.closed() == b""
    await idle.close()
    await busy.send(BODY)
    await expect(busy, "250 421/4.3.2")
    assert await busy.closed() == b""
    await busy.close()
    await drained
    check_queue(one, [KEPT])
    with pytest.raises(OSError):
        await Client.connect(one.port)


@over_every_wire
async def test_a_good_message_forgives_errors_and_refused_ones_do_not(relay):  # R02
    one = await relay(STRANGER)
    client = await one.session()
    for _ in range(2):
        await client.send(b"FROB\r\n" * (ERROR_LIMIT - 1))
        await expect(client, "500 " * (ERROR_LIMIT - 1))
        await client.send(f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode())
        await expect(client, "250 250 354")
        await client.send(BODY)
        await expect(client, "250")
    for _ in range(ERROR_LIMIT):
        await client.send(f"{MAIL}\r\n{RCPT}\r\nDATA\r\n".encode())
        await expect(client, "250 250 354")
        await client.send(b"x\ny\r\n.\r\n")
        await expect(client, "550")
    await client.send(b"NOOP\r\n")
    await expect(client, "421/4.7.0")
    assert await client.closed() == b""
    check_queue(one, [KEPT] * 2)


@over_every_wire
async def test_clients_of_networks_are_not_limited_by_address(relay):  # R02
    one = await relay(TOML + "[limits]\nconnections_per_client = 1\n")
    clients = [await one.session() for _ in range(3)]
    for client in clients:
        assert check(await client.command("NOOP")).code == 250
    check_queue(one, [])


@over_every_wire
async def test_bodies_under_way_share_a_bounded_memory(relay, monkeypatch):  # R09
    monkeypatch.setattr("mailtui.intake.terms.MemoryBudget.LIMIT", 100_000)
    one = await relay(STRANGER)
    clients = [await one.in_data(recipient="x@ours.example") for _ in range(8)]
    body = b"x" * 70 + b"\r\n"
    for client in clients:
        await client.send(body * 1000)
    await until(lambda: one.intake.budget.used < 300_000 and len(one.queue.spools) >= 4)
    for client in clients:
        await client.send(b".\r\n")
        await expect(client, "250")
    assert one.intake.budget.used == 0
    check_queue(one, [Taken(body * 1000)] * 8)

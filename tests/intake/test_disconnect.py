"""A client that goes away, at every point: before the final dot nothing is queued, after it exactly once."""

import asyncio
import socket
import struct

import pytest

from mailtui.intake.data import MEMORY_LIMIT
from tests.intake.conftest import over_every_wire, until

ENVELOPE = b"EHLO client.test\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
SMALL = ENVELOPE + b"Subject: x\r\n\r\n..dot\r\ntext\r\n.\r\n"
LARGE = ENVELOPE + b"x\r\n" * (MEMORY_LIMIT // 2) + b".\r\n"


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def cut(one, session: bytes, position: int, rough: bool) -> None:
    """Send so much of a session, each command's reply awaited up to DATA, then go away."""
    client = await one.client()
    sent = 0
    while sent < min(position, len(ENVELOPE)):
        line_end = session.index(b"\r\n", sent) + 2
        await client.send(session[sent : min(line_end, position)])
        if line_end > position:
            break
        sent = line_end
        await client.reply()
    if position > len(ENVELOPE):
        await client.send(session[len(ENVELOPE) : position])
    if rough:
        reset(client.writer)
    else:
        client.writer.close()
    await until(lambda: not one.intake.sessions)


@pytest.mark.parametrize("rough", [False, True], ids=["close", "reset"])
async def test_small_message_cut_after_every_octet(relay, rough):  # S32
    one = await relay()
    for position in range(len(SMALL)):
        await cut(one, SMALL, position, rough)
        assert not one.queue.messages, position
    assert one.intake.budget.used == 0


@over_every_wire
async def test_small_message_is_queued_once_if_the_client_goes_after_the_dot(relay):
    one = await relay()
    for count in range(1, 6):
        await cut(one, SMALL, len(SMALL), rough=False)
        assert len(one.queue.messages) == count
        assert one.queue.body() == b"Subject: x\r\n\r\n.dot\r\ntext\r\n"


@over_every_wire
@pytest.mark.parametrize("rough", [False, True], ids=["close", "reset"])
async def test_large_message_cut(relay, rough):
    one = await relay()
    for position in (len(ENVELOPE) + 1, MEMORY_LIMIT - 1, MEMORY_LIMIT + 5000, len(LARGE) - 5, len(LARGE) - 1):
        await cut(one, LARGE, position, rough)
        assert not one.queue.messages
        await until(lambda: all(spool.abandoned for spool in one.queue.spools))  # a thread may still write
    assert one.intake.budget.used == 0


@over_every_wire
@pytest.mark.parametrize("rough", [False, True], ids=["close", "reset"])
async def test_going_away_while_the_message_commits_changes_nothing(relay, rough):
    one = await relay()
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b"text\r\n.\r\n")
    await until(lambda: one.queue.commits)
    if rough:
        reset(client.writer)
        await until(lambda: not one.intake.sessions)
    else:
        client.writer.close()
    assert not one.queue.commits[0].cancelled()
    one.queue.commits[0].set_result(None)
    await until(lambda: one.told("accepted"))
    await until(lambda: not one.intake.sessions)
    assert len(one.queue.messages) == len(one.told("accepted")) == 1


async def test_half_closed_client_still_gets_its_replies(relay):
    one = await relay()
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b"text\r\n.\r\nNOOP\r\n")
    client.writer.write_eof()
    await until(lambda: one.queue.commits)
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).text.startswith("250 2.0.0 queued")
    assert (await client.reply()).text.startswith("250 2.0.0 Ok")
    assert await client.reader.read() == b""


async def test_whole_session_and_half_close_in_one_packet(relay):
    one = await relay()
    client = await one.client()
    await client.send(SMALL + b"QUIT\r\n")
    client.writer.write_eof()
    replies = await client.reader.read()
    assert [line[:3] for line in replies.split(b"\r\n") if line[3:4] == b" "] == [
        b"250", b"250", b"250", b"354", b"250", b"221",
    ]  # fmt: skip
    assert len(one.queue.messages) == 1


async def test_connections_that_say_nothing(relay):
    one = await relay()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        reset(writer)
    await until(lambda: not one.intake.sessions)
    assert not one.intake.limits._clients

"""DATA: what is taken, what is refused, and where it is kept meanwhile. Numbers: the project's list of requirements."""

import asyncio

import pytest

from mailtui import ids
from mailtui.intake.data import EARLY_LIMIT, MEMORY_LIMIT
from mailtui.intake.limits import IDLE_COMMANDS_TRUSTED
from mailtui.intake.listener import WAITING_LIMIT
from mailtui.model import SmtpError
from tests.intake.conftest import TOML, over_every_wire, until, without_trace

HEADER = b"From: a@b.example\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\nMessage-ID: <1@b.example>\r\n\r\n"


async def answer_to(one, content: bytes, **envelope):
    client = await one.in_data(**envelope)
    await client.send(content)
    return client, await client.reply()


async def test_message_is_queued_as_it_came_below_our_field(relay):  # S37, T01, T04
    one = await relay()
    client, reply = await answer_to(one, HEADER + b"..dot\r\n.x\r\nlast\r\n.\r\n")
    message = one.queue.messages[0]
    assert reply.lines == (f"250 2.0.0 queued as {ids.encode(message.id)}",)
    assert one.queue.body() == HEADER + b".dot\r\nx\r\nlast\r\n"
    assert message.body is not None
    assert message.body.startswith(
        b"Received: from client.test ([127.0.0.1])\r\n\tby relay.example.org with ESMTP id "
        + ids.encode(message.id).encode()
        + b"\r\n\tfor <c@d.example>; "
    )
    envelope = message.envelope
    assert (envelope.sender, envelope.client, envelope.helo) == ("a@b.example", "127.0.0.1", "client.test")
    assert (envelope.listener, envelope.protocol, envelope.trusted) == ("mx", "ESMTP", True)
    assert (envelope.subject, envelope.message_id, envelope.eight_bit) == ("grün", "<1@b.example>", False)
    assert envelope.size == len(message.body)
    assert envelope.arrived == one.clock.now()
    assert (await client.command("QUIT")).code == 221


@over_every_wire
async def test_recipients_are_due_now_and_expire(relay):
    one = await relay(TOML + '[retry]\nexpire = "2d"\nbounce_expire = "1h"\n')
    await answer_to(one, b".\r\n", recipient="C@D.Example")
    await answer_to(one, b".\r\n", sender="")
    now = one.clock.now()
    first, second = (message.recipients[0] for message in one.queue.messages)
    assert (first.ordinal, first.address, first.destination) == (1, "C@D.Example", "d.example")
    assert (first.submitter, first.due, first.expires) == ("127.0.0.1", now, now + 2 * 86400)
    assert second.expires == now + 3600
    assert one.queue.messages[1].envelope.sender == ""


async def test_several_recipients_are_not_named(relay):  # T05
    one = await relay()
    client = await one.session()
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n")
    assert [(await client.reply()).code for _ in range(4)] == [250, 250, 250, 354]
    assert (await client.command(".")).code == 250
    assert b"example>" not in (one.queue.messages[0].body or b"")


async def test_accepted_is_told(relay):
    one = await relay()
    await answer_to(one, HEADER + b".\r\n")
    event = one.told("accepted")[0]
    assert event["id"] == ids.encode(one.queue.messages[0].id)
    assert (event["client"], event["sender"], event["recipients"]) == ("127.0.0.1", "a@b.example", 1)
    assert (event["protocol"], event["size"]) == ("ESMTP", one.queue.messages[0].envelope.size)


@over_every_wire
@pytest.mark.parametrize(
    "content",
    [
        b".\r\n",
        b"\r\n.\r\n",
        b"no header at all\r\n.\r\n",
        b"X" * 998 + b"\r\n.\r\n",  # S28
        b"Subject: x\r\n" * 5000 + b"\r\n.\r\n",  # R05
        b"X: " + b"a\r\n " * 50_000 + b"\r\n\r\n.\r\n",
        b"a\x00b\r\n.\r\n",  # M10
        b"\xff\x85\xe2\x80\xa8\r\n.\r\n",
        b"\r\n. \r\n .\r\n\x00.\r\n.\r\n",
    ],
)
async def test_odd_messages_are_taken(relay, content):  # S36
    one = await relay()
    _, reply = await answer_to(one, content)
    assert reply.code == 250
    assert one.queue.body() == content.removesuffix(b".\r\n").replace(b"\r\n. \r\n", b"\r\n \r\n")
    assert one.queue.messages[0].envelope.eight_bit == (not content.isascii())


@over_every_wire
@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b"a\nb\r\n.\r\n", "550 5.6.0"),  # M06
        (b"a\rb\r\n.\r\n", "550 5.6.0"),
        (b"a\n.\r\nMAIL FROM:<x@y>\r\n.\r\n", "550 5.6.0"),
        (b"a\r\r\n.\r\n", "550 5.6.0"),  # M05
        (b"X" * 999 + b"\r\n.\r\n", "554 5.6.0"),
        (b"Received: x\r\n" * 100 + b"\r\n.\r\n", "554 5.4.6"),  # T10
        (b"X" * 60 + b"\r\n" + b"x\r\n" * 700_000 + b".\r\n", "552 5.3.4"),  # X02
    ],
)
async def test_refused_after_the_dot_and_in_step(relay, content, reply):
    one = await relay(TOML + '[limits]\nmessage_size = "1M"\n')
    client, given = await answer_to(one, content)
    assert given.text.startswith(reply)
    assert not one.queue.messages
    assert all(spool.abandoned for spool in one.queue.spools)
    assert [(r["recipient"], r["destination"], r["sender"]) for r in one.queue.refusals] == [
        ("c@d.example", "d.example", "a@b.example")
    ]
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250


async def test_hops_below_the_limit_pass(relay):  # T10
    one = await relay()
    _, reply = await answer_to(one, b"Received: x\r\n" * 99 + b"\r\n.\r\n")
    assert reply.code == 250


async def test_bare_line_ends_can_be_normalised(relay):  # C4
    one = await relay(TOML + '[access]\nbare_newline = "normalize"\n')
    _, reply = await answer_to(one, b"a\nb\rc\r\n\n.\n.x\r\nd\r\r\n.\r\n")
    assert reply.code == 250
    assert one.queue.body() == b"a\r\nb\r\nc\r\n\r\n.\r\n.x\r\nd\r\n\r\n"


@over_every_wire
@pytest.mark.parametrize("size", [MEMORY_LIMIT - 300, MEMORY_LIMIT + 300, 3 * MEMORY_LIMIT, 4 * MEMORY_LIMIT + 17])
async def test_large_messages_go_to_a_spool_file(relay, size):  # R09
    one = await relay()
    line = b"." + b"x" * 77 + b"\r\n"
    content = HEADER + (line * (size // len(line) + 1))[: size - 2] + b"\r\n"
    client, reply = await answer_to(one, content.replace(b"\r\n.", b"\r\n..") + b".\r\nNOOP\r\n")
    assert reply.code == 250
    assert (await client.reply()).code == 250
    message = one.queue.messages[0]
    if size < MEMORY_LIMIT:
        assert not one.queue.spools
        assert one.queue.body() == content
    else:
        spool = one.queue.spools[0]
        assert message.body is None and not spool.abandoned
        assert spool.octets.startswith(b"Received: from client.test")
        assert without_trace(spool.octets) == content
        assert message.envelope.size == len(spool.octets)
        assert all(piece >= MEMORY_LIMIT for piece in spool.pieces[:-1])
    assert message.envelope.subject == "grün"
    assert one.intake.budget.used == 0


async def test_bodies_go_to_disk_early_when_memory_is_short(relay):
    one = await relay()
    one.intake.budget.used = one.intake.budget.LIMIT
    client = await one.in_data()
    await client.send(HEADER + b"x" * 70 + b"\r\n")
    await until(lambda: one.intake.budget.exhausted)
    assert not one.queue.spools
    await client.send(b"y\r\n" * EARLY_LIMIT + b".\r\n")
    assert (await client.reply()).code == 250
    assert without_trace(one.queue.spools[0].octets).endswith(b"y\r\n" * EARLY_LIMIT)
    one.intake.budget.used -= one.intake.budget.LIMIT


async def test_spool_that_cannot_be_written(relay):  # R07
    one = await relay()
    one.queue.spool_error = OSError(28, "No space left on device")
    client, reply = await answer_to(one, b"x\r\n" * MEMORY_LIMIT + b".\r\n")
    assert reply.text.startswith("452 4.3.1")
    assert not one.queue.messages
    assert (await client.command("NOOP")).code == 250


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("database is locked: /var/lib/x"), "451 4.3.0 Cannot keep the message now, try again later"),
        (SmtpError(452, "4.3.1", "Insufficient system storage", "free-disk"), "452 4.3.1 Insufficient system storage"),
    ],
)
async def test_queue_that_cannot_keep_a_message(relay, error, expected):
    one = await relay()
    one.queue.error = error
    client, reply = await answer_to(one, b".\r\n")
    assert reply.lines == (expected,)  # and not a word about the machine
    one.queue.error = None
    assert (await client.command("NOOP")).code == 250
    one.events.recent.clear()


async def test_disk_short_at_the_end_of_data(relay):  # R07
    one = await relay()
    client = await one.in_data()
    one.queue.full = SmtpError(452, "4.3.1", "Insufficient system storage, try again later", "free-disk")
    assert (await client.command("x\r\n.")).text.startswith("452 4.3.1")
    assert not one.queue.messages


@over_every_wire
async def test_nothing_is_said_before_the_commit_and_input_waits(relay):  # S30, X05
    one = await relay()
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b"x\r\n.\r\nNOOP\r\nMAIL FROM:<a@b.example>\r\n")
    await until(lambda: one.queue.commits)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.reader.read(1)
    one.queue.commits[0].set_result(None)
    assert [(await client.reply()).text[:9] for _ in range(3)] == ["250 2.0.0", "250 2.0.0", "250 2.1.0"]


@over_every_wire
async def test_client_that_floods_while_its_message_commits_is_held_back(relay):
    one = await relay()
    one.queue.hold = True
    client = await one.in_data()
    await client.send(b"x\r\n.\r\n")
    await until(lambda: one.queue.commits)
    flood = asyncio.ensure_future(client.send(b"NOOP\r\n" * 1_000_000))
    (session,) = one.intake.sessions
    await until(lambda: session._not_reading)
    assert len(session._input) < 1 << 20
    one.queue.commits[0].set_result(None)
    assert (await client.reply()).code == 250
    for _ in range(IDLE_COMMANDS_TRUSTED):
        assert (await client.reply()).code == 250
    flood.cancel()
    client.writer.transport.abort()


@over_every_wire
async def test_data_waits_for_room_in_the_queue(relay):
    one = await relay()
    one.queue.waiting = WAITING_LIMIT + 1
    client = await one.session()
    await client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
    assert [(await client.reply()).code for _ in range(2)] == [250, 250]
    await until(lambda: one.intake._waiters)
    one.queue.waiting = 0
    one.intake.wake()
    assert (await client.reply()).code == 354
    assert (await client.command(".")).code == 250


@over_every_wire
async def test_fault_of_ours_is_temporary_and_says_nothing_more(relay, monkeypatch):  # libs: handle_exception
    one = await relay()
    client = await one.session()
    monkeypatch.setattr(one.queue, "accept", None)
    assert (await client.command("MAIL FROM:<a@b.example>")).code == 250
    assert (await client.command("RCPT TO:<c@d.example>")).code == 250
    assert (await client.command("DATA")).code == 354
    assert (await client.command(".")).lines == ("451 4.3.0 Internal error, try again later",)
    assert (await client.command("NOOP")).code == 250
    assert "TypeError" in one.told("error")[0]["text"]
    one.events.recent.clear()

"""Conversations as tables have them: what a client writes, what must be answered, what may be in the queue afterwards.

A case is one attack, or one limit, by the name of the behaviour that it asks for. `hold` has the conversation over
each kind of connection and checks four things: every reply, by code and enhanced code, and that it is well formed
(RFC 5321 section 4.2, RFC 2034 section 4); that nothing but `taken` was queued; that the session is then either closed
or in step, so that a message sent over it is taken as it is; and, by the fixture `relay`, that nothing went wrong
inside, no session is left and no memory is still counted.

`rows` are the requirements that a case shows (test_rows.py has their list).
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import pytest

from mailtui.intake.terms import Timeouts
from tests.intake.conftest import STRANGER, TOML, Relay, over_every_wire, without_trace
from tests.support.client import Answer, Client

HOST = "relay.example.org"
Start = Callable[..., Awaitable[Relay]]

# Every client is a stranger, who may send to ours.example and nowhere else; or one of ours, who may send anywhere.
OURS = TOML
MAIL, RCPT = "MAIL FROM:<a@b.example>", "RCPT TO:<x@ours.example>"
OPEN, CLOSED = "open", "closed"

_ENHANCED = re.compile(r"([245])\.\d{1,3}\.\d{1,3} ")
# What may stand without an enhanced code (RFC 2034 section 4): greeting, EHLO and HELO, and what asks for more.
_HELLO = re.compile(rf"(220|250)[ -]{re.escape(HOST)}|501 Say your host name")


class Taken(NamedTuple):
    """A message that must be in the queue: its content as below our Received field, and its envelope."""

    content: bytes
    to: str = "x@ours.example"  # recipients, with blanks between them
    sender: str = "a@b.example"


class Case(NamedTuple):
    """One conversation, after EHLO unless `hello` is False.

    `talk`: what is written in one piece, text as a line with CRLF and octets as they are, and what is answered:
    codes with blanks between them, `501` or `501/5.5.4`.
    """

    rows: str
    name: str
    talk: Sequence[tuple[str | bytes, str]]
    end: str = OPEN
    taken: Sequence[Taken] = ()
    toml: str = STRANGER
    hello: bool = True


def table(*cases: Case) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run a test with every case over every kind of connection."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        return over_every_wire(pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])(function))

    return mark


def octets(written: str | bytes) -> bytes:
    """What is written: a line of text gets its CRLF."""
    return written if isinstance(written, bytes) else written.encode("utf-8", "surrogateescape") + b"\r\n"


def check(answer: Answer) -> Answer:
    """A reply as RFC 5321 section 4.2 and RFC 2034 section 4 have it."""
    hello = _HELLO.match(answer.lines[0])
    for line in answer.lines:
        assert int(line[:3]) == answer.code, answer  # S02: one code on every line
        assert len(line.encode()) <= 510, answer  # S03
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", line), answer
        if not hello and answer.code // 100 != 3:
            enhanced = _ENHANCED.match(line, 4)  # X13
            assert enhanced is not None and enhanced[1] == str(answer.code // 100), answer
    assert all(line[3] == "-" for line in answer.lines[:-1]) and answer.lines[-1][3:4] == " ", answer
    return answer


async def expect(client: Client, wanted: str) -> list[Answer]:
    """Read as many replies as `wanted` names, and compare them."""
    answers = []
    for word in wanted.split():
        answer = check(await client.reply())
        answers.append(answer)
        code, _, enhanced = word.partition("/")
        assert str(answer.code) == code, f"{answer} is not {word}; {wanted}"
        assert answer.lines[-1][4:].startswith(enhanced and enhanced + " "), f"{answer} is not {word}"
    return answers


def content(one: Relay, index: int) -> bytes:
    """The octets of a queued message below our Received field, from memory or from its spool file."""
    message = one.queue.messages[index]
    if message.body is not None:
        return without_trace(message.body)
    spooled = [each.body is None for each in one.queue.messages[:index]].count(True)
    kept = [spool for spool in one.queue.spools if not spool.abandoned]
    return without_trace(kept[spooled].octets)


def check_queue(one: Relay, taken: Sequence[Taken]) -> None:
    """The queue holds these messages and no other."""
    found = [
        Taken(content(one, n), " ".join(r.address for r in message.recipients), message.envelope.sender)
        for n, message in enumerate(one.queue.messages)
    ]
    assert found == list(taken)


async def in_step(one: Relay, client: Client, taken: Sequence[Taken] = ()) -> None:
    """A session that answers what it is asked, in order, and takes a message as it is."""
    last = Taken(b"Subject: in step\r\n\r\n.\r\n", "last@ours.example", "")
    await client.send(b"EHLO last.test\r\n")
    [answer] = await expect(client, "250")
    assert answer.lines[0] == f"250-{HOST}" and "250-PIPELINING" in answer.lines
    await client.send(b"MAIL FROM:<>\r\nRCPT TO:<last@ours.example>\r\nDATA\r\n")
    await expect(client, "250/2.1.0 250/2.1.5 354")
    await client.send(b"Subject: in step\r\n\r\n..\r\n.\r\nNOOP\r\n")
    await expect(client, "250/2.0.0 250/2.0.0")
    check_queue(one, [*taken, last])
    await client.send(b"QUIT\r\n")
    await expect(client, "221/2.0.0")
    assert await client.closed() == b""


async def hold(relay: Start, case: Case, timeouts: Timeouts | None = None) -> Relay:
    """Have a case's conversation and look at what is left of it."""
    one = await relay(case.toml, timeouts)
    async with await one.client() as client:
        if one.wire != "starttls":
            check(client.greeting)
        if case.hello:
            await client.send(b"EHLO client.test\r\n")
            await expect(client, "250")
        for written, wanted in case.talk:
            await client.send(octets(written))
            await expect(client, wanted)
        if case.end == CLOSED:
            assert await client.closed() == b""
            check_queue(one, case.taken)
        else:
            await in_step(one, client, case.taken)
    return one


def message(*lines: str | bytes) -> bytes:
    """Lines as they are written after DATA, with the dot at their end; a case that needs other octets writes them."""
    return b"".join(octets(line) for line in lines) + b".\r\n"


BODY = message("Subject: x", "", "x")
KEPT = Taken(b"Subject: x\r\n\r\nx\r\n")

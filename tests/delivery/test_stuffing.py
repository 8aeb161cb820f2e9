"""Dots: what arrives, unstuffed, is what was sent (RFC 5321 section 4.5.2), wherever the pieces are cut."""

import asyncio
import itertools
from collections.abc import AsyncIterator

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailtui.clock import ManualClock
from mailtui.delivery.client import Session
from mailtui.delivery.watchdog import Watchdog
from tests.delivery.test_replies import queue_of, wire


def stuffed(message: bytes) -> bytes:
    """The naive reference: line by line, with the final dot."""
    lines = message.split(b"\r\n")
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def session() -> Session:
    clock = ManualClock()
    session = Session(clock, Watchdog(clock), "relay.test")
    session._queue = queue_of(clock)
    return session


def sent(session: Session) -> bytes:
    assert session._queue is not None
    return wire(session._queue).written


async def stream(message: bytes, cuts: list[int]) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        edges = [0, *sorted({cut % (len(message) + 1) for cut in cuts}), len(message)]
        for begin, end in itertools.pairwise(edges):
            if begin < end:
                yield message[begin:end]

    one = session()
    assert await one.stream(pieces()) == len(message)
    return sent(one)


# Mostly the octets that matter.
messages = st.lists(st.sampled_from([b"\r\n", b".", b"\r\n.", b"x", b"..", b"\r\n.\r\n", b"\xff", b"\r\n\r\n"])).map(
    b"".join
)


@settings(max_examples=300)
@given(message=messages, cuts=st.lists(st.integers(0, 200), max_size=12))
@example(message=b"a\r\n.b\r\n", cuts=[1, 2, 3])
@example(message=b".\r\n.", cuts=[1, 2, 3])
@example(message=b"\r\n.\r\n.\r\n", cuts=[2])
def test_a_streamed_message_is_stuffed_wherever_it_is_cut(message: bytes, cuts: list[int]) -> None:
    assert asyncio.run(stream(b"H: x\r\n" + message, cuts)) == stuffed(b"H: x\r\n" + message)


@given(message=messages)
def test_a_message_in_memory_is_stuffed_the_same(message: bytes) -> None:
    async def send() -> bytes:
        one = session()
        one.send_body(b"H: x\r\n" + message)
        return sent(one)

    assert asyncio.run(send()) == stuffed(b"H: x\r\n" + message)


def test_a_message_that_begins_with_a_dot_is_stuffed_there_too() -> None:
    assert asyncio.run(stream(b".first\r\n", [1])) == b"..first\r\n.\r\n"


def test_a_last_line_without_end_gets_one_and_no_line_is_added() -> None:
    assert asyncio.run(stream(b"H: x\r\n\r\nlast", [])) == b"H: x\r\n\r\nlast\r\n.\r\n"
    assert asyncio.run(stream(b"H: x\r\n\r\nlast\r\n", [])) == b"H: x\r\n\r\nlast\r\n.\r\n"

"""The reply queue: a reply is complete or it is none, and it belongs to the command that it answers."""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailtui.clock import ManualClock
from mailtui.delivery.replies import MAX_REPLIES, MAX_REPLY, MAX_TRANSCRIPT, ReplyQueue, SessionLost
from mailtui.model import Reply
from tests.delivery.conftest import Bench, turns
from tests.support.nexthop import NextHop, Pieces


class Wire(asyncio.Transport):
    """The transport of a queue that the test feeds."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


@pytest.fixture
async def queue(clock: ManualClock) -> AsyncIterator[ReplyQueue]:
    yield queue_of(clock)


def queue_of(clock: ManualClock) -> ReplyQueue:
    queue = ReplyQueue(asyncio.get_event_loop(), clock)
    queue.connection_made(Wire())
    return queue


def wire(queue: ReplyQueue) -> Wire:
    assert isinstance(queue.transport, Wire)
    return queue.transport


DIALOGUE = (
    b"220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n250 SIZE 1000\r\n250 2.1.0 ok\n550 5.1.1 no\r\n250\r\n"
    b"354-go\r\n354 on\r\n421 4.7.0 caf\xc3\xa9 \xff\r\n"
)
REPLIES = [
    Reply(220, "", "mx.test ESMTP"),
    Reply(250, "", "mx.test PIPELINING SIZE 1000"),
    Reply(250, "2.1.0", "ok"),
    Reply(550, "5.1.1", "no"),
    Reply(250, "", ""),
    Reply(354, "", "go on"),
    Reply(421, "4.7.0", "café �"),
]


@settings(max_examples=200)
@given(cuts=st.lists(st.integers(0, len(DIALOGUE)), max_size=30))
def test_replies_are_the_same_in_any_segmentation(cuts: list[int]) -> None:
    async def feed() -> list[Reply]:
        queue = queue_of(ManualClock())
        edges = [0, *sorted(cuts), len(DIALOGUE)]
        for begin, end in itertools.pairwise(edges):
            queue.data_received(DIALOGUE[begin:end])
        return [await queue.reply(1.0, "a reply") for _ in REPLIES]

    assert asyncio.run(feed()) == REPLIES


async def test_a_reply_that_is_not_complete_is_not_read(queue: ReplyQueue) -> None:
    waiting = asyncio.create_task(queue.reply(300.0, "a reply"))
    for piece in (b"25", b"0-one\r\n", b"250 two\r"):
        queue.data_received(piece)
        await turns(3)
        assert not waiting.done()
    queue.data_received(b"\n")
    assert await waiting == Reply(250, "", "one two")


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"25 ok\r\n", b"150 preliminary\r\n", b"650 what\r\n",
        b"250 a\rb\r\n", b"\x16\x03\x01\x00\x05\n", b"250-ok\r\nhello\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_smtp_ends_the_session(queue: ReplyQueue, garbage: bytes) -> None:
    queue.data_received(garbage)
    assert wire(queue).aborted
    with pytest.raises(SessionLost, match="not SMTP"):
        await queue.reply(300.0, "a reply")


async def test_replies_before_garbage_still_count(queue: ReplyQueue) -> None:
    queue.data_received(b"250 ok\r\nrubbish\r\n")
    assert (await queue.reply(300.0, "a reply")).code == 250
    with pytest.raises(SessionLost):
        await queue.reply(300.0, "the next")


async def test_a_reply_without_end_is_cut_off(queue: ReplyQueue) -> None:
    queue.data_received(b"250-" + b"x" * (MAX_REPLY + 1))
    assert wire(queue).aborted


async def test_a_reply_of_endless_lines_is_cut_off(queue: ReplyQueue) -> None:
    for _ in range(MAX_REPLIES + 1):
        queue.data_received(b"250-x\r\n")
    assert wire(queue).aborted


async def test_a_flood_of_replies_is_cut_off(queue: ReplyQueue) -> None:
    queue.data_received(b"250 x\r\n" * (MAX_REPLIES + 1))
    assert wire(queue).aborted


async def test_a_reply_that_nobody_asked_for_is_never_taken_for_the_answer_to_the_next_command(
    queue: ReplyQueue,
) -> None:
    queue.data_received(b"250 2.0.0 injected\r\n")
    with pytest.raises(SessionLost) as lost:
        queue.write(b"MAIL FROM:<a@b.test>\r\n")
    assert lost.value.reply is None  # it answers nothing
    assert "unasked reply: 250 2.0.0 injected" in lost.value.text
    assert wire(queue).written == b""
    assert wire(queue).aborted


async def test_nothing_is_written_to_a_session_that_is_over(queue: ReplyQueue) -> None:
    queue.eof_received()
    with pytest.raises(SessionLost, match="closed"):
        queue.write(b"NOOP\r\n")


async def test_a_transport_that_is_closing_already_is_a_lost_session(queue: ReplyQueue) -> None:
    wire(queue).aborted = True  # as after a write that failed: connection_lost follows in the next turn of the loop
    with pytest.raises(SessionLost):
        queue.write(b"NOOP\r\n")


async def test_the_end_of_the_connection_ends_the_wait(queue: ReplyQueue) -> None:
    waiting = asyncio.create_task(queue.reply(300.0, "a reply"))
    await turns(3)
    queue.connection_lost(ConnectionResetError("reset"))
    with pytest.raises(SessionLost, match="reset"):
        await waiting


async def test_a_deadline_stands_only_while_something_is_waited_for(queue: ReplyQueue, clock: ManualClock) -> None:
    assert queue.deadline == math.inf
    waiting = asyncio.create_task(queue.reply(300.0, "the reply to MAIL"))
    await turns(3)
    assert queue.deadline == clock.monotonic() + 300
    queue.data_received(b"250 ok\r\n")
    await waiting
    assert queue.deadline == math.inf
    queue.overdue()
    with pytest.raises(SessionLost, match="timed out"):
        await queue.reply(1.0, "anything")


async def test_the_transcript_is_bounded(queue: ReplyQueue) -> None:
    for _ in range(2 * MAX_TRANSCRIPT):
        queue.data_received(b"250 x\r\n")
    assert len(queue.transcript) == MAX_TRANSCRIPT


async def test_early_words_end_the_wait_for_a_peer_that_takes_no_more(queue: ReplyQueue) -> None:
    queue.pause_writing()
    waiting = asyncio.create_task(queue.drained(180.0))
    await turns(3)
    assert not waiting.done()
    queue.data_received(b"552 5.3.4 too big\r\n")
    await turns(3)
    assert waiting.done()
    await waiting


async def test_a_session_over_a_real_server_in_pieces(bench: Bench, hop: NextHop) -> None:
    hop.greeting = [Pieces(b"2", b"20-mx\r", b"\n220 ES", b"MTP\r\n")]
    hop.ehlo = [Pieces(b"250-mx\r\n250-PIPE", b"LINING\r\n250 8BITMIME\r\n")]
    session = await bench.session(hop)
    assert set(session.extensions) == {"pipelining", "8bitmime"}
    assert session.open


async def test_words_between_two_transactions_close_the_session(bench: Bench, hop: NextHop) -> None:
    hop.dot = [b"250 2.0.0 ok\r\n421 4.4.2 idle\r\n"]
    session = await bench.session(hop)
    await bench.transact(session)
    await turns()
    assert not session.open

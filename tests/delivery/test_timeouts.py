"""A next hop that stops answering is given up after the time of RFC 5321 section 4.5.3.2, by the relay's clock."""

import asyncio
import math
import socket
from collections.abc import Callable

import pytest

from mailtui.delivery.attempt import Ended
from mailtui.delivery.replies import ReplyQueue
from mailtui.model import Outcome, PlannedHost
from tests.delivery.conftest import Bench, turns
from tests.support.nexthop import HANG, Answer, NextHop


class Hang:
    """A step that says that it was reached, and then never answers."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self, line: str) -> Answer:
        self.reached.set()
        return HANG


async def given_up_after(bench: Bench, attempt: "asyncio.Task[Ended]", limit: float) -> Ended:
    """The end of the attempt, which comes when `limit` seconds have passed and not a second earlier."""
    await turns()
    bench.clock.advance(limit - 1)
    await turns()
    assert not attempt.done()
    bench.clock.advance(1)
    return await asyncio.wait_for(attempt, 5)


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "one by one"])
@pytest.mark.parametrize(
    ("step", "limit", "said"),
    [
        ("greeting", 300, "the greeting"),
        ("ehlo", 300, "an answer"),
        ("mail", 300, "the reply to MAIL"),
        ("rcpt", 300, "the reply to RCPT"),
        ("data", 120, "the reply to DATA"),
        ("dot", 600, "the reply to the message"),
    ],
)
async def test_each_phase_has_its_limit(
    bench: Bench, hop: NextHop, step: str, limit: float, said: str, pipelining: bool
) -> None:
    if not pipelining:
        hop.keywords = []
    hang = Hang()
    setattr(hop, step, hang)
    attempt = asyncio.create_task(bench.attempt(bench.work(hop)))
    await asyncio.wait_for(hang.reached.wait(), 5)
    ended = await given_up_after(bench, attempt, limit)
    [(_, verdict, _)] = ended.results
    assert verdict.outcome is Outcome.DEFERRED
    assert f"timed out waiting for {said}" in verdict.reply
    assert (ended.down is not None) == (step in ("greeting", "ehlo"))
    assert ("may arrive twice" in verdict.reply) == (step == "dot")
    assert ended.session is None


async def test_the_next_host_is_tried_after_one_that_hangs_at_the_greeting(bench: Bench, hop: NextHop) -> None:
    async with NextHop() as slow:
        hang = Hang()
        slow.greeting = hang
        attempt = asyncio.create_task(bench.attempt(bench.work(slow, hop)))
        await asyncio.wait_for(hang.reached.wait(), 5)
        ended = await given_up_after(bench, attempt, 300)
    assert ended.results[0][1].outcome is Outcome.DELIVERED


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0)

    await asyncio.wait_for(poll(), 5)


async def full(sock: socket.socket) -> socket.socket:
    """A listening socket whose queue is full: the kernel answers no further connection."""
    sock.bind(("127.0.0.1", 0))
    sock.listen(0)
    filler = socket.socket()
    filler.connect(sock.getsockname())
    return filler


async def test_a_connection_has_the_limit_that_is_set(bench: Bench) -> None:
    with socket.socket() as sock, await full(sock):
        work = bench.work(PlannedHost(10, "mx.test", ("127.0.0.1",), sock.getsockname()[1]))
        attempt = asyncio.create_task(bench.attempt(work))
        await until(lambda: bool(bench.watchdog.watched))
        ended = await given_up_after(bench, attempt, 30)
    [(_, verdict, _)] = ended.results
    assert verdict.reply.endswith("timed out after 30 s")
    assert verdict.enhanced == "4.4.1"
    assert ended.down is not None
    assert not bench.watchdog.watched


async def test_the_next_address_is_tried_after_one_that_does_not_answer(bench: Bench) -> None:
    with socket.socket() as sock, await full(sock):
        port = sock.getsockname()[1]
        async with NextHop(host="127.0.0.2", port=port):
            work = bench.work(PlannedHost(10, "mx.test", ("127.0.0.1", "127.0.0.2"), port))
            attempt = asyncio.create_task(bench.attempt(work))
            await until(lambda: bool(bench.watchdog.watched))
            ended = await given_up_after(bench, attempt, 30)
    assert ended.results[0][1].outcome is Outcome.DELIVERED


async def test_a_cancelled_attempt_is_cancelled_and_leaves_nothing_watched(bench: Bench) -> None:
    with socket.socket() as sock, await full(sock):
        work = bench.work(PlannedHost(10, "mx.test", ("127.0.0.1",), sock.getsockname()[1]))
        attempt: asyncio.Task[Ended] = asyncio.create_task(bench.attempt(work))
        await until(lambda: bool(bench.watchdog.watched))
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
    assert not bench.watchdog.watched


async def test_a_block_of_the_message_that_is_not_taken_has_its_limit(bench: Bench) -> None:
    bench.spooled[7] = [(b"x" * 254 + b"\r\n") * 1000] * 100  # more than the kernel's buffers
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the envelope, and then no octet of the message."""
        writers.append(writer)
        writer.write(b"220 mx\r\n")
        for answer in (b"250 mx\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            await reader.readuntil(b"\r\n")
            writer.write(answer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    try:
        port = server.sockets[0].getsockname()[1]
        work = bench.work(PlannedHost(10, "mx.test", ("127.0.0.1",), port), message=bench.message(body=None))
        attempt = asyncio.create_task(bench.attempt(work))
        await until(lambda: any(waits_for_the_peer(each) for each in bench.watchdog.watched))
        ended = await given_up_after(bench, attempt, 180)
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await turns(3)
    [(_, verdict, _)] = ended.results
    assert verdict.outcome is Outcome.DEFERRED
    assert "timed out waiting for the message to be taken" in verdict.reply
    assert "may arrive twice" not in verdict.reply


def waits_for_the_peer(waiting: object) -> bool:
    return isinstance(waiting, ReplyQueue) and waiting._paused and waiting.deadline < math.inf

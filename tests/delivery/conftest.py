"""What an attempt needs: a clock that the test sets, a watchdog on it, and plans that lead to the tests' next hops."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from mailtui.clock import ManualClock
from mailtui.delivery.attempt import Ended, Sender, Work, attempt
from mailtui.delivery.client import Session
from mailtui.delivery.transaction import Result, transact
from mailtui.delivery.watchdog import Watchdog
from mailtui.model import Envelope, Message, Outcome, Plan, PlannedHost, Recipient, TlsPolicy
from tests.support.nexthop import NextHop

NO_TLS = TlsPolicy("none", "test", "the test says so")

BODY = b"Received: from here\r\nSubject: x\r\n\r\n.dots\r\n..two\r\nend\r\n"


async def turns(count: int = 30) -> None:
    """Let everything run that can run without waiting for the network."""
    for _ in range(count):
        await asyncio.sleep(0)


def host(hop: NextHop, preference: int = 10, name: str = "") -> PlannedHost:
    return PlannedHost(preference, name or f"mx{hop.port}.test", (hop.host,), hop.port)


class Bench:
    """Makes work and does it. `spooled`: the pieces of messages that have no body in memory, by id."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.watchdog = Watchdog(clock)
        self.spooled: dict[int, list[bytes]] = {}
        self.sessions: list[Session] = []
        self.sender = Sender(
            clock=clock,
            watchdog=self.watchdog,
            rng=random.Random(1),
            hostname="relay.test",
            source_ipv4="",
            source_ipv6="",
            connect_timeout=30.0,
            tls_default="auto",
            pieces=self.pieces,
        )

    def pieces(self, number: int) -> Iterator[bytes]:
        if number not in self.spooled:
            raise FileNotFoundError(2, "No such file", "spool")
        yield from self.spooled[number]

    def message(
        self, to: Sequence[str] = ("b@dest.test",), *, body: bytes | None = BODY, eight_bit: bool = False,
        sender: str = "a@sender.test",
    ) -> Message:  # fmt: skip
        envelope = Envelope(sender, self.clock.now(), size=len(body or b""), eight_bit=eight_bit)
        recipients = [
            Recipient(number, address, address.rpartition("@")[2], expires=self.clock.now() + 432000)
            for number, address in enumerate(to, 1)
        ]
        return Message(7, envelope, recipients, body)

    def work(self, *hosts: NextHop | PlannedHost, message: Message | None = None) -> Work:
        """Work for these hosts, in this order of preference."""
        message = message or self.message()
        planned = [h if isinstance(h, PlannedHost) else host(h, 10 * n) for n, h in enumerate(hosts, 1)]
        plan = Plan("dest.test", "site", "deliver", "mx", tuple(planned))
        return Work(message, message.recipients, plan)

    async def session(self, hop: NextHop) -> Session:
        session = Session(self.clock, self.watchdog, "relay.test")
        self.sessions.append(session)
        await session.connect(host(hop, name="mx.test"), hop.host, NO_TLS, self.sender.contexts, limit=30.0)
        return session

    async def transact(self, session: Session, message: Message | None = None) -> Result:
        message = message or self.message()
        return await transact(session, message, message.recipients, self.pieces)

    async def attempt(self, work: Work, session: Session | None = None) -> Ended:
        ended = await attempt(self.sender, work, session)
        if ended.session is not None:
            self.sessions.append(ended.session)
        return ended


def outcomes(ended: Ended) -> list[tuple[Outcome, int, str]]:
    """(outcome, code, enhanced) of each recipient."""
    return [(verdict.outcome, verdict.code, verdict.enhanced) for _, verdict, _ in ended.results]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def bench(clock: ManualClock) -> AsyncIterator[Bench]:
    bench = Bench(clock)
    watching = asyncio.create_task(bench.watchdog.run())
    yield bench
    watching.cancel()
    for session in bench.sessions:
        session.close()
    await turns(3)


@pytest.fixture
async def hop() -> AsyncIterator[NextHop]:
    async with NextHop() as hop:
        yield hop

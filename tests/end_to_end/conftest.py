"""A whole relay in the test's process: real sockets, a real queue on disk, and a clock that the test sets."""

import asyncio
import io
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from mailtui import ids
from mailtui.clock import ManualClock
from mailtui.config import parse
from mailtui.control import views
from mailtui.events import Events
from mailtui.queue import query
from mailtui.relay import Relay
from tests.support.client import Answer, Client, send
from tests.support.nexthop import NextHop

# No wait of these tests is for time to pass; this ends a test that waits for what never comes.
PATIENCE = 10.0

BASE = """
hostname = "relay.test"
[[listener]]
address = "127.0.0.1:0"
[mail]
postmaster = "{postmaster}"
[limits]
free_disk = "1M"
"""

MESSAGE = b"Subject: hello\r\nMessage-ID: <1@sender.test>\r\n\r\n.dots\r\n..two\r\nend\r\n"

Document = dict[str, Any]


class Told(Events):
    """Events that wake whoever waits for one."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, io.StringIO())
        self.counts: dict[str, int] = {}
        self.waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def emit(self, event: str, **fields: Any) -> None:
        super().emit(event, **fields)
        self.counts[event] = self.counts.get(event, 0) + 1
        for condition, future in self.waiters:
            if not future.done() and condition():
                future.set_result(None)

    async def reached(self, event: str, count: int) -> None:
        """Wait until an event was told `count` times."""

        def condition() -> bool:
            return self.counts.get(event, 0) >= count

        if not condition():
            waiter = (condition, asyncio.get_running_loop().create_future())
            self.waiters.append(waiter)
            try:
                await asyncio.wait_for(waiter[1], PATIENCE)
            except TimeoutError:
                raise AssertionError(f"no {event} number {count}; there were {self.counts}") from None
            finally:
                self.waiters.remove(waiter)


class Live:
    """A relay and what a test wants of it. Times are those of `clock`."""

    def __init__(self, clock: ManualClock, state: Path, config: str, paused: bool, postmaster: str) -> None:
        self.clock = clock
        self.state = state
        self.events = Told(clock)
        self.clients: list[Client] = []  # those that are closed before the relay stops
        settings = parse(BASE.format(postmaster=postmaster) + config)
        self.relay = Relay(settings, state, clock=clock, events=self.events, paused=paused, rng=random.Random(7))

    async def __aenter__(self) -> Self:
        await self.relay.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:  # a stop waits for those who were told 421 and do not hang up
            await client.close()
        await self.relay.stop(0.0)

    @property
    def port(self) -> int:
        return int(self.relay.listeners()[0]["address"].rpartition(":")[2])

    # -- mail in -----------------------------------------------------------------------------------------------------

    async def send(
        self, to: str | Sequence[str] = "bob@dest.test", sender: str = "ann@sender.test", content: bytes = MESSAGE,
        options: Sequence[str] = (),
    ) -> str:  # fmt: skip
        """Hand in a message; its queue id."""
        reply = await send(self.port, sender, to, content, mail_options=options)
        return reply.decode().rpartition(" ")[2]

    async def send_many(self, to: Sequence[str], sender: str = "ann@sender.test", source: str = "127.0.0.1") -> None:
        """Hand in a message for each of these, over a few connections at once."""

        async def some(addresses: Sequence[str]) -> None:
            async with await Client.connect(self.port, source=source) as client:
                await client.command("EHLO client.test")
                for address in addresses:
                    await client.send(
                        f"MAIL FROM:<{sender}>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode(),
                    )
                    answers = [await client.reply() for _ in range(3)]
                    assert [each.code for each in answers] == [250, 250, 354], answers
                    await client.send(f"Subject: to {address}\r\n\r\nx\r\n.\r\n".encode())
                    assert (await client.reply()).code == 250

        await asyncio.gather(*(some(to[start::20]) for start in range(min(20, len(to)))))

    async def client(self) -> Client:
        """A connection after EHLO."""
        client = await Client.connect(self.port)
        self.clients.append(client)
        await client.command("EHLO client.test")
        return client

    async def transaction(self, client: Client, to: str = "bob@dest.test") -> Answer:
        """MAIL, RCPT and DATA; the reply to DATA."""
        await client.command("MAIL FROM:<ann@sender.test>")
        await client.command(f"RCPT TO:<{to}>")
        return await client.command("DATA")

    # -- time --------------------------------------------------------------------------------------------------------

    async def told(self, event: str, count: int = 1) -> None:
        """Wait for the `count`th event of this kind, and until what it tells is on disk."""
        await self.events.reached(event, count)
        await self.quiet()

    async def quiet(self) -> None:
        """Until nothing is under way but what waits for a next hop, a name server, a client or the clock."""
        for _ in range(6):
            for _ in range(10):
                await asyncio.sleep(0)
            await asyncio.wait_for(self.relay.store.writer.call(lambda tx: None), PATIENCE)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.quiet()

    # -- what an operator sees ---------------------------------------------------------------------------------------

    async def rows(self, text: str = "") -> list[Document]:
        """`queue list`, oldest first."""
        asked = query.parse([text] if text else [], self.clock.now())
        claimed, active = self.relay.claimed(), self.relay.active()
        found = await self.relay.read(
            lambda reader: reader.list(asked, limit=10_000, claimed=claimed, active=active, reverse=True)
        )
        return [views.row(row) for row in found]

    async def row(self, rid: str) -> Document:
        [row] = await self.rows(rid)
        return row

    async def why(self, rid: str) -> Document:
        """`queue why` of one recipient."""
        asked = query.parse([rid], self.clock.now())
        claimed, active = self.relay.claimed(), self.relay.active()
        [row] = await self.relay.read(lambda reader: reader.list(asked, claimed=claimed, active=active))
        return views.why(row, self.relay.why(row))

    async def history(self, text: str = "") -> list[Document]:
        """`history`, oldest first."""
        asked = query.parse([text] if text else [], self.clock.now())
        found = await self.relay.read(lambda reader: reader.history(asked, limit=10_000))
        return [views.history(row) for row in reversed(found)]

    async def attempts(self, rid: str) -> list[Document]:
        number, ordinal = ids.parse(rid)
        found = await self.relay.read(lambda reader: reader.attempts(number))
        return [views.attempt(one, transcript=True) for one in found if ordinal in (None, one.ordinal)]

    async def count(self, text: str = "") -> int:
        """`queue count`: recipients."""
        asked = query.parse([text] if text else [], self.clock.now())
        claimed, active = self.relay.claimed(), self.relay.active()
        return (await self.relay.read(lambda reader: reader.count(asked, claimed, active))).recipients

    def spool_files(self) -> list[str]:
        return sorted(entry.name for entry in (self.state / "spool").iterdir())


def stored(message: bytes) -> tuple[bytes, bytes]:
    """A message that a next hop got: our Received field, and what stands below it."""
    lines = message.split(b"\r\n")
    end = 1
    while lines[end].startswith((b" ", b"\t")):
        end += 1
    return b"\r\n".join(lines[:end]), b"\r\n".join(lines[end:])


def smarthost(hop: NextHop) -> str:
    return f'[delivery]\nsmarthost = "smtp://[{hop.host}]:{hop.port}"\n'


Start = Callable[..., Live]


@pytest.fixture
def state() -> Iterator[Path]:
    # A short name: the path of a Unix socket has at most 107 octets.
    path = Path(tempfile.mkdtemp(prefix="mailtui-test-"))
    yield path / "state"
    shutil.rmtree(path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def relay_of(clock: ManualClock, state: Path) -> Start:
    """Makes a relay on the test's state directory: `async with relay_of(config) as relay`."""

    def start(
        config: str = "", *, paused: bool = False, at: Path | None = None, postmaster: str = "postmaster@ours.test"
    ) -> Live:
        return Live(clock, at or state, config, paused, postmaster)

    return start


@pytest.fixture
async def hop() -> AsyncIterator[NextHop]:
    async with NextHop() as hop:
        yield hop


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """A running relay that sends everything to `hop`."""
    async with relay_of(smarthost(hop)) as relay:
        yield relay

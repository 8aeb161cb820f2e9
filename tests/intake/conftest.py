"""An intake on a loopback port, with a queue that keeps messages in memory.

A test that also has to hold over TLS is marked `@over_every_wire`: it is run over plain TCP, over STARTTLS, and over
TLS from the first octet. Then every listener of `relay(...)` is of that kind, and `relay.client()`, `relay.session()`
and `relay.in_data()` give clients behind their handshake. A test that needs TLS of its own asks for `tls_files` and
writes `listener("starttls", tls_files)`.
"""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from mailtui import config
from mailtui.clock import ManualClock
from mailtui.events import Events
from mailtui.ids import IdSource
from mailtui.intake.listener import Intake
from mailtui.intake.terms import Timeouts
from mailtui.model import Message, SmtpError
from tests.support.certificates import Files, client_context, issue
from tests.support.client import Client

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

TOML = """
hostname = "relay.example.org"
[[listener]]
name = "mx"
address = "127.0.0.1:0"
"""

WIRES = ("plain", "starttls", "implicit")
over_every_wire = pytest.mark.parametrize("wire", WIRES, indirect=True)

# A stranger among clients: everything on loopback is a client of this machine, so `networks` is set to none.
STRANGER = TOML + '[access]\nnetworks = []\nlocal_domains = ["ours.example"]\nrecipients = "any"\n'


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, LoopFactory]:
    """Every test of intake runs on both loops: the relay uses uvloop where it is installed."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Spool:
    """A spool file in memory."""

    def __init__(self) -> None:
        self.octets = b""
        self.abandoned = False
        self.pieces: list[int] = []

    def write(self, data: bytes) -> None:
        self.octets += data
        self.pieces.append(len(data))

    def abandon(self) -> None:
        self.abandoned = True


@dataclass
class FakeQueue:
    """Keeps messages; `hold` lets their commits wait, `error` lets them fail."""

    clock: ManualClock
    messages: list[Message] = field(default_factory=list)
    spools: list[Spool] = field(default_factory=list)
    refusals: list[dict[str, Any]] = field(default_factory=list)
    commits: list[asyncio.Future[None]] = field(default_factory=list)
    waiting: int = 0
    hold: bool = False
    error: Exception | None = None
    spool_error: OSError | None = None
    full: SmtpError | None = None

    def __post_init__(self) -> None:
        self.ids = IdSource()

    def next_id(self) -> int:
        return self.ids.next(self.clock.now())

    def refusal(self) -> SmtpError | None:
        return self.full

    def open_spool(self, number: int) -> Spool:
        if self.spool_error is not None:
            raise self.spool_error
        self.spools.append(Spool())
        return self.spools[-1]

    def accept(self, message: Message, spool: Any = None) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
            return future
        self.messages.append(message)
        if self.hold:
            self.commits.append(future)
        else:
            future.set_result(None)
        return future

    def refused(self, **fields: Any) -> None:
        self.refusals.append(fields)

    def body(self, index: int = -1) -> bytes:
        """The stored octets of a message without our Received field."""
        body = self.messages[index].body
        assert body is not None
        return without_trace(body)


def without_trace(body: bytes) -> bytes:
    """What stands below our Received field."""
    assert body.startswith(b"Received: ")
    end = body.index(b"\r\n")
    while body[end + 2 : end + 3] == b"\t":
        end = body.index(b"\r\n", end + 2)
    return body[end + 2 :]


async def until(condition: Callable[[], object]) -> None:
    """Return when `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is looked at has no event
            await asyncio.sleep(0.001)


@dataclass
class Relay:
    """An intake that runs, and what a test looks at."""

    intake: Intake
    queue: FakeQueue
    clock: ManualClock
    events: Events
    wire: str = "plain"

    @property
    def port(self) -> int:
        return self.intake.addresses()[0][1]

    async def client(self, **options: Any) -> Client:
        """A client that has read the greeting, and over STARTTLS also made its handshake."""
        if self.wire == "implicit":
            options.setdefault("tls", client_context(verify=False))
        client = await Client.connect(self.port, **options)
        if self.wire == "starttls":
            assert (await client.command("STARTTLS")).code == 220
            await client.start_tls(client_context(verify=False))
        return client

    async def session(self, helo: str = "EHLO client.test") -> Client:
        """A client that has said EHLO."""
        client = await self.client()
        assert (await client.command(helo)).code == 250
        return client

    async def in_data(self, sender: str = "a@b.example", recipient: str = "c@d.example") -> Client:
        """A client that has been answered 354."""
        client = await self.session()
        assert (await client.command(f"MAIL FROM:<{sender}>")).code == 250
        assert (await client.command(f"RCPT TO:<{recipient}>")).code == 250
        assert (await client.command("DATA")).code == 354
        return client

    def told(self, event: str) -> list[dict[str, Any]]:
        return [record for record in self.events.recent if record["event"] == event]


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The certificate of relay.example.org and its key; not to be changed."""
    return issue(tmp_path_factory.mktemp("tls"), "relay.example.org")


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> str:
    """How clients are connected: see `over_every_wire`."""
    return getattr(request, "param", "plain")


def listener(tls: str, files: Files, toml: str = TOML) -> str:
    """A configuration whose listener has TLS."""
    address = 'address = "127.0.0.1:0"\n'
    assert address in toml
    return toml.replace(address, f'{address}tls = "{tls}"\n{files.toml}')


@pytest.fixture
async def relay(wire: str, tls_files: Files) -> AsyncIterator[Callable[..., Awaitable[Relay]]]:
    """A function that starts an intake; all are stopped at the end of the test."""
    running: list[Relay] = []

    async def start(toml: str = TOML, timeouts: Timeouts | None = None) -> Relay:
        clock = ManualClock()
        events = Events(clock, io.StringIO(), level="debug")
        queue = FakeQueue(clock)
        if wire != "plain":
            toml = listener(wire, tls_files, toml)
        intake = Intake(config.parse(toml), clock, events, queue, timeouts=timeouts or Timeouts(error_pause=0.0))
        await intake.start()
        running.append(Relay(intake, queue, clock, events, wire))
        return running[-1]

    yield start
    for each in running:
        for session in each.intake.sessions:
            session.abort()
        await each.intake.drain(5)
        assert not each.intake.sessions
        assert each.intake.budget.used == 0
        assert not each.told("error"), each.told("error")

"""Makes the pictures of this directory again: `.venv/bin/python -m screenshots.make`.

A real relay in this process takes harmless example mail, delivers some of it, and is told to wait for the rest; the
real console looks at it without a terminal and is drawn as SVG.
"""

import asyncio
import io
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support.client import send
from tests.support.nexthop import NextHop
from textual.pilot import Pilot

from mailtui.clock import SystemClock
from mailtui.config import parse
from mailtui.console.app import Console
from mailtui.console.link import Link
from mailtui.events import Events
from mailtui.relay import Relay

HERE = Path(__file__).parent
PATIENCE = 20.0

# (recipient, sender, subject, what the next hop says to it: "" is yes)
LETTERS = [
    ("ann@store.example", "shop@orders.example", "Your order 42 is on its way", ""),
    ("rita@bank.example", "billing@hosting.example", "Invoice 2041", ""),
    ("bob@slow.example", "news@lists.example", "Weekly letter", "451 4.7.1 greylisted, try again in five minutes"),
    ("carl@full.example", "family@home.example", "Holiday pictures", "452 4.2.2 mailbox full"),
    ("dora@busy.example", "billing@hosting.example", "Invoice 2042", "421 4.7.0 too many connections, slow down"),
    ("erik@slow.example", "news@lists.example", "Weekly letter", "451 4.7.1 greylisted, try again in five minutes"),
    ("fay@日本.example", "shop@orders.example", "ご注文の確認 (order 43)", "451 4.3.0 queue file write error"),
]
ROUNDS = 6

CONFIG = """
hostname = "relay1.example"
[[listener]]
address = "127.0.0.1:0"
[mail]
postmaster = "postmaster@relay1.example"
[limits]
free_disk = "1M"
"""

ROUTE = """
[[route]]
match = "{domain}"
target = "smtp://[{host}]:{port}"
"""

BODY = """Received: from app7.{domain} (app7.{domain} [192.0.2.7]) by out.{domain} with ESMTPS id A{number}; {before}
From: <{sender}>
To: <{recipient}>
Subject: {subject}
Message-ID: <{number}@{domain}>
Date: {date}
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Dear reader,

this is letter number {number}. There is nothing to do.

Yours,
{sender}
"""


def wire(address: str) -> str:
    """The domain of an address as it goes over the wire."""
    return address.rpartition("@")[2].encode("idna").decode()


@asynccontextmanager
async def hops() -> AsyncIterator[str]:
    """A next hop for every domain of the letters; the configuration of the relay that knows them."""
    config = CONFIG
    async with AsyncExitStack() as stack:
        for domain, reply in {wire(recipient): reply for recipient, _, _, reply in LETTERS}.items():
            hop = await stack.enter_async_context(NextHop(name=f"mx.{domain}"))
            hop.rcpt = reply or []
            config += ROUTE.format(domain=domain, host=hop.host, port=hop.port)
        yield config


async def feed(port: int) -> None:
    """The example mail."""
    for number in range(ROUNDS * len(LETTERS)):
        recipient, sender, subject, _ = LETTERS[number % len(LETTERS)]
        recipient = f"{recipient.partition('@')[0]}{number}@{wire(recipient)}"
        stamp, before = (time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(time.time() - ago)) for ago in (0, 7))
        sent_by = sender.rpartition("@")[2]
        text = BODY.format(
            sender=sender, recipient=recipient, subject=subject, number=2000 + number, date=stamp, before=before,
            domain=sent_by,
        )  # fmt: skip
        octets = text.replace("\n", "\r\n")
        await send(port, sender, recipient, octets, helo=f"out.{sent_by}", mail_options=["BODY=8BITMIME"])


class Camera:
    """The console at a size."""

    def __init__(self, app: Console, pilot: Pilot[str]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, *texts: str) -> None:
        """Wait until these stand on the screen, and for what is drawn a little later."""
        async with asyncio.timeout(PATIENCE):
            while not all(text in self.text for text in texts):
                await self.pilot.pause(0.05)
        await self.pilot.pause(0.5)

    @property
    def text(self) -> str:
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    def take(self, name: str) -> None:
        picture = self.app.export_screenshot(title="mailtui")
        (HERE / f"{name}.svg").write_text(picture, encoding="utf-8")


@asynccontextmanager
async def camera(socket: Path, size: tuple[int, int]) -> AsyncIterator[Camera]:
    app = Console(Link(socket))
    async with app.run_test(size=size) as pilot:
        camera = Camera(app, pilot)
        await camera.until("slow.example", "LAST REPLY", "LIVE")
        yield camera


async def small(camera: Camera) -> None:
    """The pictures of a terminal of 80 by 24."""
    await camera.pilot.pause(3.0)  # the rates and the latency come in their own time
    camera.take("overview-80x24")
    await camera.pilot.press("2")
    await camera.until("bob", "451 4.7.1")
    await camera.pilot.press("slash", *"from:news@lists.example", "enter")
    await camera.until("12 of")
    await camera.pilot.press("e")
    await camera.until("Enter writes", "all 12 that match")
    camera.take("export-dialog")
    await camera.pilot.press("escape")
    await camera.pilot.press("asterisk", "x")
    await camera.until("Dispose")
    await camera.pilot.press("b")
    await camera.until("type 12 and Enter", "Weekly letter")
    camera.take("bounce-dialog")


async def large(camera: Camera) -> None:
    """The pictures of a terminal of 160 by 48."""
    await camera.pilot.press("2")
    await camera.until("bob", "451 4.7.1")
    await camera.pilot.press("j")
    await camera.until("Limiter", "greylisted")
    camera.take("queue-160x48")
    await camera.pilot.press("enter")
    await camera.until("TRACE", "ATTEMPTS", "Dear reader")
    camera.take("message")


async def main() -> None:
    """All of them."""
    directory = Path(tempfile.mkdtemp(prefix="mailtui-pictures-"))
    try:
        async with hops() as config:
            clock = SystemClock()
            relay = Relay(parse(config), directory / "state", clock=clock, events=Events(clock, io.StringIO()))
            await relay.start()
            try:
                await feed(int(relay.listeners()[0]["address"].rpartition(":")[2]))
                async with camera(directory / "state" / "control.sock", (80, 24)) as taker:
                    await small(taker)
                async with camera(directory / "state" / "control.sock", (160, 48)) as taker:
                    await large(taker)
            finally:
                await relay.stop(0.0)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    asyncio.run(main())

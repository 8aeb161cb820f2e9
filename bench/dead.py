"""One dead domain with 100,000 due rows beside a healthy one: a fresh message for the healthy one leaves within 1 s."""

import asyncio
import time
from pathlib import Path

from bench import procs
from bench.load import Load
from bench.peers import Mailtui
from bench.procs import BenchError
from bench.sink import sinking
from mailtui.clock import SystemClock
from mailtui.model import Envelope, Message, Recipient
from mailtui.queue.store import Store

LIMIT = 1.0  # seconds from the client's first octet to the sink
ROUNDS, PAUSE = 10, 3.0

# Accepted together: large enough for long commit groups, small against memory.
CHUNK = 2000

CONFIG = """\
hostname = "relay.test"
[[listener]]
name = "default"
address = "127.0.0.1:{port}"
[[route]]
match = "dead.test"
target = "smtp://[127.0.0.1]:{closed}"
[[route]]
match = "ok.test"
target = "smtp://[127.0.0.1]:{sink}"
"""


async def fill(state: Path, rows: int, domain: str) -> None:
    """Put so many messages with one recipient, due now, into a new store: made by the store's own enqueue, parked."""
    clock = SystemClock()
    store = Store(state, clock)
    store.open()
    try:
        for start in range(0, rows, CHUNK):
            await asyncio.gather(
                *(store.accept(_message(store, clock.now(), number, domain)) for number in range(start, start + CHUNK))
            )
    finally:
        await store.close(clean=True)


def _message(store: Store, now: float, number: int, domain: str) -> Message:
    body = f"From: <s{number % 1000}@source.test>\r\nSubject: {number}\r\n\r\n".encode() + b"x" * 400 + b"\r\n"
    envelope = Envelope(f"s{number % 1000}@source.test", now, len(body), client="127.0.0.1", protocol="ESMTP")
    recipient = Recipient(1, f"r{number}@{domain}", domain, submitter="127.0.0.1", due=now, expires=now + 5 * 86400.0)
    return Message(store.next_id(), envelope, [recipient], body)


def prove(rows: int = 100_000) -> None:
    """Raises BenchError if a message takes longer than a second."""
    with procs.work_directory() as directory, sinking(directory) as sink:
        config = directory / "mailtui.toml"
        relay = Mailtui(directory, sink.port, config=config)
        config.write_text(CONFIG.format(port=relay.port, closed=procs.free_port(), sink=sink.port))
        began = time.monotonic()
        asyncio.run(fill(relay.state, rows, "dead.test"))
        print(f"dead: {rows} rows due for dead.test written in {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        relay.start()
        print(f"dead: serving {time.monotonic() - began:.2f} s after start", flush=True)
        took: list[float] = []
        try:
            for number in range(ROUNDS):
                load = Load(relay.port, f"dead{number}", connections=1, domain="ok.test", limit=1)
                began = time.monotonic()
                asyncio.run(load.run())
                if not load.accepted:
                    raise BenchError(f"dead: not accepted {load.refused}\n{procs.tail(relay.log)}")
                procs.wait_for(
                    lambda token=f"dead{number}-0": sink.has(token),  # type: ignore[misc]
                    30,
                    f"dead: message {number + 1} does not arrive",
                    pause=0.002,
                )
                took.append(sink.first[f"dead{number}-0"] - began)
                time.sleep(PAUSE)
            waiting = relay.queued()
            memory = procs.high_water(relay.pid)
        finally:
            relay.stop()
    print("dead: ms until a fresh message was at its next hop: " + " ".join(f"{1000 * each:.0f}" for each in took))
    print(f"dead: {waiting} messages still wait; the relay's memory was at most {memory / 2**20:.0f} MiB")
    if waiting != rows:
        raise BenchError(f"dead: {waiting} messages wait for the dead domain, {rows} should")
    if max(took) > LIMIT:
        raise BenchError(f"dead: a message for a healthy domain took {max(took):.2f} s")

"""50 clients with a message of 50 MB each, at once: every one arrives octet by octet, and little memory is used."""

import asyncio
import hashlib
import random
import sys
import time
from collections.abc import Iterator

from bench import procs
from bench.load import reply
from bench.peers import Mailtui
from bench.procs import BenchError

CLIENTS = 50
SIZE = 50_000_000  # octets of content: the shipped message_size is 50 MiB
MEMORY = 300 * 2**20
ARRIVE = 300.0  # seconds for all of them, from the last 250
BLOCK = 1 << 18


def content(number: int, size: int) -> Iterator[bytes]:
    """A message in blocks of whole lines, another one for each number: text, 8-bit octets, dots where they hurt."""
    rng = random.Random(number)
    head = f"From: from@source.test\r\nTo: big{number}@sink.test\r\nSubject: big\r\nX-Token: big{number}\r\n\r\n"
    yield head.encode()
    left = size - len(head)
    while left > 0:
        noise = rng.randbytes(BLOCK).replace(b"\r", b"r").replace(b"\n", b"n")
        lines = [noise[start : start + 900] for start in range(0, len(noise), 900)]
        lines[1], lines[2], lines[3] = b".", b"..", b"." * 900
        block = (b"\r\n".join(lines) + b"\r\n")[: max(left - 2, 0)].rstrip(b"\r\n") + b"\r\n"
        left -= len(block)
        yield block


async def _send(port: int, number: int, size: int) -> str:
    """Hand in a message; gives its SHA-256."""
    digest = hashlib.sha256()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        commands = ("", "EHLO client.test", f"MAIL FROM:<from@source.test> SIZE={size}")
        for command in (*commands, f"RCPT TO:<big{number}@sink.test>", "DATA"):
            if command:
                writer.write(f"{command}\r\n".encode())
            answer = await reply(reader)
            if answer[:1] not in b"23":
                raise BenchError(f"big: client {number}: {answer!r}")
        for block in content(number, size):
            digest.update(block)
            writer.write((b"\r\n" + block).replace(b"\r\n.", b"\r\n..")[2:])
            await writer.drain()
        writer.write(b".\r\n")
        answer = await reply(reader)
        if answer[:3] != b"250":
            raise BenchError(f"big: client {number}: {answer!r}")
    finally:
        writer.close()
    return digest.hexdigest()


async def _send_all(port: int, clients: int, size: int) -> dict[str, str]:
    digests = await asyncio.gather(*(_send(port, number, size) for number in range(clients)))
    return {f"big{number}": digest for number, digest in enumerate(digests)}


def prove(clients: int = CLIENTS, size: int = SIZE) -> None:
    """Raises BenchError if a message is lost, doubled or changed, or if the relay ever had more than 300 MiB."""
    with procs.work_directory() as directory:
        got, port = directory / "digests", procs.free_port()
        words = [sys.executable, "-m", "bench.digest", str(port), str(got)]
        sink = procs.start(words, stderr=directory / "sink.log")
        relay = Mailtui(directory, port)
        try:
            procs.wait_for(lambda: procs.greets(port), 10, "bench.digest does not listen")
            relay.start()
            idle, began = procs.resident(relay.pid), time.monotonic()
            sent = asyncio.run(_send_all(relay.port, clients, size))
            taken = time.monotonic() - began
            procs.wait_for(
                lambda: len(got.read_text().splitlines()) >= clients,
                ARRIVE,
                f"big: not all messages arrive\n{procs.tail(relay.log)}",
                pause=0.2,
            )
            arrived = time.monotonic() - began
            procs.wait_for(lambda: relay.queued() == 0, 60, "big: the queue does not become empty", pause=0.3)
            memory = procs.high_water(relay.pid)
            left = list((relay.state / "spool").glob("*"))
        finally:
            relay.stop()
            procs.end(sink)
        lines = [line.split(" ") for line in got.read_text().splitlines()]
    found = dict(lines)
    changed = [token for token, digest in sent.items() if found.get(token) != digest]
    rate = clients * size / 2**20
    print(f"big: {clients} messages of {size} octets: taken in {taken:.0f} s ({rate / taken:.0f} MiB/s),", end=" ")
    print(f"arrived after {arrived:.0f} s; {len(changed)} lost or changed, {len(lines) - len(found)} twice")
    print(f"big: the relay's memory was {idle / 2**20:.0f} MiB before, and at most {memory / 2**20:.0f} MiB")
    if changed or len(lines) != clients or left:
        raise BenchError(
            f"big: {len(changed)} lost or changed, {len(lines)} arrived, {len(left)} files left in the spool"
        )
    if memory > MEMORY:
        raise BenchError(f"big: over {MEMORY / 2**20:.0f} MiB")

"""Steady traffic and how long it takes: `python -m bench.flow PORT FILE RATE`, a process of its own.

So many messages of 4 KiB a second, by the clock and not by the answers: a message whose turn has come while all
connections wait gets a connection more. For each accepted message a line `TOKEN DOT ACCEPTED` goes to FILE: the
moments of the final dot and of its 250, monotonic seconds of the machine. SIGTERM ends it.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from bench import procs
from bench.load import message, reply
from bench.sink import Sink

DOMAIN, SIZE = "sink.test", 4096


class _Flow:
    def __init__(self, port: int, file: int) -> None:
        self.port, self.file = port, file
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, number: int) -> None:
        reader, writer = self.idle.pop() if self.idle else await self.connect()
        token = f"flow-{number}"
        writer.write(f"MAIL FROM:<from@source.test>\r\nRCPT TO:<{token}@{DOMAIN}>\r\nDATA\r\n".encode())
        for wanted in (b"250", b"250", b"354"):
            answer = await reply(reader)
            if not answer.startswith(wanted):
                raise ConnectionAbortedError(answer)
        dot = time.monotonic()
        writer.write(message(token, SIZE))
        answer = await reply(reader)
        if not answer.startswith(b"250"):
            raise ConnectionAbortedError(answer)
        os.write(self.file, f"{token} {dot:.6f} {time.monotonic():.6f}\n".encode())
        self.idle.append((reader, writer))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        await reply(reader)
        writer.write(b"EHLO client.test\r\n")
        await reply(reader)
        return reader, writer


async def _run(port: int, path: Path, rate: float) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    flow, stop, loop = _Flow(port, file), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    began, number, tasks = time.monotonic(), 0, set()
    while not stop.is_set():
        task = loop.create_task(flow.send(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
        await asyncio.sleep(began + number / rate - time.monotonic())
    await asyncio.gather(*tasks)


@dataclass
class Took:
    """Seconds of the messages in a stretch of time, sorted: final dot to 250, final dot to the next hop."""

    accepted: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)

    @property
    def worst(self) -> tuple[float, float]:
        return max(self.accepted, default=0.0), max(self.delivered, default=0.0)


@dataclass
class Flow:
    """The process as seen by a proof."""

    directory: Path
    port: int
    sink: Sink
    rate: int
    sent: list[tuple[float, float, str]] = field(default_factory=list)  # (final dot, accepted, token)

    def __post_init__(self) -> None:
        self.path = self.directory / "flow"
        command: list[str | Path] = [sys.executable, "-m", "bench.flow", str(self.port), self.path, str(self.rate)]
        self._process = procs.start(command, stderr=self.directory / "flow.log")
        procs.wait_for(lambda: self.path.exists() and self.path.stat().st_size > 0, 10, "bench.flow does not send")

    def stop(self) -> None:
        """End it and read all that it noted."""
        status = procs.end(self._process)
        if status != 0:
            raise procs.BenchError(f"bench.flow ended with {status}\n{procs.tail(self.directory / 'flow.log')}")
        for line in self.path.read_text().splitlines():
            token, dot, accepted = line.split()
            self.sent.append((float(dot), float(accepted), token))
        self.sent.sort()

    def missing(self) -> int:
        """Accepted messages that are not at the next hop."""
        self.sink.read()
        return sum(token not in self.sink.first for _, _, token in self.sent)

    def took(self, begin: float, end: float) -> Took:
        """Of the messages whose final dot was in this stretch."""
        first, last = (bisect_left(self.sent, (moment, 0.0, "")) for moment in (begin, end))
        some = self.sent[first:last]
        return Took(
            sorted(accepted - dot for dot, accepted, _ in some),
            sorted(self.sink.first[token] - dot for dot, _, token in some if token in self.sink.first),
        )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))

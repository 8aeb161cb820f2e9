"""A next hop that remembers which messages it took: `python -m bench.sink PORT FILE`, a process of its own.

Each message carries `X-Token: TOKEN` as a header line. Before the final dot is answered, a line `TOKEN TIME` goes to
FILE (TIME: monotonic seconds of the machine), so that what the relay knows as delivered is in the file whatever is
killed. SIGUSR1 makes every answer to a final dot wait, so that a queue builds up; SIGUSR2 ends that.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import procs

# With 20 connections this lets through about 400 messages a second: a fraction of what a relay takes in.
SLOW = 0.05

_TOKEN = b"\r\nX-Token: "
_REPLIES = {
    b"EHLO": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 52428800\r\n250 ENHANCEDSTATUSCODES\r\n",
    b"DATA": b"354 go on\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class _Settings:
    delay = 0.0
    file = -1


class _Session(asyncio.Protocol):
    """One connection; commands may come pipelined, and the next ones along with a body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = bytearray()
        self.in_data = False
        self.searched = 0
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        replies = bytearray()
        while True:
            if self.in_data:
                end = 0 if self.buffer.startswith(b".\r\n") else self.buffer.find(b"\r\n.\r\n", self.searched)
                if end < 0:
                    self.searched = max(0, len(self.buffer) - 4)
                    break
                cut = end + (5 if end else 3)
                self.message(bytes(self.buffer[: min(cut, 65536)]))
                del self.buffer[:cut]
                self.in_data, self.searched = False, 0
                if _Settings.delay:
                    self.pause(replies)
                    return
                replies += b"250 2.0.0 ok\r\n"
            else:
                end = self.buffer.find(b"\r\n")
                if end < 0:
                    break
                verb = bytes(self.buffer[:4]).upper()
                del self.buffer[: end + 2]
                replies += _REPLIES.get(verb, b"250 2.0.0 ok\r\n")
                self.in_data = verb == b"DATA"
                if verb == b"QUIT":
                    self.transport.write(bytes(replies))
                    self.transport.close()
                    return
        if replies:
            self.transport.write(bytes(replies))

    def pause(self, replies: bytearray) -> None:
        """Answer this message later, and read nothing of what follows until then."""
        self.transport.write(bytes(replies))
        self.transport.pause_reading()

        def resume() -> None:
            if not self.transport.is_closing():
                self.transport.write(b"250 2.0.0 ok\r\n")
                self.transport.resume_reading()
                self.data_received(b"")

        asyncio.get_running_loop().call_later(_Settings.delay, resume)

    def message(self, head: bytes) -> None:
        start = head.find(_TOKEN)
        token = head[start + len(_TOKEN) : head.find(b"\r\n", start + 2)] if start >= 0 else b"none"
        os.write(_Settings.file, b"%s %.6f\n" % (token, time.monotonic()))


async def _serve(port: int, path: Path) -> None:
    _Settings.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, setattr, _Settings, "delay", SLOW)
    loop.add_signal_handler(signal.SIGUSR2, setattr, _Settings, "delay", 0.0)
    server = await loop.create_server(_Session, "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


@dataclass
class Sink:
    """The sink's process as seen by a proof, and what it has received so far."""

    directory: Path
    port: int = field(default_factory=procs.free_port)
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, float] = field(default_factory=dict)  # token -> monotonic time of its first arrival
    _offset: int = 0

    def __post_init__(self) -> None:
        self.path = self.directory / "received"
        self.path.touch()
        command: list[str | Path] = [sys.executable, "-m", "bench.sink", str(self.port), self.path]
        self._process = procs.start(command, stderr=self.directory / "sink.log")
        procs.wait_for(lambda: procs.greets(self.port), 10, "bench.sink does not listen")

    def slow(self, yes: bool) -> None:
        self._process.send_signal(signal.SIGUSR1 if yes else signal.SIGUSR2)

    def read(self) -> None:
        """Take note of what arrived since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            chunk = file.read()
        whole = chunk[: chunk.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("ascii", "replace").splitlines():
            token, _, at = line.partition(" ")
            self.counts[token] += 1
            self.first.setdefault(token, float(at))

    def has(self, token: str) -> bool:
        self.read()
        return token in self.counts

    def stop(self) -> None:
        procs.end(self._process)


@contextlib.contextmanager
def sinking(directory: Path) -> Iterator[Sink]:
    """A sink for the length of a block."""
    sink = Sink(directory)
    try:
        yield sink
    finally:
        sink.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))

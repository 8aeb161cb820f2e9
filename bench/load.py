"""A client that knows which of its messages were accepted.

Every message has a token of its own, in a header line and in the recipient's address. It counts as accepted from the
moment its 250 is read; whatever is killed after that, it must arrive.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable

_LINE = b"All work and no play makes a dull message; this line is long enough to fill it.\r\n"


def small(number: int) -> int:
    """4 KiB each."""
    return 4096


def mixed(number: int) -> int:
    """4 KiB, and each fiftieth 300 KiB, which goes through a spool file (architecture.md: bodies over 256 KiB)."""
    return 300 * 1024 if number % 50 == 49 else 4096


def message(token: str, size: int) -> bytes:
    """A message of about so many octets, final dot included."""
    head = f"From: from@source.test\r\nTo: {token}@sink.test\r\nSubject: {token}\r\nX-Token: {token}\r\n\r\n".encode()
    return head + _LINE * max(1, (size - len(head)) // len(_LINE)) + b".\r\n"


class Load:
    """Sends over kept connections until `stop`, until `limit` messages are sent, or until the server goes away."""

    def __init__(
        self,
        port: int,
        prefix: str,
        *,
        connections: int = 20,
        sizes: Callable[[int], int] = small,
        domain: str = "sink.test",
        limit: int | None = None,
    ) -> None:
        self.port, self.prefix, self.connections = port, prefix, connections
        self.sizes, self.domain = sizes, domain
        self.accepted: set[str] = set()
        self.unanswered: set[str] = set()  # sent to the final dot, no answer seen
        self.refused: list[str] = []
        self.stopping = False
        self._numbers = itertools.count() if limit is None else iter(range(limit))

    async def run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self.connections)))

    async def _connection(self) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                await reply(reader)
                writer.write(b"EHLO client.test\r\n")
                await reply(reader)
                for number in self._numbers:
                    await self._send(reader, writer, number)
                    if self.stopping:
                        break
                writer.write(b"QUIT\r\n")
                await reply(reader)
            finally:
                writer.close()

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        token = f"{self.prefix}-{number}"
        recipient = f"{token}@{self.domain}"
        writer.write(f"MAIL FROM:<from@source.test>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for wanted in (b"250", b"250", b"354"):
            answer = await reply(reader)
            if not answer.startswith(wanted):
                self.refused.append(answer.decode(errors="replace").strip())
                raise ConnectionAbortedError(answer)
        self.unanswered.add(token)
        writer.write(message(token, self.sizes(number)))
        await writer.drain()
        answer = await reply(reader)
        self.unanswered.discard(token)
        if answer.startswith(b"250"):
            self.accepted.add(token)
        else:
            self.refused.append(answer.decode(errors="replace").strip())


async def reply(reader: asyncio.StreamReader) -> bytes:
    """The last line of a reply."""
    while True:
        line = await reader.readuntil(b"\r\n")
        if line[3:4] != b"-":
            return line

"""A next hop for large messages: `python -m bench.digest PORT FILE`, a process of its own that keeps no message.

Of each message a line `TOKEN DIGEST` goes to FILE before the final dot is answered: what X-Token says, and SHA-256 of
the content below the relay's Received field, dots removed.
"""

import asyncio
import contextlib
import hashlib
import os
import sys
from pathlib import Path

END = b"\r\n.\r\n"
_TOKEN = b"X-Token: "
_REPLIES = {
    b"EHLO": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 104857600\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


class Digest:
    """The content of one message as it comes; it begins with a Received field that is left out."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._head: bytes | None = b""  # until the first field is over
        self.token = b"none"

    def add(self, content: bytes) -> None:
        """Content without the dots of transparency."""
        if self._head is not None:
            self._head += content
            end = self._head.find(b"\r\n")
            while end >= 0 and self._head[end + 2 : end + 3] in (b"\t", b" "):
                end = self._head.find(b"\r\n", end + 2)
            start = self._head.find(_TOKEN)
            if end < 0 or start < 0 or (stop := self._head.find(b"\r\n", start)) < 0:
                return
            self.token = self._head[start + len(_TOKEN) : stop]
            content, self._head = self._head[end + 2 :], None
        self._hash.update(content)

    def line(self) -> bytes:
        return b"%s %s\n" % (self.token, self._hash.hexdigest().encode())


async def _session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, file: int) -> None:
    writer.write(b"220 sink.test ESMTP\r\n")
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                digest = await _data(reader)
                os.write(file, digest.line())
            writer.write(_REPLIES.get(verb, b"250 2.0.0 ok\r\n"))
            if verb == b"QUIT":
                break
    writer.close()


async def _data(reader: asyncio.StreamReader) -> Digest:
    """Read to the final dot. Nothing is sent behind it before the answer: no client pipelines over the end of data."""
    digest, data = Digest(), b"\r\n"
    first = True
    while True:
        chunk = await reader.read(1 << 18)
        if not chunk:
            raise ConnectionError
        data += chunk
        done = data.endswith(END)
        # What may be the beginning of the end, or of a dot that goes, waits for what follows it.
        keep = 0 if done else min(len(END), len(data))
        part, data = data[: len(data) - keep], data[len(data) - keep :]
        if done:
            part = part[:-3]
        elif part.endswith((b"\r\n.", b"\r\n", b"\r")):
            cut = part.rfind(b"\r")
            part, data = part[:cut], part[cut:] + data
        part = part.replace(b"\r\n.", b"\r\n")
        if first and part:
            first, part = False, part[2:]
        digest.add(part)
        if done:
            return digest


async def _serve(port: int, path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    server = await asyncio.start_server(lambda r, w: _session(r, w, file), "127.0.0.1", port, limit=1 << 19)
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), Path(sys.argv[2])))

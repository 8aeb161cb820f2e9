"""Slow clients: `python -m bench.dribble PORT COUNT FILE`, a process of its own that holds what connections it gets.

Four kinds in equal parts, from 50 addresses: one says nothing, one sends an octet of its EHLO a second, one is in the
data of a message and sends an octet a second, one asks for more than it reads. A client that was refused or closed
comes back after BACK seconds, more or less. Each second a line `OPEN TRIED` goes to FILE.
"""

import asyncio
import contextlib
import os
import random
import socket
import sys
from pathlib import Path

from bench.load import reply

BACK = 5.0
SOURCES = 50
DRIP = 1.0


class _Counts:
    open = 0
    tried = 0


async def _client(port: int, number: int) -> None:
    source = f"127.1.0.{number % SOURCES + 1}"
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what is not read fills the relay's side
                sock.bind((source, 0))
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                reader, writer = await asyncio.open_connection(sock=sock.dup())
            _Counts.tried += 1
            try:
                if (await reply(reader)).startswith(b"220"):
                    _Counts.open += 1
                    try:
                        await _KINDS[number % len(_KINDS)](reader, writer)
                    finally:
                        _Counts.open -= 1
            finally:
                writer.close()
        await asyncio.sleep(BACK * random.uniform(0.5, 1.5))


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _drip(reader, writer, b"E")


async def _in_data(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"EHLO slow.test\r\nMAIL FROM:<>\r\nRCPT TO:<slow@sink.test>\r\nDATA\r\n")
    for _ in range(4):
        await reply(reader)
    await _drip(reader, writer, b"x")


async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, octet: bytes) -> None:
    while not reader.at_eof():
        writer.write(octet)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRIP):
                await reader.read()


async def _never_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.pause_reading()
    writer.write(b"HELP\r\n" * 1000)  # 90 KB of replies
    while not transport.is_closing():
        await asyncio.sleep(DRIP)
        writer.write(b"NOOP\r\n")


_KINDS = (_silent, _dripping, _in_data, _never_reading)


async def _run(port: int, count: int, path: Path) -> None:
    clients = []
    for number in range(count):
        clients.append(asyncio.create_task(_client(port, number)))
        if number % 100 == 99:  # no more than the kernel's queue of new connections takes
            await asyncio.sleep(0.05)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        os.write(file, b"%d %d\n" % (_Counts.open, _Counts.tried))
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))

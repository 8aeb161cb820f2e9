"""Slow clients: `python -m bench.dribble PORT COUNT FILE [TLS_PORT]`, a process of its own that holds what connections
it gets.

Four kinds in equal parts, from 50 addresses: one says nothing, one sends an octet of its EHLO a second, one is in the
data of a message and sends an octet a second, one asks for more than it reads. With TLS_PORT half of them come there
and begin with TLS, the others say STARTTLS; who says nothing stops in its handshake then. A client that was refused or
closed comes back after BACK seconds, more or less. Each second a line `OPEN TRIED` goes to FILE.
"""

import asyncio
import contextlib
import os
import random
import socket
import ssl
import sys
from pathlib import Path

from bench.load import reply

BACK = 5.0
BACK_TLS = 20.0  # a handshake costs client and relay about 2 ms each: more of them would measure nothing else
SOURCES = 50
DRIP = 1.0

_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE


class _Counts:
    open = 0
    tried = 0


async def _client(port: int, wire: str, number: int) -> None:
    """`wire`: plain, starttls or implicit."""
    source = f"127.1.0.{number % SOURCES + 1}"
    kind = _KINDS[number // 2 % len(_KINDS)]
    back = BACK if wire == "plain" else BACK_TLS
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
                if await _begun(reader, writer, wire, secure=kind is not _silent):
                    _Counts.open += 1
                    try:
                        await kind(reader, writer)
                    finally:
                        _Counts.open -= 1
            finally:
                writer.close()
        await asyncio.sleep(back * random.uniform(0.5, 1.5))


async def _begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: str, *, secure: bool) -> bool:
    """Whether the relay takes the connection. Unless `secure` a handshake is begun and left at that."""
    if wire == "implicit":
        if not secure:
            return True
        await writer.start_tls(_CONTEXT)
    if not (await reply(reader)).startswith(b"220"):
        return False
    if wire == "starttls":
        writer.write(b"EHLO slow.test\r\nSTARTTLS\r\n")
        await reply(reader)
        await reply(reader)
        if secure:
            await writer.start_tls(_CONTEXT)
    return True


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
    writer.write(b"HELP\r\n" * 90)  # 8 KB of replies; a session has 100 commands without a message
    for _ in range(9):  # it does not see either that it was closed
        if transport.is_closing():
            break
        await asyncio.sleep(DRIP)
        writer.write(b"NOOP\r\n")


_KINDS = (_silent, _dripping, _in_data, _never_reading)


async def _run(port: int, count: int, path: Path, tls_port: int = 0) -> None:
    clients = []
    wires = ((port, "starttls"), (tls_port, "implicit")) if tls_port else ((port, "plain"),) * 2
    for number in range(count):
        clients.append(asyncio.create_task(_client(*wires[number % 2], number)))
        if number % 100 == 99:  # no more than the kernel's queue of new connections takes
            await asyncio.sleep(0.05)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    while True:
        os.write(file, b"%d %d\n" % (_Counts.open, _Counts.tried))
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])))

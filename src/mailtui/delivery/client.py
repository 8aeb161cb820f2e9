"""The SMTP client: aiosmtplib's connection with a reply queue, so that it can pipeline and stream.

Promises: a reply is never paired with another command than its own; a reply that nobody asked for closes the session;
every wait has the limit of RFC 5321 section 4.5.3.2; message octets are sent as they are, dots stuffed.
"""

import asyncio
import math
import os
import re
import socket
from collections import deque
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, cast

import aiosmtplib
from aiosmtplib.errors import SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from mailtui.clock import Clock
from mailtui.delivery.verdict import reply_of
from mailtui.delivery.watchdog import Watchdog
from mailtui.model import Reply, TlsFacts, TlsPolicy

# Limits of RFC 5321 section 4.5.3.2, in seconds.
GREETING, COMMAND, DATA, BLOCK, FINAL_DOT = 300.0, 300.0, 120.0, 180.0, 600.0

# QUIT is a courtesy: a server that does not answer it is left.
QUIT = 5.0

# A line without end, octets and replies not read yet; a server that sends more is not speaking SMTP. 100 recipients
# are answered with 100 replies of at most a few lines of 512 octets (RFC 5321 section 4.5.3.1.5).
MAX_REPLY = 64 * 1024
MAX_UNREAD = 1024 * 1024
MAX_REPLIES = 4096

# Pieces of a dialogue, and octets of a piece, that are kept for the transcript of a failed attempt.
MAX_TRANSCRIPT = 400

# Pieces up to this size are looked up among those read before.
MAX_KNOWN = 512
MAX_NOTE = 16 * 1024

_LINE = re.compile(rb"([2-5]\d\d)([ -]?)([^\r\n]*)\r?\n")


class SessionLost(Exception):
    """The session is over: refused, closed, timed out, or out of step; the text is for people."""

    def __init__(self, text: str, *, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.reply = reply


class ReplyQueue(SMTPProtocol):
    """aiosmtplib's protocol, but every complete reply goes to a queue instead of to the one who waits for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        super().__init__(loop=loop)
        self.replies: deque[tuple[Reply, str]] = deque()  # with the text line by line
        self.transcript: list[tuple[float, str, bytes]] = []
        self.deadline = math.inf
        self.error: SessionLost | None = None
        self._clock = clock
        self._lines: list[bytes] = []
        self._text = ""  # of the reply that was read last
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._phase = ""

    # -- what the transport calls ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.note("<", data)
        self._unread += len(data)
        if len(data) <= MAX_KNOWN and not self._buffer and not self._lines:
            whole = _whole_replies(data)
            if whole is not None:
                self.replies.extend(whole)
                if self._unread > MAX_UNREAD or len(self.replies) > MAX_REPLIES:
                    self.fail("more reply than any server has to send")
                self._wake()
                return
        self._buffer += data
        position = 0
        while match := _LINE.match(self._buffer, position):
            position = match.end()
            self._lines.append(match[3])
            if match[2] != b"-":
                text = b"\n".join(self._lines).decode("utf-8", "replace")
                self._lines.clear()
                self.replies.append((reply_of(int(match[1]), text), text))
        del self._buffer[:position]
        if b"\n" in self._buffer:
            self.fail(f"an answer that is not SMTP: {bytes(self._buffer[:80])!r}")
        elif (
            len(self._buffer) > MAX_REPLY
            or self._unread > MAX_UNREAD
            or len(self.replies) + len(self._lines) > MAX_REPLIES
        ):
            self.fail("more reply than any server has to send")
        self._wake()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wake()

    def eof_received(self) -> bool:
        self._lose("connection closed")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"connection lost: {exc}" if exc else "connection closed")
        super().connection_lost(exc)

    # -- what the watchdog calls -------------------------------------------------------------------------------------

    def overdue(self) -> None:
        self.fail(f"timed out waiting for {self._phase}")

    # -- what the session calls --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write a whole group of commands. Replies that are there already were not asked for: the session is over."""
        if self.replies:
            reply = self.replies[0][0]
            self.fail(f"unasked reply: {reply}")
            raise SessionLost(f"the session was ended: {reply}", reply=reply)
        if self.error is not None:
            raise self.error
        try:
            super().write(data)
        except SMTPServerDisconnected as error:  # a write failed in this turn of the loop
            raise SessionLost(f"connection lost: {error}") from error

    async def reply(self, limit: float, phase: str) -> Reply:
        """The next reply; SessionLost if it does not come within `limit` seconds."""
        replies = self.replies
        if not replies:
            self.deadline = self._clock.monotonic() + limit
            self._phase = phase
            while not replies:
                if self.error is not None:
                    raise self.error
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            self.deadline = math.inf
        reply, self._text = replies.popleft()
        if not replies:
            self._unread = 0
        return reply

    def ready(self) -> Reply | None:
        """The next reply if it is there already: cheaper than to await it."""
        if not self.replies:
            return None
        reply, self._text = self.replies.popleft()
        if not self.replies:
            self._unread = 0
        return reply

    async def drained(self, limit: float) -> None:
        """Wait until the peer has taken what was written, or has answered early."""
        if self._paused:
            self.deadline = self._clock.monotonic() + limit
            self._phase = "the message to be taken"
            while self._paused and not self.replies and self.error is None:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            self.deadline = math.inf
        if self.error is not None:
            raise self.error

    async def read_response(self, timeout: float | None = None) -> SMTPResponse:
        """For aiosmtplib's own commands (EHLO, HELO, QUIT)."""
        try:
            reply = await self.reply(COMMAND if timeout is None else timeout, "an answer")
        except SessionLost as lost:
            raise SMTPServerDisconnected(lost.text) from lost
        return SMTPResponse(reply.code, self._text)  # EHLO's keywords are lines of their own

    def note(self, direction: str, data: bytes) -> None:
        """Remember a piece of the dialogue for the transcript."""
        if len(self.transcript) < MAX_TRANSCRIPT:
            self.transcript.append((self._clock.now(), direction, data[:MAX_NOTE]))

    def fail(self, text: str) -> None:
        """Give the session up."""
        self._lose(text)
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()

    def _lose(self, text: str) -> None:
        if self.error is None:
            self.error = SessionLost(text)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@lru_cache(maxsize=1024)
def _whole_replies(data: bytes) -> tuple[tuple[Reply, str], ...] | None:
    """The replies that a piece consists of; None if it is not just that. Servers say the same few things over and
    over, so most pieces have been read before."""
    found, position = [], 0
    while position < len(data):
        match = _LINE.match(data, position)
        if match is None or match[2] == b"-":
            return None
        text = match[3].decode("utf-8", "replace")
        found.append((reply_of(int(match[1]), text), text))
        position = match.end()
    return tuple(found)


class Client(aiosmtplib.SMTP):
    """aiosmtplib's client over a ReplyQueue and a socket that is connected already."""

    def __init__(self, clock: Clock, hostname: str) -> None:
        super().__init__(local_hostname=hostname, start_tls=False, use_tls=False, timeout=None)
        self._clock = clock
        self.queue: ReplyQueue | None = None

    async def _create_connection(self, timeout: float | None) -> SMTPResponse:
        assert self.loop is not None and self.sock is not None
        loop = self.loop
        queue = ReplyQueue(loop, self._clock)
        queue.deadline = self._clock.monotonic() + GREETING
        transport, _ = await loop.create_connection(lambda: queue, sock=self.sock)
        self.protocol = self.queue = queue
        self.transport = transport
        return SMTPResponse(0, "")  # the session reads the greeting itself: 421 and 554 are for it to judge


class Session:
    """One connection to a host, from the greeting on; carries one transaction after the other."""

    def __init__(self, clock: Clock, watchdog: Watchdog, hostname: str) -> None:
        self.extensions: dict[str, str] = {}
        self.used = 0  # transactions so far
        self.connect_time = 0.0
        self.host = ""
        self.address = ""
        self.level: TlsPolicy | None = None  # asked for when it was opened, and what it reached
        self.tls = TlsFacts()
        self._clock = clock
        self._watchdog = watchdog
        self._hostname = hostname
        self._client = Client(clock, hostname)
        self._opening: list[tuple[float, str, bytes]] = []
        self._queue: ReplyQueue | None = None

    @property
    def open(self) -> bool:
        """Usable for another transaction: connected, and the server has said nothing since."""
        q = self._queue
        return q is not None and q.error is None and not q.replies and q.is_connected

    async def connect(self, host: str, address: str, port: int, source: str, limit: float) -> None:
        """TCP connection, greeting, EHLO (or HELO). Raises SessionLost; `reply` is set if the server refused."""
        self.host, self.address = host, address
        begun = self._clock.monotonic()
        sock = await dial(address, port, source, limit, self._clock, self._watchdog)
        try:
            await self._client.connect(sock=sock)
        except (OSError, aiosmtplib.SMTPException) as error:
            sock.close()
            raise SessionLost(f"cannot connect to {address}: {error}") from error
        assert self._client.queue is not None
        self._queue = self._client.queue
        self._watchdog.watched.add(self._queue)
        try:
            greeting = await self._queue.reply(GREETING, "the greeting")
            if greeting.code != 220:
                raise SessionLost(f"{host} [{address}] greeted with: {greeting}", reply=greeting)
            await self._hello()
        except BaseException:
            self.close()
            raise
        self.connect_time = self._clock.monotonic() - begun
        self._opening = list(self._queue.transcript)

    async def _hello(self) -> None:
        """EHLO, and HELO where that is not known (RFC 5321 section 3.2)."""
        assert self._queue is not None
        name = self._hostname.encode("ascii", "replace")
        try:
            self._queue.note(">", b"EHLO " + name + b"\r\n")
            await self._client.ehlo(timeout=COMMAND)
            self.extensions = self._client.esmtp_extensions
        except aiosmtplib.SMTPHeloError as error:
            if error.code // 100 != 5:
                raise SessionLost(
                    f"EHLO was answered: {error.code} {error.message}", reply=reply_of(error.code, error.message)
                ) from error
            try:
                self._queue.note(">", b"HELO " + name + b"\r\n")
                await self._client.helo(timeout=COMMAND)
            except aiosmtplib.SMTPHeloError as refusal:
                raise SessionLost(
                    f"HELO was answered: {refusal.code} {refusal.message}",
                    reply=reply_of(refusal.code, refusal.message),
                ) from refusal
            except aiosmtplib.SMTPException as lost:
                raise SessionLost(str(lost)) from lost
        except aiosmtplib.SMTPException as error:
            raise SessionLost(str(error)) from error

    def begin(self) -> None:
        """A new transaction: its transcript starts with how the session was opened."""
        assert self._queue is not None
        self._queue.transcript = list(self._opening) if self.used == 0 else []
        self.used += 1

    def write(self, data: bytes) -> None:
        """Commands, as one write."""
        assert self._queue is not None
        self._queue.note(">", data)
        self._queue.write(data)

    def write_octets(self, data: bytes) -> None:
        """Message octets: not in the transcript."""
        assert self._queue is not None
        self._queue.write(data)

    async def reply(self, limit: float, phase: str) -> Reply:
        assert self._queue is not None
        return await self._queue.reply(limit, phase)

    def ready(self) -> Reply | None:
        """The next reply if it is there already."""
        assert self._queue is not None
        return self._queue.ready()

    async def stream(self, pieces: AsyncIterator[bytes]) -> int:
        """Send a message's octets, dots stuffed across the borders of the pieces, then the final dot.

        Returns the octets sent. A reply that comes before the end stops it (the session is closed then)."""
        assert self._queue is not None
        tail, sent = b"\r\n", 0
        async for piece in pieces:
            data = tail + piece
            self._queue.write(data.replace(b"\r\n.", b"\r\n..")[len(tail) :] if b"\r\n." in data else piece)
            sent += len(piece)
            tail = data[-2:]
            await self._queue.drained(BLOCK)
        self._queue.note(">", f"({sent} octets of message)\r\n.\r\n".encode())
        self._queue.write(b".\r\n" if tail == b"\r\n" else b"\r\n.\r\n")
        return sent

    def send_body(self, body: bytes) -> None:
        """Send a message held in memory with its final dot in one write. It begins with our Received line."""
        assert self._queue is not None
        self._queue.note(">", b"(%d octets of message)\r\n.\r\n" % len(body))
        if b"\r\n." in body:
            body = body.replace(b"\r\n.", b"\r\n..")
        self._queue.write(body + (b".\r\n" if body.endswith(b"\r\n") else b"\r\n.\r\n"))

    def transcript(self) -> str:
        """The dialogue of the current transaction: a line each, with the seconds since its first."""
        if self._queue is None:
            return ""
        out = []
        start = self._queue.transcript[0][0] if self._queue.transcript else 0.0
        for at, direction, data in self._queue.transcript:
            for line in data.decode("utf-8", "replace").split("\r\n"):
                if line:
                    out.append(f"{at - start:8.3f} {direction} {line}")
        if self._queue.error is not None:
            out.append(f"         ! {self._queue.error.text}")
        return "\n".join(out)

    async def quit(self) -> None:
        """Say goodbye, briefly."""
        if self.open:
            try:
                await self._client.quit(timeout=QUIT)
            except (aiosmtplib.SMTPException, SessionLost, OSError):
                pass
        self.close()

    def close(self) -> None:
        if self._queue is not None:
            self._watchdog.watched.discard(self._queue)
            self._queue._lose("closed by us")
        self._client.close()


class _Dial:
    """A connection attempt under the watchdog."""

    def __init__(self, deadline: float, task: "asyncio.Task[Any]") -> None:
        self.deadline = deadline
        self.expired = False
        self._task = task

    def overdue(self) -> None:
        self.expired = True
        self.deadline = math.inf
        self._task.cancel()


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts its own in their place."""
    return os.strerror(error.errno) if error.errno else str(error)


async def dial(address: str, port: int, source: str, limit: float, clock: Clock, watchdog: Watchdog) -> socket.socket:
    """A connected socket, from `source` if given; SessionLost with the reason if there is none within `limit`."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:  # no descriptor left, or no IPv6 on this machine
        raise SessionLost(f"cannot connect to [{address}]:{port}: {_reason(error)}") from error
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    task = asyncio.current_task()
    assert task is not None
    watched = _Dial(clock.monotonic() + limit, task)
    watchdog.watched.add(watched)
    try:
        if source:
            sock.bind((source, 0))
        await loop.sock_connect(sock, (address, port))
    except OSError as error:
        sock.close()
        raise SessionLost(f"cannot connect to [{address}]:{port}: {_reason(error)}") from error
    except asyncio.CancelledError:
        sock.close()
        if not watched.expired:
            raise
        task.uncancel()
        raise SessionLost(f"cannot connect to [{address}]:{port}: timed out after {limit:g} s") from None
    finally:
        watchdog.watched.discard(watched)
    return sock

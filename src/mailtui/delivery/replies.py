"""What a next hop answers: aiosmtplib's connection with a queue of replies, so that we can pipeline and stream.

Promises: a reply is never paired with another command than its own; a reply that nobody asked for closes the session;
every wait has the limit of RFC 5321 section 4.5.3.2; what a server may make us remember is bounded.
"""

import asyncio
import math
import re
import ssl
from collections import deque
from functools import lru_cache
from typing import cast

from aiosmtplib.errors import SMTPServerDisconnected
from aiosmtplib.protocol import SMTPProtocol
from aiosmtplib.response import SMTPResponse

from mailtui.clock import Clock
from mailtui.delivery.verdict import reply_of
from mailtui.model import Reply

# Limits of RFC 5321 section 4.5.3.2, in seconds.
GREETING, COMMAND, DATA, BLOCK, FINAL_DOT = 300.0, 300.0, 120.0, 180.0, 600.0

# TLS says goodbye too; a server that does not answer that is left as well.
SHUTDOWN = 5.0

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

_LINE = re.compile(rb"([2-5]\d\d)(?!\d)([ -]?)([^\r\n]*)\r?\n")


class SessionLost(Exception):
    """The session is over: refused, closed, timed out, or out of step; the text is for people."""

    def __init__(self, text: str, *, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.reply = reply


class TlsFailed(SessionLost):
    """The level cannot be reached here. `fallback`: on `may`, clear text may be tried over a new connection."""

    def __init__(self, text: str, *, enhanced: str = "4.7.5", fallback: bool = True) -> None:
        super().__init__(text)
        self.enhanced = enhanced
        self.fallback = fallback


class LoginFailed(SessionLost):
    """The host did not let us in, or we did not tell it the password; `reply` is its answer, if that was the reason."""


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
            if reply.code < 400:
                raise SessionLost(f"an unasked reply: {reply}")  # it is the answer to nothing
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

    async def start_tls(  # type: ignore[override]
        self, context: ssl.SSLContext, server_hostname: str, timeout: float
    ) -> None:
        """The handshake, after the server's 220. Raises what asyncio raises: OSError (SSLError is one), ValueError.

        Octets that the server, or somebody on the way, put behind the 220 in clear text are no answers to what will be
        said under TLS (RFC 3207 section 4.2, CVE-2011-0411): SessionLost."""
        if self.replies or self._buffer or self._lines:
            self.fail("clear text behind the reply to STARTTLS: somebody meddles with the connection")
        if self.error is not None:
            raise self.error
        transport = await self._loop.start_tls(
            cast(asyncio.Transport, self.transport),
            self,
            context,
            server_hostname=server_hostname,
            ssl_handshake_timeout=timeout,
            ssl_shutdown_timeout=SHUTDOWN,
        )
        if transport is None:
            raise ConnectionResetError("connection lost")
        self.transport = transport
        self._over_ssl = True

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

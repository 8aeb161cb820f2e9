"""The SMTP client: one session with a host, from the connection on, over aiosmtplib with a reply queue.

Promises: nothing from before TLS is believed under TLS; a session is at its policy's level before a message is begun,
and a password leaves only where `policy.may_log_in` says so; message octets are sent as they are, dots stuffed.
"""

import socket
import ssl
from collections.abc import AsyncIterator
from typing import cast

import aiosmtplib
from aiosmtplib.response import SMTPResponse

from mailtui.clock import Clock
from mailtui.delivery.dialing import TimeLimit, dial, dial_unix
from mailtui.delivery.login import log_in
from mailtui.delivery.parameters import NO_LIMITS, limits, onward
from mailtui.delivery.replies import BLOCK, COMMAND, GREETING, SHUTDOWN, ReplyQueue, SessionLost, TlsFailed
from mailtui.delivery.secrets import Credentials
from mailtui.delivery.verdict import reply_of
from mailtui.delivery.watchdog import Watchdog
from mailtui.model import PlannedHost, Reply, TlsFacts, TlsPolicy
from mailtui.tls import connecting, policy
from mailtui.tls.connecting import Contexts

# QUIT is a courtesy: a server that does not answer it is left.
QUIT = 5.0

# A handshake takes two round trips and a signature; a server that needs longer than this is stuck.
HANDSHAKE = 60.0


class Client(aiosmtplib.SMTP):
    """aiosmtplib's client over a ReplyQueue and a socket that is connected already."""

    def __init__(self, clock: Clock, hostname: str) -> None:
        super().__init__(local_hostname=hostname, start_tls=False, use_tls=False, timeout=None)
        self._clock = clock
        self.queue: ReplyQueue | None = None
        self.implicit: tuple[ssl.SSLContext, str] | None = None  # TLS from the first octet, and the name for it

    async def _create_connection(self, timeout: float | None) -> SMTPResponse:
        assert self.loop is not None and self.sock is not None
        loop = self.loop
        queue = ReplyQueue(loop, self._clock)
        queue.deadline = self._clock.monotonic() + GREETING
        if self.implicit is None:
            transport, _ = await loop.create_connection(lambda: queue, sock=self.sock)
        else:
            transport, _ = await loop.create_connection(
                lambda: queue,
                sock=self.sock,
                ssl=self.implicit[0],
                server_hostname=self.implicit[1],
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=SHUTDOWN,
            )
        self.protocol = self.queue = queue
        self.transport = transport
        return SMTPResponse(0, "")  # the session reads the greeting itself: 421 and 554 are for it to judge

    def forget(self) -> None:
        """Nothing that the server has said about itself holds any more (RFC 3207 section 4.2)."""
        self._reset_server_state()


class Session:
    """One connection to a host, from the greeting on; carries one transaction after the other."""

    def __init__(self, clock: Clock, watchdog: Watchdog, hostname: str) -> None:
        self.extensions: dict[str, str] = {}
        self.used = 0  # transactions so far
        self.connect_time = 0.0
        self.host = ""
        self.address = ""
        self.planned: PlannedHost | None = None
        self.level: TlsPolicy | None = None  # asked for when it was opened
        self.hosts: tuple[PlannedHost, ...] = ()  # of a plan that it serves under this `[tls] default`
        self.default = ""
        self.tls = TlsFacts()  # what was reached
        self.lmtp = False
        self.chunking = False  # messages go by BDAT
        self.chunking_unknown = False  # BDAT was answered as an unknown command, for all that CHUNKING was offered
        self.limits = NO_LIMITS
        self.onward = ""  # Attempt.onward of what goes over it
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

    async def connect(
        self, host: PlannedHost, address: str, level: TlsPolicy, contexts: Contexts, *, limit: float, source: str = "",
        credentials: Credentials | None = None, clear: str = "",
    ) -> None:  # fmt: skip
        """Connection, greeting, EHLO (or LHLO, or HELO), TLS as `level` asks, login if there are `credentials`.

        `limit`: seconds for the connection itself. `clear`: why, on `may`, no TLS is to be tried. Raises SessionLost,
        with `reply` if the server refused; TlsFailed; LoginFailed."""
        self.host, self.address = host.name, address
        self.planned, self.level, self.lmtp = host, level, host.scheme == "lmtp"
        self.tls = policy.plaintext(level, clear)
        begun = self._clock.monotonic()
        # A password goes to the host for which it was written down: an MX of the DNS, which anybody may have forged,
        # must not choose who gets it.
        names = (credentials.host if credentials else host.name, *level.match)
        if host.path:
            sock = await dial_unix(host.path, limit, self._clock, self._watchdog)
        else:
            sock = await dial(address, host.port, source, limit, self._clock, self._watchdog)
        try:
            queue = await self._connected(sock, contexts, names)
            greeting = await queue.reply(GREETING, "the greeting")
            if greeting.code != 220:
                raise SessionLost(f"{self.where} greeted with: {greeting}", reply=greeting)
            await self._hello()
            if self._wants_tls(clear):
                await self._start_tls(contexts, names)
            if credentials is not None:
                await log_in(self, credentials)
        except BaseException:
            self.close()
            raise
        self.chunking = "chunking" in self.extensions and not self.lmtp
        self.limits = limits(self.extensions)
        self.onward = "final" if self.lmtp else onward(self.extensions)
        self.connect_time = self._clock.monotonic() - begun
        self._opening = list(queue.transcript)

    @property
    def exhausted(self) -> bool:
        """Whether the server wants no further transaction in this session (MAILMAX of RFC 9422)."""
        return 0 < self.limits.mailmax <= self.used

    @property
    def where(self) -> str:
        """The host as sentences name it."""
        return f"{self.host} [{self.address}]"

    # -- opening -----------------------------------------------------------------------------------------------------

    async def _connected(self, sock: socket.socket, contexts: Contexts, names: tuple[str, ...]) -> ReplyQueue:
        """The transport over a socket; with smtps, the handshake."""
        assert self.planned is not None and self.level is not None
        implicit = self.planned.scheme == "smtps"
        try:
            if implicit:
                self._client.implicit = (contexts.of(self.level.level), connecting.server_name(self.planned))
            with TimeLimit(self._clock, self._watchdog, HANDSHAKE):
                await self._client.connect(sock=sock)
        except (OSError, ValueError, aiosmtplib.SMTPException) as error:
            sock.close()
            if implicit:
                raise self._handshake_failed(error) from error
            raise SessionLost(f"cannot connect to {self.address}: {error}") from error
        except BaseException:
            sock.close()
            raise
        assert self._client.queue is not None
        self._queue = self._client.queue
        self._watchdog.watched.add(self._queue)
        if implicit:
            self._secured(names)
        return self._queue

    async def _hello(self) -> None:
        """EHLO, and HELO where that is not known (RFC 5321 section 3.2); LHLO for LMTP (RFC 2033)."""
        assert self._queue is not None
        name = self._hostname.encode("ascii", "replace")
        self.extensions = {}
        try:
            if self.lmtp:
                await self._lhlo(name)
            else:
                self._queue.note(">", b"EHLO " + name + b"\r\n")
                await self._client.ehlo(timeout=COMMAND)
            self.extensions = self._client.esmtp_extensions
        except aiosmtplib.SMTPHeloError as error:
            if error.code // 100 != 5 or self.lmtp:
                verb = "LHLO" if self.lmtp else "EHLO"
                raise SessionLost(
                    f"{verb} was answered: {error.code} {error.message}", reply=reply_of(error.code, error.message)
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

    async def _lhlo(self, name: bytes) -> None:
        assert self._queue is not None
        self._queue.note(">", b"LHLO " + name + b"\r\n")
        response = await self._client.execute_command(b"LHLO", name, timeout=COMMAND)
        if response.code != 250:
            raise aiosmtplib.SMTPHeloError(response.code, response.message)
        self._client.last_ehlo_response = response

    def _wants_tls(self, clear: str) -> bool:
        """Whether STARTTLS comes next; TlsFailed where it has to and is not offered."""
        assert self.planned is not None and self.level is not None
        level = self.level.level
        if self.planned.scheme == "smtps" or level == "none" or clear:
            return False
        if level == "may" and self.planned.path:
            self.tls = policy.plaintext(self.level, "a Unix socket needs no TLS")
            return False
        if "starttls" in self.extensions:
            return True
        if level == "may":
            self.tls = policy.plaintext(self.level, "STARTTLS is not offered")
            return False
        raise TlsFailed(
            f"{self.where} does not offer STARTTLS, and TLS level {level} is asked for ({self.level.why})",
            enhanced="4.7.4",
        )

    async def _start_tls(self, contexts: Contexts, names: tuple[str, ...]) -> None:
        """STARTTLS, handshake, and EHLO again: what was said before is forgotten (RFC 3207 section 4.2)."""
        assert self.planned is not None and self.level is not None
        queue = self._queue
        assert queue is not None
        self.write(b"STARTTLS\r\n")
        try:
            reply = await queue.reply(COMMAND, "the reply to STARTTLS")
        except SessionLost as lost:  # it may be the command that it does not bear
            raise TlsFailed(f"{self.where} offers STARTTLS and was lost at it: {lost.text}") from lost
        if reply.code == 421:
            raise SessionLost(f"{self.where} answered STARTTLS with: {reply}", reply=reply)
        if reply.code != 220:
            raise TlsFailed(f"{self.where} offers STARTTLS and answered it with: {reply}")
        name = connecting.server_name(self.planned)
        try:
            with TimeLimit(self._clock, self._watchdog, HANDSHAKE):
                await queue.start_tls(contexts.of(self.level.level), name, HANDSHAKE)
        except SessionLost as lost:
            raise TlsFailed(f"{self.where}: {lost.text}", fallback=False) from lost
        except (OSError, ValueError) as error:
            raise self._handshake_failed(error) from error
        self._client.transport = queue.transport
        self._client.forget()
        self.extensions = {}
        self._secured(names)
        try:
            await self._hello()
        except SessionLost as lost:
            if lost.reply is not None:
                raise
            # Some servers notice only now that they do not like our handshake (TLS 1.3 lets them).
            raise TlsFailed(f"{self.where}: the session broke after the TLS handshake: {lost.text}") from lost

    def _handshake_failed(self, error: Exception) -> TlsFailed:
        if isinstance(error, TimeoutError) and not error.args:
            return TlsFailed(f"{self.where}: the TLS handshake timed out after {HANDSHAKE:g} s")
        return TlsFailed(f"{self.where}: the TLS handshake failed: {connecting.said(error)}")

    def _secured(self, names: tuple[str, ...]) -> None:
        """What the handshake came to."""
        assert self._queue is not None and self._queue.transport is not None and self.level is not None
        connection = cast(ssl.SSLObject, self._queue.transport.get_extra_info("ssl_object"))
        try:
            self.tls = connecting.secured(self.level, connection, names)
        except ValueError as error:
            raise TlsFailed(f"{self.where}: {error}") from None
        self._queue.note("!", f"TLS: {self.tls.protocol} {self.tls.cipher}, {self.tls.reached}\r\n".encode())

    # -- transactions ------------------------------------------------------------------------------------------------

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

    def write_unseen(self, data: bytes, note: bytes) -> None:
        """What has no place in the transcript, secrets and message octets; `note` stands there instead."""
        assert self._queue is not None
        self._queue.note(">", note)
        self._queue.write(data)

    async def reply(self, limit: float, phase: str) -> Reply:
        assert self._queue is not None
        return await self._queue.reply(limit, phase)

    def ready(self) -> Reply | None:
        """The next reply if it is there already."""
        assert self._queue is not None
        return self._queue.ready()

    async def drained(self, limit: float) -> None:
        """Wait until the server has taken what was written, or has answered."""
        assert self._queue is not None
        await self._queue.drained(limit)

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
                    # A challenge of SCRAM with the server's signature lets a password be guessed (RFC 5802 section 9).
                    seen = "334 ****" if direction == "<" and line.startswith("334") else line
                    out.append(f"{at - start:8.3f} {direction} {seen}")
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

    def leave(self) -> None:
        """Say goodbye without waiting for the answer."""
        if self.open:
            try:
                self.write(b"QUIT\r\n")
            except SessionLost:
                pass
        self.close()

    def close(self) -> None:
        if self._queue is not None:
            self._watchdog.watched.discard(self._queue)
            self._queue._lose("closed by us")
        self._client.close()

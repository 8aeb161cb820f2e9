"""One SMTP connection: its life, its commands in order, its replies and its clock. The commands are in `commands`.

Promises: only CRLF ends a command; every command gets one reply, in order, and the replies to commands that came in
one packet leave in one (RFC 2920); a session that says nothing is told 421 before it is closed; a client that goes away
interrupts nothing, so that a message is taken whole or not at all (RFC 5321 section 4.1.1.10).

The frame is aiosmtpd's: its protocol class owns the stream, and TLS and AUTH can be had from it. What it lacks for a
relay (its grammar, its line reading, its time-outs, a write for each reply) is replaced here.
"""

import asyncio
import collections
import logging
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

from mailtui.intake import commands
from mailtui.intake.access import Address, Network, Question, parse_client
from mailtui.intake.transaction import Transaction
from mailtui.model import Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.intake.listener import Door, Intake

# It logs every command at INFO and every line of data at DEBUG.
logging.getLogger("mail.log").setLevel(logging.WARNING)

# With CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, and RFC 3461 section 5.4 for 1036 beside what else extends MAIL.
COMMAND_LIMIT = 2048
# An over-long command is read to its CRLF for this long, then the connection is closed.
SKIP_LIMIT = 1 << 20
# RFC 5321 section 4.5.3.1.5, with CRLF.
REPLY_LIMIT = 512
READ_SIZE = 256 << 10
# Replies that the client does not read; beyond it nothing more is read from the client.
WRITE_LIMIT = 64 << 10
# RFC 5321 section 7.8. Like Postfix's hard limit it starts again with each message that is taken.
ERROR_LIMIT = 20


class Session(SMTP):
    """A connection of a client. Made by `connection()` of the one prototype that each listener has."""

    # The stream pauses at twice this; the limits of commands and lines are checked where they are used.
    line_length_limit = 64 << 10
    transport: asyncio.Transport | None

    def __init__(self, intake: "Intake", door: "Door", loop: asyncio.AbstractEventLoop) -> None:
        """A prototype. It takes aiosmtpd's constructor 120 us to look for methods: too long for each connection."""
        self.command_size_limits = collections.defaultdict(lambda: COMMAND_LIMIT)  # the class's is shared by all
        super().__init__(object(), hostname=intake.terms.hostname, data_size_limit=None, loop=loop)
        self.intake = intake
        self.door = door

    def connection(self) -> "Session":
        """A session for a new connection: the prototype's attributes, and a stream of its own.

        Whoever brings in aiosmtpd's AUTH: `_auth_methods` are the prototype's and have to be bound anew.
        """
        session = Session.__new__(Session)
        session.__dict__.update(self.__dict__)
        reader = asyncio.StreamReader(limit=self.line_length_limit, loop=self.loop)
        asyncio.StreamReaderProtocol.__init__(session, reader, session._cb_client_connected, self.loop)
        session._start()
        return session

    def _start(self) -> None:
        self.client = ""
        self.address: Address | None = None
        self.local: Address | None = None
        self.network: Network | None = None
        self.rules = self.intake.rules
        self.helo = ""
        self.protocol = ""
        self.opening = b""  # of our Received lines
        self.transaction: Transaction | None = None
        self.committing = False  # a message is on its way to disk: nothing may close the connection
        self.closing = False
        self.draining = False
        self.errors = 0
        self.input = b""
        self.position = 0
        self._replies: list[bytes] = []
        self._ends = self.loop.time() + self.intake.timeouts.session
        self._deadline = self._armed = math.inf
        self._timeout_handle = None

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("peername")
        try:
            self.address = parse_client(peer[0])
            self.local = parse_client(transport.get_extra_info("sockname")[0])
        except (TypeError, ValueError, IndexError):  # the client is gone already
            self.transport = transport
            transport.abort()
            return
        self.client = str(self.address)
        self.network = self.rules.network_of(self.address)
        refusal = self.intake.admit(self)
        if refusal is not None:
            self.transport = transport
            transport.write(_line(refusal.reply))
            transport.close()
            return
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        # Not aiosmtpd's: it cancels the handler, which may be waiting for the disk.
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
            self._timeout_handle = None
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self.intake.forget(self)

    def eof_received(self) -> bool | None:
        # Not aiosmtpd's: a client that has said all it has to say still gets its replies.
        return asyncio.StreamReaderProtocol.eof_received(self)

    async def _handle_client(self) -> None:
        try:
            self.send(b"220 " + self.intake.terms.hostname.encode("ascii") + b" ESMTP mailtui\r\n")
            await self._converse()
            self.flush()
            if self.closing:
                while await self._reader.read(READ_SIZE):
                    pass  # what is not read would reset the connection before the client has our last word
        except (ConnectionError, TimeoutError):
            pass
        except Exception as error:  # perhaps amid the data: what follows may be no command (standards: M09)
            self._blame(error)
            self.flush()
        finally:
            if self.transport is not None:
                self.transport.close()

    def _blame(self, error: Exception) -> None:
        """Answer for a fault of ours: temporary, and without a word about what it was; that is in the log."""
        self.transaction = None
        self.send(b"451 4.3.0 Internal error, try again later\r\n")
        self.intake.events.emit(
            "error", level="error", text=f"session: {type(error).__name__}: {error}", client=self.client
        )

    # -- the clock ---------------------------------------------------------------------------------------------------

    def expect(self, seconds: float) -> None:
        """Close with 421 unless called again within `seconds`. One timer a session, moved only when it fires."""
        self._deadline = deadline = min(self.loop.time() + seconds, self._ends)
        if deadline < self._armed:
            self._arm(deadline)

    def _arm(self, when: float) -> None:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._armed = when
        self._timeout_handle = self.loop.call_at(when, self._timeout_cb)

    def _reset_timeout(self, duration: float | None = None) -> None:
        # aiosmtpd's connection_made calls it.
        self.expect(duration or self.intake.timeouts.command)

    def _timeout_cb(self) -> None:
        self._timeout_handle = None
        now = self.loop.time()
        if self.committing:
            self._arm(now + self.intake.timeouts.command)
        elif now < self._deadline:
            self._arm(self._deadline)
        elif self.closing:
            self.abort()
        else:
            self.hang_up(421, "4.4.2", "Timeout, closing the connection")

    def hang_up(self, code: int, enhanced: str, text: str) -> None:
        """The last reply; then the client has a few seconds to read it and close."""
        if self.transport is None or self.closing:
            return
        self.send(_line(Reply(code, enhanced, f"{self.intake.terms.hostname} {text}")))
        self.flush()
        self.closing = True
        self._ends = math.inf
        self.expect(self.intake.timeouts.linger)
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def drain(self) -> None:
        """The relay stops: no new message; a client that is not in the middle of one is told at once."""
        self.draining = True
        if self.transaction is None and not self.committing:
            self.hang_up(421, "4.3.2", "Shutting down, try again later")

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # -- commands in -------------------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        """Commands, one after the other, until either side has had enough."""
        fresh = True
        while not self.closing:
            end = self.input.find(b"\r\n", self.position)
            if end < 0:
                if self.draining and self.transaction is None:
                    self.hang_up(421, "4.3.2", "Shutting down, try again later")
                    break
                if fresh:
                    self.expect(self.intake.timeouts.command)
                    fresh = False
                if not await self._more():
                    return
                continue
            line = self.input[self.position : end]
            self.position = end + 2
            fresh = True
            try:
                pending = self._execute(line)
            except Exception as error:
                self._blame(error)
                continue
            if pending is not None:
                await pending
        self.input = b""

    async def _more(self) -> bool:
        """Read on, after the replies have left: there is no complete command. False at the end of the stream."""
        self.flush()
        left = self.input[self.position :]
        if len(left) >= COMMAND_LIMIT:
            return await self._skip_command(left)
        if self.transport is not None and self.transport.get_write_buffer_size() > WRITE_LIMIT:
            await self._writer.drain()
        chunk = await self._reader.read(READ_SIZE)
        self.input = left + chunk if left else chunk
        self.position = 0
        return bool(chunk)

    async def _skip_command(self, left: bytes) -> bool:
        """Read an over-long command to its end without keeping it; its tail is not another command."""
        total = len(left)
        while True:
            chunk = await self._reader.read(READ_SIZE)
            if not chunk or self.closing:
                return False
            seam = left[-1:] + chunk
            end = seam.find(b"\r\n")
            if end >= 0:
                self.input, self.position = seam[end + 2 :], 0
                self.fail(500, "5.5.2", "Command line too long")
                return True
            left = chunk
            total += len(chunk)
            if total > SKIP_LIMIT:
                self.fail(500, "5.5.2", "Command line too long")
                self.hang_up(421, "4.7.0", "Too much without a line end")
                return False

    def _execute(self, line: bytes) -> Coroutine[Any, Any, None] | None:
        """One command. What it has to wait for is given back."""
        if self.errors >= ERROR_LIMIT:
            self.hang_up(421, "4.7.0", "Too many errors")
            return None
        if self.draining and self.transaction is None:
            self.hang_up(421, "4.3.2", "Shutting down, try again later")
            return None
        if len(line) > COMMAND_LIMIT - 2:
            self.fail(500, "5.5.2", "Command line too long")
            return None
        if b"\n" in line or b"\r" in line or b"\0" in line:
            self.fail(500, "5.5.2", "A command holds CR, LF or NUL; it must end with CR LF")
            return None
        word, _, argument = line.partition(b" ")
        command = commands.COMMANDS.get(word) or commands.COMMANDS.get(word.upper())
        if command is None:
            commands.unknown(self, word)
            return None
        return command(self, argument.strip(b" "))

    # -- replies out -------------------------------------------------------------------------------------------------

    def send(self, reply: bytes) -> None:
        """A complete reply; it leaves when no further command is at hand, or with `flush`."""
        self._replies.append(reply)

    def flush(self) -> None:
        if self._replies:
            if self.transport is not None and not self.closing:
                self.transport.write(self._replies[0] if len(self._replies) == 1 else b"".join(self._replies))
            self._replies.clear()

    def fail(self, code: int, enhanced: str, text: str) -> None:
        """Refuse a command; a permanent refusal counts as an error of the client."""
        if code >= 500:
            self.errors += 1
        self.send(_line(Reply(code, enhanced, text)))

    def refuse(self, error: SmtpError, sender: str = "", recipient: str = "", destination: str = "") -> None:
        """Refuse a sender, a recipient or a message, and tell the log and the history."""
        reply = error.reply
        self.fail(reply.code, reply.enhanced, reply.text)
        self.intake.refused(self, reply, error.rule, sender, recipient, destination)

    # -- for the commands --------------------------------------------------------------------------------------------

    def question(self, transaction: Transaction) -> Question:
        """What the rules are asked for each recipient of a transaction."""
        return Question(
            client=self.address,
            sender=transaction.sender,
            recipient=commands.NO_RECIPIENT,
            network=self.network,
            helo=self.helo,
            listener=self.door.name,
            role=self.door.role,
            local=self.local,
        )

    def renew_rules(self) -> None:
        """After a reload the new rules hold from the next transaction on."""
        if self.rules is not self.intake.rules:
            self.rules = self.intake.rules
            self.network = self.rules.network_of(self.address)

    async def read_data(self, seconds: float) -> bytes:
        """What came with the last command, or the next octets; ConnectionResetError if the client is gone."""
        chunk = self.input[self.position :]
        self.input, self.position = b"", 0
        if not chunk:
            self.expect(seconds)
            chunk = await self._reader.read(READ_SIZE)
        if not chunk or self.closing:
            raise ConnectionResetError
        return chunk

    def hand_back(self, rest: bytes) -> None:
        """Octets behind the end of the data: the next command."""
        self.input, self.position = rest, 0


def _line(reply: Reply) -> bytes:
    """A reply of one line. Nothing in its text can begin another one, and it keeps within REPLY_LIMIT."""
    text = str(reply).encode("ascii", "backslashreplace")
    if not text.isascii() or b"\r" in text or b"\n" in text or b"\0" in text:
        text = text.translate(None, b"\r\n\0")
    return text[: REPLY_LIMIT - 2] + b"\r\n"

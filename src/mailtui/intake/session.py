"""One SMTP connection: its life, its commands in order, its replies and its clock. The commands are in `commands`.

Promises: only CRLF ends a command; every command gets one reply, in order, and the replies to commands that came in
one packet leave in one (RFC 2920); a session that says nothing is told 421 before it is closed; a client that goes away
interrupts nothing, so that a message is taken whole or not at all (RFC 5321 section 4.1.1.10).

The frame is aiosmtpd's: its protocol class, which also brings TLS and AUTH. But commands and data are worked off where
they arrive, in `data_received`: its stream reader and its task, woken for every command, cost more than all the rest.
What has to be waited for (the disk, the writer) makes the session `busy`; until that is over, input is kept.
"""

import asyncio
import collections
import logging
import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

from mailtui.address import Mailbox
from mailtui.intake.access import Address, Network, Question, parse_client
from mailtui.intake.commands import COMMANDS, NO_RECIPIENT, unknown
from mailtui.intake.reception import Reception
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
# Input that is kept while the session is busy; beyond it nothing more is read from the client.
READ_AHEAD = 128 << 10
# RFC 5321 section 7.8. Like Postfix's hard limit it starts again with each message that is taken.
ERROR_LIMIT = 20


class Session(SMTP):
    """A connection of a client. Made by `connection()` of the one prototype that each listener has."""

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
        reader = asyncio.StreamReader(loop=self.loop)
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
        self.reception: Reception | None = None  # between 354 and the reply to the dot
        self.busy = True  # until greeted
        self.committing = False  # busy with a message that is on its way to disk: nothing may close the connection
        self.closing = False
        self.draining = False
        self.errors = 0
        self._input = b""
        self._position = 0
        self._skipped = 0  # octets of an over-long command
        self._ended = False  # the client will say no more
        self._unread = False  # the client does not read its replies
        self._not_reading = False
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
            self.closing = True
            transport.write(_line(refusal.reply))
            transport.close()
            return
        super().connection_made(transport)

    async def _handle_client(self) -> None:
        """aiosmtpd's task for a new connection: what comes before the first command."""
        self.send(b"220 " + self.intake.terms.hostname.encode("ascii") + b" ESMTP mailtui\r\n")
        self.expect(self.intake.timeouts.command)
        self.resume()

    def connection_lost(self, error: Exception | None) -> None:
        # Not aiosmtpd's: it cancels what the session waits for.
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
            self._timeout_handle = None
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self._input = b""
        if self.reception is not None and not self.busy:
            self.reception.abandon()
        self.intake.forget(self)

    def eof_received(self) -> bool | None:
        # Not aiosmtpd's: a client that has said all it has to say still gets its replies.
        self._ended = True
        return self.busy and not self.closing

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._input = self._input + data if self._input else data
        if not self.busy and not self._unread:
            self.advance()
        elif len(self._input) > READ_AHEAD and not self._not_reading and self.transport is not None:
            self._not_reading = True
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = False
        if not self.busy:
            self.resume()

    # -- the clock ---------------------------------------------------------------------------------------------------

    def expect(self, seconds: float) -> None:
        """Close with 421 unless called again within `seconds`. One timer a session, moved only when it fires."""
        deadline = self.loop.time() + seconds
        if deadline > self._ends:
            deadline = self._ends
        self._deadline = deadline
        if deadline < self._armed:
            self._arm(deadline)

    def _arm(self, when: float) -> None:
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._armed = when
        self._timeout_handle = self.loop.call_at(when, self._timeout_cb)

    def _reset_timeout(self, duration: float | None = None) -> None:
        # aiosmtpd's connection_made calls it. The shortest of the times, so that the timer need not be moved later.
        self.expect(min(self.intake.timeouts.command, self.intake.timeouts.data_block))

    def _timeout_cb(self) -> None:
        self._timeout_handle, self._armed = None, math.inf
        now = self.loop.time()
        if self.committing:
            self._arm(now + self.intake.timeouts.command)
        elif now < self._deadline:
            self._arm(self._deadline)
        elif self.closing:
            self.abort()
        else:
            self.hang_up(421, "4.4.2", "Timeout, closing the connection")

    # -- the end -----------------------------------------------------------------------------------------------------

    def hang_up(self, code: int, enhanced: str, text: str) -> None:
        """The last reply. What the client still sends is read, for else it would lose that reply to a reset."""
        if self.transport is None or self.closing:
            return
        self.send(_line(Reply(code, enhanced, f"{self.intake.terms.hostname} {text}")))
        self.flush()
        self._close()
        self.expect(self.intake.timeouts.linger)
        if self._ended or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()

    def quit(self) -> None:
        """Close when the replies have left; nothing that came behind QUIT is looked at."""
        self.flush()
        self._close()
        if self.transport is not None:
            if self.transport.get_write_buffer_size():
                self.expect(self.intake.timeouts.linger)
            self.transport.close()

    def _close(self) -> None:
        self.closing = True
        self._input = b""
        self._ends = math.inf
        if self.reception is not None and not self.busy:
            self.reception.abandon()
        if self._not_reading and self.transport is not None:
            self._not_reading = False
            self.transport.resume_reading()

    def drain(self) -> None:
        """The relay stops: no new message; a client that is not in the middle of one is told at once."""
        self.draining = True
        if self.transaction is None and not self.busy:
            self.hang_up(421, "4.3.2", "Shutting down, try again later")

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # -- commands in -------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Work off what has come, until more is needed or something has to be waited for."""
        try:
            while self._position < len(self._input) and not self.busy:
                if self.reception is not None:
                    data = self._input[self._position :] if self._position else self._input
                    self._input, self._position = b"", 0
                    self.reception.receive(data)
                    continue
                if self._skipped and not self._skip():
                    break
                position = self._position
                end = self._input.find(b"\r\n", position)
                if end < 0:
                    break
                line = self._input[position:end]
                self._position = end + 2
                self._deadline = 0.0  # the time for the next command begins when this one is done
                self._execute(line)
        except Exception as error:
            self._blame(error)
        if self._position:
            self._input, self._position = self._input[self._position :], 0
        if self._replies:
            self.flush()
        if self.busy or self.closing:
            return
        if self.draining and self.transaction is None:
            self.hang_up(421, "4.3.2", "Shutting down, try again later")
        elif self._ended:
            self.quit()
        else:
            if not self._deadline:
                self.expect(self.intake.timeouts.command)
            if len(self._input) >= COMMAND_LIMIT and not self._skipped:
                self._skipped = len(self._input)
                self._input = self._input[-1:]

    def _skip(self) -> bool:
        """Read an over-long command to its end without keeping it; its tail is not another command."""
        end = self._input.find(b"\r\n")
        if end >= 0:
            self._position, self._skipped = end + 2, 0
            self.fail(500, "5.5.2", "Command line too long")
            return True
        self._skipped += len(self._input)
        self._input = self._input[-1:]
        if self._skipped > SKIP_LIMIT:
            self.hang_up(500, "5.5.2", "Command line too long, closing the connection")
        return False

    def _execute(self, line: bytes) -> None:
        """One command."""
        if self.errors >= ERROR_LIMIT:
            return self.hang_up(421, "4.7.0", "Too many errors")
        if self.draining and self.transaction is None:
            return self.hang_up(421, "4.3.2", "Shutting down, try again later")
        if len(line) > COMMAND_LIMIT - 2:
            return self.fail(500, "5.5.2", "Command line too long")
        if b"\n" in line or b"\r" in line or b"\0" in line:
            return self.fail(500, "5.5.2", "A command holds CR, LF or NUL; it must end with CR LF")
        word, _, argument = line.partition(b" ")
        command = COMMANDS.get(word) or COMMANDS.get(word.upper())
        if command is None:
            return unknown(self, word)
        return command(self, argument.strip(b" "))

    def _blame(self, error: Exception) -> None:
        """Answer for a fault of ours: temporary, and without a word about what it was; that is in the log."""
        self.intake.events.emit(
            "error", level="error", text=f"session: {type(error).__name__}: {error}", client=self.client
        )
        self.transaction = None
        if self.reception is None:
            self.send(b"451 4.3.0 Internal error, try again later\r\n")
        else:  # amid the data: what follows may be no command (standards: M09)
            self.reception.abandon()
            self.hang_up(451, "4.3.0", "Internal error, try again later")

    # -- what has to be waited for -----------------------------------------------------------------------------------

    def wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Be busy with `work`, then go on."""
        self.busy = True
        if not self._deadline:
            self.expect(self.intake.timeouts.command)
        self._handler_coroutine = self.loop.create_task(self._wait(work))

    async def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._blame(error)
        if not self.committing:
            self.resume()

    def resume(self) -> None:
        """What was waited for is over."""
        self.busy = False
        if self.transport is None or self.closing:
            if self.reception is not None:
                self.reception.abandon()
            return
        if self._not_reading:
            self._not_reading = False
            self.transport.resume_reading()
        self.advance()

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

    def question(self, sender: Mailbox | None) -> Question:
        """What the rules are asked for each recipient of a transaction."""
        return Question(
            client=self.address,
            sender=sender,
            recipient=NO_RECIPIENT,
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

    def hand_back(self, rest: bytes) -> None:
        """Octets behind the end of the data: the next command."""
        self._input = rest + self._input[self._position :]
        self._position = 0


def _line(reply: Reply) -> bytes:
    """A reply of one line. Nothing in its text can begin another one, and it keeps within REPLY_LIMIT."""
    text = str(reply).encode("ascii", "backslashreplace")
    if b"\r" in text or b"\n" in text or b"\0" in text:
        text = text.translate(None, b"\r\n\0")
    return text[: REPLY_LIMIT - 2] + b"\r\n"

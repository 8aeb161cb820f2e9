"""One SMTP session: its beginning, and its commands in order. The commands are in `commands`, replies, clock and end in
`connection`.

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
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from mailtui.intake import auth, early, proxy, starttls
from mailtui.intake.access import Address, Network, parse_client
from mailtui.intake.commands import COMMANDS, unknown
from mailtui.intake.connection import Connection
from mailtui.intake.replies import line as reply_line
from mailtui.model import Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.intake.door import Door
    from mailtui.intake.listener import Intake

# It logs every command at INFO and every line of data at DEBUG.
logging.getLogger("mail.log").setLevel(logging.WARNING)

# With CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, and RFC 3461 section 5.4 for 1036 beside what else extends MAIL.
COMMAND_LIMIT = 2048
# An over-long command is read to its CRLF for this long, then the connection is closed.
SKIP_LIMIT = 1 << 20
# Input that is kept while the session is busy; beyond it nothing more is read from the client.
READ_AHEAD = 128 << 10
# Commands that a session works off before others have their turn: uvloop reads up to 2 MB at once, in which there are
# 350,000 commands, a second of work. More than any client pipelines but for recipients.
TURN = 20
# RFC 5321 section 7.8. Like Postfix's hard limit it starts again with each message that is taken.
ERROR_LIMIT = 20
# From then on each error costs a stranger time; Postfix's soft limit is as high.
PATIENT_ERRORS = 10


class Session(Connection):
    """A connection of a client. Made by `connection()` of the one prototype that each listener has."""

    def __init__(self, intake: "Intake", door: "Door", loop: asyncio.AbstractEventLoop) -> None:
        """A prototype. It takes aiosmtpd's constructor 120 us to look for methods: too long for each connection."""
        self.command_size_limits = collections.defaultdict(lambda: COMMAND_LIMIT)  # the class's is shared by all
        super().__init__(object(), hostname=intake.terms.hostname, data_size_limit=None, loop=loop)
        self.intake = intake
        self.door = door

    def connection(self) -> "Session":
        """A session for a new connection: the prototype's attributes, and a stream of its own.

        AUTH is ours (`auth`): the methods of aiosmtpd's would be bound to the prototype.
        """
        session = Session.__new__(Session)
        session.__dict__.update(self.__dict__)
        reader = asyncio.StreamReader(loop=self.loop)
        asyncio.StreamReaderProtocol.__init__(session, reader, session._cb_client_connected, self.loop)
        session._start()
        return session

    def _start(self) -> None:
        self.begin()
        self.client = ""
        self.client_name = ""  # what a front end says the client is called
        self.address: Address | None = None
        self.front: Address | None = None  # who is connected, if it may speak for clients by XCLIENT
        self.local: Address | None = None
        self.network: Network | None = None
        self.rules = self.intake.rules
        self.helo = ""
        self.protocol = ""
        self.user = ""  # the account, from a successful AUTH on
        self.certificate = ""  # SHA-256 fingerprint of the client's certificate, if it has shown one
        self.exchange: auth.Exchange | None = None  # between AUTH and its last reply
        self.auth_failures = 0
        self.tls = ""  # what was agreed in the handshake: see Envelope.tls
        self.greeted = False
        self.announcing = False  # the client is not known before its front end has sent a PROXY header
        self.opening = b""  # of our Received lines
        self.messages = 0  # begun on this connection
        self.since = self.loop.time()  # when it began, or its last message was kept
        self.counted: int | None = None  # as which client, by `limits`
        self.stranger = False  # counted as one, by `limits`
        self.idle = 0  # commands that brought no message nearer, since the beginning or the last one that was kept
        self.unread = False  # the client does not read its replies
        self._position = 0
        self._skipped = 0  # octets of an over-long command

    # -- the connection ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.layer is not None:  # by the layer: this transport is its own
            return starttls.secured(self, transport)
        peer = transport.get_extra_info("peername")
        try:
            self.address = parse_client(peer[0])
            self.local = parse_client(transport.get_extra_info("sockname")[0])
        except (TypeError, ValueError, IndexError):  # the client is gone already
            self.transport = transport
            transport.abort()
            return
        self.client = str(self.address)
        if self.door.announces(self.address):
            proxy.expect_header(self, transport)
        else:
            self.enter(transport)

    def enter(self, transport: asyncio.Transport, ahead: bytes = b"") -> None:
        """It is known who the client is: let it in, or tell it why not. `ahead`: what it has said already."""
        self.front = self.address
        self.network = self.rules.network_of(self.address)
        refusal = self.intake.admit(self)
        if refusal is not None:
            self.transport = transport
            self.closing = True
            if self.door.tls != "implicit":
                transport.write(reply_line(refusal.reply))
            transport.close()
        elif self.door.tls == "implicit":
            self.transport = transport
            starttls.begin(self, self.door.context, ahead)
        else:
            self._input = ahead
            self.greet(transport)

    def greet(self, transport: asyncio.Transport) -> None:
        """Let aiosmtpd take over the connection; it calls `_handle_client`."""
        super().connection_made(transport)

    async def _handle_client(self) -> None:
        """aiosmtpd's task for a new connection: what comes before the first command."""
        if early.talks(self, self._input):
            return early.refuse(self)
        self.send(b"220 " + self.intake.terms.hostname.encode("ascii") + b" ESMTP mailtui\r\n")
        self.expect(self.intake.timeouts.command)
        self.greeted = True
        self.resume()

    def connection_lost(self, error: Exception | None) -> None:
        # Not aiosmtpd's: it cancels what the session waits for.
        if self.transport is None:
            return
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
            self._timeout_handle = None
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None
        self._input = b""
        if not self.busy:
            self.reset()
        self.intake.forget(self)

    def eof_received(self) -> bool | None:
        # Not aiosmtpd's: a client that has said all it has to say still gets its replies.
        self._ended = True
        return self.busy and not self.closing and not self.secure  # which knows no half of a connection

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._input = self._input + data if self._input else data
        if not self.busy and not self.unread:
            self.advance()
        elif self.announcing:
            proxy.receive(self, self._input)
        elif len(self._input) > READ_AHEAD and not self._not_reading and self.transport is not None:
            self._not_reading = True
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = True

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread = False
        if not self.busy:
            self.resume()

    # -- commands in -------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Work off what has come, until more is needed, something has to be waited for, or it is others' turn."""
        turn = TURN
        try:
            while self._position < len(self._input) and not self.busy:
                if self.reception is not None:
                    data = self._input[self._position :] if self._position else self._input
                    self._input, self._position = b"", 0
                    self.reception.receive(data)
                    continue
                if self._skipped:
                    if not self._skip():
                        break
                    continue  # its refusal may be one to wait for
                position = self._position
                end = self._input.find(b"\r\n", position)
                if end < 0:
                    break
                line = self._input[position:end]
                self._position = end + 2
                self._deadline = 0.0  # the time for the next command begins when this one is done
                self._execute(line)
                turn -= 1
                if not turn and not self.busy and not self.closing:
                    self._end_turn()
        except Exception as error:
            self._blame(error)
        if self._position and not self.busy:  # else it goes on from there: no copy of all that waits for each turn
            self._input, self._position = self._input[self._position :], 0
        if self._replies:
            self.flush()
        if self.busy or self.closing:
            return
        if self.draining and self.transaction is None:
            self.hang_up(421, *self.farewell)
        elif self._ended:
            self.quit()
        else:
            if not self._deadline:
                self.expect(self.intake.timeouts.command)
            if len(self._input) >= COMMAND_LIMIT and not self._skipped and auth.too_long(self, self._input):
                self._skipped = len(self._input)
                self._input = self._input[-1:]

    def _skip(self) -> bool:
        """Read an over-long command to its end without keeping it; its tail is not another command."""
        end = self._input.find(b"\r\n")
        if end >= 0:
            self._position, self._skipped = end + 2, 0
            auth.refuse_long(self)
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
            return self.hang_up(421, *self.farewell)
        if len(line) > COMMAND_LIMIT - 2 and auth.too_long(self, line):
            return auth.refuse_long(self)
        if self.exchange is not None:
            return auth.respond(self, line)
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
        amid = self.reception is not None
        self.reset()
        if not amid:
            self.send(b"451 4.3.0 Internal error, try again later\r\n")
        else:  # amid the data: what follows may be no command (standards: M09)
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

    def _end_turn(self) -> None:
        """Let the loop look after others: whoever sends commands without end must not keep everybody waiting."""
        self.busy = True
        self.expect(self.intake.timeouts.command)
        self.loop.call_soon(self.resume)

    def resume(self) -> None:
        """What was waited for is over."""
        self.busy = False
        if self.transport is None or self.closing:
            return self.reset()
        if self.unread:
            return None
        self.advance()
        if self._not_reading and not self.busy and not self.closing:  # all that was read is worked off
            self._not_reading = False
            self.transport.resume_reading()
        return None

    # -- for the commands --------------------------------------------------------------------------------------------

    def fail(self, code: int, enhanced: str, text: str) -> None:
        """Refuse a command; a permanent refusal counts as an error of the client."""
        if code >= 500:
            self.errors += 1
            if self.errors > PATIENT_ERRORS:
                self._slow_down()
        # RFC 6531 section 3.7.4: UTF-8 only for a client that has said that it knows it.
        utf8 = self.transaction is not None and self.transaction.parameters.smtputf8
        self.send(reply_line(Reply(code, enhanced, text), utf8=utf8))

    def _slow_down(self) -> None:
        """Let a stranger that makes many errors wait before its next command is looked at: it guesses recipients, or
        worse. What is waited for already is slow enough."""
        pause = self.intake.timeouts.error_pause
        if self.busy or not pause or self.intake.limits.trusts(self):
            return
        self.busy = True
        self.expect(self.intake.timeouts.command)
        self.loop.call_later(pause, self.resume)

    def refuse(self, error: SmtpError, sender: str = "", recipient: str = "", destination: str = "") -> None:
        """Refuse a sender, a recipient or a message, and tell the log and the history."""
        reply = error.reply
        if reply.code == 421:
            self.hang_up(421, reply.enhanced, reply.text)
        else:
            self.fail(reply.code, reply.enhanced, reply.text)
        self.intake.refused(self, reply, error.rule, sender, recipient, destination)

    def forget_input(self) -> None:
        """Nothing of what has come is worked off."""
        self._input, self._position, self._skipped = b"", 0, 0

    def hand_back(self, rest: bytes) -> None:
        """Octets behind the end of the data: the next command."""
        self._input = rest + self._input[self._position :]
        self._position = 0

"""CHUNKING, RFC 3030: the message comes in chunks of a known size, by BDAT instead of DATA.

Promises: every BDAT is answered once, after its octets were read, also where it is refused, so that client and relay
stay in step (section 2); a message is taken with LAST and not before; its octets are those of the client (no dots are
stuffed here), under the rules that DATA has for size, lines, bare CR and LF, and memory; where the last line has no
CRLF it gets one, for else the message could not go on by DATA. A size that cannot be read ends the session: nobody
knows then where the next command begins.
"""

import re
from typing import TYPE_CHECKING

from mailtui.intake.reception import Reception
from mailtui.intake.transaction import Transaction
from mailtui.model import Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# Octets are counted in digits as many as any disk needs; 2^64 and what stands for it by overflow is none.
_ARGUMENT = re.compile(rb"([0-9]{1,18})(?: +(.*))?", re.DOTALL)


def bdat(session: "Session", argument: bytes) -> None:
    """The command BDAT."""
    match = _ARGUMENT.fullmatch(argument)
    if match is None:
        session.errors += 1
        return session.hang_up(501, "5.5.4", "Syntax: BDAT size [LAST]; closing, for the next command cannot be found")
    size, word = int(match[1]), match[2] or b""
    transaction = session.transaction
    if word and word.upper() != b"LAST":
        return _drop(session, size, Reply(501, "5.5.4", "Syntax: BDAT size [LAST]"))
    if transaction is None:
        return _drop(session, size, Reply(503, "5.5.1", "Give the sender first: MAIL FROM:<address>"))
    if not transaction.recipients:
        return _drop(session, size, Reply(554, "5.5.1", "No valid recipients"))
    if transaction.chunks is None and session.intake.full:
        session.flush()
        return session.wait_for(_when_there_is_room(session, transaction, size, last=bool(word)))
    return _take(session, transaction, size, last=bool(word))


async def _when_there_is_room(session: "Session", transaction: Transaction, size: int, *, last: bool) -> None:
    await session.intake.room()
    if session.transport is not None and not session.closing:
        _take(session, transaction, size, last=last)


def _take(session: "Session", transaction: Transaction, size: int, *, last: bool) -> None:
    chunks = transaction.chunks
    if chunks is None:
        chunks = transaction.chunks = ChunkedReception(session, transaction)
    chunks.take(size, last=last)


def _drop(session: "Session", size: int, reply: Reply) -> None:
    """Refuse a chunk when its octets have come and gone (RFC 3030 section 2)."""
    session.reception = Dropped(session, size, reply)
    if not size:
        session.reception.receive(b"")


class Dropped:
    """A chunk that nobody wants."""

    __slots__ = ("_left", "_reply", "_session", "_started", "total")

    def __init__(self, session: "Session", size: int, reply: Reply) -> None:
        self._session = session
        self._left = size
        self._reply = reply
        self._started = session.loop.time()
        self.total = 0

    def receive(self, octets: bytes) -> None:
        """The next octets from the client."""
        session, rest = self._session, octets[self._left :]
        self.total += len(octets) - len(rest)
        self._left -= len(octets) - len(rest)
        if self._left:
            session.expect_data(self._started, self.total)
            return
        session.reception = None
        session.hand_back(rest)
        session.fail(*self._reply_parts())
        session.expect(session.intake.timeouts.command)

    def _reply_parts(self) -> tuple[int, str, str]:
        return self._reply.code, self._reply.enhanced, self._reply.text

    def abandon(self) -> None:
        """There is nothing to give up."""
        self._session.reception = None


class ChunkedReception(Reception):
    """A message on its way in by BDAT. Between two chunks its transaction has it."""

    __slots__ = ("_carry", "_end", "_last", "_left", "_size", "_told")

    def __init__(self, session: "Session", transaction: Transaction) -> None:
        super().__init__(session, transaction)
        self._carry = b""  # a CR whose LF may be the next octet
        self._end = b""  # the last octet so far
        self._size = self._left = 0
        self._last = self._told = False

    def take(self, size: int, *, last: bool) -> None:
        """A BDAT command: the next `size` octets are of this message."""
        self._size = self._left = size
        self._last = last
        self._session.reception = self
        if size:
            self._expect_more()
        else:
            self._advance()

    def receive(self, chunk: bytes) -> None:
        """The next octets from the client, at least one."""
        left = self._left
        if len(chunk) > left:
            self._session.hand_back(chunk[left:])
            chunk = chunk[:left]
        self._left -= len(chunk)
        self.total += len(chunk)
        self._end = chunk[-1:]
        if self._carry:
            chunk = self._carry + chunk
        # The body takes pieces that never part a CR from its LF.
        self._carry = b"\r" if chunk[-1:] == b"\r" else b""
        self._add(chunk[:-1] if self._carry else chunk)
        if self._left:
            self._expect_more()
        self._advance()

    def _add(self, piece: bytes) -> None:
        if piece:
            self._body.add(piece)

    def _advance(self) -> None:
        """Some octets were taken, perhaps the last of the chunk."""
        ended, body = not self._left, self._body
        done = ended and self._last
        if done:
            self._add(self._carry)  # alone
            self._carry = b""
            if self._end not in (b"", b"\r", b"\n"):
                self._add(b"\r\n")
        if body.must_spill or (done and body.spool is not None and body.memory):
            self._session.wait_for(self._spill_chunk(ended))
        elif ended:
            self._answer()

    async def _spill_chunk(self, ended: bool) -> None:
        await self._store(whole=ended and self._last)
        if ended and not self._session.closing:
            self._answer()

    def _answer(self) -> None:
        """A chunk is here as a whole."""
        session = self._session
        if self._last:
            return self._finish()
        session.reception = None
        if self._body.refusal is not None:
            return self._refuse(self._body.refusal)
        session.send(b"250 2.0.0 %d octets received\r\n" % self._size)
        return session.expect(session.intake.timeouts.command)

    def _refuse(self, refusal: SmtpError) -> None:
        """Each chunk of a refused message has its reply; the history is told once."""
        if self._told:
            session, reply = self._session, refusal.reply
            session.fail(reply.code, reply.enhanced, reply.text)
            return session.expect(session.intake.timeouts.command)
        self._told = True
        return super()._refuse(refusal)

"""The message in chunks instead of DATA (BDAT, RFC 3030 section 2): octets as they are, no dots, no search for ends.

Promises: every BDAT is answered before the session is used for anything else; the first refusal stops the message, and
what was not sent by then never is.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from mailtui.delivery.replies import BLOCK, FINAL_DOT
from mailtui.model import Reply

if TYPE_CHECKING:
    from mailtui.delivery.client import Session

# Chunks that may be on their way unanswered where the server takes pipelined commands (RFC 3030 section 4.2): enough
# that the pieces of a spool file keep a long line busy, few enough that a refusal is soon heard.
AHEAD = 4


class Chunks:
    """One message over a session whose transaction has recipients. Its methods raise SessionLost."""

    def __init__(self, session: "Session", *, pipelining: bool) -> None:
        self._session = session
        self._ahead = AHEAD - 1 if pipelining else 0  # answers that may be due when the next chunk is written
        self._unanswered = 0

    def send_body(self, body: bytes) -> None:
        """Send a message held in memory, in one chunk."""
        self._write(body if body.endswith(b"\r\n") else body + b"\r\n", last=True)

    async def send(self, pieces: AsyncIterator[bytes]) -> Reply | None:
        """Send a message, a chunk a piece. Returns the reply that refused one of them: the rest was not sent then."""
        held = tail = b""  # that a piece is the last one is known only when no other follows
        async for piece in pieces:
            if held:
                if (refusal := await self._heard(self._ahead)) is not None:
                    return refusal
                self._write(held, last=False)
                tail = held[-1:]
                await self._session.drained(BLOCK)
            held = piece
        if (refusal := await self._heard(self._ahead)) is not None:
            return refusal
        if not (tail + held).endswith(b"\r\n"):
            held += b"\r\n"
        self._write(held, last=True)
        return None

    async def answer(self) -> Reply:
        """The server's answer to the message that was sent whole: its first refusal, else its reply to the last."""
        while True:
            reply = await self._session.reply(FINAL_DOT, "the reply to the message")
            self._unanswered -= 1
            if reply.code // 100 != 2:
                await self._rest(reply)
                return reply
            if not self._unanswered:
                return reply

    def _write(self, octets: bytes, *, last: bool) -> None:
        command = b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"")
        self._session.write_unseen(command + octets, command)
        self._unanswered += 1

    async def _heard(self, most: int) -> Reply | None:
        """Take the answers that are there, and wait until at most `most` are due. Returns a refusal."""
        while self._unanswered:
            reply = self._session.ready()
            if reply is None:
                if self._unanswered <= most:
                    return None
                reply = await self._session.reply(BLOCK, "the reply to a chunk")
            self._unanswered -= 1
            if reply.code // 100 != 2:
                await self._rest(reply)
                return reply
        return None

    async def _rest(self, refusal: Reply) -> None:
        """After a refusal: the chunks behind it are answered too (RFC 3030 section 2: with 503)."""
        if refusal.code == 421:
            return
        while self._unanswered:
            reply = await self._session.reply(BLOCK, "the reply to a chunk")
            self._unanswered = 0 if reply.code == 421 else self._unanswered - 1

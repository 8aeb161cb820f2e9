"""The connection below a session: its replies, its clock and its end.

Promises: replies leave together where their commands came together (RFC 2920); each wait has one deadline, and when it
is over the client is told 421 before it is closed; what the client has not read yet is not lost to a reset, unless it
is closed for the sake of others; a message that is on its way to disk is answered first.
"""

import asyncio
import math
from typing import TYPE_CHECKING

from aiosmtpd.smtp import SMTP

from mailtui.intake.replies import line as reply_line
from mailtui.model import Reply

if TYPE_CHECKING:
    from mailtui.intake.chunking import Dropped
    from mailtui.intake.listener import Intake
    from mailtui.intake.reception import Reception
    from mailtui.intake.transaction import Transaction
    from mailtui.tls.serving import ServerLayer

# Why a session that drains is closed: enhanced code and text.
SHUTTING_DOWN = ("4.3.2", "Shutting down, try again later")


class Connection(SMTP):
    """What `session.Session` builds on. aiosmtpd's frame."""

    transport: asyncio.Transport | None
    intake: "Intake"

    def begin(self) -> None:
        """A new connection: nothing is said yet, and no time runs."""
        self.transaction: Transaction | None = None
        self.reception: Reception | Dropped | None = None  # between 354 and the reply to the dot, or in a chunk
        self.layer: ServerLayer | None = None  # TLS, from the beginning of the handshake on
        self.secure = self.handshaking = False
        self.busy = True  # until greeted
        self.committing = False  # busy with a message that is on its way to disk: nothing may close the connection
        self.closing = False
        self.draining = False
        self.farewell = SHUTTING_DOWN  # what is said when draining
        self.errors = 0
        self._input = b""
        self._ended = False  # the client will say no more
        self._not_reading = False
        self._replies: list[bytes] = []
        self._ends = self.loop.time() + self.intake.timeouts.session
        self._deadline = self._armed = math.inf
        self._timeout_handle = None

    # -- replies out -------------------------------------------------------------------------------------------------

    def send(self, reply: bytes) -> None:
        """A complete reply; it leaves when no further command is at hand, or with `flush`."""
        self._replies.append(reply)

    def flush(self) -> None:
        if self._replies:
            if self.transport is not None and not self.closing:
                self.transport.write(self._replies[0] if len(self._replies) == 1 else b"".join(self._replies))
            self._replies.clear()

    # -- the clock ---------------------------------------------------------------------------------------------------

    def expect(self, seconds: float) -> None:
        """Close with 421 unless called again within `seconds`. One timer a session, moved only when it fires."""
        deadline = self.loop.time() + seconds
        if deadline > self._ends:
            deadline = self._ends
        self._deadline = deadline
        if deadline < self._armed:
            self._arm(deadline)

    def expect_data(self, started: float, total: int) -> None:
        """Close with 421 unless the next block of data comes in time, and all of it at a certain pace on the whole."""
        timeouts = self.intake.timeouts
        slowest = started + timeouts.data_start + total / timeouts.data_rate
        self.expect(min(timeouts.data_block, slowest - self.loop.time()))

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
        if self.handshaking:  # there is no way to say it
            return self.abort()
        self.send(reply_line(Reply(code, enhanced, f"{self.intake.terms.hostname} {text}")))
        self.flush()
        self._close()
        self.expect(self.intake.timeouts.linger)
        if self._ended:
            self.transport.close()
        elif self.layer is not None:
            self.layer.end_writing()
        else:
            self.transport.write_eof()

    def quit(self) -> None:
        """Close when the replies have left; nothing that came behind QUIT is looked at."""
        self.flush()
        self._close()
        if self.transport is not None:
            if self.secure or self.transport.get_write_buffer_size():
                self.expect(self.intake.timeouts.linger)
            self.transport.close()

    def _close(self) -> None:
        self.closing = True
        self._input = b""
        self._ends = math.inf
        if not self.busy:
            self.reset()
        if self._not_reading and self.transport is not None:
            self._not_reading = False
            self.transport.resume_reading()

    def leave(self, enhanced: str, text: str) -> None:
        """End the session for the sake of others: its last word is sent, but nobody waits until it is read."""
        if self.transport is None:
            return None
        # Nobody reads a last word that stands behind others, and one that was said is not said again; what holds on
        # nevertheless must not keep its descriptor.
        if self.handshaking or self.closing or self.transport.get_write_buffer_size():
            return self.abort()
        self.send(reply_line(Reply(421, enhanced, f"{self.intake.terms.hostname} {text}")))
        self.flush()
        self._close()
        if self.layer is not None:
            return self.layer.leave()
        self.expect(self.intake.timeouts.linger)
        return self.transport.close()

    def drain(self) -> None:
        """The relay stops: no new message; a client that is not in the middle of one is told at once."""
        self.draining = True
        if self.transaction is None and not self.busy:
            self.hang_up(421, *self.farewell)

    def dismiss(self, enhanced: str, text: str) -> None:
        """End the session now; what is on its way to disk is answered first."""
        self.draining, self.farewell = True, (enhanced, text)
        if not self.committing:
            self.hang_up(421, enhanced, text)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def reset(self) -> None:
        """End the transaction; what has come of its message is not kept."""
        transaction, self.transaction = self.transaction, None
        if self.reception is not None:
            self.reception.abandon()
        if transaction is not None and transaction.chunks is not None:
            transaction.chunks.abandon()

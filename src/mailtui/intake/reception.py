"""From DATA to the reply after the dot: the message is read, judged, and given to the queue.

Promises: 250 is said only when the queue has the message on disk; before the final dot nothing is queued, after it the
message is taken once, whether or not the client is still there to hear it (RFC 5321 section 4.1.1.10); what is refused
is not kept.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from mailtui.ids import encode
from mailtui.intake import received
from mailtui.intake.access import trusted
from mailtui.intake.data import END, Body, Decoder
from mailtui.intake.header import HeaderFacts, scan
from mailtui.intake.submission import missing_fields
from mailtui.intake.transaction import Transaction
from mailtui.model import Envelope, Message, SmtpError

if TYPE_CHECKING:
    from mailtui.intake.session import Session


def begin(session: "Session", transaction: Transaction) -> None:
    """Answer DATA with 354; what comes now is the message."""
    session.reception = Reception(session, transaction)
    session.send(b"354 End data with <CR><LF>.<CR><LF>\r\n")
    session.flush()
    session.expect(session.intake.timeouts.data_block)


class Reception:
    """A message on its way in."""

    __slots__ = (
        "_body", "_decoder", "_message_id", "_number", "_session", "_started", "_trace", "_transaction", "_word",
        "total",
    )  # fmt: skip

    def __init__(self, session: "Session", transaction: Transaction) -> None:
        intake = session.intake
        recipients = transaction.recipients
        only = next(iter(recipients.values())).text if len(recipients) == 1 else ""
        self._session = session
        self._transaction = transaction
        self._number = intake.queue.next_id()
        self._word = encode(self._number).encode("ascii")
        opening = transaction.opening or session.opening
        self._trace = opening + self._word + received.closing(only, intake.dates.text())
        self._body = Body(intake.terms.message_size, intake.terms.normalize, intake.budget)
        self._decoder: Decoder | None = None
        self._message_id = ""  # that we added
        self._started = session.loop.time()
        self.total = 0  # octets so far

    def receive(self, chunk: bytes) -> None:
        """The next octets from the client, at least one."""
        body = self._body
        if self._decoder is None and chunk[-5:] == END and chunk[0] != 46 and chunk.find(b"\r\n.") == len(chunk) - 5:
            # Nearly every message: here in one piece, and no line but the last begins with a dot.
            body.add(chunk[:-3])
            done = True
        else:
            decoder = self._decoder
            if decoder is None:
                decoder = self._decoder = Decoder()
            body.add(decoder.feed(chunk))
            done = decoder.done
            if done:
                self._session.hand_back(decoder.rest)
            else:
                self.total += len(chunk)
                self._expect_more()
        if body.must_spill or (done and body.spool is not None and body.memory):
            self._session.wait_for(self._spill(done))
        elif done:
            self._finish()

    def _expect_more(self) -> None:
        """A block must come in time, and the whole at a certain pace."""
        self._session.expect_data(self._started, self.total)

    async def _store(self, *, whole: bool) -> None:
        """Move to disk what is in memory; `whole`: nothing more will come."""
        queue, number = self._session.intake.queue, self._number
        if self._body.spool is None and self._session.door.role == "submission":
            self._complete(self._body.held(), whole=whole)
        await self._body.spill(self._trace, lambda: queue.open_spool(number))

    async def _spill(self, done: bool) -> None:
        await self._store(whole=done)
        if done and not self._session.closing:  # lost connections go on: the dot was seen
            self._finish()

    def _complete(self, beginning: bytes, *, whole: bool) -> None:
        """Add what a submitted message lacks."""
        intake = self._session.intake
        lines, self._message_id = missing_fields(
            beginning, self._word, intake.terms.hostname, intake.dates.text(), whole=whole
        )
        self._trace += lines

    def _finish(self) -> None:
        """The dot was seen: refuse the message, or give it to the queue and answer when it is kept."""
        session, body, transaction = self._session, self._body, self._transaction
        intake, terms = session.intake, session.intake.terms
        session.transaction = session.reception = None
        content: bytes | None = None
        facts = body.facts
        if body.refusal is None and body.spool is None:
            content = body.take()
            facts = scan(content)
            if session.door.role == "submission":
                self._complete(content, whole=True)
            content = self._trace + content
        refusal = body.refusal or intake.queue.refusal() or _too_many_hops(facts, terms.hops)
        if refusal is not None or facts is None:
            assert refusal is not None
            body.abandon()
            self._refuse(refusal)
            return
        if self._message_id:
            facts = replace(facts, message_id=self._message_id)
        envelope = Envelope(
            transaction.text,
            intake.clock.now(),
            len(self._trace) + body.size,
            client=session.client,
            helo=session.helo,
            listener=session.door.name,
            protocol=session.protocol,
            eight_bit=body.eight_bit,
            tls=session.tls,
            user=session.user,
            trusted=trusted(session.rules, transaction.question),
        )
        message = transaction.message(self._number, envelope, facts, terms, content)
        try:
            kept = intake.queue.accept(message, body.spool)
        except BaseException:
            body.abandon()
            raise
        body.spool = None  # the queue's from now on
        session.busy = session.committing = True
        # A callback and no task: nothing that happens to the connection can interrupt it.
        kept.add_done_callback(lambda future: self._kept(message, future))

    def _kept(self, message: Message, future: "asyncio.Future[None]") -> None:
        """The queue has answered."""
        session, intake = self._session, self._session.intake
        error: BaseException | None = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            session.errors = session.idle = 0
            session.since = session.loop.time()
            session.send(b"250 2.0.0 queued as " + self._word + b"\r\n")
            intake.accepted(message)
        elif isinstance(error, SmtpError):
            self._refuse(error)
        else:
            intake.events.emit("error", level="error", id=message.id, text=f"cannot keep a message: {error!r}")
            self._refuse(SmtpError(451, "4.3.0", "Cannot keep the message now, try again later", "store"))
        intake.wake()
        session.committing = False
        session.expect(intake.timeouts.command)
        session.flush()
        session.resume()

    def _refuse(self, refusal: SmtpError) -> None:
        """The reply to the dot (RFC 5321 section 4.2.5)."""
        session, reply = self._session, refusal.reply
        session.fail(reply.code, reply.enhanced, reply.text)
        for mailbox in self._transaction.recipients.values():
            session.intake.refused(
                session, reply, refusal.rule, self._transaction.text, mailbox.text, mailbox.destination
            )
        session.flush()
        session.expect(session.intake.timeouts.command)

    def abandon(self) -> None:
        """The client is gone before the dot: keep nothing."""
        self._session.reception = None
        self._body.abandon()


def _too_many_hops(facts: HeaderFacts | None, limit: int) -> SmtpError | None:
    """RFC 5321 section 6.3: with our own line there would be more than the limit."""
    if facts is None or facts.hops < limit:
        return None
    text = f"Too many hops: {facts.hops} Received lines; this looks like a mail loop"
    return SmtpError(554, "5.4.6", text, "hops")

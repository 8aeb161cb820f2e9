"""One mail transaction over an open session.

Promises: with PIPELINING, MAIL, RCPTs and DATA go out in one write (RFC 2920; with CHUNKING, MAIL and RCPTs); every
recipient has a reply of its own; no octet of the message is sent unless a recipient was accepted; nothing but our own
validated addresses reaches a command line.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mailtui.delivery import lmtp
from mailtui.delivery.chunking import Chunks
from mailtui.delivery.client import Session
from mailtui.delivery.parameters import mail_command, rcpt_command
from mailtui.delivery.replies import COMMAND, DATA, FINAL_DOT, SessionLost
from mailtui.delivery.verdict import judge, judge_recipient, trouble
from mailtui.model import Message, Outcome, Recipient, Reply, Verdict


@dataclass(slots=True)
class Result:
    """What a transaction came to: a verdict for each recipient that got one, in order; and whether the session is over.

    `ended`: the verdict that the loss of the session means for those without one. `limited`: the server asked us, by a
    421 that names a policy or a rate, to stay away; no other host is tried. `doubtful`: the message was sent whole, but
    no reply came: it may arrive twice. `stale`: the session was over before any command was answered."""

    verdicts: dict[int, Verdict] = field(default_factory=dict)
    ended: Verdict | None = None
    limited: bool = False
    doubtful: bool = False
    stale: bool = False

    def delivered(self, recipients: Sequence[Recipient]) -> bool:
        """Whether all of them were."""
        verdicts = self.verdicts
        return len(verdicts) == len(recipients) and all(v.outcome is Outcome.DELIVERED for v in verdicts.values())


async def transact(
    session: Session, message: Message, recipients: Sequence[Recipient], pieces: Callable[[int], Iterator[bytes]]
) -> Result:
    """Send `message` to `recipients`. Never raises for what the server does; see Result.

    `pieces` gives the octets of a spooled message; it is read in a thread."""
    result = Result()
    pipelining, chunking = "pipelining" in session.extensions, session.chunking
    sending = sent_dot = answered = False
    try:
        extensions = session.extensions
        commands = [mail_command(message, recipients, extensions)]
        commands += [rcpt_command(r, message, extensions) for r in recipients]
        session.begin()
        if pipelining:
            session.write(b"".join(commands) if chunking else b"".join(commands) + b"DATA\r\n")
        else:
            session.write(commands[0])
        accepted: list[Recipient] = []
        reply = await session.reply(COMMAND, "the reply to MAIL")
        answered = reply.code != 421
        refused = None if reply.code // 100 == 2 else judge(reply)
        if reply.code == 421:
            result.stale = True
            return _closing(session, result, reply.enhanced, refused)
        if refused and not pipelining:
            _everybody(result, recipients, refused)
            await _reset(session)
            return result
        for recipient, command in zip(recipients, commands[1:], strict=True):
            if not pipelining:
                session.write(command)
            reply = session.ready() or await session.reply(COMMAND, "the reply to RCPT")
            if reply.code == 421:
                return _closing(session, result, reply.enhanced, judge(reply))
            if reply.code // 100 == 2 and refused is None:
                accepted.append(recipient)
            else:
                result.verdicts[recipient.ordinal] = refused or judge_recipient(reply, len(accepted))
        if chunking or not pipelining:
            if not accepted:
                await _reset(session)
                return result
            if not chunking:
                session.write(b"DATA\r\n")
        if chunking:
            chunks, refusal = Chunks(session, pipelining=pipelining), None
            if message.body is not None:
                chunks.send_body(message.body)
            else:
                refusal = await chunks.send(_in_thread(pieces(message.id)))
            sent_dot = refusal is None
            reply = refusal or await chunks.answer()
            sent_dot = False
            return await _chunked(session, result, accepted, reply)
        reply = session.ready() or await session.reply(DATA, "the reply to DATA")
        if reply.code == 421:
            return _closing(session, result, reply.enhanced, judge(reply))
        if reply.code != 354:
            _everybody(result, accepted, judge(reply) if reply.code // 100 in (4, 5) else _out_of_step(str(reply)))
            if reply.code // 100 in (4, 5):
                await _reset(session)  # MAIL may stand: the next one would be answered "nested MAIL"
            else:
                session.close()
            return result
        if not accepted:
            # The server wants data for nobody (RFC 2920 section 3.2): it gets none. In LMTP nobody would answer it.
            if session.lmtp:
                session.close()
                return result
            session.write(b".\r\n")
            await session.reply(FINAL_DOT, "the reply to an empty message")
            return result
        if message.body is not None:
            session.send_body(message.body)
        else:
            sending = True
            await session.stream(_in_thread(pieces(message.id)))
        sent_dot = True
        if session.lmtp:
            closing = await lmtp.outcomes(session, accepted, result.verdicts)
            return result if closing is None else _closing(session, result, closing.enhanced, judge(closing))
        reply = await session.reply(FINAL_DOT, "the reply to the message")
        if reply.code == 421:
            return _closing(session, result, reply.enhanced, judge(reply))
        _everybody(result, accepted, judge(reply))
    except SessionLost as lost:
        session.close()
        result.doubtful = sent_dot
        result.stale = not answered
        text = f"{session.host} [{session.address}]: {lost.text}"
        if sent_dot:
            text += " after the message had been sent: it may arrive twice"
        result.ended = trouble(text, "4.4.2", "session-lost")
        if lost.reply is not None and lost.reply.code == 421:
            result.ended = judge(lost.reply, "421")
            result.limited = lost.reply.enhanced.startswith("4.7.")
        elif lost.reply is not None and sending and lost.reply.code // 100 in (4, 5):
            result.ended = judge(lost.reply)  # it has read enough: that is its answer to the message
    except OSError as error:
        # Our own copy of the message cannot be read: the server must not take what was sent of it.
        session.close()
        result.ended = trouble(f"the message cannot be read from the spool: {error}", "4.3.0", "spool")
    return result


async def _chunked(session: Session, result: Result, accepted: Sequence[Recipient], reply: Reply) -> Result:
    """What the server's answer to a message in chunks means."""
    if reply.code == 421:
        return _closing(session, result, reply.enhanced, judge(reply))
    if reply.code in (500, 502):
        # It offers CHUNKING and does not know BDAT: it has read our octets as commands.
        session.chunking_unknown = True
        session.close()
        text = f"{session.where} offers CHUNKING and answered BDAT with: {reply}; it gets DATA from now on"
        result.ended = trouble(text, "4.5.0", "chunking")
        return result
    _everybody(result, accepted, judge(reply))
    if reply.code // 100 in (4, 5):
        await _reset(session)
    elif reply.code // 100 != 2:
        session.close()
    return result


async def _reset(session: Session) -> None:
    session.write(b"RSET\r\n")
    await session.reply(COMMAND, "the reply to RSET")


def _everybody(result: Result, recipients: Sequence[Recipient], verdict: Verdict) -> None:
    for recipient in recipients:
        result.verdicts.setdefault(recipient.ordinal, verdict)


def _closing(session: Session, result: Result, enhanced: str, verdict: Verdict | None) -> Result:
    """421: the server closes the channel, whatever we were doing (RFC 5321 section 3.8)."""
    session.close()
    result.ended = verdict
    result.limited = enhanced.startswith("4.7.")
    return result


def _out_of_step(what: str) -> Verdict:
    return trouble(f"unexpected reply to DATA: {what}", "4.5.0", "out-of-step")


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while piece := await loop.run_in_executor(None, next, pieces, b""):
        yield piece

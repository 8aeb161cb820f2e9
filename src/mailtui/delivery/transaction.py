"""One mail transaction over an open session.

Promises: with PIPELINING, MAIL, RCPTs and DATA go out in one write (RFC 2920); every recipient has a reply of its own;
no octet of the message is sent unless a recipient was accepted; nothing but our own validated addresses reaches a
command line.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mailtui.delivery.client import COMMAND, DATA, FINAL_DOT, Session, SessionLost
from mailtui.delivery.verdict import judge, judge_recipient, trouble
from mailtui.model import Message, Outcome, Recipient, Verdict

_CONTROL = re.compile(r"[\x00-\x20\x7f<>]")

# A quoted local part may hold blanks and angle brackets (RFC 5321 section 4.1.2); controls never.
_CONTROL_QUOTED = re.compile(r"[\x00-\x1f\x7f]")


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


def unsendable(message: Message, recipients: Sequence[Recipient], extensions: dict[str, str]) -> Verdict | None:
    """Why this server cannot be given this message as it is: no conversion is ever made (standards C1)."""
    if message.envelope.eight_bit and "8bitmime" not in extensions:
        return Verdict(
            Outcome.BOUNCED, 554, "5.6.3", "the message has 8-bit content and no host of the next hop takes 8BITMIME",
            rule="8bitmime",
        )  # fmt: skip
    if not (message.envelope.sender.isascii() and all(r.address.isascii() for r in recipients)):
        return Verdict(
            Outcome.BOUNCED, 553, "5.6.7", "a non-ASCII address and no SMTPUTF8 at the next hop", rule="smtputf8"
        )
    return None


async def transact(
    session: Session, message: Message, recipients: Sequence[Recipient], pieces: Callable[[int], Iterator[bytes]]
) -> Result:
    """Send `message` to `recipients`. Never raises for what the server does; see Result.

    `pieces` gives the octets of a spooled message; it is read in a thread."""
    result = Result()
    pipelining = "pipelining" in session.extensions
    sending = sent_dot = answered = False
    try:
        commands = [_mail(message, session.extensions)] + [_rcpt(r) for r in recipients]
        session.begin()
        if pipelining:
            session.write(b"".join(commands) + b"DATA\r\n")
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
        if not pipelining:
            if not accepted:
                await _reset(session)
                return result
            session.write(b"DATA\r\n")
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
            # The server wants data for nobody (RFC 2920 section 3.2): it gets none.
            session.write(b".\r\n")
            await session.reply(FINAL_DOT, "the reply to an empty message")
            return result
        if message.body is not None:
            session.send_body(message.body)
        else:
            sending = True
            await session.stream(_in_thread(pieces(message.id)))
        sent_dot = True
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


def _mail(message: Message, extensions: dict[str, str]) -> bytes:
    command = b"MAIL FROM:<" + _address(message.envelope.sender) + b">"
    if "size" in extensions:
        command += b" SIZE=%d" % message.envelope.size
    if message.envelope.eight_bit:
        command += b" BODY=8BITMIME"
    return command + b"\r\n"


def _rcpt(recipient: Recipient) -> bytes:
    return b"RCPT TO:<" + _address(recipient.address) + b">\r\n"


def _address(address: str) -> bytes:
    """An address as octets of a command. It was parsed when it was accepted; this is the net under that."""
    if (_CONTROL_QUOTED if address.startswith('"') else _CONTROL).search(address):
        raise SessionLost("an address with a control character is not sent")
    return address.encode("ascii")


async def _in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    while piece := await loop.run_in_executor(None, next, pieces, b""):
        yield piece

"""The SMTP commands, RFC 5321 section 4.1, as functions of a session and an argument.

Promises: the order of commands is that of RFC 5321 section 4.1.4; each command answers exactly once; enhanced codes
are those of RFC 3463 and 5248, on everything but the greeting, EHLO and HELO (RFC 2034 section 4).
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mailtui.address import Mailbox
from mailtui.intake import received
from mailtui.intake.access import ACCEPT, Question, decide, parse_recipient, parse_sender
from mailtui.intake.auth import auth
from mailtui.intake.chunking import bdat
from mailtui.intake.parameters import NONE, RcptParameters, mail_parameters, rcpt_parameters
from mailtui.intake.reception import begin
from mailtui.intake.starttls import starttls
from mailtui.intake.transaction import Transaction
from mailtui.intake.xclient import ATTRIBUTES, xclient
from mailtui.model import SmtpError

if TYPE_CHECKING:
    from mailtui.intake.session import Session

Command = Callable[["Session", bytes], None]

# A place for the next recipient in the rules' question.
NO_RECIPIENT = SmtpError(503, "5.5.1", "No recipient", "recipient-syntax")

# RFC 5321 section 4.5.3.1.2: a name in EHLO is a domain.
HELO_LIMIT = 255
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")

# Recipients beyond the limit that a client may name before each of them is an error: as many as a client pipelines
# before it reads a reply. Postfix's smtpd_recipient_overshoot_limit.
EXCESS = 1000

_WITHOUT_SMTPUTF8 = "it holds characters above 127, which need SMTPUTF8"

# The first words of HTTP requests and of other protocols that browsers can be made to speak (ALPACA): whoever sends
# one is no mail client, and what follows may be written by a third party.
_FOREIGN = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"PRI"})


def _helo(session: "Session", argument: bytes) -> None:
    if _greet(session, argument, "SMTP"):
        session.send(b"250 " + session.intake.terms.hostname.encode("ascii") + b"\r\n")


def _ehlo(session: "Session", argument: bytes) -> None:
    if _greet(session, argument, received.esmtp(secure=session.secure, authenticated=session.user != "")):
        session.send(session.door.ehlo(secure=session.secure, front=session.front))
        session.flush()


def _greet(session: "Session", argument: bytes, protocol: str) -> bool:
    """EHLO and HELO: any name is taken (RFC 5321 section 4.1.4), and a transaction ends."""
    if not argument or len(argument) > HELO_LIMIT or not argument.isascii() or _CONTROL.search(argument):
        session.fail(501, "", "Say your host name: EHLO host.example.org")
        return False
    session.helo = argument.decode("ascii")
    session.protocol = protocol
    session.reset()
    session.opening = _opening(session, protocol)
    return True


def _opening(session: "Session", protocol: str) -> bytes:
    """The beginning of our Received lines, for a `with` clause."""
    return received.opening(
        session.helo, session.client, session.client_name, session.intake.terms.hostname, protocol, session.tls
    )


def _mail(session: "Session", argument: bytes) -> None:
    if not session.helo:
        return session.fail(503, "5.5.1", "Say EHLO or HELO first")
    if session.transaction is not None:
        return session.fail(503, "5.5.1", "Sender was given already")
    if argument[:5].upper() != b"FROM:":
        return session.fail(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    if session.door.demands_auth and not session.user:
        return session.refuse(SmtpError(530, "5.7.0", "Authentication required", "authentication"))
    sender = None
    utf8 = not argument.isascii()
    try:
        sender, rest = parse_sender(argument[5:].lstrip(b" "), utf8=utf8)
        parameters = NONE
        if rest:
            size, offered = session.intake.terms.message_size, session.door.offers_auth(secure=session.secure)
            parameters = mail_parameters(rest, size, auth=offered)
        if utf8 and not parameters.smtputf8:
            raise SmtpError(553, "5.6.7", f"Sender address: {_WITHOUT_SMTPUTF8}", "sender-syntax")
        refusal = session.intake.queue.refusal() or session.intake.limits.message(session)
        if refusal is not None:
            raise refusal
    except SmtpError as error:
        return session.refuse(error, sender.text if sender is not None else "")
    transaction = session.transaction = Transaction(sender, _question(session, sender), parameters)
    if parameters.smtputf8:
        transaction.protocol = received.utf8_protocol(session.protocol)
        transaction.opening = _opening(session, transaction.protocol)
    return session.send(b"250 2.1.0 Sender ok\r\n")


def _question(session: "Session", sender: Mailbox | None) -> Question:
    """What the rules are asked for each recipient of a transaction; from here on those of the last reload hold."""
    if session.rules is not session.intake.rules:
        session.rules = session.intake.rules
        session.network = session.rules.network_of(session.address)
        session.intake.limits.regard(session)
    return Question(
        client=session.address,
        sender=sender,
        recipient=NO_RECIPIENT,
        network=session.network,
        user=session.user,
        helo=session.helo,
        listener=session.door.name,
        role="submission" if session.door.demands_auth else "relay",
        local=session.local,
        tls=session.secure,
        certificate=session.certificate,
        grant=session.intake.grants.find(session.address) if session.intake.grants else None,
    )


def _rcpt(session: "Session", argument: bytes) -> None:
    transaction = session.transaction
    if transaction is None:
        return session.fail(503, "5.5.1", "Give the sender first: MAIL FROM:<address>")
    if transaction.chunks is not None:
        return session.fail(503, "5.5.1", "The message has begun; no recipient is added now")
    if argument[:3].upper() != b"TO:":
        return session.fail(501, "5.5.4", "Syntax: RCPT TO:<address>")
    question = transaction.question
    text = destination = ""
    asked: RcptParameters | None = None
    utf8 = transaction.parameters.smtputf8
    try:
        try:
            mailbox, parameters = parse_recipient(argument[3:].lstrip(b" "), utf8=utf8)
        except SmtpError as error:
            question.recipient = error
        else:
            text, destination, question.recipient = mailbox.text, mailbox.destination, mailbox
            if parameters:
                asked = rcpt_parameters(parameters, utf8=utf8)
        decision = decide(session.rules, question, explain=False)
        if decision.ask:
            question.known = session.intake.callout.known(mailbox)
            if question.known is None:
                session.flush()
                return session.wait_for(_rcpt_when_asked(session, argument, question, mailbox))
            decision = decide(session.rules, question, explain=False)
            question.known = None
        if decision.verdict != ACCEPT:
            raise SmtpError(decision.code, decision.enhanced, decision.text, decision.rule)
        mailbox = decision.recipient or mailbox
        key = (mailbox.local, mailbox.destination)
        if key not in transaction.recipients:
            if len(transaction.recipients) >= session.intake.terms.recipients:
                # RFC 5321 section 4.5.3.1.10: the excess is for another transaction, those before stay.
                # No refusal of the recipient, so it is not one in its history.
                transaction.excess += 1
                if transaction.excess > EXCESS:  # a client that does not listen
                    session.errors += 1
                return session.refuse(SmtpError(452, "4.5.3", "Too many recipients", "recipients"), transaction.text)
            transaction.recipients[key] = mailbox
            if asked is not None:
                transaction.asked[key] = asked
    except SmtpError as error:
        return session.refuse(error, transaction.text, text, destination)
    return session.send(b"250 2.1.5 Recipient ok\r\n")


async def _rcpt_when_asked(session: "Session", argument: bytes, question: Question, mailbox: Mailbox) -> None:
    """The same RCPT once more, when its next hop has said whether the recipient exists."""
    question.known = await session.intake.callout.ask(mailbox)
    if session.transport is not None and not session.closing:
        _rcpt(session, argument)
    question.known = None


def _data(session: "Session", argument: bytes) -> None:
    transaction = session.transaction
    if argument:
        session.fail(501, "5.5.4", "Syntax: DATA")
    elif transaction is None:
        session.fail(503, "5.5.1", "Give the sender first: MAIL FROM:<address>")
    elif not transaction.recipients:
        session.fail(554, "5.5.1", "No valid recipients")
    elif transaction.chunks is not None:
        session.fail(503, "5.5.1", "The message has begun by BDAT")
    elif session.intake.full:
        session.flush()
        session.wait_for(_data_when_there_is_room(session, transaction))
    else:
        begin(session, transaction)


async def _data_when_there_is_room(session: "Session", transaction: Transaction) -> None:
    await session.intake.room()
    if not session.closing:
        begin(session, transaction)


def _rset(session: "Session", argument: bytes) -> None:
    if argument:
        return session.fail(501, "5.5.4", "Syntax: RSET")
    session.reset()
    return session.send(b"250 2.0.0 Ok\r\n")


def _noop(session: "Session", argument: bytes) -> None:
    session.send(b"250 2.0.0 Ok\r\n")
    session.flush()


def _quit(session: "Session", argument: bytes) -> None:
    if argument:
        return session.fail(501, "5.5.4", "Syntax: QUIT")
    session.send(b"221 2.0.0 Bye\r\n")
    return session.quit()


def _vrfy(session: "Session", argument: bytes) -> None:
    """RFC 5321 section 3.5.3: no mailbox is verified, so none is confirmed."""
    if not argument:
        return session.fail(501, "5.5.4", "Syntax: VRFY address")
    if not argument.isascii():
        try:
            argument.decode()
        except UnicodeDecodeError:
            return session.fail(501, "5.5.2", "The argument holds octets that are no UTF-8")
        if argument[-9:].upper() != b" SMTPUTF8":  # RFC 6531 section 3.1: VRFY has it as a parameter of its own
            return session.fail(553, "5.6.7", f"The address: {_WITHOUT_SMTPUTF8}")
    session.send(b"252 2.5.0 Cannot verify, but will take mail for those who may be sent it\r\n")
    return session.flush()


def _help(session: "Session", argument: bytes) -> None:
    session.send(b"214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; see RFC 5321\r\n")


def _not_implemented(session: "Session", argument: bytes) -> None:
    session.fail(502, "5.5.1", "Command is not implemented")


def _idle(command: Command) -> Command:
    """A command that brings no message nearer: a session has so many, and is then closed (standards R02)."""

    def counted(session: "Session", argument: bytes) -> None:
        if session.intake.limits.idles(session):
            text = "Too many commands without a message"
            session.intake.events.emit("closed", client=session.client, listener=session.door.name, text=text)
            return session.hang_up(421, "4.7.0", text)
        return command(session, argument)

    return counted


COMMANDS: dict[bytes, Command] = {
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"BDAT": bdat,
    b"EHLO": _idle(_ehlo),
    b"HELO": _idle(_helo),
    b"RSET": _idle(_rset),
    b"NOOP": _idle(_noop),
    b"QUIT": _quit,
    b"VRFY": _idle(_vrfy),
    b"HELP": _idle(_help),
    b"STARTTLS": starttls,
    b"AUTH": auth,
    b"XCLIENT": xclient,
    **dict.fromkeys((b"EXPN", b"ETRN", b"TURN", b"SEND", b"SOML", b"SAML"), _not_implemented),
}


def ehlo_reply(
    hostname: str, message_size: int, *, starttls: bool = False, auth: Sequence[str] = (), xclient: bool = False
) -> bytes:
    """What EHLO answers; every keyword here is kept (RFC 5321 section 4.1.1.1). SMTPUTF8 comes with 8BITMIME (RFC 6531
    section 3.1)."""
    lines = [
        hostname,
        "PIPELINING",
        f"SIZE {message_size}",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
    ]
    if starttls:
        lines.append("STARTTLS")
    if auth:
        lines.append("AUTH " + " ".join(auth))
    if xclient:
        lines.append("XCLIENT " + " ".join(ATTRIBUTES))
    last = len(lines) - 1
    return "".join(f"250{' ' if i == last else '-'}{line}\r\n" for i, line in enumerate(lines)).encode("ascii")


def unknown(session: "Session", word: bytes) -> None:
    """A command that no RFC of ours names. HTTP is not even answered in turn (standards: ALPACA)."""
    if word.upper() in _FOREIGN or word.endswith(b":"):
        session.hang_up(521, "5.7.0", "This is no HTTP server")
        return
    session.fail(500, "5.5.1", "Command is not known")

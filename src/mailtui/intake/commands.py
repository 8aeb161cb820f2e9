"""The SMTP commands, RFC 5321 section 4.1, as functions of a session and an argument.

Promises: the order of commands is that of RFC 5321 section 4.1.4; each command answers exactly once; enhanced codes
are those of RFC 3463 and 5248, on everything but the greeting, EHLO and HELO (RFC 2034 section 4).
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from mailtui.address import AddressError, parse_parameters
from mailtui.intake import received
from mailtui.intake.access import ACCEPT, decide, parse_recipient, parse_sender
from mailtui.intake.reception import begin
from mailtui.intake.transaction import Transaction
from mailtui.model import SmtpError

if TYPE_CHECKING:
    from mailtui.intake.session import Session

Command = Callable[["Session", bytes], None]

# A place for the next recipient in the rules' question.
NO_RECIPIENT = SmtpError(503, "5.5.1", "No recipient", "recipient-syntax")

# RFC 5321 section 4.5.3.1.2: a name in EHLO is a domain.
HELO_LIMIT = 255
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 1870 section 5: up to 20 digits.
_SIZE = re.compile(r"[0-9]{1,20}")

# The first words of HTTP requests and of other protocols that browsers can be made to speak (ALPACA): whoever sends
# one is no mail client, and what follows may be written by a third party.
_FOREIGN = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"CONNECT", b"OPTIONS", b"DELETE", b"PATCH", b"TRACE", b"PRI"})


def _helo(session: "Session", argument: bytes) -> None:
    if _greet(session, argument, "SMTP"):
        session.send(b"250 " + session.intake.terms.hostname.encode("ascii") + b"\r\n")


def _ehlo(session: "Session", argument: bytes) -> None:
    if _greet(session, argument, "ESMTP"):
        session.send(session.door.ehlo)
        session.flush()


def _greet(session: "Session", argument: bytes, protocol: str) -> bool:
    """EHLO and HELO: any name is taken (RFC 5321 section 4.1.4), and a transaction ends."""
    if not argument or len(argument) > HELO_LIMIT or not argument.isascii() or _CONTROL.search(argument):
        session.fail(501, "", "Say your host name: EHLO host.example.org")
        return False
    session.helo = argument.decode("ascii")
    session.protocol = protocol
    session.transaction = None
    session.opening = received.opening(session.helo, session.client, "", session.intake.terms.hostname, protocol)
    return True


def _mail(session: "Session", argument: bytes) -> None:
    if not session.helo:
        return session.fail(503, "5.5.1", "Say EHLO or HELO first")
    if session.transaction is not None:
        return session.fail(503, "5.5.1", "Sender was given already")
    if argument[:5].upper() != b"FROM:":
        return session.fail(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    if session.door.role == "submission":
        return session.refuse(SmtpError(530, "5.7.0", "Authentication required", "authentication"))
    sender = None
    try:
        sender, parameters = parse_sender(argument[5:].lstrip(b" "))
        if parameters:
            _mail_parameters(session, parameters)
        refusal = session.intake.queue.refusal()
        if refusal is not None:
            raise refusal
    except SmtpError as error:
        return session.refuse(error, sender.text if sender is not None else "")
    session.renew_rules()
    session.transaction = Transaction(sender, session.question(sender))
    return session.send(b"250 2.1.0 Sender ok\r\n")


def _mail_parameters(session: "Session", raw: bytes) -> None:
    """SIZE (RFC 1870) and BODY (RFC 6152). Each is a hint only: the data are judged as they come."""
    seen: set[str] = set()
    for keyword, value in _parameters(raw):
        if keyword in seen:
            raise SmtpError(501, "5.5.4", f"{keyword} is given twice", "parameters")
        seen.add(keyword)
        if keyword == "SIZE":
            if value is None or not _SIZE.fullmatch(value):
                raise SmtpError(501, "5.5.4", "SIZE must be a number of octets", "parameters")
            if int(value) > session.intake.terms.message_size:
                text = f"Message is larger than {session.intake.terms.message_size} octets"
                raise SmtpError(552, "5.3.4", text, "message-size")
        elif keyword == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                raise SmtpError(501, "5.5.4", "BODY must be 7BIT or 8BITMIME", "parameters")
        else:
            raise SmtpError(555, "5.5.4", f"MAIL parameter {keyword[:40]} is not known here", "parameters")


def _parameters(raw: bytes) -> list[tuple[str, str | None]]:
    try:
        return parse_parameters(raw)
    except AddressError as error:
        raise SmtpError(501, "5.5.4", f"Syntax of parameters: {error}", "parameters") from None


def _rcpt(session: "Session", argument: bytes) -> None:
    transaction = session.transaction
    if transaction is None:
        return session.fail(503, "5.5.1", "Give the sender first: MAIL FROM:<address>")
    if argument[:3].upper() != b"TO:":
        return session.fail(501, "5.5.4", "Syntax: RCPT TO:<address>")
    question = transaction.question
    text = destination = ""
    try:
        try:
            mailbox, parameters = parse_recipient(argument[3:].lstrip(b" "))
        except SmtpError as error:
            question.recipient = error
        else:
            text, destination, question.recipient = mailbox.text, mailbox.destination, mailbox
            if parameters:
                keyword, _ = _parameters(parameters)[0]
                raise SmtpError(555, "5.5.4", f"RCPT parameter {keyword[:40]} is not known here", "parameters")
        decision = decide(session.rules, question, explain=False)
        if decision.verdict != ACCEPT:
            raise SmtpError(decision.code, decision.enhanced, decision.text, decision.rule)
        mailbox = decision.recipient or mailbox
        key = (mailbox.local, mailbox.destination)
        if key not in transaction.recipients:
            if len(transaction.recipients) >= session.intake.terms.recipients:
                # RFC 5321 section 4.5.3.1.10: the excess is for another transaction, those before stay.
                # No refusal of the recipient, so it is not one in its history.
                return session.refuse(SmtpError(452, "4.5.3", "Too many recipients", "recipients"), transaction.text)
            transaction.recipients[key] = mailbox
    except SmtpError as error:
        return session.refuse(error, transaction.text, text, destination)
    return session.send(b"250 2.1.5 Recipient ok\r\n")


def _data(session: "Session", argument: bytes) -> None:
    transaction = session.transaction
    if argument:
        session.fail(501, "5.5.4", "Syntax: DATA")
    elif transaction is None:
        session.fail(503, "5.5.1", "Give the sender first: MAIL FROM:<address>")
    elif not transaction.recipients:
        session.fail(554, "5.5.1", "No valid recipients")
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
    session.transaction = None
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
    session.send(b"252 2.5.0 Cannot verify, but will take mail for those who may be sent it\r\n")
    return session.flush()


def _help(session: "Session", argument: bytes) -> None:
    session.send(b"214 2.0.0 Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT; see RFC 5321\r\n")


def _not_implemented(session: "Session", argument: bytes) -> None:
    session.fail(502, "5.5.1", "Command is not implemented")


# The place of STARTTLS (RFC 3207), AUTH (RFC 4954) and BDAT (RFC 3030), which a later version takes; until then they
# are known but not advertised.
COMMANDS: dict[bytes, Command] = {
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"EHLO": _ehlo,
    b"HELO": _helo,
    b"RSET": _rset,
    b"NOOP": _noop,
    b"QUIT": _quit,
    b"VRFY": _vrfy,
    b"HELP": _help,
    **dict.fromkeys(
        (b"EXPN", b"STARTTLS", b"AUTH", b"BDAT", b"ETRN", b"TURN", b"SEND", b"SOML", b"SAML"), _not_implemented
    ),
}


def ehlo_reply(hostname: str, message_size: int) -> bytes:
    """What EHLO answers; every keyword here is kept (RFC 5321 section 4.1.1.1)."""
    lines = [hostname, "PIPELINING", f"SIZE {message_size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
    last = len(lines) - 1
    return "".join(f"250{' ' if i == last else '-'}{line}\r\n" for i, line in enumerate(lines)).encode("ascii")


def unknown(session: "Session", word: bytes) -> None:
    """A command that no RFC of ours names. HTTP is not even answered in turn (standards: ALPACA)."""
    if word.upper() in _FOREIGN or word.endswith(b":"):
        session.hang_up(521, "5.7.0", "This is no HTTP server")
        return
    session.fail(500, "5.5.1", "Command is not known")

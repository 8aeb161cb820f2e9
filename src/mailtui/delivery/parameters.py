"""MAIL and RCPT as a next hop gets them: which parameters its extensions allow, and what it cannot be given at all.

Promises: a parameter is sent only to a server that offers its extension; what a client said in RET, ENVID, NOTIFY and
ORCPT goes on as it is or not at all (RFC 3461 section 5.2); no octet of a message is converted and no SMTPUTF8 message
is passed off as another one (RFC 6531 section 3.5). All functions are pure; the usual message, ASCII and without DSN
parameters, costs them a few comparisons.

`extensions` is what EHLO answered: keyword in lower case to the rest of its line.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mailtui.address import AddressError, with_ascii_domain
from mailtui.delivery.replies import SessionLost
from mailtui.model import Envelope, Message, Outcome, Recipient, Verdict

# Nearly every address: nothing in it could end a path or a line.
_PLAIN = re.compile(r"[!-;=?-~]*")
_CONTROL = re.compile(r"[\x00-\x20\x7f<>]")

# A quoted local part may hold blanks and angle brackets (RFC 5321 section 4.1.2); controls never.
_CONTROL_QUOTED = re.compile(r"[\x00-\x1f\x7f]")

# RFC 3461 section 4: xchar is printable ASCII but `+` and `=`.
_NO_XCHAR = re.compile(r"[^!-*,-<>-~]")
# RFC 6533 section 3: QCHAR leaves out the backslash as well.
_NO_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")
# What a stored ORCPT may hold: the net under its parser, as _CONTROL is for addresses.
_NO_PARAMETER = re.compile(r"[\x00-\x20\x7f-\x9f]")
# RFC 3461 section 5.4: what a server with DSN must take of ORCPT's value. A longer one is not added.
_ORCPT_LIMIT = 500

# RFC 1870 section 5: at most 20 digits.
_SIZE = re.compile(r"[0-9]{1,20}")
# RFC 9422 section 4.1: at most 6 digits, and a limit of none at all would be no limit.
_LIMIT = re.compile(r"(MAILMAX|RCPTMAX|RCPTDOMAINMAX)=(0*[1-9][0-9]{0,5})")

_NO_8BITMIME = Verdict(
    Outcome.BOUNCED, 554, "5.6.3", "the message has 8-bit content and no host of the next hop takes 8BITMIME",
    rule="8bitmime",
)  # fmt: skip
_NO_SMTPUTF8 = "which needs SMTPUTF8, and no host of the next hop offers it"
_UTF8_HEADER = Verdict(
    Outcome.BOUNCED, 550, "5.6.7", f"the message has a UTF-8 header section, {_NO_SMTPUTF8}", rule="smtputf8"
)
_UTF8_SENDER = Verdict(
    Outcome.BOUNCED, 553, "5.6.7", f"the sender is a non-ASCII address, {_NO_SMTPUTF8}", rule="smtputf8"
)
_UTF8_RECIPIENT = Verdict(
    Outcome.BOUNCED, 553, "5.6.7", f"the recipient is a non-ASCII address, {_NO_SMTPUTF8}", rule="smtputf8"
)


class Limits(NamedTuple):
    """The limits of RFC 9422 that a server announces; 0 stands for none."""

    mailmax: int = 0  # transactions in a session
    rcptmax: int = 0  # RCPT commands in a transaction
    rcptdomainmax: int = 0  # domains of the recipients in a transaction


NO_LIMITS = Limits()


# -- may it be sent at all? ------------------------------------------------------------------------------------------


def unsendable(message: Message, recipients: Sequence[Recipient], extensions: dict[str, str]) -> Verdict | None:
    """Why this server cannot be given this message for one of these recipients; None if nothing stands against it.

    No conversion is ever made (standards C1): 8-bit content needs 8BITMIME (RFC 6152 section 3), a message above the
    server's SIZE is not begun (RFC 1870 section 6.1), and what needs SMTPUTF8 needs it there too (RFC 6531 section
    3.5), but for an address whose domain alone is not ASCII: that one can be said with its A-label.
    """
    if "smtputf8" not in extensions:
        for recipient in recipients:
            if not recipient.address.isascii() and _ascii(recipient.address) is None:
                return _of_message(message.envelope, extensions) or _UTF8_RECIPIENT
    return _of_message(message.envelope, extensions)


def refusals(message: Message, recipients: Sequence[Recipient], extensions: dict[str, str]) -> dict[int, Verdict]:
    """The recipients that this server cannot be given, by ordinal, each with the reason; the others it can."""
    verdict = _of_message(message.envelope, extensions)
    if verdict is not None:
        return {recipient.ordinal: verdict for recipient in recipients}
    if "smtputf8" in extensions:
        return {}
    return {r.ordinal: _UTF8_RECIPIENT for r in recipients if not r.address.isascii() and _ascii(r.address) is None}


def _of_message(envelope: Envelope, extensions: dict[str, str]) -> Verdict | None:
    """What stands against the message, whoever its recipients are."""
    if envelope.eight_bit and "8bitmime" not in extensions:
        return _NO_8BITMIME
    limit = extensions.get("size")
    if limit and 0 < (most := _size(limit)) < envelope.size:
        text = f"the message has {envelope.size} octets and the next hop takes at most {most}"
        return Verdict(Outcome.BOUNCED, 552, "5.3.4", text, rule="size")
    if "smtputf8" not in extensions:
        if envelope.utf8_header:
            return _UTF8_HEADER
        if not envelope.sender.isascii() and _ascii(envelope.sender) is None:
            return _UTF8_SENDER
    return None


@lru_cache(maxsize=256)  # by what a server says: a handful of texts
def _size(text: str) -> int:
    """The value of SIZE; 0, which is no limit (RFC 1870 section 4), for what is no number."""
    return int(text) if _SIZE.fullmatch(text) else 0


def _ascii(address: str) -> str | None:
    """The address with its domain as A-labels, or None if that does not make it ASCII."""
    try:
        return with_ascii_domain(address)
    except AddressError:  # cannot be: it was parsed when it was accepted
        return None


# -- the commands ----------------------------------------------------------------------------------------------------


def mail_command(message: Message, recipients: Sequence[Recipient], extensions: dict[str, str]) -> bytes:
    """MAIL, with CRLF, for a transaction with these recipients; SessionLost if the sender would break the line."""
    envelope = message.envelope
    utf8 = "smtputf8" in extensions and _needs_smtputf8(envelope, recipients)
    command = b"MAIL FROM:<" + _address(envelope.sender, utf8) + b">"
    if "size" in extensions:
        command += b" SIZE=%d" % envelope.size
    if envelope.eight_bit:
        command += b" BODY=8BITMIME"
    if utf8:
        command += b" SMTPUTF8"
    if (envelope.ret or envelope.envid) and "dsn" in extensions:
        if envelope.ret:
            command += b" RET=" + _value(envelope.ret)
        if envelope.envid:
            command += b" ENVID=" + _value(envelope.envid)
    return command + b"\r\n"


def rcpt_command(recipient: Recipient, message: Message, extensions: dict[str, str]) -> bytes:
    """RCPT, with CRLF; SessionLost if the address would break the line."""
    address = recipient.address
    if address.isascii() and not recipient.notify and not recipient.orcpt:
        return b"RCPT TO:<" + _address(address, utf8=False) + b">\r\n"
    # MAIL said SMTPUTF8 for certain if the message or this recipient needs it.
    utf8 = "smtputf8" in extensions and _needs_smtputf8(message.envelope, (recipient,))
    command = b"RCPT TO:<" + _address(address, utf8) + b">"
    if "dsn" in extensions:
        if recipient.notify:
            command += b" NOTIFY=" + _value(recipient.notify)
        # Who reports must be able to say whom the sender meant (RFC 3461 section 5.2.1). Nothing is added to a
        # recipient for whom nothing was asked.
        orcpt = recipient.orcpt or original_recipient(address, utf8=utf8)
        if orcpt:
            command += b" ORCPT=" + _value(orcpt if utf8 else _seven_bit(orcpt))
    return command + b"\r\n"


def onward(extensions: dict[str, str]) -> str:
    """Attempt.onward of what this server takes: "dsn" if it was told who is to be notified of what, else ""."""
    return "dsn" if "dsn" in extensions else ""


def original_recipient(address: str, *, utf8: bool) -> str:
    """An address as the value of ORCPT (RFC 3461 section 4.2, RFC 6533 section 3); "" if it is too long for one.

    `utf8`: SMTPUTF8 is in force, so that a non-ASCII address may stand as it is.
    """
    if address.isascii():
        value = "rfc822;" + _NO_XCHAR.sub(lambda found: f"+{ord(found[0]):02X}", address)
    else:
        value = "utf-8;" + _NO_QCHAR.sub(lambda found: _embedded(found[0], utf8), address)
    return value if len(value.encode()) <= _ORCPT_LIMIT else ""


def _embedded(character: str, utf8: bool) -> str:
    return character if utf8 and character > "\x7f" else f"\\x{{{ord(character):02X}}}"


def _seven_bit(value: str) -> str:
    """A value of type utf-8 in the form for servers without SMTPUTF8 (utf-8-addr-xtext, RFC 6533 section 3)."""
    return value if value.isascii() else re.sub(r"[^\x00-\x7f]", lambda found: f"\\x{{{ord(found[0]):X}}}", value)


def _needs_smtputf8(envelope: Envelope, recipients: Sequence[Recipient]) -> bool:
    """Whether MAIL has to say SMTPUTF8 for these recipients, where it can (RFC 6531 section 3.4: only then)."""
    if envelope.utf8_header or not envelope.sender.isascii():
        return True
    for recipient in recipients:  # noqa: SIM110 - a generator would cost more than the rest of the command
        if not recipient.address.isascii():
            return True
    return False


def _address(address: str, utf8: bool) -> bytes:
    """An address as octets of a command. It was parsed when it was accepted; this is the net under that."""
    if _PLAIN.fullmatch(address):
        return address.encode()
    if (_CONTROL_QUOTED if address.startswith('"') else _CONTROL).search(address):
        raise SessionLost("an address with a control character is not sent")
    if utf8 or address.isascii():
        return address.encode()
    in_ascii = _ascii(address)
    if in_ascii is None:  # `unsendable` stands before
        raise SessionLost("a non-ASCII address is not sent to a server without SMTPUTF8")
    return in_ascii.encode("ascii")


def _value(value: str) -> bytes:
    if _NO_PARAMETER.search(value):
        raise SessionLost("a parameter with a control character is not sent")
    return value.encode()


# -- limits ----------------------------------------------------------------------------------------------------------


def limits(extensions: dict[str, str]) -> Limits:
    """What the server's LIMITS says (RFC 9422 section 4); names that we do not know and values that are none are left
    out."""
    text = extensions.get("limits")
    return _limits(text) if text else NO_LIMITS


@lru_cache(maxsize=256)  # by what a server says: a handful of texts
def _limits(text: str) -> Limits:
    found: dict[str, int] = {}
    for word in text.upper().split():
        match = _LIMIT.fullmatch(word)
        if match is not None:
            found[match[1].lower()] = int(match[2])
    return Limits(**found) if found else NO_LIMITS


def portions(recipients: Sequence[Recipient], limits: Limits) -> list[list[Recipient]]:
    """The recipients in groups that a transaction each may have: RCPTMAX and RCPTDOMAINMAX of RFC 9422.

    Without a limit in the way there is one group, in the order given. RCPTDOMAINMAX brings those of a domain together.
    """
    _, most, domains = limits
    if not domains and (not most or len(recipients) <= most):
        return [list(recipients)] if recipients else []
    groups: dict[str, list[Recipient]] = {}
    for recipient in recipients:
        groups.setdefault(recipient.destination if domains else "", []).append(recipient)
    done: list[list[Recipient]] = []
    portion: list[Recipient] = []
    inside = 0  # domains in `portion`
    for group in groups.values():
        if domains and inside == domains:
            done.append(portion)
            portion, inside = [], 0
        inside += 1
        for recipient in group:
            if most and len(portion) == most:
                done.append(portion)
                portion, inside = [], 1
            portion.append(recipient)
    if portion:
        done.append(portion)
    return done

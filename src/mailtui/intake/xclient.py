"""XCLIENT, after Postfix's XCLIENT_README: a front end says whom it speaks for.

Promises: it is taken from `xclient_from` only, and offered to nobody else (standards X23); then the session is as new:
who the client is, what it may and what is counted for it go by what was said, not by the connection; an address that
the front end does not know is nobody's, so that it permits nothing; a LOGIN is that of an account which exists and is
not in quarantine. Nothing is taken over before all of the command was understood.
"""

import ipaddress
import re
from typing import TYPE_CHECKING

from mailtui.intake import received
from mailtui.intake.question import Address, parse_client

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# What EHLO lists; PORT and DESTPORT are taken, and forgotten: nothing here depends on them.
ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
_UNKNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
# RFC 3461 section 4; UTF-8 stands for itself after decoding only.
_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})+")
_ESCAPE = re.compile(rb"\+([0-9A-Fa-f]{2})")
# A host name, or what stands for one in EHLO: nothing that could be read as more than one word.
_NAME = re.compile(r"[!-~]{1,255}")
_PORT = re.compile(r"[0-9]{1,5}")


class Unfit(ValueError):
    """An attribute that cannot be taken; the text says which."""


def xclient(session: "Session", argument: bytes) -> None:
    """The command XCLIENT."""
    if not session.door.believes(session.front):
        return session.fail(550, "5.7.0", "XCLIENT is not for you")
    if session.transaction is not None:
        return session.fail(503, "5.5.1", "XCLIENT is not allowed within a transaction")
    try:
        said = _attributes(argument)
        client = _address(said["ADDR"]) if "ADDR" in said else session.address
        local = _address(said["DESTADDR"]) if "DESTADDR" in said else session.local
        # An account belongs to the client it was said of; without ADDR that is still the one before.
        user = _account(session, said["LOGIN"]) if "LOGIN" in said else "" if "ADDR" in said else session.user
    except Unfit as error:
        return session.fail(501, "5.5.4", f"XCLIENT: {error}")
    session.flush()
    if "ADDR" in said:
        session.client_name = session.certificate = ""
        session.client = str(client) if client is not None else str(session.front)
    _begin_anew(session, client, local)
    if "NAME" in said:
        session.client_name = said["NAME"]
    refusal = session.intake.readmit(session)
    if refusal is not None:
        return session.hang_up(421, refusal.reply.enhanced, refusal.reply.text)
    session.user = user
    session.intake.limits.regard(session)
    # HELO and PROTO are those of the client until the front end says EHLO itself, which makes the session its own.
    if said.get("HELO"):
        session.helo = said["HELO"]
        esmtp = received.esmtp(secure=session.secure, authenticated=user != "")
        session.protocol = esmtp if said.get("PROTO", "ESMTP") == "ESMTP" else "SMTP"
        session.opening = received.opening(
            session.helo, session.client, session.client_name, session.intake.terms.hostname, session.protocol,
            session.tls,
        )  # fmt: skip
    session.intake.events.emit(
        "xclient", client=session.client, user=user, listener=session.door.name, text=f"said by {session.front}"
    )
    session.send(b"220 " + session.intake.terms.hostname.encode("ascii") + b" ESMTP mailtui\r\n")
    return session.flush()


def _begin_anew(session: "Session", client: Address | None, local: Address | None) -> None:
    """As after a greeting; TLS stays, for it is the connection's."""
    session.address, session.local = client, local
    session.rules = session.intake.rules
    session.network = session.rules.network_of(client)
    session.helo = session.protocol = session.user = ""
    session.opening = b""
    session.auth_failures = session.errors = session.idle = 0


def _attributes(argument: bytes) -> dict[str, str]:
    """Names and values; "" is what the front end does not know. Raises Unfit."""
    found: dict[str, str] = {}
    for word in argument.split(b" "):
        name, equals, value = word.partition(b"=")
        key = name.decode("ascii", "replace").upper()
        if key not in ATTRIBUTES or not equals:
            raise Unfit(f"syntax: one or more of {', '.join(ATTRIBUTES)}, each with =value")
        if key in found:
            raise Unfit(f"{key} is given twice")
        found[key] = _value(key, value)
    return found


def _value(key: str, raw: bytes) -> str:
    if not _XTEXT.fullmatch(raw):
        raise Unfit(f"{key} is no xtext")
    try:
        value = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit(f"{key} is no UTF-8") from None
    if value.upper() in _UNKNOWN:
        return ""
    if key in ("NAME", "HELO") and not _NAME.fullmatch(value):
        raise Unfit(f"{key} is no host name")
    if key == "PROTO":
        value = value.upper()
        if value not in ("SMTP", "ESMTP"):
            raise Unfit("PROTO must be SMTP or ESMTP")
    if key in ("PORT", "DESTPORT") and not _PORT.fullmatch(value):
        raise Unfit(f"{key} must be a number")
    return value


def _address(value: str) -> Address | None:
    """ "192.0.2.1" or "IPV6:2001:db8::1"; None if the front end does not know it. Raises Unfit."""
    if not value:
        return None
    try:
        if value[:5].upper() == "IPV6:":
            return parse_client(str(ipaddress.IPv6Address(value[5:])))
        return ipaddress.IPv4Address(value)
    except ValueError:
        raise Unfit("the address cannot be read: 192.0.2.1 or IPV6:2001:db8::1") from None


def _account(session: "Session", name: str) -> str:
    """The account that a client has logged in to at the front end. Raises Unfit."""
    if not name:
        return ""
    intake = session.intake
    if intake.dovecot is not None:  # which knows the accounts, and the front end has asked it or its like
        if name in intake.accounts.quarantined:
            raise Unfit("the account of LOGIN is disabled")
        return name
    account = intake.accounts.get(name.lower()) or intake.accounts.get(name)
    if account is None or account.quarantined is not None:
        raise Unfit("the account of LOGIN is not known, or it is disabled")
    return account.name

"""Our Received line: RFC 5321 section 4.4, with the `with` clauses of RFC 3848 and of RFC 6531 section 4.3.

Promises: one field in lines of under 78 octets (a word that is longer stands alone in its line), ending in CRLF; ASCII
but for the recipient of a transaction with SMTPUTF8; nothing that a client says can end a comment, start another clause
or another line.
"""

import re
from email.utils import formatdate

from mailtui.address import with_ascii_domain
from mailtui.clock import Clock

# RFC 5322 section 2.1.1 recommends 78 characters without the CRLF.
LINE_LIMIT = 77

# What a host name, an address literal or a common misspelling of one needs. All else could forge structure.
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]")


def safe_word(text: str) -> str:
    """A client's word as it may stand in a header line: every doubtful character is a `?`."""
    return _UNSAFE.sub("?", text) or "?"


def address_literal(client: str) -> str:
    """The address of the TCP peer as RFC 5321 section 4.1.3 writes it: [192.0.2.1] or [IPv6:2001:db8::1]."""
    return f"[IPv6:{client}]" if ":" in client else f"[{client}]"


class DateCache:
    """The date of a Received line, formatted once a second: RFC 5322, local time with numeric offset."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._text = b""

    def text(self) -> bytes:
        second = int(self._clock.now())
        if second != self._second:
            self._text = formatdate(second, localtime=True).encode("ascii")
            self._second = second
        return self._text


def esmtp(*, secure: bool, authenticated: bool) -> str:
    """The `with` clause of a session that said EHLO: ESMTP, ESMTPS, ESMTPA or ESMTPSA (RFC 3848)."""
    return "ESMTP" + "S" * secure + "A" * authenticated


def utf8_protocol(protocol: str) -> str:
    """The `with` clause of a transaction with SMTPUTF8: UTF8SMTP, UTF8SMTPS, UTF8SMTPSA ... (RFC 6531 section 4.3)."""
    return "UTF8" + protocol.removeprefix("E")


def opening(helo: str, client: str, client_name: str, hostname: str, protocol: str, tls: str = "") -> bytes:
    """The field up to `id `: the same for all messages of a session, so it is made once.

    `tls` is version and cipher suite with a blank between them ("TLSv1.3 TLS_AES_256_GCM_SHA384"), "" without TLS.
    """
    name = f"{safe_word(client_name)} " if client_name else ""
    words = ["Received:", "from", safe_word(helo), f"({name}{address_literal(client)})"]
    if tls:
        version, _, cipher = tls.partition(" ")
        words.append(f"(using {safe_word(version)} with cipher {safe_word(cipher)})")
    second = ["by", hostname, "with", protocol, "id"]
    return _fold(words, len("\t")) + b"\r\n\t" + _fold(second, len("\t") + len(" 0123456789ABC")) + b" "


def closing(recipient: str, date: bytes) -> bytes:
    """The field after the id: `for` only when there is one recipient to name (RFC 5321 section 7.2).

    A domain stands in A-labels, so that the line does not need SMTPUTF8 where the address does not."""
    if not recipient:
        return b";\r\n\t" + date + b"\r\n"
    if not recipient.isascii():
        recipient = with_ascii_domain(recipient) or recipient
    clause = b"for <" + recipient.encode() + b">;"
    between = b" " if len(clause) + len(date) + 2 <= LINE_LIMIT else b"\r\n\t"
    return b"\r\n\t" + clause + between + date + b"\r\n"


def _fold(words: list[str], used: int) -> bytes:
    """Words joined by blanks, or by a fold where the line would be too long; `used` is kept free in each line."""
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) + used <= LINE_LIMIT:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return "\r\n\t".join(lines).encode("ascii")

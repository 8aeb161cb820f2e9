"""What of the reported message goes back with a report, octet by octet (RFC 3461 sections 4.3 and 6.2, RFC 6522).

Promises: what is returned has no stray CR or LF, no NUL and no line of more than 998 octets, so that it can be sent
again and can end no part; in every message that keeps to RFC 5322 no octet is changed.
"""

import re

from mailtui.bounce.text import HARD
from mailtui.model import Envelope

# Of a message that is not returned as a whole; more header than this helps nobody.
HEADER_LIMIT = 64 * 1024

_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def returned(envelope: Envelope, original: bytes, limit: int) -> tuple[str, bytes]:
    """What of the message goes back, and its media type.

    The whole, if it is at most `limit` octets and was not asked for as HDRS; never under REQUIRETLS (RFC 8689 section
    5), nor with lines that no SMTP client may send. With SMTPUTF8 the types are those of RFC 6533.
    """
    whole = envelope.ret.upper() != "HDRS" and not envelope.requiretls
    whole = whole and max(len(original), envelope.size) <= limit and len(original) >= envelope.size
    if whole:
        content = _clean(original)
        if not _overlong(content):
            return "message/global" if envelope.smtputf8 else "message/rfc822", content
    content = _fold_overlong(_header(original))
    return "message/global-headers" if envelope.smtputf8 else "text/rfc822-headers", content


def _clean(content: bytes) -> bytes:
    """Line ends as CRLF and no NUL; the octets as they are in every message that keeps to RFC 5322."""
    content = _STRAY.sub(b"\r\n", content.replace(b"\0", b"?"))
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def _header(original: bytes) -> bytes:
    """The header section, up to the last whole line within HEADER_LIMIT."""
    header = _clean(original[: HEADER_LIMIT + 1])
    end = 0 if header.startswith(b"\r\n") else header.find(b"\r\n\r\n") + 2
    if end == 1:  # no empty line: all of it is header
        end = len(header)
    if end > HEADER_LIMIT:
        end = header.rfind(b"\r\n", 0, HEADER_LIMIT) + 2
        if end == 1:  # one line of that length
            return header[:HEADER_LIMIT].rstrip(b"\r\n") + b"\r\n"
    return header[:end] or b"\r\n"


def _overlong(content: bytes) -> bool:
    return any(len(line) > HARD for line in content.split(b"\r\n"))


def _fold_overlong(header: bytes) -> bytes:
    """Header lines beyond HARD octets folded, where need be in the middle of a word."""
    if not _overlong(header):
        return header
    lines = []
    for line in header.split(b"\r\n"):
        while len(line) > HARD:
            lines.append(line[:HARD])
            line = b" " + line[HARD:]
        lines.append(line)
    return b"\r\n".join(lines)

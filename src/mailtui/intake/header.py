"""What the header section of a message in hand says: subject, Message-ID and hops, for display and loop detection.

Promises: it looks only at the octets it is given, never changes them, and refuses nothing: any octets are taken, for a
relay must not refuse odd headers (RFC 5321 section 3.7.2). What it returns for display is bounded and printable.
"""

import re
import unicodedata
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header

# For a listing: nobody reads more, and the queue keeps it in a row.
TEXT_LIMIT = 200
# How much of a raw value is decoded: enough for TEXT_LIMIT characters in encoded words, and cheap.
_RAW_LIMIT = 2000

# RFC 5321 section 6.3; Via, X400-Received and Mail-From are what gateways and old systems write in its place.
_TRACE_NAMES = (b"\r\nreceived", b"\r\nvia", b"\r\nx400-received", b"\r\nmail-from")
_TRACE = re.compile(rb"\r\n(?:received|via|x400-received|mail-from)[ \t]*:")
_SUBJECT = re.compile(rb"\r\nsubject[ \t]*:")
_MESSAGE_ID = re.compile(rb"\r\nmessage-id[ \t]*:")
_END_OF_VALUE = re.compile(rb"\r\n(?![ \t])")
# A whole line that is neither a field (RFC 5322 section 4.5: blanks may stand before the colon) nor its continuation.
_NO_FIELD = re.compile(rb"\r\n(?![ \t]|[!-9;-~]+[ \t]*:)[^\r]*\r\n")
_BLANKS = re.compile(r"[ \t\r\n]+")
# Without a width or a meaning of their own: soft hyphen, zero-width space and joiners, word joiner, byte order mark.
_JOINERS = frozenset("\xad\u200b\u200c\u200d\u2060\ufeff")


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """Subject and Message-ID as text of at most TEXT_LIMIT characters, "" if missing; the number of trace lines; and
    whether all of the header section is ASCII."""

    subject: str
    message_id: str
    hops: int
    ascii: bool = True


class Section:
    """Where a header section ends that comes in pieces: at the empty line, or at the first line that is no field."""

    __slots__ = ("_tail", "ended", "size")

    def __init__(self) -> None:
        self._tail = b"\r\n"
        self.ended = False
        self.size = 0  # octets that are known to be of the header section

    def feed(self, piece: bytes) -> None:
        """The next octets, in lines that end with CRLF."""
        data = self._tail + piece
        match = _NO_FIELD.search(data)
        if match is not None:
            self.ended = True
            self.size += match.start()
            return
        end = max(data.rfind(b"\r\n"), 0)
        self._tail = data[end:]
        self.size += end


def scan(message: bytes) -> HeaderFacts:
    """The facts of a message that begins with its header section; without an empty line, all of it is looked at."""
    end = 0 if message[:2] == b"\r\n" else message.find(b"\r\n\r\n")
    # One copy in lower case with a line end before its first line: every name is then found by plain search.
    header = b"\r\n" + (message if end < 0 else message[:end])
    lower = header.lower()
    hops = 0
    for name in _TRACE_NAMES:
        if name in lower:
            hops = len(_TRACE.findall(lower))
            break
    return HeaderFacts(
        _text(_value(header, lower, b"\r\nsubject:", _SUBJECT)),
        _text(_value(header, lower, b"\r\nmessage-id:", _MESSAGE_ID)),
        hops,
        header.isascii(),
    )


def _value(header: bytes, lower: bytes, usual: bytes, any_form: re.Pattern[bytes]) -> bytes:
    """The raw value of the first field of a name, folded lines included, cut to _RAW_LIMIT octets."""
    start = lower.find(usual)
    if start >= 0:
        start += len(usual)
    elif usual[:-1] in lower:  # perhaps a blank before the colon (RFC 5322 section 4.5)
        match = any_form.search(lower)
        if match is None:
            return b""
        start = match.end()
    else:
        return b""
    end = header.find(b"\r\n", start)
    if end >= 0 and header[end + 2 : end + 3] in (b" ", b"\t"):
        match = _END_OF_VALUE.search(header, end, start + _RAW_LIMIT + 2)
        end = match.start() if match else start + _RAW_LIMIT
    elif end < 0:
        end = len(header)
    return header[start : min(end, start + _RAW_LIMIT)]


def _text(raw: bytes) -> str:
    """A raw value as text for people: encoded words decoded (RFC 2047), one line, nothing unprintable: a control
    character shows as U+FFFD."""
    value = raw.strip()
    if not value:
        return ""
    text = value.decode("utf-8", "replace")
    if "=?" in text:
        text = _decode_words(text)
    if not text.isprintable():
        text = _BLANKS.sub(" ", text)
        text = "".join(c if c.isprintable() else _shown(c) for c in text)
    return text[:TEXT_LIMIT].rstrip()


def _shown(character: str) -> str:
    """What stands for a character that is not printable."""
    if character in _JOINERS:
        return ""
    return " " if unicodedata.category(character) == "Zs" else "\ufffd"


def _decode_words(text: str) -> str:
    unfolded = _BLANKS.sub(" ", text)
    try:
        parts = decode_header(unfolded)
    except (HeaderParseError, ValueError):
        return unfolded
    decoded = []
    for part, charset in parts:
        if isinstance(part, str):
            decoded.append(part)
            continue
        try:
            decoded.append(part.decode(charset or "ascii", "replace"))
        except (LookupError, ValueError):  # an unknown charset, or one that decodes no octets
            decoded.append(part.decode("ascii", "replace"))
    return "".join(decoded)

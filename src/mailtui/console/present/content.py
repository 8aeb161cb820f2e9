"""What a message itself says: its headers, its text made readable, its octets in hex.

Promises: given any octets, it answers with lines and never raises; text is cleaned here, since octets are not cleaned
anywhere before; what is shown is bounded, and says what it leaves out.
"""

import re
from collections.abc import Iterator, Sequence
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from html.parser import HTMLParser

from mailtui.console import words
from mailtui.console.present import Line
from mailtui.console.present.text import fold, paragraph
from mailtui.console.present.why import neutralised
from mailtui.control.clean import clean, clean_lines

# Octets of a message that the console reads: a long letter, and no cost over a slow line.
LIMIT = 64 * 1024

# Lines shown of one text.
MOST = 3000

# Characters of one header that are shown; longer ones are no text that a person wrote.
LONGEST = 4000


def header_lines(headers: Sequence[Sequence[str]], width: int) -> list[Line]:
    """Each field, unfolded, wrapped under its name."""
    lines: list[Line] = []
    if said := neutralised(*(value for _, value in headers)):
        lines += [[(f"{said} below", "warn")], []]
    for name, value in headers:
        name = words.cut(name[:LONGEST], 40)
        rest = f" ... {len(value) - LONGEST:,} more characters" if len(value) > LONGEST else ""
        lines += (
            paragraph(value[:LONGEST] + rest, width, first=[(f"{name}: ", "key")]) if value else [[(f"{name}:", "key")]]
        )
        if len(lines) > MOST:
            return [*lines[:MOST], [("... and more fields: export the message to see all", "dim")]]
    return lines or [[("It has no headers.", "dim")]]


def body_lines(data: bytes, size: int, width: int) -> list[Line]:
    """The readable part of a message. `data` is its beginning (LIMIT), `size` its octets in all."""
    kind, text, others = _readable(data)
    shown = clean_lines(text)
    head = f"{kind}, {words.size(len(data))} of {words.size(max(size, len(data)))} read"
    lines: list[Line] = [[(head, "dim"), ("   B raw and hex", "dim")]]
    if said := neutralised(shown):
        lines.append([(said, "warn")])
    lines += [[(f"part: {clean(other)[:LONGEST]}", "dim")] for other in others[:20]]
    lines.append([])
    for line in _folded(shown, width):
        lines.append([(line, "dim" if line.startswith(">") else "")])
        if len(lines) >= MOST:
            return [*lines, [("... the rest is not shown", "dim")]]
    return lines


def raw_lines(data: bytes, size: int, width: int) -> list[Line]:
    """The message as stored, with its control characters made visible."""
    head = f"as stored, {words.size(len(data))} of {words.size(max(size, len(data)))} read"
    lines: list[Line] = [[(head, "dim"), ("   B hex", "dim")], []]
    for line in _folded(clean_lines(data.decode("utf-8", "replace")), width):
        lines.append([(line, "")])
        if len(lines) >= MOST:
            return [*lines, [("... the rest is not shown", "dim")]]
    return lines


def hex_lines(data: bytes, size: int, width: int) -> list[Line]:
    """Octets in hex and in ASCII, 16 a line, 8 where there is no room."""
    step = 16 if width >= 75 else 8
    head = f"octets, {words.size(len(data))} of {words.size(max(size, len(data)))} read"
    lines: list[Line] = [[(head, "dim"), ("   B text", "dim")], []]
    for at in range(0, len(data), step):
        if len(lines) >= MOST:
            return [*lines, [("... the rest is not shown", "dim")]]
        piece = data[at : at + step]
        text = "".join(chr(octet) if 32 <= octet < 127 else "." for octet in piece)
        lines.append([(f"{at:06x}  ", "dim"), (f"{piece.hex(' '):<{step * 3}} ", ""), (text, "key")])
    return lines


def _folded(text: str, width: int) -> Iterator[str]:
    for line in text.split("\n"):
        yield from fold(line, width)


def _readable(data: bytes) -> tuple[str, str, list[str]]:
    """(what it is, text, names of the other parts). The beginning of a message may end in the middle of a part."""
    unix = data.replace(b"\r\n", b"\n")
    try:
        message = BytesParser(policy=compat32).parsebytes(unix)
        parts = [part for part in message.walk() if not part.is_multipart()]
        chosen = next((part for part in parts if part.get_content_type() == "text/plain"), None)
        chosen = chosen or next((part for part in parts if part.get_content_type() == "text/html"), None)
        others = [_named(part) for part in parts if part is not chosen]
        if chosen is None:
            return "no text", "", others
        kind, text = chosen.get_content_type(), _text(chosen)
        return kind, _plain(text) if kind == "text/html" else text, others
    except Exception:
        # The parser is not made for what strangers can put together; the octets can always be shown.
        return "not well-formed", unix.partition(b"\n\n")[2].decode("utf-8", "replace"), []


def _named(part: "Message[str, str]") -> str:
    name = part.get_filename()
    return " ".join(text for text in (part.get_content_type(), str(name) if name else "") if text)


def _text(part: "Message[str, str]") -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return str(data or "")
    try:
        return data.decode(part.get_content_charset() or "utf-8", "replace")
    except LookupError:
        return data.decode("utf-8", "replace")


class _Stripper(HTMLParser):
    """Collects the text of HTML; nothing of it is loaded or run."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ("style", "script", "head"):
            self._hidden += 1
        elif tag in ("br", "p", "div", "tr", "li", "h1", "h2", "h3"):
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("style", "script", "head"):
            self._hidden = max(0, self._hidden - 1)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(re.sub(r"\s+", " ", data))


def _plain(html: str) -> str:
    stripper = _Stripper()
    stripper.feed(html)
    return re.sub(r"\n[ \n]*\n", "\n\n", "".join(stripper.pieces)).strip()

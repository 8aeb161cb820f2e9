"""Replies as they leave us: RFC 5321 section 4.2."""

from mailtui.model import Reply

# RFC 5321 section 4.5.3.1.5, with CRLF.
REPLY_LIMIT = 512


def line(reply: Reply, *, utf8: bool = False) -> bytes:
    """A reply of one line. Nothing in its text can begin another one, and it keeps within REPLY_LIMIT."""
    text = str(reply).encode("utf-8" if utf8 else "ascii", "backslashreplace")
    if b"\r" in text or b"\n" in text or b"\0" in text:
        text = text.translate(None, b"\r\n\0")
    return text[: REPLY_LIMIT - 2] + b"\r\n"

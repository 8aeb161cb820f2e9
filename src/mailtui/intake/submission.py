"""What a submission listener adds to a message that lacks it: RFC 6409 section 8.

Promises: only a missing Date and a missing Message-ID are added (sections 8.1 and 8.2), directly below our Received
line; no octet of what the client sent is changed. Listeners of role relay add nothing (RFC 5321 section 6.4).
"""

import re

_DATE = re.compile(rb"\r\ndate[ \t]*:", re.IGNORECASE)
_MESSAGE_ID = re.compile(rb"\r\nmessage-id[ \t]*:", re.IGNORECASE)


def missing_fields(beginning: bytes, word: bytes, hostname: str, date: bytes, *, whole: bool) -> tuple[bytes, str]:
    """The header lines to add, b"" for none, and the Message-ID among them, "" if it has one.

    `beginning` is the message, or as much of it as there is; unless it is `whole` and its header section ends beyond
    it, nothing is added: what one cannot see may be there. `word` is the queue id and makes the Message-ID unique.
    """
    end = 0 if beginning[:2] == b"\r\n" else beginning.find(b"\r\n\r\n")
    if end < 0 and not whole:
        return b"", ""
    header = b"\r\n" + (beginning if end < 0 else beginning[:end])
    lines, message_id = b"", ""
    if not _DATE.search(header):
        lines = b"Date: " + date + b"\r\n"
    if not _MESSAGE_ID.search(header):
        message_id = f"<{word.decode('ascii')}@{hostname}>"
        lines += b"Message-ID: " + message_id.encode("ascii") + b"\r\n"
    return lines, message_id

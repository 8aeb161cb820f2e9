"""A message that is easily damaged on its way, what is left of one below the lines of its hops, and reports read."""

import email
import email.policy
from email.message import EmailMessage
from typing import Any, NamedTuple

from flufl.bounce import all_failures

_ADDED = (b"received", b"return-path", b"delivered-to", b"x-original-to")

# Folding and blanks that a parser would tidy up, dots, a "From " line, the longest line there may be, octets above
# 127, empty lines at the end.
MESSAGE = (
    b"Subject: kept  as\r\n\tit\r\n  is \r\n"
    b"FROM:Ann <ann@sender.test>\r\n"
    b"To: bob@dest.test\r\n"
    b"Date: Sun, 22 Nov 2026 08:00:00 +0000\r\n"
    b"Message-ID: <peers.1@sender.test>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
    b".one\r\n..two\r\n.\r\n"
    b"From here on\r\n"
    b"blanks \t \r\n" + "Grüße, 5 €\r\n".encode() + b"x" * 998 + b"\r\n\r\nend\r\n\r\n"
)


def trace(message: bytes) -> list[bytes]:
    """The Received fields on top, newest first, unfolded."""
    return [field for field in _fields(message)[0] if field.lower().startswith(b"received:")]


def below(message: bytes) -> bytes:
    """What stands below the fields that hops put on top."""
    return _fields(message)[1]


def our_trace(message: bytes) -> str:
    """The Received field of the relay."""
    [ours] = [field for field in trace(message) if b" by relay.test" in field]
    return ours.decode()


def _fields(message: bytes) -> tuple[list[bytes], bytes]:
    lines = message.split(b"\r\n")
    fields: list[bytes] = []
    for number, line in enumerate(lines):
        if line.startswith((b" ", b"\t")) and fields:
            fields[-1] += b" " + line.strip()
        elif line.partition(b":")[0].lower() in _ADDED:
            fields.append(line)
        else:
            return fields, b"\r\n".join(lines[number:])
    return fields, b""


class Report(NamedTuple):
    """A delivery status report taken apart by parsers of others; the keys of fields are in lower case."""

    headers: EmailMessage
    message: dict[str, str]  # the fields per message
    recipients: dict[str, dict[str, str]]  # those per recipient, by the address of Final-Recipient
    returned: str  # content type of the third part
    temporary: set[bytes]  # who failed for now, says flufl.bounce
    permanent: set[bytes]  # who failed for good


def report(octets: bytes) -> Report:
    """Read a report; AssertionError if it is none (RFC 6522 section 3)."""
    parsed = email.message_from_bytes(octets, policy=email.policy.SMTP)
    assert isinstance(parsed, EmailMessage)
    assert parsed.get_content_type() == "multipart/report", octets
    assert parsed.get_param("report-type") == "delivery-status"
    text, status, returned = parsed.iter_parts()
    assert (text.get_content_type(), status.get_content_type()) == ("text/plain", "message/delivery-status")
    blocks: Any = status.get_payload()
    first, *others = [{name.lower(): " ".join(str(value).split()) for name, value in block.items()} for block in blocks]
    recipients = {each["final-recipient"].partition(";")[2].strip(): each for each in others}
    # flufl.bounce wants the message as the older interface of the email package has it.
    temporary, permanent = all_failures(email.message_from_bytes(octets))
    return Report(parsed, first, recipients, returned.get_content_type(), set(temporary), set(permanent))

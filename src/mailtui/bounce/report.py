"""The report to the sender on what became of a message (RFC 3461, 3464, 6522, 6533): one composer for all of them.

Promises: a report never answers a report (the null sender) and never names a recipient for whom none is due; it has the
null sender itself. Its lines end in CRLF and have at most 998 octets. It is 7-bit unless the returned message is not,
or the one who gets it has an address that is not ASCII: only that report needs SMTPUTF8. The returned message is
embedded octet by octet, apart from what no SMTP client may send (bare CR or LF, NUL); it cannot end its part of the
report, nor can any text from outside add a field to it.
"""

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header

from mailtui.address import AddressError, with_ascii_domain
from mailtui.bounce.due import told
from mailtui.bounce.human import human_part
from mailtui.bounce.returned import returned
from mailtui.bounce.status import status_part
from mailtui.bounce.text import HARD, date, one_line
from mailtui.model import Action, Envelope, Message, Reported

# So that "To: <...>" is one line; no mailbox is longer than 64 + 1 + 255 octets (RFC 5321 section 4.5.3.1).
ADDRESS_LIMIT = HARD - len("To: <>")

_MESSAGE_ID = re.compile(r"<?([!-;=?-~]{1,250})>?")

# The most pressing news gives the report its subject.
_SUBJECTS = {
    Action.FAILED: "Undelivered mail returned to sender",
    Action.DELAYED: "Delayed mail, still being tried",
    Action.DELIVERED: "Mail was delivered",
    Action.RELAYED: "Mail was handed on",
}


@dataclass(frozen=True, slots=True)
class Report:
    """A report, ready to be queued with the null sender. `eight_bit`: it needs 8BITMIME; `smtputf8`: it needs that."""

    recipient: str
    content: bytes
    eight_bit: bool = False
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str  # its Content-Type
    description: str
    content: bytes
    transfer: str = "7bit"


def compose(
    message: Message,
    reported: Sequence[Reported],
    original: bytes,
    *,
    hostname: str,
    postmaster: str,
    return_limit: int,
    now: float,
    report_id: str,
) -> Report | None:
    """One report on all that became of a message in one go; None if nobody is due one (`due.told`).

    `original` is the stored message, or at least its header section if it is larger than `return_limit` (octets) or
    nobody failed. `hostname` is our FQDN, `postmaster` the address for double bounces ("" for none), `now` the wall
    time in seconds, `report_id` the left half of the report's Message-ID.

    The whole message goes back only with a failure (RFC 3461 section 4.3). A message with the null sender is never
    answered: its failure goes to `postmaster`.
    """
    envelope = message.envelope
    hostname = one_line(hostname)
    due = told(envelope, reported, postmaster)
    recipient = _ascii_if_can(envelope.sender or postmaster)
    if not due or not recipient:
        return None
    wide = not recipient.isascii()
    # No host of this next hop takes 8BITMIME, and our report may go the same way: it must be 7-bit to get there.
    narrow = any(each.verdict.rule == "8bitmime" for each in due)
    failed = any(each.action is Action.FAILED for each in due)
    kind, content = returned(envelope, original, return_limit if failed and not narrow else 0)
    text = human_part(message, due, hostname, postmaster, wide=wide or envelope.smtputf8)
    status = "message/global-delivery-status" if wide else "message/delivery-status"
    parts = [
        _part(f"text/plain; charset={'us-ascii' if text.isascii() else 'utf-8'}", "Notification", text, wide, True),
        _part(status, "Delivery report", status_part(message, due, hostname, wide=wide), wide, False),
        _part(
            kind,
            "Returned message" if kind in ("message/rfc822", "message/global") else "Header of the message",
            content,
            wide,
            narrow or kind.startswith("message/global"),  # raw, that would need SMTPUTF8 (RFC 6532 section 3.7)
        ),
    ]
    transfer = "8bit" if any(part.transfer == "8bit" for part in parts) else "7bit"
    boundary = _boundary(report_id, [part.content for part in parts])
    subject = next(_SUBJECTS[action] for action in _SUBJECTS if any(each.action is action for each in due))
    head = _head(envelope, recipient, subject, hostname, now, report_id, boundary, transfer)
    body = [head, b"This is a report in MIME format (RFC 3464).\r\n"]
    for part in parts:
        body.append(
            f"\r\n--{boundary}\r\nContent-Description: {part.description}\r\nContent-Type: {part.kind}\r\n"
            f"Content-Transfer-Encoding: {part.transfer}\r\n\r\n".encode("ascii")
        )
        body.append(part.content)
    body.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    whole = b"".join(body)
    return Report(recipient, whole, not whole.isascii(), wide)


def _part(kind: str, description: str, content: bytes, wide: bool, encode: bool) -> _Part:
    """A part as it can be sent: as it is if it is ASCII or may go in 8 bits, else, with `encode`, quoted-printable."""
    if content.isascii():
        return _Part(kind, description, content)
    if wide or not encode:
        return _Part(kind, description, content, "8bit")
    # Line ends stay line ends; a blank at the end of a line and a lone dot are encoded (RFC 2045 section 6.7).
    return _Part(kind, description, binascii.b2a_qp(content, istext=True), "quoted-printable")


def _ascii_if_can(address: str) -> str:
    """The address, with its domain in A-labels if that makes it ASCII: then the report needs no SMTPUTF8."""
    try:
        return with_ascii_domain(address) or address
    except AddressError:
        return address


def _head(
    envelope: Envelope,
    recipient: str,
    subject: str,
    hostname: str,
    now: float,
    report_id: str,
    boundary: str,
    transfer: str,
) -> bytes:
    if not envelope.sender:
        subject = "Postmaster notice: undeliverable report (double bounce)"
    fields = [
        ("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
        ("Subject", subject),
        ("Date", date(now)),
        ("MIME-Version", "1.0"),
        ("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5
    ]
    # Not by email's header factory: it makes a class for every field, and thousands of reports in a row would keep the
    # garbage collector busy for half a second at a time. Nothing here is long, or other than ASCII.
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    lines += _to(recipient)
    lines += f"Message-ID: <{report_id}@{hostname}>\r\n"
    if (match := _MESSAGE_ID.fullmatch(envelope.message_id.strip())) is not None:
        lines += f"References: <{match[1]}>\r\n"
    lines += f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'
    lines += f"Content-Transfer-Encoding: {transfer}\r\n\r\n"
    return lines.encode("utf-8")


def _to(recipient: str) -> str:
    """The To field, in UTF-8 if need be (RFC 6532). What is no mailbox at all stands as the name of an empty group."""
    name = recipient.encode("utf-8", "replace")
    if recipient.isprintable() and len(name) < ADDRESS_LIMIT:
        return f"To: <{recipient}>\r\n"
    return "To: " + Header(name.decode("utf-8"), "utf-8", header_name="To").encode(linesep="\r\n") + " :;\r\n"


def _boundary(report_id: str, contents: Sequence[bytes]) -> str:
    """A boundary that stands in none of the parts."""
    count = 0
    while True:
        digest = hashlib.sha256(f"{report_id} {count}".encode("utf-8", "replace")).hexdigest()
        boundary = f"=_{digest[:32]}"
        if not any(boundary.encode() in content for content in contents):
            return boundary
        count += 1

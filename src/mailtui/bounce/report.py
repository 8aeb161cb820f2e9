"""The report to the sender that a message could not be delivered (RFC 3461, 3464, 6522).

Promises: a report never answers a report (the null sender) and never goes to a recipient who asked for none; it has the
null sender itself. Its lines end in CRLF and have at most 998 octets; it is 7-bit unless the returned message is not.
The returned message is embedded octet by octet, apart from what no SMTP client may send (bare CR or LF, NUL); it cannot
end its part of the report, nor can any text from outside add a field to it.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header
from email.policy import SMTP
from textwrap import wrap

from mailtui.bounce.text import HARD, SOFT, ascii_text, date, decode_xtext, field, original_recipient, typed_address
from mailtui.ids import encode, rid
from mailtui.model import Envelope, Failure, Message

# Of a message that is not returned as a whole; more header than this helps nobody.
HEADER_LIMIT = 64 * 1024

# So that "To: <...>" is one line; no mailbox is longer than 64 + 1 + 255 octets (RFC 5321 section 4.5.3.1).
ADDRESS_LIMIT = HARD - len("To: <>")

_STATUS = re.compile(r"[245](\.[0-9]{1,3}\.[0-9]{1,3})")
_STRAY = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_MESSAGE_ID = re.compile(r"<?([!-;=?-~]{1,250})>?")

_AFTERWARDS = (
    "It will not be tried again for the recipients above. If they are among several, the others are not concerned by "
    "this report. What the next host said often tells what to do: correct the address, make the message smaller, or "
    "ask the recipient in another way; then send the message again."
)


@dataclass(frozen=True, slots=True)
class Report:
    """A report, ready to be queued with the null sender and NOTIFY=NEVER. `eight_bit`: it needs 8BITMIME."""

    recipient: str
    content: bytes
    eight_bit: bool = False


def failure_report(
    message: Message,
    failures: Sequence[Failure],
    original: bytes,
    *,
    hostname: str,
    postmaster: str,
    return_limit: int,
    now: float,
    report_id: str,
) -> Report | None:
    """Compose one report for all failures of one go; None if nobody is due one.

    `original` is the stored message, or at least its header section if it is larger than `return_limit` (octets).
    `hostname` is our FQDN, `postmaster` the address for double bounces ("" for none), `now` the wall time in seconds,
    `report_id` the left half of the report's Message-ID. An attempt with `finished` 0 stands for none.

    A failure with NOTIFY set but without FAILURE is left out (RFC 3461 section 5.2). A message with the null sender is
    never answered: its failure goes to `postmaster`, unless it is the postmaster's mail that failed (RFC 5321 6.1).
    """
    envelope = message.envelope
    hostname = ascii_text(hostname)
    due = [failure for failure in failures if _wanted(failure.recipient.notify)]
    recipient = envelope.sender
    if not recipient:
        recipient = postmaster
        due = [failure for failure in due if not _same_mailbox(failure.recipient.address, postmaster)]
    if not due or not recipient:
        return None
    # No host of this next hop takes 8BITMIME, and our report may go the same way: it must be 7-bit to get there.
    narrow = any(failure.verdict.rule == "8bitmime" for failure in due)
    kind, returned = _returned(envelope, original, 0 if narrow else return_limit)
    if narrow:
        returned = returned.decode("ascii", "replace").replace("\ufffd", "?").encode("ascii")
    eight_bit = not returned.isascii()
    encoding = "8bit" if eight_bit else "7bit"
    parts = [
        ("text/plain; charset=us-ascii", "Notification", "7bit", _human(message, due, hostname, postmaster)),
        ("message/delivery-status", "Delivery report", "7bit", _status(message, due, hostname)),
        (kind, "Returned message" if kind.startswith("message/") else "Header of the message", encoding, returned),
    ]
    boundary = _boundary(report_id, [content for *_, content in parts])
    head = _head(envelope, recipient, hostname, now, report_id, boundary, encoding)
    body = [head, b"This is a report in MIME format (RFC 3464).\r\n"]
    for content_type, description, transfer, content in parts:
        body.append(
            f"\r\n--{boundary}\r\nContent-Description: {description}\r\nContent-Type: {content_type}\r\n"
            f"Content-Transfer-Encoding: {transfer}\r\n\r\n".encode("ascii")
        )
        body.append(content)
    body.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
    return Report(recipient, b"".join(body), eight_bit)


def _wanted(notify: str) -> bool:
    """Whether NOTIFY lets a failure be reported; without NOTIFY it does (RFC 3461 section 5.2)."""
    return not notify or "FAILURE" in notify.upper().split(",")


def _same_mailbox(address: str, postmaster: str) -> bool:
    """Whether a failed recipient is the postmaster, who would else get reports about reports without end."""
    return address.lower() in (postmaster.lower(), "postmaster")


def _head(
    envelope: Envelope, recipient: str, hostname: str, now: float, report_id: str, boundary: str, encoding: str
) -> bytes:
    double = not envelope.sender
    subject = "Undeliverable report (double bounce)" if double else "Undelivered mail returned to sender"
    fields = [
        ("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
        ("Subject", f"Postmaster notice: {subject.lower()}" if double else subject),
        ("Date", date(now)),
        ("MIME-Version", "1.0"),
        ("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5
    ]
    lines = "".join(SMTP.header_factory(name, value).fold(policy=SMTP) for name, value in fields)
    # Not by the header factory, which would parse addresses and ids again, and encode what it cannot read.
    lines += _to(recipient)
    lines += f"Message-ID: <{report_id}@{hostname}>\r\n"
    if (match := _MESSAGE_ID.fullmatch(envelope.message_id.strip())) is not None:
        lines += f"References: <{match[1]}>\r\n"
    lines += f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'
    lines += f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    return lines.encode("ascii")


def _to(recipient: str) -> str:
    """The To field. An address that is not ASCII stands as the name of an empty group (RFC 6857 section 3.1.8)."""
    if recipient.isascii() and recipient.isprintable() and len(recipient) < ADDRESS_LIMIT:
        return f"To: <{recipient}>\r\n"
    name = recipient.encode("utf-8", "replace").decode("utf-8")
    return "To: " + Header(name, "utf-8", header_name="To").encode(linesep="\r\n") + " :;\r\n"


def _human(message: Message, failures: Sequence[Failure], hostname: str, postmaster: str) -> bytes:
    envelope = message.envelope
    contact = ascii_text(postmaster) or f"postmaster@{hostname}"
    subject = f', "{ascii_text(envelope.subject, 200)}",' if envelope.subject else ""
    whose = "Your message" if envelope.sender else "A message with the null sender, itself a report as a rule,"
    lines = [f"This is the mail relay {hostname}.", ""]
    lines += _paragraph(f"{whose}{subject} could not be delivered. It was accepted on {date(envelope.arrived)}.")
    for failure in failures:
        lines += ["", *_paragraph(f"<{ascii_text(failure.recipient.address)}>")]
        lines += _paragraph(_reason(failure), "    ")
    lines += ["", "What happens next", "", *_paragraph(_AFTERWARDS), ""]
    lines += _paragraph(f"If you need help, write to {contact} and name the queue id {encode(message.id)}.")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _reason(failure: Failure) -> str:
    """One failure in a person's words: who said what, and whether we had tried for long."""
    verdict, attempt, recipient = failure.verdict, failure.attempt, failure.recipient
    said = ascii_text(_reply(failure)) or "no reason was given"
    if verdict.remote:
        where = ascii_text(attempt.host or attempt.address) or "the next host"
        if attempt.host and attempt.address:
            where += f" [{ascii_text(attempt.address)}]"
        text = f"{where} said: {said}"
    else:
        text = said
    if failure.expired:
        times = f"{recipient.attempts} attempts" if recipient.attempts != 1 else "1 attempt"
        text = f"Given up after {times}. The last one ended so: {text}"
    return text


def _paragraph(text: str, indent: str = "") -> list[str]:
    """Lines of at most SOFT characters; a longer word is broken."""
    return wrap(text, SOFT, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False) or [indent]


def _reply(failure: Failure) -> str:
    """The reply as it came: code, enhanced code (once) and text."""
    verdict = failure.verdict
    words = [str(verdict.code)] if verdict.code else []
    if verdict.enhanced and not verdict.reply.startswith(verdict.enhanced):
        words.append(verdict.enhanced)
    return " ".join([*words, verdict.reply]).strip()


def _status(message: Message, failures: Sequence[Failure], hostname: str) -> bytes:
    """The machine-readable part (RFC 3464 section 2): a block for the message, then one a recipient."""
    envelope = message.envelope
    lines = field("Reporting-MTA", f"dns; {hostname}")
    if envelope.envid:
        lines += field("Original-Envelope-Id", ascii_text(decode_xtext(envelope.envid)))
    if envelope.client:
        helo = re.sub(r"[();\\ ]", "?", ascii_text(envelope.helo)) or f"[{ascii_text(envelope.client)}]"
        lines += field("Received-From-MTA", f"dns; {helo} ([{ascii_text(envelope.client)}])")
    lines += field("Arrival-Date", date(envelope.arrived))
    lines += field("X-Mailtui-Queue-ID", encode(message.id))
    for failure in failures:
        lines += "\r\n" + _recipient_fields(message, failure)
    return lines.encode("ascii")


def _recipient_fields(message: Message, failure: Failure) -> str:
    recipient, verdict, attempt = failure.recipient, failure.verdict, failure.attempt
    lines = field("Final-Recipient", typed_address(recipient.address))
    if recipient.orcpt and (original := original_recipient(recipient.orcpt)):
        lines = field("Original-Recipient", original) + lines
    lines += field("Action", "failed")
    lines += field("Status", failure_status(failure))
    if verdict.remote:  # RFC 3461 section 6.3 (h), (i): never without a next hop that answered
        if attempt.host:
            lines += field("Remote-MTA", f"dns; {ascii_text(attempt.host)}")
        elif attempt.address:
            lines += field("Remote-MTA", f"dns; [{ascii_text(attempt.address)}]")
        lines += field("Diagnostic-Code", f"smtp; {ascii_text(_reply(failure))}")
    if attempt.finished:
        lines += field("Last-Attempt-Date", date(attempt.finished))
    return lines + field("Final-Log-ID", rid(message.id, recipient.ordinal))


def failure_status(failure: Failure) -> str:
    """The Status of a failure (RFC 3463).

    A refusal keeps its own status, in class 5 as `failed` demands (RFC 3464 section 2.3.4). One that ran out of time
    has the 4.x.x of the last reply, else 4.4.7.
    """
    verdict = failure.verdict
    match = _STATUS.fullmatch(verdict.enhanced)
    if failure.expired:
        return verdict.enhanced if match and verdict.remote and verdict.enhanced[0] == "4" else "4.4.7"
    return f"5{match[1]}" if match else "5.0.0"


def _returned(envelope: Envelope, original: bytes, limit: int) -> tuple[str, bytes]:
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


def _boundary(report_id: str, contents: Sequence[bytes]) -> str:
    """A boundary that stands in none of the parts."""
    count = 0
    while True:
        digest = hashlib.sha256(f"{report_id} {count}".encode("utf-8", "replace")).hexdigest()
        boundary = f"=_{digest[:32]}"
        if not any(boundary.encode() in content for content in contents):
            return boundary
        count += 1

"""Reports made for a test, and read back with the standard library's parser."""

import email
import email.policy
import re
from email.message import EmailMessage
from typing import Any

from mailtui.bounce.report import Report, compose
from mailtui.model import Action, Attempt, Envelope, Message, Outcome, Recipient, Reported, Verdict

NOW = 1_700_000_600.0
ARRIVED = 1_700_000_000.0
ID = 1_700_000_000_000 << 21
HEADER = b"Received: from a.example by relay.example; x\r\nSubject: hello\r\nMessage-ID: <m1@a.example>\r\n"
ORIGINAL = HEADER + b"\r\nThe text.\r\n.\r\nMore.\r\n"


def envelope(**changes: Any) -> Envelope:
    known: dict[str, Any] = {"sender": "ann@a.example", "arrived": ARRIVED, "client": "192.0.2.1", "helo": "a.example"}
    known |= {"subject": "hello", "message_id": "<m1@a.example>"}
    return Envelope(**(known | changes))


def failure(
    address: str = "bob@b.example",
    *,
    code: int = 550,
    enhanced: str = "5.1.1",
    reply: str = "no such user",
    remote: bool = True,
    expired: bool = False,
    host: str = "mx.b.example",
    ip: str = "203.0.113.5",
    finished: float = NOW - 5,
    action: Action = Action.FAILED,
    **changes: Any,
) -> Reported:
    known: dict[str, Any] = {"ordinal": 1, "attempts": 1, "destination": "b.example"}
    return Reported(
        Recipient(address=address, **(known | changes)),
        Verdict(Outcome.BOUNCED, code, enhanced, reply, remote),
        Attempt(finished - 1, finished, host, ip),
        action,
        expired,
    )


def make(
    *failures: Reported, original: bytes = ORIGINAL, postmaster: str = "", limit: int = 50_000, **changes: Any
) -> Report | None:
    message = Message(ID, envelope(**({"size": len(original)} | changes)), [], None)
    return compose(
        message,
        failures,
        original,
        hostname="relay.example",
        postmaster=postmaster,
        return_limit=limit,
        now=NOW,
        report_id="01REPORT",
    )


def check(report: Report | None) -> EmailMessage:
    """What holds for every report; the report as the standard library reads it."""
    assert report is not None
    content = report.content
    assert content.endswith(b"\r\n")
    assert re.search(rb"\r(?!\n)|(?<!\r)\n|\0", content) is None
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert report.eight_bit is not content.isascii()
    assert report.smtputf8 is not report.recipient.isascii()
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    parts = list(message.iter_parts())
    status = "message/global-delivery-status" if report.smtputf8 else "message/delivery-status"
    assert [part.get_content_type() for part in parts[:2]] == ["text/plain", status]
    assert len(parts) == 3
    for part in [message, *parts, *status_blocks(parts[1])]:
        assert part.defects == []
    assert report.smtputf8 or content.split(b"\r\n\r\n")[0].isascii()
    for raw in raw_parts(report)[:2]:
        assert report.smtputf8 or raw.isascii()
        assert raw.decode("utf-8").replace("\r\n", "").isprintable()
    return message


def status_blocks(status: EmailMessage) -> list[Any]:
    """The blocks of a delivery status. The library reads message/global-delivery-status as a single message: as the
    other type it is the same."""
    if status.get_content_type() == "message/delivery-status":
        return list(status.iter_parts())
    [whole] = status.iter_parts()
    content = whole.as_bytes(policy=email.policy.SMTPUTF8)
    return list(
        email.message_from_bytes(
            b"Content-Type: message/delivery-status\r\n\r\n" + content, policy=email.policy.SMTPUTF8
        ).iter_parts()
    )  # type: ignore[attr-defined]


def raw_parts(report: Report) -> list[bytes]:
    """The bodies of the three parts, octet by octet."""
    boundary = re.search(rb'boundary="([^"]+)"', report.content)
    assert boundary is not None
    return [part.partition(b"\r\n\r\n")[2] for part in report.content.split(b"\r\n--" + boundary[1])[1:4]]


def blocks(report: Report | None) -> list[dict[str, str]]:
    """The fields of the delivery status: of the message, then of each recipient."""
    read = []
    for block in status_blocks(list(check(report).iter_parts())[1]):
        assert len(set(map(str.lower, block.keys()))) == len(block.keys())
        read.append({name: re.sub(r"\r?\n", "", str(value)) for name, value in block.raw_items()})
    return read


def returned(report: Report | None) -> tuple[str, bytes]:
    parts = list(check(report).iter_parts())
    assert report is not None
    return parts[2].get_content_type(), raw_parts(report)[2]


def human(report: Report | None) -> str:
    text = raw_parts(report)[0].decode("ascii") if report else ""
    return " ".join(text.split())

"""The machine-readable part of a report: a block for the message, then one a recipient (RFC 3464 section 2).

Promises: what was not given is not there (Original-Envelope-Id, Original-Recipient), nobody is named who was not
involved (Remote-MTA), and the class of a status fits its action.
"""

import re
from collections.abc import Sequence

from mailtui.bounce.text import date, decode_xtext, field, one_line, original_recipient, typed_address
from mailtui.ids import encode, rid
from mailtui.model import Action, Message, Reported

_STATUS = re.compile(r"[245](\.[0-9]{1,3}\.[0-9]{1,3})")


def status_part(message: Message, reported: Sequence[Reported], hostname: str, *, wide: bool) -> bytes:
    """The fields in ASCII, or for a report that goes with SMTPUTF8 (`wide`) in UTF-8 (RFC 6533 section 4)."""
    envelope = message.envelope
    lines = field("Reporting-MTA", f"dns; {hostname}")
    if envelope.envid:
        lines += field("Original-Envelope-Id", one_line(decode_xtext(envelope.envid)))
    if envelope.client:
        helo = re.sub(r"[();\\ ]", "?", one_line(envelope.helo)) or f"[{one_line(envelope.client)}]"
        lines += field("Received-From-MTA", f"dns; {helo} ([{one_line(envelope.client)}])")
    lines += field("Arrival-Date", date(envelope.arrived))
    lines += field("X-Mailtui-Queue-ID", encode(message.id))
    for each in reported:
        lines += "\r\n" + _recipient(message, each, wide)
    return lines.encode("utf-8" if wide else "ascii")


def _recipient(message: Message, reported: Reported, wide: bool) -> str:
    recipient, verdict, attempt = reported.recipient, reported.verdict, reported.attempt
    lines = field("Final-Recipient", typed_address(recipient.address, wide=wide))
    if recipient.orcpt and (original := original_recipient(recipient.orcpt, wide=wide)):
        lines = field("Original-Recipient", original) + lines
    lines += field("Action", reported.action)
    lines += field("Status", status(reported))
    if verdict.remote:  # RFC 3461 section 6.3 (h), (i): never without a next hop that answered
        if attempt.host:
            lines += field("Remote-MTA", f"dns; {one_line(attempt.host)}")
        elif attempt.address:
            lines += field("Remote-MTA", f"dns; [{one_line(attempt.address)}]")
        lines += field("Diagnostic-Code", f"smtp; {one_line(reply(reported), wide=wide)}")
    if attempt.finished:
        lines += field("Last-Attempt-Date", date(attempt.finished))
    if reported.action is Action.DELAYED and recipient.expires:
        lines += field("Will-Retry-Until", date(recipient.expires))
    return lines + field("Final-Log-ID", rid(message.id, recipient.ordinal))


def status(reported: Reported) -> str:
    """The Status of a recipient (RFC 3463), in the class that its action demands (RFC 3464 section 2.3.4).

    What was said keeps its detail; without one it is X.0.0. What ran out of time has the 4.x.x of the last reply, else
    4.4.7; what waits without a reply has 4.4.1 or whatever stood in its way.
    """
    verdict = reported.verdict
    match = _STATUS.fullmatch(verdict.enhanced)
    if reported.expired:
        return verdict.enhanced if match and verdict.remote and verdict.enhanced[0] == "4" else "4.4.7"
    family = {Action.FAILED: "5", Action.DELAYED: "4"}.get(reported.action, "2")
    return f"{family}{match[1]}" if match else f"{family}.0.0"


def reply(reported: Reported) -> str:
    """The reply as it came: code, enhanced code (once) and text."""
    verdict = reported.verdict
    words = [str(verdict.code)] if verdict.code else []
    if verdict.enhanced and not verdict.reply.startswith(verdict.enhanced):
        words.append(verdict.enhanced)
    return " ".join([*words, verdict.reply]).strip()

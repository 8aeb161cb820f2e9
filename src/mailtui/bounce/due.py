"""Whom a report is due, and whom not (RFC 3461 section 5.2, RFC 3834 section 2, contract.md `[bounce] delay_to`).

Promises: a report is never answered, NOTIFY is obeyed to the letter, and without it nobody hears of anything but
failures and, so configured, delays.
"""

import re
from collections.abc import Sequence

from mailtui.model import Action, Envelope, Reported

# Only these say that a person waits for an answer (RFC 3834 section 5); Precedence is older and no standard.
_AUTOMATIC = re.compile(
    rb"^(?:auto-submitted[ \t]*:(?:[ \t]*\([^)\n]*\))?[ \t]*(?!no\b)[a-z]|precedence[ \t]*:[ \t]*(?:bulk|list|junk)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_FOLD = re.compile(rb"\r?\n[ \t]+")


def told(envelope: Envelope, reported: Sequence[Reported], postmaster: str) -> list[Reported]:
    """Those of `reported` who stand in a report of this message, for the sender or, of a report, for `postmaster`.

    NOTIFY decides for each recipient; without it failures and delays are told, successes not. Of a message with the
    null sender only failures are told, and never to the postmaster that the postmaster cannot be reached (RFC 5321
    section 6.1).
    """
    if envelope.sender:
        return [each for each in reported if _wanted(each)]
    return [
        each
        for each in reported
        if each.action is Action.FAILED and _wanted(each) and not _is_postmaster(each.recipient.address, postmaster)
    ]


def _wanted(reported: Reported) -> bool:
    notify = reported.recipient.notify
    match reported.action:
        case Action.FAILED:
            return not notify or asks(notify, "FAILURE")
        case Action.DELAYED:
            return not notify or asks(notify, "DELAY")
        case _:
            return asks(notify, "SUCCESS")


def asks(notify: str, what: str) -> bool:
    """Whether NOTIFY names this kind of report."""
    return what in notify.upper().split(",")


def success(onward: str) -> Action | None:
    """What may be said of a recipient that a next hop took, by `Attempt.onward`: relayed to a system that cannot
    report (RFC 3461 section 5.2.2), delivered for good, or nothing since the next hop reports (5.2.1)."""
    return {"": Action.RELAYED, "final": Action.DELIVERED}.get(onward)


def delay_wanted(delay_to: str, sender: str, trusted: bool, notify: str) -> bool:
    """Whether the sender is to hear of a delay: `delay_to` is trusted, all or none, `trusted` whether the message came
    from a network, user or certificate that may relay. Who is trusted gets what NOTIFY=DELAY asks for in any case.
    """
    if not sender or (notify and not asks(notify, "DELAY")):
        return False
    return delay_to == "all" or (trusted and (delay_to == "trusted" or bool(notify)))


def automatic(header: bytes) -> bool:
    """Whether a header section says that no person wrote the message, or a list sent it: nobody waits for it."""
    end = header.find(b"\r\n\r\n")
    return _AUTOMATIC.search(_FOLD.sub(b" ", header[:end] if end >= 0 else header)) is not None


def _is_postmaster(address: str, postmaster: str) -> bool:
    """Whether a failed recipient is the postmaster, who would else get reports about reports without end."""
    return address.lower() in (postmaster.lower(), "postmaster")

"""The part of a report that people read: who, what the other side said, what happens next, and whom to ask.

Promises: each kind of news has its own paragraph, and nobody has to guess whether to send the message again.
"""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from mailtui.bounce.status import reply
from mailtui.bounce.text import SOFT, date, one_line
from mailtui.ids import encode
from mailtui.model import Action, Message, Reported

# In this order they stand in a report: what asks for action first.
_HEADLINES = {
    Action.FAILED: "could not be delivered to the following recipients.",
    Action.DELAYED: "has not been delivered yet to the following recipients. This is only a warning: you need not send "
    "it again.",
    Action.DELIVERED: "was delivered to the following recipients.",
    Action.RELAYED: "was handed on for the following recipients, to a mail system that sends no reports of successful "
    "delivery.",
}

_AFTERWARDS = {
    Action.FAILED: "It will not be tried again for those to whom it could not be delivered. What the next host said "
    "often tells what to do: correct the address, make the message smaller, or ask the recipient in another way; then "
    "send the message again.",
    Action.DELAYED: "For those whom it has not reached yet it stays here and is tried again, as long as stated above. "
    "If that fails you get another report; if it succeeds, none unless you asked for one.",
    Action.DELIVERED: "For those to whom it was delivered nothing more happens here.",
    Action.RELAYED: "For those for whom it was handed on, the next system has the message now. You hear of it again "
    "only if it fails there.",
}

_OTHERS = "If there were other recipients, they are not concerned by this report."


def human_part(message: Message, reported: Sequence[Reported], hostname: str, postmaster: str, *, wide: bool) -> bytes:
    """The text; in UTF-8 if `wide`, so that it can name addresses that are not ASCII."""
    envelope = message.envelope
    contact = one_line(postmaster, wide=wide) or f"postmaster@{hostname}"
    subject = f', "{one_line(envelope.subject, 200, wide=wide)}",' if envelope.subject else ""
    whose = "Your message" if envelope.sender else "A message with the null sender, itself a report as a rule,"
    lines = [f"This is the mail relay {hostname}."]
    kinds = [kind for kind in _HEADLINES if any(each.action is kind for each in reported)]
    for kind in kinds:
        lines += ["", *_paragraph(f"{whose}{subject} {_HEADLINES[kind]}")]
        if kind is kinds[0]:
            lines += _paragraph(f"It was accepted on {date(envelope.arrived)}.")
            whose, subject = "The message", ""
        for each in reported:
            if each.action is kind:
                lines += ["", *_paragraph(f"<{one_line(each.recipient.address, wide=wide)}>")]
                lines += _paragraph(_reason(each, wide), "    ")
    lines += ["", "What happens next", ""]
    for kind in kinds:
        lines += [*_paragraph(_AFTERWARDS[kind]), ""]
    lines += _paragraph(_OTHERS)
    lines += ["", *_paragraph(f"If you need help, write to {contact} and name the queue id {encode(message.id)}.")]
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8" if wide else "ascii")


def _reason(reported: Reported, wide: bool) -> str:
    """One recipient in a person's words: who said what, whether we had tried for long, and for how long we shall."""
    verdict, attempt, recipient = reported.verdict, reported.attempt, reported.recipient
    said = one_line(reply(reported), wide=wide)
    if verdict.remote:
        where = one_line(attempt.host or attempt.address) or "the next host"
        if attempt.host and attempt.address:
            where += f" [{one_line(attempt.address)}]"
        text = f"{where} said: {said or 'nothing'}"
    else:
        text = said or "no reason was given"
    if reported.expired:
        times = f"{recipient.attempts} attempts" if recipient.attempts != 1 else "1 attempt"
        return f"Given up after {times}. The last one ended so: {text}"
    if reported.action is Action.DELAYED:
        text = text if attempt.finished else f"It waits for a host that does not take mail now: {text}"
        if recipient.expires:
            text += f" - It is tried until {date(recipient.expires)}."
    return text


def _paragraph(text: str, indent: str = "") -> Iterable[str]:
    """Lines of at most SOFT characters; a longer word is broken."""
    return wrap(text, SOFT, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False) or [indent]

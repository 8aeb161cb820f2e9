"""May this recipient be sent mail by this client? The one function that decides, for the session and `access test`.

Promises: `decide` does no I/O and never waits; it walks the one ordered list of rules (`rules`), each of which settles
the question or says why it passed it over; the last one refuses. The session, `access test`, the probes and the log all
have their answer from here.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mailtui.address import Mailbox
from mailtui.intake.question import (
    ACCEPT,
    DEFER,
    REJECT,
    Address,
    Decision,
    Network,
    Question,
    parse_client,
    parse_recipient,
    parse_sender,
)
from mailtui.intake.recipients import KnownRecipients
from mailtui.intake.rules import ASK, RULES, AccessRules, trusted
from mailtui.model import SmtpError

if TYPE_CHECKING:
    from mailtui.intake.grants import Grant

__all__ = [
    "ACCEPT",
    "DEFER",
    "REJECT",
    "RULES",
    "AccessRules",
    "Address",
    "Decision",
    "KnownRecipients",
    "Network",
    "Question",
    "decide",
    "parse_client",
    "parse_recipient",
    "parse_sender",
    "question_from_text",
    "trusted",
]


def decide(rules: AccessRules, question: Question, *, explain: bool = True) -> Decision:
    """The verdict on one recipient. The session, which nobody asks why, leaves out `passed_over` (`explain`)."""
    passed_over: list[tuple[str, str]] = []
    for name, rule in RULES:
        answer = rule(rules, question)
        if isinstance(answer, str):
            if explain:
                passed_over.append((name, answer))
        else:
            decision = Decision(*answer[:4], name, passed_over)
            if len(answer) == 5:
                if answer[4] is ASK:
                    decision.ask = True
                elif isinstance(answer[4], Mailbox):
                    decision.recipient = answer[4]
            return decision
    raise AssertionError("the last rule always answers")


def question_from_text(
    client: str,
    sender: str,
    recipient: str,
    *,
    rules: AccessRules,
    user: str = "",
    certificate: str = "",
    tls: bool = False,
    helo: str = "",
    listener: str = "",
    role: str = "",
    grant: "Grant | None" = None,
) -> Question:
    """The question of `access test`: addresses as a person writes them, with or without angle brackets.

    Parsed like those of a session, so that an address that a session refuses is refused with the same reply. Without a
    `listener` it is that of a relay, if there is one. Raises ValueError if `client` is no IP address.
    """
    address = parse_client(client)
    return Question(
        client=address,
        sender=_read(parse_sender, sender, "sender"),
        recipient=_read(parse_recipient, recipient, "recipient"),
        network=rules.network_of(address),
        user=user,
        certificate=certificate,
        tls=tls or certificate != "",
        helo=helo,
        listener=listener,
        role=role or (rules.roles.get(listener, "relay") if listener else _usual_role(rules)),
        grant=grant,
    )


def _usual_role(rules: AccessRules) -> str:
    """What a listener is that nobody names: a relay, unless there are only others."""
    return "submission" if rules.roles and "relay" not in rules.roles.values() else "relay"


def _read(parse: Callable[..., tuple[Mailbox | None, bytes]], text: str, what: str) -> Any:
    """An address as a person writes it; one that is none as its refusal. A character above 127 is refused first as in
    a session that did not ask for SMTPUTF8."""
    raw = text.encode("utf-8", "surrogateescape")
    if not raw.startswith(b"<"):
        raw = b"<" + raw + b">"
    try:
        mailbox, rest = parse(raw)
    except SmtpError as error:
        return error
    if rest:
        return SmtpError(501, "5.5.4", "Something stands behind the address", f"{what}-syntax")
    return mailbox

"""A mail transaction: from MAIL to the end of the data (RFC 5321 section 3.3), and the message it becomes."""

from typing import TYPE_CHECKING

from mailtui.address import Mailbox, with_ascii_domain
from mailtui.intake.access import Question
from mailtui.intake.header import HeaderFacts
from mailtui.intake.parameters import NONE, MailParameters, RcptParameters
from mailtui.intake.terms import Terms
from mailtui.model import Envelope, Message, Recipient

if TYPE_CHECKING:
    from mailtui.intake.chunking import ChunkedReception


class Transaction:
    """The sender and the recipients accepted so far."""

    __slots__ = (
        "asked", "chunks", "excess", "opening", "parameters", "protocol", "question", "recipients", "sender", "text",
    )  # fmt: skip

    def __init__(self, sender: Mailbox | None, question: Question, parameters: MailParameters = NONE) -> None:
        self.sender = sender
        self.question = question  # for the access rules; its recipient is the one in hand
        self.parameters = parameters
        self.text = sender.text if sender is not None else ""
        # By what makes two addresses the same mailbox; the first one given is kept, with what was asked for it.
        self.recipients: dict[tuple[str, str], Mailbox] = {}
        self.asked: dict[tuple[str, str], RcptParameters] = {}
        self.excess = 0  # recipients that were refused for being too many
        # The `with` clause and the beginning of the Received line, where they are not those of the session.
        self.protocol = ""
        self.opening = b""
        self.chunks: ChunkedReception | None = None  # the message, from its first BDAT on

    def message(self, number: int, envelope: Envelope, facts: HeaderFacts, terms: Terms, body: bytes | None) -> Message:
        """The message as the queue takes it; `envelope` gets what MAIL and the header section say."""
        envelope.subject = facts.subject
        envelope.message_id = facts.message_id
        if self.parameters is not NONE:
            envelope.ret, envelope.envid = self.parameters.ret, self.parameters.envid
            if self.parameters.smtputf8:
                self._internationalized(envelope, facts)
        expires = envelope.arrived + (terms.expire if self.sender is not None else terms.bounce_expire)
        submitter = envelope.user or envelope.client or (self.sender.destination if self.sender is not None else "")
        recipients = [
            Recipient(ordinal, mailbox.text, mailbox.destination, submitter, due=envelope.arrived, expires=expires)
            for ordinal, mailbox in enumerate(self.recipients.values(), 1)
        ]
        if self.asked:
            for recipient, key in zip(recipients, self.recipients, strict=True):
                if (asked := self.asked.get(key)) is not None:
                    recipient.notify, recipient.orcpt = asked
        return Message(number, envelope, recipients, body)

    def _internationalized(self, envelope: Envelope, facts: HeaderFacts) -> None:
        """Whether a message whose client asked for SMTPUTF8 needs it on its way (RFC 6531 section 3.4)."""
        envelope.protocol = self.protocol
        mailboxes = list(self.recipients.values())
        if len(mailboxes) == 1 and with_ascii_domain(mailboxes[0].text) is None:
            envelope.utf8_header = envelope.eight_bit = True  # by our own Received line, which names the recipient
        if not facts.ascii:
            envelope.utf8_header = True
        envelope.smtputf8 = (
            envelope.utf8_header
            or (self.sender is not None and self.sender.utf8)
            or any(mailbox.utf8 for mailbox in mailboxes)
        )

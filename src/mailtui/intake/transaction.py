"""A mail transaction: from MAIL to the end of the data (RFC 5321 section 3.3), and the message it becomes."""

from mailtui.address import Mailbox
from mailtui.intake.access import Question
from mailtui.intake.header import HeaderFacts
from mailtui.intake.terms import Terms
from mailtui.model import Envelope, Message, Recipient


class Transaction:
    """The sender and the recipients accepted so far."""

    __slots__ = ("question", "recipients", "sender", "text")

    def __init__(self, sender: Mailbox | None, question: Question) -> None:
        self.sender = sender
        self.question = question  # for the access rules; its recipient is the one in hand
        self.text = sender.text if sender is not None else ""
        # By what makes two addresses the same mailbox; the first one given is kept.
        self.recipients: dict[tuple[str, str], Mailbox] = {}

    def message(self, number: int, envelope: Envelope, facts: HeaderFacts, terms: Terms, body: bytes | None) -> Message:
        """The message as the queue takes it; `envelope` gets what the header says."""
        envelope.subject = facts.subject
        envelope.message_id = facts.message_id
        expires = envelope.arrived + (terms.expire if self.sender is not None else terms.bounce_expire)
        submitter = envelope.user or envelope.client or (self.sender.destination if self.sender is not None else "")
        recipients = [
            Recipient(ordinal, mailbox.text, mailbox.destination, submitter, due=envelope.arrived, expires=expires)
            for ordinal, mailbox in enumerate(self.recipients.values(), 1)
        ]
        return Message(number, envelope, recipients, body)

"""What the relay decision is asked, and what it answers: plain data, and the ways from text to it.

Promises: an address is parsed in the same way for a session and for `access test`, so that both are refused with the
same reply; a client's address is compared as what it stands for, never as text (standards P04).
"""

import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailtui.address import AddressError, Mailbox, parse_path
from mailtui.model import Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.intake.grants import Grant
    from mailtui.intake.recipients import Known

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ACCEPT, REJECT, DEFER = "accept", "reject", "defer"


@dataclass(slots=True)
class Question:
    """What is known when a recipient is named. An address that is none stands as its refusal.

    All of it comes from the connection, but for sender and recipient: nothing that a client merely says about itself
    permits anything (RFC 2505 section 2.1)."""

    client: Address | None
    sender: Mailbox | SmtpError | None  # None: the null path <>
    recipient: Mailbox | SmtpError
    network: Network | None = None  # the first of `rules.networks` that holds the client: see `network_of`
    user: str = ""  # the account, after a successful AUTH
    certificate: str = ""  # SHA-256 fingerprint of a client certificate that was verified
    tls: bool = False
    helo: str = ""
    listener: str = ""
    role: str = "relay"  # of the listener: relay | submission (AUTH is required)
    local: Address | None = None  # the address of ours that the client is connected to
    grant: "Grant | None" = None  # the client's, if it has one now
    known: "Known | None" = None  # what a callout has said of the recipient; None: nobody was asked


@dataclass(slots=True)
class Decision:
    """The answer: verdict is accept, reject or defer; `rule` decided, `passed_over` did not, and why.

    `ask`: the recipient's next hop can settle it; who can wait asks (`Callout.ask`) and decides again with
    `Question.known`. Till then the verdict is a deferral."""

    verdict: str
    code: int
    enhanced: str
    text: str
    rule: str
    passed_over: list[tuple[str, str]]
    recipient: Mailbox | None = None  # where mail for the recipient goes, when not to the address as given
    ask: bool = False

    @property
    def reply(self) -> Reply:
        return Reply(self.code, self.enhanced, self.text)


@functools.lru_cache(4096)  # the same clients come again and again, and a parse costs 10 us
def parse_client(text: str) -> Address:
    """The address of a peer as the rules compare it; ValueError if it is none.

    A zone id is dropped, and an IPv4-mapped IPv6 address is the IPv4 address it stands for.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_sender(raw: bytes, *, utf8: bool = False) -> tuple[Mailbox | None, bytes]:
    """The reverse-path at the start of `raw` and its parameters; None for <>. Raises the refusal as SmtpError."""
    try:
        mailbox, rest = parse_path(raw, utf8=utf8)
    except AddressError as error:
        raise _syntax_refusal("Sender", error, 7) from None
    if mailbox is not None and not mailbox.domain:
        raise SmtpError(501, "5.1.7", "Sender address must have a domain: <user@example.org>", "sender-syntax")
    return mailbox, rest


def parse_recipient(raw: bytes, *, utf8: bool = False) -> tuple[Mailbox, bytes]:
    """The forward-path at the start of `raw` and its parameters. Raises the refusal as SmtpError."""
    try:
        mailbox, rest = parse_path(raw, utf8=utf8)
    except AddressError as error:
        raise _syntax_refusal("Recipient", error, 3) from None
    if mailbox is None:
        raise SmtpError(501, "5.1.3", "Recipient address must not be empty", "recipient-syntax")
    return mailbox, rest


def _syntax_refusal(role: str, error: AddressError, detail: int) -> SmtpError:
    rule = f"{role.lower()}-syntax"
    if error.needs_utf8:
        # RFC 6531 section 3.4 and 3.5: the address may be good, but SMTPUTF8 is not in force.
        return SmtpError(553, "5.6.7", f"{role} address: {error}", rule)
    return SmtpError(501, f"5.1.{detail}", f"{role} address: {error}", rule)

"""Who may send where: what the configuration permits, and the one ordered list of rules that reads it.

Each rule settles the question or says why it passes it over. First come the rules that refuse (syntax, AUTH where it is
required, sender domains, unknown recipients), then every kind of permission, and the last one refuses. Permission comes
from the address of the TCP peer, from AUTH, from a verified certificate, or from what the recipient is: never from a
HELO name, a sender or a header (RFC 2505 section 2.1, RFC 5321 section 7.9; standards P01, P03).
"""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailtui.address import Mailbox, parse_mailbox
from mailtui.intake.question import ACCEPT, DEFER, REJECT, Address, Network, Question
from mailtui.intake.recipients import KnownRecipients
from mailtui.model import SmtpError

if TYPE_CHECKING:
    from mailtui.settings import ListenerSettings, Settings

_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(slots=True)
class AccessRules:
    """The `[access]` table and what else decides, ready to be asked."""

    networks: Sequence[Network] = ()
    local_domains: frozenset[str] = frozenset()
    relay_domains: frozenset[str] = frozenset()
    recipients: KnownRecipients | None = None  # None: "any", or "callout"
    callout: bool = False  # recipients = "callout"
    sender_domains: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()  # SHA-256 fingerprints
    address_literals: bool = True
    own_addresses: frozenset[Address] = frozenset()
    own_networks: tuple[Network, ...] = ()
    hostname: str = "localhost"
    postmaster: Mailbox | None = None
    roles: Mapping[str, str] = field(default_factory=dict)  # listeners by name; "submission": AUTH is required

    @classmethod
    def from_settings(cls, settings: "Settings") -> "AccessRules":
        """The rules of a configuration; reads the recipients file once."""
        access = settings.access
        recipients = None
        if access.recipients not in ("any", "", "callout"):
            recipients = KnownRecipients(access.recipients)
            recipients.refresh()
        own, own_networks = _ourselves(settings)
        return cls(
            networks=tuple(access.networks),
            local_domains=frozenset(access.local_domains),
            relay_domains=frozenset(access.relay_domains),
            recipients=recipients,
            callout=access.recipients == "callout",
            sender_domains=frozenset(access.sender_domains),
            certificates=frozenset(access.certificates),
            address_literals=access.address_literals,
            own_addresses=own,
            own_networks=own_networks,
            hostname=settings.hostname,
            postmaster=parse_mailbox(settings.mail.postmaster.encode()) if settings.mail.postmaster else None,
            roles={listener.name: _role(listener) for listener in settings.listener},
        )

    def network_of(self, client: Address | None) -> Network | None:
        """The first network that holds the client's address; None if none does."""
        if client is not None:
            for network in self.networks:
                if client in network:
                    return network
        return None

    def ours(self, destination: str) -> bool:
        """Whether mail for a domain is taken from anyone."""
        return destination in self.local_domains or destination in self.relay_domains


def _ourselves(settings: "Settings") -> tuple[frozenset[Address], tuple[Network, ...]]:
    """Addresses and networks that a literal must not lead to."""
    own = {ipaddress.ip_address(str(address)) for address in settings.delivery.own_addresses}
    networks: tuple[Network, ...] = ()
    for listener in settings.listener:
        # A literal leads to the delivery port: to ourselves only where we listen on that port.
        if listener.host and listener.port == settings.delivery.port:
            address = ipaddress.ip_address(listener.host)
            if address.is_unspecified:
                networks = _LOOPBACK
            else:
                own.add(address)
    return frozenset(own), networks


def _role(listener: "ListenerSettings") -> str:
    """As the rules see it: where AUTH is required it stands in for all other permissions."""
    return "submission" if listener.authentication == "required" else "relay"


def trusted(rules: AccessRules, question: Question) -> bool:
    """Whether the client itself may relay, whoever the recipient is: by AUTH, network, certificate or grant.

    At a submission listener only AUTH counts (contract.md `role`)."""
    if question.user:
        return True
    if question.role == "submission":
        return False
    return (
        question.network is not None
        or question.grant is not None
        or (question.certificate != "" and question.certificate in rules.certificates)
    )


# -- the rules, in their order ---------------------------------------------------------------------------------------
# Each gives (verdict, code, enhanced, text), where it accepts perhaps with the mailbox that is used instead, where it
# defers perhaps with ASK; or it gives the reason why it has nothing to say.

Answer = tuple[str, int, str, str] | tuple[str, int, str, str, Mailbox | bool] | str
Rule = Callable[[AccessRules, Question], Answer]

# The answer hangs on the next hop of the recipient, and nobody has asked it yet.
ASK = True

_ACCEPTED = (ACCEPT, 250, "2.1.5", "Recipient ok")
_RELAY_DENIED = "Relay access denied"


def _sender_syntax(rules: AccessRules, question: Question) -> Answer:
    if isinstance(question.sender, SmtpError):
        return _refused(question.sender)
    return "the sender is the null path" if question.sender is None else "the sender is an address"


def _recipient_syntax(rules: AccessRules, question: Question) -> Answer:
    if isinstance(question.recipient, SmtpError):
        return _refused(question.recipient)
    return "the recipient is an address"


def _authentication(rules: AccessRules, question: Question) -> Answer:
    """RFC 6409 section 4.3. Networks, certificates and grants do not stand in for it."""
    if question.role != "submission":
        return "the listener does not require authentication"
    if not question.user:
        return REJECT, 530, "5.7.0", "Authentication required"
    return "the client is authenticated"


def _postmaster(rules: AccessRules, question: Question) -> Answer:
    """RFC 5321 section 4.5.1: <postmaster> without a domain, and postmaster at each domain that we serve."""
    recipient = _mailbox(question)
    if recipient.local.lower() != "postmaster":
        return "the recipient is not postmaster"
    if recipient.domain:
        return _ACCEPTED if rules.ours(recipient.destination) else "the recipient's domain is not ours"
    if rules.postmaster is not None:
        return *_ACCEPTED, rules.postmaster
    if rules.hostname in rules.local_domains:
        return *_ACCEPTED, parse_mailbox(f"postmaster@{rules.hostname}".encode("ascii"))
    return REJECT, 550, "5.1.1", "<postmaster>: No postmaster is configured here; name a domain"


def _sender_domain(rules: AccessRules, question: Question) -> Answer:
    """Whoever may relay sends only as one of `sender_domains`, whoever the recipient is; strangers, who may send to our
    domains only, are not bound to them. The null path names no domain that could be another's, and reports have to
    leave (RFC 5321 section 4.5.5): it is free."""
    if not rules.sender_domains:
        return "sender_domains is empty"
    sender = question.sender
    if not isinstance(sender, Mailbox):
        return "the null path is no sender of any domain"
    if not trusted(rules, question):
        return "the client is none that sender_domains binds"
    if sender.destination in rules.sender_domains:
        return "the sender's domain is in sender_domains"
    return REJECT, 553, "5.7.1", f"<{sender.text}>: Sender domain not allowed"


def _known_recipients(rules: AccessRules, question: Question) -> Answer:
    """The list of those who exist at our domains (standards B02)."""
    recipients = rules.recipients
    if recipients is None:
        return "there is no list of recipients"
    recipient = _mailbox(question)
    if not rules.ours(recipient.destination):
        return "the recipient's domain is not ours"
    if recipient in recipients:
        return "the recipient is in the list"
    if not recipients.loaded:
        return DEFER, 451, "4.3.0", f"<{recipient.text}>: The list of recipients cannot be read, try again later"
    return REJECT, 550, "5.1.1", f"<{recipient.text}>: Recipient unknown"


def _callout(rules: AccessRules, question: Question) -> Answer:
    """The word of the recipient's next hop, where that is what counts."""
    if not rules.callout:
        return "recipients is not callout"
    recipient = _mailbox(question)
    if not rules.ours(recipient.destination):
        return "the recipient's domain is not ours"
    known = question.known
    if known is None:
        return DEFER, 450, "4.1.1", f"<{recipient.text}>: The recipient's server was not asked, try again later", ASK
    if known.refusal is None:
        return known.why or "the recipient's server takes mail for it"
    verdict = REJECT if known.refusal.code >= 500 else DEFER
    return verdict, known.refusal.code, known.refusal.enhanced, f"<{recipient.text}>: {known.refusal.text}"


def _local_domains(rules: AccessRules, question: Question) -> Answer:
    if rules.local_domains and _mailbox(question).destination in rules.local_domains:
        return _ACCEPTED
    return "the recipient's domain is not in local_domains"


def _relay_domains(rules: AccessRules, question: Question) -> Answer:
    if rules.relay_domains and _mailbox(question).destination in rules.relay_domains:
        return _ACCEPTED
    return "the recipient's domain is not in relay_domains"


def _address_literal(rules: AccessRules, question: Question) -> Answer:
    """A literal is taken for those who may relay, and never as a way back to ourselves."""
    recipient = _mailbox(question)
    if not recipient.destination.startswith("["):
        return "the recipient is not at an address literal"
    if not rules.address_literals:
        return REJECT, 554, "5.7.1", f"<{recipient.text}>: Address literals are not accepted"
    address = ipaddress.ip_address(recipient.destination[1:-1].removeprefix("IPv6:"))
    if (
        address in rules.own_addresses
        or (address == question.local and bool(rules.own_networks))
        or any(address in network for network in rules.own_networks)
    ):
        return REJECT, 554, "5.7.1", f"<{recipient.text}>: {_RELAY_DENIED}"
    return "the address literal is not our own address"


def _users(rules: AccessRules, question: Question) -> Answer:
    return _ACCEPTED if question.user else "the client is not authenticated"


def _networks(rules: AccessRules, question: Question) -> Answer:
    return _ACCEPTED if question.network is not None else "the client is not in networks"


def _certificates(rules: AccessRules, question: Question) -> Answer:
    if not question.certificate:
        return "the client has shown no certificate that was verified"
    return _ACCEPTED if question.certificate in rules.certificates else "the certificate is not in certificates"


def _grants(rules: AccessRules, question: Question) -> Answer:
    return _ACCEPTED if question.grant is not None else "the client has no grant"


def _default(rules: AccessRules, question: Question) -> Answer:
    return REJECT, 554, "5.7.1", f"<{_mailbox(question).text}>: {_RELAY_DENIED}"


def _mailbox(question: Question) -> Mailbox:
    assert isinstance(question.recipient, Mailbox)  # the syntax rule stands before
    return question.recipient


def _refused(error: SmtpError) -> Answer:
    reply = error.reply
    return DEFER if reply.code < 500 else REJECT, reply.code, reply.enhanced, reply.text


RULES: tuple[tuple[str, Rule], ...] = (
    ("sender-syntax", _sender_syntax),
    ("recipient-syntax", _recipient_syntax),
    ("authentication", _authentication),
    ("postmaster", _postmaster),
    ("sender-domain", _sender_domain),
    ("recipients", _known_recipients),
    ("callout", _callout),
    ("local-domains", _local_domains),
    ("relay-domains", _relay_domains),
    ("address-literal", _address_literal),
    ("users", _users),
    ("networks", _networks),
    ("certificates", _certificates),
    ("grants", _grants),
    ("default", _default),
)

# Names that `Decision.rule` can have, for whoever expects one.
NAMES = frozenset(name for name, _ in RULES)

"""May this recipient be sent mail by this client? The one function that decides, for the session and `access test`.

Promises: `decide` does no I/O and never waits; it walks one ordered list of rules, each of which settles the question
or says why it passed it over; the last one refuses. Permission comes from the address of the TCP peer or from what the
recipient is, never from a HELO name, a sender or a header (RFC 2505 section 2.1, RFC 5321 section 7.9).
"""

import functools
import ipaddress
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mailtui.address import AddressError, Mailbox, destination_of, parse_mailbox, parse_path
from mailtui.model import Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ACCEPT, REJECT, DEFER = "accept", "reject", "defer"

_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass(slots=True)
class Question:
    """What is known when a recipient is named. An address that is none stands as its refusal."""

    client: Address | None
    sender: Mailbox | SmtpError | None  # None: the null path <>
    recipient: Mailbox | SmtpError
    network: Network | None = None  # the first of `rules.networks` that holds the client: see `network_of`
    user: str = ""
    certificate: str = ""  # SHA-256 fingerprint of a verified client certificate
    tls: bool = False
    helo: str = ""
    listener: str = ""
    role: str = "relay"  # of the listener: relay | submission
    local: Address | None = None  # the address of ours that the client is connected to


@dataclass(slots=True)
class Decision:
    """The answer: verdict is accept, reject or defer; `rule` decided, `passed_over` did not, and why."""

    verdict: str
    code: int
    enhanced: str
    text: str
    rule: str
    passed_over: list[tuple[str, str]]
    recipient: Mailbox | None = None  # where mail for the recipient goes, when not to the address as given

    @property
    def reply(self) -> Reply:
        return Reply(self.code, self.enhanced, self.text)


class KnownRecipients:
    """The recipients of our domains, from a file: an address a line, `@domain` for all of a domain, `#` comments.

    Local parts are compared without case. `refresh` reads the file again when it has changed; a file that cannot be
    read leaves the last list in force and `error` says so; if there never was one, nothing is known and mail for our
    domains is deferred.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.error = ""
        self.loaded = False
        self._known: frozenset[str] = frozenset()
        self._stamp: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Read the file if it is another one than last time; True if so. Blocks: not for the event loop."""
        try:
            facts = os.stat(self.path)
            stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if stamp == self._stamp:
                return False
            with open(self.path, encoding="utf-8") as file:
                known, errors = _read_recipients(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self.error = f"cannot read the recipients file {self.path}: {reason}"
            self._stamp = None
            return False
        self._known, self._stamp, self.loaded = known, stamp, True
        self.error = f"{self.path}: {errors[0]}" if errors else ""
        return True

    def __contains__(self, mailbox: Mailbox) -> bool:
        return (
            f"{mailbox.local.lower()}@{mailbox.destination}" in self._known or f"@{mailbox.destination}" in self._known
        )

    def __len__(self) -> int:
        return len(self._known)


def _read_recipients(lines: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    known: set[str] = set()
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            if entry.startswith("@"):
                known.add("@" + destination_of(entry[1:]))
            else:
                mailbox = parse_mailbox(entry.encode(), utf8=True)
                known.add(f"{mailbox.local.lower()}@{mailbox.destination}")
        except AddressError as error:
            errors.append(f"line {number} is no address: {error}; expected user@example.org or @example.org")
    return frozenset(known), errors


@dataclass(slots=True)
class AccessRules:
    """The `[access]` table and what else decides, ready to be asked."""

    networks: Sequence[Network] = ()
    local_domains: frozenset[str] = frozenset()
    relay_domains: frozenset[str] = frozenset()
    recipients: KnownRecipients | None = None  # None: "any"
    sender_domains: frozenset[str] = frozenset()
    address_literals: bool = True
    own_addresses: frozenset[Address] = frozenset()
    own_networks: tuple[Network, ...] = ()
    hostname: str = "localhost"
    postmaster: Mailbox | None = None
    submission: frozenset[str] = field(default_factory=frozenset)  # names of listeners that require AUTH

    @classmethod
    def from_settings(cls, settings: "Settings") -> "AccessRules":
        """The rules of a configuration; reads the recipients file once."""
        access, delivery = settings.access, settings.delivery
        recipients = None
        if access.recipients not in ("any", ""):
            recipients = KnownRecipients(access.recipients)
            recipients.refresh()
        own = {ipaddress.ip_address(str(address)) for address in delivery.own_addresses}
        own_networks: tuple[Network, ...] = ()
        for listener in settings.listener:
            # A literal leads to the delivery port: to ourselves only where we listen on that port.
            if listener.host and listener.port == delivery.port:
                address = ipaddress.ip_address(listener.host)
                if address.is_unspecified:
                    own_networks = _LOOPBACK
                else:
                    own.add(address)
        return cls(
            networks=tuple(access.networks),
            local_domains=frozenset(access.local_domains),
            relay_domains=frozenset(access.relay_domains),
            recipients=recipients,
            sender_domains=frozenset(access.sender_domains),
            address_literals=access.address_literals,
            own_addresses=frozenset(own),
            own_networks=own_networks,
            hostname=settings.hostname,
            postmaster=parse_mailbox(settings.mail.postmaster.encode()) if settings.mail.postmaster else None,
            submission=frozenset(
                listener.name
                for listener in settings.listener
                if listener.role == "submission" or listener.auth == "required"
            ),
        )

    def network_of(self, client: Address | None) -> Network | None:
        """The first network that holds the client's address; None if none does."""
        if client is not None:
            for network in self.networks:
                if client in network:
                    return network
        return None


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
) -> Question:
    """The question of `access test`: addresses as a person writes them, with or without angle brackets.

    Parsed like those of a session, so that an address that a session refuses is refused with the same reply.
    Raises ValueError if `client` is no IP address.
    """
    address = parse_client(client)

    def read(parse: Callable[[bytes], tuple[Mailbox | None, bytes]], text: str, what: str) -> Any:
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

    return Question(
        client=address,
        sender=read(parse_sender, sender, "sender"),
        recipient=read(parse_recipient, recipient, "recipient"),
        network=rules.network_of(address),
        user=user,
        certificate=certificate,
        tls=tls,
        helo=helo,
        listener=listener,
        role=role or ("submission" if listener in rules.submission else "relay"),
    )


# -- the rules, in their order ---------------------------------------------------------------------------------------
# Each answers (verdict, code, enhanced, text) or (..., mailbox), or the reason why it has nothing to say.

_Answer = tuple[str, int, str, str] | tuple[str, int, str, str, Mailbox] | str
_ACCEPTED = (ACCEPT, 250, "2.1.5", "Recipient ok")
_RELAY_DENIED = "Relay access denied"


def _sender_syntax(rules: AccessRules, question: Question) -> _Answer:
    if isinstance(question.sender, SmtpError):
        return _refused(question.sender)
    return "the sender is the null path" if question.sender is None else "the sender is an address"


def _recipient_syntax(rules: AccessRules, question: Question) -> _Answer:
    if isinstance(question.recipient, SmtpError):
        return _refused(question.recipient)
    return "the recipient is an address"


def _authentication(rules: AccessRules, question: Question) -> _Answer:
    if question.role != "submission":
        return "the listener does not require authentication"
    if not question.user:
        return REJECT, 530, "5.7.0", "Authentication required"
    return "the client is authenticated"


def _postmaster(rules: AccessRules, question: Question) -> _Answer:
    """RFC 5321 section 4.5.1: <postmaster> without a domain, and postmaster at each domain that we serve."""
    recipient = _mailbox(question)
    if recipient.local.lower() != "postmaster":
        return "the recipient is not postmaster"
    if recipient.domain:
        if recipient.destination in rules.local_domains or recipient.destination in rules.relay_domains:
            return _ACCEPTED
        return "the recipient's domain is not ours"
    if rules.postmaster is not None:
        return *_ACCEPTED, rules.postmaster
    if rules.hostname in rules.local_domains:
        return *_ACCEPTED, parse_mailbox(f"postmaster@{rules.hostname}".encode("ascii"))
    return REJECT, 550, "5.1.1", "<postmaster>: No postmaster is configured here; name a domain"


def _local_domains(rules: AccessRules, question: Question) -> _Answer:
    if _mailbox(question).destination not in rules.local_domains:
        return "the recipient's domain is not in local_domains"
    return _if_known(rules, question)


def _relay_domains(rules: AccessRules, question: Question) -> _Answer:
    if _mailbox(question).destination not in rules.relay_domains:
        return "the recipient's domain is not in relay_domains"
    return _if_known(rules, question)


def _if_known(rules: AccessRules, question: Question) -> _Answer:
    recipient, recipients = _mailbox(question), rules.recipients
    if recipients is None or recipient in recipients:
        return _ACCEPTED
    if not recipients.loaded:
        return DEFER, 451, "4.3.0", f"<{recipient.text}>: The list of recipients cannot be read, try again later"
    return REJECT, 550, "5.1.1", f"<{recipient.text}>: Recipient unknown"


def _address_literal(rules: AccessRules, question: Question) -> _Answer:
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


def _networks(rules: AccessRules, question: Question) -> _Answer:
    if question.network is None:
        return "the client is not in networks"
    return _may_relay(rules, question)


def _users(rules: AccessRules, question: Question) -> _Answer:
    if not question.user:
        return "the client is not authenticated"
    return _may_relay(rules, question)


def _may_relay(rules: AccessRules, question: Question) -> _Answer:
    """Who may relay may still be bound to certain sender domains; the null path is always free (RFC 5321 4.5.5)."""
    sender = question.sender
    if rules.sender_domains and isinstance(sender, Mailbox) and sender.destination not in rules.sender_domains:
        return REJECT, 553, "5.7.1", f"<{sender.text}>: Sender domain not allowed"
    return _ACCEPTED


def _default(rules: AccessRules, question: Question) -> _Answer:
    return REJECT, 554, "5.7.1", f"<{_mailbox(question).text}>: {_RELAY_DENIED}"


def _mailbox(question: Question) -> Mailbox:
    assert isinstance(question.recipient, Mailbox)  # the syntax rule stands before
    return question.recipient


def _refused(error: SmtpError) -> _Answer:
    reply = error.reply
    return DEFER if reply.code < 500 else REJECT, reply.code, reply.enhanced, reply.text


RULES: tuple[tuple[str, Callable[[AccessRules, Question], _Answer]], ...] = (
    ("sender-syntax", _sender_syntax),
    ("recipient-syntax", _recipient_syntax),
    ("authentication", _authentication),
    ("postmaster", _postmaster),
    ("local-domains", _local_domains),
    ("relay-domains", _relay_domains),
    ("address-literal", _address_literal),
    ("users", _users),
    ("networks", _networks),
    ("default", _default),
)


def decide(rules: AccessRules, question: Question, *, explain: bool = True) -> Decision:
    """The verdict on one recipient. The session, which nobody asks why, leaves out `passed_over` (`explain`)."""
    passed_over: list[tuple[str, str]] = []
    for name, rule in RULES:
        answer = rule(rules, question)
        if isinstance(answer, str):
            if explain:
                passed_over.append((name, answer))
        else:
            return Decision(*answer[:4], name, passed_over, answer[4] if len(answer) == 5 else None)
    raise AssertionError("the last rule always answers")

"""Plain data that passes between the rooms, and the words for it.

Times are float seconds since the epoch (wall time), sizes are octets. Nothing here has behaviour beyond a property;
nothing here knows a room.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply: the code, the enhanced status code (RFC 3463; "" if there is none) and the text."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced} {self.text}" if self.enhanced else f"{self.code} {self.text}"


class SmtpError(Exception):
    """What a client is answered when something is refused: a reply, and the rule that refused it."""

    def __init__(self, code: int, enhanced: str, text: str, rule: str) -> None:
        super().__init__(f"{code} {enhanced} {text}")
        self.reply = Reply(code, enhanced, text)
        self.rule = rule


class State(IntEnum):
    """State of a recipient on disk (contract.md "Words"). `active` exists in memory only: see delivery."""

    QUEUED = 0
    DEFERRED = 1
    HELD = 2
    LEAVING = 3


@dataclass(slots=True)
class Envelope:
    """What is known of a message besides its recipients and its octets; never changed after acceptance."""

    sender: str  # the reverse-path's mailbox, "" for <>
    arrived: float
    size: int = 0  # octets as stored, our own Received line included
    client: str = ""  # address of the SMTP client, "" for our own reports
    client_name: str = ""
    helo: str = ""
    user: str = ""
    listener: str = ""
    protocol: str = ""  # the `with` clause: SMTP, ESMTP, ...
    tls: str = ""  # "TLSv1.3 TLS_AES_256_GCM_SHA384", "" for none
    subject: str = ""
    message_id: str = ""
    eight_bit: bool = False  # the message holds octets above 127
    smtputf8: bool = False  # the client asked for SMTPUTF8, and an address or the header section needs it
    utf8_header: bool = False  # it is the header section that needs it
    requiretls: bool = False
    ret: str = ""  # DSN: RET, "" | FULL | HDRS
    envid: str = ""  # DSN: ENVID as given (xtext)
    trusted: bool = False  # accepted by network, user or certificate


@dataclass(slots=True)
class Recipient:
    """One recipient of a queued message. The settled facts (attempts, last_*) are those of the store."""

    ordinal: int  # from 1
    address: str  # the mailbox as received, source route removed
    destination: str  # its domain, lower-case A-label, or "[192.0.2.1]"
    submitter: str = ""  # fairness key: user, else client, else sender's domain
    notify: str = ""  # DSN: NOTIFY as given
    orcpt: str = ""  # DSN: ORCPT as given
    state: State = State.QUEUED
    due: float | None = 0.0  # next attempt; None when held or leaving
    expires: float = 0.0
    attempts: int = 0
    interruptions: int = 0  # in a row
    last_code: int = 0  # 0: no reply yet
    last_enhanced: str = ""
    last_reply: str = ""
    last_host: str = ""
    warned: bool = False  # a delay notice was sent, or nobody is to get one
    held_by: str = ""
    route: str = ""  # the target that an operator gave by `reroute`


@dataclass(slots=True)
class Message:
    """A message in the queue, or on its way into it."""

    id: int
    envelope: Envelope
    recipients: list[Recipient]
    body: bytes | None  # header lines (ours first) and text as stored; None: in the spool file of this id
    claimed: bool = False  # handed to delivery at once, instead of parked in the database
    alone: bool = False  # `recipients` has one entry, and the queue holds no other recipient of this message


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """The level that an attempt must reach, and why (contract.md "TLS levels")."""

    level: str  # none | may | encrypt | verify | dane | dane-only | mta-sts
    source: str  # "route", "default", "config", ...
    why: str
    match: tuple[str, ...] = ()  # names that a certificate may have besides the host's


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What an attempt wanted and reached. `reached` is "none", "encrypted" or "verified"."""

    wanted: str = "may"
    reached: str = "none"
    protocol: str | None = None
    cipher: str | None = None
    verified_by: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class PlannedHost:
    """A host of a plan. `addresses` is empty when its look-up failed: `error` says how, `temporary` if it may heal."""

    preference: int
    name: str
    addresses: tuple[str, ...]
    port: int
    error: str = ""
    temporary: bool = False
    tls: TlsPolicy | None = None
    scheme: str = "smtp"  # smtp | smtps | lmtp
    path: str = ""  # of a Unix socket (lmtp:unix:PATH)
    auth: str = ""  # the user name to log in with, "" for none
    source: str = ""  # the address to send from, "" for that of the configuration
    domain: str = ""  # whose host it is: the recipient's domain, or the one that a route names


@dataclass(frozen=True, slots=True)
class Plan:
    """The way of a recipient, as decided by routing, with its reasons.

    `hosts` stand in order of preference; hosts of equal preference are shuffled per attempt (`routing.order`).
    `outcome`: deliver | defer | bounce | hold | discard; for all but deliver, `code`, `enhanced` and `reason` say why.
    """

    domain: str
    next_hop: str  # "[host]:port", the smarthost, or the canonical set of MX hosts
    outcome: str
    via: str  # mx | implicit-mx | route | smarthost | null-mx | none
    hosts: tuple[PlannedHost, ...] = ()
    code: int = 0
    enhanced: str = ""
    reason: str = ""
    dnssec: str = "indeterminate"  # secure | insecure | bogus | indeterminate
    route: str = ""  # the route's match, "" if none matched
    dropped: tuple[tuple[str, str], ...] = ()  # (name, why)
    good_until: float = 0.0  # wall time until which the plan may be used again


class Outcome(StrEnum):
    """How an attempt ended for a recipient."""

    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"


@dataclass(frozen=True, slots=True)
class Delays:
    """Where the time went, in seconds (contract.md `queue show`)."""

    before_queue: float = 0.0
    queued: float = 0.0
    connect: float = 0.0
    transmit: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One finished attempt, shared by the recipients of a transaction; the reply is each recipient's own."""

    started: float
    finished: float
    host: str = ""  # the MX host's name, "" when none was reached
    address: str = ""
    reused: bool = False
    tls: TlsFacts = field(default_factory=TlsFacts)
    delays: Delays = field(default_factory=Delays)
    transcript: str = ""
    onward: str = ""  # who reports on what was delivered: "dsn" the next hop, "final" nobody else; "" it cannot


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt means for one recipient. `remote`: the reply came from a next hop, not from ourselves."""

    outcome: Outcome
    code: int
    enhanced: str
    reply: str  # the text of the reply, lines joined by a blank
    remote: bool = False
    rule: str = ""


class Action(StrEnum):
    """What became of a recipient, in the words of a report (RFC 3464 section 2.3.3). Nothing is expanded here."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Reported:
    """A recipient for a report to the sender (RFC 3464). `expired`: it failed because its time was over.

    An attempt with `finished` 0 stands for none of its own: it waits, or an operator gave it up."""

    recipient: Recipient
    verdict: Verdict
    attempt: Attempt
    action: Action = Action.FAILED
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """How it ended for one claimed recipient. `due`: the next attempt of a deferral; None holds it (`held_by`)."""

    recipient: Recipient
    verdict: Verdict
    attempt: Attempt
    hop: str = ""
    route: str = ""
    due: float | None = None
    remote_id: str = ""
    deleted: bool = False  # discarded by a route: history says `deleted`
    held_by: str = ""
    warned: bool = False  # the sender was told of the delay by the same transaction, or is not to be told


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim got, and when the destination has something due again (None: nothing parked is waiting)."""

    messages: list[Message]
    next_due: float | None
    cursor: str


@dataclass(frozen=True, slots=True)
class Control:
    """Something an operator has set: a pause, a suspension, a limit, a route. `value` belongs to the kind."""

    name: str
    since: float
    until: float | None = None
    reason: str = ""
    who: str = ""
    value: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class Account:
    """An account for SMTP AUTH. `verifier` is the text form of a SCRAM-SHA-256 verifier; it shows itself nowhere.

    `quarantined` is since when its mail is held and its logins are refused, None if they are not; `who` and `reason`
    are those of the quarantine."""

    name: str
    verifier: str = field(repr=False)
    since: float
    quarantined: float | None = None
    who: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of claimed recipients that an operator wants: `acted` on by the store, or on a connection now."""

    acted: Any  # queue.actions.Acted
    pending: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Why:
    """What binds a recipient now (contract.md `queue why`)."""

    because: str
    limiter: str
    since: float | None
    releases: str
    next_attempt: float | None
    expires: float | None
    rule: str

"""What every part of intake is told: the terms of the configuration, the times, and the queue as intake sees it."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mailtui.model import Message, Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.settings import Settings
    from mailtui.values import Rate


class SpoolFile(Protocol):
    """A large body on its way to disk; calls may block."""

    def write(self, data: bytes) -> None: ...
    def abandon(self) -> None: ...


class Queue(Protocol):
    """What intake asks of the queue."""

    @property
    def waiting(self) -> int:
        """Octets that wait for the writer."""
        ...

    def next_id(self) -> int: ...

    def refusal(self) -> SmtpError | None:
        """The answer to new mail while none can be taken; None if it can."""
        ...

    def open_spool(self, number: int) -> SpoolFile: ...

    def accept(self, message: Message, spool: Any = None) -> "asyncio.Future[None]":
        """Keep a message; resolved when it is on disk. An SmtpError is answered as it stands, all else with 451."""
        ...

    def refused(
        self, *, client: str, helo: str, sender: str, recipient: str, destination: str, reply: Reply, rule: str
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings as the session needs them at each command."""

    hostname: str
    message_size: int
    recipients: int
    hops: int
    normalize: bool  # bare CR and LF in data become CRLF instead of a refusal
    expire: float
    bounce_expire: float
    connections: int
    connections_per_client: int
    client_rate: "Rate | None" = None
    user_rate: "Rate | None" = None

    @classmethod
    def from_settings(cls, settings: "Settings") -> "Terms":
        limits = settings.limits
        return cls(
            hostname=settings.hostname,
            message_size=limits.message_size,
            recipients=limits.recipients,
            hops=limits.hops,
            normalize=settings.access.bare_newline == "normalize",
            expire=settings.retry.expire,
            bounce_expire=settings.retry.bounce_expire,
            connections=limits.connections,
            connections_per_client=limits.connections_per_client,
            client_rate=limits.client_rate,
            user_rate=limits.user_rate,
        )


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a session waits, in seconds. Answered with 421 4.4.2 before the connection is closed."""

    # RFC 5321 section 4.5.3.2.7: at least five minutes for a command; ours is for a whole one, not for an octet of it.
    command: float = 300.0
    # RFC 5321 section 4.5.3.2.5: three minutes for a block of data.
    data_block: float = 180.0
    # After ten minutes of one message its data must have come at 64 octets a second on the whole: the slowest modem
    # was faster, and a client that sends one octet a minute does not hold a session for days.
    data_start: float = 600.0
    data_rate: float = 64.0
    # In all. Senders that keep connections open for longer than this open a new one.
    session: float = 4 * 3600.0
    # A TLS handshake is two round trips. As a connection in its handshake can do nothing else yet, it is worth little
    # of our patience: Postfix gives it 300 s, but a client that is still there after 30 is not one that sends mail.
    handshake: float = 30.0
    # After each error of a stranger that has made many: as Postfix's smtpd_error_sleep_time.
    error_pause: float = 1.0
    # After our last word: until the client has read it and closed.
    linger: float = 5.0


class MemoryBudget:
    """Octets of unfinished bodies held in memory by all sessions together."""

    # Half of what a relay may use in all; beyond it every further body goes to disk early.
    LIMIT = 64 << 20

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    @property
    def exhausted(self) -> bool:
        return self.used > self.LIMIT

    @property
    def short(self) -> bool:
        """So much is held, in spite of what goes to disk, that no further message is begun."""
        return self.used > 2 * self.LIMIT

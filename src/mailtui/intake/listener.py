"""Where clients come in: the listeners, the limits on connections, and the end of it all.

Promises: a client over a limit is told so at once and not left hanging; a reload that cannot bind a new address leaves
everything as it was; after `drain` no message is taken that was not already on its way to disk.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.events import Events
from mailtui.intake.access import AccessRules, Address
from mailtui.intake.commands import ehlo_reply
from mailtui.intake.received import DateCache
from mailtui.intake.session import Session
from mailtui.intake.terms import MemoryBudget, Queue, Terms, Timeouts
from mailtui.model import Message, Reply, SmtpError

if TYPE_CHECKING:
    from mailtui.settings import ListenerSettings, Settings

# Connections that the kernel keeps for us while the loop is busy.
BACKLOG = 1024
# Octets on their way to disk; above it no new message is read (architecture.md).
WAITING_LIMIT = 16 << 20
# How often the recipients file is looked at, and the queue while intake waits for room.
CHECK_INTERVAL = 1.0
# After the drain, for messages whose commit is under way: longer than a sync on a slow disk.
COMMIT_GRACE = 10.0


class ListenError(Exception):
    """A listener cannot be opened; the text says which, why, and what to do."""


class Door:
    """One listener: its settings and, once open, its server and the addresses it is bound to."""

    __slots__ = ("address", "bound", "ehlo", "host", "name", "port", "role", "server", "tls")

    def __init__(self, settings: "ListenerSettings") -> None:
        self.name: str = settings.name
        self.address: str = settings.address
        self.host: str = settings.host
        self.port: int = settings.port
        self.role: str = settings.role
        self.tls: str = settings.tls
        self.ehlo = b""
        self.server: asyncio.Server | None = None
        self.bound: list[tuple[str, int]] = []

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.name, self.address, self.role, self.tls)


class Intake:
    """The intake of a relay. `start`, then `drain`; `apply` after a reload."""

    def __init__(
        self,
        settings: "Settings",
        clock: Clock,
        events: Events,
        queue: Queue,
        *,
        rules: AccessRules | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.clock = clock
        self.events = events
        self.queue = queue
        self.timeouts = timeouts or Timeouts()
        self.rules = rules or AccessRules.from_settings(settings)
        self.terms = Terms.from_settings(settings)
        self.budget = MemoryBudget()
        self.dates = DateCache(clock)
        self.sessions: set[Session] = set()
        self._settings = settings
        self._doors: list[Door] = []
        self._clients: Counter[int] = Counter()
        self._waiters: list[asyncio.Future[None]] = []
        self._empty: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    # -- listeners ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every listener. Raises ListenError, and then none is open."""
        await self._open(self._settings)
        self._watch = asyncio.get_running_loop().create_task(self._watch_recipients())

    async def apply(self, settings: "Settings", rules: AccessRules | None = None) -> None:
        """Take over a new configuration. Raises ListenError, and then the old one stays.

        Sessions under way keep their transaction; rules and limits are the new ones from the next MAIL on.
        """
        rules = rules or AccessRules.from_settings(settings)
        await self._open(settings)
        self.rules, self.terms, self._settings = rules, Terms.from_settings(settings), settings
        for door in self._doors:
            door.ehlo = ehlo_reply(self.terms.hostname, self.terms.message_size)

    async def _open(self, settings: "Settings") -> None:
        """Open the listeners that are new, then close those that are gone."""
        kept = {door.key: door for door in self._doors}
        doors: list[Door] = []
        opened: list[Door] = []
        try:
            for listener in settings.listener:
                door = Door(listener)
                known = kept.pop(door.key, None)
                if known is None:
                    door.ehlo = ehlo_reply(settings.hostname, settings.limits.message_size)
                    await self._listen(door)
                    opened.append(door)
                doors.append(known or door)
        except ListenError:
            for door in opened:
                _close(door)
            raise
        for door in kept.values():
            _close(door)
        self._doors = doors

    async def _listen(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        prototype = Session(self, door, loop)
        try:
            door.server = await loop.create_server(prototype.connection, door.host, door.port, backlog=BACKLOG)
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else str(error)
            raise ListenError(
                f"listener {door.name}: cannot listen on {door.address}: {reason}; {_advice(number)}"
            ) from error
        door.bound = [(name[0], name[1]) for name in (sock.getsockname() for sock in door.server.sockets)]

    def listeners(self) -> list[dict[str, str]]:
        """The open listeners as `status` shows them."""
        return [
            {"name": door.name, "address": _endpoint(host, port), "role": door.role, "tls": door.tls}
            for door in self._doors
            for host, port in door.bound
        ]

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Addresses and ports that we listen on."""
        return [bound for door in self._doors for bound in door.bound]

    async def _watch_recipients(self) -> None:
        """Keep the list of recipients like its file, off the loop."""
        loop = asyncio.get_running_loop()
        told = ""
        while True:
            recipients = self.rules.recipients
            if recipients is not None:
                await loop.run_in_executor(None, recipients.refresh)
                if recipients.error != told:
                    told = recipients.error
                    if told:
                        self.events.emit("recipients", level="warning", text=told)
            await asyncio.sleep(CHECK_INTERVAL)

    # -- connections -------------------------------------------------------------------------------------------------

    def admit(self, session: Session) -> SmtpError | None:
        """Count a new connection, or say why it is too many."""
        key = _client_key(session.address)
        if len(self.sessions) >= self.terms.connections:
            refusal = SmtpError(421, "4.7.0", f"{self.terms.hostname} Too many connections", "connections")
        elif session.network is None and self._clients[key] >= self.terms.connections_per_client:
            text = f"{self.terms.hostname} Too many connections from your address"
            refusal = SmtpError(421, "4.7.0", text, "connections-per-client")
        else:
            self.sessions.add(session)
            self._clients[key] += 1
            self.events.emit("connect", level="debug", client=session.client, listener=session.door.name)
            return None
        self._tell_refused(session, refusal.reply, refusal.rule, "", "")
        return refusal

    def forget(self, session: Session) -> None:
        """A connection is gone."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        key = _client_key(session.address)
        self._clients[key] -= 1
        if not self._clients[key]:
            del self._clients[key]
        self.events.emit("disconnect", level="debug", client=session.client, listener=session.door.name)
        if not self.sessions and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Close the listeners, let transactions end within `seconds`, and then every session."""
        for door in self._doors:
            _close(door)
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        for session in list(self.sessions):
            session.drain()
        await self._until_empty(seconds)
        for session in list(self.sessions):
            if not session.committing:
                session.hang_up(421, "4.3.2", "Shutting down, try again later")
        await self._until_empty(COMMIT_GRACE)
        for session in list(self.sessions):
            session.abort()

    async def _until_empty(self, seconds: float) -> None:
        if self.sessions:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._empty], timeout=seconds)

    # -- messages ----------------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """So much waits for the disk that no further message is read for now."""
        return self.queue.waiting > WAITING_LIMIT

    async def room(self) -> None:
        """Wait until the writer has caught up; woken by every message that is kept."""
        while self.full:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            # What waits may be our own reports, whose end nobody tells us.
            await asyncio.wait([waiter], timeout=CHECK_INTERVAL)

    def wake(self) -> None:
        """Something was kept or refused: those who wait for room look again."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def accepted(self, message: Message) -> None:
        envelope = message.envelope
        self.events.emit(
            "accepted",
            id=message.id,
            client=envelope.client,
            sender=envelope.sender or "<>",
            recipients=len(message.recipients),
            size=envelope.size,
            protocol=envelope.protocol,
        )

    def refused(self, session: Session, reply: Reply, rule: str, sender: str, recipient: str, destination: str) -> None:
        """Tell the log of a refusal, and the history where it concerns a recipient."""
        self._tell_refused(session, reply, rule, sender, recipient)
        if recipient:
            self.queue.refused(
                client=session.client,
                helo=session.helo,
                sender=sender,
                recipient=recipient,
                destination=destination or self.terms.hostname,  # <postmaster> alone is ours
                reply=reply,
                rule=rule,
            )

    def _tell_refused(self, session: Session, reply: Reply, rule: str, sender: str, recipient: str) -> None:
        self.events.emit(
            "refused",
            client=session.client,
            sender=sender,
            recipient=recipient,
            code=reply.code,
            enhanced=reply.enhanced,
            text=reply.text,
            rule=rule,
        )


def _close(door: Door) -> None:
    if door.server is not None:
        door.server.close()
        door.server = None


def _client_key(address: Address | None) -> int:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address, which one host may use at will."""
    if isinstance(address, ipaddress.IPv6Address):
        return -(int(address) >> 64) - 1
    return int(address) if address is not None else 0


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advice(number: int) -> str:
    if number == errno.EADDRINUSE:
        return "stop what uses the port, or change the listener's address"
    if number in (errno.EACCES, errno.EPERM):
        return "ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if number == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return "check the listener's address"

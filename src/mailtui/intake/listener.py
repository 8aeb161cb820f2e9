"""Where clients come in: the listeners, the limits on connections, and the end of it all.

Promises: a client over a limit is told so at once and not left hanging; a reload that cannot bind a new address leaves
everything as it was; after `drain` no message is taken that was not already on its way to disk.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailtui.clock import Clock, rfc3339
from mailtui.events import Events
from mailtui.intake import inherited
from mailtui.intake.access import AccessRules, Address
from mailtui.intake.accounts import Accounts
from mailtui.intake.callout import Callout
from mailtui.intake.door import Door
from mailtui.intake.dovecot import dovecot
from mailtui.intake.grants import Grants
from mailtui.intake.limits import Limits, client_key
from mailtui.intake.logins import Logins
from mailtui.intake.mechanisms import BY_PASSWORD, MECHANISMS
from mailtui.intake.received import DateCache
from mailtui.intake.session import Session
from mailtui.intake.terms import MemoryBudget, Queue, Terms, Timeouts
from mailtui.model import Message, Reply, SmtpError
from mailtui.tls.serving import Certificate

if TYPE_CHECKING:
    from mailtui.settings import ListenerSettings, Settings

# Connections that the kernel keeps for us while the loop is busy: as many as Linux allows (net.core.somaxconn). One
# that finds no place there is not refused, it tries again after 1 s, 3 s, 7 s: that hits the honest ones in a crowd.
BACKLOG = 4096
# Octets on their way to disk; above it no new message is read (architecture.md).
WAITING_LIMIT = 16 << 20
# How often the recipients file is looked at, and the queue while intake waits for room.
CHECK_INTERVAL = 1.0
# After the drain, for messages whose commit is under way: longer than a sync on a slow disk.
COMMIT_GRACE = 10.0


class ListenError(Exception):
    """A listener cannot be opened; the text says which, why, and what to do."""


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
        grants: Grants | None = None,
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
        self.accounts = Accounts()
        self.logins = Logins(clock)
        self.dovecot = dovecot(settings.access.auth_socket, None)
        self.grants = grants if grants is not None else Grants(clock)
        self.callout = Callout(clock, events)
        self.limits = Limits(clock, events, self.terms, self.budget, self.grants)
        self.sessions = self.limits.sessions
        self._settings = settings
        self._doors: list[Door] = []
        self._certificates: dict[tuple[str, str, str], Certificate] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self.draining = False
        self._empty: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    # -- listeners ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every listener. Raises ListenError, and then none is open."""
        await self._open(self._settings)
        self._watch = asyncio.get_running_loop().create_task(self._watch_files())

    async def apply(self, settings: "Settings", rules: AccessRules | None = None) -> None:
        """Take over a new configuration. Raises ListenError, and then the old one stays.

        Sessions under way keep their transaction; rules and limits are the new ones from the next MAIL on.
        """
        rules = rules or AccessRules.from_settings(settings)
        await self._open(settings)
        self.rules, self.terms, self._settings = rules, Terms.from_settings(settings), settings
        self.dovecot = dovecot(settings.access.auth_socket, self.dovecot)
        self.limits.terms = self.terms

    async def _open(self, settings: "Settings") -> None:
        """Open the listeners that are new, change those that stay, then close those that are gone."""
        certificates = await self._read_certificates(settings)
        kept = {_place(door.name, door.address): door for door in self._doors}
        doors: list[Door] = []
        opened: list[Door] = []
        try:
            for listener in settings.listener:
                door = kept.pop(_place(listener.name, listener.address), None)
                if door is None:
                    door = Door(listener.address)
                    self._furnish(door, listener, settings, certificates)
                    opened.append(door)
                    await self._listen(door, listener)
                doors.append(door)
        except ListenError:
            for door in opened:
                door.close()
            raise
        for door in kept.values():
            door.close()
        for door, listener in zip(doors, settings.listener, strict=True):
            self._furnish(door, listener, settings, certificates)
        self._doors, self._certificates = doors, certificates

    def _furnish(
        self,
        door: Door,
        listener: "ListenerSettings",
        settings: "Settings",
        certificates: "dict[tuple[str, str, str], Certificate]",
    ) -> None:
        certificate = certificates[_files(listener)] if listener.tls != "none" else None
        mechanisms = tuple(MECHANISMS) if not settings.access.auth_socket else BY_PASSWORD  # which Dovecot is asked by
        door.take(listener, certificate, settings.hostname, settings.limits.message_size, mechanisms)

    async def _read_certificates(self, settings: "Settings") -> "dict[tuple[str, str, str], Certificate]":
        """The certificates of all listeners by their files; those known already are kept. Raises ListenError."""
        found: dict[tuple[str, str, str], Certificate] = {}
        for listener in settings.listener:
            files = _files(listener)
            if listener.tls == "none" or files in found:
                continue
            certificate = self._certificates.get(files) or Certificate(*files)
            await asyncio.get_running_loop().run_in_executor(None, certificate.refresh, self.clock.now())
            if certificate.error:
                raise ListenError(f"listener {listener.name}: certificate: {certificate.error}")
            found[files] = certificate
        return found

    async def _listen(self, door: Door, listener: "ListenerSettings") -> None:
        loop = asyncio.get_running_loop()
        prototype = Session(self, door, loop)
        try:
            if listener.inherited:
                for sock in inherited.sockets(listener.inherited):
                    door.servers.append(await loop.create_server(prototype.connection, sock=sock, backlog=BACKLOG))
            else:
                host, port = listener.host, listener.port
                door.servers.append(await loop.create_server(prototype.connection, host, port, backlog=BACKLOG))
        except inherited.NotInherited as error:
            raise ListenError(f"listener {door.name}: {error}") from None
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else str(error)
            raise ListenError(
                f"listener {door.name}: cannot listen on {door.address}: {reason}; {_advice(number)}"
            ) from error
        names = [sock.getsockname() for server in door.servers for sock in server.sockets]
        door.bound = [(name[0], name[1]) for name in names]

    def listeners(self) -> list[dict[str, str]]:
        """The open listeners as `status` shows them."""
        return [
            {"name": door.name, "address": _endpoint(host, port), "role": door.role, "tls": door.tls}
            for door in self._doors
            for host, port in door.bound
        ]

    def warnings(self) -> list[tuple[str, float]]:
        """What is wrong with certificates, and since when."""
        now = self.clock.now()
        return [found for each in self._certificates.values() if (found := each.warning(now)) is not None]

    def addresses(self) -> Sequence[tuple[str, int]]:
        """Addresses and ports that we listen on."""
        return [bound for door in self._doors for bound in door.bound]

    async def _watch_files(self) -> None:
        """Keep the list of recipients and the certificates like their files, which are read off the loop."""
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
            for certificate in list(self._certificates.values()):
                if await loop.run_in_executor(None, certificate.refresh, self.clock.now()):
                    text = f"{certificate.file} was read again, good until {rfc3339(certificate.not_after)}"
                    self.events.emit("certificate", text=text)
                if news := certificate.news(self.clock.now()):
                    self.events.emit("certificate", level="warning", text=news)
            await asyncio.sleep(CHECK_INTERVAL)

    # -- connections -------------------------------------------------------------------------------------------------

    def admit(self, session: Session) -> SmtpError | None:
        """Count a new connection, or say why it is too many."""
        if self.draining:
            refusal: SmtpError | None = SmtpError(
                421, "4.3.2", f"{self.terms.hostname} Shutting down, try again later", "draining"
            )
        else:
            refusal = self.limits.admit(session)
        if refusal is None:
            self.events.emit("connect", level="debug", client=session.client, listener=session.door.name)
        else:
            self._tell_refused(session, refusal.reply, refusal.rule, "", "")
        return refusal

    def readmit(self, session: Session) -> SmtpError | None:
        """Count a connection whose client is another one now, or say why it is too many."""
        refusal = self.limits.admit(session)
        self.sessions.add(session)  # until it has gone
        if refusal is not None:
            self._tell_refused(session, refusal.reply, refusal.rule, "", "")
        return refusal

    def forget(self, session: Session) -> None:
        """A connection is gone."""
        if session not in self.sessions:
            return
        self.limits.forget(session)
        self.events.emit("disconnect", level="debug", client=session.client, listener=session.door.name)
        if not self.sessions and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def drain(self, seconds: float) -> None:
        """Let transactions end within `seconds`, then close every session; whoever comes meanwhile is told 421."""
        self.draining = True
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        for session in list(self.sessions):
            session.drain()
        await self._until_empty(seconds)
        for door in self._doors:
            door.close()
        for session in list(self.sessions):
            if not session.committing:
                session.hang_up(421, "4.3.2", "Shutting down, try again later")
        await self._until_empty(COMMIT_GRACE)
        for session in list(self.sessions):
            session.abort()
        await self.callout.close()
        self.logins.close()

    @staticmethod
    def client_key(address: Address | None) -> int:
        """What counts as one client, as a number."""
        return client_key(address)

    async def dismiss(self, user: str) -> None:
        """Close every session of an account; returns when nothing of them is on its way to disk any more."""
        found = [session for session in self.sessions if session.user == user]
        for session in found:
            session.dismiss("4.7.0", "The account is not active any more")
        while any(session.committing for session in found):
            await self._woken()

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
            await self._woken()

    async def _woken(self) -> None:
        """Until a message was kept or refused, or for a second: what waits may be our own, whose end nobody tells."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
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
            user=envelope.user,
            sender=envelope.sender or "<>",
            recipients=len(message.recipients),
            size=envelope.size,
            protocol=envelope.protocol,
            tls=envelope.tls,
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


def _files(listener: "ListenerSettings") -> tuple[str, str, str]:
    """What makes two listeners show the same certificate in the same way."""
    return listener.certificate, listener.key, listener.client_ca


def _place(name: str, address: str) -> tuple[str, str]:
    """What makes two listeners one and the same: the address, or the name where the kernel chooses the port."""
    return (name if address.endswith(":0") else "", address)


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

"""One attempt for a message at a next hop: which hosts, in what order, and what it comes to for each recipient.

Rules (RFC 5321 sections 4.2.1 and 5.1): hosts in order of preference; a host that cannot be reached, or that answers
4yz, is followed by the next one in the same attempt; a 5yz to MAIL, RCPT or the message is final and no other host is
asked; at most 2 sessions and 5 addresses; a rate-limiting 421 ends the round.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mailtui.clock import Clock
from mailtui.delivery.client import Session, SessionLost
from mailtui.delivery.transaction import Result, transact, unsendable
from mailtui.delivery.verdict import judge, trouble
from mailtui.delivery.watchdog import Watchdog
from mailtui.model import Attempt, Delays, Message, Outcome, Plan, PlannedHost, Recipient, TlsFacts, TlsPolicy, Verdict
from mailtui.routing.plan import order
from mailtui.tls import policy

MAX_SESSIONS = 2
MAX_ADDRESSES = 5


@dataclass(slots=True)
class Work:
    """A message and those of its recipients that go to one next hop together."""

    message: Message
    recipients: list[Recipient]
    plan: Plan
    begun: float = 0.0  # when it was put on a connection; 0: it waits


@dataclass(slots=True)
class Ended:
    """How an attempt ended: a verdict and the facts for every recipient, in order of `work.recipients`.

    `session` is open and may be used again. `down`: no session could be had at all, or a rate-limiting 421 asked us to
    stay away, with the reason: the next hop backs off. `strained`: the next hop ended a session or refused one: its
    window shrinks."""

    results: list[tuple[Recipient, Verdict, Attempt]] = field(default_factory=list)
    session: Session | None = None
    down: Verdict | None = None
    strained: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """What an attempt needs from the relay."""

    clock: Clock
    watchdog: Watchdog
    rng: random.Random
    hostname: str
    source_ipv4: str
    source_ipv6: str
    connect_timeout: float
    tls_default: str
    pieces: Callable[[int], Iterator[bytes]]


async def attempt(sender: Sender, work: Work, session: Session | None) -> Ended:
    """Try to deliver `work`, over `session` if it is still open. Never raises for what remote hosts do."""
    if session is None or not session.open or unsendable(work.message, work.recipients, session.extensions):
        return await _Round(sender, work).run(session)
    # The usual case, kept short: a kept connection, and everybody accepted.
    begun = sender.clock.now()
    result = await transact(session, work.message, work.recipients, sender.pieces)
    if result.delivered(work.recipients) and session.open:
        now = sender.clock.now()
        delays = Delays(0.0, max(0.0, begun - work.message.envelope.arrived), 0.0, now - begun)
        facts = Attempt(begun, now, session.host, session.address, True, session.tls, delays)
        return Ended([(r, result.verdicts[r.ordinal], facts) for r in work.recipients], session)
    return await _Round(sender, work).run(session, result, begun)


class _Round:
    """The state of one attempt."""

    def __init__(self, sender: Sender, work: Work) -> None:
        self.sender = sender
        self.work = work
        self.ended = Ended()
        self.pending = {r.ordinal: r for r in work.recipients}
        self.done: dict[int, tuple[Verdict, Attempt]] = {}
        self.last: dict[int, tuple[Verdict, Attempt]] = {}
        self.started = sender.clock.now()
        self.reached = False
        self.limited = False  # a greeting asked us, by a rate-limiting 421, to stay away

    async def run(self, session: Session | None, result: Result | None = None, begun: float = 0.0) -> Ended:
        """`result` is that of a transaction over `session` which began at `begun`, if there was one already."""
        if session is not None and (session.open or result is not None):
            if await self._over(session, reused=True, result=result, begun=begun):
                return self._end()
            tried = session.host
        else:
            if session is not None:
                session.close()
            tried = ""
        sessions = 1 if self.reached else 0
        addresses = 0
        for host in order(self.work.plan.hosts, self.sender.rng):
            if host.name == tried and self.reached:
                continue
            if not host.addresses:
                self._note(host, "", trouble(host.error or f"{host.name} has no address", "4.4.3", "dns"))
                continue
            level = policy.level_for(host, self.sender.tls_default)
            if (why := policy.shortfall(level)) is not None:
                self._note(host, "", trouble(why, "4.7.5", "tls-policy"), level)
                self.reached = True  # nothing is wrong with the next hop
                continue
            for address in host.addresses:
                if addresses >= MAX_ADDRESSES or sessions >= MAX_SESSIONS:
                    return self._end()
                addresses += 1
                fresh = await self._open(host, address, level)
                if fresh is None:
                    if self.limited:
                        return self._end()
                    continue
                sessions += 1
                if await self._over(fresh, reused=False):
                    return self._end()
                break
        return self._end()

    async def _open(self, host: PlannedHost, address: str, level: TlsPolicy) -> Session | None:
        sender = self.sender
        session = Session(sender.clock, sender.watchdog, sender.hostname)
        session.level, session.tls = level, policy.plaintext(level)
        source = sender.source_ipv6 if ":" in address else sender.source_ipv4
        try:
            await session.connect(host.name, address, host.port, source, sender.connect_timeout)
        except SessionLost as lost:
            if lost.reply is None:
                verdict = trouble(lost.text, "4.4.1", "connection")
            else:
                # A host that refuses the session says nothing about this message: another may take it.
                self.limited = lost.reply.code == 421 and lost.reply.enhanced.startswith("4.7.")
                spoken = judge(lost.reply, "greeting")
                verdict = Verdict(
                    Outcome.DEFERRED, spoken.code, "4" + spoken.enhanced[1:], spoken.reply, remote=True, rule="greeting"
                )
            self._note(host, address, verdict, level, transcript=session.transcript() or f"! {lost.text}")
            return None
        return session

    async def _over(self, session: Session, *, reused: bool, result: Result | None = None, begun: float = 0.0) -> bool:
        """A transaction over this session. True when the round is over: nothing pending, or nobody else to be asked."""
        sender, work = self.sender, self.work
        level = session.level
        recipients = list(self.pending.values())
        refusal = unsendable(work.message, recipients, session.extensions)
        if refusal is not None:
            self.reached = True
            for r in recipients:  # a host that could not be reached might still take it: that deferral stays
                self.last.setdefault(r.ordinal, (refusal, self._facts(session.host, session.address, level, reused)))
            self._keep(session)
            return False
        if result is None:
            begun = sender.clock.now()
            result = await transact(session, work.message, recipients, sender.pieces)
        self.started = min(self.started, begun)
        if reused and result.ended is not None and result.stale:
            return False  # closed while it was idle: that is no attempt
        self.reached = True
        self._take(session, result, recipients, begun, reused, level)
        if result.ended is not None:
            self.ended.strained = True
        if result.limited:
            self.ended.down = result.ended  # whoever is next would only be told the same
        self._keep(session)
        return not self.pending or result.limited or result.doubtful

    def _take(
        self, session: Session, result: Result, recipients: Sequence[Recipient], begun: float, reused: bool,
        level: TlsPolicy | None,
    ) -> None:  # fmt: skip
        """Sort the verdicts: final ones are done, temporary ones may be mended by another host."""
        facts: Attempt | None = None
        for r in recipients:
            verdict = result.verdicts.get(r.ordinal, result.ended)
            if verdict is None:
                continue
            if facts is None or (verdict.outcome is not Outcome.DELIVERED and not facts.transcript):
                facts = self._facts(
                    session.host, session.address, level, reused, begun, 0.0 if reused else session.connect_time,
                    "" if verdict.outcome is Outcome.DELIVERED else session.transcript(),
                )  # fmt: skip
            if verdict.outcome is Outcome.DEFERRED:
                self.last[r.ordinal] = (verdict, facts)
            else:
                self.done[r.ordinal] = (verdict, facts)
                del self.pending[r.ordinal]

    def _note(
        self, host: PlannedHost, address: str, verdict: Verdict, level: TlsPolicy | None = None, transcript: str = ""
    ) -> None:
        """What a host that gave no session means for those still pending, unless another host answers them."""
        facts = self._facts(host.name, address, level, False, transcript=transcript)
        for ordinal in self.pending:
            known = self.last.get(ordinal)
            if known is None or not known[0].remote:
                self.last[ordinal] = (verdict, facts)
        if verdict.remote:
            self.ended.strained = True

    def _facts(
        self, host: str, address: str, level: TlsPolicy | None, reused: bool, begun: float = 0.0, connect: float = 0.0,
        transcript: str = "",
    ) -> Attempt:  # fmt: skip
        now = self.sender.clock.now()
        arrived = self.work.message.envelope.arrived
        begun = begun or now
        return Attempt(
            started=self.started,
            finished=now,
            host=host,
            address=address,
            reused=reused,
            tls=policy.plaintext(level) if level is not None else TlsFacts(),
            delays=Delays(0.0, max(0.0, self.started - arrived), connect, max(0.0, now - begun)),
            transcript=transcript,
        )

    def _keep(self, session: Session) -> None:
        """Keep an open session for the next message; a second one of this round replaces the first."""
        if session.open:
            if self.ended.session is not None and self.ended.session is not session:
                self.ended.session.close()
            self.ended.session = session
        else:
            session.close()
            if self.ended.session is session:
                self.ended.session = None

    def _end(self) -> Ended:
        nothing = trouble("no host of the next hop could be tried", "4.4.4", "no-host")
        for r in self.work.recipients:
            verdict, facts = (
                self.done.get(r.ordinal) or self.last.get(r.ordinal) or (nothing, self._facts("", "", None, False))
            )
            self.ended.results.append((r, verdict, facts))
        if not self.reached and self.pending:
            self.ended.down = self.ended.results[-1][1]
        return self.ended

"""One attempt for a message at a next hop: which hosts, in what order, and what it comes to for each recipient.

Rules (RFC 5321 sections 4.2.1 and 5.1): hosts in order of preference; a host that cannot be reached, or that answers
4yz, is followed by the next one in the same attempt; a 5yz to MAIL, RCPT or the message is final and no other host is
asked; at most 2 sessions and 5 addresses; a rate-limiting 421 ends the round.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mailtui.clock import Clock
from mailtui.delivery.client import Session
from mailtui.delivery.deadhosts import DeadHosts
from mailtui.delivery.opening import open_session, serves
from mailtui.delivery.parameters import NO_LIMITS, portions, refusals, unsendable
from mailtui.delivery.secrets import Secrets
from mailtui.delivery.transaction import Result, transact
from mailtui.delivery.verdict import TOO_MANY, trouble
from mailtui.delivery.watchdog import Watchdog
from mailtui.model import Attempt, Delays, Message, Outcome, Plan, PlannedHost, Recipient, TlsFacts, TlsPolicy, Verdict
from mailtui.routing.plan import order
from mailtui.tls import policy
from mailtui.tls.connecting import Contexts

MAX_SESSIONS = 2
MAX_ADDRESSES = 5

# The facts of a host that was not even asked.
NO_TLS = TlsFacts()

# Hosts with a fault that are remembered: there are few of them.
MAX_REMEMBERED = 1000


@dataclass(slots=True)
class Work:
    """A message and those of its recipients that go to one next hop together."""

    message: Message
    recipients: list[Recipient]
    plan: Plan
    begun: float = 0.0  # when it was put on a connection; 0: it waits
    refused: int = 0  # how often the next hop refused it a connection while others worked


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
    dead: DeadHosts = field(default_factory=DeadHosts)
    contexts: Contexts = field(default_factory=Contexts)
    secrets: Secrets = field(default_factory=Secrets)
    no_chunking: set[str] = field(default_factory=set)  # addresses that offer CHUNKING and do not know BDAT


async def attempt(sender: Sender, work: Work, session: Session | None) -> Ended:
    """Try to deliver `work`, over `session` if it is still open and serves it. Never raises for what hosts do."""
    if (
        session is None
        or not session.open
        or session.hosts is not work.plan.hosts
        or session.default != sender.tls_default
        or session.limits is not NO_LIMITS
        or unsendable(work.message, work.recipients, session.extensions)
    ) and not _fit(sender, work, session):
        return await _Round(sender, work).run(session)
    assert session is not None
    # The usual case, kept short: a kept connection, and everybody accepted.
    begun = sender.clock.now()
    result = await transact(session, work.message, work.recipients, sender.pieces)
    if result.delivered(work.recipients) and session.open:
        now = sender.clock.now()
        delays = Delays(0.0, max(0.0, begun - work.message.envelope.arrived), 0.0, now - begun)
        facts = Attempt(begun, now, session.host, session.address, True, session.tls, delays, onward=session.onward)
        return Ended([(r, result.verdicts[r.ordinal], facts) for r in work.recipients], session)
    return await _Round(sender, work).run(session, result, begun)


def _fit(sender: Sender, work: Work, session: Session | None) -> bool:
    """Whether the whole of `work` may go over the session in one transaction."""
    return (
        session is not None
        and session.open
        and not session.exhausted
        and serves(session, work.plan.hosts, sender.tls_default)
        and len(portions(work.recipients, session.limits)) == 1
        and not unsendable(work.message, work.recipients, session.extensions)
    )


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
        self.locked_out = False  # the host refused our password: its other addresses know no other
        self.over = False  # nothing is pending, or nobody else to be asked
        self.again = False  # the host would take the rest over a new session

    async def run(self, session: Session | None, result: Result | None = None, begun: float = 0.0) -> Ended:
        """`result` is that of a transaction over `session` which began at `begun`, if there was one already."""
        tried = ""
        default, plan = self.sender.tls_default, self.work.plan
        if session is not None and (result or (session.open and serves(session, plan.hosts, default))):
            if await self._over(session, reused=True, result=result, begun=begun):
                return self._end()
            tried = "" if self.again else session.host
        elif session is not None:
            session.leave()
        sessions = 1 if self.reached else 0
        addresses = 0
        hosts = order(plan.hosts, self.sender.rng)
        for host in self.sender.dead.last(hosts, self.sender.clock.monotonic()):
            if host.name == tried and self.reached:
                continue
            if not host.addresses:
                self._note(host, "", trouble(host.error or f"{host.name} has no address", "4.4.3", "dns"))
                continue
            level = policy.level_for(host, default)
            if (why := policy.shortfall(level)) is not None:
                self._note(host, "", trouble(why, "4.7.5", "tls-policy"), policy.plaintext(level))
                self.reached = True  # nothing is wrong with the next hop
                continue
            for address in host.addresses:
                if addresses >= MAX_ADDRESSES or sessions >= MAX_SESSIONS:
                    return self._end()
                addresses += 1
                if not await self._by(host, address, level):
                    if self.limited:
                        return self._end()
                    if self.locked_out:
                        break
                    continue
                sessions += 1
                while self.again and self.pending:
                    if not await self._by(host, address, level):
                        break
                if self.over:
                    return self._end()
                break
        return self._end()

    async def _by(self, host: PlannedHost, address: str, level: TlsPolicy) -> bool:
        """A new session, and what goes over it. False if there was none to be had."""
        sender = self.sender
        opened = await open_session(sender, host, address, level)
        if not isinstance(opened, Session):
            self.limited, self.locked_out = opened.limited, opened.verdict.rule == "auth"
            self._note(host, address, opened.verdict, opened.tls, opened.transcript)
            return False
        self.over = await self._over(opened, reused=False)
        return True

    async def _over(self, session: Session, *, reused: bool, result: Result | None = None, begun: float = 0.0) -> bool:
        """The transactions over this session. True when the round is over: nothing pending, or nobody else to be asked.

        `again` says whether a new session with the same host is to take what is left."""
        sender, work = self.sender, self.work
        self.again = False
        recipients = list(self.pending.values())
        refused = refusals(work.message, recipients, session.extensions)
        if refused:
            self.reached = True
            facts = self._facts(session.host, session.address, session.tls, reused)
            for ordinal, verdict in refused.items():  # a host that could not be reached might take it: that stays
                self.last.setdefault(ordinal, (verdict, facts))
            recipients = [r for r in recipients if r.ordinal not in refused]
        waiting = portions(recipients, session.limits) if result is None else [recipients]
        while waiting:
            if session.exhausted:
                self.again = True
                session.leave()
                break
            portion = waiting.pop(0)
            if result is None:
                begun = sender.clock.now()
                result = await transact(session, work.message, portion, sender.pieces)
            self.started = min(self.started, begun)
            if reused and result.ended is not None and result.stale:
                self.again = self.reached  # it took portions of this message before
                return False  # closed while it was idle: that is no attempt
            self.reached = True
            self._take(session, result, portion, begun, reused)
            if result.ended is not None or not session.open:
                if result.ended is not None:
                    self.ended.strained = True
                if result.limited:
                    self.ended.down = result.ended  # whoever is next would only be told the same
                if session.chunking_unknown:
                    _remember(sender.no_chunking, session.address)
                    self.again = True
                self._keep(session)
                return not self.pending or result.limited or result.doubtful
            waiting += self._too_many(result, portion)
            reused, result = True, None
        self._keep(session)
        return not self.pending

    def _too_many(self, result: Result, portion: Sequence[Recipient]) -> list[list[Recipient]]:
        """Those that were too many for a transaction that went well: the next one is for them (standards Q05)."""
        rest = [r for r in portion if (verdict := result.verdicts.get(r.ordinal)) and verdict.rule == TOO_MANY]
        done = any(verdict.outcome is Outcome.DELIVERED for verdict in result.verdicts.values())
        return [rest] if rest and done else []

    def _take(
        self, session: Session, result: Result, recipients: Sequence[Recipient], begun: float, reused: bool
    ) -> None:
        """Sort the verdicts: final ones are done, temporary ones may be mended by another host."""
        facts: Attempt | None = None
        for r in recipients:
            verdict = result.verdicts.get(r.ordinal, result.ended)
            if verdict is None:
                continue
            if facts is None or (verdict.outcome is not Outcome.DELIVERED and not facts.transcript):
                facts = self._facts(
                    session.host, session.address, session.tls, reused, begun, 0.0 if reused else session.connect_time,
                    "" if verdict.outcome is Outcome.DELIVERED else session.transcript(), session.onward,
                )  # fmt: skip
            if verdict.outcome is Outcome.DEFERRED:
                self.last[r.ordinal] = (verdict, facts)
            else:
                self.done[r.ordinal] = (verdict, facts)
                del self.pending[r.ordinal]

    def _note(
        self, host: PlannedHost, address: str, verdict: Verdict, tls: TlsFacts = NO_TLS, transcript: str = ""
    ) -> None:
        """What a host that gave no session means for those still pending, unless another host answers them."""
        facts = self._facts(host.name, address, tls, False, transcript=transcript)
        for ordinal in self.pending:
            known = self.last.get(ordinal)
            if known is None or not known[0].remote:
                self.last[ordinal] = (verdict, facts)
        if verdict.remote:
            self.ended.strained = True

    def _facts(
        self, host: str, address: str, tls: TlsFacts, reused: bool, begun: float = 0.0, connect: float = 0.0,
        transcript: str = "", onward: str = "",
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
            tls=tls,
            delays=Delays(0.0, max(0.0, self.started - arrived), connect, max(0.0, now - begun)),
            transcript=transcript,
            onward=onward,
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
                self.done.get(r.ordinal) or self.last.get(r.ordinal) or (nothing, self._facts("", "", NO_TLS, False))
            )
            self.ended.results.append((r, verdict, facts))
        if not self.reached and self.pending:
            self.ended.down = self.ended.results[-1][1]
        return self.ended


def _remember(addresses: set[str], address: str) -> None:
    """Add to what is known of hosts; it must not grow for ever."""
    if len(addresses) >= MAX_REMEMBERED:
        addresses.clear()
    addresses.add(address)

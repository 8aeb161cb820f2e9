"""`recipients = "callout"`: whether a recipient exists is asked of its next hop, while its client waits.

Promises: nothing is sent but a session with an empty transaction; one look-up an address at a time, few a domain, all
of them limited in time, so that a next hop that is slow or down delays a client and never the relay; answers are kept
for a while, in bounded memory that strangers cannot clear of what is known to exist. What could not be found out defers
(450 4.1.1), unless the recipient was known to exist a while ago: then it is believed. A host that takes everything is
noticed and told about: there the callout protects from nothing.
"""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailtui.address import Mailbox
from mailtui.clock import Clock
from mailtui.events import Events
from mailtui.intake.recipients import EXISTS, Known
from mailtui.model import Reply

# In seconds, from asking to answering. The client waits for the reply to RCPT: RFC 5321 section 4.5.3.2.3 gives it five
# minutes, and many clients are less patient.
LIMIT = 30.0

# How long an answer is good. Mailboxes stay; one that is made should not be refused for long; what could not be found
# out is asked again before a client that was deferred comes back.
EXISTS_GOOD = 86400.0
UNKNOWN_GOOD = 2 * 3600.0
UNSURE_GOOD = 60.0
# A recipient that existed is believed for so long while its next hop gives no answer: a backup MX is there for that.
BELIEVED = 7 * 86400.0
# Whether a host takes everything is asked so often.
EVERYTHING_GOOD = 86400.0

# Answers kept, of those that exist and of the others: 200 octets each.
MOST_ANSWERS = 20_000
MOST_DOMAINS = 10_000

# Look-ups at once: of one domain, so that a dictionary attack on it goes through us at this width and no wider; and in
# all. More than that wait for their turn within their time, or are deferred at once.
MOST_OF_DOMAIN = 5
MOST_LOOKUPS = 100

_UNSURE = "The recipient's server gives no answer, try again later"


class Ask(Protocol):
    """Asks the next hop of a domain about addresses there, in one session: a reply for each, in order.

    A reply with code 0 stands for none: nobody could be asked, and its text says why. Never raises for what hosts do.
    """

    def __call__(self, addresses: Sequence[str], destination: str) -> Awaitable[Sequence[Reply]]: ...


async def _nobody(addresses: Sequence[str], destination: str) -> Sequence[Reply]:
    return [Reply(0, "", "there is nobody to ask")] * len(addresses)


@dataclass(frozen=True, slots=True)
class _Answer:
    known: Known
    until: float  # monotonic
    believed: float = 0.0


class Callout:
    """The look-ups and their answers. `ask` of the constructor is what reaches the next hop."""

    def __init__(
        self,
        clock: Clock,
        events: Events,
        ask: Ask = _nobody,
        *,
        token: Callable[[], str] = lambda: secrets.token_hex(12),
    ) -> None:
        self.next_hop = ask
        self._clock = clock
        self._events = events
        self._token = token
        self._exist: OrderedDict[str, _Answer] = OrderedDict()
        self._others: OrderedDict[str, _Answer] = OrderedDict()
        # Domains whose host takes everything, or does not: until when that need not be asked again (monotonic), and
        # since when it takes everything (wall time).
        self._domains: OrderedDict[str, tuple[float, float | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Known]] = {}
        self._of_domain: Counter[str] = Counter()
        self._turns: dict[str, list[asyncio.Future[None]]] = {}

    def known(self, mailbox: Mailbox) -> Known | None:
        """What is known without asking; None if it must be asked."""
        now = self._clock.monotonic()
        if self._takes_everything(mailbox.destination, now):
            return Known(None, "the recipient's server takes every address, so that none is known")
        key = _key(mailbox)
        for answers in (self._exist, self._others):
            answer = answers.get(key)
            if answer is not None and now < answer.until:
                return answer.known
        return None

    async def ask(self, mailbox: Mailbox) -> Known:
        """What is known, asked if need be. Within `LIMIT` seconds; never raises for what hosts do."""
        known = self.known(mailbox)
        if known is not None:
            return known
        key = _key(mailbox)
        task = self._asking.get(key)
        if task is None:
            if len(self._asking) >= MOST_LOOKUPS:
                return self._unsure(key, "too many recipients are being looked up")
            task = self._asking[key] = asyncio.get_running_loop().create_task(self._look_up(key, mailbox))
            task.add_done_callback(lambda done: self._asking.pop(key, None))
        # A client that hangs up ends its waiting, and nobody else's.
        return await asyncio.shield(task)

    def warnings(self) -> list[tuple[str, float]]:
        """Domains whose recipients cannot be verified, and since when."""
        now = self._clock.monotonic()
        return [
            (f'{domain}: its server takes every address, so that recipients = "callout" refuses nobody there', since)
            for domain, (until, since) in self._domains.items()
            if since is not None and now < until
        ]

    async def close(self) -> None:
        """End every look-up."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- a look-up ---------------------------------------------------------------------------------------------------

    async def _look_up(self, key: str, mailbox: Mailbox) -> Known:
        domain = mailbox.destination
        work = asyncio.ensure_future(self._in_turn(mailbox))
        timer = asyncio.ensure_future(self._clock.sleep_until(self._clock.now() + LIMIT))
        try:
            await asyncio.wait((work, timer), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return self._unsure(key, f"no answer within {LIMIT:g} s", domain)
            replies = work.result()
        finally:
            timer.cancel()
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
        if len(replies) > 1:
            self._note_domain(domain, replies[1])
        return self._judge(key, replies[0], domain)

    async def _in_turn(self, mailbox: Mailbox) -> Sequence[Reply]:
        """Ask when the domain has room for another look-up. The first session of a day also asks for an address that
        nobody has."""
        domain = mailbox.destination
        while self._of_domain[domain] >= MOST_OF_DOMAIN:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turns.setdefault(domain, []).append(turn)
            await turn
        self._of_domain[domain] += 1
        try:
            addresses = [mailbox.text]
            if self._clock.monotonic() >= self._domains.get(domain, (0.0, None))[0]:
                addresses.append(f"{self._token()}@{mailbox.domain}")
            return await self.next_hop(addresses, domain)
        finally:
            self._of_domain[domain] -= 1
            if not self._of_domain[domain]:
                del self._of_domain[domain]
            for turn in self._turns.pop(domain, ()):
                if not turn.done():
                    turn.set_result(None)

    def _takes_everything(self, domain: str, now: float) -> bool:
        found = self._domains.get(domain)
        return found is not None and found[1] is not None and now < found[0]

    def _note_domain(self, domain: str, reply: Reply) -> None:
        """What the reply to an address that nobody has says of its host; a temporary one says nothing."""
        if not 200 <= reply.code < 300 and reply.code < 500:
            return
        now, takes = self._clock.monotonic(), reply.code < 300
        self._domains.pop(domain, None)
        self._domains[domain] = (now + EVERYTHING_GOOD, self._clock.now() if takes else None)
        if len(self._domains) > MOST_DOMAINS:
            self._domains.popitem(last=False)
        if takes:
            text = f"the server of {domain} takes every address: none of its recipients can be verified"
            self._events.emit("callout", level="warning", text=text, destination=domain)

    def _judge(self, key: str, reply: Reply, domain: str) -> Known:
        """What a reply to RCPT says of the recipient. A refusal that is a matter of policy (X.7.X of RFC 3463) is one
        of us, not of the recipient."""
        if 200 <= reply.code < 300:
            now = self._clock.monotonic()
            self._others.pop(key, None)
            _keep(self._exist, key, _Answer(EXISTS, now + EXISTS_GOOD, now + BELIEVED))
            return EXISTS
        if reply.code < 500 or reply.enhanced[2:].startswith("7."):
            return self._unsure(key, str(reply) if reply.code else reply.text, domain)
        if reply.enhanced[2:].startswith("1.") or not reply.enhanced:
            known = Known(Reply(550, "5.1.1", "Recipient unknown"))
        else:
            known = Known(Reply(550, reply.enhanced, "The recipient's server refuses mail for it"))
        self._exist.pop(key, None)
        _keep(self._others, key, _Answer(known, self._clock.monotonic() + UNKNOWN_GOOD))
        self._events.emit("callout", level="debug", recipient=key, text=f"unknown: {reply}")
        return known

    def _unsure(self, key: str, why: str, domain: str = "") -> Known:
        """It could not be found out. What existed is believed; all else is deferred, and not asked again at once."""
        now = self._clock.monotonic()
        earlier = self._exist.get(key)
        if earlier is not None and now < earlier.believed:
            known = Known(None, "the recipient existed, and its server gives no answer now")
            self._exist[key] = _Answer(known, now + UNSURE_GOOD, earlier.believed)
            return known
        known = Known(Reply(450, "4.1.1", _UNSURE))
        if domain:  # else it was not even tried
            _keep(self._others, key, _Answer(known, now + UNSURE_GOOD))
        self._events.emit("callout", level="warning", recipient=key, text=f"not verified: {why}")
        return known


def _key(mailbox: Mailbox) -> str:
    """The local part as it is: whether case counts there is the next hop's to say (RFC 5321 section 2.4)."""
    return f"{mailbox.local}@{mailbox.destination}"


def _keep(answers: "OrderedDict[str, _Answer]", key: str, answer: _Answer) -> None:
    answers.pop(key, None)
    answers[key] = answer
    if len(answers) > MOST_ANSWERS:
        answers.popitem(last=False)

"""Delay notices for mail that waits, untried, behind a next hop that is down (RFC 3461 section 5.2, `[retry] warn`).

A next hop that fails as a whole has failed for everybody who waits for it: those who are late are told to their
senders, a message at a time, oldest first, as many as the allowance has room for; the next ones when it has room again,
while the hop is down. Promises: report and mark are one transaction; every message is looked at once an hour at most,
so that a million that wait cost nothing while they do; nobody is called tried who was not.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.delivery.attempt import Ended, Work
from mailtui.delivery.hop import NextHop
from mailtui.delivery.scheduler import Scheduler
from mailtui.delivery.settle import Settler
from mailtui.events import Events
from mailtui.model import Attempt, Envelope, Message, Plan, Recipient, Verdict
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.store import Store

Cursor = tuple[float, int, int]

BEGINNING: Cursor = (0.0, 0, 0)

# What was on a connection, held or sent elsewhere when it was passed over is looked for again after so many seconds.
START_OVER = 3600.0

# Messages whose own attempt failed just now, remembered for one report on all their recipients; more than any next hop
# has on its connections.
LATEST = 2000

# Next hops that are down at once and remembered here; one that is forgotten starts from the beginning.
OUTAGES = 10_000


@dataclass(slots=True)
class Outage:
    """A next hop that is down, and how far the senders of what waits for it have been told."""

    key: str
    verdict: Verdict
    attempt: Attempt  # who answered, if anybody did; `finished` is 0
    latest: deque[int] = field(default_factory=lambda: deque(maxlen=LATEST))
    cursors: dict[str, Cursor] = field(default_factory=dict)  # by destination
    started_over: float = 0.0
    running: bool = False
    resumes: bool = False  # a timer will go on


class Delays:
    """One a relay. Hears of every failure and recovery of a next hop from the scheduler."""

    def __init__(
        self, scheduler: Scheduler, store: "Store", router: Router, settler: Settler, clock: Clock, events: Events
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._router = router
        self._settler = settler
        self._clock = clock
        self._events = events
        self._outages: dict[str, Outage] = {}
        scheduler.hop_down = self.down
        scheduler.hop_up = self.up

    def down(self, hop: NextHop, work: Work, ended: Ended, destinations: Iterable[str]) -> None:
        """A next hop has failed, with `work` on its way there; these destinations wait for it."""
        if self._scheduler.settings.retry.warn is None or not ended.results:
            return
        _, verdict, attempt = ended.results[-1]
        verdict, attempt = ended.down or verdict, replace(attempt, finished=0.0, transcript="")
        outage = self._outages.get(hop.key)
        if outage is None:
            if len(self._outages) >= OUTAGES:
                self._outages.pop(next(iter(self._outages)))
            outage = self._outages[hop.key] = Outage(hop.key, verdict, attempt)
        outage.verdict, outage.attempt = verdict, attempt
        if self._clock.monotonic() - outage.started_over >= START_OVER:
            outage.started_over = self._clock.monotonic()
            outage.cursors = dict.fromkeys(outage.cursors, BEGINNING)
        for name in destinations:
            outage.cursors.setdefault(name, BEGINNING)
        outage.latest.append(work.message.id)
        self._go_on(outage)

    def up(self, key: str) -> None:
        """A next hop works: what waits is tried now, and speaks for itself."""
        self._outages.pop(key, None)

    def _go_on(self, outage: Outage) -> None:
        outage.resumes = False
        if not outage.running and self._stands(outage):
            outage.running = True
            self._scheduler.tasks.spawn(self._tell(outage))

    def _stands(self, outage: Outage) -> bool:
        return self._outages.get(outage.key) is outage and not self._scheduler.draining

    async def _tell(self, outage: Outage) -> None:
        """One message after the other, until all are told, or enough for now."""
        try:
            while self._stands(outage):
                wait = self._settler.allowance.wait(outage.key)
                if wait > 0:
                    self._settler.allowance.used_up(outage.key)
                    if not outage.resumes:
                        outage.resumes = True
                        self._scheduler.timers.at(self._clock.now() + wait, lambda: self._go_on(outage))
                    return
                if not await self._step(outage):
                    return
        except Exception as error:  # a full disk, say: the hop's next failure comes here again
            self._events.emit("error", text=f"{outage.key}: delay notices wait: {error}", level="warning")
        finally:
            outage.running = False

    async def _step(self, outage: Outage) -> bool:
        """Look for the next message; whether there may be more."""
        warn = self._scheduler.settings.retry.warn
        if warn is None:
            return False
        before = self._clock.now() - warn
        if outage.latest:
            message = await self._store.claim_waiting(outage.latest.popleft(), before, self._wanted)
            if message is not None:
                await self._warn(outage, message, "")
            return True
        for name, cursor in list(outage.cursors.items()):
            more = True
            while more:
                found = await self._store.claim_unwarned(name, cursor, before, self._wanted)
                cursor, more = found.cursor, found.more
                outage.cursors[name] = cursor
                if found.message is not None:
                    await self._warn(outage, found.message, name)
                    return True
                if not self._stands(outage):
                    return False
        return False

    def _wanted(self, sender: str, trusted: bool, notify: str) -> bool:
        """As the settler decides; called in the writer."""
        return self._settler.wanted(Envelope(sender, 0.0, trusted=trusted), Recipient(1, "", "", notify=notify))

    async def _warn(self, outage: Outage, message: Message, destination: str) -> None:
        """Tell the sender of those recipients that wait for this hop; the others were claimed in vain."""
        scheduler = self._scheduler
        scheduler.memory.hold(message)
        ours: list[Recipient] = []
        others: list[Recipient] = []
        for r in message.recipients:
            plan = self._router.cached(r.address, r.destination, message.envelope.sender, r.route)
            if plan is None and r.destination == destination:  # the way to the others is looked up when they are tried
                plan = await self._router.plan(r.address, r.destination, message.envelope.sender, r.route)
            (ours if plan is not None and _key(plan, r.destination) == outage.key else others).append(r)
        self._settler.warn(
            message, ours, others, outage.verdict, outage.attempt, outage.key,
            lambda: scheduler.parked(message, message.recipients),
        )  # fmt: skip
        scheduler.memory.forget(message, [r.ordinal for r in message.recipients])


def _key(plan: Plan, destination: str) -> str:
    return plan.next_hop if plan.outcome == "deliver" else destination

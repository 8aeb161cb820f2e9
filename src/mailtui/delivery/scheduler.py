"""The scheduler: what is due, for whom a claim is made, which connection takes it, and how it is settled.

A fresh message is handed over in memory; what is parked is claimed per destination, and only for a next hop that has
room, so that a dead domain with any number of due recipients starves nobody. Promises: everything handed over is
settled or parked again; memory depends on the connections and the hand-off budget, never on the queue.
"""

import asyncio
import heapq
import itertools
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.delivery.attempt import Ended, Sender, Work, attempt
from mailtui.delivery.client import Session
from mailtui.delivery.hop import IDLE, MAX_TRANSACTIONS, IdleConnection, NextHop
from mailtui.delivery.settle import Settler
from mailtui.events import Events
from mailtui.model import Claimed, Message, Plan, Recipient, Verdict
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.store import Store

# The hand-off budget: what may be in memory between acceptance and settlement (architecture.md, step 3).
BUDGET_MESSAGES = 2000
BUDGET_BYTES = 32 * 1024 * 1024

# One destination may hold this much of it, so that a slow one does not push the others' fresh mail into the database.
SHARE = BUDGET_MESSAGES // 2

# Recipients in one transaction (RFC 5321 section 4.5.3.1.8: every server takes 100).
MAX_RECIPIENTS = 100

# Expired recipients of a dead next hop that are given up in one step.
EXPIRED_STEP = 200

# A next hop that has had nothing to do for this long is forgotten, with its window and health.
FORGET_AFTER = 3600.0


@dataclass(slots=True)
class Destination:
    """A destination with parked work, or with messages in memory."""

    name: str
    due: float | None = None  # when its first parked recipient is due, as far as is known
    cursor: str = ""  # the submitter served last
    claiming: bool = False
    planning: bool = False
    held: int = 0  # messages in memory


@dataclass(slots=True)
class Held:
    """A message in memory and how many of its recipients are not settled yet."""

    message: Message
    left: set[int]
    destinations: tuple[str, ...]


class Scheduler:
    """One a relay. `start` it, then give it what the store committed; `drain` ends it."""

    def __init__(
        self, settings: Settings, clock: Clock, events: Events, store: "Store", router: Router, sender: Sender,
        settler: Settler,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.paused = ""
        self.hops: OrderedDict[str, NextHop] = OrderedDict()
        self.destinations: dict[str, Destination] = {}
        self.held: dict[int, Held] = {}
        self.connections = 0
        self.draining = False
        self._clock = clock
        self._events = events
        self._store = store
        self._router = router
        self._sender = sender
        self._settler = settler
        self._bytes = 0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starved: OrderedDict[str, None] = OrderedDict()  # hops that wait for one of all connections
        self._rate = settings.delivery.rate  # (messages, seconds) or None
        self.on_fatal: Callable[[BaseException], None] = lambda error: None

    # -- the hand-off ------------------------------------------------------------------------------------------------

    def admit(self, message: Message) -> bool:
        """Whether a new message may be handed over in memory; asked when it is submitted, so it counts from then on."""
        envelope = message.envelope
        if self.paused or self.draining or len(self.held) >= BUDGET_MESSAGES:
            return False
        if self._bytes + (envelope.size if message.body else 0) > BUDGET_BYTES:
            return False
        destination = self.destinations.get(message.recipients[0].destination)
        if destination is not None and (destination.held >= SHARE or self._is_down(destination.name)):
            return False
        self._hold(message)
        return True

    def committed(self, message: Message) -> None:
        """A message is on disk: deliver it, or note when it is due."""
        if message.claimed:
            message.alone = len(message.recipients) == 1
            self._dispatch(message)
        else:
            for recipient in message.recipients:
                if recipient.due is not None:
                    self._due(recipient.destination, recipient.due)

    def load(self, heads: Sequence[tuple[str, float]]) -> None:
        """At start: what the store has parked."""
        for name, due in heads:
            self._due(name, due)

    def refused(self, message: Message) -> None:
        """A message that was admitted did not get on disk after all."""
        if message.claimed:
            self._forget(message, [r.ordinal for r in message.recipients])

    def _is_down(self, destination: str) -> bool:
        plan = self._router.cached("", destination, "")
        hop = self.hops.get(plan.next_hop or destination) if plan is not None else None
        return hop is not None and hop.failures > 0

    def _hold(self, message: Message) -> None:
        names = tuple({r.destination for r in message.recipients})
        self.held[message.id] = Held(message, {r.ordinal for r in message.recipients}, names)
        self._bytes += message.envelope.size if message.body else 0
        for name in names:
            self._destination(name).held += 1

    def _forget(self, message: Message, ordinals: Sequence[int]) -> None:
        """These recipients are settled or parked: with the last one, the message leaves memory."""
        held = self.held.get(message.id)
        if held is None:
            return
        held.left.difference_update(ordinals)
        if not held.left:
            del self.held[message.id]
            self._bytes -= held.message.envelope.size if held.message.body else 0
            for name in held.destinations:
                destination = self.destinations[name]
                destination.held -= 1
                if not destination.held and destination.due is None and not destination.claiming:
                    del self.destinations[name]

    # -- timers ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wake what has come due, for ever."""
        while True:
            now = self._clock.now()
            while self._timers and self._timers[0][0] <= now:
                heapq.heappop(self._timers)[2]()
            self._wake.clear()
            if not self._timers:
                await self._wake.wait()
                continue
            sleeping = asyncio.ensure_future(self._clock.sleep_until(self._timers[0][0]))
            waking = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                waking.cancel()

    def forget_idle_hops(self) -> None:
        """Called now and then: next hops with nothing to do for an hour."""
        limit = self._clock.now() - FORGET_AFTER
        for key, hop in list(self.hops.items()):
            idle = not hop.workers and not len(hop.queue) and not hop.claiming and not hop.waiting
            if idle and max(hop.last_success or 0.0, hop.backoff_until) < limit:
                del self.hops[key]

    def _at(self, when: float, act: Callable[[], None]) -> None:
        first = self._timers[0][0] if self._timers else None
        heapq.heappush(self._timers, (when, next(self._numbers), act))
        if first is None or when < first:
            self._wake.set()

    def _destination(self, name: str) -> Destination:
        destination = self.destinations.get(name)
        if destination is None:
            destination = self.destinations[name] = Destination(name)
        return destination

    def _due(self, name: str, due: float) -> None:
        """Something parked for a destination is due then."""
        destination = self._destination(name)
        if destination.due is None or due < destination.due:
            destination.due = due
            if due <= self._clock.now():
                self._pump(destination)
            else:
                self._at(due, lambda: self._pump(destination))

    # -- claims ------------------------------------------------------------------------------------------------------

    def _pump(self, destination: Destination) -> None:
        """Claim what is due for a destination, if its next hop has room."""
        now = self._clock.now()
        if destination.due is None or destination.due > now or destination.claiming:
            return
        if self.paused or self.draining or destination.planning or self._store.writer.full:
            if self._store.writer.full:
                self._at(now + 1.0, lambda: self._pump(destination))
            return
        plan = self._router.cached("", destination.name, "")
        if plan is None:
            destination.planning = True
            self._spawn(self._plan_for(destination))
            return
        hop = self._hop(plan, destination.name)
        room = min(hop.room(now), max(1, BUDGET_MESSAGES - len(self.held)))
        if room <= 0:
            hop.waiting[destination.name] = None
            return
        destination.claiming = True
        hop.claiming += room
        claim = self._store.claim_due(destination.name, room, destination.cursor)
        claim.add_done_callback(lambda done: self._claimed(destination, hop, room, done))

    async def _plan_for(self, destination: Destination) -> None:
        try:
            await self._router.plan("", destination.name, "")
        finally:
            destination.planning = False
        self._pump(destination)

    def _claimed(self, destination: Destination, hop: NextHop, room: int, done: "asyncio.Future[Claimed]") -> None:
        destination.claiming = False
        hop.claiming -= room
        if done.cancelled() or done.exception() is not None:
            self._at(self._clock.now() + 1.0, lambda: self._pump(destination))
            return
        claimed = done.result()
        destination.cursor = claimed.cursor
        destination.due = None
        for message in claimed.messages:
            self._hold(message)
        if claimed.next_due is not None:
            self._due(destination.name, claimed.next_due)
        elif not destination.held:
            self.destinations.pop(destination.name, None)
        for message in claimed.messages:
            self._dispatch(message)

    def _refill(self, hop: NextHop) -> None:
        """The hop has room again: claim for the destination that has waited longest."""
        now = self._clock.now()
        while hop.waiting and hop.room(now) > 0:
            name, _ = hop.waiting.popitem(last=False)
            destination = self.destinations.get(name)
            if destination is not None:
                self._pump(destination)

    # -- planning ----------------------------------------------------------------------------------------------------

    def _dispatch(self, message: Message) -> None:
        """Give the recipients of a message to their next hops, those that share one together."""
        sender = message.envelope.sender
        groups: dict[str, tuple[Plan, list[Recipient]]] = {}
        for recipient in message.recipients:
            plan = self._router.cached(recipient.address, recipient.destination, sender)
            if plan is None:
                self._spawn(self._plan_one(message, recipient))
            else:
                # A plan that does not deliver is settled for its own recipient: the reason names the domain.
                key = plan.next_hop if plan.outcome == "deliver" else recipient.destination + " " + plan.outcome
                groups.setdefault(key, (plan, []))[1].append(recipient)
        for plan, recipients in groups.values():
            for i in range(0, len(recipients), MAX_RECIPIENTS):
                self._submit(Work(message, recipients[i : i + MAX_RECIPIENTS], plan))

    async def _plan_one(self, message: Message, recipient: Recipient) -> None:
        plan = await self._router.plan(recipient.address, recipient.destination, message.envelope.sender)
        self._submit(Work(message, [recipient], plan))

    def _hop(self, plan: Plan, destination: str) -> NextHop:
        """The next hop of a plan; a plan without one (no route, DNS trouble) has its domain's."""
        key = plan.next_hop if plan.outcome == "deliver" else destination
        hop = self.hops.get(key)
        if hop is None:
            delivery = self.settings.delivery
            hop = self.hops[key] = NextHop(key, delivery.concurrency, self._rate)
        hop.plan = plan
        return hop

    # -- next hops ---------------------------------------------------------------------------------------------------

    def _submit(self, work: Work) -> None:
        """Put work on a connection, or in line for one."""
        now = self._clock.now()
        hop = self._hop(work.plan, work.recipients[0].destination)
        if self.paused or self.draining or hop.backing_off(now):
            self._park(work, hop)
        elif work.plan.outcome != "deliver":
            self._decided(work, hop)
        elif hop.idle:
            connection = hop.idle.pop()
            connection.work.set_result(work)
        elif hop.may_open() and self._may_connect(hop):
            self._connect(hop, work)
        else:
            hop.queue.push(work)

    def _connect(self, hop: NextHop, work: Work) -> None:
        """One connection more, with this to begin with."""
        hop.workers += 1
        self.connections += 1
        self._spawn(self._worker(hop, work))

    def _may_connect(self, hop: NextHop) -> bool:
        """Whether one more connection may be open in all; an idle one elsewhere makes place."""
        if self.connections < self.settings.delivery.connections:
            return True
        for other in self.hops.values():
            if other is not hop and other.idle:
                other.idle.pop(0).work.set_result(None)
                break
        self._starved[hop.key] = None
        return False

    async def _worker(self, hop: NextHop, work: Work | None) -> None:
        """One connection's life: messages one after the other, then a wait for more, then QUIT."""
        number = next(self._numbers)
        session: Session | None = None
        try:
            while work is not None:
                await self._respect_rate(hop)
                work.begun = self._clock.now()
                hop.busy[number] = work
                try:
                    ended = await attempt(self._sender, work, session)
                finally:
                    del hop.busy[number]
                session = ended.session
                self._finish(hop, work, ended)
                work = self._next(hop)
                if work is None and session is not None and hop.workers <= hop.window and not self.draining:
                    if session.used < MAX_TRANSACTIONS:
                        work = await self._idle(hop, session)
                elif work is not None and session is not None and session.used >= MAX_TRANSACTIONS:
                    self._spawn(session.quit())
                    session = None
            if session is not None:
                await session.quit()
        finally:
            if session is not None:
                session.close()
            hop.workers -= 1
            self.connections -= 1
            self._released(hop)

    def _next(self, hop: NextHop) -> Work | None:
        now = self._clock.now()
        if self.paused or self.draining or hop.backing_off(now):
            return None
        if self._store.writer.full:
            # What is delivered cannot be written down: nothing more goes out until it can.
            self._at(now + 1.0, lambda: self._released(hop))
            return None
        if hop.workers > max(1, int(hop.window)):
            return None
        return hop.queue.pop()

    async def _idle(self, hop: NextHop, session: Session) -> Work | None:
        """Wait for work, at most IDLE seconds; the latest idle connection is used first, the oldest go first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Work | None] = loop.create_future()
        connection = IdleConnection(session, self._clock.monotonic(), future)
        hop.idle.append(connection)
        timer = loop.call_later(IDLE, self._idle_over, hop, connection)
        try:
            return await future
        finally:
            timer.cancel()

    def _idle_over(self, hop: NextHop, connection: IdleConnection) -> None:
        if not connection.work.done():
            hop.idle.remove(connection)
            connection.work.set_result(None)

    async def _respect_rate(self, hop: NextHop) -> None:
        if hop.rate is not None:
            wait = hop.rate.reserve(self._clock.monotonic()) - self._clock.monotonic()
            if wait > 0:
                hop.rate_until = self._clock.now() + wait
                await self._clock.sleep_until(hop.rate_until)

    def _released(self, hop: NextHop) -> None:
        """A connection is gone: whoever waits for one may have it."""
        for key in (hop.key, *self._starved):
            other = self.hops.get(key)
            if other is None or not len(other.queue):
                self._starved.pop(key, None)
                continue
            if other.may_open() and self.connections < self.settings.delivery.connections:
                self._starved.pop(key, None)
                work = self._next(other)
                if work is not None:
                    self._connect(other, work)

    # -- endings -----------------------------------------------------------------------------------------------------

    def _finish(self, hop: NextHop, work: Work, ended: Ended) -> None:
        """An attempt is over: the hop learns, the recipients are settled, and more is claimed."""
        now = self._clock.now()
        if ended.down is not None:
            self._hop_down(hop, work, ended.down, now)
        elif ended.strained:
            hop.strained()
            hop.last_reply = ended.results[-1][1].reply
        else:
            hop.succeeded(now)
            hop.last_reply = ended.results[-1][1].reply
            if hop.may_open() and len(hop.queue) and self._may_connect(hop):
                more = self._next(hop)
                if more is not None:
                    self._connect(hop, more)
        self._settle(work, ended)
        if hop.waiting:
            self._refill(hop)

    def _settle(self, work: Work, ended: Ended) -> None:
        self._settler.settle(work.message, work.plan, ended.results, self._settled)
        self._forget(work.message, [r.ordinal for r, _, _ in ended.results])

    def _settled(self, deferred: Sequence[tuple[str, float]]) -> None:
        """A settlement is on disk: these destinations have something due then."""
        for name, due in deferred:
            self._due(name, due)

    def _decided(self, work: Work, hop: NextHop) -> None:
        """A plan that does not deliver: settle it as it says. A deferral makes the domain back off."""
        plan = work.plan
        ended = self._settler.decide(work)
        now = self._clock.now()
        if plan.outcome == "defer":
            self._hop_down(hop, work, ended.results[0][1], now)
        else:
            hop.succeeded(now)
        self._settle(work, ended)
        if hop.waiting:
            self._refill(hop)

    def _hop_down(self, hop: NextHop, work: Work, verdict: Verdict, now: float) -> None:
        """The next hop cannot be reached: back off, give back what waits for it, give up what has expired."""
        first = not hop.failures
        hop.failed(now, verdict)
        if first:
            self._events.emit("next-hop-down", next_hop=hop.key, text=verdict.reply, level="warning")
        for waiting in hop.queue.drain():
            self._park(waiting, hop)
        destination = work.recipients[0].destination
        hop.waiting.setdefault(destination, None)
        self._at(hop.backoff_until, lambda: self._refill(hop))
        self._spawn(self._give_up_expired(destination, work.plan, verdict))

    async def _give_up_expired(self, destination: str, plan: Plan, verdict: Verdict) -> None:
        """A hop that fails as a whole has failed for every due recipient: those past their expiry are given up."""
        while not self.draining:
            found = await self._store.claim_expired(destination, EXPIRED_STEP)
            for message in found:
                self._hold(message)
                work = Work(message, message.recipients, plan)
                self._settle(work, self._settler.shared(work, verdict))
            if len(found) < EXPIRED_STEP:
                return

    def _park(self, work: Work, hop: NextHop) -> None:
        """Give work back to the database, untried."""
        message, recipients = work.message, work.recipients
        name = recipients[0].destination
        due = min(r.due or 0.0 for r in recipients)
        self._store.park(message, recipients, lambda: self._parked(hop, name, due))
        self._forget(message, [r.ordinal for r in recipients])

    def _parked(self, hop: NextHop, name: str, due: float) -> None:
        if hop.backing_off(self._clock.now()):
            destination = self._destination(name)
            destination.due = due if destination.due is None else min(due, destination.due)
            hop.waiting[name] = None
        else:
            self._due(name, due)

    # -- the end -----------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Finish what is on a connection, at most `seconds`; park the rest. True if nothing is claimed any more."""
        self.draining = True
        for hop in self.hops.values():
            for connection in hop.idle:
                if not connection.work.done():
                    connection.work.set_result(None)
            hop.idle.clear()
            for work in hop.queue.drain():
                self._park(work, hop)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for held in list(self.held.values()):
            left = [r for r in held.message.recipients if r.ordinal in held.left]
            self._store.park(held.message, left)
            self._forget(held.message, [r.ordinal for r in left])
        return not self.held

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_fatal(error)

    # -- what others see ---------------------------------------------------------------------------------------------

    def claimed(self) -> list[tuple[int, int]]:
        """(message, ordinal) of everything handed over in memory."""
        return [(number, ordinal) for number, held in self.held.items() for ordinal in held.left]

    def active(self) -> frozenset[tuple[int, int]]:
        """Those of them on a connection now."""
        return frozenset(
            (work.message.id, r.ordinal)
            for hop in self.hops.values()
            for work in hop.busy.values()
            for r in work.recipients
        )

"""The scheduler: what is due, for whom a claim is made, where it goes, and how it is settled.

A fresh message is handed over in memory; what is parked is claimed per destination, and only for a next hop that has
room, so that a dead domain with any number of due recipients starves nobody. Promises: everything handed over is
settled or parked again; memory depends on the connections and the hand-off budget, never on the queue.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.delivery.attempt import Ended, Sender, Work
from mailtui.delivery.hop import NextHop
from mailtui.delivery.pool import Pool, Tasks
from mailtui.delivery.settle import Settler
from mailtui.delivery.timers import Timers
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

# A full disk, or a claim that failed, is looked at again after this many seconds.
LOOK_AGAIN = 1.0


@dataclass(slots=True)
class Destination:
    """A destination with parked work, or with messages in memory."""

    name: str
    due: float | None = None  # when its first parked recipient is due, as far as is known
    later: float | None = None  # what became due while a claim was under way
    cursor: str = ""  # the submitter served last
    claiming: bool = False
    planning: bool = False
    held: int = 0  # messages in memory


@dataclass(slots=True)
class Held:
    """A message in memory, and the recipients of it that are not settled yet."""

    message: Message
    left: set[int]
    destinations: tuple[str, ...] = field(default=())


class Scheduler:
    """One a relay. Give it what the store committed; `run` wakes what has come due; `drain` ends it."""

    def __init__(
        self, settings: Settings, clock: Clock, events: Events, store: "Store", router: Router, sender: Sender,
        settler: Settler,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.paused = ""
        self.destinations: dict[str, Destination] = {}
        self.held: dict[int, Held] = {}
        self.draining = False
        self.tasks = Tasks()
        self.timers = Timers(clock)
        self.run = self.timers.run
        self._clock = clock
        self._events = events
        self._store = store
        self._router = router
        self._settler = settler
        self._bytes = 0
        delivery = settings.delivery
        self.pool = Pool(
            clock,
            sender,
            self.tasks,
            connections=delivery.connections,
            concurrency=delivery.concurrency,
            rate=delivery.rate,
            stopped=self._stopped,
            ended=self._ended,
        )

    # -- the hand-off ------------------------------------------------------------------------------------------------

    def admit(self, message: Message) -> bool:
        """Whether a new message may be handed over in memory; asked when it is submitted, so it counts from then on."""
        size = message.envelope.size if message.body else 0
        if self.paused or self.draining or len(self.held) >= BUDGET_MESSAGES or self._bytes + size > BUDGET_BYTES:
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
            self.note_due((r.destination, r.due) for r in message.recipients if r.due is not None)

    def dropped(self, message: Message) -> None:
        """A message that was admitted did not get on disk after all."""
        if message.claimed:
            self._forget(message, [r.ordinal for r in message.recipients])

    def note_due(self, parked: Iterable[tuple[str, float]]) -> None:
        """These destinations have something parked that is due then: at start, after a settlement, after an action."""
        for name, due in parked:
            self._due(name, due)

    def _is_down(self, destination: str) -> bool:
        plan = self._router.cached("", destination, "")
        hop = self.pool.hops.get(_key(plan, destination)) if plan is not None else None
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
                self._drop_idle(destination)

    def _drop_idle(self, d: Destination) -> None:
        if not d.held and d.due is None and not d.claiming and not d.planning:
            self.destinations.pop(d.name, None)

    # -- claims ------------------------------------------------------------------------------------------------------

    def _destination(self, name: str) -> Destination:
        destination = self.destinations.get(name)
        if destination is None:
            destination = self.destinations[name] = Destination(name)
        return destination

    def _due(self, name: str, due: float) -> None:
        destination = self._destination(name)
        if destination.claiming:
            # The claim under way may have looked before this was parked: its answer must not make us forget it.
            destination.later = due if destination.later is None else min(due, destination.later)
        elif destination.due is None or due < destination.due:
            destination.due = due
            if due <= self._clock.now():
                self._pump(destination)
            else:
                self.timers.at(due, lambda: self._pump(destination))

    def _pump(self, destination: Destination) -> None:
        """Claim what is due for a destination, if its next hop has room."""
        now = self._clock.now()
        if destination.due is None or destination.due > now or destination.claiming or destination.planning:
            return
        if self.paused or self.draining:
            return
        if self._store.writer.full:
            self.timers.at(now + LOOK_AGAIN, lambda: self._pump(destination))
            return
        plan = self._router.cached("", destination.name, "")
        if plan is None:
            destination.planning = True
            self.tasks.spawn(self._plan_for(destination))
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
        later, destination.later = destination.later, None
        if done.cancelled() or done.exception() is not None:
            if later is not None and destination.due is not None:
                destination.due = min(later, destination.due)
            self.timers.at(self._clock.now() + LOOK_AGAIN, lambda: self._pump(destination))
            return
        claimed = done.result()
        destination.cursor = claimed.cursor
        destination.due = None
        for message in claimed.messages:
            self._hold(message)
        for due in (claimed.next_due, later):
            if due is not None:
                self._due(destination.name, due)
        self._drop_idle(destination)
        for message in claimed.messages:
            self._dispatch(message)

    def _refill(self, hop: NextHop) -> None:
        """The hop has room again: claim for the destination that has waited longest."""
        now = self._clock.now()
        for _ in range(len(hop.waiting)):
            if not hop.waiting or hop.room(now) <= 0:
                return
            name, _none = hop.waiting.popitem(last=False)
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
                self.tasks.spawn(self._plan_one(message, recipient))
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
        hop = self.pool.hop(_key(plan, destination))
        hop.plan = plan
        return hop

    def _submit(self, work: Work) -> None:
        """Put work on a connection, settle what no connection is needed for, or give it back."""
        hop = self._hop(work.plan, work.recipients[0].destination)
        if self.paused or self.draining or hop.backing_off(self._clock.now()):
            self._park(work)
        elif work.plan.outcome != "deliver":
            self._decided(work, hop)
        else:
            self.pool.submit(hop, work)

    def _stopped(self, hop: NextHop) -> bool:
        """Whether nothing new may go to a hop now."""
        now = self._clock.now()
        if self._store.writer.full:
            # What is delivered cannot be written down: nothing more goes out until it can.
            self.timers.at(now + LOOK_AGAIN, lambda: self.pool.kick(hop))
            return True
        return bool(self.paused) or self.draining or hop.backing_off(now)

    # -- endings -----------------------------------------------------------------------------------------------------

    def _ended(self, hop: NextHop, work: Work, ended: Ended) -> None:
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
            if len(hop.queue):
                self.pool.kick(hop)
        self._settle(work, ended)
        if hop.waiting:
            self._refill(hop)

    def _settle(self, work: Work, ended: Ended) -> None:
        self._settler.settle(work.message, work.plan, ended.results, self.note_due)
        self._forget(work.message, [r.ordinal for r, _, _ in ended.results])

    def _decided(self, work: Work, hop: NextHop) -> None:
        """A plan that does not deliver: settle it as it says. A deferral makes the domain back off."""
        ended = self._settler.decide(work)
        now = self._clock.now()
        if work.plan.outcome == "defer":
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
        names = {r.destination for r in work.recipients} | set(hop.waiting)
        for waiting in hop.queue.drain():
            names |= {r.destination for r in waiting.recipients}
            self._park(waiting)
        self.timers.at(hop.backoff_until, lambda: self._refill(hop))
        self.tasks.spawn(self._give_up_expired(names, work.plan, verdict))

    async def _give_up_expired(self, destinations: Iterable[str], plan: Plan, verdict: Verdict) -> None:
        """A hop that fails as a whole has failed for every due recipient: those past their expiry are given up."""
        for destination in destinations:
            more = True
            while more and not self.draining:
                found = await self._store.claim_expired(destination, EXPIRED_STEP)
                for message in found:
                    self._hold(message)
                    work = Work(message, message.recipients, plan)
                    self._settle(work, self._settler.shared(work, verdict))
                more = len(found) == EXPIRED_STEP

    def _park(self, work: Work) -> None:
        """Give work back to the database, untried; it is noted again when that is on disk."""
        message, recipients = work.message, work.recipients
        due = [(r.destination, r.due or 0.0) for r in recipients]
        self._store.park(message, recipients, lambda: self.note_due(due))
        self._forget(message, [r.ordinal for r in recipients])

    # -- the end -----------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Finish what is on a connection, at most `seconds`; park the rest. True if nothing is claimed any more."""
        self.draining = True
        for hop in self.pool.hops.values():
            self.pool.close_idle(hop)
            for work in hop.queue.drain():
                self._park(work)
        if self.tasks.running:
            await asyncio.wait(self.tasks.running, timeout=seconds)
        for task in self.tasks.running:
            task.cancel()
        if self.tasks.running:
            await asyncio.wait(self.tasks.running, timeout=1.0)
        for held in list(self.held.values()):
            left = [r for r in held.message.recipients if r.ordinal in held.left]
            self._store.park(held.message, left)
            self._forget(held.message, [r.ordinal for r in left])
        return not self.held

    # -- what others see ---------------------------------------------------------------------------------------------

    def claimed(self) -> list[tuple[int, int]]:
        """(message, ordinal) of everything handed over in memory."""
        return [(number, ordinal) for number, held in self.held.items() for ordinal in held.left]

    def active(self) -> frozenset[tuple[int, int]]:
        """Those of them on a connection now."""
        return frozenset(
            (work.message.id, r.ordinal)
            for hop in self.pool.hops.values()
            for work in hop.busy.values()
            for r in work.recipients
        )


def _key(plan: Plan, destination: str) -> str:
    """The next hop of a plan; a plan without one (no route, DNS trouble) has its domain's."""
    return plan.next_hop if plan.outcome == "deliver" else destination

"""The scheduler: what is handed over in memory, where it goes, and how it is settled.

A fresh message is handed over in memory; what is parked is claimed when it is due (claiming.py). Promises: everything
handed over is settled or parked again; memory depends on the connections and the hand-off budget, never on the queue.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mailtui.clock import Clock
from mailtui.config import Settings
from mailtui.delivery.attempt import Ended, Sender, Work
from mailtui.delivery.claiming import LOOK_AGAIN, Claims
from mailtui.delivery.controls import LIMIT, PAUSE, SUSPEND, Controls
from mailtui.delivery.handoff import Handoff
from mailtui.delivery.hop import MAX_REFUSED, NextHop, key_of
from mailtui.delivery.outages import Outages
from mailtui.delivery.pool import Pool, Tasks
from mailtui.delivery.settle import Settler
from mailtui.delivery.timers import Timers
from mailtui.events import Events
from mailtui.model import Message, Outcome, Plan, Recipient
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.store import Store

Rid = tuple[int, int]  # (message, ordinal)

# Recipients in one transaction (RFC 5321 section 4.5.3.1.8: every server takes 100).
MAX_RECIPIENTS = 100

# Recipients whose hop, and not their destination, is suspended are looked at again after this many seconds.
SUSPENDED_AGAIN = 30.0


class Scheduler:
    """One a relay. Give it what the store committed; `run` wakes what has come due; `drain` ends it."""

    def __init__(
        self, settings: Settings, clock: Clock, events: Events, store: "Store", router: Router, sender: Sender,
        settler: Settler,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.memory = Handoff()
        self.held, self.destinations = self.memory.held, self.memory.destinations
        self.draining = False
        self.tasks = Tasks()
        self.timers = Timers(clock)
        self.run = self.timers.run
        self.controls = Controls(clock, self.timers, store, self._control_changed)
        # What operators want of recipients that are on a connection, and who hears of settlements (operating.py).
        self.pending: dict[Rid, Any] = {}
        self.watching = False
        self.settled: Callable[[Rid, Outcome], None] = lambda rid, outcome: None
        self.act_on_parked: Callable[[Any, Rid], None] = lambda action, rid: None
        self.was_too_late: Callable[[Any], None] = lambda action: None
        # Who tells senders of delays hears of next hops that fail and work again (delays.py).
        self.hop_down: Callable[[NextHop, Work, Ended, Iterable[str]], None] = lambda hop, work, ended, waiting: None
        self.hop_up: Callable[[str], None] = lambda key: None
        self._clock = clock
        self._events = events
        self._store = store
        self._router = router
        self._settler = settler
        self.claims = Claims(self, clock, store, router)
        self.outages = Outages(self, clock, events, store, router, settler)
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
        if self.controls.paused or self.draining or not self.memory.has_room(message):
            return False
        if self.outages.hops and self.outages.concerns(message.recipients[0].destination):
            return False
        if self.controls.restricting and self._is_restricted(message):
            return False
        self.memory.hold(message)
        return True

    def committed(self, message: Message) -> None:
        """A message is on disk: deliver it, or note when it is due."""
        if message.claimed:
            message.alone = len(message.recipients) == 1
            self.dispatch(message)
        else:
            self.claims.note_due((r.destination, r.due) for r in message.recipients if r.due is not None)

    def dropped(self, message: Message) -> None:
        """A message that was admitted did not get on disk after all."""
        if message.claimed:
            self.memory.forget(message, [r.ordinal for r in message.recipients])

    def _is_restricted(self, message: Message) -> bool:
        """Whether a control holds back a destination of it, or suspends every next hop that it would go to."""
        if self.controls.restricts(r.destination for r in message.recipients):
            return True
        return bool(self.controls.all(SUSPEND)) and all(map(partial(self._stays, message), message.recipients))

    def _stays(self, message: Message, r: Recipient) -> bool:
        """Whether the next hop of this recipient is known, and suspended."""
        plan = self._router.cached(r.address, r.destination, message.envelope.sender, r.route)
        return plan is not None and self.controls.suspended(key_of(plan, r.destination)) is not None

    def use(self, settings: Settings, sender: Sender) -> None:
        """Work by a new configuration from now on; operators' limits stay."""
        self.settings = settings
        self.pool.use(sender, settings.delivery)
        for key, hop in self.pool.hops.items():
            limit = self.controls.get(LIMIT, key)
            self.pool.restrict(hop, limit.value if limit else {})

    def _control_changed(self, kind: str, name: str) -> None:
        """A pause, suspension or limit began or ended."""
        if kind == LIMIT:
            limit = self.controls.get(LIMIT, name)
            if name in self.destinations:
                self.destinations[name].rate = None
            hop = self.pool.hops.get(name)
            if hop is not None:
                self.pool.restrict(hop, limit.value if limit else {})
        for hop in list(self.pool.hops.values()):
            if self.controls.paused or self.controls.suspended(hop.key):
                self.pool.close_idle(hop)
            for work in hop.queue.drain():
                self._submit(work)
            if kind == PAUSE and not self.controls.paused:
                hop.window = 1.0  # the world starts again in waves
        if not self.controls.paused:
            for destination in list(self.destinations.values()):
                self.claims.pump(destination)

    def probe(self, key: str) -> None:
        """An operator wants a next hop tried now: its back-off is over, one message goes first."""
        hop = self.pool.hops.get(key)
        if hop is not None and hop.failures:
            hop.backoff_until = 0.0
            self.claims.refill(hop)

    # -- planning ----------------------------------------------------------------------------------------------------

    def dispatch(self, message: Message) -> None:
        """Give the recipients of a message to their next hops, those that share one together."""
        sender = message.envelope.sender
        planned: list[tuple[Plan, Recipient]] = []
        unplanned: dict[str, list[Recipient]] = {}
        for recipient in message.recipients:
            plan = self._router.cached(recipient.address, recipient.destination, sender, recipient.route)
            if plan is None:
                unplanned.setdefault(recipient.destination, []).append(recipient)
            else:
                planned.append((plan, recipient))
        for recipients in unplanned.values():
            self.tasks.spawn(self._plan(message, recipients))
        self._group(message, planned)

    async def _plan(self, message: Message, recipients: Sequence[Recipient]) -> None:
        """Recipients of one destination whose way is not known yet: the first look-up answers for the others."""
        sender = message.envelope.sender
        plans = [await self._router.plan(r.address, r.destination, sender, r.route) for r in recipients]
        self._group(message, list(zip(plans, recipients, strict=True)))

    def _group(self, message: Message, planned: Sequence[tuple[Plan, Recipient]]) -> None:
        """One transaction for those that go to one next hop (RFC 5321 section 4.5.4.1)."""
        groups: dict[str, tuple[Plan, list[Recipient]]] = {}
        for plan, recipient in planned:
            # A plan that does not deliver is settled for its own recipient: the reason names the domain.
            key = plan.next_hop if plan.outcome == "deliver" else recipient.destination + " " + plan.outcome
            groups.setdefault(key, (plan, []))[1].append(recipient)
        for plan, recipients in groups.values():
            for i in range(0, len(recipients), MAX_RECIPIENTS):
                self._submit(Work(message, recipients[i : i + MAX_RECIPIENTS], plan))

    def hop_of(self, plan: Plan, destination: str) -> NextHop:
        key = key_of(plan, destination)
        hop = self.pool.hops.get(key)
        if hop is None:
            hop = self.pool.hop(key)
            limit = self.controls.get(LIMIT, key)
            if limit is not None:
                self.pool.restrict(hop, limit.value)
        hop.plan = plan
        return hop

    def _submit(self, work: Work) -> None:
        """Put work on a connection, settle what no connection is needed for, or give it back."""
        hop = self.hop_of(work.plan, work.recipients[0].destination)
        now = self._clock.now()
        if self.pending or self.controls.all(SUSPEND):
            kept = [r for r in work.recipients if not self._is_wanted(work.message, r, hop)]
            if len(kept) < len(work.recipients):
                self.outages.park_for(
                    hop, work.message, [r for r in work.recipients if r not in kept], now + SUSPENDED_AGAIN
                )
                work.recipients = kept
                if not kept:
                    return
        if self.controls.paused or self.draining:
            self.park(work.message, work.recipients)
        elif hop.backing_off(now):
            self.outages.turn_away(hop, work)
        elif work.plan.outcome != "deliver":
            self._decided(work, hop)
        else:
            self.pool.submit(hop, work)

    def _is_wanted(self, message: Message, r: Recipient, hop: NextHop) -> bool:
        """Whether an operator wants it elsewhere than on a connection."""
        return (message.id, r.ordinal) in self.pending or self.controls.suspended(r.destination, hop.key) is not None

    def _stopped(self, hop: NextHop) -> bool:
        """Whether nothing new may go to a hop now."""
        now = self._clock.now()
        if self._store.writer.full:
            # What is delivered cannot be written down: nothing more goes out until it can.
            self.timers.at(now + LOOK_AGAIN, lambda: self.pool.kick(hop))
            return True
        return bool(self.controls.paused) or self.draining or hop.backing_off(now)

    # -- endings -----------------------------------------------------------------------------------------------------

    def _ended(self, hop: NextHop, work: Work, ended: Ended) -> None:
        """An attempt is over: the hop learns, the recipients are settled, and more is claimed."""
        now = self._clock.now()
        if ended.down is not None:
            if ended.down.rule == "greeting" and hop.sessions:
                # It works for others at this moment: it refuses this connection, not our mail.
                hop.refused(now)
                hop.last_reply = ended.down.reply
                work.refused += 1
                if work.refused <= MAX_REFUSED:
                    work.begun = 0.0
                    self._submit(work)
                    return
            else:
                self.outages.begun(hop, work, ended, now)
        elif ended.strained:
            hop.strained()
            hop.last_reply = ended.results[-1][1].reply
        else:
            hop.succeeded(now)
            hop.took(now - work.begun)
            if self.outages.hops:
                self.outages.over(hop)
            hop.last_reply = ended.results[-1][1].reply
            if len(hop.queue):
                self.pool.kick(hop)
        self.settle(work, ended, down=ended.down is not None and hop.failures > 0)
        if hop.waiting:
            self.claims.refill(hop)

    def settle(self, work: Work, ended: Ended, *, down: bool = False) -> None:
        """`down`: the next hop has failed, so that senders of late mail are told by `hop_down`, not one by one."""
        number = work.message.id
        wanted = {}
        if self.pending or self.watching:
            for r, verdict, _ in ended.results:
                self.settled((number, r.ordinal), verdict.outcome)
                action = self.pending.pop((number, r.ordinal), None)
                if action is not None:
                    wanted[(number, r.ordinal)] = (action, verdict.outcome)

        def committed(due: Sequence[tuple[str, float]]) -> None:
            for rid, (action, outcome) in wanted.items():
                if outcome is Outcome.DEFERRED:
                    self.act_on_parked(action, rid)
                else:
                    self.was_too_late(action)
            self.claims.note_due(due)

        self._settler.settle(work.message, work.plan, ended.results, committed, always=bool(wanted), warn=not down)
        self.memory.forget(work.message, [r.ordinal for r, _, _ in ended.results])

    def settle_unsent(self, work: Work, ended: Ended) -> None:
        """Settle claimed recipients that an operator gave up: they were never handed over."""
        self.memory.hold(work.message)
        self.settle(work, ended)

    def _decided(self, work: Work, hop: NextHop) -> None:
        """A plan that does not deliver: settle it as it says. A deferral makes the domain back off."""
        ended = self._settler.decide(work)
        now = self._clock.now()
        if work.plan.outcome == "defer":
            self.outages.begun(hop, work, ended, now)
        else:
            hop.succeeded(now)
            self.outages.over(hop)
        self.settle(work, ended, down=work.plan.outcome == "defer")
        if hop.waiting:
            self.claims.refill(hop)

    def park(self, message: Message, recipients: Sequence[Recipient]) -> None:
        """Give recipients back to the database, untried; they are noted again, or acted on, when that is on disk."""
        self._store.park(message, recipients, lambda: self.parked(message, recipients))
        self.memory.forget(message, [r.ordinal for r in recipients])

    def parked(self, message: Message, recipients: Sequence[Recipient]) -> None:
        """What was given back is on disk."""
        for r in recipients:
            action = self.pending.pop((message.id, r.ordinal), None)
            if action is not None:
                self.act_on_parked(action, (message.id, r.ordinal))
        self.claims.note_due([(r.destination, r.due or 0.0) for r in recipients])

    # -- the end -----------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> bool:
        """Finish what is on a connection, at most `seconds`; park the rest. True if nothing is claimed any more."""
        self.draining = True
        for hop in self.pool.hops.values():
            self.pool.close_idle(hop)
            for work in hop.queue.drain():
                self.park(work.message, work.recipients)
        if self.tasks.running:
            await asyncio.wait(self.tasks.running, timeout=seconds)
        for task in self.tasks.running:
            task.cancel()
        if self.tasks.running:
            await asyncio.wait(self.tasks.running, timeout=1.0)
        for held in list(self.held.values()):
            left = list(held.left.values())
            self._store.park(held.message, left)
            self.memory.forget(held.message, [r.ordinal for r in left])
        return not self.held

    @property
    def disk_full(self) -> bool:
        """Results cannot be written down now."""
        return self._store.writer.full

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

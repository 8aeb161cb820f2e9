"""Claims: when the first parked recipient of each destination is due, and how much of it is taken into memory when.

Promises: nothing is claimed for a next hop that has no room, backs off or is suspended, so that a dead domain with any
number of due recipients starves nobody; a destination that found no room is looked at again when its next hop has some.
"""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.delivery.controls import LIMIT
from mailtui.delivery.handoff import BUDGET_MESSAGES, Destination
from mailtui.delivery.hop import NextHop, Rate
from mailtui.model import Claimed, Control
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the scheduler and the store are objects that we are given
    from mailtui.delivery.scheduler import Scheduler
    from mailtui.queue.store import Store

# A full disk, or a claim that failed, is looked at again after this many seconds.
LOOK_AGAIN = 1.0


class Claims:
    """Claims for the scheduler, which dispatches what they bring."""

    def __init__(self, scheduler: "Scheduler", clock: Clock, store: "Store", router: Router) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._store = store
        self._router = router

    def note_due(self, parked: Iterable[tuple[str, float]]) -> None:
        """These destinations have something parked that is due then: at start, after a settlement, after an action."""
        for name, due in parked:
            self._due(name, due)

    def _due(self, name: str, due: float) -> None:
        destination = self._scheduler.memory.destination(name)
        if destination.claiming:
            # The claim under way may have looked before this was parked: its answer must not make us forget it.
            destination.later = due if destination.later is None else min(due, destination.later)
        elif destination.due is None or due < destination.due:
            destination.due = due
            if due <= self._clock.now():
                self.pump(destination)
            else:
                self._scheduler.timers.at(due, lambda: self.pump(destination))

    def refill(self, hop: NextHop) -> None:
        """The hop has room again: claim for the destination that has waited longest."""
        now = self._clock.now()
        for _ in range(len(hop.waiting)):
            if not hop.waiting or hop.room(now) <= 0:
                return
            name, _none = hop.waiting.popitem(last=False)
            destination = self._scheduler.destinations.get(name)
            if destination is not None:
                self.pump(destination)

    def pump(self, destination: Destination) -> None:
        """Claim what is due for a destination, if its next hop has room."""
        scheduler, now = self._scheduler, self._clock.now()
        if destination.due is None or destination.due > now or destination.claiming or destination.planning:
            return
        if scheduler.controls.paused or scheduler.draining:
            return
        if self._store.writer.full:
            scheduler.timers.at(now + LOOK_AGAIN, lambda: self.pump(destination))
            return
        plan = self._router.cached("", destination.name, "")
        if plan is None:
            destination.planning = True
            scheduler.tasks.spawn(self._plan_for(destination))
            return
        hop = scheduler.hop_of(plan, destination.name)
        if scheduler.controls.suspended(destination.name, hop.key):
            return  # resumed, it is looked at again
        room = min(hop.room(now), scheduler.memory.room())
        limit = scheduler.controls.get(LIMIT, destination.name)
        if limit is not None:
            room = min(room, self._within(limit, destination))
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
        self.pump(destination)

    def _claimed(self, destination: Destination, hop: NextHop, room: int, done: "asyncio.Future[Claimed]") -> None:
        scheduler = self._scheduler
        hop.claiming -= room
        if done.cancelled() or done.exception() is not None:
            destination.claiming = False
            later, destination.later = destination.later, None
            if later is not None and destination.due is not None:
                destination.due = min(later, destination.due)
            scheduler.timers.at(self._clock.now() + LOOK_AGAIN, lambda: self.pump(destination))
            return
        claimed = done.result()
        destination.cursor = claimed.cursor
        destination.due = None
        for message in claimed.messages:
            if scheduler.draining:
                self._store.park(message, message.recipients)
            else:
                scheduler.memory.hold(message)
                scheduler.dispatch(message)
        # Only now: the hop's room is what these have left of it.
        destination.claiming = False
        later, destination.later = destination.later, None
        for due in (claimed.next_due, later):
            if due is not None:
                self._due(destination.name, due)
        scheduler.memory.drop_idle(destination)

    def _within(self, limit: Control, destination: Destination) -> int:
        """How many messages more a limit allows a destination now."""
        value = limit.value
        room = int(value.get("concurrency") or BUDGET_MESSAGES) - destination.held
        if value.get("rate") and room > 0:
            if destination.rate is None:
                destination.rate = Rate(*value["rate"])
            wait = destination.rate.next(self._clock.monotonic()) - self._clock.monotonic()
            if wait > 0:
                self._scheduler.timers.at(self._clock.now() + wait, lambda: self.pump(destination))
                return 0
            destination.rate.reserve(self._clock.monotonic())
            room = 1
        return max(0, room)

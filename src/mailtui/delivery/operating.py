"""What operators may ask of delivery while it runs: withdraw, try now, pause, suspend, limit; and the end of a grace.

Promises: an action on a recipient that is on a connection waits for the end of the attempt and applies if it was not
delivered; what leaves the queue by an operator's word leaves when its grace ends, with its report if it was bounced.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from mailtui.clock import Clock
from mailtui.delivery import standing
from mailtui.delivery.attempt import Ended, Work
from mailtui.delivery.controls import DELIVERY, INTAKE, LIMIT, PAUSE, SUSPEND
from mailtui.delivery.hop import NextHop
from mailtui.delivery.scheduler import Rid, Scheduler
from mailtui.delivery.trynow import TryNow, by_hop
from mailtui.events import Events
from mailtui.model import Attempt, Outcome, Plan, Verdict, Withdrawn
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the store is an object that the relay gives us
    from mailtui.queue.actions import Acted, Action, Leaving
    from mailtui.queue.store import Store

# Recipients whose grace has ended that are taken out in one step: of a million, about 10 ms of the writer to claim
# them, and as much again to write down what became of them with their reports.
LEAVING_STEP = 10

# After a step the traffic has the writer for as long as the step took, at most this long, in seconds: who has been
# given up is in no hurry.
MOST_REST = 0.1

# A step that could not be written is tried again after this many seconds.
LOOK_AGAIN = 5.0


class Operating:
    """The operators' side of the scheduler. `action(verb, operation)` makes an action of the store."""

    def __init__(
        self, scheduler: Scheduler, store: "Store", router: Router, clock: Clock, events: Events, action: Any
    ) -> None:
        self._scheduler = scheduler
        self._store = store
        self._router = router
        self._clock = clock
        self._events = events
        self._action = action
        self._leaving = False
        self._trying = TryNow(events, self._retry, scheduler.claims.note_due, scheduler.probe)
        scheduler.act_on_parked = self._act_on_parked
        scheduler.was_too_late = self._too_late
        scheduler.settled = self._trying.settled

    # -- recipients --------------------------------------------------------------------------------------------------

    async def withdraw(self, action: "Action", rids: Sequence[Rid]) -> Withdrawn:
        """Claimed recipients: those that wait in memory go back to the database, and `action` is done to them right
        behind that, before anybody can claim them again; for those on a connection (or being planned) it is done when
        the attempt ends undelivered. What is not in memory any more is acted on too: that shows whether it is there."""
        scheduler = self._scheduler
        waiting: dict[Rid, tuple[NextHop, Work]] = {
            (work.message.id, r.ordinal): (hop, work)
            for hop in scheduler.pool.hops.values()
            for work in hop.queue.all()
            for r in work.recipients
        }
        parked, pending = [], []
        for rid in rids:
            held = scheduler.held.get(rid[0])
            if held is None or rid[1] not in held.left:
                parked.append(rid)
            elif rid in waiting:
                hop, work = waiting[rid]
                gone = [r for r in work.recipients if r.ordinal == rid[1]]
                work.recipients = [r for r in work.recipients if r.ordinal != rid[1]]
                if not work.recipients:
                    hop.queue.remove(work)
                scheduler.park(work.message, gone)
                parked.append(rid)
            else:
                scheduler.pending[rid] = action
                pending.append(rid)
        # In the writer's line directly behind the parkings: a claim that these make possible comes after it.
        return Withdrawn(await self._store.act(action, parked), pending)

    def _act_on_parked(self, action: "Action", rid: Rid) -> None:
        """An attempt ended undelivered (or never began): now the operator's action."""
        self._scheduler.tasks.spawn(self._act(action, rid))

    async def _act(self, action: "Action", rid: Rid) -> None:
        acted = await self._store.act(action, [rid])
        if action.operation:
            await self._store.progress(action.operation, pending=-1)
        self._scheduler.claims.note_due(acted.due.items())
        if action.leaves is not None:
            self.note_leaving(action.leaves)

    def _too_late(self, action: "Action") -> None:
        if action.operation:
            self._scheduler.tasks.spawn(self._note_too_late(action.operation))

    async def _note_too_late(self, operation: int) -> None:
        await self._store.progress(operation, delivered_before=1, pending=-1)

    # -- try now -----------------------------------------------------------------------------------------------------

    async def try_now(
        self, rids: Sequence[Rid], operation: int, all_at_once: bool, over: Callable[[], None] = lambda: None
    ) -> None:
        """A canary for each next hop, or everything; the waves after it run by themselves. `over` is called when the
        last of them is due, or none is to come."""
        hops: dict[Rid, str] = {}
        for i in range(0, len(rids), 1000):
            some = rids[i : i + 1000]
            rows = await self._store.scan(lambda reader, some=some: reader.rows_of(some, frozenset()))  # type: ignore[misc]
            for rid, row in zip(some, rows, strict=True):
                if row is not None and not self._scheduler.controls.suspended(row.destination):
                    hops[rid] = await self._hop_of(row.recipient, row.destination, row.sender, row.target)
        self._scheduler.watching = True
        left = 1  # this call, and a task for each next hop whose waves go on

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                over()

        async def go_on(work: Coroutine[Any, Any, None]) -> None:
            try:
                await work
            finally:
                ended()

        try:
            for hop, group in by_hop(rids, hops).items():
                if self._scheduler.controls.suspended(hop):
                    continue
                wave = await self._trying.first(hop, group, operation, all_at_once)
                if not all_at_once and len(group) > 1:
                    left += 1
                    self._scheduler.tasks.spawn(go_on(self._trying.rest(hop, group, operation, wave)))
        finally:
            ended()

    async def _hop_of(self, address: str, destination: str, sender: str, target: str) -> str:
        plan = await self._router.plan(address, destination, sender, target)
        return plan.next_hop if plan.outcome == "deliver" else destination

    def _retry(self, rids: Sequence[Rid], operation: int) -> "asyncio.Future[Acted]":
        return self._store.act(self._action("retry", operation), list(rids))

    # -- leaving -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """At start: when the next grace ends."""
        at = await self._store.next_leaving()
        if at is not None:
            self.note_leaving(at)

    def note_leaving(self, at: float) -> None:
        """A grace ends then."""
        self._scheduler.timers.at(at, self._grace_over)

    def _grace_over(self) -> None:
        if not self._leaving and not self._scheduler.draining:
            self._leaving = True
            self._scheduler.tasks.spawn(self._take_out())

    async def _take_out(self) -> None:
        """Settle what has left, step by step, beside the traffic."""
        try:
            while True:
                begun = self._clock.monotonic()
                found = await self._store.claim_leaving(LEAVING_STEP)
                for leaving in found:
                    self._settle(leaving)
                    await asyncio.sleep(0)  # a report is a millisecond of work: other mail goes between two
                if not found:
                    break
                await self._store.writer.call(lambda tx: None)  # settled, with the reports, before the next step
                rest = min(MOST_REST, self._clock.monotonic() - begun)
                await asyncio.sleep(rest)
        except Exception as error:  # a full disk, say; a grace that has ended is no hurry
            self._events.emit("error", text=f"what leaves the queue waits: {error}", level="warning")
            self.note_leaving(self._clock.now() + LOOK_AGAIN)
        finally:
            self._leaving = False
        await self.start()

    def _settle(self, leaving: "Leaving") -> None:
        message = leaving.message
        reason = leaving.reason or "given up by the postmaster"
        if leaving.verb == "bounce":
            verdict = Verdict(Outcome.BOUNCED, 0, "5.0.0", reason, rule="operator")
        else:
            verdict = Verdict(Outcome.DELIVERED, 0, "", reason, rule="discard")
        now = self._clock.now()
        attempt = Attempt(now, 0.0)  # no attempt: the report says no Last-Attempt-Date
        plan = Plan(message.recipients[0].destination, "", "deliver", "none")
        self._scheduler.settle_unsent(
            Work(message, message.recipients, plan), Ended([(r, verdict, attempt) for r in message.recipients])
        )

    # -- destinations ------------------------------------------------------------------------------------------------

    async def pause(self, what: str, until: float | None, reason: str, who: str) -> None:
        """Stop delivery, intake, or all."""
        for name in (DELIVERY, INTAKE) if what == "all" else (what,):
            await self._scheduler.controls.set(PAUSE, name, until=until, reason=reason, who=who)

    async def resume(self, who: str) -> None:
        """Go on; delivery starts again with one connection a next hop."""
        for name in (DELIVERY, INTAKE):
            await self._scheduler.controls.unset(PAUSE, name)

    async def suspend(self, name: str, until: float | None, reason: str, who: str) -> None:
        """Stop a destination or a next hop."""
        await self._scheduler.controls.set(SUSPEND, name, until=until, reason=reason, who=who)

    async def unsuspend(self, name: str, who: str) -> bool:
        return await self._scheduler.controls.unset(SUSPEND, name)

    async def limit(self, name: str, concurrency: int | None, rate: tuple[int, float] | None, who: str) -> None:
        """Limit connections or messages a time; neither takes the limit back."""
        if concurrency is None and rate is None:
            await self._scheduler.controls.unset(LIMIT, name)
        else:
            value = {"concurrency": concurrency, "rate": list(rate) if rate else None}
            await self._scheduler.controls.set(LIMIT, name, who=who, value=value)

    async def destinations(self, by: str, names: Collection[str] | None = None, most: int = 0) -> list[dict[str, Any]]:
        """What delivery knows, a dict each: of every next hop in use, or every destination with something waiting; with
        `names` of these destinations, and of at most `most` others that are not `ok`."""
        now = self._clock.now()
        if by == "hop":
            return await standing.of_hops(self._scheduler, self._router, now)
        return await standing.of_domains(self._scheduler, self._router, now, names, most)

    async def suspended(self) -> set[str]:
        """Every suspended destination and next hop, and the destinations that go to such a hop."""
        return await standing.suspended(self._scheduler, self._router)

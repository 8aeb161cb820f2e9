"""Next hops that fail as a whole: what waits for them is given back, and what has expired is given up.

Promises: nothing is tried while its next hop backs off, and nothing of it is looked at again before; a next hop speaks
only for what goes there: a route for a sender or an address that is dead holds up no other mail of the domain.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.delivery.attempt import Ended, Work
from mailtui.delivery.hop import NextHop, key_of
from mailtui.delivery.settle import Settler
from mailtui.events import Events
from mailtui.model import Attempt, Message, Plan, Recipient, Verdict
from mailtui.routing.router import Router

if TYPE_CHECKING:  # the scheduler and the store are objects that we are given
    from mailtui.delivery.scheduler import Scheduler
    from mailtui.queue.store import Store

# Expired recipients of a dead next hop that are given up in one step.
EXPIRED_STEP = 200


class Outages:
    """The next hops that failed last (`hops`, by key), and what is done about their mail."""

    def __init__(
        self, scheduler: "Scheduler", clock: Clock, events: Events, store: "Store", router: Router, settler: Settler
    ) -> None:
        self.hops: set[str] = set()
        self._scheduler = scheduler
        self._clock = clock
        self._events = events
        self._store = store
        self._router = router
        self._settler = settler

    def concerns(self, destination: str) -> bool:
        """Whether the next hop of a destination is one of them."""
        plan = self._router.cached("", destination, "")
        hop = self._scheduler.pool.hops.get(key_of(plan, destination)) if plan is not None else None
        return hop is not None and hop.failures > 0

    def begun(self, hop: NextHop, work: Work, ended: Ended, now: float) -> None:
        """The next hop cannot be reached: back off, give back what waits for it, give up what has expired."""
        scheduler = self._scheduler
        verdict = ended.down or ended.results[0][1]
        first = not hop.failures
        hop.failed(now, verdict)
        self.hops.add(hop.key)
        if first:
            self._events.emit("next-hop-down", next_hop=hop.key, text=verdict.reply, level="warning")
        names = {r.destination for r in work.recipients} | set(hop.waiting)
        for waiting in hop.queue.drain():
            names |= {r.destination for r in waiting.recipients}
            self.turn_away(hop, waiting)
        names = {name for name in names if self._is_the_way_of(name, hop)}
        scheduler.timers.at(hop.backoff_until, lambda: scheduler.claims.refill(hop))
        scheduler.tasks.spawn(self._give_up_expired(names, work.plan, verdict, ended.results[-1][2]))
        scheduler.hop_down(hop, work, ended, names)

    def over(self, hop: NextHop) -> None:
        """It works."""
        if hop.key in self.hops:
            self.hops.discard(hop.key)
            self._scheduler.hop_up(hop.key)

    def turn_away(self, hop: NextHop, work: Work) -> None:
        """Work for a hop that backs off: it waits; what only claims for other hops would find, and has expired when
        the hop failed, is given up by that failure."""
        failure = hop.last_failure
        over: list[Recipient] = []
        if failure is not None:
            over = [r for r in work.recipients if r.expires <= hop.backoff_since]
            over = [r for r in over if not self._is_the_way_of(r.destination, hop)]
            if over:
                self._scheduler.settle(work, self._settler.shared(Work(work.message, over, work.plan), failure))
        left = [r for r in work.recipients if r not in over]
        if left:
            self.park_for(hop, work.message, left, hop.backoff_until)

    def park_for(self, hop: NextHop, message: Message, recipients: Sequence[Recipient], until: float) -> None:
        """Park what its hop cannot take before `until`. Claims for a destination do not know of a hop that is the way
        of some of its recipients only: these are not due before."""
        for r in recipients:
            if not self._is_the_way_of(r.destination, hop):
                r.due = max(r.due or 0.0, until)
        self._scheduler.park(message, recipients)

    def _is_the_way_of(self, destination: str, hop: NextHop) -> bool:
        """Whether mail for a destination goes there by itself: claims wait for this hop. Else only some of it does (a
        route for an address or a sender, a target that an operator gave)."""
        plan = self._router.cached("", destination, "")
        return plan is None or key_of(plan, destination) == hop.key

    async def _give_up_expired(
        self, destinations: Iterable[str], plan: Plan, verdict: Verdict, attempt: Attempt
    ) -> None:
        """A hop that fails as a whole has failed for every due recipient: those past their expiry are given up."""
        scheduler = self._scheduler
        for destination in destinations:
            more = True
            while more and not scheduler.draining:
                try:
                    found = await self._store.claim_expired(destination, EXPIRED_STEP)
                except Exception as error:  # a full disk, say: the hop's next failure comes here again
                    self._events.emit("error", text=f"{destination}: what has expired waits: {error}", level="warning")
                    return
                for message in found:
                    scheduler.memory.hold(message)
                    work = Work(message, message.recipients, plan)
                    scheduler.settle(work, self._settler.shared(work, verdict, attempt))
                more = bool(found)

"""The connections: who carries what, how many there may be, and what happens when one is free again.

A worker is one connection's life: messages one after the other, then a wait for more, then QUIT. Promises: never more
connections than the next hop's window and the relay's limit allow; nothing new goes out while delivery is stopped;
where all connections are in use, a next hop that has more than its share gives some to those that have none.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mailtui.clock import Clock
from mailtui.delivery.attempt import Ended, Sender, Work, attempt
from mailtui.delivery.client import Session
from mailtui.delivery.hop import IDLE, MAX_TRANSACTIONS, IdleConnection, NextHop, Rate
from mailtui.settings import DeliverySettings

# A next hop that has had nothing to do for this long is forgotten, with its window and health.
FORGET_AFTER = 3600.0


class Tasks:
    """Background tasks; one that fails ends the relay."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[Any]] = set()
        self.on_fatal: Callable[[BaseException], None] = lambda error: None

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_fatal(error)


class Pool:
    """All next hops and their connections. `stopped(hop)` says whether nothing new may go to a hop now; `ended` is told
    of every attempt."""

    def __init__(
        self,
        clock: Clock,
        sender: Sender,
        tasks: Tasks,
        *,
        connections: int,
        concurrency: int,
        rate: tuple[int, float] | None,
        stopped: Callable[[NextHop], bool],
        ended: Callable[[NextHop, Work, Ended], None],
    ) -> None:
        self.hops: OrderedDict[str, NextHop] = OrderedDict()
        self.connections = 0
        self.limit = connections
        self._clock = clock
        self.sender = sender
        self._tasks = tasks
        self._concurrency = concurrency
        self._rate = rate
        self._stopped = stopped
        self._ended = ended
        self._numbers = itertools.count()
        self._starved: OrderedDict[str, None] = OrderedDict()  # hops that wait for one of all connections
        self._working = 0  # hops that have one

    def use(self, sender: Sender, delivery: DeliverySettings) -> None:
        """Work by these settings from now on; the caller restricts the hops anew."""
        self.sender = sender
        self.limit, self._concurrency, self._rate = delivery.connections, delivery.concurrency, delivery.rate

    def hop(self, key: str) -> NextHop:
        hop = self.hops.get(key)
        if hop is None:
            hop = self.hops[key] = NextHop(key, self._concurrency, self._rate)
        return hop

    def submit(self, hop: NextHop, work: Work) -> None:
        """Put work on a connection, or in line for one."""
        if hop.idle:
            hop.idle.pop().work.set_result(work)
        elif hop.may_open() and self._may_connect(hop):
            self._connect(hop, work)
        else:
            hop.queue.push(work)

    def kick(self, hop: NextHop) -> None:
        """Something that held the hop back is over: its line moves on."""
        while len(hop.queue) and (hop.idle or hop.may_open()):
            if not hop.idle and not self._may_connect(hop):
                return
            work = self._next(hop)
            if work is None:
                return
            if hop.idle:
                hop.idle.pop().work.set_result(work)
            else:
                self._connect(hop, work)

    def restrict(self, hop: NextHop, value: Mapping[str, Any]) -> None:
        """An operator's limit for a next hop; nothing in it means the configuration's."""
        hop.limit = int(value.get("concurrency") or self._concurrency)
        hop.window = min(hop.window, float(hop.limit))
        rate = value.get("rate") or self._rate
        hop.rate = Rate(*rate) if rate else None

    def forget_idle(self) -> None:
        """Called now and then: next hops with nothing to do for an hour."""
        limit = self._clock.now() - FORGET_AFTER
        for key, hop in list(self.hops.items()):
            used = hop.workers or len(hop.queue) or hop.claiming or hop.waiting
            if not used and max(hop.last_success or 0.0, hop.backoff_until) < limit:
                del self.hops[key]

    def close_idle(self, hop: NextHop) -> None:
        """Let its idle connections end."""
        for connection in hop.idle:
            if not connection.work.done():
                connection.work.set_result(None)
        hop.idle.clear()

    def _may_connect(self, hop: NextHop) -> bool:
        """Whether one more connection may be open in all; an idle one elsewhere makes place."""
        if self.connections < self.limit:
            return True
        for other in self.hops.values():
            if other is not hop and other.idle:
                other.idle.pop(0).work.set_result(None)
                break
        self._starved[hop.key] = None
        return False

    def _connect(self, hop: NextHop, work: Work) -> None:
        """One connection more, with this to begin with."""
        self._working += not hop.workers
        hop.workers += 1
        hop.starting += 1
        self.connections += 1
        self._tasks.spawn(self._worker(hop, work))

    async def _worker(self, hop: NextHop, work: Work | None) -> None:
        number = next(self._numbers)
        hop.starting -= 1
        session: Session | None = None
        try:
            while work is not None:
                await self._respect_rate(hop)
                work.begun = self._clock.now()
                hop.busy[number] = work
                try:
                    ended = await attempt(self.sender, work, session)
                finally:
                    del hop.busy[number]
                if (ended.session is None) is not (session is None):
                    hop.sessions += 1 if session is None else -1
                session = ended.session
                self._ended(hop, work, ended)
                if session is not None and session.used >= MAX_TRANSACTIONS:
                    self._tasks.spawn(session.quit())
                    session = None
                    hop.sessions -= 1
                    if self._starved:
                        break  # a line without end keeps its connection no longer than this
                work = self._next(hop)
                if work is None and session is not None and self._may_rest(hop):
                    work = await self._idle(hop, session)
            if session is not None:
                await session.quit()
        finally:
            if session is not None:
                session.close()
                hop.sessions -= 1
            hop.workers -= 1
            self._working -= not hop.workers
            self.connections -= 1
            self._released(hop)

    def _next(self, hop: NextHop) -> Work | None:
        if self._stopped(hop) or hop.workers > max(1, int(hop.window)):
            return None
        if self._starved and hop.workers > max(1, self.limit // (self._working + len(self._starved))):
            return None  # its connection ends, and goes to one that waits
        return hop.queue.pop()

    def _may_rest(self, hop: NextHop) -> bool:
        """Whether a connection without work is kept."""
        return hop.workers <= hop.window and not self._starved and not self._stopped(hop)

    async def _idle(self, hop: NextHop, session: Session) -> Work | None:
        """Wait for work, at most IDLE seconds; the latest idle connection is used first, the oldest go first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Work | None] = loop.create_future()
        hop.idle.append(IdleConnection(session, loop.time(), future))
        if not hop.reaping:
            hop.reaping = True
            loop.call_later(IDLE, self._reap, loop, hop)
        return await future

    def _reap(self, loop: asyncio.AbstractEventLoop, hop: NextHop) -> None:
        """Connections that were idle for long enough end: one timer a hop, not one a message."""
        limit = loop.time() - IDLE
        while hop.idle and hop.idle[0].since <= limit:
            hop.idle.pop(0).work.set_result(None)
        hop.reaping = bool(hop.idle)
        if hop.reaping:
            loop.call_later(hop.idle[0].since - limit, self._reap, loop, hop)

    async def _respect_rate(self, hop: NextHop) -> None:
        if hop.rate is not None:
            wait = hop.rate.reserve(self._clock.monotonic()) - self._clock.monotonic()
            if wait > 0:
                hop.rate_until = self._clock.now() + wait
                await self._clock.sleep_until(hop.rate_until)

    def _released(self, hop: NextHop) -> None:
        """A connection is gone: whoever waits for one may have it, those that wait for the relay's limit first."""
        for key in (*self._starved, hop.key):
            self._starved.pop(key, None)
            other = self.hops.get(key)
            if other is not None:
                self.kick(other)

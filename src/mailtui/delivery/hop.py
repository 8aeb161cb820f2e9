"""A next hop: its window, rate, back-off and health, what waits for it in memory, and its open connections.

Promises: fresh mail before retried, round-robin over submitters within each; after a failure of the hop itself nothing
is dialled until the back-off ends, then one message goes first.

The window is how many connections there may be. It grows by one for every window of successes (faster while it is
large and nothing ever went wrong), and shrinks by one for every session that the hop ends. It does not swing: after a
shrink a whole window must succeed before it grows again, and where the hop refused one connection more beside others
that work, it has told its limit: that many are not exceeded for five minutes, doubled each time it says so again.
"""

import asyncio
from collections import OrderedDict, deque

from mailtui.delivery.attempt import Work
from mailtui.delivery.client import Session
from mailtui.model import Plan, State, Verdict

# Concurrency to a hop that we know nothing about yet; what Postfix found (SCHEDULER_README).
FIRST_WINDOW = 5.0

# How far ahead work is claimed for a hop, in multiples of its window: enough to keep its connections busy while the
# next claim commits, little enough to be given back quickly.
AHEAD = 4

# A hop that could not be reached is left alone this long (doubled each time, up to the last); then one message probes.
BACKOFF_FIRST = 30.0
BACKOFF_LAST = 900.0

# A number of connections that the hop refused to exceed is not tried again for this long; doubled each time it is
# refused again, up to the last: a limit is the operator's over there, and every try costs him a line in his log.
CEILING_FIRST = 300.0
CEILING_LAST = 3600.0

# Work that was refused a connection of its own, while others work, goes back in line this often; then it is deferred.
MAX_REFUSED = 2

# A hop is called slow when a message takes it this long, in seconds: elsewhere even a scan of the content takes three.
SLOW = 30.0

# An idle connection is kept this long: long enough for a trickle of mail, shorter than servers' patience.
IDLE = 5.0

# A connection carries this many messages and is replaced then, so that load balancers see us again.
MAX_TRANSACTIONS = 1000


def key_of(plan: Plan, destination: str) -> str:
    """The next hop of a plan; a plan without one (no route, DNS trouble) has its domain's."""
    return plan.next_hop if plan.outcome == "deliver" else destination


class FairQueue:
    """Work in memory: fresh before retried, round-robin over submitters."""

    def __init__(self) -> None:
        self._lanes: tuple[OrderedDict[str, deque[Work]], ...] = (OrderedDict(), OrderedDict())
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, work: Work) -> None:
        first = work.recipients[0]
        lane = self._lanes[0 if first.state is State.QUEUED else 1]
        waiting = lane.get(first.submitter)
        if waiting is None:
            waiting = lane[first.submitter] = deque()
        waiting.append(work)
        self._length += 1

    def pop(self) -> Work | None:
        for lane in self._lanes:
            if lane:
                submitter, waiting = next(iter(lane.items()))
                work = waiting.popleft()
                if waiting:
                    lane.move_to_end(submitter)
                else:
                    del lane[submitter]
                self._length -= 1
                return work
        return None

    def all(self) -> list[Work]:
        """Everything, in no order; it stays."""
        return [work for lane in self._lanes for waiting in lane.values() for work in waiting]

    def remove(self, work: Work) -> None:
        """Take out work that is not wanted any more."""
        for lane in self._lanes:
            for submitter, waiting in lane.items():
                if work in waiting:
                    waiting.remove(work)
                    self._length -= 1
                    if not waiting:
                        del lane[submitter]
                    return

    def drain(self) -> list[Work]:
        """Everything, taken out."""
        found = []
        while (work := self.pop()) is not None:
            found.append(work)
        return found


class Rate:
    """`COUNT/PERIOD` messages: they are spread evenly, and after a pause a tenth of them may go at once."""

    def __init__(self, count: int, period: float) -> None:
        self._interval = period / count
        self._burst = max(1.0, count / 10) * self._interval
        self._next = 0.0

    def next(self, monotonic: float) -> float:
        """The moment (monotonic) at which the next message may go."""
        return max(self._next, monotonic - self._burst + self._interval)

    def reserve(self, monotonic: float) -> float:
        """As `next`; the moment is taken."""
        at = self.next(monotonic)
        self._next = at + self._interval
        return at


class IdleConnection:
    """A connection waiting for work: its worker sleeps on `work`."""

    __slots__ = ("session", "since", "work")

    def __init__(self, session: Session, since: float, work: "asyncio.Future[Work | None]") -> None:
        self.session = session
        self.since = since
        self.work = work


class NextHop:
    """The state of one next hop. The scheduler acts; this only knows."""

    def __init__(self, key: str, limit: int, rate: tuple[int, float] | None) -> None:
        self.key = key
        self.limit = limit
        self.plan: Plan | None = None  # the latest one seen
        self.window = min(FIRST_WINDOW, float(limit))
        self.queue = FairQueue()
        self.busy: dict[int, Work] = {}  # by worker number: what is on a connection now
        self.idle: list[IdleConnection] = []  # the longest idle first
        self.reaping = False  # a timer will end those that are idle for too long
        self.workers = 0
        self.sessions = 0  # of these, how many have had a message answered and are open still
        self.claiming = 0  # messages being claimed for it
        self.starting = 0  # connections that have their first message but do not run yet
        self.waiting: OrderedDict[str, None] = OrderedDict()  # destinations with parked work that is due
        self.failures = 0  # in a row
        self.backoff_until = 0.0  # wall time
        self.backoff_since = 0.0
        self.last_failure: Verdict | None = None
        self.last_reply = ""
        self.last_success: float | None = None
        self.rate = Rate(*rate) if rate else None
        self.rate_until = 0.0
        self.seconds = 0.0  # that a message takes, smoothed
        self._owed = 0  # successes before the window grows again
        self._ceiling = 0.0  # the window at which the hop refused more, 0 for none
        self._ceiling_until = 0.0  # wall time
        self._ceiling_for = 0.0

    def backing_off(self, now: float) -> bool:
        return self.backoff_until > now

    def room(self, now: float) -> int:
        """How many more messages may be claimed for it."""
        here = len(self.queue) + len(self.busy) + self.starting + self.claiming
        if self.backing_off(now):
            return 0
        if self.failures:
            return 1 if not here else 0
        return max(0, int(self.window) * AHEAD - here)

    def may_open(self) -> bool:
        """Whether the window has room for another connection."""
        return self.workers < (1 if self.failures else int(self.window))

    def succeeded(self, now: float) -> None:
        """A message was answered: the window grows by one for every window of successes."""
        if self.failures:
            self.failures = 0
            self.last_failure = None
            self.backoff_until = 0.0
        self.last_success = now
        if self._owed:
            self._owed -= 1
        elif self.window < self.limit:
            step = max(1.0 / self.window, 0.2)
            if self._ceiling and now < self._ceiling_until:
                step = min(step, self._ceiling - self.window)
            if step > 0.0:
                self.window = min(float(self.limit), self.window + step)

    def strained(self) -> None:
        """A session was ended by the other side: one connection less, and a window of successes before there is one
        more."""
        self.window = max(1.0, self.window - 1.0)
        self._owed = int(self.window)

    def refused(self, now: float) -> None:
        """A connection was refused while others work: without it, it takes as many as there are, and no more."""
        again = self._ceiling and self.window < self._ceiling + 2.0
        self._ceiling_for = min(CEILING_LAST, self._ceiling_for * 2) if again else CEILING_FIRST
        self.window = self._ceiling = float(max(1, min(int(self.window), self.workers) - 1))
        self._ceiling_until = now + self._ceiling_for
        self._owed = int(self.window)

    def took(self, seconds: float) -> None:
        """How long a message was on a connection."""
        self.seconds += (seconds - self.seconds) / 8

    def slowness(self, now: float) -> str:
        """Why it is called slow, "" if it is not."""
        begun = min((work.begun for work in self.busy.values() if work.begun), default=now)
        if now - begun >= SLOW and now - begun > self.seconds:
            return f"a message has been on a connection for {now - begun:.0f} s"
        return f"a message takes {self.seconds:.0f} s" if self.seconds >= SLOW else ""

    def failed(self, now: float, verdict: Verdict) -> None:
        """No session could be had: back off."""
        self.window = 1.0
        self._owed = 0
        self._ceiling = 0.0  # what it refused before may have been the beginning of this
        self.last_failure = verdict
        self.last_reply = verdict.reply
        if self.backing_off(now):
            return  # connections that were dialled together fail together: that is one failure
        self.failures += 1
        self.backoff_since = now
        self.backoff_until = now + min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(self.failures - 1, 10))

"""Time, passed to every room so that tests can set it.

Promises: `now()` is wall time in seconds since the epoch, `monotonic()` never goes back, `sleep_until()` waits for a
wall time. Nothing else in the project reads the time of day; SQL gets it as a parameter.
"""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """What a room may ask about time. All values are float seconds."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...
    async def sleep_until(self, when: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    # A sleeper looks at the wall clock again at least this often, so that a step of the clock (NTP, a resumed
    # machine) is noticed within a minute instead of at the end of a wait of hours.
    RECHECK = 60.0

    async def sleep_until(self, when: float) -> None:
        """Return when wall time has reached `when`; at once if it is past."""
        while (left := when - self.now()) > 0:  # noqa: ASYNC110 - time itself is what is waited for
            await asyncio.sleep(min(left, self.RECHECK))


class ManualClock:
    """A clock that stands still until a test moves it: both times advance together, sleepers wake in order."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (when, next(self._count), future))
        await future

    def advance(self, seconds: float) -> None:
        """Move time on and wake every sleeper whose moment has come."""
        self._now += seconds
        while self._sleepers and self._sleepers[0][0] <= self._now:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)


def rfc3339(when: float | None) -> str | None:
    """A moment as the contract prints it: RFC 3339, UTC, milliseconds; None stays None."""
    if when is None:
        return None
    second, milliseconds = divmod(round(when * 1000), 1000)
    return f"{_second(second)}.{milliseconds:03}Z"


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    """The part of a moment that many events share."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")

"""Deadlines for everything that waits for a remote host.

Promises: a timer costs the hot path one attribute; a deadline is noticed within a second of the relay's clock.
"""

from typing import Protocol

from mailtui.clock import Clock

# How often deadlines are looked at, in seconds: RFC 5321's are minutes, the configured connect time-out 30 s.
TICK = 1.0


class Waiting(Protocol):
    deadline: float  # of the clock's monotonic time; infinity while nothing is waited for

    def overdue(self) -> None: ...


class Watchdog:
    """Looks at all open sessions once a second."""

    def __init__(self, clock: Clock) -> None:
        self.watched: set[Waiting] = set()
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self._clock.sleep_until(self._clock.now() + TICK)
            now = self._clock.monotonic()
            for waiting in [w for w in self.watched if w.deadline <= now]:
                waiting.overdue()

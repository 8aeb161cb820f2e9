"""Things to be done at a wall time: one heap, one sleeper."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from mailtui.clock import Clock


class Timers:
    """`at` a moment, `act` is called on the loop. `run` is the sleeper; it never ends."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._wake = asyncio.Event()

    def at(self, when: float, act: Callable[[], None]) -> None:
        first = self._heap[0][0] if self._heap else None
        heapq.heappush(self._heap, (when, next(self._numbers), act))
        if first is None or when < first:
            self._wake.set()

    async def run(self) -> None:
        while True:
            now = self._clock.now()
            while self._heap and self._heap[0][0] <= now:
                heapq.heappop(self._heap)[2]()
            self._wake.clear()
            if not self._heap:
                await self._wake.wait()
                continue
            if self._heap[0][0] <= self._clock.now():
                continue  # what was called just now asked for more
            sleeping = asyncio.ensure_future(self._clock.sleep_until(self._heap[0][0]))
            waking = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                waking.cancel()

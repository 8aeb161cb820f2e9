"""Try now: one canary per next hop first, then waves of 2, 4, 8 ..., stopping at a next hop that refuses.

Promises: a wave is made due only when the one before it has ended; attempt counts and expiry are not touched (the
store's `retry` does that); nothing is walked but the recipients that were asked for.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailtui.events import Events
from mailtui.model import Outcome

if TYPE_CHECKING:
    from mailtui.queue.actions import Acted

Rid = tuple[int, int]

# Recipients made due in one commit; also the largest wave.
STEP = 1000

# A wave that has not ended after this long (a hop behind its window, a slow server) no longer holds the next one up.
PATIENCE = 120.0


@dataclass(eq=False)
class _Wave:
    """Recipients that were made due together, and how they fared."""

    left: set[Rid]
    delivered: int = 0
    refused: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class TryNow:
    """Runs the waves. `act` makes recipients due on disk, `note_due` tells the scheduler, `probe` ends a back-off."""

    def __init__(
        self,
        events: Events,
        act: Callable[[Sequence[Rid], int], "asyncio.Future[Acted]"],
        note_due: Callable[[Iterable[tuple[str, float]]], None],
        probe: Callable[[str], None],
    ) -> None:
        self._events = events
        self._act = act
        self._note_due = note_due
        self._probe = probe
        self._waves: dict[Rid, _Wave] = {}

    def settled(self, rid: Rid, outcome: Outcome) -> None:
        """The scheduler settled a recipient: its wave hears."""
        if not self._waves:
            return
        wave = self._waves.pop(rid, None)
        if wave is not None:
            wave.left.discard(rid)
            if outcome is Outcome.DEFERRED:
                wave.refused += 1
            else:
                wave.delivered += 1
            if not wave.left:
                wave.ended.set()

    async def first(self, hop: str, rids: Sequence[Rid], operation: int, all_at_once: bool) -> "_Wave":
        """The first wave of a next hop: its canary, or everything."""
        return await self._wave(hop, rids if all_at_once else rids[:1], operation)

    async def rest(self, hop: str, rids: Sequence[Rid], operation: int, wave: "_Wave") -> None:
        """The waves after the canary."""
        done, size = 1, 2
        while done < len(rids):
            await self._wait(wave)
            if wave.refused and not wave.delivered:
                left = len(rids) - done
                self._events.emit("try-now-stopped", next_hop=hop, text=f"it refuses; {left} recipients wait as before")
                return
            wave = await self._wave(hop, rids[done : done + size], operation)
            done += size
            size = min(size * 2, STEP)

    async def _wave(self, hop: str, rids: Sequence[Rid], operation: int) -> _Wave:
        wave = _Wave(set())
        for i in range(0, len(rids), STEP):
            acted = await self._act(rids[i : i + STEP], operation)
            for rid in acted.done:
                wave.left.add(rid)
                self._waves[rid] = wave
            self._probe(hop)
            self._note_due(acted.due.items())
        if not wave.left:
            wave.ended.set()
        return wave

    async def _wait(self, wave: _Wave) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await wave.ended.wait()
        except TimeoutError:
            for rid in wave.left:
                self._waves.pop(rid, None)


def by_hop(rids: Iterable[Rid], hops: Mapping[Rid, str]) -> dict[str, list[Rid]]:
    """Recipients by their next hop, in their order."""
    groups: dict[str, list[Rid]] = {}
    for rid in rids:
        if rid in hops:
            groups.setdefault(hops[rid], []).append(rid)
    return groups

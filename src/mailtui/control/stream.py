"""The event stream: what happens, as it happens, and how the relay is, at most four times a second.

Promises: a reader gets every event, in order, or a `gap` that counts what it missed: whoever reads slowly loses events
and costs no memory; a status comes at least once a second, so that silence means a relay that is stuck; what is
sent in one piece is small, so that a busy relay is not held up by those who watch it.
"""

import asyncio
import itertools
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from aiohttp import ClientConnectionResetError, web

from mailtui.clock import rfc3339
from mailtui.control import views, wire
from mailtui.control.errors import VerbError
from mailtui.control.live import Live
from mailtui.control.reading import status_of
from mailtui.control.reads import Document

# How often new events are looked for, in seconds: a person does not see it, and a burst is sent in one piece.
TICK = 0.1

# Events in one piece: their JSON takes the loop about 3 ms. So 2,500 a second are told, and of more there is a gap.
PIECE = 250

# Between two statuses, in seconds: when something has changed, and when nothing has.
STATUS_SOON, STATUS_LATE = 0.25, 1.0


class Stream:
    """All readers of the stream; they share the statuses."""

    def __init__(self, live: Live, stopping: asyncio.Event, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.live = live
        self._monotonic = monotonic
        self._stopping = stopping
        self._status: tuple[float, Document] | None = None
        self._asking: asyncio.Future[Document] | None = None

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/v1/events", self._events)]

    @property
    def epoch(self) -> str:
        """Tells this relay's sequence numbers from those of the one before."""
        return f"{int(self.live.started * 1000):x}-{os.getpid():x}"

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": wire.JSON_LINES, "Cache-Control": "no-store"})
        seen = self._from(request)
        await response.prepare(request)
        # What the kernel and the transport keep for a reader that is gone is all that it costs: no more is written.
        with suppress(ClientConnectionResetError):  # a reader that leaves is no error of ours
            async for rows in self.rows(seen):
                await wire.write(response, rows)
        return response

    def _from(self, request: web.Request) -> int:
        """The number of the last event that the reader has."""
        last = self.live.events.sequence
        if "since" not in request.query:
            return last
        since = wire.number(request, "since", last)
        epoch = request.query.get("epoch", self.epoch)
        # Of another relay: it has seen nothing of this one.
        return since if epoch == self.epoch and since <= last else 0

    async def rows(self, seen: int) -> AsyncIterator[list[Document]]:
        """What to send, piece by piece, until the relay stops. `seen`: the number of the last event not to be sent."""
        told, last = float("-inf"), ""
        while not self._stopping.is_set():
            rows, seen = self._after(seen)
            now = self._monotonic()
            if now - told >= STATUS_SOON:
                try:
                    status = await self._current(now)
                except VerbError:  # a read that took too long: the next one may not
                    status = {}
                text = json.dumps(status)
                if status and (text != last or now - told >= STATUS_LATE):
                    told, last = now, text
                    rows.append({"epoch": self.epoch, "seq": seen, "event": "status", "status": status})
            yield rows
            if seen == self.live.events.sequence or not rows:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), TICK)
            else:
                await asyncio.sleep(TICK / 10)  # behind: go on soon, but let mail pass

    def _after(self, seen: int) -> tuple[list[Document], int]:
        """The next events after number `seen`, and the number of the last of them."""
        events = self.live.events
        first = events.sequence - len(events.recent)  # the number before the oldest that is kept
        rows: list[Document] = []
        if seen < first:
            gap = {"at": rfc3339(self.live.clock.now()), "event": "gap", "missed": first - seen}
            rows.append({"epoch": self.epoch, "seq": first, **gap})
            seen = first
        new = events.sequence - seen
        if not new:
            return rows, seen
        records: list[dict[str, Any]] = list(
            itertools.islice(events.recent, len(events.recent) - new, len(events.recent) - new + min(new, PIECE))
        )
        for record in records:
            seen += 1
            rows.append({"epoch": self.epoch, "seq": seen, **views.event(record)})
        return rows, seen

    async def _current(self, now: float) -> Document:
        """The status, asked for once for all readers."""
        if self._status is None or now - self._status[0] >= STATUS_SOON:
            if self._asking is None:
                self._asking = asyncio.ensure_future(status_of(self.live))
            asking = self._asking
            try:
                self._status = (now, await asyncio.shield(asking))
            finally:
                if asking.done() and self._asking is asking:
                    self._asking = None
        return self._status[1]

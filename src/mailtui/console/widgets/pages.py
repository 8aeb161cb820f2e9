"""The few rows of a large set that the console holds: pages of it, asked for when they are looked at.

Promises: memory does not depend on the size of the set (KEPT pages, the least recently used goes first); a page is
asked for once, however often it is looked at; at most WAITING wait, those on the screen before those read ahead, and
what was scrolled past meanwhile is forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Row = Mapping[str, Any]

# Rows of a page: the relay reads them by key in a fraction of a millisecond, and no screen shows more.
PAGE = 200

# Pages held: 3,200 rows, about 10 MB.
KEPT = 16

# Requests that wait; older ones are for places that the operator has left.
WAITING = 6


class Source(Protocol):
    """A set of rows in a fixed order."""

    @property
    def count(self) -> int: ...
    async def rows(self, offset: int, limit: int) -> list[Row]: ...


class Pages:
    """The rows of one source that are at hand."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.asked = 0  # requests made, for tests and the link's meter
        self._pages: OrderedDict[int, list[Row]] = OrderedDict()
        self._waiting: list[int] = []
        self._fetching = -1

    def get(self, index: int) -> Row | None:
        """The row at this position, None if it is not at hand."""
        number = index // PAGE
        page = self._pages.get(number)
        if page is None:
            return None
        self._pages.move_to_end(number)
        within = index % PAGE
        return page[within] if within < len(page) else None

    def look(self, first: int, last: int) -> bool:
        """Note what is on the screen: `first` to `last`, both inclusive. True if something is to be fetched now."""
        count = self.source.count
        if count <= 0:
            return False
        low, high = max(0, first) // PAGE, min(last, count - 1) // PAGE
        shown = list(range(low, high + 1))
        ahead = [number for number in (high + 1, low - 1) if 0 <= number <= (count - 1) // PAGE]
        for number in (*reversed(ahead), *reversed(shown)):
            if number not in self._pages and number != self._fetching:
                if number in self._waiting:
                    self._waiting.remove(number)
                self._waiting.insert(0, number)
        del self._waiting[WAITING:]
        return bool(self._waiting)

    async def ready(self, first: int, rows: int) -> None:
        """Fetch what a screen of `rows` from position `first` on shows, before anybody looks. Errors pass through."""
        first = max(0, min(first, self.source.count - rows))
        while self.look(first, first + rows - 1) and any(self.get(at) is None for at in (first, first + rows - 1)):
            if await self.fetch() is None:
                return

    async def fetch(self) -> tuple[int, int] | None:
        """Fetch the next page that waits: (position, rows), None if none waits. The source's errors pass through."""
        if not self._waiting:
            return None
        number = self._fetching = self._waiting.pop(0)
        try:
            self.asked += 1
            rows = await self.source.rows(number * PAGE, PAGE)
        except Exception:
            self._waiting.clear()  # the next look asks again
            raise
        finally:
            self._fetching = -1
        self._pages[number] = rows
        self._pages.move_to_end(number)
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        return number * PAGE, len(rows)

    async def between(self, first: int, last: int, wanted: Callable[[], bool]) -> list[Row]:
        """The rows `first` to `last`, both inclusive; those not at hand are asked for, as long as they are `wanted`."""
        found: list[Row] = []
        while (index := first + len(found)) <= last and wanted():
            row = self.get(index)
            rows = [row] if row is not None else await self.source.rows(index, min(PAGE, last - index + 1))
            if not rows:
                break
            found += rows
        return found

    async def renew(self, first: int, last: int) -> None:
        """Read these rows again, those at hand only; a row that is gone keeps what was known of it."""
        last = min(last, self.source.count - 1)
        if last < first or first < 0 or all(self.get(index) is None for index in (first, last)):
            return
        self.asked += 1
        for index, row in enumerate(await self.source.rows(first, last - first + 1), first):
            page = self._pages.get(index // PAGE)
            if page is not None and index % PAGE < len(page):
                page[index % PAGE] = {**page[index % PAGE], "gone": True} if row.get("gone") else row

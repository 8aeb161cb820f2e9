"""A frozen set of the relay's: the rows of a query in an order, taken at one moment, read by position."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import quote

from mailtui.console.widgets.pages import PAGE, Row

# How far around a row that has vanished the nearest one that stayed is looked for.
NEAR = 5

# Rows of one answer where many are read at once.
MANY = 1000


class Asks(Protocol):
    """What is needed of `console.link.Link`."""

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any: ...
    async def lines(self, path: str) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class FrozenSet:
    """`name` is the relay's for it. Methods raise the link's error; `gone` of it says that the set was dropped."""

    link: Asks
    name: str
    count: int
    query: str = ""
    sort: str = "arrived"
    reverse: bool = False

    async def rows(self, offset: int, limit: int) -> list[Row]:
        """The rows at these positions; one that left the queue meanwhile has `gone`."""
        found = await self.link.lines(f"/v1/sets/{quote(self.name, '')}/rows?offset={offset}&limit={limit}")
        return cast(list[Row], found)

    async def index(self, rid: str) -> int | None:
        """The position of a recipient, None if it is not in the set."""
        found = await self.link.call("GET", f"/v1/sets/{quote(self.name, '')}/index?rid={quote(rid, '')}")
        return cast(int | None, found["index"])

    async def drop(self) -> None:
        """Tell the relay that it is not needed any more."""
        await self.link.call("DELETE", f"/v1/sets/{quote(self.name, '')}")


@dataclass(frozen=True, slots=True)
class Glimpse:
    """The first rows of the queue, to be looked at while the set of a million is made."""

    first: list[Row]

    @property
    def count(self) -> int:
        return len(self.first)

    async def rows(self, offset: int, limit: int) -> list[Row]:
        return self.first[offset : offset + limit]


async def glimpse(link: Asks) -> Glimpse:
    """The newest of the whole queue: a page that an index has in order."""
    return Glimpse(cast(list[Row], await link.lines(f"/v1/queue?limit={PAGE}")))


async def take(link: Asks, query: str, sort: str = "arrived", reverse: bool = False) -> FrozenSet:
    """Freeze what matches now."""
    found = await link.call("POST", "/v1/sets", {"query": query, "sort": sort, "reverse": reverse})
    return FrozenSet(link, str(found["set"]), int(found["count"]), query, sort, reverse)


async def still_there(link: Asks, query: str, rids: Iterable[str]) -> dict[str, Row]:
    """Those of the recipients that are in the queue and match `query`, as they are now."""
    chosen = await take(link, f"{query} id:{','.join(rids)}".strip())
    found: dict[str, Row] = {}
    try:
        for offset in range(0, chosen.count, MANY):
            found |= {str(row["rid"]): row for row in await chosen.rows(offset, MANY) if not row.get("gone")}
    finally:
        await chosen.drop()
    return found


async def nearest(new: FrozenSet, at: Callable[[int], Row | None], old: int) -> tuple[int, str]:
    """Where in `new` the row is that stood at `old` before, and what to say if it is not there: the nearest then.

    `at` gives the rows of the set before, those at hand."""
    here = at(old)
    last = max(0, new.count - 1)
    if here is None:
        return min(old, last), ""
    left = f"{here['rid']} left the list"
    for step in range(NEAR + 1):
        for index in {old + step, old - step}:
            row = at(index)
            place = await new.index(str(row["rid"])) if row is not None else None
            if place is not None:
                return place, f"{left}; the cursor is on the nearest that stayed" if step else ""
    return min(old, last), f"{left}, and so did its neighbours"

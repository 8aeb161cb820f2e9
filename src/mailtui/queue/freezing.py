"""Frozen sets: everything that a query selects at one moment, as packed numbers, in order.

Promises: 12 octets a recipient when it is made; each recipient once; no read transaction longer than a window of the
scan, and no moment in which other threads of the process cannot run. What is claimed, parked or accepted while the set
is made may be missing from it.
"""

import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from math import inf
from operator import neg
from typing import Any

from mailtui.queue.leads import gather, short, states_of
from mailtui.queue.listing import look_up
from mailtui.queue.paging import Order
from mailtui.queue.query import Query
from mailtui.queue.rows import Rid
from mailtui.queue.windows import WINDOW, Found, Pace, each

# Numbers compared in one go when a recipient is looked for: a millisecond, for nothing else runs meanwhile.
PIECE = 50_000

NAMES_IN_ORDER = "SELECT name FROM domains ORDER BY name"

# About so many numbers are sorted in one go, for the same reason.
SORTED_AT_ONCE = 10_000


@dataclass(eq=False, slots=True)
class FrozenSet:
    """Recipients by position, from 0. `messages` and `ordinals` belong together and are never changed."""

    query: Query = field(default_factory=Query)
    sort: str = "arrived"
    reverse: bool = False
    messages: "array[int]" = field(default_factory=lambda: array("q"))
    ordinals: "array[int]" = field(default_factory=lambda: array("i"))

    def __len__(self) -> int:
        return len(self.messages)

    def rids(self, offset: int = 0, limit: int | None = None) -> list[Rid]:
        """The recipients from a position on."""
        offset = max(offset, 0)
        end = None if limit is None else offset + max(limit, 0)
        return list(zip(self.messages[offset:end], self.ordinals[offset:end], strict=True))

    def position(self, rid: Rid) -> int | None:
        """Where a recipient stands, None if it does not. A search, but in the order of arrival: a few ms, for a thread.

        Looks at the numbers in pieces, so that other threads get their turn.
        """
        message, ordinal = rid
        if self.sort == "arrived":
            at = bisect_left(self.messages, message if self.reverse else -message, key=None if self.reverse else neg)
            while at < len(self) and self.messages[at] == message:
                if self.ordinals[at] == ordinal:
                    return at
                at += 1
            return None
        for start in range(0, len(self), PIECE):
            end, at = start + PIECE, start
            while True:
                try:
                    at = self.messages.index(message, at, end)
                except ValueError:
                    break
                if self.ordinals[at] == ordinal:
                    return at
                at += 1
        return None


@dataclass(slots=True)
class _Run:
    """Recipients, oldest first; `values` are those sorted by."""

    values: list[Any]
    messages: list[int]
    ordinals: list[int]

    def put(self, value: Any, message: int, ordinal: int) -> None:
        """A claimed row in its place. One that was parked while the scan went on has been met there already."""
        at = bisect_left(self.messages, message)
        while at < len(self.messages) and self.messages[at] == message and self.ordinals[at] < ordinal:
            at += 1
        met = at < len(self.messages) and (self.messages[at], self.ordinals[at]) == (message, ordinal)
        self.values[at : at + met] = [value]
        self.messages[at : at + met] = [message]
        self.ordinals[at : at + met] = [ordinal]


def freeze(
    connection: sqlite3.Connection,
    query: Query,
    order: Order,
    reverse: bool,
    destinations: Sequence[int] | None,
    claimed: Collection[Rid],
    active: frozenset[Rid],
    pace: Pace,
) -> FrozenSet:
    """The whole answer of a query. Claimed rows are those that the caller names."""
    made = FrozenSet(query, order.name, reverse)
    runs = _runs(connection, query, order, destinations, claimed, active, pace)
    values = array("d")
    ranks = _ranks(connection) if order.name == "destination" else {}
    for run in runs:
        made.messages.extend(run.messages)
        made.ordinals.extend(run.ordinals)
        if order.name == "destination":
            values.extend([ranks.get(value, 0) for value in run.values])
        elif order.name != "arrived":
            values.extend([inf if value is None else value for value in run.values])
    if order.name != "arrived":
        _sort(made, values, order, reverse, pace)
    elif not reverse:
        made.messages.reverse()
        made.ordinals.reverse()
    return made


def _ranks(connection: sqlite3.Connection) -> dict[str, int]:
    """Where each domain stands in the order of names; what is interned from now on stands before all."""
    return {name: rank for rank, (name,) in enumerate(connection.execute(NAMES_IN_ORDER))}


def _sort(made: FrozenSet, values: "array[float]", order: Order, reverse: bool, pace: Pace) -> None:
    """Put what stands oldest first into another order, by its values."""
    # Among equal values the newest come first, by next attempt the oldest: the parts are stable.
    rising = order.name == "next_attempt"
    if not rising:
        values.reverse()
        made.messages.reverse()
        made.ordinals.reverse()
    falling_values = order.name in ("size", "attempts")
    messages, ordinals = array("q"), array("i")
    for part in _parts(values, falling_values, pace):
        messages.extend(map(made.messages.__getitem__, part))
        ordinals.extend(map(made.ordinals.__getitem__, part))
    if reverse:
        messages.reverse()
        ordinals.reverse()
    made.messages, made.ordinals = messages, ordinals


def _parts(values: "array[float]", falling: bool, pace: Pace) -> Iterator[Sequence[int]]:
    """Positions in the order of their values, equal ones as they stand, in parts of moderate size.

    Python sorts with everything else stopped, half a second for a million numbers: so they are dealt out first, to
    between and onto some of the values.
    """
    parts = len(values) // SORTED_AT_ONCE
    sample = sorted(values[:: max(1, len(values) // (20 * parts))]) if parts else []
    edges = sorted(set(sample[10::20]))
    dealt = [array("i") for _ in range(2 * len(edges) + 1)]
    of = values.__getitem__
    for start in range(0, len(values), WINDOW):
        window = sorted(range(start, min(start + WINDOW, len(values))), key=of)
        at = 0
        for number, edge in enumerate(edges):
            # Even: between two edges, in stretches that are sorted; odd: what equals an edge, as it stands.
            begin = bisect_left(window, edge, at, key=of)
            end = bisect_right(window, edge, begin, key=of)
            dealt[2 * number].extend(window[at:begin])
            dealt[2 * number + 1].extend(window[begin:end])
            at = end
        dealt[-1].extend(window[at:])
        pace(0)
    whole = range(len(dealt) - 1, -1, -1) if falling else range(len(dealt))
    for number in whole:
        if number % 2 or not dealt[number]:
            yield dealt[number]
        else:
            yield sorted(dealt[number], key=of, reverse=falling)


def _runs(
    connection: sqlite3.Connection,
    query: Query,
    order: Order,
    destinations: Sequence[int] | None,
    claimed: Collection[Rid],
    active: frozenset[Rid],
    pace: Pace,
) -> Iterator[_Run]:
    """All that matches, oldest first, each once, as (value sorted by, message, ordinal)."""
    parked = query.rows is not None
    rows = query.rows if query.rows is not None else [(message, ordinal, ordinal) for message, ordinal in claimed]
    found = look_up(connection, query, rows, destinations, active, column=order.column, parked=parked)
    named = sorted(((value, message, ordinal) for message, ordinal, value in found), key=_rid)
    states = states_of(query)
    if parked or not states or destinations == []:
        yield _run(named)
        return
    stretches, _ = short(connection, query, destinations, states, order.column)
    if stretches is not None:
        once = {_rid(row): row for row in named}
        for leg in gather(query, stretches, destinations, states, order, False, None, -1):
            once.update((_rid(row), row) for row in connection.execute(leg.sql, leg.values).fetchall())
        yield _run([once[rid] for rid in sorted(once)])
        return
    at = 0
    for run in starmap(_Run, each(connection, query, destinations, states, order, pace)):
        while run.messages and at < len(named) and _rid(named[at]) <= (run.messages[-1], run.ordinals[-1]):
            run.put(*named[at])
            at += 1
        yield run
    yield _run(named[at:])


def _run(rows: Sequence[Found]) -> _Run:
    return _Run([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def _rid(row: Found) -> Rid:
    return (row[1], row[2])


def matching(
    connection: sqlite3.Connection,
    query: Query,
    rids: Collection[Rid],
    destinations: Sequence[int] | None,
    active: frozenset[Rid],
) -> set[Rid]:
    """Those of these recipients, parked or claimed, that the query selects now."""
    rows = [(message, ordinal, ordinal) for message, ordinal in rids]
    found = look_up(connection, query, rows, destinations, active, column="NULL", parked=True)
    return {(message, ordinal) for message, ordinal, _ in found} & _named(query, rids)


def _named(query: Query, rids: Collection[Rid]) -> set[Rid]:
    """The recipients that the ids of the query allow."""
    if query.rows is None:
        return set(rids)
    return {(m, o) for m, o in rids for message, first, last in query.rows if m == message and first <= o <= last}

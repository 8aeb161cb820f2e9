"""Going through the whole table, window by window: scans that never hold a read transaction for long.

A window is a range of messages with about `WINDOW` recipients. Between two of them the transaction ends, so that the
writer's checkpoints are not held up, the deadline is looked at, and progress is told. A recipient's key never changes,
so each is met once, whatever happens meanwhile; what was parked or accepted behind the scan's back is missed.
"""

import heapq
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mailtui.model import State
from mailtui.queue.leads import filters
from mailtui.queue.paging import ORDERS, TABLE, Order, Piece, Position, flat, leg
from mailtui.queue.query import Query

# Recipients in a window: 5 to 40 ms each. The first ones are smaller: a page may be full soon.
WINDOW = 25_000
FIRST_WINDOW = 1000

# A recipient as found: (value sorted by, message, ordinal).
Found = tuple[Any, int, int]

# How far a scan has come: recipients looked at, and how many there are in all.
Progress = Callable[[int, int], None]

# Where a window ends: the message of the recipient so many further on.
EDGE_BELOW = """
SELECT message FROM recipients INDEXED BY sqlite_autoindex_recipients_1
WHERE message < ? AND message >= ? ORDER BY message DESC LIMIT 1 OFFSET ?
"""
EDGE_ABOVE = """
SELECT message FROM recipients INDEXED BY sqlite_autoindex_recipients_1
WHERE message >= ? AND message < ? ORDER BY message LIMIT 1 OFFSET ?
"""

BY_MESSAGE = f"messages CROSS JOIN {TABLE} ON message = messages.id"


# Called between two windows with how many recipients were looked at; raises when time is over or somebody interrupts.
Pace = Callable[[int], None]


def windows(
    connection: sqlite3.Connection, low: int, high: int, pace: Pace, *, rising: bool = False
) -> Iterator[tuple[int, int]]:
    """Ranges of messages (from, up to but not with), together from `low` up to `high`."""
    size = min(FIRST_WINDOW, WINDOW)
    while True:
        if rising:
            row = connection.execute(EDGE_ABOVE, (low, high, size)).fetchone()
            edge = high if row is None else max(row[0], low + 1)
            yield low, edge
            low = edge
        else:
            row = connection.execute(EDGE_BELOW, (high, low, size)).fetchone()
            edge = low if row is None else row[0]
            yield edge, high
            high = edge
        pace(size if row is not None else 0)
        if row is None or low >= high:
            return
        size = min(5 * size, WINDOW)


def table(query: Query, order: Order) -> str:
    """What a scan goes through: messages first if they rule out more than recipients do."""
    by_size = order.column == "size" and query.destinations is None and not query.conditions
    return BY_MESSAGE if by_size or (query.by_envelope and not query.leads) else TABLE


def scan(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    order: Order,
    reverse: bool,
    start: Position | None,
    limit: int,
    pace: Pace,
    most: int | None = None,
) -> list[Found] | None:
    """The first `limit` parked rows that match, in order, after `start`.

    `most`: look at about so many recipients; None if that was not enough (by arrival only)."""
    where = filters(query, destinations, states)
    low, high = query.low, query.high
    by_arrival = order.name == "arrived"
    if start is not None:
        where.append(order.beyond(reverse, start))
        if by_arrival:
            low, high = (max(low, start.message), high) if reverse else (low, min(high, start.message + 1))
    source = table(query, order)
    best: list[Found] = []

    def key(found: Found) -> Any:
        return order.key(*found)

    looked = 0

    def counting(rows: int) -> None:
        nonlocal looked
        looked += rows
        pace(rows)

    for first, last in windows(connection, low, high, counting, rising=by_arrival and reverse):
        if most is not None and looked >= most:
            return None
        pieces: list[Piece] = [*_between(source, first, last), *where]
        wanted = limit
        if by_arrival:
            wanted = limit - len(best)
        elif len(best) == limit:
            bound = order.within(reverse, best[-1][0])
            if bound is not None:
                pieces.append(bound)
        made = leg(order, source, pieces, order.by(reverse), wanted, envelope=query.envelope)
        found = connection.execute(made.sql, made.values).fetchall()
        if by_arrival:
            best += found
            if len(best) >= limit:
                break
        elif found:
            both = heapq.merge(best, found, key=key, reverse=reverse)
            best = [row for row, _ in zip(both, range(limit), strict=False)]
    return best


def _between(source: str, first: int, last: int) -> list[Piece]:
    if source == BY_MESSAGE:
        return [("messages.id >= ?", first), ("messages.id < ?", last)]
    return [("message >= ?", first), ("message < ?", last)]


# Around the column sorted by, and before the rows.
_LISTS = ("SELECT json_group_array(", "), json_group_array(message), json_group_array(ordinal) FROM (")


def each(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    order: Order,
    pace: Pace,
) -> Iterator[tuple[list[Any], list[int], list[int]]]:
    """Every parked row that matches, window by window, oldest message first: the values sorted by (by arrival None),
    the messages and the ordinals of each window.

    SQLite makes one text of a window while other threads run, where a tuple for each row takes the interpreter for
    each: a million in 0.6 s instead of 1.0. Moments come with 15 digits, 10 microseconds.
    """
    where = filters(query, destinations, states)
    source = table(query, order)
    tail = ORDERS["arrived"].by(True)
    for first, last in windows(connection, query.low, query.high, pace, rising=True):
        made = leg(order, source, [*_between(source, first, last), *where], tail, -1, envelope=query.envelope)
        # The rows come to the aggregates in the order of the subquery, which has a LIMIT and so is not dissolved.
        sql = "".join((_LISTS[0], order.column, _LISTS[1], made.sql, ")"))
        values, messages, ordinals = map(json.loads, connection.execute(sql, made.values).fetchone())
        yield values, messages, ordinals


def grouped(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    pace: Pace,
    select: str,
    group: str,
    *,
    values: Sequence[Any] = (),
    envelope: bool = False,
) -> Iterator[list[tuple[Any, ...]]]:
    """The statement `select ... group` over the parked rows that match, window by window: the caller adds up.

    `select` ends before FROM, with its `values`; `envelope`: it reads the messages too.
    """
    where = filters(query, destinations, states)
    source = table(query, ORDERS["arrived"])
    if (envelope or query.envelope) and source == TABLE:
        source += " CROSS JOIN messages ON messages.id = message"
    for first, last in windows(connection, query.low, query.high, pace):
        pieces = [("claim = 0", ()), *_between(source, first, last), *where]
        sql = "".join((select, " FROM ", source, " WHERE ", " AND ".join(piece[0] for piece in pieces), group))
        yield connection.execute(sql, (*values, *flat(pieces))).fetchall()

"""A page of the queue: parked rows from their legs (paging.py), claimed rows looked up by key, merged in order.

Claimed rows stand in no index; they are at most about 2,000 and the caller names them. They pass the same SQL
conditions as parked rows, so that a term means one thing.
"""

import heapq
import itertools
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mailtui.queue.paging import ORDERS, Order, Position, cursor, legs
from mailtui.queue.query import Query
from mailtui.queue.rows import Rid, Row, rows_of, state_name

# Rows by key, with what the query or the caller needs of the message and the domain joined on.
# The first parameter is JSON: [[message, first ordinal, last ordinal], ...].
NAMED = """
FROM json_each(?) AS wanted
CROSS JOIN recipients
  ON message = json_extract(wanted.value, '$[0]')
  AND ordinal BETWEEN json_extract(wanted.value, '$[1]') AND json_extract(wanted.value, '$[2]')
"""
JOIN_MESSAGES = " CROSS JOIN messages ON messages.id = message"
JOIN_DOMAINS = " CROSS JOIN domains ON domains.id = destination"

_COLUMN = {"arrived": "NULL", "size": "size", "next_attempt": "due", "attempts": "attempts", "destination": "name"}

# Destinations that have parked recipients, one index seek each.
PRESENT_DESTINATIONS = """
WITH RECURSIVE present (place) AS (
  SELECT min(destination) FROM recipients INDEXED BY parked_by_destination WHERE claim = 0
  UNION ALL
  SELECT (SELECT min(destination) FROM recipients INDEXED BY parked_by_destination
          WHERE claim = 0 AND destination > present.place)
  FROM present WHERE present.place IS NOT NULL
)
SELECT id, name FROM present CROSS JOIN domains ON id = place
"""

# (value sorted by, message, ordinal)
Found = tuple[Any, int, int]


@dataclass(frozen=True, slots=True)
class Listing:
    """What is asked for. `destinations` are the query's, interned; `check` raises when the time is over."""

    query: Query
    order: Order
    reverse: bool
    limit: int
    start: Position | None
    destinations: Sequence[int] | None
    claimed: Collection[Rid]
    active: frozenset[Rid]
    check: Callable[[], None]


def page(connection: sqlite3.Connection, ask: Listing) -> list[Row]:
    """The rows of a page, each with its cursor."""
    order, query = ask.order, ask.query
    runs: list[Iterable[Found]]
    if query.rows is not None:
        runs = [_named(connection, ask, query.rows, parked=True)]
    elif order.name == "destination":
        runs = [_claimed(connection, ask), _by_destination(connection, ask)]
    else:
        parked = legs(query, order, ask.reverse, ask.destinations, ask.start, ask.limit)
        runs = [_claimed(connection, ask), *(connection.execute(leg.sql, leg.values).fetchall() for leg in parked)]
    merged = heapq.merge(*runs, key=lambda found: order.key(*found), reverse=ask.reverse)
    cursors = {(found[1], found[2]): cursor(order, *found) for found in itertools.islice(merged, ask.limit)}
    return rows_of(connection, cursors, ask.active)


def _by_destination(connection: sqlite3.Connection, ask: Listing) -> Iterator[Found]:
    """Parked rows, destination after destination in order of name."""
    arrived = ORDERS["arrived"]
    wanted = None if ask.destinations is None else set(ask.destinations)
    present = [
        (name, id) for id, name in connection.execute(PRESENT_DESTINATIONS).fetchall() if wanted is None or id in wanted
    ]
    for name, id in sorted(present, reverse=ask.reverse):
        ask.check()
        at = None
        if ask.start is not None:
            if name == ask.start.value:
                at = ask.start
            elif (name < ask.start.value) != ask.reverse:
                continue
        parked = legs(ask.query, arrived, ask.reverse, [id], at, ask.limit)
        runs = [connection.execute(leg.sql, leg.values).fetchall() for leg in parked]
        for _, message, ordinal in heapq.merge(*runs, key=lambda found: arrived.key(*found), reverse=ask.reverse):
            yield name, message, ordinal


def _claimed(connection: sqlite3.Connection, ask: Listing) -> Iterator[Found]:
    if ask.order.name != "arrived":
        yield from _named(connection, ask, [(message, ordinal, ordinal) for message, ordinal in ask.claimed])
        return
    # In this order the keys alone say which come first: stop as soon as there are enough.
    ordered = sorted(ask.claimed, reverse=not ask.reverse)
    here = None if ask.start is None else (ask.start.message, ask.start.ordinal)
    rows = [
        (rid[0], rid[1], rid[1])
        for rid in ordered
        if ask.query.low <= rid[0] < ask.query.high and (here is None or (rid > here if ask.reverse else rid < here))
    ]
    found = 0
    for i in range(0, len(rows), ask.limit):
        for row in _named(connection, ask, rows[i : i + ask.limit]):
            found += 1
            yield row
        if found >= ask.limit:
            return


def _named(
    connection: sqlite3.Connection, ask: Listing, rows: Sequence[tuple[int, int, int]], *, parked: bool = False
) -> Iterator[Found]:
    """Rows looked up by key that match, in order, each once; parked ones only if asked for."""
    order = ask.order
    found = look_up(
        connection, ask.query, rows, ask.destinations, ask.active, column=_COLUMN[order.name], parked=parked
    )
    keys = {order.key(value, message, ordinal): (value, message, ordinal) for message, ordinal, value in found}
    start = ask.start
    here = None if start is None else order.key(start.value, start.message, start.ordinal)
    for key in sorted(keys, reverse=ask.reverse):
        if here is None or (key < here if ask.reverse else key > here):
            yield keys[key]


def look_up(
    connection: sqlite3.Connection,
    query: Query,
    rows: Sequence[tuple[int, int, int]],
    destinations: Sequence[int] | None,
    active: frozenset[Rid],
    *,
    column: str,
    parked: bool,
) -> set[tuple[int, int, Any]]:
    """(message, ordinal, column) of the named rows that match the query; parked ones only if asked for."""
    if not rows or not query.states:
        return set()
    pieces = ["SELECT message, ordinal, ", column, ", state, claim", NAMED]
    if query.envelope or column == "size":
        pieces.append(JOIN_MESSAGES)
    if column == "name":
        pieces.append(JOIN_DOMAINS)
    pieces.append(" WHERE message >= ? AND message < ?")
    values: list[Any] = [json.dumps(rows), query.low, query.high]
    for condition in query.conditions:
        pieces.append(f" AND {condition.sql}")
        values += condition.values
    if destinations is not None:
        pieces.append(" AND +destination IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(list(destinations)))
    if not parked:
        pieces.append(" AND claim <> 0")
    return {
        (message, ordinal, value)
        for message, ordinal, value, state, claim in connection.execute("".join(pieces), values).fetchall()
        if state_name((message, ordinal), state, claim, active) in query.states
    }

"""A page of the queue: parked rows from an index or a scan, claimed rows looked up by key, merged in order.

Claimed rows stand in no index; they are at most about 2,000 and the caller names them. They pass the same SQL
conditions as parked rows, so that a term means one thing.
"""

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mailtui.model import State
from mailtui.queue.leads import (
    LONG,
    RARE,
    by_destination,
    by_state,
    covers,
    filters,
    gather,
    short,
    states_of,
    stretches_of,
)
from mailtui.queue.paging import ORDERS, TIMED, Leg, Order, Piece, Position, ages, by_arrival, by_due, cursor, flat, leg
from mailtui.queue.query import MOST_DESTINATIONS, Query
from mailtui.queue.rows import Rid, Row, rows_of, state_name
from mailtui.queue.terms import PRESENT
from mailtui.queue.windows import Found, Pace, scan

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


# Rows that a page in the order of due times may pass over: 35 ms. What is rarer is found by a scan sooner. Where the
# index holds all that is asked for, nothing needs to be looked up and any number may be passed over (0.1 s a million).
PASSED_OVER = 10_000


# Rows that are looked at in the order of arrival, in the hope to fill a page, before all that matches is gathered.
PROBED = 6000


@dataclass(frozen=True, slots=True)
class Listing:
    """What is asked for. `destinations` are the query's, interned; `pace` is called between two windows of a scan."""

    query: Query
    order: Order
    reverse: bool
    limit: int
    start: Position | None
    destinations: Sequence[int] | None
    claimed: Collection[Rid]
    active: frozenset[Rid]
    pace: Pace

    @property
    def states(self) -> list[State]:
        return states_of(self.query)


def page(connection: sqlite3.Connection, ask: Listing) -> list[Row]:
    """The rows of a page, each with its cursor."""
    order = ask.order
    if ask.query.rows is not None:
        runs: list[Iterable[Found]] = [_named(connection, ask, ask.query.rows, parked=True)]
    else:
        runs = [_claimed(connection, ask), *_parked(connection, ask)]
    merged = heapq.merge(*runs, key=lambda found: order.key(*found), reverse=ask.reverse)
    cursors: dict[Rid, str] = {}
    for found in merged:
        # A row may be in two stretches, or have been parked since it was named claimed.
        cursors.setdefault((found[1], found[2]), cursor(order, *found))
        if len(cursors) == ask.limit:
            break
    return rows_of(connection, cursors, ask.active)


def _parked(connection: sqlite3.Connection, ask: Listing) -> Iterator[Iterable[Found]]:
    """Ordered runs of parked rows, by the cheapest way there is to the first `limit` of them."""
    query, order, states, destinations = ask.query, ask.order, ask.states, ask.destinations
    if not states or destinations == []:
        return
    if order.name == "destination" and not query.conditions:
        yield _by_destination(connection, ask)
        return
    made = _in_order(connection, ask)
    if made is None:
        covered = order.name == "next_attempt" and covers("parked_by_due", query, destinations)
        stretches, rows = short(connection, query, destinations, states, order.column, RARE if covered else LONG)
        if stretches is not None and order.name == "arrived" and rows > PROBED:
            # The page may well be full before all of them are looked at.
            found = _scan(connection, ask, PROBED)
            if found is not None:
                yield found
                return
        if stretches is not None:
            made = gather(query, stretches, destinations, states, order, ask.reverse, ask.start, ask.limit)
    if made is None and order.name == "next_attempt":
        found = _passing_over(connection, ask)
        if found is not None:
            yield found
            return
    if made is not None:
        for one in made:
            yield connection.execute(one.sql, one.values).fetchall()
    else:
        yield _scan(connection, ask) or []


def _scan(connection: sqlite3.Connection, ask: Listing, most: int | None = None) -> list[Found] | None:
    return scan(
        connection,
        ask.query,
        ask.destinations,
        ask.states,
        ask.order,
        ask.reverse,
        ask.start,
        ask.limit,
        ask.pace,
        most,
    )


def _in_order(connection: sqlite3.Connection, ask: Listing) -> list[Leg] | None:
    """Legs along indexes that hold nearly nothing but what is asked for, in order; None if there are none such."""
    query, states, destinations = ask.query, ask.states, ask.destinations
    few = destinations is None or len(destinations) <= MOST_DESTINATIONS
    if query.plain or not few or len(query.leads) > 1:
        return None
    if ask.order.name == "next_attempt":
        if query.aged or len(set(TIMED) & set(states)) == 1 or (query.leads and not query.timed):
            return None
        if query.leads and destinations is None and query.states != PRESENT:
            return None
        untimed = [state for state in states if state not in TIMED]
        resting = by_state(untimed) if destinations is None else by_destination(destinations, untimed)
        return by_due(query, destinations, states, resting, ask.reverse, ask.start, ask.limit)
    if ask.order.name != "arrived":
        return None
    if not query.leads:
        stretches = by_state(states) if destinations is None else by_destination(destinations, states)
        return by_arrival(query, stretches, (), ask.reverse, ask.start, ask.limit)
    if query.states != PRESENT or (destinations is not None and "dest" in query.names):
        return None
    stretches = stretches_of(connection, query.leads[0])
    if not all(stretch.ordered for stretch in stretches):
        return None
    return by_arrival(query, stretches, states, ask.reverse, ask.start, ask.limit)


def _passing_over(connection: sqlite3.Connection, ask: Listing) -> list[Found] | None:
    """A page in the order of due times, passing over what does not match; None if too much would be passed over.

    What has no due time comes last, or first when reversed: two stretches of the index.
    """
    timed: list[Piece] = [("claim = 0", ()), ("due IS NOT NULL", ())]
    untimed: list[Piece] = [("claim = 0", ()), ("due IS NULL", ())]
    parts = [untimed, timed] if ask.reverse else [timed, untimed]
    if ask.query.timed or set(ask.states) <= set(TIMED):
        parts = [timed]
    if ask.start is not None:
        at = (ask.start.message, ask.start.ordinal)
        comparison = "<" if ask.reverse else ">"
        if ask.start.value is None:
            untimed.append((f"(message, ordinal) {comparison} (?, ?)", at))
        else:
            timed[1] = (f"(due, message, ordinal) {comparison} (?, ?, ?)", (ask.start.value, *at))
        if (ask.start.value is None) != ask.reverse:
            here = untimed if ask.start.value is None else timed
            parts = [part for part in parts if part is here]  # the page begins in the last stretch
    found: list[Found] = []
    if covers("parked_by_due", ask.query, ask.destinations):
        where = [*filters(ask.query, ask.destinations, ask.states), *ages(ask.query)]
        for part in parts:
            tail = f" ORDER BY {_DUE[ask.reverse]} LIMIT ?"
            made = leg(ask.order, "recipients INDEXED BY parked_by_due", [*part[1:], *where], tail, ask.limit)
            found += connection.execute(made.sql, made.values).fetchall()
            if len(found) >= ask.limit:
                break
        return found[: ask.limit]
    for where in parts:
        found += _soonest(connection, ask, where, ask.limit - len(found))
        if len(found) == ask.limit:
            return found
        if _longer(connection, where, ask.reverse):
            return None
    return found


_DUE = ("due, message, ordinal", "due DESC, message DESC, ordinal DESC")


def _soonest(connection: sqlite3.Connection, ask: Listing, where: Sequence[Piece], limit: int) -> list[Found]:
    """Those of the first rows of a stretch that match."""
    matching = filters(ask.query, ask.destinations, ask.states)
    matching += [("message >= ?", ask.query.low), ("message < ?", ask.query.high)]
    sql = "".join(
        (
            "SELECT due, message, ordinal FROM (SELECT * FROM recipients INDEXED BY parked_by_due WHERE ",
            " AND ".join(piece[0] for piece in where),
            " ORDER BY ",
            _DUE[ask.reverse],
            " LIMIT ?) AS soonest",
            JOIN_MESSAGES if ask.query.envelope else "",
            " WHERE ",
            " AND ".join(piece[0] for piece in matching),
            " LIMIT ?",  # rows come as the subquery gives them: with an ORDER BY of its own all of it would be read
        )
    )
    found = connection.execute(sql, (*flat(where), PASSED_OVER, *flat(matching), limit)).fetchall()
    return sorted(found, key=lambda row: ask.order.key(*row), reverse=ask.reverse)


def _longer(connection: sqlite3.Connection, where: Sequence[Piece], reverse: bool) -> bool:
    """Whether a stretch goes on beyond what a page may pass over."""
    sql = "".join(
        (
            "SELECT 1 FROM recipients INDEXED BY parked_by_due WHERE ",
            " AND ".join(piece[0] for piece in where),
            " ORDER BY ",
            _DUE[reverse],
            " LIMIT 1 OFFSET ?",
        )
    )
    return connection.execute(sql, (*flat(where), PASSED_OVER)).fetchone() is not None


def _by_destination(connection: sqlite3.Connection, ask: Listing) -> Iterator[Found]:
    """Parked rows, destination after destination in order of name."""
    arrived = ORDERS["arrived"]
    wanted = None if ask.destinations is None else set(ask.destinations)
    present = [
        (name, id) for id, name in connection.execute(PRESENT_DESTINATIONS).fetchall() if wanted is None or id in wanted
    ]
    for name, id in sorted(present, reverse=ask.reverse):
        at = None
        if ask.start is not None:
            if name == ask.start.value:
                at = ask.start
            elif (name < ask.start.value) != ask.reverse:
                continue
        legs = by_arrival(ask.query, by_destination([id], ask.states), (), ask.reverse, at, ask.limit)
        runs = [connection.execute(one.sql, one.values).fetchall() for one in legs]
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
    found = look_up(connection, ask.query, rows, ask.destinations, ask.active, column=order.column, parked=parked)
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

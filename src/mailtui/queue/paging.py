"""Pages of the queue by key: sort orders, cursors, and the ordered runs of parked rows that a page is merged from.

A *leg* is one SELECT over parked rows, in order, limited to a page, continued by key. Rows of one state (or of one
destination and state) are adjacent in an index, so a page without further conditions is a merge of at most a few legs
of a page each, whatever the length of the queue. With further conditions one leg goes through the queue in order and
stops when the page is full.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mailtui import ids
from mailtui.model import State
from mailtui.queue.query import MOST_DESTINATIONS, Query, QueryError

# Ascending keys for merging. Both directions of a sort use the same key.
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A sort order: a letter for its cursors, and the key of a row from (value sorted by, message, ordinal)."""

    name: str
    letter: str
    key: Callable[[Any, int, int], Key]


def _soonest(due: float | None, message: int, ordinal: int) -> Key:
    return (due is None, due or 0.0, message, ordinal)  # what is never tried comes last


def _largest(value: int, message: int, ordinal: int) -> Key:
    return (-value, -message, -ordinal)


ORDERS = {
    order.name: order
    for order in (
        Order("arrived", "a", lambda _, message, ordinal: (-message, -ordinal)),  # newest first
        Order("next_attempt", "n", _soonest),
        Order("destination", "d", lambda name, message, ordinal: (name, -message, -ordinal)),
        Order("size", "s", _largest),
        Order("attempts", "t", _largest),  # most first
    )
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a listing goes on: after the row with this key."""

    value: Any
    message: int
    ordinal: int


def order_named(name: str) -> Order:
    """The sort order of this name; QueryError names the known ones."""
    try:
        return ORDERS[name]
    except KeyError:
        raise QueryError(f"unknown sort field {name!r}; known: {' '.join(ORDERS)}") from None


def cursor(order: Order, value: Any, message: int, ordinal: int) -> str:
    """The position of a row as text without blanks: for people and scripts opaque."""
    text = "" if value is None or order.name == "arrived" else f"{value}"
    return f"{order.letter}{text}~{ids.rid(message, ordinal)}"


def position(order: Order, text: str) -> Position | None:
    """The position that a cursor names, None for an empty one; QueryError if it is none, or of another order."""
    if not text:
        return None
    try:
        value, _, rid = text.rpartition("~")
        message, ordinal = ids.parse(rid)
        if value[:1] != order.letter or ordinal is None or not text.isascii():
            raise ValueError
        return Position(_VALUES[order.name](value[1:]), message, ordinal)
    except ValueError:
        raise QueryError(f"not a cursor of a listing by {order.name}; use the cursor of one of its rows") from None


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError
    return value


_VALUES: dict[str, Callable[[str], Any]] = {
    "arrived": lambda text: None,
    "next_attempt": lambda text: float(text) if text else None,
    "destination": str,
    "size": _integer,
    "attempts": _integer,
}


@dataclass(frozen=True, slots=True)
class Leg:
    """One ordered SELECT; its rows are (value sorted by, message, ordinal)."""

    sql: str
    values: tuple[Any, ...]


def legs(
    query: Query,
    order: Order,
    reverse: bool,
    destinations: Sequence[int] | None,
    start: Position | None,
    limit: int,
) -> list[Leg]:
    """The legs whose merge is the page of parked rows after `start`; `destinations` are interned (None: any).

    The order `destination` has no legs of its own: it goes through `arrived` once a destination.
    """
    states = [state for state in State if state.name.lower() in query.states]
    if not states or (destinations is not None and not destinations):
        return []
    if order.name == "arrived":
        return _by_arrival(query, reverse, destinations, states, start, limit)
    if order.name == "next_attempt":
        return _by_due(query, reverse, destinations, states, start, limit)
    return [_sorted(query, order, reverse, destinations, states, start, limit)]


def _by_arrival(
    query: Query,
    reverse: bool,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    start: Position | None,
    limit: int,
) -> list[Leg]:
    where = [*_range(query, reverse, start), *_conditions(query)]
    adjacent: list[list[tuple[str, Any]]]
    if destinations is not None and len(destinations) <= MOST_DESTINATIONS:
        adjacent = [[("state = ?", int(s)), ("destination = ?", d)] for d in destinations for s in states]
    elif destinations is None and not query.conditions:
        adjacent = [[("state = ?", int(s))] for s in states]
    else:
        adjacent = [[_some("state", states), *([_some("destination", destinations)] if destinations else [])]]
    tail = _order(("message", "ordinal"), descending=not reverse)
    return [_leg("NULL", query.envelope, [*equal, *where], tail, limit) for equal in adjacent]


def _by_due(
    query: Query,
    reverse: bool,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    start: Position | None,
    limit: int,
) -> list[Leg]:
    """Rows with a due time and rows without: two stretches of the index."""
    within = [("message >= ?", query.low), ("message < ?", query.high)] if _bounded(query) else []
    filters = [*within, *_conditions(query)]
    if destinations is None:
        places: list[list[tuple[str, Any]]] = [[]]
    elif len(destinations) <= MOST_DESTINATIONS:
        places = [[("destination = ?", d)] for d in destinations]
    else:
        places = [[_some("destination", destinations)]]
    comparison = "<" if reverse else ">"
    made: list[Leg] = []
    timed = [s for s in states if s in (State.QUEUED, State.DEFERRED)]
    if timed and (start is None or reverse or start.value is not None):
        where: list[tuple[str, Any]] = [("due IS NOT NULL", ())]
        if start is not None and start.value is not None:
            where = [(f"(due, message, ordinal) {comparison} (?, ?, ?)", (start.value, start.message, start.ordinal))]
        if len(timed) == 1:
            where.append(("+state = ?", int(timed[0])))
        tail = _order(("due", "message", "ordinal"), descending=reverse)
        made += [_leg("due", query.envelope, [*place, *where, *filters], tail, limit) for place in places]
    untimed = [s for s in states if s in (State.HELD, State.LEAVING)]
    if untimed and (start is None or not reverse or start.value is None):
        where = [("due IS NULL", ()), _some("state", untimed)]
        if start is not None and start.value is None:
            where.append((f"(message, ordinal) {comparison} (?, ?)", (start.message, start.ordinal)))
        tail = _order(("message", "ordinal"), descending=reverse)
        made += [_leg("NULL", query.envelope, [*place, *where, *filters], tail, limit) for place in places]
    return made


def _sorted(
    query: Query,
    order: Order,
    reverse: bool,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    start: Position | None,
    limit: int,
) -> Leg:
    """By a column that no index has: every parked row is looked at."""
    where: list[tuple[str, Any]] = [_some("state", states)]
    if destinations is not None:
        where.append(_some("destination", destinations))
    if _bounded(query):
        where += [("message >= ?", query.low), ("message < ?", query.high)]
    if start is not None:
        comparison = ">" if reverse else "<"
        where.append(
            (f"({order.name}, message, ordinal) {comparison} (?, ?, ?)", (start.value, start.message, start.ordinal))
        )
    tail = _order((order.name, "message", "ordinal"), descending=not reverse)
    return _leg(order.name, query.envelope or order.name == "size", [*where, *_conditions(query)], tail, limit)


def _bounded(query: Query) -> bool:
    return query.after is not None or query.before is not None


def _range(query: Query, reverse: bool, start: Position | None) -> list[tuple[str, Any]]:
    """The stretch of the primary key after `start` and within the query's ages, as one range."""
    after = (start.message, start.ordinal) if start is not None else None
    newest, oldest = (query.high, -1), (query.low, -1)
    if reverse:
        lowest = oldest if after is None else max(oldest, after)
        return [("(message, ordinal) > (?, ?)", lowest), ("message < ?", query.high)]
    highest = newest if after is None else min(newest, after)
    return [("(message, ordinal) < (?, ?)", highest), ("message >= ?", query.low)]


def _some(column: str, values: Sequence[int]) -> tuple[str, str]:
    # The plus sign keeps the condition a filter: as a set of look-ups it would lose the order.
    return "".join(("+", column, " IN (SELECT value FROM json_each(?))")), json.dumps([int(v) for v in values])


def _conditions(query: Query) -> list[tuple[str, Any]]:
    return [(c.sql, c.values) for c in query.conditions]


def _order(columns: Sequence[str], *, descending: bool) -> str:
    return " ORDER BY " + ", ".join(f"{c} DESC" if descending else c for c in columns) + " LIMIT ?"


def _leg(value: str, envelope: bool, where: Sequence[tuple[str, Any]], tail: str, limit: int) -> Leg:
    """Put the constant pieces together; a piece's values are one value or a tuple of them."""
    source = " FROM recipients CROSS JOIN messages ON messages.id = message" if envelope else " FROM recipients"
    sql = "".join(
        (
            "SELECT ",
            value,
            ", message, ordinal",
            source,
            " WHERE claim = 0 AND ",
            " AND ".join(w[0] for w in where),
            tail,
        )
    )
    values: list[Any] = []
    for _, piece in where:
        values += piece if isinstance(piece, tuple) else (piece,)
    return Leg(sql, (*values, limit))

"""Sort orders of the queue, their cursors, and pages that an index holds in order.

A *leg* is one SELECT over parked rows, in order, limited to a page, continued by key. Rows of one state (or of one
destination and state, one next hop, one sender ...) are adjacent in an index in the order of arrival, so such a page
is a merge of at most a few legs of a page each, whatever the length of the queue.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mailtui import ids
from mailtui.model import State
from mailtui.queue.conditions import QueryError
from mailtui.queue.query import Query

# The table in the order of its primary key. Without this the planner may prefer an index (NOT INDEXED means nothing for
# a table WITHOUT ROWID); SQLite names the index of a primary key so.
TABLE = "recipients INDEXED BY sqlite_autoindex_recipients_1"

# A piece of WHERE and its value, or a tuple of its values.
Piece = tuple[str, Any]

# States with a next attempt.
TIMED = (State.QUEUED, State.DEFERRED)

# Ascending keys for merging. Both directions of a sort use the same key.
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """A sort order: a letter for its cursors, the column of the value sorted by, and the key of a row from (that value,
    message, ordinal). Values rise or fall; among equal ones the newest stand first, by next attempt the oldest."""

    name: str
    letter: str
    column: str
    key: Callable[[Any, int, int], Key]

    def by(self, reverse: bool) -> str:
        """ORDER BY and LIMIT of a page."""
        up, down = ("DESC", "ASC") if reverse else ("ASC", "DESC")
        if self.name == "next_attempt":
            return f" ORDER BY due IS NULL {up}, due {up}, message {up}, ordinal {up} LIMIT ?"
        if self.name == "destination":
            return f" ORDER BY name {up}, message {down}, ordinal {down} LIMIT ?"
        first = "" if self.name == "arrived" else f"{self.column} {down}, "
        return f" ORDER BY {first}message {down}, ordinal {down} LIMIT ?"

    def beyond(self, reverse: bool, at: "Position") -> Piece:
        """What comes after a position."""
        key = (at.message, at.ordinal)
        up, down = ("<", ">") if reverse else (">", "<")
        if self.name == "arrived":
            return f"(message, ordinal) {down} (?, ?)", key
        if self.name == "destination":
            return f"(name {up} ? OR (name = ? AND (message, ordinal) {down} (?, ?)))", (at.value, at.value, *key)
        if self.name != "next_attempt":
            return f"({self.column}, message, ordinal) {down} (?, ?, ?)", (at.value, *key)
        # What has no next attempt comes last, or first when reversed.
        other = "due IS NOT NULL" if reverse else "due IS NULL"
        if at.value is None:
            same = f"(due IS NULL AND (message, ordinal) {up} (?, ?))"
            return (f"({same} OR {other})" if reverse else same), key
        same = f"(due, message, ordinal) {up} (?, ?, ?)"
        return (same if reverse else f"({same} OR {other})"), (at.value, *key)

    def within(self, reverse: bool, value: Any) -> Piece | None:
        """What does not come after every row with this value; None for anything."""
        up, down = (">=", "<=") if reverse else ("<=", ">=")
        if self.name == "arrived":
            return None
        if self.name == "next_attempt":
            if value is None:
                return ("due IS NULL", ()) if reverse else None
            return (f"(due IS NULL OR due {up} ?)" if reverse else f"due {up} ?"), value
        return f"{self.column} {up if self.name == 'destination' else down} ?", value


def _soonest(due: float | None, message: int, ordinal: int) -> Key:
    return (due is None, due or 0.0, message, ordinal)  # what is never tried comes last


def _largest(value: int, message: int, ordinal: int) -> Key:
    return (-value, -message, -ordinal)


ORDERS = {
    order.name: order
    for order in (
        Order("arrived", "a", "NULL", lambda _, message, ordinal: (-message, -ordinal)),  # newest first
        Order("next_attempt", "n", "due", _soonest),
        Order("destination", "d", "name", lambda name, message, ordinal: (name, -message, -ordinal)),
        Order("size", "s", "size", _largest),
        Order("attempts", "t", "attempts", _largest),  # most first
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
class Stretch:
    """Part of an index of parked rows (`""`: of the table); `ordered`: its rows stand in the order of arrival."""

    index: str
    where: tuple[Piece, ...]
    ordered: bool = True

    @property
    def source(self) -> str:
        return f"recipients INDEXED BY {self.index}" if self.index else TABLE


@dataclass(frozen=True, slots=True)
class Leg:
    """One ordered SELECT; its rows are (value sorted by, message, ordinal)."""

    sql: str
    values: tuple[Any, ...]


def by_arrival(
    query: Query,
    stretches: Sequence[Stretch],
    states: Sequence[State],
    reverse: bool,
    start: Position | None,
    limit: int,
) -> list[Leg]:
    """The newest first (or the oldest) of ordered stretches; `states` are filtered by where there are any."""
    where = [*_range(query, reverse, start), *conditions(query)]
    if states:
        where.append(stands(states))
    order = ORDERS["arrived"]
    return [
        leg(order, s.source, [*s.where, *where], order.by(reverse), limit, envelope=query.envelope) for s in stretches
    ]


def by_due(
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    resting: Sequence[Stretch],
    reverse: bool,
    start: Position | None,
    limit: int,
) -> list[Leg]:
    """The soonest first (or the latest). `resting` are ordered stretches of what has no due time."""
    filters = [*ages(query), *conditions(query)]
    index = "parked_by_due" if destinations is None else "parked_by_destination"
    places: list[list[Piece]] = [[]] if destinations is None else [[("destination = ?", d)] for d in destinations]
    source = f"recipients INDEXED BY {index}"
    order = ORDERS["next_attempt"]
    up, comparison = ("DESC", "<") if reverse else ("ASC", ">")
    tail = f" ORDER BY due {up}, message {up}, ordinal {up} LIMIT ?"
    made: list[Leg] = []
    timed = [s for s in states if s in TIMED]
    if timed and (start is None or reverse or start.value is not None):
        where: list[Piece] = [("due IS NOT NULL", ())]
        if start is not None and start.value is not None:
            where = [(f"(due, message, ordinal) {comparison} (?, ?, ?)", (start.value, start.message, start.ordinal))]
        if len(timed) == 1:
            where.append(("+state = ?", int(timed[0])))
        made += [
            leg(order, source, [*place, *where, *filters], tail, limit, envelope=query.envelope) for place in places
        ]
    if not query.timed and (start is None or not reverse or start.value is None):
        where = []
        if start is not None and start.value is None:
            where = [(f"(message, ordinal) {comparison} (?, ?)", (start.message, start.ordinal))]
        tail = f" ORDER BY message {up}, ordinal {up} LIMIT ?"
        made += [
            leg(order, s.source, [*s.where, *where, *filters], tail, limit, envelope=query.envelope) for s in resting
        ]
    return made


def _range(query: Query, reverse: bool, start: Position | None) -> list[Piece]:
    """The stretch of the primary key after `start` and within the query's ages, as one range."""
    after = (start.message, start.ordinal) if start is not None else None
    newest, oldest = (query.high, -1), (query.low, -1)
    if reverse:
        lowest = oldest if after is None else max(oldest, after)
        return [("(message, ordinal) > (?, ?)", lowest), ("message < ?", query.high)]
    highest = newest if after is None else min(newest, after)
    return [("(message, ordinal) < (?, ?)", highest), ("message >= ?", query.low)]


def some(column: str, values: Iterable[int]) -> Piece:
    """The column has one of these values: a filter, for as a set of look-ups (no plus sign) it would lose the order."""
    return "".join(("+", column, " IN (SELECT value FROM json_each(?))")), json.dumps([int(v) for v in values])


def stands(states: Iterable[State]) -> Piece:
    """The state is one of these: a bit of a mask, for a list costs three times as much a row."""
    return "(? >> state) & 1", sum(1 << state for state in states)


def ages(query: Query) -> list[Piece]:
    """The ages that the query asks for, as a range of the primary key."""
    return [("message >= ?", query.low), ("message < ?", query.high)] if query.aged else []


def conditions(query: Query) -> list[Piece]:
    return [(c.sql, c.values) for c in query.conditions]


def leg(
    order: Order,
    source: str,
    where: Sequence[Piece],
    tail: str,
    limit: int,
    *,
    envelope: bool = False,
) -> Leg:
    """A leg from its constant pieces. `source` is what stands after FROM; `envelope`: conditions need the message."""
    joins = [source]
    if (envelope or order.column == "size") and not source.startswith("messages"):
        joins.append(" CROSS JOIN messages ON messages.id = message")
    if order.column == "name":
        joins.append(" CROSS JOIN domains ON domains.id = destination")
    pieces = [("claim = 0", ()), *where]
    sql = "".join(
        (
            "SELECT ",
            order.column,
            ", message, ordinal FROM ",
            *joins,
            " WHERE ",
            " AND ".join(piece[0] for piece in pieces),
            tail,
        )
    )
    return Leg(sql, (*flat(pieces), limit))


def flat(pieces: Iterable[Piece]) -> list[Any]:
    """The values of pieces, one after another."""
    values: list[Any] = []
    for _, piece in pieces:
        values += piece if isinstance(piece, tuple) else (piece,)
    return values

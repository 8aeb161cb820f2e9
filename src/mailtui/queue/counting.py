"""Counting: the whole queue from counters and totals, anything else through its index or a scan."""

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from mailtui.model import State
from mailtui.queue.listing import look_up
from mailtui.queue.query import Query
from mailtui.queue.rows import Counts, Rid, Totals
from mailtui.queue.tables.messages import BYTES, GET_META, MESSAGES

EACH_STATE = "SELECT state, SUM(recipients) FROM counters WHERE destination = 0 GROUP BY state"

# Named recipients by state on disk, if they are still claimed. The parameter is JSON: [[message, ordinal], ...].
STATES_OF = """
SELECT state, COUNT(*) FROM json_each(?) AS wanted
CROSS JOIN recipients
  ON message = json_extract(wanted.value, '$[0]') AND ordinal = json_extract(wanted.value, '$[1]')
WHERE claim <> 0 GROUP BY state
"""

# Messages of which nothing but leaving recipients is left.
LEAVING_WHOLE = """
SELECT COUNT(*), COALESCE(SUM(size), 0)
FROM (SELECT DISTINCT message FROM recipients WHERE claim = 0 AND state = 3) AS leaving
CROSS JOIN messages ON messages.id = leaving.message
WHERE NOT EXISTS (SELECT 1 FROM recipients AS other WHERE other.message = leaving.message AND other.state <> 3)
"""

OLDEST = """
SELECT arrived FROM messages
WHERE id = (SELECT message FROM recipients WHERE state < 3 ORDER BY message, ordinal LIMIT 1)
"""


def meta(connection: sqlite3.Connection, key: str) -> int:
    found = connection.execute(GET_META, (key,)).fetchone()
    return int(found[0]) if found else 0


def count(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    claimed: Collection[Rid],
    active: frozenset[Rid],
) -> Counts:
    """How much matches; a message counts once, whether its matching recipients are parked or claimed."""
    if query.everything:
        states = _states(connection)
        messages, octets = _present(connection, states)
        return Counts(messages, sum(states.values()) - states[State.LEAVING], octets)
    if query.rows is not None:
        found = look_up(connection, query, query.rows, destinations, active, column="size", parked=True)
        sizes = {message: size for message, _, size in found}
        return Counts(len(sizes), len(found), sum(sizes.values()))
    named = [(message, ordinal, ordinal) for message, ordinal in claimed]
    found = look_up(connection, query, named, destinations, active, column="size", parked=False)
    sizes = {message: size for message, _, size in found}
    parked = _parked(query, destinations)
    if parked is None:
        return Counts(len(sizes), len(found), sum(sizes.values()))
    where, values = parked
    if sizes:
        also = "".join(("SELECT DISTINCT message", where, " AND message IN (SELECT value FROM json_each(?))"))
        for row in connection.execute(also, (*values, json.dumps(list(sizes)))).fetchall():
            del sizes[row[0]]
    sql = "".join(
        (
            "SELECT COUNT(*), COALESCE(SUM(n), 0), COALESCE(SUM(size), 0) FROM (SELECT message, COUNT(*) AS n",
            where,
            " GROUP BY message) AS matched CROSS JOIN messages ON messages.id = matched.message",
        )
    )
    messages, recipients, octets = connection.execute(sql, values).fetchone()
    return Counts(messages + len(sizes), recipients + len(found), octets + sum(sizes.values()))


def totals(connection: sqlite3.Connection, active: frozenset[Rid]) -> Totals:
    """The queue in figures. Active recipients are `queued` or `deferred` on disk and count as `active` here."""
    states = _states(connection)
    messages, octets = _present(connection, states)
    recipients = sum(states.values()) - states[State.LEAVING]
    busy = 0
    for state, number in connection.execute(STATES_OF, (json.dumps(sorted(active)),)).fetchall():
        states[State(state)] -= number
        busy += number
    oldest = connection.execute(OLDEST).fetchone()
    return Totals(
        queued=states[State.QUEUED],
        active=busy,
        deferred=states[State.DEFERRED],
        held=states[State.HELD],
        leaving=states[State.LEAVING],
        messages=messages,
        recipients=recipients,
        bytes=octets,
        oldest=oldest[0] if oldest else None,
    )


def _states(connection: sqlite3.Connection) -> dict[State, int]:
    counts = dict.fromkeys(State, 0)
    for state, recipients in connection.execute(EACH_STATE).fetchall():
        counts[State(state)] = recipients
    return counts


def _present(connection: sqlite3.Connection, states: dict[State, int]) -> tuple[int, int]:
    """(messages, octets) of which something is not leaving."""
    messages, octets = meta(connection, MESSAGES), meta(connection, BYTES)
    if states[State.LEAVING]:
        gone = connection.execute(LEAVING_WHOLE).fetchone()
        messages, octets = messages - gone[0], octets - gone[1]
    return messages, octets


def _parked(query: Query, destinations: Sequence[int] | None) -> tuple[str, tuple[Any, ...]] | None:
    """FROM and WHERE of all parked rows that match, with its values; None if none can."""
    states = [int(state) for state in State if state.name.lower() in query.states]
    if not states or (destinations is not None and not destinations):
        return None
    pieces = [" FROM recipients"]
    if query.envelope:
        pieces.append(" CROSS JOIN messages ON messages.id = message")
    pieces.append(" WHERE claim = 0 AND message >= ? AND message < ?")
    values: list[Any] = [query.low, query.high]
    # One state, or destinations, are led by their index; otherwise rows are met in order of message, as they stand.
    if len(states) == 1:
        pieces.append(" AND state = ?")
        values.append(states[0])
    else:
        pieces.append(" AND +state IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(states))
    if destinations is not None:
        pieces.append(" AND destination IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(list(destinations)))
    for condition in query.conditions:
        pieces.append(f" AND {condition.sql}")
        values += condition.values
    return "".join(pieces), tuple(values)

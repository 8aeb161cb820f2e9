"""Counting: the whole queue from counters and totals, anything else through its index or a scan."""

import json
import sqlite3
from collections.abc import Collection, Sequence

from mailtui.model import State
from mailtui.queue.leads import filters, gather, short, states_of
from mailtui.queue.listing import look_up
from mailtui.queue.paging import ORDERS, TABLE, ages, flat
from mailtui.queue.query import Query
from mailtui.queue.rows import Counts, Rid, Totals
from mailtui.queue.tables.messages import BYTES, GET_META, LEAVING_BYTES, LEAVING_MESSAGES, MESSAGES
from mailtui.queue.windows import Pace, grouped

EACH_STATE = "SELECT state, recipients FROM sums WHERE destination = 0"

# Named recipients by state on disk, if they are still claimed. The parameter is JSON: [[message, ordinal], ...].
STATES_OF = """
SELECT state, COUNT(*) FROM json_each(?) AS wanted
CROSS JOIN recipients
  ON message = json_extract(wanted.value, '$[0]') AND ordinal = json_extract(wanted.value, '$[1]')
WHERE claim <> 0 GROUP BY state
"""

EACH_MESSAGE = (
    "SELECT COUNT(*), COALESCE(SUM(n), 0), COALESCE(SUM(octets), 0) FROM (SELECT COUNT(*) AS n, size AS octets"
)

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
    pace: Pace,
) -> Counts:
    """How much matches; a message counts once, whether its matching recipients are parked or claimed."""
    if query.everything:
        states = _states(connection)
        messages, octets = _present(connection)
        return Counts(messages, sum(states.values()) - states[State.LEAVING], octets)
    states_asked = states_of(query)
    parked = query.rows is not None
    rows = query.rows if query.rows is not None else [(message, ordinal, ordinal) for message, ordinal in claimed]
    found = look_up(connection, query, rows, destinations, active, column="size", parked=parked)
    sizes = {message: size for message, _, size in found}
    if parked or not states_asked or destinations == []:
        return Counts(len(sizes), len(found), sum(sizes.values()))
    stretches, _ = short(connection, query, destinations, states_asked)
    if stretches is not None:
        once = {(message, ordinal): size for message, ordinal, size in found}
        for leg in gather(query, stretches, destinations, states_asked, ORDERS["size"], False, None, -1):
            once.update(((row[1], row[2]), row[0]) for row in connection.execute(leg.sql, leg.values).fetchall())
        sizes = {rid[0]: size for rid, size in once.items()}
        return Counts(len(sizes), len(once), sum(sizes.values()))
    for message in _parked_of(connection, query, destinations, states_asked, sizes):
        del sizes[message]
    messages, recipients, octets = len(sizes), len(found), sum(sizes.values())
    for ((more, people, weight),) in grouped(
        connection, query, destinations, states_asked, pace, EACH_MESSAGE, " GROUP BY message)", envelope=True
    ):
        messages, recipients, octets = messages + more, recipients + people, octets + weight
    return Counts(messages, recipients, octets)


def _parked_of(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    messages: Collection[int],
) -> list[int]:
    """Those of these messages that have parked rows which match."""
    source = f"json_each(?) AS wanted CROSS JOIN {TABLE} ON message = wanted.value"
    join = " CROSS JOIN messages ON messages.id = message" if query.envelope else ""
    pieces = [("claim = 0", ()), *ages(query), *filters(query, destinations, states)]
    sql = "".join(
        ("SELECT DISTINCT message FROM ", source, join, " WHERE ", " AND ".join(piece[0] for piece in pieces))
    )
    return [row[0] for row in connection.execute(sql, (json.dumps(list(messages)), *flat(pieces))).fetchall()]


def totals(connection: sqlite3.Connection, active: frozenset[Rid]) -> Totals:
    """The queue in figures. Active recipients are `queued` or `deferred` on disk and count as `active` here."""
    states = _states(connection)
    messages, octets = _present(connection)
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


def recipients(connection: sqlite3.Connection) -> int:
    """All recipients in the queue, leaving ones too."""
    return sum(_states(connection).values())


def _states(connection: sqlite3.Connection) -> dict[State, int]:
    counts = dict.fromkeys(State, 0)
    for state, recipients in connection.execute(EACH_STATE).fetchall():
        counts[State(state)] = recipients
    return counts


def _present(connection: sqlite3.Connection) -> tuple[int, int]:
    """(messages, octets) of which something is not leaving."""
    return (
        meta(connection, MESSAGES) - meta(connection, LEAVING_MESSAGES),
        meta(connection, BYTES) - meta(connection, LEAVING_BYTES),
    )

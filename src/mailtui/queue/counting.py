"""Counting: the whole queue from counters and totals, anything else through its index or a scan."""

import json
import sqlite3
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mailtui.model import State
from mailtui.queue.leads import filters, gather, short, states_of
from mailtui.queue.listing import look_up
from mailtui.queue.paging import ORDERS, TABLE, ages, flat
from mailtui.queue.query import Query
from mailtui.queue.rows import Counts, Rid, Totals
from mailtui.queue.tables.messages import BYTES, GET_META, MESSAGES
from mailtui.queue.windows import Pace, grouped

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
    whole: "LeavingWhole",
    pace: Pace,
) -> Counts:
    """How much matches; a message counts once, whether its matching recipients are parked or claimed."""
    if query.everything:
        states = _states(connection)
        messages, octets = _present(connection, states, whole, exact=True)
        return Counts(messages, sum(states.values()) - states[State.LEAVING], octets)
    states_asked = states_of(query)
    parked = query.rows is not None
    rows = query.rows if query.rows is not None else [(message, ordinal, ordinal) for message, ordinal in claimed]
    found = look_up(connection, query, rows, destinations, active, column="size", parked=parked)
    sizes = {message: size for message, _, size in found}
    if parked or not states_asked or destinations == []:
        return Counts(len(sizes), len(found), sum(sizes.values()))
    stretches = short(connection, query, destinations, states_asked)
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


def totals(connection: sqlite3.Connection, active: frozenset[Rid], whole: "LeavingWhole") -> Totals:
    """The queue in figures. Active recipients are `queued` or `deferred` on disk and count as `active` here."""
    states = _states(connection)
    messages, octets = _present(connection, states, whole, exact=False)
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


@dataclass(slots=True)
class LeavingWhole:
    """What LEAVING_WHOLE said last: while 50,000 are leaving, the database is asked only now and then."""

    recipients: int = -1  # leaving, when it was asked
    until: float = 0.0
    messages: int = 0
    octets: int = 0

    def ask(self, connection: sqlite3.Connection, recipients: int, *, exact: bool) -> None:
        """Asked anew when the number of leaving recipients has changed; unless `exact`, a twentieth of the time."""
        begun = time.monotonic()
        if recipients == self.recipients or (not exact and begun < self.until):
            return
        self.messages, self.octets = connection.execute(LEAVING_WHOLE).fetchone()
        self.recipients = recipients
        self.until = begun + 20 * (time.monotonic() - begun)


def _present(
    connection: sqlite3.Connection, states: dict[State, int], whole: LeavingWhole, *, exact: bool
) -> tuple[int, int]:
    """(messages, octets) of which something is not leaving."""
    messages, octets = meta(connection, MESSAGES), meta(connection, BYTES)
    if states[State.LEAVING]:
        whole.ask(connection, states[State.LEAVING], exact=exact)
        messages, octets = messages - whole.messages, octets - whole.octets
    return messages, octets

"""By what an index can lead a query, and how much lies there.

Each term that an index knows offers a few stretches which hold whatever it selects. Where they are short, everything
in them is looked at, whatever the order asked for; else it is cheaper to go through an index that has the order, or
through the table itself (0.1 to 0.3 microseconds a row, against 3 to 4 for a row found through an index). An index that
holds all the columns a query looks at is gone through like a table: such a stretch may be long.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence

from mailtui.model import State
from mailtui.queue.conditions import Lead
from mailtui.queue.paging import Leg, Order, Piece, Position, Stretch, ages, conditions, flat, leg, some, stands
from mailtui.queue.query import MOST_DESTINATIONS, Query
from mailtui.queue.tables.messages import ALL, SLOT, sender_domain

# Rows that are looked at one by one: 20 to 40 ms. What is found less often than that among a million rows is short.
SHORT = 10_000

# Entries of an index that has all that is asked for: about 30 ms.
LONG = 200_000

# Rows that are found at once by looking at each; with more of them among a million, going through an index that has the
# order and all that is asked for comes to the end of a page sooner.
RARE = 1000

# So few that it does not matter whether other stretches are shorter still.
FEW = 64

LAST_SLOT = 2**62

# The parameters are JSON lists of destinations and states; the first and the last slot.
SUMMED = """
SELECT COALESCE(SUM(recipients), 0) FROM sums
WHERE destination IN (SELECT value FROM json_each(?)) AND state IN (SELECT value FROM json_each(?))
"""
COUNTED = """
SELECT COALESCE(SUM(recipients), 0) FROM counters
WHERE destination IN (SELECT value FROM json_each(?)) AND state IN (SELECT value FROM json_each(?))
  AND slot BETWEEN ? AND ?
"""
DOMAIN_NAMED = "SELECT id FROM domains WHERE name = ?"
DOMAINS_LIKE = "SELECT id FROM domains WHERE name LIKE ? ESCAPE '\\'"
ANY_LEAVING = "SELECT 1 FROM recipients WHERE claim = 0 AND state = 3 LIMIT 1"

_INDEX = {
    "hop": "parked_by_hop",
    "sender": "parked_by_sender",
    "senders": "parked_by_sender",
    "address": "parked_by_address",
    "msgid": "parked_by_msgid",
    "due_before": "parked_by_due",
    "due_after": "parked_by_due",
}

# What indexes hold besides the key of a row and whether it is claimed.
HELD_BY = {
    "parked_by_due": frozenset(("due", "state", "destination", "hop", "sender_domain")),
    "parked_by_hop": frozenset(("hop", "state")),
    "parked_by_sender": frozenset(("sender_domain", "sender_hash", "state")),
    "parked_by_address": frozenset(("address_hash",)),
    "parked_by_msgid": frozenset(("msgid_hash",)),
}


def covers(index: str, query: Query, destinations: Sequence[int] | None, *columns: str) -> bool:
    """Whether an index holds all columns that a query looks at, and these."""
    held = HELD_BY.get(index, frozenset())
    if (destinations is not None and "destination" not in held) or not held.issuperset(columns):
        return False
    return "state" in held and all(c.columns is not None and c.columns <= held for c in query.conditions)


def destinations_of(connection: sqlite3.Connection, query: Query) -> list[int] | None:
    """The interned destinations that the query names; None if it names none."""
    if query.destinations is None:
        return None
    found: set[int] = set()
    for domains in query.destinations:
        sql = DOMAINS_LIKE if domains.pattern else DOMAIN_NAMED
        found.update(row[0] for row in connection.execute(sql, (domains.text,)).fetchall())
    return sorted(found)


def states_of(query: Query) -> list[State]:
    """The states that parked rows may have to match."""
    return [state for state in State if state.name.lower() in query.states]


def stretches_of(connection: sqlite3.Connection, leads: Sequence[Lead]) -> list[Stretch]:
    """The stretches of one term; a name that is not interned has none."""
    found: dict[Stretch, None] = {}
    for lead in leads:
        number = 0
        if lead.kind in ("sender", "senders"):
            number = sender_domain("@" + lead.name)
        elif lead.name:
            row = connection.execute(DOMAIN_NAMED, (lead.name,)).fetchone()
            if row is None:
                continue
            number = row[0]
        where: tuple[Piece, ...]
        if lead.kind == "hop":
            where = (("hop != 0", ()), ("hop = ?", number))
        elif lead.kind == "sender":
            where = (("sender_domain = ?", number), ("sender_hash = ?", lead.value))
        elif lead.kind == "senders":
            where = (("sender_domain = ?", number),)
        elif lead.kind == "address":
            where = (("address_hash = ?", lead.value),)
        elif lead.kind == "msgid":
            where = (("msgid_hash != 0", ()), ("msgid_hash = ?", lead.value))
        else:
            where = (("due < ?" if lead.kind == "due_before" else "due > ?", lead.value),)
        ordered = lead.kind in ("hop", "sender", "address", "msgid")
        found[Stretch(_INDEX[lead.kind], where, ordered)] = None
    return list(found)


def candidates(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    column: str,
    most: int,
) -> Iterator[tuple[list[Stretch], int, int]]:
    """For each term that an index leads, all the stretches that together hold what it selects, how many rows they have,
    and how many they may have at most to be looked at.

    More than that, or than `most`, are not counted. What counters know costs next to nothing, so it comes first.
    `column`: that the caller selects, "NULL" for none."""
    if destinations is not None and len(destinations) <= MOST_DESTINATIONS:
        yield by_destination(destinations, states), _counted(connection, query, destinations, states), SHORT
    elif destinations is None and query.aged:
        # The ages are a range of the table, and part of every statement.
        yield [Stretch("", ())], size(connection, query, [Stretch("", ())], min(SHORT, most) + 1), SHORT
    elif destinations is None and len(states) == 1:
        yield by_state(states), _counted(connection, query, (ALL,), states), SHORT
    for leads in query.leads:
        stretches = stretches_of(connection, leads)
        columns = () if column == "NULL" else (column,)
        covered = all(covers(stretch.index, query, destinations, *columns) for stretch in stretches)
        allowed = LONG if covered else SHORT
        yield stretches, size(connection, query, stretches, min(allowed, most) + 1, states), allowed


def _counted(connection: sqlite3.Connection, query: Query, destinations: Sequence[int], states: Sequence[State]) -> int:
    """Recipients of these destinations, states and the query's ages, by the counters, rather more than fewer."""
    lists = json.dumps([int(d) for d in destinations]), json.dumps([int(s) for s in states])
    if not query.aged:
        return int(connection.execute(SUMMED, lists).fetchone()[0])
    first = 0 if query.after is None else int(query.after // SLOT)
    last = LAST_SLOT if query.before is None else int(query.before // SLOT)
    return int(connection.execute(COUNTED, (*lists, first, last)).fetchone()[0])


def by_state(states: Sequence[State]) -> list[Stretch]:
    return [Stretch("parked_by_state", (("state = ?", int(state)),)) for state in states]


def by_destination(destinations: Sequence[int], states: Sequence[State]) -> list[Stretch]:
    return [
        Stretch("parked_by_destination_state", (("destination = ?", destination), ("state = ?", int(state))))
        for destination in destinations
        for state in states
    ]


def short(
    connection: sqlite3.Connection,
    query: Query,
    destinations: Sequence[int] | None,
    states: Sequence[State],
    column: str = "size",
    most: int = LONG,
) -> tuple[list[Stretch] | None, int]:
    """The shortest stretches that hold all that matches, if they are short enough (and at most `most`) to look at every
    row for this column of it; and how many rows they have."""
    best: list[Stretch] | None = None
    for stretches, rows, allowed in candidates(connection, query, destinations, states, column, most):
        if rows <= min(most, allowed):
            best, most = stretches if rows else [], rows
            if rows <= FEW:
                break
    return best, most


def size(
    connection: sqlite3.Connection,
    query: Query,
    stretches: Sequence[Stretch],
    most: int,
    states: Sequence[State] | None = None,
) -> int:
    """How many rows the stretches have, counted up to `most`; of these states only, where the index tells."""
    rows = 0
    for stretch in stretches:
        pieces = [("claim = 0", ()), *stretch.where, *ages(query)]
        if states is not None and "state" in HELD_BY.get(stretch.index, ()):
            pieces.append(stands(states))
        sql = "".join(
            (
                "SELECT COUNT(*) FROM (SELECT 1 FROM ",
                stretch.source,
                " WHERE ",
                " AND ".join(piece[0] for piece in pieces),
                " LIMIT ?)",
            )
        )
        rows += connection.execute(sql, (*flat(pieces), most - rows)).fetchone()[0]
        if rows >= most:
            break
    return rows


def filters(query: Query, destinations: Sequence[int] | None, states: Sequence[State]) -> list[Piece]:
    """All that a row must fulfil, wherever it was found."""
    pieces = [stands(states), *conditions(query)]
    if destinations is not None:
        pieces.append(some("destination", destinations))
    return pieces


def gather(
    query: Query,
    stretches: Sequence[Stretch],
    destinations: Sequence[int] | None,
    states: Sequence[State],
    order: Order,
    reverse: bool,
    start: Position | None,
    limit: int,
) -> list[Leg]:
    """Everything in the stretches that matches, sorted, the first `limit` of it. A row may be in several of them."""
    where = [*ages(query), *filters(query, destinations, states)]
    if start is not None:
        where.append(order.beyond(reverse, start))
    return [
        leg(order, s.source, [*s.where, *where], order.by(reverse), limit, envelope=query.envelope) for s in stretches
    ]

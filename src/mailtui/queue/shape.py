"""The queue by age and by destination, as `queue shape` and `dest list` show it.

By destination and by domain the sums know how many there are, and the counters how many of them are young, true to
their five minutes of arrival; by sender, reply and next hop the queue is gone through, window by window. What is
leaving counts nowhere.
"""

import heapq
import itertools
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mailtui.model import State
from mailtui.queue.leads import states_of
from mailtui.queue.query import Query
from mailtui.queue.rows import Rid
from mailtui.queue.tables.messages import SLOT
from mailtui.queue.windows import Pace, grouped

# qshape's: 5, 10, 20 ... 1280 minutes, in seconds.
AGES = tuple(300 * 2**i for i in range(9))

KEYS = ("dest", "domain", "sender", "reply")

# Second-level domains under which names are registered in many countries: example.co.uk is one domain, co.uk is none.
_REGISTRIES = frozenset(("ac", "co", "com", "edu", "gob", "gov", "gv", "mil", "ne", "net", "nom", "or", "org", "sch"))

# Replies differ in numbers and identifiers; this much of what remains tells them apart.
_REPLY_LENGTH = 100
_IDENTIFIER = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|[^\s@]+@[^\s@]+|\S*[0-9]\S*")

# Recipients by destination and age, ages numbered from the youngest. A seek into the counters for each: many times as
# fast as sorting counters into ages one by one. The parameters are JSON: [[first slot, slot after the last], ...], and
# [destination, ...].
YOUNG = """
SELECT destination, ages.number, (
  SELECT SUM(recipients) FROM counters
  WHERE destination = sums.destination AND state = sums.state AND slot >= ages.first AND slot < ages.beyond)
FROM sums CROSS JOIN (
  SELECT key AS number, value ->> 0 AS first, value ->> 1 AS beyond FROM json_each(?) LIMIT -1) AS ages
WHERE destination IN (SELECT value FROM json_each(?)) AND state < 3
"""
# Above any slot of a message.
_NO_SLOT = 2**62

FULLEST = """
SELECT destination, SUM(recipients) AS total FROM sums WHERE destination > 0 AND state < 3
GROUP BY destination HAVING total > 0 ORDER BY total DESC, destination LIMIT ?
"""
BY_STATE = """
SELECT destination, SUM(recipients) AS total, SUM(CASE state WHEN 0 THEN recipients ELSE 0 END),
  SUM(CASE state WHEN 1 THEN recipients ELSE 0 END), SUM(CASE state WHEN 2 THEN recipients ELSE 0 END)
FROM sums WHERE destination IN (SELECT value FROM json_each(?)) AND state < 3
GROUP BY destination HAVING total > 0 ORDER BY total DESC, destination LIMIT ?
"""
NAMES = "SELECT id, name FROM domains WHERE id IN (SELECT value FROM json_each(?))"
IDS = "SELECT id FROM domains WHERE name IN (SELECT value FROM json_each(?))"
ARRIVED = "SELECT arrived FROM messages WHERE id = ?"
OLDEST = """
SELECT message FROM recipients INDEXED BY parked_by_destination_state
WHERE claim = 0 AND destination = ? AND state = ? ORDER BY message LIMIT 1
"""
# Recipients by key that are still claimed. The parameter is JSON: [[message, ordinal], ...].
CLAIMED = """
SELECT destination, hop, state, message, ordinal FROM json_each(?) AS wanted
CROSS JOIN recipients
  ON message = json_extract(wanted.value, '$[0]') AND ordinal = json_extract(wanted.value, '$[1]')
WHERE claim <> 0
"""


@dataclass(frozen=True, slots=True)
class ShapeRow:
    """A line of `queue shape`. `buckets`: for each age in seconds of AGES, how many recipients are older than that."""

    key: str
    total: int
    buckets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A destination or a next hop with recipients in the queue; `oldest` is when the oldest of them arrived.

    `domains`: the destinations that go to this next hop, the fullest first; of a destination, itself.
    """

    name: str
    queued: int
    active: int
    deferred: int
    held: int
    oldest: float | None
    domains: tuple[str, ...]

    @property
    def total(self) -> int:
        return self.queued + self.active + self.deferred + self.held


def by_counters(connection: sqlite3.Connection, by: str, now: float, limit: int) -> list[ShapeRow]:
    """The shape by destination or by domain, the fullest first; `limit` 0 means all."""
    if by == "dest":
        totals = dict(connection.execute(FULLEST, (limit or -1,)).fetchall())
        names = _names(connection, totals)
    else:
        totals = dict(connection.execute(FULLEST, (-1,)).fetchall())
        names = {number: registered(name) for number, name in _names(connection, totals).items()}
        domains: Counter[str] = Counter()
        for number, total in totals.items():
            domains[names[number]] += total
        fullest = heapq.nsmallest(limit or len(domains), domains.items(), key=lambda item: (-item[1], item[0]))
        chosen = {name for name, _ in fullest}
        totals = {number: total for number, total in totals.items() if names[number] in chosen}
    sums: dict[str, list[int]] = {}
    young = _young(connection, totals, now)
    for number, total in totals.items():
        younger = itertools.accumulate(young.get(number, [0] * len(AGES)))
        _add(sums, names[number], [total, *(total - n for n in younger)])
    return _rows(sums)


def _young(connection: sqlite3.Connection, destinations: Iterable[int], now: float) -> dict[int, list[int]]:
    """How many recipients of each destination are of each age, the youngest first; those beyond all ages are left out.

    A slot is older when its middle is: true to half a slot.
    """
    edges = [_NO_SLOT, *(round((now - age) / SLOT) for age in AGES)]
    slots = [(first, beyond) for beyond, first in itertools.pairwise(edges)]
    counts: dict[int, list[int]] = {}
    values = json.dumps(slots), json.dumps(list(destinations))
    for destination, age, recipients in connection.execute(YOUNG, values).fetchall():
        if recipients:
            counts.setdefault(destination, [0] * len(AGES))[age] += recipients
    return counts


def _names(connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, str]:
    return dict(connection.execute(NAMES, (json.dumps(list(numbers)),)).fetchall())


def by_scan(connection: sqlite3.Connection, by: str, now: float, limit: int, pace: Pace) -> list[ShapeRow]:
    """The shape by sender's address or by what the last reply says: parked recipients only, the fullest first.

    Messages stand in the order of arrival, so each age is a range of its own, and rows need only be counted.
    """
    select = "SELECT sender" if by == "sender" else "SELECT last_code, last_enhanced, last_reply"
    bounds = [None, *(now - age for age in AGES), None]
    sums: dict[str, list[int]] = {}
    for number, (before, after) in enumerate(itertools.pairwise(bounds)):
        aged = Query(after=after, before=before)
        met: Counter[tuple[Any, ...]] = Counter()
        for rows in grouped(connection, aged, None, states_of(aged), pace, select, "", envelope=by == "sender"):
            met.update(rows)  # many times as fast as GROUP BY, which sorts
        for said, recipients in met.items():
            key = said[0] or "<>" if by == "sender" else spoken(*said)
            sums.setdefault(key, [0] * (len(AGES) + 1))[number] += recipients
    return _rows({key: _cumulated(counts) for key, counts in sums.items()})[: limit or None]


def _cumulated(counts: Sequence[int]) -> list[int]:
    """From how many are of each age to how many are of at least that age; the first is the total."""
    return list(itertools.accumulate(reversed(counts)))[::-1]


def _add(sums: dict[str, list[int]], key: str, counts: Sequence[int]) -> None:
    held = sums.get(key)
    sums[key] = list(counts) if held is None else [a + b for a, b in zip(held, counts, strict=True)]


def _rows(sums: dict[str, list[int]]) -> list[ShapeRow]:
    rows = [
        ShapeRow(key, total, tuple(zip(AGES, older, strict=True))) for key, (total, *older) in sums.items() if total > 0
    ]
    return sorted(rows, key=lambda row: (-row.total, row.key))


@lru_cache(16384)  # more than a large queue has destinations, for all are asked for each time
def registered(destination: str) -> str:
    """The domain under which a destination was registered, as far as its labels tell: the last two.

    Three in countries that register below co, com, org ... (example.co.uk). A literal stands for itself. Not the Public
    Suffix List: it would be data to keep current, for a grouping that only sums up what is listed beside it.
    """
    if destination.startswith("["):
        return destination
    labels = destination.split(".")
    country = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _REGISTRIES
    return ".".join(labels[-3 if country else -2 :])


@lru_cache(4096)
def spoken(code: int, enhanced: str, reply: str) -> str:
    """What a reply says, without what tells one such reply from another: words with digits, addresses, names."""
    if not code and not reply:
        return "no reply yet"
    text = " ".join(_IDENTIFIER.sub("*", reply).split())[:_REPLY_LENGTH]
    return " ".join(part for part in (str(code) if code else "", enhanced, text) if part)


# destination, total, queued, deferred, held
Sums = tuple[int, int, int, int, int]


def _sums(connection: sqlite3.Connection, names: Collection[str] | None, limit: int) -> list[Sums]:
    """Recipients by destination and state, the fullest first; those leaving count nowhere."""
    if names is None:
        found = connection.execute(FULLEST, (limit,)).fetchall()
    else:
        found = connection.execute(IDS, (json.dumps(list(names)),)).fetchall()
    return connection.execute(BY_STATE, (json.dumps([row[0] for row in found]), limit)).fetchall()


def fullest(connection: sqlite3.Connection, limit: int) -> list[str]:
    """The names of the fullest destinations."""
    totals = dict(connection.execute(FULLEST, (limit,)).fetchall())
    names = _names(connection, totals)
    return [names[number] for number in totals]


def destinations(
    connection: sqlite3.Connection,
    names: Collection[str] | None,
    limit: int,
    claimed: Collection[Rid],
    active: frozenset[Rid],
) -> list[Place]:
    """The fullest destinations (of those with these names), the oldest recipient of each by a look into its index."""
    fullest = _sums(connection, names, limit)
    named = _names(connection, [row[0] for row in fullest])
    taken = _claimed(connection, claimed)
    places = []
    for number, _, *counts in fullest:
        own = [row for row in taken if row[0] == number]
        heads = [min((row[3] for row in own), default=None)]
        for state in states_of(Query()):
            row = connection.execute(OLDEST, (number, int(state))).fetchone()
            heads.append(row[0] if row else None)
        name = named.get(number, "")
        places.append(_place(connection, name, counts, own, active, heads, (name,)))
    return places


def hops(
    connection: sqlite3.Connection,
    limit: int,
    claimed: Collection[Rid],
    active: frozenset[Rid],
    pace: Pace,
) -> list[Place]:
    """The fullest next hops that recipients were tried at, by a scan. What was never planned has none."""
    taken = _claimed(connection, claimed)
    counts: dict[int, list[int]] = {}
    heads: dict[int, int] = {}
    places: dict[int, dict[int, int]] = {}

    def met(hop: int, destination: int, state: int, recipients: int, message: int) -> None:
        counts.setdefault(hop, [0, 0, 0])[state] += recipients
        heads[hop] = min(message, heads.get(hop, message))
        held = places.setdefault(hop, {})
        held[destination] = held.get(destination, 0) + recipients

    everything = Query()
    select = "SELECT hop, destination, state, COUNT(*), MIN(message)"
    group = " AND hop != 0 GROUP BY hop, destination, state"
    for rows in grouped(connection, everything, None, states_of(everything), pace, select, group):
        for row in rows:
            met(*row)
    for destination, hop, state, message, _ in taken:
        if hop and state != State.LEAVING:
            met(hop, destination, state, 1, message)
    fullest = sorted(counts, key=lambda hop: (-sum(counts[hop]), hop))[:limit]
    wanted = {*fullest, *(number for hop in fullest for number in places[hop])}
    named = dict(connection.execute(NAMES, (json.dumps(list(wanted)),)).fetchall())
    made = []
    for hop in fullest:
        own = [row for row in taken if row[1] == hop]
        domains = sorted(places[hop], key=lambda number: (-places[hop][number], number))
        names = tuple(named.get(number, "") for number in domains)
        made.append(_place(connection, named.get(hop, ""), counts[hop], own, active, [heads[hop]], names))
    return made


# destination, hop, state, message, ordinal
_Taken = tuple[int, int, int, int, int]


def _claimed(connection: sqlite3.Connection, claimed: Collection[Rid]) -> list[_Taken]:
    return connection.execute(CLAIMED, (json.dumps(list(claimed)),)).fetchall()


def _place(
    connection: sqlite3.Connection,
    name: str,
    counts: Sequence[int],
    taken: Sequence[_Taken],
    active: frozenset[Rid],
    heads: Iterable[int | None],
    domains: tuple[str, ...],
) -> Place:
    """What is on a connection is queued or deferred on disk, and counts as active."""
    queued, deferred, held = counts
    busy = [row[2] for row in taken if (row[3], row[4]) in active]
    oldest = min((head for head in heads if head is not None), default=None)
    row = None if oldest is None else connection.execute(ARRIVED, (oldest,)).fetchone()
    return Place(
        name,
        queued - busy.count(State.QUEUED),
        len(busy),
        deferred - busy.count(State.DEFERRED),
        held,
        row[0] if row else None,
        domains,
    )

"""What an operator's preview needs to know of many recipients: state, size, destination, and no more.

Promises: a call is one statement that gives one JSON text, so that a thread which asks for many does not take the
interpreter away from the others row by row; nothing is walked but the recipients named.
"""

import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mailtui.queue.read import Reader
from mailtui.queue.rows import Rid

# Recipients in one call: a few milliseconds of the interpreter.
STEP = 2000

# In the order of Chosen. The parameters are JSON: [[message, ordinal], ...] and [name, ...].
CHOSEN = """
SELECT json_group_array(json_array(message, ordinal, state, claim != 0, destination,
  destination IN (SELECT id FROM named) OR (hop != 0 AND hop IN (SELECT id FROM named)),
  COALESCE(leaves, 0) <= :now, size, arrived, sender = '', notify))
FROM json_each(:rids) AS wanted
CROSS JOIN recipients ON message = wanted.value ->> 0 AND ordinal = wanted.value ->> 1
CROSS JOIN messages ON messages.id = message
"""
NAMED = "WITH named AS MATERIALIZED (SELECT id FROM domains WHERE name IN (SELECT value FROM json_each(:names))) "


class Chosen(NamedTuple):
    """A recipient. `state` is that on disk; `named`: its destination or next hop is one of those asked about."""

    message: int
    ordinal: int
    state: int
    claimed: int
    destination: int  # interned
    named: int
    over: int  # if it is leaving: its grace has ended
    size: int
    arrived: float
    null_sender: int
    notify: str  # DSN: NOTIFY as given


def chosen(reader: Reader, rids: Sequence[Rid], now: float, names: Collection[str] = ()) -> list[Chosen]:
    """These recipients, as far as they are in the queue, in any order. At most about STEP a call."""
    values = {"rids": json.dumps(rids), "names": json.dumps(list(names)), "now": now}
    with reader._snapshot():  # the reader's own way of one moment and a deadline
        found = reader._connection.execute(NAMED + CHOSEN, values).fetchone()[0]
    return [Chosen(*row) for row in json.loads(found)]

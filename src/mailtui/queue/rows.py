"""What the reader hands out: plain rows, and the SQL that fetches them by primary key.

Times are seconds since the epoch, sizes octets; names are those of contract.md "JSON fields" where it has them.
"""

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from mailtui.model import Envelope, State
from mailtui.queue.tables.history import RESULTS

Rid = tuple[int, int]  # (message, ordinal)

STATE_NAMES = {state: state.name.lower() for state in State}

# What an operator's `reroute` wrote into recipients.route, told from the match of a route table.
_TARGET = re.compile(r"(?:smtps?|lmtp)://|lmtp:unix:|error:")
_WORDS = re.compile(r"(?:mx|defer|hold|discard)(?:[,|](?:mx|defer|hold|discard|(?:smtps?|lmtp)://.*|lmtp:unix:.*))*")


def override(route: str) -> str:
    """The target that an operator gave by `reroute`, or "": recipients.route is else the match of the route table.

    A match (an address, a domain, `from:` ...) never looks like a target."""
    return route if _TARGET.match(route) or _WORDS.fullmatch(route) else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient in the queue. `id` is the message's number; `cursor` continues a listing after this row."""

    id: int
    ordinal: int
    recipient: str
    sender: str
    subject: str
    message_id: str
    destination: str
    hop: str
    state: str  # queued | active | deferred | held | leaving
    size: int
    arrived: float
    due: float | None  # None when held or leaving
    attempts: int
    last_code: int  # 0: no reply yet
    last_enhanced: str
    last_reply: str
    last_host: str
    route: str
    client: str
    user: str
    held_by: str
    expires: float
    since: float  # of the state, or of the last attempt
    warned: bool
    interruptions: int
    submitter: str
    cursor: str = ""

    @property
    def target(self) -> str:
        """Where an operator sent it (`reroute`); "" if the route table says where it goes."""
        return override(self.route)


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt as kept; `tls` and `delays` have the fields of contract.md `queue show`."""

    id: int
    ordinal: int
    started: float
    finished: float
    reused: bool
    code: int
    host: str
    address: str
    enhanced: str
    reply: str
    tls: Mapping[str, Any]
    delays: Mapping[str, float]
    transcript: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message in the queue without its content. `spooled`: the content is in a spool file."""

    id: int
    envelope: Envelope
    spooled: bool
    recipients: tuple[Row, ...]
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """What became of one recipient; `id` and `ordinal` are 0 for what was refused before it had an id."""

    id: int
    ordinal: int
    sender: str
    recipient: str
    subject: str
    message_id: str
    destination: str
    result: str  # delivered | bounced | deleted | refused
    at: float
    arrived: float
    host: str
    code: int
    enhanced: str
    reply: str
    remote_id: str
    attempts: int
    tls: Mapping[str, Any]
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a query selects; `bytes` are those of the messages, each counted once."""

    messages: int
    recipients: int
    bytes: int


class Totals(TypedDict):
    """The queue as `status` shows it: recipients by state; what is leaving counts in `leaving` only."""

    queued: int
    active: int
    deferred: int
    held: int
    leaving: int
    messages: int
    recipients: int
    bytes: int
    oldest: float | None


# Named recipients with what belongs to them. `rows` is JSON: [[message, ordinal], ...].
NAMED_ROWS = """
SELECT message, ordinal, address, sender, subject, message_id, domains.name, COALESCE(hops.name, ''), state, size,
       arrived, due, attempts, last_code, last_enhanced, last_reply, last_host, route, client, user, held_by, expires,
       since, warned, interruptions, submitter, claim
FROM json_each(:rows) AS wanted
CROSS JOIN recipients
  ON message = json_extract(wanted.value, '$[0]') AND ordinal = json_extract(wanted.value, '$[1]')
CROSS JOIN messages ON messages.id = message
CROSS JOIN domains ON domains.id = destination
LEFT JOIN domains AS hops ON hops.id = hop
"""

RECIPIENTS_OF = "SELECT message, ordinal FROM recipients WHERE message = ? ORDER BY ordinal"

ATTEMPTS_OF = """
SELECT message, ordinal, started, finished, reused, code, host, address, enhanced, reply, tls, delays, transcript
FROM attempts WHERE message = ? ORDER BY seq
"""

# History under the names of the queue's columns, so that a term's SQL serves both.
PAST = """
SELECT seq, message, ordinal, sender, address, subject, message_id, name, result, at, arrived, last_host, last_code,
       last_enhanced, last_reply, remote_id, attempts, tls
FROM (SELECT seq, message, ordinal, destination, result, at, arrived, code AS last_code, attempts, sender,
             recipient AS address, subject, message_id, host AS last_host, enhanced AS last_enhanced,
             reply AS last_reply, remote_id, tls
      FROM history) AS past
LEFT JOIN domains ON domains.id = destination
"""


def state_name(key: Rid, state: int, claim: int, active: frozenset[Rid]) -> str:
    """The state as shown: `active` is known to the running relay only, and never true of a parked row."""
    return "active" if claim and key in active else STATE_NAMES[State(state)]


def rows_of(connection: sqlite3.Connection, cursors: Mapping[Rid, str], active: frozenset[Rid]) -> list[Row]:
    """The rows with these keys (message, ordinal), in their order, each with its cursor; what is gone is left out."""
    found: dict[Rid, Row] = {}
    for r in connection.execute(NAMED_ROWS, {"rows": json.dumps(list(cursors))}).fetchall():
        key = (r[0], r[1])
        state = state_name(key, r[8], r[26], active)
        fields: list[Any] = [*r[:8], state, *r[9:23], bool(r[23]), r[24], r[25], cursors[key]]
        found[key] = Row(*fields)
    return [found[key] for key in cursors if key in found]


def attempt_of(r: tuple[Any, ...]) -> AttemptRow:
    """An attempt from a row of ATTEMPTS_OF."""
    fields: list[Any] = [*r[:4], bool(r[4]), *r[5:10], _object(r[10]), _object(r[11]), r[12]]
    return AttemptRow(*fields)


def history_of(r: tuple[Any, ...]) -> HistoryRow:
    """A row of the history from a row of PAST."""
    fields: list[Any] = [*r[1:7], r[7] or "", RESULTS[r[8]], *r[9:17], _object(r[17]), str(r[0])]
    return HistoryRow(*fields)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}

"""What is over: the history of recipients that left the queue, and the log as far as the disk knows it."""

import heapq
import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from mailtui import ids
from mailtui.queue.conditions import QueryError
from mailtui.queue.query import MOST_DESTINATIONS, Query
from mailtui.queue.rows import PAST, HistoryRow, history_of
from mailtui.queue.tables.history import REFUSED, RESULTS
from mailtui.queue.terms import TERMS

_NEWEST = " ORDER BY seq DESC LIMIT ?"
_LAST_SEQ = 2**63 - 1

JOURNAL = "SELECT at, event, who, command, query, recipients, reason, text FROM journal ORDER BY seq DESC LIMIT ?"

# The attempt that ended in what the history tells is not told twice: the last one of a recipient, with the same code.
# Of twice as many attempts as are wanted, each one left out so stands in the history, which then has enough.
DEFERRALS = """
SELECT finished, message, ordinal, host, code, enhanced, reply FROM attempts AS tried
WHERE seq > (SELECT max(seq) FROM attempts) - ? AND code NOT BETWEEN 200 AND 299
  AND NOT EXISTS (SELECT 1 FROM history AS past
                  WHERE past.message = tried.message AND past.ordinal = tried.ordinal AND past.code = tried.code
                    AND tried.seq = (SELECT max(seq) FROM attempts AS last
                                     WHERE last.message = tried.message AND last.ordinal = tried.ordinal))
ORDER BY seq DESC LIMIT ?
"""

LEFT = """
SELECT at, result, message, ordinal, sender, recipient, host, code, enhanced, reply, remote_id FROM history
ORDER BY seq DESC LIMIT ?
"""


def history_page(
    connection: sqlite3.Connection, query: Query, destinations: Sequence[int] | None, limit: int, after: str
) -> list[HistoryRow]:
    """Newest first, after the row whose cursor is `after`. QueryError for a term that has no past, or a bad cursor."""
    strange = sorted(name for name in query.names if not TERMS[name].past)
    if strange:
        raise QueryError(f"{strange[0]}: means nothing in the history; known there: {_known()}")
    where: list[tuple[str, tuple[Any, ...]]] = [("seq < ?", (_seq(after),))]
    if query.after is not None:
        where.append(("arrived >= ?", (query.after,)))
    if query.before is not None:
        where.append(("arrived < ?", (query.before,)))
    where += [(c.sql, c.values) for c in query.past]
    legs = _legs(query, destinations)
    runs: list[list[tuple[Any, ...]]] = []
    for leg in legs:
        pieces = [*leg, *where]
        sql = "".join((PAST, " WHERE ", " AND ".join(p[0] for p in pieces), _NEWEST))
        runs.append(connection.execute(sql, (*itertools.chain(*(p[1] for p in pieces)), limit)).fetchall())
    newest: Iterator[tuple[Any, ...]] = heapq.merge(*runs, key=lambda r: -int(r[0]))
    rows = (next(same) for _, same in itertools.groupby(newest, key=lambda r: r[0]))  # ID and ID.1 may both be asked
    return [history_of(r) for r in itertools.islice(rows, limit)]


def _legs(query: Query, destinations: Sequence[int] | None) -> list[list[tuple[str, tuple[Any, ...]]]]:
    """Conditions that an index leads by, one leg each; rows of a leg come newest first."""
    if query.rows is not None:
        rows = [[("message = ?", (row[0],)), ("ordinal BETWEEN ? AND ?", row[1:])] for row in query.rows]
        if destinations is not None:
            member = ("+destination IN (SELECT value FROM json_each(?))", (json.dumps(list(destinations)),))
            return [[*row, member] for row in rows]
        return [list(row) for row in rows]
    if destinations is None:
        return [[]]
    if len(destinations) <= MOST_DESTINATIONS:
        return [[("destination = ?", (d,))] for d in destinations]
    return [[("+destination IN (SELECT value FROM json_each(?))", (json.dumps(list(destinations)),))]]


def _seq(after: str) -> int:
    if not after:
        return _LAST_SEQ
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise QueryError("not a cursor of the history; use the cursor of one of its rows")
    return int(after)


def _known() -> str:
    return " ".join(sorted(term.name + term.operators[0] for term in TERMS.values() if term.past))


def log_page(connection: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """The last `limit` entries of journal, deferrals and history, newest last, with the fields of contract.md `log`.

    `at` is in seconds since the epoch; what is empty is left out.
    """
    journal = (
        {
            "at": at,
            "event": event,
            "who": who,
            "command": command,
            "query": query,
            "recipients": recipients,
            "reason": reason,
            "text": text,
        }
        for at, event, who, command, query, recipients, reason, text in reversed(
            connection.execute(JOURNAL, (limit,)).fetchall()
        )
    )
    deferrals = (
        {"at": at, "event": "deferred", **_rid(message, ordinal), "host": host} | _reply(code, enhanced, reply)
        for at, message, ordinal, host, code, enhanced, reply in connection.execute(
            DEFERRALS, (2 * limit, limit)
        ).fetchall()
    )
    left = (
        {"at": at, "event": RESULTS[result], **_rid(message, ordinal), "from": sender, "to": recipient}
        | ({"client": host, "rule": remote} if result == REFUSED else {"host": host, "remote_id": remote})
        | _reply(code, enhanced, reply)
        for at, result, message, ordinal, sender, recipient, host, code, enhanced, reply, remote in connection.execute(
            LEFT, (limit,)
        ).fetchall()
    )
    entries = sorted(itertools.chain(journal, deferrals, left), key=lambda entry: float(entry["at"]))
    return [{k: v for k, v in e.items() if v not in ("", None)} for e in entries[-limit:]] if limit > 0 else []


def _rid(message: int, ordinal: int) -> dict[str, str]:
    return {"id": ids.encode(message), "rid": ids.rid(message, ordinal)} if message else {}


def _reply(code: int, enhanced: str, reply: str) -> dict[str, Any]:
    return {"code": str(code) if code else "", "enhanced": enhanced, "text": reply}

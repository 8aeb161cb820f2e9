"""One transaction of the writer: what its jobs gather is written in bulk at its end.

Promises: within a batch, inserts come before deletes, and counters and totals change together with the rows they
count. Used by the writer only, one batch at a time.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

from mailtui.model import Envelope, Message, Recipient, State
from mailtui.queue.tables import attempts, history, messages

Row = tuple[Any, ...]

# The submitter of what has none: claims go round the submitters "after" the last one served, from "" on.
NOBODY = "-"

# Counters that are looked at in one step, to find those that came to nothing: a millisecond.
COUNTERS_STEP = 10_000

LAST_DESTINATION = 2**62


class Domains:
    """Domain names interned as integers, remembered for the life of the writer."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self.ids: dict[str, int] = dict(conn.execute(messages.SELECT_DOMAINS).fetchall())
        self.names: dict[int, str] = {number: name for name, number in self.ids.items()}
        self._conn = conn
        self._fresh: list[str] = []

    def id(self, name: str) -> int:
        number = self.ids.get(name)
        if number is None:
            cursor = self._conn.execute(messages.INSERT_DOMAIN, (name,))
            number = self.ids[name] = int(cursor.lastrowid or 0)
            self.names[number] = name
            self._fresh.append(name)
        return number

    def committed(self) -> None:
        self._fresh.clear()

    def rolled_back(self) -> None:
        for name in self._fresh:
            del self.names[self.ids.pop(name)]
        self._fresh.clear()


class Transaction:
    """What the jobs of one batch want written. `flush` writes it; the writer begins and commits around it."""

    def __init__(self, conn: sqlite3.Connection, domains: Domains) -> None:
        self.conn = conn
        self.domains = domains
        self.after: list[Callable[[], None]] = []  # run in the writer thread once committed (unlink spool files)
        self._messages: list[Row] = []
        self._bodies: list[Row] = []
        self._recipients: list[Row] = []
        self._history: list[Row] = []
        self._attempts: list[Row] = []
        self._gone_recipients: dict[int, list[tuple[int, int]]] = {}  # by claim
        self._gone_messages: list[int] = []
        self._gone_bodies: list[int] = []
        self._maybe_gone: list[tuple[int, int, Callable[[], None] | None]] = []
        self._counters: dict[tuple[int, int, int], int] = {}
        self._leaving: set[int] = set()  # messages that may leave as a whole now, or no longer
        self._message_count = 0
        self._bytes = 0
        self._last_id = 0

    # -- what jobs call ----------------------------------------------------------------------------------------------

    def add_message(self, message: Message, owner: int) -> None:
        """A new message with its recipients, claimed by `owner` or parked (message.claimed)."""
        e = message.envelope
        flags = (
            (messages.EIGHT_BIT if e.eight_bit else 0)
            | (messages.SMTPUTF8 if e.smtputf8 else 0)
            | (messages.UTF8_HEADER if e.utf8_header else 0)
            | (messages.REQUIRETLS if e.requiretls else 0)
            | (messages.TRUSTED if e.trusted else 0)
            | (messages.SPOOLED if message.body is None else 0)
        )
        self._messages.append(
            (
                message.id, e.sender, e.arrived, e.size, flags, e.client, e.client_name, e.helo, e.user, e.listener,
                e.protocol, e.tls, e.subject, e.message_id, e.ret, e.envid,
            )
        )  # fmt: skip
        if message.body is not None:
            self._bodies.append((message.id, message.body))
        claim = owner if message.claimed else 0
        sender_domain = messages.sender_domain(e.sender)
        sender_hash, msgid_hash = messages.fingerprint(e.sender), messages.fingerprint(e.message_id)
        for r in message.recipients:
            destination = self.domains.id(r.destination)
            self._recipients.append(
                (
                    message.id, r.ordinal, claim, int(r.state), destination, r.due, r.expires, r.attempts,
                    r.interruptions, r.warned, r.last_code, e.arrived, r.address, r.submitter or NOBODY, r.notify,
                    r.orcpt, 0, "", r.held_by, r.last_enhanced, r.last_reply, r.last_host,
                    sender_domain, sender_hash, messages.fingerprint(r.address), msgid_hash,
                )
            )  # fmt: skip
            self.count(destination, r.state, e.arrived, 1)
        self._message_count += 1
        self._bytes += e.size
        if message.id > self._last_id:
            self._last_id = message.id

    def remove(self, message: int, r: Recipient, owner: int, arrived: float) -> None:
        """Take a claimed recipient out of the queue."""
        self._gone_recipients.setdefault(owner, []).append((message, r.ordinal))
        if r.state is State.LEAVING:
            self._leaving.add(message)
        self.count(self.domains.id(r.destination), r.state, arrived, -1)

    def remove_message(self, message: int, size: int, *, whole: bool, unlink: Callable[[], None] | None) -> None:
        """Take a message out with its body. `whole`: it had no recipient but those removed; else that is looked up.

        `unlink` removes its spool file after the commit (None: the body is a row)."""
        if whole:
            self._gone_messages.append(message)
            if unlink is None:
                self._gone_bodies.append(message)
            else:
                self.after.append(unlink)
            self._message_count -= 1
            self._bytes -= size
        else:
            self._maybe_gone.append((message, size, unlink))

    def add_history(self, row: Row) -> None:
        self._history.append(row)

    def add_attempt(self, row: Row) -> None:
        self._attempts.append(row)

    def count(self, destination: int, state: State, arrived: float, change: int) -> None:
        key = (destination, int(state), int(arrived // messages.SLOT))
        self._counters[key] = self._counters.get(key, 0) + change

    def note_leaving(self, message: int) -> None:
        """A recipient of this message is leaving now, or no longer."""
        self._leaving.add(message)

    # -- what the writer calls ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything gathered, in as few statements as may be: each one hands the interpreter to and fro."""
        run = self.conn.execute
        if self._messages:
            _insert(self.conn, _MESSAGES, self._messages)
            _insert(self.conn, _RECIPIENTS, self._recipients)
            _insert(self.conn, _BODIES, self._bodies)
        _insert(self.conn, _ATTEMPTS, self._attempts)
        _insert(self.conn, _HISTORY, self._history)
        for owner, gone in self._gone_recipients.items():
            if run(messages.DELETE_RECIPIENTS, (owner, json.dumps(gone))).rowcount != len(gone):
                raise VoidClaim("a settlement names a claim that is not its own")
        if self._gone_messages:
            run(messages.DELETE_MESSAGES, (json.dumps(self._gone_messages),))
            if self._gone_bodies:
                run(messages.DELETE_BODIES, (json.dumps(self._gone_bodies),))
        for number, size, unlink in self._maybe_gone:
            left = run(messages.STATE_LEFT, (number,)).fetchone()
            if left is not None and left[0] == State.LEAVING:
                self._leaving.add(number)
            if left is None and run(messages.DELETE_MESSAGE, (number,)).rowcount:
                self._message_count -= 1
                self._bytes -= size
                run(messages.DELETE_BODY, (number,))
                if unlink is not None:
                    self.after.append(unlink)
        add_counts(self.conn, self._counters)
        if self._leaving:
            count_leaving(self.conn, self._leaving)
        if self._messages or self._message_count or self._bytes:
            run(messages.COUNT_BATCH, (self._last_id, self._message_count, self._bytes))


def add_counts(conn: sqlite3.Connection, changes: Mapping[tuple[int, int, int], int]) -> None:
    """Add to the counters (destination, state, slot), and to the sums of destinations and of the whole queue."""
    changed = [(*key, change) for key, change in changes.items() if change]
    if not changed:
        return
    conn.execute(messages.ADD_COUNTERS, (json.dumps(changed),))
    sums: dict[tuple[int, int], int] = {}
    for destination, state, _, change in changed:
        for place in (destination, messages.ALL):
            sums[place, state] = sums.get((place, state), 0) + change
    conn.execute(messages.ADD_SUMS, (json.dumps([(*key, change) for key, change in sums.items() if change]),))


def count_leaving(conn: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Find out which of these messages leave as a whole, and keep the totals of such."""
    wanted = json.dumps(sorted(numbers))
    gone = [row[0] for row in conn.execute(messages.DROP_LEAVING_WHOLE, (wanted,)).fetchall()]
    come = [row[0] for row in conn.execute(messages.ADD_LEAVING_WHOLE, (wanted,)).fetchall()]
    if gone or come:
        conn.execute(messages.ADD_META, (messages.LEAVING_MESSAGES, len(come) - len(gone)))
        conn.execute(messages.ADD_META, (messages.LEAVING_BYTES, sum(come) - sum(gone)))


def drop_zero_counters(tx: Transaction, after: int) -> int | None:
    """One step: drop counters of the destinations after this one that came to nothing, and their sums.

    Where the next step goes on; None if this was the last."""
    found = tx.conn.execute(messages.NEXT_COUNTERS, (after, COUNTERS_STEP)).fetchone()
    last = found[0] if found else LAST_DESTINATION
    for sql in (messages.DROP_ZERO_COUNTERS, messages.DROP_ZERO_SUMS):
        tx.conn.execute(sql, (after, last))
    return last if found else None


# Rows of one INSERT: a statement for every number up to this, so that the usual batch takes one statement a table.
MAX_ROWS = 16


def _bulk(single: str) -> tuple[str, ...]:
    """An INSERT of one row as INSERTs of 1, 2, ... MAX_ROWS rows."""
    head, row = single.strip().split("VALUES ")
    return tuple(f"{head}VALUES {', '.join([row] * count)}" for count in range(1, MAX_ROWS + 1))


_MESSAGES = _bulk(messages.INSERT_MESSAGE)
_BODIES = _bulk(messages.INSERT_BODY)
_RECIPIENTS = _bulk(messages.INSERT_RECIPIENT)
_ATTEMPTS = _bulk(attempts.INSERT)
_HISTORY = _bulk(history.INSERT)


def _insert(conn: sqlite3.Connection, statements: tuple[str, ...], rows: list[Row]) -> None:
    for i in range(0, len(rows), MAX_ROWS):
        some = rows[i : i + MAX_ROWS]
        conn.execute(statements[len(some) - 1], list(chain.from_iterable(some)))


class VoidClaim(Exception):
    """A settlement of something that this incarnation of the relay does not own: nothing of it is written."""


def message_of(row: Row, recipients: list[Recipient], body: bytes | None) -> Message:
    """A message as read back from its row (SELECT *)."""
    flags = row[4]
    envelope = Envelope(
        sender=row[1],
        arrived=row[2],
        size=row[3],
        client=row[5],
        client_name=row[6],
        helo=row[7],
        user=row[8],
        listener=row[9],
        protocol=row[10],
        tls=row[11],
        subject=row[12],
        message_id=row[13],
        eight_bit=bool(flags & messages.EIGHT_BIT),
        smtputf8=bool(flags & messages.SMTPUTF8),
        utf8_header=bool(flags & messages.UTF8_HEADER),
        requiretls=bool(flags & messages.REQUIRETLS),
        trusted=bool(flags & messages.TRUSTED),
        ret=row[14],
        envid=row[15],
    )
    return Message(row[0], envelope, recipients, body, claimed=True)

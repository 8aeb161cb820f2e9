"""One transaction of the writer: what its jobs gather is written in bulk at its end.

Promises: within a batch, inserts come before deletes, and counters and totals change together with the rows they
count. Used by the writer thread only.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from mailtui.model import Envelope, Message, Recipient, State
from mailtui.queue.tables import attempts, history, messages

Row = tuple[Any, ...]

# The submitter of what has none: claims go round the submitters "after" the last one served, from "" on.
NOBODY = "-"


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
        self._gone_recipients: list[Row] = []
        self._gone_messages: list[Row] = []
        self._gone_bodies: list[Row] = []
        self._maybe_gone: list[tuple[int, int, Callable[[], None] | None]] = []
        self._counters: dict[tuple[int, int, int], int] = {}
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
        domain = e.sender.rpartition("@")[2].lower()
        sender_domain = self.domains.id(domain) if domain else 0
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
        self._gone_recipients.append((message, r.ordinal, owner))
        self.count(self.domains.id(r.destination), r.state, arrived, -1)

    def remove_message(self, message: int, size: int, *, whole: bool, unlink: Callable[[], None] | None) -> None:
        """Take a message out with its body. `whole`: it had no recipient but those removed; else that is looked up.

        `unlink` removes its spool file after the commit (None: the body is a row)."""
        if whole:
            self._gone_messages.append((message,))
            if unlink is None:
                self._gone_bodies.append((message,))
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

    # -- what the writer calls ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write everything gathered."""
        many = self.conn.executemany
        if self._messages:
            many(messages.INSERT_MESSAGE, self._messages)
            many(messages.INSERT_RECIPIENT, self._recipients)
            if self._bodies:
                many(messages.INSERT_BODY, self._bodies)
            self.conn.execute(messages.RAISE_META, (messages.LAST_ID, self._last_id))
        if self._attempts:
            many(attempts.INSERT, self._attempts)
        if self._history:
            many(history.INSERT, self._history)
        if self._gone_recipients:
            gone = many(messages.DELETE_RECIPIENT, self._gone_recipients).rowcount
            if gone != len(self._gone_recipients):
                raise VoidClaim(f"{len(self._gone_recipients) - gone} settlements name a claim that is not theirs")
        if self._gone_messages:
            many(messages.DELETE_MESSAGE, self._gone_messages)
            if self._gone_bodies:
                many(messages.DELETE_BODY, self._gone_bodies)
        for number, size, unlink in self._maybe_gone:
            left = self.conn.execute(messages.HAS_RECIPIENTS, (number,)).fetchone()
            if left is None and self.conn.execute(messages.DELETE_MESSAGE, (number,)).rowcount:
                self._message_count -= 1
                self._bytes -= size
                self.conn.execute(messages.DELETE_BODY, (number,))
                if unlink is not None:
                    self.after.append(unlink)
        for (_, state, slot), change in list(self._counters.items()):
            key = (messages.ALL, state, slot)
            self._counters[key] = self._counters.get(key, 0) + change
        changed = [(*key, change) for key, change in self._counters.items() if change]
        if changed:
            many(messages.ADD_COUNTER, changed)
        if self._message_count or self._bytes:
            many(messages.ADD_META, ((messages.MESSAGES, self._message_count), (messages.BYTES, self._bytes)))


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
        requiretls=bool(flags & messages.REQUIRETLS),
        trusted=bool(flags & messages.TRUSTED),
        ret=row[14],
        envid=row[15],
    )
    return Message(row[0], envelope, recipients, body, claimed=True)

"""A queue database filled row by row from the schema constants, with counters and totals kept in step."""

import json
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mailtui.ids import IdSource
from mailtui.model import Envelope, Message, Recipient, State
from mailtui.queue.database import open_writer, path_of
from mailtui.queue.tables import attempts, history, journal, messages
from mailtui.queue.transaction import add_counts, count_leaving

NOW = 1_700_000_000.0


@cache
def empty() -> bytes:
    """A database as the relay makes it, with nothing in it and no word of a clean stop."""
    with tempfile.TemporaryDirectory() as directory:
        connection = open_writer(Path(directory))
        connection.execute("DELETE FROM meta").close()
        connection.close()
        return path_of(Path(directory)).read_bytes()


@dataclass
class Filled:
    """A database under `state_dir`; `add` and friends write, the reader under test reads."""

    state_dir: Path
    connection: sqlite3.Connection = field(init=False)
    domains: dict[str, int] = field(default_factory=dict)
    ids: IdSource = field(default_factory=IdSource)

    def __post_init__(self) -> None:
        path_of(self.state_dir).write_bytes(empty())
        self.connection = sqlite3.connect(path_of(self.state_dir), isolation_level=None, check_same_thread=False)

    @property
    def spool(self) -> Path:
        directory = self.state_dir / "spool"
        directory.mkdir(exist_ok=True)
        return directory

    def domain(self, name: str) -> int:
        if name not in self.domains:
            cursor = self.connection.execute("INSERT INTO domains (name) VALUES (?)", (name,))
            assert cursor.lastrowid is not None
            self.domains[name] = cursor.lastrowid
        return self.domains[name]

    def add(
        self,
        *recipients: Recipient,
        age: float = 0.0,
        claims: Iterable[int] = (),
        body: bytes | None = b"Subject: x\r\n\r\ntext\r\n",
        size: int = 1000,
        **envelope: Any,
    ) -> int:
        """A message of this age; `claims` are the ordinals claimed. Returns its id."""
        made = Message(
            self.ids.next(NOW - age),
            Envelope(sender=envelope.pop("sender", "bob@sender.example"), arrived=NOW - age, size=size, **envelope),
            list(recipients),
            body,
        )
        self.write([made], {(made.id, ordinal) for ordinal in claims})
        return made.id

    def hop(self, r: Recipient) -> str:
        """The next hop of a recipient, as if planned: its destination."""
        return f"[{r.destination}]:25"

    def route(self, r: Recipient) -> str:
        return ""

    def write(self, made: Iterable[Message], claimed: Iterable[tuple[int, int]] = ()) -> None:
        claimed = set(claimed)
        run = self.connection.execute
        run("BEGIN")
        for m in made:
            e = m.envelope
            flags = (
                (e.eight_bit and messages.EIGHT_BIT)
                | (e.smtputf8 and messages.SMTPUTF8)
                | (e.requiretls and messages.REQUIRETLS)
                | (e.trusted and messages.TRUSTED)
                | (m.body is None and messages.SPOOLED)
            )
            fields = (m.id, e.sender, e.arrived, e.size, flags, e.client, e.client_name, e.helo, e.user, e.listener)
            fields += (e.protocol, e.tls, e.subject, e.message_id, e.ret, e.envid)
            run("INSERT INTO messages VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", fields)
            if m.body is not None:
                run("INSERT INTO bodies VALUES (?, ?)", (m.id, m.body))
            for key, change in ((messages.MESSAGES, 1), (messages.BYTES, e.size)):
                run(messages.ADD_META, (key, change))
            for r in m.recipients:
                destination = self.domain(r.destination)
                row = (m.id, r.ordinal, 7 if (m.id, r.ordinal) in claimed else 0, int(r.state), destination, r.due)
                row += (r.expires, r.attempts, r.interruptions, int(r.warned), r.last_code, e.arrived, r.address)
                hop = self.hop(r)
                row += (r.submitter, r.notify, r.orcpt, self.domain(hop) if hop else 0, self.route(r), r.held_by)
                row += (r.last_enhanced, r.last_reply, r.last_host)
                row += (messages.sender_domain(e.sender), messages.fingerprint(e.sender))
                row += (messages.fingerprint(r.address), messages.fingerprint(e.message_id))
                run(messages.INSERT_RECIPIENT, row)
                add_counts(self.connection, {(destination, int(r.state), int(e.arrived // messages.SLOT)): 1})
            count_leaving(self.connection, [m.id])
        run("COMMIT")

    def attempt(self, message: int, ordinal: int, *, code: int = 421, at: float = NOW, **other: Any) -> None:
        tls = json.dumps({"wanted": "may", "reached": "encrypted"})
        row = (message, ordinal, at - 1, at, 1, code, other.get("host", "mx.example"), "192.0.2.1")
        row += (
            other.get("enhanced", "4.7.0"),
            other.get("reply", "later"),
            tls,
            json.dumps({"connect": 0.5}),
            "S: 220",
        )
        self.connection.execute(attempts.INSERT, row)

    def past(self, message: int, ordinal: int, address: str, *, result: int, at: float = NOW, **other: Any) -> None:
        destination = self.domain(address.rpartition("@")[2].lower())
        row = (message, ordinal, destination, result, at, other.get("arrived", at - 60), other.get("code", 250))
        row += (other.get("attempts", 1), other.get("sender", "bob@sender.example"), address, "a subject", "<m@x>")
        row += (other.get("host", "mx.example"), other.get("enhanced", "2.0.0"), other.get("reply", "ok"), "R1", "")
        self.connection.execute(history.INSERT, row)

    def journal(self, event: str, *, at: float = NOW, text: str = "", **other: Any) -> None:
        row = (at, event, other.get("who", ""), other.get("command", ""), other.get("query", ""))
        row += (other.get("recipients"), other.get("reason", ""), text)
        self.connection.execute(journal.INSERT, row)

    def meta(self, key: str, value: int) -> None:
        self.connection.execute(messages.SET_META, (key, value))


def to(
    address: str,
    ordinal: int = 1,
    *,
    state: State = State.QUEUED,
    due: float = NOW,
    attempts: int = 0,
    code: int = 0,
    **other: Any,
) -> Recipient:
    """A recipient; its destination is the address's domain in lower case unless given."""
    return Recipient(
        ordinal,
        address,
        other.pop("destination", address.rpartition("@")[2].lower()),
        state=state,
        due=due if state in (State.QUEUED, State.DEFERRED) else None,
        attempts=attempts,
        last_code=code,
        **other,
    )

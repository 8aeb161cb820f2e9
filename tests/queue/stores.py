"""A store for tests: opened on a directory, fed with messages, looked at from outside, and found dead after a crash."""

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mailtui.clock import ManualClock
from mailtui.model import Attempt, Envelope, Message, Outcome, Recipient, Settled, State, Verdict
from mailtui.queue.database import open_reader, path_of
from mailtui.queue.store import Store
from mailtui.queue.tables import messages
from mailtui.queue.transaction import Transaction
from mailtui.queue.writer import Job

BODY = b"Received: by relay.example\r\nSubject: x\r\n\r\ntext\r\n"


@contextlib.asynccontextmanager
async def opened(
    state: Path, clock: ManualClock | None = None, *, claim: bool = False, free_disk: int = 0, clean: bool = True
) -> AsyncIterator[Store]:
    """An open store; `claim`: new messages are handed over. What should end the relay fails the test."""
    store = Store(state, clock or ManualClock(), free_disk=free_disk)
    store.admit = lambda _: claim
    fatal: list[BaseException] = []
    store.on_fatal = fatal.append
    store.open()
    try:
        yield store
    finally:
        await store.close(clean=clean)
    assert not fatal, fatal


def to(
    address: str,
    ordinal: int = 1,
    *,
    due: float = 0.0,
    expires: float = 4e9,
    submitter: str = "192.0.2.1",
    **other: Any,
) -> Recipient:
    """A recipient of the address's domain; due at once and good for ever unless said."""
    return Recipient(
        ordinal, address, address.rpartition("@")[2], submitter=submitter, due=due, expires=expires, **other
    )


def message(store: Store, *recipients: Recipient, body: bytes | None = BODY, size: int = 0, **envelope: Any) -> Message:
    """A new message with an id of the store."""
    arrived = store.clock.now()
    facts = Envelope(envelope.pop("sender", "bob@sender.example"), arrived, size or len(body or b""), **envelope)
    return Message(store.next_id(), facts, list(recipients or [to("ann@a.example")]), body)


async def accept(store: Store, *recipients: Recipient, **other: Any) -> Message:
    """A message that is on disk; one with a single recipient is known to be alone, as the scheduler would note it."""
    made = message(store, *recipients, **other)
    await store.accept(made)
    made.alone = len(made.recipients) == 1
    return made


async def accept_spooled(store: Store, content: bytes, *recipients: Recipient) -> Message:
    """A message whose octets are in a spool file."""
    made = message(store, *recipients, body=None, size=len(content))
    file = store.open_spool(made.id)
    file.write(content)
    await store.accept(made, file)
    made.alone = len(made.recipients) == 1
    return made


def ended(recipient: Recipient, outcome: Outcome, **other: Any) -> Settled:
    """How it ended for a recipient, as the next hop said."""
    code, enhanced, reply = {
        Outcome.DELIVERED: (250, "2.0.0", "ok"),
        Outcome.DEFERRED: (451, "4.7.1", "try again later"),
        Outcome.BOUNCED: (550, "5.1.1", "no such user"),
    }[outcome]
    attempt = other.pop("attempt", Attempt(1000.0, 1001.0, "mx.example", "192.0.2.25", transcript="220 mx.example\n"))
    return Settled(
        recipient, Verdict(outcome, code, enhanced, other.pop("reply", reply), remote=True), attempt, **other
    )


def delivered(recipient: Recipient, **other: Any) -> Settled:
    return ended(recipient, Outcome.DELIVERED, **other)


def bounced(recipient: Recipient, **other: Any) -> Settled:
    return ended(recipient, Outcome.BOUNCED, **other)


def deferred(recipient: Recipient, due: float | None, **other: Any) -> Settled:
    return ended(recipient, Outcome.DEFERRED, due=due, **other)


async def settle(store: Store, made: Message, *ends: Settled, reports: Sequence[Message] = ()) -> bool:
    """Settle and wait until everything before is written; whether the store said that it is done."""
    heard: list[bool] = []
    store.settle(made, ends, reports, lambda: heard.append(True))
    await written(store)
    return bool(heard)


async def written(store: Store) -> None:
    """Everything submitted so far is written or refused."""
    await store.writer.call(lambda tx: None)


async def on_writer(store: Store, work: Callable[[sqlite3.Connection], Any]) -> Any:
    """Something done with the writer's own connection, in its thread."""
    return await store.writer.call(lambda tx: work(tx.conn))


def rows(state: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What another process would read from the database."""
    with contextlib.closing(open_reader(state)) as conn:
        return conn.execute(sql, values).fetchall()


def value(state: Path, sql: str, *values: Any) -> Any:
    return rows(state, sql, *values)[0][0]


def copy_of(state: Path, to_dir: Path) -> Path:
    """The state directory as a power failure would leave it: what is on disk while the store is open."""
    to_dir.mkdir(mode=0o700)
    for name in (path_of(state).name, path_of(state).name + "-wal"):
        if (state / name).exists():
            shutil.copyfile(state / name, to_dir / name)
    shutil.copytree(state / "spool", to_dir / "spool")
    return to_dir


@contextlib.contextmanager
def gate(store: Store) -> Iterator[None]:
    """The writer waits: what is submitted inside is one group. The block must not await a commit."""
    begun, go = threading.Event(), threading.Event()

    def wait(tx: Transaction) -> None:
        begun.set()
        assert go.wait(30)

    store.writer.submit(Job(wait, lambda result, error: None))
    assert begun.wait(30)
    try:
        yield
    finally:
        go.set()


def check_books(state: Path) -> None:
    """Counters and totals say exactly what the rows say; every message has its body, and nothing is left over."""
    counted = sorted(rows(state, "SELECT destination, state, slot, recipients FROM counters WHERE recipients != 0"))
    each = (
        "SELECT {}, recipients.state, CAST(messages.arrived / ? AS INTEGER) AS slot, count(*) "
        "FROM recipients JOIN messages ON messages.id = message GROUP BY 1, 2, 3"
    )
    assert counted == sorted(rows(state, each.format("destination"), messages.SLOT))
    summed = sorted(rows(state, "SELECT destination, state, recipients FROM sums WHERE recipients != 0"))
    each = "SELECT {}, state, count(*) FROM recipients NOT INDEXED GROUP BY 1, 2"
    assert summed == sorted([*rows(state, each.format("destination")), *rows(state, each.format(messages.ALL))])
    total = "SELECT count(*), COALESCE(sum(size), 0) FROM messages"
    kept = "SELECT COALESCE((SELECT value FROM meta WHERE key = ?), 0)"
    assert rows(state, total) == [(value(state, kept, messages.MESSAGES), value(state, kept, messages.BYTES))]
    whole = "SELECT id, size FROM messages WHERE id NOT IN (SELECT message FROM recipients WHERE state < 3) ORDER BY id"
    assert rows(state, "SELECT message, size FROM leaving_whole ORDER BY message") == rows(state, whole)
    total = "SELECT count(*), COALESCE(sum(size), 0) FROM leaving_whole"
    leaving = (value(state, kept, messages.LEAVING_MESSAGES), value(state, kept, messages.LEAVING_BYTES))
    assert rows(state, total) == [leaving]
    assert rows(state, "SELECT id FROM messages EXCEPT SELECT message FROM recipients") == []
    assert rows(state, "SELECT message FROM recipients EXCEPT SELECT id FROM messages") == []
    with_body = rows(state, "SELECT id FROM messages WHERE NOT flags & ? ORDER BY id", messages.SPOOLED)
    assert with_body == rows(state, "SELECT id FROM bodies ORDER BY id")
    parked = value(state, "SELECT count(*) FROM recipients NOT INDEXED WHERE claim = 0")
    for index in ("parked_by_due", "parked_by_destination"):
        assert value(state, f"SELECT count(*) FROM recipients INDEXED BY {index} WHERE claim = 0") == parked  # noqa: S608


def states(state: Path) -> dict[tuple[int, int], State]:
    """Every recipient on disk and its state."""
    return {(row[0], row[1]): State(row[2]) for row in rows(state, "SELECT message, ordinal, state FROM recipients")}


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something has happened; the test's own timeout is the limit."""
    while not condition():  # noqa: ASYNC110 - what happens is said by no event
        await asyncio.sleep(0.001)

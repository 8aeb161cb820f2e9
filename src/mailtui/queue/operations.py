"""Operations: the orders of operators, from the first chunk to the journal's line.

Promises: an operation is on disk before it changes anything; it gets exactly one line in the journal, at its end, or,
when the relay ended first, at the next start, and the line says how many recipients were done. contract.md `log`: who,
command, query, recipients, reason.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mailtui.queue.database import open_reader
from mailtui.queue.tables import actions as sql
from mailtui.queue.tables import journal
from mailtui.queue.transaction import Transaction

Rid = tuple[int, int]  # (message, ordinal)

# What an undo can take back. Bounce and delete until their grace ends. Hold, defer and reroute lose no mail, but what
# is older than a week is no slip of the hand (and `release` has no end).
LOSSY = ("bounce", "delete")
UNDOABLE = ("hold", "defer", "reroute", *LOSSY)
UNDO_KEPT = 7 * 86400.0

# Rows in one step: read for an undo, or forgotten.
STEP = 1000


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants done. `until`, `route`, `leaves` and `undoes` are those of its `actions.Action`."""

    verb: str
    command: str  # the command line that repeats it
    query: str
    who: str
    reason: str
    asked: int  # recipients
    until: float | None = None
    route: str = ""
    leaves: float | None = None
    undoes: int = 0


@dataclass(frozen=True, slots=True)
class Operation:
    """One order of an operator, as far as it has come. `asked` is how many recipients it was for."""

    number: int
    verb: str
    command: str  # the command line that repeats it
    query: str
    who: str
    reason: str
    begun: float
    ended: float | None  # None: it runs
    interrupted: bool  # the relay ended before it did
    asked: int
    done: int
    delivered_before: int
    pending: int  # on a connection: done when the attempt ends undelivered
    undone: int
    undo_until: float | None  # None: cannot be undone
    undoes: int  # the operation that this one takes back, 0: none
    until: float | None
    route: str
    leaves: float | None

    @property
    def name(self) -> str:
        return f"o{self.number}"

    @property
    def state(self) -> str:
        """running | done | undone; an interrupted one is done with less than was asked."""
        return "running" if self.ended is None else "undone" if self.undone else "done"


def begin_operation(tx: Transaction, order: Order, now: float) -> int:
    """Note an operation, before its first chunk. Returns its number."""
    undo_until: float | None = None
    if order.verb in LOSSY:
        undo_until = order.leaves if order.leaves is not None and order.leaves > now else None
    elif order.verb in UNDOABLE:
        undo_until = now + UNDO_KEPT
    _forget_routes(tx, now)
    values = (
        order.verb, order.command, order.query, order.who, order.reason, now, order.asked, undo_until, order.undoes,
        order.until, order.route, order.leaves,
    )  # fmt: skip
    return tx.conn.execute(sql.BEGIN, values).lastrowid or 0


def progress(tx: Transaction, number: int, *, delivered_before: int = 0, pending: int = 0) -> None:
    """Add to what an operation counts besides `done`; either may be negative, as when a pending one is done."""
    tx.conn.execute(sql.ADD_REST, (delivered_before, pending, number))


def end_operation(tx: Transaction, number: int, now: float) -> Operation:
    """Everything that can be done now is done: the journal gets its line. KeyError if there is no such operation."""
    ended = tx.conn.execute(sql.END, (now, False, number)).rowcount
    found = operation(tx.conn, number)
    if found is None:
        raise KeyError(f"o{number}")
    if ended:
        _journal(tx.conn, found, now, _summary(found))
    return found


def recover(conn: sqlite3.Connection, now: float) -> list[Operation]:
    """At start: end what an earlier relay left running, and say in the journal how far it came.

    Returns those that ended early. What waited for the end of an attempt was in memory only: that is said too."""
    interrupted: list[Operation] = []
    conn.execute("BEGIN IMMEDIATE")
    try:
        for found in map(_operation, conn.execute(sql.OPEN).fetchall()):
            text = _summary(found)
            if found.ended is None:
                interrupted.append(found)
                text += "; interrupted by the end of the relay, the others are untouched: repeat the command for them"
            if found.pending:
                text += f"; the relay ended before the {found.pending} pending could be done"
            conn.execute(sql.END, (now, True, found.number))
            conn.execute(sql.NO_LONGER_PENDING, (found.number,))
            _journal(conn, found, now, text)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return interrupted


def operation(conn: sqlite3.Connection, number: int) -> Operation | None:
    row = conn.execute(sql.ONE, (number,)).fetchone()
    return _operation(row) if row else None


def operations(conn: sqlite3.Connection, limit: int) -> list[Operation]:
    """The latest operations, newest first."""
    return [_operation(row) for row in conn.execute(sql.LATEST, (limit,)).fetchall()]


def touched(conn: sqlite3.Connection, number: int, after: Rid = (0, 0), limit: int = STEP) -> list[Rid]:
    """Parked recipients that no later operation has changed, a page in order of (message, ordinal)."""
    return [(row[0], row[1]) for row in conn.execute(sql.TOUCHED, (number, *after, limit)).fetchall()]


def read_operations(state_dir: Path, limit: int) -> list[Operation]:
    """As `operations`, beside a running relay."""
    with closing(open_reader(state_dir)) as conn:
        return operations(conn, limit)


def read_touched(state_dir: Path, number: int, after: Rid = (0, 0)) -> list[Rid]:
    """As `touched`, beside a running relay."""
    with closing(open_reader(state_dir)) as conn:
        return touched(conn, number, after)


def _operation(row: tuple[object, ...]) -> Operation:
    values = list(row)
    values[8] = bool(values[8])
    return Operation(*values)  # type: ignore[arg-type]


def _summary(found: Operation) -> str:
    """How it went: "o12: asked 312, done 309, delivered before 2, pending 1"."""
    rest = found.asked - found.done - found.delivered_before - found.pending
    counts = [
        (found.delivered_before, "delivered before"),
        (found.pending, "pending"),
        (rest if found.ended is not None else 0, "left out"),
    ]
    told = [f"{words} {count}" for count, words in counts if count > 0]
    undoes = [f"undoes o{found.undoes}"] if found.undoes else []
    return f"{found.name}: " + ", ".join([*undoes, f"asked {found.asked}", f"done {found.done}", *told])


def _journal(conn: sqlite3.Connection, found: Operation, now: float, text: str) -> None:
    row = (now, found.verb, found.who, found.command, found.query, found.done, found.reason, text)
    conn.execute(journal.INSERT, row)


def _forget_routes(tx: Transaction, now: float) -> None:
    """A step of forgetting routes that no undo may give back any more."""
    oldest = tx.conn.execute(sql.OLDEST_KEPT_ROUTE).fetchone()
    if oldest is not None and oldest[1] <= now:
        tx.conn.execute(sql.FORGET_ROUTES, (oldest[0], STEP))

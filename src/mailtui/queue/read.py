"""Reading the queue: one read-only connection, short calls, plain data out.

Promises: a call never leaves a transaction or a cursor open, and a scan ends its transaction after every window, so
that the writer's checkpoints are never held up; a page costs a page, whatever the length of the queue, when
`Query.instant` says so; any call ends by `QueryTimeout` at the deadline, or when it is interrupted. All facts of one
answer are of one moment, but for scans.

Parked recipients are found by their indexes. Claimed ones (those that the running relay has handed to delivery, at
most about 2,000) stand in no index: the caller names them. When no relay runs, `orphans()` names those that a crash
has left.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mailtui import ids
from mailtui.queue import counting, freezing, past, shape
from mailtui.queue.conditions import QueryError
from mailtui.queue.database import path_of
from mailtui.queue.freezing import FrozenSet
from mailtui.queue.leads import destinations_of
from mailtui.queue.listing import Listing, page
from mailtui.queue.paging import ORDERS, cursor, order_named, position
from mailtui.queue.query import Query
from mailtui.queue.rows import (
    ATTEMPTS_OF,
    RECIPIENTS_OF,
    AttemptRow,
    Counts,
    HistoryRow,
    Rid,
    Row,
    StoredMessage,
    Totals,
    attempt_of,
    rows_of,
)
from mailtui.queue.shape import KEYS, Place, ShapeRow
from mailtui.queue.spool import PIECE
from mailtui.queue.tables.messages import CLEAN, SELECT_BODY, SELECT_MESSAGE, SPOOLED
from mailtui.queue.terms import LAST_ORDINAL
from mailtui.queue.transaction import message_of
from mailtui.queue.windows import Progress

# How often the deadline is looked at, in instructions of SQLite's machine: about every 0.2 ms.
CHECK_EVERY = 10_000

# A header section beyond this is nobody's, and nobody wants to see it whole.
HEADER_LIMIT = 1 << 20

ORPHANS = "SELECT message, ordinal FROM recipients WHERE claim <> 0"

# Inside the class `list` is the method.
Page = list[Row]
Past = list[HistoryRow]
Log = list[dict[str, Any]]
Rids = list[Rid]
Found = list[Row | None]
Shape = list[ShapeRow]
Places = list[Place]
Names = list[str]


class QueryTimeout(Exception):
    """A read that was stopped, at its deadline or by `Reader.interrupt`; the text is one line for people."""


class Reader:
    """Reads the queue of a state directory; one thread at a time (but `interrupt`). FileNotFoundError if there is none.

    `offline`: no relay runs; without a WAL the file is then opened as immutable, which needs no write access to the
    directory. `deadline`: seconds that one call may take, None for as long as it takes.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        offline: bool = False,
        deadline: float | None = 5.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        path = path_of(state_dir).absolute()
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no queue here; is it the right --state?")
        uri = path.as_uri() + "?mode=ro"
        wal = path.with_name(path.name + "-wal")
        if offline and not (wal.exists() and wal.stat().st_size):
            uri += "&immutable=1"
        self._connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self._connection.execute("PRAGMA query_only = 1").close()
        self._connection.create_function("casefold", 1, _casefold, deterministic=True)
        self._connection.set_progress_handler(self._late, CHECK_EVERY)
        self._monotonic = monotonic
        self._deadline = deadline
        self._until: float | None = None
        self._interrupted = False

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """Stop the call that runs now; the one method that another thread may call."""
        self._interrupted = True
        self._connection.interrupt()

    def list(
        self,
        query: Query,
        *,
        sort: str = "arrived",
        reverse: bool = False,
        limit: int = 50,
        after: str = "",
        claimed: Collection[Rid] = (),
        active: frozenset[Rid] = frozenset(),
        progress: Progress | None = None,
    ) -> Page:
        """A page of recipients, after the row whose cursor is `after`.

        Orders (`sort`): arrived (newest first), next_attempt (soonest first, what has none last), destination (a to z,
        then newest first), size and attempts (largest first); `reverse` turns any of them round. QueryError for an
        unknown order or a cursor of another one. `claimed`: what the running relay has handed to delivery; `active`:
        those of them on a connection now. `progress` is told (recipients looked at, of how many) while a scan runs.
        """
        order = order_named(sort)
        start = position(order, after)
        if limit <= 0:
            return []
        with self._snapshot():
            destinations = destinations_of(self._connection, query)
            if query.states == {"active"}:
                claimed = active
            pace = self._pace(progress)
            return page(
                self._connection, Listing(query, order, reverse, limit, start, destinations, claimed, active, pace)
            )

    def rows_of(self, rids: Sequence[Rid], active: frozenset[Rid] = frozenset()) -> Found:
        """These recipients as they are now, in this order; None for one that has left the queue."""
        with self._snapshot():
            found = {(row.id, row.ordinal): row for row in rows_of(self._connection, dict.fromkeys(rids, ""), active)}
        return [found.get(rid) for rid in rids]

    def count(
        self,
        query: Query,
        claimed: Collection[Rid] = (),
        active: frozenset[Rid] = frozenset(),
        progress: Progress | None = None,
    ) -> Counts:
        """How much matches. The whole queue is known at once; anything else is counted through an index or a scan."""
        with self._snapshot():
            destinations = destinations_of(self._connection, query)
            return counting.count(self._connection, query, destinations, claimed, active, self._pace(progress))

    def freeze(
        self,
        query: Query,
        sort: str = "arrived",
        reverse: bool = False,
        claimed: Collection[Rid] = (),
        active: frozenset[Rid] = frozenset(),
        progress: Progress | None = None,
    ) -> FrozenSet:
        """All that matches, in order, as packed numbers; for the scan thread. Parameters as of `list`.

        Order by arrival is the cheapest. QueryError for an unknown order.
        """
        order = order_named(sort)
        with self._snapshot():
            destinations = destinations_of(self._connection, query)
            pace = self._pace(progress)
            return freezing.freeze(self._connection, query, order, reverse, destinations, claimed, active, pace)

    def matching(self, query: Query, rids: Collection[Rid], active: frozenset[Rid] = frozenset()) -> set[Rid]:
        """Those of these recipients that the query selects now: of those claimed while a set was frozen, say."""
        with self._snapshot():
            destinations = destinations_of(self._connection, query)
            return freezing.matching(self._connection, query, rids, destinations, active)

    def shape(self, by: str, now: float, limit: int = 0, progress: Progress | None = None) -> Shape:
        """Recipients by age, the fullest key first; `limit` 0 means all keys. QueryError for an unknown key.

        By dest and domain from the counters, true to five minutes, a page of it at once; by sender and reply by a scan
        of what is parked.
        """
        if by not in KEYS:
            raise QueryError(f"unknown key {by!r}; known: {' '.join(KEYS)}")
        with self._snapshot():
            if by in ("dest", "domain"):
                return shape.by_counters(self._connection, by, now, limit)
            return shape.by_scan(self._connection, by, now, limit, self._pace(progress))

    def fullest(self, limit: int) -> Names:
        """The names of the fullest destinations."""
        with self._snapshot():
            return shape.fullest(self._connection, limit)

    def destinations(
        self,
        *,
        limit: int = 50,
        names: Collection[str] | None = None,
        claimed: Collection[Rid] = (),
        active: frozenset[Rid] = frozenset(),
    ) -> Places:
        """The fullest destinations, or those of `names` that have recipients, from the counters."""
        with self._snapshot():
            return shape.destinations(self._connection, names, limit, claimed, active)

    def hops(
        self,
        *,
        limit: int = 50,
        claimed: Collection[Rid] = (),
        active: frozenset[Rid] = frozenset(),
        progress: Progress | None = None,
    ) -> Places:
        """The fullest next hops, with their destinations, by a scan."""
        with self._snapshot():
            return shape.hops(self._connection, limit, claimed, active, self._pace(progress))

    def totals(self, active: frozenset[Rid] = frozenset()) -> Totals:
        """The queue in figures, for `status`; what is leaving counts in `leaving` only."""
        with self._snapshot():
            return counting.totals(self._connection, active)

    def orphans(self) -> Rids:
        """Recipients that a relay which did not stop cleanly has left claimed: pass them as `claimed`.

        For a stopped relay only. Looks at every recipient, but only if the last stop was not clean.
        """
        with self._snapshot():
            if counting.meta(self._connection, CLEAN) == 1:
                return []
            return self._connection.execute(ORPHANS).fetchall()

    def message(self, id: int, active: frozenset[Rid] = frozenset()) -> StoredMessage | None:
        """All that is known of a queued message, recipients by ordinal, attempts oldest first; None if it is gone."""
        with self._snapshot():
            found = self._connection.execute(SELECT_MESSAGE, (id,)).fetchone()
            if found is None:
                return None
            keys = self._connection.execute(RECIPIENTS_OF, (id,)).fetchall()
            rows = rows_of(self._connection, {key: cursor(ORDERS["arrived"], None, *key) for key in keys}, active)
            envelope = message_of(found, [], None).envelope
            return StoredMessage(id, envelope, _spooled(found), tuple(rows), self._attempts(id))

    def attempts(self, id: int) -> tuple[AttemptRow, ...]:
        """The attempts of a message, queued or not, oldest first; they stay while its history does."""
        with self._snapshot():
            return self._attempts(id)

    def header(self, id: int, spool_dir: Path) -> bytes:
        """The header section as stored, without the empty line after it; at most 1 MiB, in whole lines.

        KeyError if the message is not in the queue, OSError if its spool file cannot be read.
        """
        head = b""
        for piece in self.content(id, spool_dir):
            searched = max(0, len(head) - 3)
            head += piece
            end = head.find(b"\r\n\r\n", searched)
            if end >= 0:
                head = head[: end + 2]
                break
            if len(head) > HEADER_LIMIT:
                break
        return head if len(head) <= HEADER_LIMIT else head[: head.rfind(b"\n", 0, HEADER_LIMIT) + 1]

    def content(self, id: int, spool_dir: Path) -> Iterator[bytes]:
        """The message as stored, in pieces; nothing of the database stays open meanwhile.

        KeyError at once if the message is not in the queue, OSError while reading if its spool file cannot be read.
        """
        with self._snapshot():
            found = self._connection.execute(SELECT_MESSAGE, (id,)).fetchone()
            spooled = found is not None and _spooled(found)
            body = None if spooled else self._connection.execute(SELECT_BODY, (id,)).fetchone()
        if spooled:
            return _pieces(spool_dir / ids.encode(id))
        if found is None or body is None:
            raise KeyError(ids.encode(id))
        return iter((body[0],))

    def history(self, query: Query, *, limit: int = 50, after: str = "") -> Past:
        """What left the queue or was refused, newest first. QueryError for a term that means nothing there."""
        if limit <= 0:
            return []
        with self._snapshot():
            return past.history_page(self._connection, query, destinations_of(self._connection, query), limit, after)

    def history_of(self, id: int) -> Past:
        """What became of the recipients of a message, newest first."""
        return self.history(Query(rows=((id, 0, LAST_ORDINAL),)), limit=LAST_ORDINAL)

    def log(self, limit: int = 50) -> Log:
        """The last entries of the log as far as the disk knows it, newest last; `at` in seconds since the epoch."""
        with self._snapshot():
            return past.log_page(self._connection, limit)

    def meta(self, key: str) -> int:
        """A fact about the store (tables/messages.py), 0 if it was never set."""
        with self._snapshot():
            return counting.meta(self._connection, key)

    def _attempts(self, id: int) -> tuple[AttemptRow, ...]:
        return tuple(map(attempt_of, self._connection.execute(ATTEMPTS_OF, (id,)).fetchall()))

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """One moment of the database for all statements of a call, and the call's deadline."""
        self._interrupted = False
        self._until = None if self._deadline is None else self._monotonic() + self._deadline
        self._connection.execute("BEGIN")
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise self._stopped() from None
            raise
        finally:
            self._until = None
            if self._connection.in_transaction:
                try:
                    self._connection.execute("ROLLBACK")
                except sqlite3.OperationalError:  # an interrupt that came late has stopped it
                    self._connection.execute("ROLLBACK")

    def _pace(self, progress: Progress | None) -> Callable[[int], None]:
        """What a scan calls between two windows: the moment ends, another one begins."""
        looked = of = 0

        def pace(looked_at: int) -> None:
            nonlocal looked, of
            if progress is not None and not of:
                of = counting.recipients(self._connection)
            self._connection.execute("ROLLBACK").close()
            if self._interrupted or self._late():
                raise self._stopped()
            looked = min(looked + looked_at, of)
            if progress is not None:
                progress(looked, of)
            self._connection.execute("BEGIN").close()

        return pace

    def _late(self) -> bool:
        return self._until is not None and self._monotonic() > self._until

    def _stopped(self) -> QueryTimeout:
        if self._late():
            return QueryTimeout(
                f"the query took more than {self._deadline:g} s; narrow it by id:, dest:, to:, from: or age"
            )
        return QueryTimeout("the query was stopped")


def _spooled(row: tuple[Any, ...]) -> bool:
    """Whether the body of a row of `messages` is a spool file."""
    return bool(row[4] & SPOOLED)


def _casefold(value: object) -> str:
    return str(value).casefold()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece

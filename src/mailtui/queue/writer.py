"""The writer: the only read-write connection, group commit.

Promises: what arrived while the last transaction was syncing goes into the next one, with no timed wait for a job that
somebody waits for; a job's future is resolved after its COMMIT has synced; a bad job fails alone; jobs marked `keep`
(settlements) survive a full disk and are tried again until they are in; after a failed sync nothing is acknowledged,
`on_fatal` is called, and every job that waits, or comes later, is told that the store has failed.

One batch at a time. What may take long is done by the thread of the writer: each COMMIT, for it syncs, and statements
of all jobs but the light ones. A batch of light jobs has its statements run on the loop, where it is made: a dozen of
them take a millisecond there, but in a thread each one waits for the loop to hand over the interpreter, and the
clients wait with it (measured: 1.4 times the messages a second).
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mailtui.queue.database import StoreError
from mailtui.queue.tables import messages
from mailtui.queue.transaction import Domains, Transaction

Work = Callable[[Transaction], Any]

# Jobs of one transaction: a larger group no longer makes a job cheaper, but delays the first one of it.
MAX_JOBS = 512

# Octets of bodies in one transaction: keeps a commit's sync short and the WAL near its checkpoint size.
MAX_BYTES = 8 * 1024 * 1024

# A group of jobs for whom nobody waits (settlements, mostly) is held back this long, in seconds, so that it shares the
# sync of the next acceptance instead of making that one wait for a sync of its own. It is short against what a crash
# may repeat anyway: what is on a connection.
PATIENCE = 0.01

# A settlement that did not fit on the disk is tried again after this many seconds; without one, an empty write is.
RETRY_AFTER = 1.0

# Somebody else's lock on the database is waited for this long, and looked at this often, in seconds. Only the thread
# waits; SQLite's own waiting is off.
LOCK_PATIENCE, LOCK_STEP = 5.0, 0.01

_DEAD = "the queue's database cannot be written any more"

# Codes after which the same transaction may work later: the disk is full, an allocation failed, or somebody else holds
# the database locked (an operator with sqlite3).
PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
}

# After a failed sync or read the state of the file is unknown: acknowledge nothing, and start anew.
FATAL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY}


@dataclass(slots=True, eq=False)
class Job:
    """Something to be written. `done(result, error)` is called on the loop."""

    work: Work
    done: Callable[[Any, BaseException | None], None]
    size: int = 0
    keep: bool = False
    patient: bool = False  # nobody waits for it: it rides with the next job for whom somebody does
    light: bool = False  # a few rows at places that are in memory: its statements may run on the loop
    result: Any = None
    error: BaseException | None = field(default=None)


class Writer:
    """Owns the connection from `start` to `stop`. To be called from the loop only."""

    def __init__(
        self, conn: sqlite3.Connection, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self.waiting = 0  # octets of bodies submitted and not yet committed
        self.dead = False  # the thread has ended by an exception: nothing is written any more
        self.full = False  # the last transaction did not fit; kept jobs are being retried
        self.commits = 0
        self.largest_group = 0
        self.worst_commit = 0.0  # seconds, sync and checkpoint included
        self.on_full: Callable[[], None] = lambda: None  # called in the writer thread: give space back
        self._conn = conn
        self._loop = loop
        self._on_fatal = on_fatal
        self._jobs: deque[Job] = deque()
        self._hurried = 0  # of them, those for whom somebody waits
        self._kept: list[Job] = []
        self._busy = False  # a batch is being written
        self._turn: asyncio.Handle | None = None  # of the loop, in which the next batch begins
        self._later = False  # that is when PATIENCE or RETRY_AFTER is over
        self._domains = Domains(conn)
        self._stopping = False
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        if self.dead:
            self._loop.call_soon(job.done, None, StoreError(_DEAD))
            return
        self.waiting += job.size
        self._jobs.append(job)
        if not job.patient:
            self._hurried += 1
        if not self._busy and not self._kept:
            if job.light or job.patient:
                self._soon()
            else:
                self._begin()

    def call(self, work: Work, *, keep: bool = False) -> asyncio.Future[Any]:
        """Run `work` in a transaction; its result after the commit. `keep`: a full disk delays it, no more."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)

        self.submit(Job(work, done, keep=keep))
        return future

    async def stop(self) -> None:
        """Commit what is waiting and end the thread."""
        self._stopping = True
        if not self._busy:
            self._begin()
        await self._stopped
        await self._loop.run_in_executor(None, self._thread.join)

    # -- batches: on the loop ----------------------------------------------------------------------------------------

    def _soon(self) -> None:
        """See to the next batch: when this turn of the loop is over, so that all of it goes together; patient jobs
        later, unless one comes that is not; what did not fit on the disk after a while."""
        hurry = self._hurried > 0 and not self._kept
        if self._turn is not None:
            if not (hurry and self._later):
                return
            self._turn.cancel()
            self._turn = None
        if hurry:
            self._later = False
            self._turn = self._loop.call_soon(self._begin)
        elif self._kept or self._jobs or self.full:
            self._later = True
            self._turn = self._loop.call_later(RETRY_AFTER if self._kept or self.full else PATIENCE, self._begin)

    def _begin(self) -> None:
        """Write the next batch, if there is something to write."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._busy or self.dead:
            return
        batch = self._collect()
        if not batch and not self.full:
            if self._stopping:
                self._busy = True
                self._orders.put(None)
            return
        self._busy = True
        begun = time.perf_counter()
        if batch and not self.full and all(job.light for job in batch):
            try:
                tx = self._execute(batch)
            except Exception:  # the thread will see what it is
                with contextlib.suppress(sqlite3.Error):
                    self._rollback()
            else:
                self._orders.put(partial(self._finish, batch, tx, begun))
                return
        self._orders.put(partial(self._write, batch, begun))

    def _collect(self) -> list[Job]:
        """What is there, the jobs kept from a full disk first."""
        batch, self._kept = self._kept, []
        jobs, size = self._jobs, sum(job.size for job in batch)
        while jobs and len(batch) < MAX_JOBS and size < MAX_BYTES:
            job = jobs.popleft()
            batch.append(job)
            size += job.size
            if not job.patient:
                self._hurried -= 1
        return batch

    def _written(self, done: list[Job], kept: list[Job]) -> None:
        """A batch is over: everybody of it hears, and what came meanwhile is the next one."""
        self._busy = False
        self._kept = kept
        self._resolve(done)
        if self._stopping:
            self._begin()
        else:
            self._soon()

    def _resolve(self, batch: list[Job]) -> None:
        for job in batch:
            self.waiting -= job.size
            try:
                job.done(job.result, job.error)
            except Exception as error:  # the others of the batch hear all the same
                self._on_fatal(error)

    def _died(self, error: BaseException, batch: list[Job]) -> None:
        """The thread has ended by an exception."""
        self.dead = True
        self._on_fatal(error)
        jobs = [*batch, *self._kept, *self._jobs]
        self._kept = []
        self._jobs.clear()
        for job in jobs:
            job.result, job.error = None, StoreError(f"{_DEAD}: {error}")
        self._resolve(jobs)
        self._stopped.set_result(None)

    # -- batches: in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                order()
            except BaseException as error:
                with contextlib.suppress(sqlite3.Error):
                    self._conn.close()
                self._loop.call_soon_threadsafe(self._died, error, order.args[0])  # type: ignore[attr-defined]
                return
        with contextlib.suppress(sqlite3.Error):  # the next relay reads the log
            self._shorten_wal()
        self._conn.close()
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _write(self, batch: list[Job], begun: float) -> None:
        """Statements and commit."""
        self._try(batch, lambda: self._commit(self._execute(batch, LOCK_PATIENCE), len(batch), begun))

    def _finish(self, batch: list[Job], tx: Transaction, begun: float) -> None:
        """The commit of a batch whose statements were run on the loop."""
        self._try(batch, lambda: self._commit(tx, len(batch), begun))

    def _try(self, batch: list[Job], commit: Callable[[], None]) -> None:
        try:
            commit()
            self.full = False
        except sqlite3.Error as error:
            self._rollback()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in PASSING:
                self._did_not_fit([], batch, error)
                return
            if code in FATAL:
                raise
            self._one_by_one(batch)
        except Exception:
            self._rollback()
            self._one_by_one(batch)
        else:
            self._loop.call_soon_threadsafe(self._written, batch, [])

    def _execute(self, batch: list[Job], patience: float = 0.0) -> Transaction:
        """The statements of a batch in a transaction that is not committed. Nothing of it stays if anything fails."""
        while True:
            try:
                self._conn.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:  # an operator with sqlite3, say, holds the database locked
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or patience <= 0:
                    raise
                time.sleep(LOCK_STEP)
                patience -= LOCK_STEP
        if self.full:
            self._conn.execute(messages.PROBE)
        tx = Transaction(self._conn, self._domains)
        for job in batch:
            job.result = job.work(tx)
            job.error = None
        tx.flush()
        return tx

    def _commit(self, tx: Transaction, jobs: int, begun: float) -> None:
        self._conn.execute("COMMIT")
        self._domains.committed()
        self.commits += 1
        self.largest_group = max(self.largest_group, jobs)
        self.worst_commit = max(self.worst_commit, time.perf_counter() - begun)
        for act in tx.after:
            with contextlib.suppress(OSError):  # a file that stays without its rows is removed at the next start
                act()

    def _rollback(self) -> None:
        self._domains.rolled_back()
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")

    def _one_by_one(self, batch: list[Job]) -> None:
        """One of the jobs is bad: a transaction each, so that it fails alone."""
        done: list[Job] = []
        for number, job in enumerate(batch):
            try:
                self._commit(self._execute([job], LOCK_PATIENCE), 1, time.perf_counter())
            except Exception as error:
                self._rollback()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in FATAL:
                    raise
                if code in PASSING:
                    self._did_not_fit(done, batch[number:], error)
                    return
                job.error = error
            done.append(job)
        self._loop.call_soon_threadsafe(self._written, done, [])

    def _did_not_fit(self, done: list[Job], batch: list[Job], error: Exception) -> None:
        """The disk is full: settlements are kept for later, everything else is refused now."""
        self.full = True
        self.on_full()
        self._shorten_wal()
        refused = [job for job in batch if not job.keep or self._stopping]
        kept = [job for job in batch if job.keep and not self._stopping]
        for job in refused:
            job.error = StoreError(f"the queue cannot be written now: {error}")
        self._loop.call_soon_threadsafe(self._written, done + refused, kept)

    def _shorten_wal(self) -> None:
        """Copy the WAL back and cut it off: what it took of the disk is room for settlements, and at the end of the
        thread the database file is whole without it. Raises what is FATAL only."""
        try:
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in FATAL:
                raise

"""The writer: one thread, the only read-write connection, group commit.

Promises: what arrived while the last transaction was syncing goes into the next one, with no timed wait for a job that
somebody waits for; a job's future is resolved after its COMMIT has synced; a bad job fails alone; jobs marked `keep`
(settlements) survive a full disk and are tried again until they are in; after a failed sync nothing is acknowledged,
`on_fatal` is called, and every job that waits, or comes later, is told that the store has failed.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mailtui.queue.database import PAGE_SIZE, StoreError
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
    result: Any = None
    error: BaseException | None = field(default=None)


class Writer:
    """Owns the connection from `start` to `stop`. `submit` may be called from the loop only."""

    def __init__(
        self, conn: sqlite3.Connection, loop: asyncio.AbstractEventLoop, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self.waiting = 0  # octets of bodies submitted and not yet committed; the loop's view
        self.dead = False  # the thread has ended by an exception: nothing is written any more
        self.full = False  # the last transaction did not fit; kept jobs are being retried
        self.commits = 0
        self.largest_group = 0
        self.worst_commit = 0.0  # seconds, sync and checkpoint included
        self.on_full: Callable[[], None] = lambda: None  # called in the writer thread: give space back
        self._conn = conn
        self._loop = loop
        self._on_fatal = on_fatal
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._kept: list[Job] = []
        self._domains = Domains(conn)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        if self.dead:
            self._loop.call_soon(job.done, None, StoreError("the queue's database cannot be written any more"))
            return
        self.waiting += job.size
        self._jobs.put(job)

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

    def _checkpoint(self) -> None:
        """At the end of the thread: the database file is whole without its log."""
        try:
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error:
            pass  # the next relay reads the log

    def stop(self) -> None:
        """Commit what is waiting and end the thread; blocks until it has."""
        self._jobs.put(None)
        self._thread.join()

    # -- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        batch: list[Job] = []
        try:
            while not self._stopping or self._kept:
                batch = self._collect()
                if batch or self.full:
                    self._write(batch)
            self._checkpoint()
            self._conn.close()
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._conn.close()
            self._loop.call_soon_threadsafe(self._died, error, batch)

    def _died(self, error: BaseException, batch: list[Job]) -> None:
        """On the loop: the thread has ended by an exception."""
        self.dead = True
        self._on_fatal(error)
        jobs = list(batch)
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    jobs.append(job)
        for job in jobs:
            job.result, job.error = None, StoreError(f"the queue's database cannot be written any more: {error}")
        self._resolve(jobs)

    def _collect(self) -> list[Job]:
        """Wait for the first job, then take what else is there; the jobs kept from a full disk come first."""
        kept, self._kept = self._kept, []
        batch = kept
        try:
            if kept:
                time.sleep(0 if self._stopping else RETRY_AFTER)
                job = self._jobs.get_nowait()
            elif self.full:
                job = self._jobs.get(timeout=RETRY_AFTER)
            else:
                job = self._jobs.get()
            size = 0
            patient = not batch
            until = time.monotonic() + PATIENCE
            while True:
                if job is None:
                    self._stopping = True
                    break
                batch.append(job)
                size += job.size
                patient = patient and job.patient
                if len(batch) >= MAX_JOBS or size >= MAX_BYTES:
                    break
                if patient and self._jobs.empty():
                    job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
                else:
                    job = self._jobs.get_nowait()
        except queue.Empty:
            pass
        return batch

    def _write(self, batch: list[Job]) -> None:
        try:
            self._commit(batch)
            self.full = False
        except sqlite3.Error as error:
            self._rollback()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in PASSING:
                self._did_not_fit(batch, error)
                return
            if code in FATAL:
                raise
            self._one_by_one(batch)
        except Exception:
            self._rollback()
            self._one_by_one(batch)
        else:
            self._loop.call_soon_threadsafe(self._resolve, batch)

    def _commit(self, batch: list[Job]) -> None:
        """Everything in one transaction; nothing of it if anything fails."""
        begun = time.perf_counter()
        self._conn.execute("BEGIN IMMEDIATE")
        if self.full:
            self._conn.execute(messages.PROBE)
        tx = Transaction(self._conn, self._domains)
        for job in batch:
            job.result = job.work(tx)
            job.error = None
        tx.flush()
        self._conn.execute("COMMIT")
        self._domains.committed()
        self.commits += 1
        self.largest_group = max(self.largest_group, len(batch))
        self.worst_commit = max(self.worst_commit, time.perf_counter() - begun)
        for act in tx.after:
            with contextlib.suppress(OSError):  # a file that stays without its rows is removed at the next start
                act()

    def _rollback(self) -> None:
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")
        self._domains.rolled_back()

    def _one_by_one(self, batch: list[Job]) -> None:
        """One of the jobs is bad: a transaction each, so that it fails alone."""
        done: list[Job] = []
        for number, job in enumerate(batch):
            try:
                self._commit([job])
            except Exception as error:
                self._rollback()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in FATAL:
                    raise
                if code in PASSING:
                    self._loop.call_soon_threadsafe(self._resolve, done)
                    self._did_not_fit(batch[number:], error)
                    return
                job.error = error
            done.append(job)
        self._loop.call_soon_threadsafe(self._resolve, done)

    def _did_not_fit(self, batch: list[Job], error: Exception) -> None:
        """The disk is full: settlements are kept for later, everything else is refused now."""
        self.full = True
        self.on_full()
        self._shorten_wal()
        refused = [job for job in batch if not job.keep or self._stopping]
        self._kept = [job for job in batch if job.keep and not self._stopping]
        for job in refused:
            job.error = StoreError(f"the queue cannot be written now: {error}")
        self._loop.call_soon_threadsafe(self._resolve, refused)

    def _shorten_wal(self) -> None:
        """Copy the WAL back and cut it off: what it took of the disk is room for settlements."""
        try:
            self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in FATAL:
                raise

    def _resolve(self, batch: list[Job]) -> None:
        """On the loop: everybody of the batch hears."""
        for job in batch:
            self.waiting -= job.size
            try:
                job.done(job.result, job.error)
            except Exception as error:  # the others of the batch hear all the same
                self._on_fatal(error)


def housekeeping(tx: Transaction) -> int:
    """Now and then: counters that came to nothing, pages that became free. Returns the octets on free pages."""
    tx.conn.execute(messages.DROP_ZERO_COUNTERS)
    tx.conn.execute("PRAGMA incremental_vacuum(256)").fetchall()
    free: int = tx.conn.execute("PRAGMA freelist_count").fetchone()[0]
    return free * PAGE_SIZE

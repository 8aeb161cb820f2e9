"""The store as the relay uses it: durable acceptance, claims, settlements, and what is due.

Promises: `accept` resolves only after the COMMIT has synced (and, for a large body, the file and its directory before
it); a settlement names the claim and is void if it is not ours; nothing here walks the queue except at start after a
crash. Called on the event loop; all that may block happens in the writer thread or the reader threads.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mailtui.clock import Clock
from mailtui.ids import IdSource
from mailtui.model import Account, Claimed, Control, Message, Outcome, Recipient, Reply, Settled, SmtpError
from mailtui.queue import accounts, actions, claims, operations, upkeep, warning
from mailtui.queue.actions import Acted, Action, Leaving
from mailtui.queue.backup import write_backup
from mailtui.queue.database import LOCK_PATIENCE, StoreError, take_lock
from mailtui.queue.inherited import inherit
from mailtui.queue.operations import Operation, Order, Rid
from mailtui.queue.read import Reader
from mailtui.queue.reading import ReadingThread
from mailtui.queue.reserve import Reserve
from mailtui.queue.spool import Spool, SpoolFile
from mailtui.queue.tables import controls, history, journal, messages
from mailtui.queue.transaction import Transaction, VoidClaim
from mailtui.queue.writer import Job, Writer

T = TypeVar("T")

# Seconds that a read may take: an indexed one, and one that may walk a queue of a million (and can be interrupted).
READ_DEADLINE, SCAN_DEADLINE = 5.0, 60.0

# Free space is asked of the system at most this often, in seconds.
DISK_CHECK = 2.0

# A new message up to this size is written down by the loop itself (writer.py): a batch of twenty is copied in 1 ms.
LIGHT = 64 * 1024


class Store:
    """One per relay. `open` first; then `admit` and `committed` may be set by the relay."""

    def __init__(self, state_dir: Path, clock: Clock, *, free_disk: int = 0) -> None:
        self.state_dir = state_dir
        self.clock = clock
        self.admit: Callable[[Message], bool] = lambda message: False
        self.committed: Callable[[Message], None] = lambda message: None
        self.dropped: Callable[[Message], None] = lambda message: None  # admitted, but not committed
        self.on_fatal: Callable[[BaseException], None] = lambda error: None
        self.intake_paused: Callable[[], bool] = lambda: False
        self.on_void: Callable[[str], None] = lambda text: None  # a settlement named a claim that is not ours
        self.free_disk = free_disk
        self.owner = 0
        self.missing_bodies: set[int] = set()
        self._executor = ThreadPoolExecutor(4, "spool")
        self._reading = ReadingThread("reader", state_dir, READ_DEADLINE)
        self._scanning = ReadingThread("scan", state_dir, SCAN_DEADLINE)
        self._disk_at = -DISK_CHECK
        self._reserve = Reserve(state_dir)
        self._free = 0
        self._free_pages = 0

    # -- opening and closing -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the lock, bring the schema up to date, void what an earlier relay held. Raises StoreError."""
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(self.state_dir, patience=LOCK_PATIENCE)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self.spool = Spool(self.state_dir)
            self._reserve.release()  # with a full disk, taking over needs what was kept aside
            found = inherit(self.state_dir, self.spool, self.clock.now())
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError):
                raise self._unusable(error) from error
            raise
        self.owner = found.owner
        self.ids = IdSource(found.last_id)
        self.interrupted, self.interrupted_operations = found.interrupted, found.interrupted_operations
        self.missing_bodies = found.missing_bodies
        self.accounts, self.heads, self.controls = found.accounts, found.heads, found.controls
        self._free_pages = found.free_pages
        self._reserve.keep()
        self.writer = Writer(found.conn, asyncio.get_running_loop(), self._fatal)
        self.writer.on_full = self._reserve.release
        self.writer.start()

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot use the state directory {self.state_dir}: {error.strerror or error}; "
            "check its owner and permissions, or give another --state"
        )

    async def close(self, *, clean: bool) -> None:
        """Commit what is waiting and let go of the state directory. `clean`: nothing is claimed any more."""
        loop = asyncio.get_running_loop()
        # Readers first: the writer is then the last one out and leaves no WAL behind.
        await loop.run_in_executor(None, self._reading.close)
        await loop.run_in_executor(None, self._scanning.close)
        if clean:
            with contextlib.suppress(Exception):
                await self.writer.call(lambda tx: None)  # what was submitted before is committed now
                await self.writer.call(claims.mark_clean)
        await self.writer.stop()
        self._executor.shutdown(wait=True)
        os.close(self._lock)

    def _fatal(self, error: BaseException) -> None:
        self.on_fatal(error)

    def _failed(self, error: BaseException) -> None:
        """A settlement was not written: void ones are reported, all else ends the relay."""
        if isinstance(error, VoidClaim):
            self.on_void(str(error))
        else:
            self.on_fatal(error)

    # -- accepting ---------------------------------------------------------------------------------------------------

    def next_id(self) -> int:
        return self.ids.next(self.clock.now())

    @property
    def waiting(self) -> int:
        """Octets of bodies on their way to the database."""
        return self.writer.waiting

    def refusal(self) -> SmtpError | None:
        """What new mail is answered while the store cannot take it; None if it can."""
        if self.intake_paused():
            return SmtpError(450, "4.3.2", "Not accepting mail now, try again later", "pause")
        monotonic = self.clock.monotonic()
        if monotonic - self._disk_at >= DISK_CHECK:
            self._disk_at = monotonic
            self._free = self.free_space()
            if not self._reserve.kept and not self.writer.full:
                asyncio.get_running_loop().run_in_executor(self._executor, self._reserve.keep)
        if self.writer.full or not self._reserve.kept or self._free < self.free_disk:
            return SmtpError(452, "4.3.1", "Insufficient system storage, try again later", "free-disk")
        return None

    def free_space(self) -> int:
        """Octets free on the queue's file system for an ordinary user, and on free pages of the database."""
        try:
            facts = os.statvfs(self.state_dir)
        except OSError:
            return 0
        return facts.f_bavail * facts.f_frsize + self._free_pages

    def open_spool(self, number: int) -> SpoolFile:
        return self.spool.create(number)

    def accept(self, message: Message, spool: SpoolFile | None = None) -> asyncio.Future[None]:
        """Keep a message; resolved when it is on disk. Raises StoreError or SmtpError through the future."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if spool is None:
            self._submit(message, future)
        else:
            finishing = loop.run_in_executor(self._executor, spool.finish)
            finishing.add_done_callback(partial(self._spooled, message, spool, future))
        return future

    def _spooled(self, message: Message, spool: SpoolFile, future: asyncio.Future[None], finishing: Any) -> None:
        error = finishing.exception()
        if error is None:
            self._submit(message, future, spool)
        else:
            spool.abandon()
            if not future.done():
                future.set_exception(StoreError(f"cannot write the spool file: {error}"))

    def _submit(self, message: Message, future: asyncio.Future[None], spool: SpoolFile | None = None) -> None:
        if not self._reserve.kept:  # what is left of the disk is for settlements
            if spool is not None:
                spool.abandon()
            if not future.done():
                future.set_exception(StoreError("the queue's disk is full"))
            return
        message.claimed = self.admit(message)
        owner = self.owner

        def work(tx: Transaction) -> None:
            tx.add_message(message, owner)

        def done(result: Any, error: BaseException | None) -> None:
            if error is None:
                if not future.done():
                    future.set_result(None)
                self.committed(message)
            else:
                self.dropped(message)
                if spool is not None:
                    spool.abandon()
                if not future.done():
                    future.set_exception(error if isinstance(error, StoreError) else StoreError(str(error)))

        size = len(message.body or b"")
        self.writer.submit(Job(work, done, size, light=size <= LIGHT))

    def refused(
        self, *, client: str, helo: str, sender: str, recipient: str, destination: str, reply: Reply, rule: str
    ) -> None:
        """Remember a refusal at the door; nobody waits for it."""
        at = self.clock.now()

        def work(tx: Transaction) -> None:
            # Only domains that we know already are interned: strangers do not make our tables grow.
            number = tx.domains.ids.get(destination) or tx.domains.id("")
            tx.add_history(
                (0, 0, number, history.REFUSED, at, at, reply.code, 0, sender, recipient, "", "", client,
                 reply.enhanced, reply.text[: claims.REPLY_LENGTH], "", "")
            )  # fmt: skip

        self.writer.submit(Job(work, _ignore, patient=True))

    # -- delivering --------------------------------------------------------------------------------------------------

    def settle(
        self,
        message: Message,
        settled: Sequence[Settled],
        reports: Iterable[Message] = (),
        done: Callable[[], None] | None = None,
    ) -> None:
        """Write how an attempt ended: removals, deferrals, history, attempts, reports and counters, in one transaction.

        `done` is called on the loop after the commit. A settlement that does not fit on the disk is kept and retried.
        """
        reports = list(reports)
        for report in reports:
            report.claimed = self.admit(report)
        owner, now = self.owner, self.clock.now()
        unlink = partial(self.spool.unlink, message.id) if message.body is None else None
        whole = message.alone

        def work(tx: Transaction) -> None:
            for report in reports:
                tx.add_message(report, owner)
            claims.settle(tx, message, settled, owner, now, whole=whole, unlink=unlink)

        def finished(result: Any, error: BaseException | None) -> None:
            if error is not None:
                self._failed(error)
                return
            for report in reports:
                self.committed(report)
            if done is not None:
                done()

        size = sum(len(r.body or b"") for r in reports)
        # A deferral is put back among the parked, wherever its place in the indexes is: that may read from the disk.
        light = not size and all(s.verdict.outcome is Outcome.DELIVERED for s in settled)
        self.writer.submit(Job(work, finished, size, keep=True, patient=True, light=light))

    def park(self, message: Message, recipients: Sequence[Recipient], done: Callable[[], None] | None = None) -> None:
        """Give recipients back untried: they stay due as they were."""
        rows = [(r.due, message.id, r.ordinal, self.owner) for r in recipients]

        def finished(result: Any, error: BaseException | None) -> None:
            if error is not None:
                self._failed(error)
            elif done is not None:
                done()

        self.writer.submit(
            Job(lambda tx: tx.conn.executemany(messages.PARK_RECIPIENT, rows), finished, keep=True, patient=True)
        )

    def claim_due(self, destination: str, count: int, cursor: str) -> asyncio.Future[Claimed]:
        """Claim up to `count` messages with due recipients of one destination, round-robin over submitters."""
        now = self.clock.now()
        return self.writer.call(lambda tx: Claimed(*claims.claim_due(tx, self.owner, destination, count, now, cursor)))

    def claim_expired(self, destination: str, count: int) -> asyncio.Future[list[Message]]:
        """Claim due recipients of a destination that are past their expiry: the dead next hop speaks for them."""
        now = self.clock.now()
        return self.writer.call(lambda tx: claims.claim_expired(tx, self.owner, destination, count, now))

    def claim_unwarned(
        self, destination: str, cursor: warning.Cursor, before: float, wanted: warning.Wanted
    ) -> asyncio.Future[warning.Unwarned]:
        """Claim the next message for a destination that waits since `before` (wall time) and whose sender is `wanted`
        to be told; one bounded step (queue/warning.py)."""
        return self.writer.call(lambda tx: warning.claim_unwarned(tx, self.owner, destination, cursor, before, wanted))

    def claim_waiting(self, number: int, before: float, wanted: warning.Wanted) -> asyncio.Future[Message | None]:
        """The same for one message that is known."""
        return self.writer.call(lambda tx: warning.claim_waiting(tx, self.owner, number, before, wanted))

    def warn(
        self,
        message: Message,
        warned: Sequence[Recipient],
        others: Sequence[Recipient],
        reports: Iterable[Message],
        done: Callable[[], None],
    ) -> None:
        """Give claimed recipients back untried, some of them marked as warned, and put in the reports of that: one
        transaction. `done` is called on the loop after the commit."""
        reports = list(reports)
        for report in reports:
            report.claimed = self.admit(report)
        owner = self.owner
        marked = [(r.due, message.id, r.ordinal, owner) for r in warned]
        parked = [(r.due, message.id, r.ordinal, owner) for r in others]

        def work(tx: Transaction) -> None:
            for report in reports:
                tx.add_message(report, owner)
            tx.conn.executemany(messages.PARK_RECIPIENT, parked)
            if marked and tx.conn.executemany(messages.PARK_WARNED, marked).rowcount < len(marked):
                raise VoidClaim(f"a delay notice for {message.envelope.sender} names a claim that is not its own")

        def finished(result: Any, error: BaseException | None) -> None:
            if error is not None:
                self._failed(error)
                return
            for report in reports:
                self.committed(report)
            done()

        size = sum(len(r.body or b"") for r in reports)
        self.writer.submit(Job(work, finished, size, keep=True, patient=True))

    def journal(self, event: str, *, who: str = "mailtui", command: str = "", text: str = "", reason: str = "") -> None:
        """Write a line of the journal; nobody waits for it."""
        row = (self.clock.now(), event, who, command, "", None, reason, text)
        self.writer.submit(Job(lambda tx: tx.conn.execute(journal.INSERT, row), _ignore, patient=True))

    # -- acting ------------------------------------------------------------------------------------------------------

    def act(self, action: Action, rids: Sequence[Rid]) -> asyncio.Future[Acted]:
        """Do it to parked recipients, at most 1,000 a call; one commit."""
        now = self.clock.now()
        return self.writer.call(lambda tx: actions.act(tx, action, rids, now))

    async def turn(self) -> None:
        """Until the mail that waits for the writer now is on disk, by itself: between two pieces of work for whom
        nobody hurries."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if not future.done():
                future.set_result(None)  # whatever became of it: the next piece of work will say

        self.writer.submit(Job(_nothing, done, light=True))
        await future

    def claim_leaving(self, count: int) -> asyncio.Future[list[Leaving]]:
        """Claim about `count` recipients whose grace is over."""
        now = self.clock.now()
        return self.writer.call(lambda tx: actions.claim_leaving(tx, self.owner, now, count))

    def next_leaving(self) -> asyncio.Future[float | None]:
        """When the next grace ends; None if nothing is leaving."""
        return self.writer.call(lambda tx: actions.next_leaving(tx.conn))

    def begin_operation(self, order: Order) -> asyncio.Future[int]:
        """Note an operation before its first chunk; its number."""
        now = self.clock.now()
        return self.writer.call(lambda tx: operations.begin_operation(tx, order, now))

    def progress(self, number: int, *, delivered_before: int = 0, pending: int = 0) -> asyncio.Future[None]:
        """Add to what an operation counts besides `done`."""
        work = partial(operations.progress, number=number, delivered_before=delivered_before, pending=pending)
        return self.writer.call(work, keep=True)

    def end_operation(self, number: int) -> asyncio.Future[Operation]:
        """Write the journal's line of an operation; with a full disk, as soon as there is room."""
        now = self.clock.now()
        return self.writer.call(lambda tx: operations.end_operation(tx, number, now), keep=True)

    async def operations(self, limit: int = 50) -> list[Operation]:
        """The latest operations, newest first."""
        return await self._reading.run(partial(operations.read_operations, self.state_dir, limit))

    async def touched(self, number: int, after: Rid = (0, 0)) -> list[Rid]:
        """A page of what an operation changed and no later one did; the next page is after its last."""
        return await self._reading.run(partial(operations.read_touched, self.state_dir, number, after))

    # -- what operators set ------------------------------------------------------------------------------------------

    def set_control(self, kind: str, control: Control) -> asyncio.Future[None]:
        """Remember a pause, a suspension, a limit, a route."""
        row = (
            kind, control.name, json.dumps(dict(control.value)), control.since, control.until, control.who,
            control.reason,
        )  # fmt: skip
        return self.writer.call(lambda tx: tx.conn.execute(controls.SET, row) and None)

    def unset_control(self, kind: str, name: str) -> asyncio.Future[None]:
        return self.writer.call(lambda tx: tx.conn.execute(controls.UNSET, (kind, name)) and None)

    def set_account(self, account: Account) -> asyncio.Future[None]:
        """Remember an account, or what it is from now on."""
        return self.writer.call(lambda tx: accounts.put(tx.conn, account))

    def unset_account(self, name: str) -> asyncio.Future[None]:
        return self.writer.call(lambda tx: accounts.remove(tx.conn, name))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def read(self, work: Callable[[Reader], T]) -> T:
        """An indexed read, on the thread for them."""
        return await self._reading.read(work)

    async def scan(self, work: Callable[[Reader], T]) -> T:
        """A read that may walk the queue, on a thread of its own."""
        return await self._scanning.read(work)

    async def pieces(self, number: int) -> list[bytes]:
        """The octets of a spooled message (tests and small tools; delivery streams through `spool`)."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: list(self.spool.pieces(number)))

    async def backup(self, target: Path, configuration: Path | None) -> int:
        """Write a consistent copy beside the traffic; its size. Raises StoreError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, write_backup, self.state_dir, target, configuration
        )

    # -- housekeeping ------------------------------------------------------------------------------------------------

    def tidy(self, *, keep: float, rows: int, transcripts: float) -> None:
        """Pruning, in as many small steps as it takes, and vacuuming; called now and then by the relay."""
        upkeep.tidy(self.writer, now=self.clock.now(), keep=keep, rows=rows, transcripts=transcripts, freed=self._freed)

    def _freed(self, octets: int) -> None:
        self._free_pages = octets


def _nothing(tx: Transaction) -> None:
    """For who only waits for a turn."""


def _ignore(result: Any, error: BaseException | None) -> None:
    """For what nobody waits for: pruning that failed is tried again with the next step."""

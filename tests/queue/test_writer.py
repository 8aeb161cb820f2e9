"""The writer: group commit, a bad job alone, a full disk, a failed sync."""

import asyncio
import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Attempt, Message, SmtpError
from mailtui.queue import writer as writer_module
from mailtui.queue.database import StoreError, path_of
from mailtui.queue.reserve import RESERVE_BYTES
from mailtui.queue.store import DISK_CHECK, Store
from mailtui.queue.transaction import Transaction

from .stores import (
    accept,
    accept_spooled,
    check_books,
    deferred,
    delivered,
    gate,
    message,
    on_writer,
    opened,
    rows,
    settle,
    states,
    to,
    until,
    value,
    written,
)


async def outcomes(*futures: "asyncio.Future[None]") -> list[str | None]:
    """How each ended: None, or the text of its error."""
    found = await asyncio.gather(*futures, return_exceptions=True)
    assert all(error is None or isinstance(error, StoreError) for error in found), found
    return [None if error is None else str(error) for error in found]


# -- groups ----------------------------------------------------------------------------------------------------------


async def test_what_arrives_during_a_commit_is_committed_together(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = [message(store) for _ in range(20)]
        before = store.writer.commits
        with gate(store):
            futures = [store.accept(m) for m in made]
        assert await outcomes(*futures) == [None] * 20
        assert store.writer.commits - before == 2  # the gate's own, and one for all
        assert store.writer.largest_group == 20
    assert len(states(tmp_path)) == 20


async def test_a_group_ends_at_its_limit_of_octets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_BYTES", 10_000)
    async with opened(tmp_path) as store:
        made = [message(store, body=b"x" * 5000) for _ in range(6)]
        before = store.writer.commits
        with gate(store):
            futures = [store.accept(m) for m in made]
            assert store.waiting == 30_000
        await asyncio.gather(*futures)
        assert store.writer.commits - before == 4
        assert store.waiting == 0


async def test_a_group_ends_at_its_limit_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_JOBS", 4)
    async with opened(tmp_path) as store:
        before = store.writer.commits
        with gate(store):
            futures = [store.accept(message(store)) for _ in range(10)]
        await asyncio.gather(*futures)
        assert store.writer.commits - before == 4


async def test_stopping_writes_what_is_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_JOBS", 4)
    async with opened(tmp_path) as store:
        futures = [store.accept(message(store)) for _ in range(30)]
    assert await outcomes(*futures) == [None] * 30
    assert len(states(tmp_path)) == 30


async def test_light_jobs_wait_for_a_turn_of_the_loop_and_go_together(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        first = await accept(store)
        before = store.writer.commits
        futures = [store.accept(message(store)) for _ in range(10)]
        store.settle(first, [delivered(first.recipients[0])])
        assert await outcomes(*futures) == [None] * 10
        assert store.writer.commits - before == 1
        assert (first.id, 1) not in states(tmp_path)


async def test_a_lock_held_by_somebody_else_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        with closing(sqlite3.connect(path_of(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            future = store.accept(message(store))
            for _ in range(10):  # turns of the loop: it goes round while the writer's thread waits for the lock
                await asyncio.sleep(0)
            assert not future.done()
            other.execute("ROLLBACK")
        assert await outcomes(future) == [None]
        assert not store.writer.full


# -- bad jobs --------------------------------------------------------------------------------------------------------


def bad(tx: Transaction) -> None:
    tx.conn.execute("UPDATE recipients SET due = 12345")  # must not be seen by anybody
    raise ValueError("a bad job")


async def test_a_bad_job_fails_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first = await accept(store)
        made = [message(store) for _ in range(4)]
        with gate(store):
            futures = [store.accept(m) for m in made[:2]]
            failing = store.writer.call(bad)
            again = store.accept(first)  # its id is taken
            futures += [store.accept(m) for m in made[2:]]
        assert await outcomes(*futures, again) == [None] * 4 + ["UNIQUE constraint failed: messages.id"]
        with pytest.raises(ValueError, match="a bad job"):
            await failing
        assert {number for number, _ in states(tmp_path)} == {m.id for m in (first, *made)}
        assert rows(tmp_path, "SELECT DISTINCT due FROM recipients") == [(0.0,)]
        check_books(tmp_path)


async def test_domains_of_a_bad_job_are_not_remembered(tmp_path: Path) -> None:
    def intern(tx: Transaction) -> None:
        tx.domains.id("unwritten.example")
        raise ValueError

    async with opened(tmp_path) as store:
        with pytest.raises(ValueError):
            await store.writer.call(intern)
        await accept(store, to("ann@unwritten.example"))
        named = "SELECT name FROM recipients JOIN domains ON domains.id = destination"
        assert rows(tmp_path, named) == [("unwritten.example",)]


async def test_an_unlink_that_fails_leaves_the_commit_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept_spooled(store, b"x" * 1000)
        other = message(store)
        path = store.spool.path(made.id)
        path.unlink()
        path.mkdir()  # unlink() of a directory is an error
        heard: list[bool] = []
        with gate(store):
            store.settle(made, [delivered(made.recipients[0])], done=lambda: heard.append(True))
            future = store.accept(other)
        assert await outcomes(future) == [None]
        assert heard == [True]
        assert states(tmp_path).keys() == {(other.id, 1)}
        path.rmdir()


async def test_one_who_cannot_hear_does_not_keep_the_others_from_hearing(tmp_path: Path) -> None:
    fatal: list[BaseException] = []

    def deaf(made: Message) -> None:
        raise RuntimeError("scheduler is gone")

    async with opened(tmp_path) as store:
        store.on_fatal = fatal.append
        store.committed = deaf
        with gate(store):
            futures = [store.accept(message(store)) for _ in range(3)]
        assert await outcomes(*futures) == [None] * 3
    assert [str(error) for error in fatal] == ["scheduler is gone"] * 3


# -- a full disk -----------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "RETRY_AFTER", 0.002)
    monkeypatch.setattr(writer_module, "LOCK_PATIENCE", 0.002)
    monkeypatch.setattr(writer_module, "LOCK_STEP", 0.001)


async def fill(store: Store) -> None:
    """From now on the database may not grow."""
    await on_writer(store, lambda conn: conn.execute("PRAGMA incremental_vacuum").fetchall())
    await on_writer(store, lambda conn: conn.execute("PRAGMA max_page_count = 1").fetchone())


async def make_room(store: Store) -> None:
    await on_writer(store, lambda conn: conn.execute("PRAGMA max_page_count = 1000000").fetchone())


async def recovered(store: Store) -> None:
    """New mail is taken again; the disk is asked about every two seconds."""
    assert isinstance(store.clock, ManualClock)
    while store.refusal() is not None:
        store.clock.advance(DISK_CHECK)
        await asyncio.sleep(0.001)


LARGE = b"x" * 200_000
LONG = Attempt(1.0, 2.0, "mx.example", "192.0.2.25", transcript="x" * 200_000)


async def test_with_a_full_disk_new_mail_is_refused_and_nothing_of_it_is_kept(tmp_path: Path, impatient: None) -> None:
    dropped: list[Message] = []
    async with opened(tmp_path, claim=True) as store:
        store.dropped = dropped.append
        old = await accept(store)
        await fill(store)
        made = message(store, body=LARGE)
        [error] = await outcomes(store.accept(made))
        assert error is not None and "full" in error
        assert dropped == [made]
        assert store.waiting == 0
        await make_room(store)
        await recovered(store)
        assert {number for number, _ in states(tmp_path)} == {old.id}
        check_books(tmp_path)
        await accept(store, body=LARGE)


async def test_with_a_full_disk_settlements_are_kept_and_written_when_there_is_room(
    tmp_path: Path, impatient: None
) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        await fill(store)
        heard: list[bool] = []
        store.settle(made, [deferred(made.recipients[0], 5e9, attempt=LONG)], done=lambda: heard.append(True))
        await until(lambda: store.writer.full)
        refusal = store.refusal()
        assert isinstance(refusal, SmtpError)
        assert (refusal.reply.code, refusal.reply.enhanced) == (452, "4.3.1")
        assert not heard
        assert value(tmp_path, "SELECT claim FROM recipients") == store.owner
        await make_room(store)
        await until(lambda: bool(heard))
        assert not store.writer.full
        await recovered(store)
        assert rows(tmp_path, "SELECT claim, due, length(transcript) FROM recipients, attempts") == [(0, 5e9, 200_000)]
        check_books(tmp_path)


async def test_what_did_not_fit_beside_others_is_told_from_them(tmp_path: Path, impatient: None) -> None:
    async with opened(tmp_path, claim=True) as store:
        small, made = await accept(store), await accept(store)
        await fill(store)
        heard: list[str] = []
        with gate(store):
            failing = store.writer.call(bad)  # so that each is tried alone
            store.settle(small, [delivered(small.recipients[0])], done=lambda: heard.append("small"))
            store.settle(made, [deferred(made.recipients[0], 5e9, attempt=LONG)], done=lambda: heard.append("long"))
            future = store.accept(message(store, body=LARGE))
        [error] = await outcomes(future)
        assert error is not None
        await asyncio.gather(failing, return_exceptions=True)
        await make_room(store)
        await until(lambda: len(heard) == 2)
        assert states(tmp_path).keys() == {(made.id, 1)}
        check_books(tmp_path)


async def test_a_full_disk_is_noticed_to_have_room_again_with_nothing_to_write(tmp_path: Path, impatient: None) -> None:
    async with opened(tmp_path) as store:
        await fill(store)
        [error] = await outcomes(store.accept(message(store, body=LARGE)))
        assert error is not None
        await until(lambda: not store.writer.full)  # the probe fits
        await recovered(store)
        await make_room(store)


async def test_a_full_disk_releases_the_reserve_for_settlements_until_it_can_be_kept_again(
    tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(fd: int, start: int, length: int) -> None:
        os.ftruncate(fd, 4096)
        raise OSError(errno.ENOSPC, "No space left on device")

    reserve = tmp_path / "reserve"
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        assert reserve.stat().st_size == RESERVE_BYTES
        await fill(store)
        await outcomes(store.accept(message(store, body=LARGE)))
        assert not reserve.exists()
        await make_room(store)
        await until(lambda: not store.writer.full)
        with monkeypatch.context() as patch:
            patch.setattr(os, "posix_fallocate", no_room)
            for _ in range(5):
                assert isinstance(store.clock, ManualClock)
                store.clock.advance(DISK_CHECK)
                assert store.refusal() is not None
                await asyncio.sleep(0.001)
            [error] = await outcomes(store.accept(message(store)))  # it would eat the reserve up
            assert error == "the queue's disk is full"
            spooled = message(store, body=None, size=1)
            [error] = await outcomes(store.accept(spooled, store.open_spool(spooled.id)))
            assert error is not None and not store.spool.path(spooled.id).exists()
            assert await settle(store, made, delivered(made.recipients[0]))
            await asyncio.get_running_loop().run_in_executor(store._executor, lambda: None)
            assert not reserve.exists()  # nor half of it
        await recovered(store)
        assert reserve.stat().st_size == RESERVE_BYTES
        await accept(store)


async def test_a_full_disk_gets_back_what_the_wal_took(tmp_path: Path, impatient: None) -> None:
    wal = tmp_path / (path_of(tmp_path).name + "-wal")
    async with opened(tmp_path) as store:
        for _ in range(4):
            await accept(store, body=LARGE)
        assert wal.stat().st_size > 4 * len(LARGE)
        await fill(store)
        await outcomes(store.accept(message(store, body=LARGE)))
        await until(lambda: not store.writer.full)
        assert wal.stat().st_size < 100_000
        await make_room(store)


async def test_a_relay_starts_on_a_disk_without_room_and_takes_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(fd: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    async with opened(tmp_path) as store:
        assert store.refusal() is not None


async def test_a_file_system_that_keeps_nothing_aside_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(fd: int, start: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    async with opened(tmp_path) as store:
        assert store.refusal() is None
        await accept(store)


async def test_stopping_with_a_full_disk_ends_and_loses_nothing_but_the_settlement(
    tmp_path: Path, impatient: None
) -> None:
    fatal: list[BaseException] = []
    async with opened(tmp_path, claim=True) as store:
        store.on_fatal = fatal.append
        made = await accept(store)
        await fill(store)
        store.settle(made, [deferred(made.recipients[0], 5e9, attempt=LONG)])
        await until(lambda: store.writer.full)
    assert len(fatal) == 1
    async with opened(tmp_path) as store:
        assert store.interrupted == 1  # not clean: its claim is voided, and it is tried again
        assert value(tmp_path, "SELECT claim FROM recipients") == 0


async def test_a_lock_held_by_somebody_else_is_waited_for(tmp_path: Path, impatient: None) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        await on_writer(store, lambda conn: None)
        heard: list[bool] = []
        with closing(sqlite3.connect(path_of(tmp_path), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.settle(made, [delivered(made.recipients[0])], done=lambda: heard.append(True))
            await until(lambda: store.writer.full)
            other.execute("ROLLBACK")
        await until(lambda: bool(heard))
        assert states(tmp_path) == {}


# -- a failed sync ---------------------------------------------------------------------------------------------------


class Failing:
    """A connection whose commits fail as with a broken disk, once the statement is met."""

    def __init__(self, conn: sqlite3.Connection, statement: str) -> None:
        self._conn = conn
        self._statement = statement
        self.failures = 0
        self.closed = False

    def execute(self, sql: str, *values: Any) -> Any:
        if sql == self._statement:
            self.failures += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC  # type: ignore[misc]
            raise error
        return self._conn.execute(sql, *values)

    def close(self) -> None:
        self._conn.close()
        self.closed = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)


async def test_after_a_failed_sync_nothing_is_acknowledged_and_the_relay_is_told(tmp_path: Path) -> None:
    fatal: list[BaseException] = []
    committed: list[Message] = []
    settled: list[bool] = []
    store = Store(tmp_path, ManualClock())
    store.admit = lambda _: True
    store.on_fatal = fatal.append
    store.open()
    made = await accept(store)
    store.committed = committed.append
    failing = Failing(store.writer._conn, "COMMIT")
    with gate(store):
        store.writer._conn = failing  # type: ignore[assignment]
        futures = [store.accept(message(store)) for _ in range(3)]
        store.settle(made, [delivered(made.recipients[0])], done=lambda: settled.append(True))
    # The gate's own commit fails already.
    await until(lambda: bool(fatal))
    assert "disk I/O error" in str(fatal[0])
    errors = await outcomes(*futures, store.accept(message(store)))
    assert all(error is not None and "cannot be written any more" in error for error in errors)
    assert not committed and not settled
    assert failing.failures == 1  # never tried again
    assert failing.closed
    async with asyncio.timeout(10):
        await store.close(clean=True)
    async with opened(tmp_path) as again:
        assert states(tmp_path).keys() == {(made.id, 1)}
        assert again.interrupted == 1
        check_books(tmp_path)


# -- housekeeping ----------------------------------------------------------------------------------------------------


async def test_housekeeping_drops_counters_that_came_to_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept(store)
        await settle(store, made, delivered(made.recipients[0]))
        assert value(tmp_path, "SELECT count(*) FROM counters") > 0
        store.tidy(keep=1e9, rows=1000, transcripts=1e9)
        await written(store)
        assert rows(tmp_path, "SELECT * FROM counters") == []
        check_books(tmp_path)


async def test_free_pages_count_as_free_space(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        for _ in range(4):  # freed, and too much for one step of vacuuming
            made = await accept(store, body=b"x" * 1_000_000)
            await settle(store, made, delivered(made.recipients[0]))
    size = path_of(tmp_path).stat().st_size
    assert size < 4_000_000  # the pages of one were used for the next
    async with opened(tmp_path) as store:
        assert store._free_pages > 500_000
        assert store.free_space() > store._free_pages

"""Opening the database: one owner, ours only, the schema as promised."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mailtui.queue import database
from mailtui.queue.database import LockHeld, StoreError, open_reader, open_writer, path_of, take_lock
from mailtui.queue.tables import messages

from .stores import opened, rows


@contextmanager
def made(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        yield conn


async def test_all_files_are_the_owners_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with opened(state):
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (state, *state.iterdir())}
    assert modes.pop("state") == 0o700
    assert modes.pop("spool") == 0o700
    assert {"queue.db", "queue.db-wal", "lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


def test_a_new_database_is_durable_and_says_whose_it_is(tmp_path: Path) -> None:
    with closing(open_writer(tmp_path)) as conn:
        pragmas = {
            name: conn.execute(f"PRAGMA {name}").fetchone()[0]
            for name in (
                "journal_mode",
                "synchronous",
                "auto_vacuum",
                "application_id",
                "user_version",
                "page_size",
                "secure_delete",
            )
        }
        strict = conn.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    full, incremental = 2, 2
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": full,
        "auto_vacuum": incremental,
        "application_id": database.APPLICATION_ID,
        "user_version": database.VERSION,
        "page_size": 4096,
        "secure_delete": 0,  # whatever this SQLite was built with
    }
    assert {name for name, is_strict in strict if not is_strict} <= {
        "sqlite_schema",
        "sqlite_sequence",
        "_sqlite_migrations",
    }


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    open_writer(tmp_path).close()
    before = path_of(tmp_path).read_bytes()
    open_writer(tmp_path).close()
    assert path_of(tmp_path).read_bytes() == before


async def test_there_is_one_owner(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(LockHeld, match="another relay runs on") as refused:
            async with opened(tmp_path):
                pass
        assert isinstance(refused.value, StoreError)
        with pytest.raises(LockHeld):
            take_lock(tmp_path, shared=True)
    async with opened(tmp_path):
        pass


def test_readers_share_the_lock_and_keep_the_relay_out(tmp_path: Path) -> None:
    first, second = take_lock(tmp_path, shared=True), take_lock(tmp_path, shared=True)
    with pytest.raises(LockHeld):
        take_lock(tmp_path)
    os.close(first)
    os.close(second)
    os.close(take_lock(tmp_path))


def refusal(state: Path) -> str:
    """How a directory is refused, in one line; the database in it stays as it was, and the lock is free again."""
    before = path_of(state).read_bytes()
    with pytest.raises(StoreError) as refused:
        open_writer(state)
    assert path_of(state).read_bytes() == before
    text = str(refused.value)
    assert "\n" not in text
    assert str(path_of(state)) in text
    return text


async def test_a_newer_database_is_refused_and_not_changed(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with made(path_of(tmp_path)) as conn:
        conn.execute(f"PRAGMA user_version = {database.VERSION + 1}")
    assert "newer mailtui" in refusal(tmp_path)
    with pytest.raises(StoreError):
        async with opened(tmp_path):
            pass
    with made(path_of(tmp_path)) as conn:
        conn.execute(f"PRAGMA user_version = {database.VERSION}")
    async with opened(tmp_path):  # the refusal has let go of the lock
        pass


def test_a_database_of_another_program_is_refused_and_not_changed(tmp_path: Path) -> None:
    with made(path_of(tmp_path)) as conn:
        conn.execute("CREATE TABLE theirs (x)")
    assert "not a mailtui database" in refusal(tmp_path)


def test_an_empty_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with made(path_of(tmp_path)) as conn:
        conn.execute("PRAGMA application_id = 77")
    assert "not a mailtui database" in refusal(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path_of(tmp_path).write_bytes(b"something else entirely\n" * 100)
    assert "not a database" in refusal(tmp_path)


def test_a_relay_killed_while_it_made_the_database_can_start_again(tmp_path: Path) -> None:
    with made(path_of(tmp_path)) as conn:  # as far as the first page, which the journal mode writes
        conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
    assert path_of(tmp_path).stat().st_size > 0
    open_writer(tmp_path).close()
    assert rows(tmp_path, "SELECT count(*) FROM recipients") == [(0,)]


async def test_a_directory_that_cannot_be_used_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StoreError) as refused:
        async with opened(tmp_path / "file" / "state"):
            pass
    assert str(refused.value) == (
        f"cannot use the state directory {tmp_path}/file/state: Not a directory; "
        "check its owner and permissions, or give another --state"
    )


async def test_a_file_in_the_place_of_the_spool_is_an_error_that_frees_the_lock(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("not a directory")
    with pytest.raises(StoreError, match="cannot use the state directory"):
        async with opened(tmp_path):
            pass
    (tmp_path / "spool").unlink()
    async with opened(tmp_path):
        pass


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    open_writer(tmp_path).close()
    with closing(open_reader(tmp_path)) as conn, pytest.raises(sqlite3.OperationalError, match="readonly"):
        conn.execute("DELETE FROM messages")


SEEKS = (
    messages.NEXT_SUBMITTER,
    messages.DUE_OF_SUBMITTER,
    messages.DUE_FIRST,
    messages.DUE_OF_MESSAGE,
    messages.OVERDUE,
    messages.NEXT_DUE,
    messages.SELECT_MESSAGE,
    messages.SELECT_BODY,
    messages.CLAIM_RECIPIENT,
    messages.PARK_RECIPIENT,
    messages.DEFER_RECIPIENT,
    messages.DELETE_RECIPIENTS,
    messages.DELETE_MESSAGES,
    messages.DELETE_BODIES,
    messages.ADD_COUNTERS,
    messages.ADD_SUMS,
    messages.DROP_LEAVING_WHOLE,
    messages.ADD_LEAVING_WHOLE,
    messages.STATE_LEFT,
    messages.NEXT_COUNTERS,
    messages.DROP_ZERO_COUNTERS,
    messages.DROP_ZERO_SUMS,
    messages.COUNT_RECIPIENTS,
)


@pytest.mark.parametrize("sql", SEEKS, ids=lambda sql: " ".join(sql.split())[:60])
def test_delivery_never_walks_the_queue(tmp_path: Path, sql: str) -> None:
    with closing(open_writer(tmp_path)) as conn:
        plan = [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + sql, (None,) * sql.count("?"))]
    for step in plan:
        assert "TEMP B-TREE" not in step, plan
        # What a statement is given, or has found, it may go through.
        assert not step.startswith("SCAN") or "json_each" in step or "subquery" in step, plan


def test_a_start_walks_an_index_of_spooled_messages_only(tmp_path: Path) -> None:
    with closing(open_writer(tmp_path)) as conn:
        plan = [row[3] for row in conn.execute("EXPLAIN QUERY PLAN " + messages.SPOOLED_IDS)]
    assert plan == ["SCAN messages USING INDEX spooled_messages"]

"""Opening the database: one owner, one read-write connection, the schema and its migrations.

Promises: only who holds the lock exclusively opens the database for writing; a database of a newer version, or of
another program, is refused before anything is changed; all files are readable by their owner only.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from mailtui.queue.tables import accounts, actions, attempts, controls, history, journal, listing, messages

# "mtui": tells file(1), and us, whose database this is.
APPLICATION_ID = 0x6D747569

# Pages of 4 KiB: the usual body of a few KiB takes one or two, and the WAL carries no more than what changed.
PAGE_SIZE = 4096

# The WAL is copied back when it has this many pages (4 MiB): more makes the commit that has to do it stall longer
# (100 ms at 4,000), and relayed no faster. The writer's own connection does it, and no other: before SQLite 3.51.3 a
# checkpoint beside a writer can corrupt the database (the "WAL-reset" bug).
CHECKPOINT_PAGES = 1000

# Somebody else's lock on the database is waited for this long when it is opened, in seconds.
OPEN_PATIENCE = 5.0

# After a checkpoint the WAL file is cut back to this, should a long read have let it grow.
WAL_LIMIT = 64 * 1024 * 1024

# Page cache of the writer: the inner pages of the live tables; the system caches the rest.
CACHE_KIB = 16 * 1024


class StoreError(Exception):
    """The store cannot be opened, or did not take what it was given; the text is for people."""


class LockHeld(StoreError):
    """Another process owns the state directory."""


# A relay that starts waits this long for offline commands, which hold the lock shared while they read, in seconds.
LOCK_PATIENCE = 2.0


def take_lock(state_dir: Path, *, shared: bool = False, patience: float = 0.0) -> int:
    """Lock the state directory (flock on `lock`): exclusively for the relay, shared for offline readers.

    Returns the descriptor, which keeps the lock until it is closed. Raises LockHeld after `patience` seconds, or
    OSError."""
    fd = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if patience <= 0:
                os.close(fd)
                raise LockHeld(
                    f"another relay runs on {state_dir}; stop it first, or give this one its own --state"
                ) from None
        time.sleep(min(patience, 0.1))
        patience -= 0.1


def path_of(state_dir: Path) -> Path:
    return state_dir / "queue.db"


def open_writer(state_dir: Path) -> sqlite3.Connection:
    """The one read-write connection, schema up to date. The caller holds the lock. Raises StoreError."""
    path = path_of(state_dir)
    conn: sqlite3.Connection | None = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        conn = sqlite3.connect(
            path, timeout=OPEN_PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        _check_owner(conn, path)
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        if conn.execute("PRAGMA page_count").fetchone()[0] == 0:
            conn.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            conn.execute("PRAGMA auto_vacuum = INCREMENTAL")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA foreign_keys = OFF")
        # Debian's SQLite would fill with zeros what a body leaves, and write that too: a third more of every commit.
        conn.execute("PRAGMA secure_delete = OFF")
        conn.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        conn.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        _migrate(conn)
        conn.execute("PRAGMA busy_timeout = 0")  # from now on it is the writer that waits: not on the loop
    except BaseException as error:
        if conn is not None:
            conn.close()
        if isinstance(error, (sqlite3.Error, OSError)):
            raise StoreError(f"cannot open {path}: {error}") from error
        raise
    return conn


def open_reader(state_dir: Path) -> sqlite3.Connection:
    """A read-only connection beside a running relay."""
    conn = sqlite3.connect(
        f"{path_of(state_dir).absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    conn.execute("PRAGMA query_only = 1")
    return conn


def _check_owner(conn: sqlite3.Connection, path: Path) -> None:
    application = conn.execute("PRAGMA application_id").fetchone()[0]
    version = conn.execute("PRAGMA user_version").fetchone()[0]
    # Without a table it is ours to make: a relay that was killed in its first moment leaves such a file.
    empty = application == 0 and conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and application != APPLICATION_ID:
        raise StoreError(f"{path} is not a mailtui database; move it away, or give another --state")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer mailtui (database version {version}, this one knows {VERSION}); "
            "install that version, or restore a backup made before the upgrade"
        )


def _first_schema(conn: sqlite3.Connection) -> None:
    tables = (messages, listing, attempts, history, journal, actions, controls, accounts)
    for table in tables:
        for statement in _statements(table.SCHEMA):
            conn.execute(statement)
    conn.execute(messages.SET_META, (messages.CLEAN, 1))


# In order, never changed once released. user_version is how many of them have been applied.
MIGRATIONS = (_first_schema,)
VERSION = len(MIGRATIONS)


def _migrate(conn: sqlite3.Connection) -> None:
    if conn.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return
    from sqlite_utils import Database, Migrations  # 100 ms of import, needed only when there is something to do

    steps = Migrations("mailtui")
    for number, step in enumerate(MIGRATIONS, 1):
        steps(name=f"{number:03}{step.__name__}")(lambda db, step=step: step(db.conn))
    conn.execute("BEGIN IMMEDIATE")
    try:
        steps.apply(Database(conn, execute_plugins=False))
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {VERSION}")
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: executescript() would commit the migration's transaction."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

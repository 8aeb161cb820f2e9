"""A consistent copy of a running relay's store: one tar with the database, the spool files and the configuration.

Promises: the database in it is of one moment (SQLite's online backup, in steps beside the traffic); every spool file
that this database names is in it, because the files are linked before the copy begins and a file is only removed after
its rows. Runs in a thread; nothing waits for it.
"""

import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from mailtui.queue.database import StoreError, open_reader

# Pages copied in one step (4 MiB), so that the reader's snapshot does not hold a checkpoint up for long at a time.
STEP = 1024

DATABASE, SPOOL, CONFIGURATION = "queue.db", "spool", "mailtui.toml"


def write_backup(state_dir: Path, target: Path, configuration: Path | None) -> int:
    """Write the tar `target` (mode 0600; it must not exist yet). Returns its size. Raises StoreError."""
    try:
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=state_dir) as scratch:
            links = Path(scratch, SPOOL)
            links.mkdir()
            for entry in os.scandir(state_dir / SPOOL):
                if not entry.name.endswith(".part"):
                    _link(entry.path, links / entry.name)
            copy = Path(scratch, DATABASE)
            _copy_database(state_dir, copy)
            # What arrived during the copy: its files are there still, or its rows are not in the copy.
            for entry in os.scandir(state_dir / SPOOL):
                if not entry.name.endswith(".part"):
                    _link(entry.path, links / entry.name)
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                with tarfile.open(fileobj=file, mode="w") as tar:
                    tar.add(copy, DATABASE)
                    tar.add(links, SPOOL)
                    if configuration is not None and configuration.exists():
                        tar.add(configuration, CONFIGURATION)
                file.flush()
                os.fsync(file.fileno())
            return target.stat().st_size
    except FileExistsError:
        raise StoreError(f"{target} exists already; name a new file") from None
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise StoreError(f"cannot write the backup {target}: {error}") from error


def _link(source: str, name: Path) -> None:
    try:
        os.link(source, name)
    except FileExistsError:
        pass
    except FileNotFoundError:  # delivered meanwhile
        pass


def _copy_database(state_dir: Path, copy: Path) -> None:
    source = open_reader(state_dir)
    try:
        destination = sqlite3.connect(copy)
        try:
            source.backup(destination, pages=STEP)
        finally:
            destination.close()
    finally:
        source.close()

"""Putting a backup back where no relay runs: the other half of `backup`.

Promises: nothing of what is there is deleted, it is moved into a directory of its own; nothing is moved before the
backup is unpacked, found to be a queue of ours, and brought up to this version's schema; only names that a backup has
are taken from the tar. The relay that starts on it finds delivery paused.
"""

import contextlib
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from pathlib import Path

from mailtui.ids import decode
from mailtui.queue.backup import CONFIGURATION, DATABASE, SPOOL
from mailtui.queue.database import StoreError, open_writer, take_lock
from mailtui.queue.tables import controls

# What belongs to a queue in a state directory.
_OWN = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", SPOOL)

# As the store's control of a paused delivery has it.
_DELIVERY = "delivery"


def holds_queue(state_dir: Path) -> bool:
    """Whether a queue is there that would be moved aside."""
    return (state_dir / DATABASE).exists()


def put_back(state_dir: Path, backup: Path, *, who: str, now: float) -> tuple[Path | None, Path | None]:
    """Restore; (where the former queue was moved, the configuration that was unpacked). StoreError, LockHeld."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(state_dir)
        try:
            scratch = Path(tempfile.mkdtemp(prefix=".restore-", dir=state_dir))
            try:
                _unpack(backup, scratch)
                _pause(scratch, backup, who, now)
                aside = _move_aside(state_dir, now)
                for name in (SPOOL, DATABASE):
                    os.rename(scratch / name, state_dir / name)
                configuration = _place_configuration(scratch, state_dir)
                _sync(state_dir)
                return aside, configuration
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        finally:
            os.close(lock)
    except tarfile.ReadError:
        raise StoreError(
            f"cannot restore {backup}: it is no tar, or a broken one; name a file of mailtui backup"
        ) from None
    except (OSError, tarfile.TarError, sqlite3.Error) as error:
        raise StoreError(f"cannot restore {backup} to {state_dir}: {error}") from error


def _unpack(backup: Path, scratch: Path) -> None:
    (scratch / SPOOL).mkdir(mode=0o700)
    with tarfile.open(backup) as tar:
        for member in tar:
            target = _target(member, scratch)
            source = tar.extractfile(member) if target is not None else None
            if target is None or source is None:
                continue
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with source, os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
    if not (scratch / DATABASE).exists():
        raise StoreError(f"{backup} holds no {DATABASE}: it is no backup of a queue")
    _sync(scratch / SPOOL)


def _target(member: tarfile.TarInfo, scratch: Path) -> Path | None:
    """Where a member belongs; None for what needs no writing. StoreError for what no backup of ours has."""
    directory, _, name = member.name.rpartition("/")
    if member.isdir() and member.name == SPOOL:
        return None
    if member.isfile() and not directory and name in (DATABASE, CONFIGURATION):
        return scratch / name
    if member.isfile() and directory == SPOOL:
        with contextlib.suppress(ValueError):
            decode(name)
            return scratch / SPOOL / name
    raise StoreError(f"{member.name[:80]!r} has no place in a backup of a queue; is this the right file?")


def _pause(scratch: Path, backup: Path, who: str, now: float) -> None:
    """The restored relay sends nothing before somebody has looked: what it holds may have been delivered since."""
    conn = open_writer(scratch)
    try:
        reason = f"restored from {backup.name}; what was delivered since would go out again"
        conn.execute(controls.SET, (controls.PAUSE, _DELIVERY, "{}", now, None, who, reason))
    finally:
        conn.close()


def _move_aside(state_dir: Path, now: float) -> Path | None:
    there = [name for name in _OWN if (state_dir / name).exists()]
    if not there:
        return None
    aside = state_dir / time.strftime("before-restore-%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside.mkdir(mode=0o700)
    for name in there:
        os.rename(state_dir / name, aside / name)
    return aside


def _place_configuration(scratch: Path, state_dir: Path) -> Path | None:
    """Beside the queue, but over nothing: one that is there stays, and the restored one gets another name."""
    source = scratch / CONFIGURATION
    if not source.exists():
        return None
    target = state_dir / CONFIGURATION
    if target.exists():
        target = state_dir / f"restored-{CONFIGURATION}"
    os.replace(source, target)
    return target


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""`e`: recipients of the queue, or their messages, into files of the operator's.

What is written is a frozen set: the rows on the screen, those marked, or all that match at the moment of asking.
Promises: no file is written over, and nobody else can read one (0600); nothing is written on the loop; an export
of rows that was left, or failed, leaves no half of a file, and one of messages only whole messages; what has left the
queue meanwhile is counted.
"""

import asyncio
import os
import shlex
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from mailtui.console import words
from mailtui.console.copying import as_json
from mailtui.console.link import Link
from mailtui.console.panes.frozen import FrozenSet, take
from mailtui.console.present.csv_rows import csv_text
from mailtui.control import files
from mailtui.control.client import Client, Unreachable
from mailtui.control.errors import NOT_RUNNING, VerbError

Document = Mapping[str, Any]

# Rows of one answer: an answer is taken apart on the loop, and a key must not wait for longer than it is noticed.
ROWS = 250

# Ends of file names, by format.
ENDS = {"jsonl": ".jsonl", "csv": ".csv", "eml": ""}


@dataclass(frozen=True, slots=True)
class Scope:
    """What can be written: `query` says it to a command; `frozen` is the set itself, where there is one already."""

    key: str
    label: str
    query: str
    count: int
    sort: str = "arrived"
    reverse: bool = False
    frozen: FrozenSet | None = None


@dataclass(slots=True)
class Progress:
    """How far it is. `stop` ends it; threads read and write this."""

    unit: str = "row"
    done: int = 0
    total: int = 0
    gone: int = 0  # left the queue meanwhile
    octets: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def going(self) -> bool:
        return not self.stopped.is_set()

    def check(self) -> None:
        """files.Left once it was stopped."""
        if self.stopped.is_set():
            raise files.Left


def default_name(format: str, now: float) -> str:
    """A name in the current directory that is not there yet, most likely."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return f"mailtui-{'mail' if format == 'eml' else 'queue'}-{stamp}{ENDS[format]}"


def problem_of(text: str, format: str) -> str:
    """What is wrong with a path; "" if nothing is."""
    if not text.strip():
        return "a path is missing"
    if "\0" in text:
        return "a path holds no NUL"
    path = path_of(text)
    try:
        if not path.parent.is_dir():
            return f"{path.parent}: there is no such directory"
        if format == "eml":
            return f"{path}: is no directory" if path.exists() and not path.is_dir() else ""
        return f"{path}: is there already, and nothing is written over" if os.path.lexists(path) else ""
    except OSError as error:
        return f"{path}: {error.strerror}"


def path_of(text: str) -> Path:
    """A typed path; ~ is the home directory."""
    try:
        return Path(text.strip()).expanduser()
    except RuntimeError:  # no home for such a user
        return Path(text.strip())


def command_line(scope: Scope, format: str, path: str) -> tuple[str, str]:
    """The command that writes the same, and what there is to say of it."""
    if format == "eml":
        return shlex.join(["mailtui", "queue", "export", scope.query or "to:*", path.strip()]), ""
    command = ["mailtui", "queue", "list", *([scope.query] if scope.query else [])]
    command += ["--sort", scope.sort] if scope.sort != "arrived" else []
    command += ["--reverse"] if scope.reverse else []
    said = f"{shlex.join([*command, '--limit', '0', '--json'])}"
    return (f"{said} > {shlex.quote(path.strip())}", "") if format == "jsonl" else (said, "the same rows as JSON Lines")


async def run(link: Link, scope: Scope, format: str, text: str, progress: Progress) -> str:
    """Write it; what is said at the end. OSError, VerbError; files.Left when it was stopped."""
    path = path_of(text)
    frozen = scope.frozen or await take(link, scope.query, scope.sort, scope.reverse)
    try:
        progress.total = frozen.count
        if format == "eml":
            return await _messages(link, frozen, path, progress)
        return await _rows(frozen, format, path, progress)
    finally:
        if frozen is not scope.frozen:
            try:
                await frozen.drop()
            except VerbError:
                pass  # it goes by itself


async def pages(frozen: FrozenSet, progress: Progress) -> AsyncIterator[list[Document]]:
    """The rows that are still there."""
    for offset in range(0, frozen.count, ROWS):
        progress.check()
        rows = await frozen.rows(offset, ROWS)
        there: list[Document] = [row for row in rows if not row.get("gone")]
        progress.gone += len(rows) - len(there)
        yield there


async def _rows(frozen: FrozenSet, format: str, path: Path, progress: Progress) -> str:
    file: IO[bytes] = os.fdopen(await asyncio.to_thread(files.create, path), "wb")
    try:
        with file:
            first = True
            async for rows in pages(frozen, progress):
                progress.octets += await asyncio.to_thread(_append, file, rows, format, first)
                progress.done += len(rows)
                first = False
            if first:
                _append(file, [], format, first)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)  # our own, made a moment ago
        raise
    return f"{words.amount(progress.done, 'row')}, {words.size(progress.octets)}B in {path}{_gone(progress)}"


def _append(file: IO[bytes], rows: Sequence[Document], format: str, first: bool) -> int:
    """In a thread: octets written. JSON Lines are those of `queue list --json`: ASCII, a row a line."""
    if format == "csv":
        return file.write(csv_text(rows, head=first).encode("utf-8"))
    return file.write("".join(as_json(row) + "\n" for row in rows).encode("ascii"))


async def _messages(link: Link, frozen: FrozenSet, directory: Path, progress: Progress) -> str:
    """The messages of the set, whole, one after the other, over a connection of their own."""
    selected: dict[str, list[str]] = {}
    async for rows in pages(frozen, progress):
        for row in rows:
            selected.setdefault(str(row["id"]), []).append(str(row["rid"]))
    progress.unit, progress.total = "message", len(selected)
    try:
        await asyncio.to_thread(_write_messages, link, selected, directory, progress)
    except asyncio.CancelledError:
        progress.stopped.set()  # the thread is not cancelled with us
        raise
    return f"{words.amount(progress.done, 'message')}, {words.size(progress.octets)}B in {directory}{_gone(progress)}"


def _write_messages(link: Link, selected: Mapping[str, list[str]], directory: Path, progress: Progress) -> None:
    """In a thread."""
    directory.mkdir(mode=0o700, exist_ok=True)
    try:
        client = Client(link.path)
    except (Unreachable, PermissionError):
        raise VerbError(f"no relay answers on {link.path}", NOT_RUNNING) from None
    try:
        for id, rids in selected.items():
            progress.check()
            size = files.write_message(client, directory, id, rids, progress.going)
            progress.octets += size
            progress.done, progress.gone = progress.done + (size > 0), progress.gone + (size == 0)
    finally:
        client.close()


def _gone(progress: Progress) -> str:
    return f"; {words.count(progress.gone)} left the queue meanwhile" if progress.gone else ""

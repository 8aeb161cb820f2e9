"""Large bodies: on disk before their rows, gone after them, and what is found at start."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mailtui.ids import encode
from mailtui.model import State
from mailtui.queue.database import StoreError
from mailtui.queue.spool import PIECE, Spool

from .stores import (
    accept,
    accept_spooled,
    check_books,
    delivered,
    message,
    on_writer,
    opened,
    rows,
    settle,
    states,
    to,
    until,
)

CONTENT = bytes(range(256)) * 3000


async def test_the_octets_of_a_spooled_message_are_those_that_were_written(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = message(store, body=None, size=len(CONTENT))
        file = store.open_spool(made.id)
        for start in range(0, len(CONTENT), 100_001):
            file.write(CONTENT[start : start + 100_001])
        assert file.size == len(CONTENT)
        await store.accept(made, file)
        pieces = await store.pieces(made.id)
        assert b"".join(pieces) == CONTENT
        assert {len(piece) for piece in pieces[:-1]} == {PIECE}
        assert store.spool.head(made.id, 100) == CONTENT[:100]
        assert rows(tmp_path, "SELECT * FROM bodies") == []
        check_books(tmp_path)
    assert [p.name for p in (tmp_path / "spool").iterdir()] == [encode(made.id)]
    assert (tmp_path / "spool" / encode(made.id)).stat().st_mode & 0o777 == 0o600


async def test_file_and_directory_are_on_disk_before_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, rename = os.fsync, os.rename

    def recorded(name: Callable[..., str], act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            order.append(name(*values))
            return act(*values)

        return call

    def kind(fd: int) -> str:
        return "sync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name

    async with opened(tmp_path) as store:
        made = message(store, body=None, size=4)
        file = store.open_spool(made.id)
        file.write(b"text")
        name = encode(made.id)
        await on_writer(store, lambda conn: conn.set_trace_callback(order.append))
        order.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", recorded(kind, sync))
            patch.setattr(os, "rename", recorded(lambda old, new: f"rename {Path(old).name} {Path(new).name}", rename))
            await store.accept(made, file)
            order.append("answered")
        store.writer._conn.set_trace_callback(None)
    expected = [f"sync {name}.part", f"rename {name}.part {name}", "sync spool", "INSERT INTO messages", "COMMIT"]
    kept = [
        next(step for step in expected if entry.startswith(step))
        for entry in order
        if any(entry.startswith(step) for step in expected)
    ]
    assert kept[-5:] == expected
    assert order[-1] == "answered"


async def test_rows_go_before_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, claim=True) as store:
        made = await accept_spooled(store, CONTENT)
        seen: list[object] = []
        unlink = store.spool.unlink

        def looked(number: int) -> None:
            seen.append(states(tmp_path))  # another reader's view: committed
            unlink(number)

        monkeypatch.setattr(store.spool, "unlink", looked)
        await settle(store, made, delivered(made.recipients[0]))
        assert seen == [{}]
        assert list((tmp_path / "spool").iterdir()) == []


async def test_an_abandoned_file_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    file = spool.create(1)
    file.write(b"x")
    file.abandon()
    file.abandon()
    assert list(spool.directory.iterdir()) == []
    finished = spool.create(2)
    finished.finish()
    assert spool.path(2).exists()
    finished.abandon()
    assert list(spool.directory.iterdir()) == []


async def test_a_file_that_cannot_be_synced_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(tmp_path) as store:
        made = message(store, body=None, size=4)
        file = store.open_spool(made.id)
        file.write(b"text")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(StoreError, match="cannot write the spool file"):
                await store.accept(made, file)
        assert states(tmp_path) == {}
    assert list((tmp_path / "spool").iterdir()) == []


async def test_rows_that_are_refused_take_their_file_with_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        first = await accept(store)
        file = store.open_spool(first.id + 1)
        file.write(b"text")
        made = message(store, body=None, size=4)
        made.id = first.id  # taken
        with pytest.raises(StoreError):
            await store.accept(made, file)
        await until(lambda: not list((tmp_path / "spool").iterdir()))
        assert states(tmp_path).keys() == {(first.id, 1)}


async def test_at_start_files_without_rows_are_removed_and_others_stay(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = await accept_spooled(store, CONTENT)
        small = await accept(store)
        number = store.next_id()
    spool = tmp_path / "spool"
    (spool / encode(number)).write_bytes(b"never committed")
    (spool / encode(small.id)).write_bytes(b"its body is a row")
    (spool / f"{encode(made.id)}.part").write_bytes(b"half")
    (spool / f"{encode(number + 1)}.part").write_bytes(b"half")
    (spool / "README").write_text("not ours")
    async with opened(tmp_path) as store:
        assert store.missing_bodies == set()
        assert await store.pieces(made.id) == [CONTENT[:PIECE], CONTENT[PIECE : 2 * PIECE], CONTENT[2 * PIECE :]]
    assert sorted(p.name for p in spool.iterdir()) == sorted([encode(made.id), "README"])


async def test_at_start_messages_without_their_file_are_held_and_reported(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        lost = await accept_spooled(
            store, CONTENT, to("a@a.example", 1), to("b@b.example", 2, state=State.DEFERRED), to("c@a.example", 3)
        )
        whole = await accept_spooled(store, CONTENT)
        store.spool.path(lost.id).unlink()
    async with opened(tmp_path) as store:
        assert store.missing_bodies == {lost.id}
        assert states(tmp_path) == {
            (lost.id, 1): State.HELD,
            (lost.id, 2): State.HELD,
            (lost.id, 3): State.HELD,
            (whole.id, 1): State.QUEUED,
        }
        facts = "SELECT DISTINCT due, held_by, last_reply FROM recipients WHERE message = ?"
        assert rows(tmp_path, facts, lost.id) == [(None, "mailtui", "the spool file of this message is missing")]
        check_books(tmp_path)
        claimed = (await store.claim_due("a.example", 9, "")).messages
        assert [m.id for m in claimed] == [whole.id]
        assert [name for name, _ in store.heads] == ["a.example"]


async def test_a_claimed_message_whose_file_is_gone_is_held_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True, clean=False) as store:
        lost = await accept_spooled(store, CONTENT)
    (tmp_path / "spool" / encode(lost.id)).unlink()
    async with opened(tmp_path) as store:
        assert store.missing_bodies == {lost.id}
        assert rows(tmp_path, "SELECT claim, state, due FROM recipients") == [(0, State.HELD, None)]
        check_books(tmp_path)

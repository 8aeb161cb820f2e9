"""A crash in the middle of an operation: each recipient is finished or untouched, and the journal tells."""

import asyncio
from pathlib import Path

import pytest

from mailtui.clock import ManualClock
from mailtui.model import State
from mailtui.queue.actions import Action
from mailtui.queue.operations import Order
from mailtui.queue.store import Store
from mailtui.queue.transaction import Transaction

from .stores import accept, check_books, copy_of, gate, opened, rows, states, to

CHUNK, CHUNKS = 100, 5
Rid = tuple[int, int]


async def filled(store: Store) -> list[Rid]:
    rids: list[Rid] = []
    for _ in range(CHUNKS):
        made = await accept(store, *[to(f"r{n}@d{n % 7}.example", n) for n in range(1, CHUNK + 1)])
        rids += [(made.id, r.ordinal) for r in made.recipients]
    return rids


def chunks(rids: list[Rid]) -> list[list[Rid]]:
    return [rids[i : i + CHUNK] for i in range(0, len(rids), CHUNK)]


async def started(store: Store, verb: str, asked: int) -> Action:
    leaves = store.clock.now() + 600
    order = Order(verb, f"mailtui queue {verb} 'to:*' --yes", "to:*", "ann", "wrong list", asked, leaves=leaves)
    return Action(verb, await store.begin_operation(order), "ann", leaves=leaves)


@pytest.mark.parametrize("after", range(CHUNKS + 1))
async def test_a_crash_between_chunks(tmp_path: Path, after: int) -> None:
    clock = ManualClock()
    async with opened(tmp_path / "state", clock) as store:
        rids = await filled(store)
        action = await started(store, "hold", len(rids))
        for chunk in chunks(rids)[:after]:
            await store.act(action, chunk)
        crashed = copy_of(tmp_path / "state", tmp_path / "crashed")
    async with opened(crashed, clock) as store:
        finished = after * CHUNK
        assert states(crashed) == {
            rid: State.HELD if n < finished else State.QUEUED for n, rid in enumerate(sorted(rids))
        }
        check_books(crashed)
        (ended,) = store.interrupted_operations
        assert (ended.number, ended.done, ended.asked) == (action.operation, finished, 500)
        assert rows(crashed, "SELECT event, who, command, query, recipients, reason, text FROM journal") == [
            ("hold", "ann", "mailtui queue hold 'to:*' --yes", "to:*", finished, "wrong list",
             f"o1: asked 500, done {finished}; interrupted by the end of the relay, the others are untouched: "
             "repeat the command for them")
        ]  # fmt: skip
        (operation,) = await store.operations()
        assert (operation.state, operation.interrupted, operation.ended) == ("done", True, clock.now())
        assert sorted(await store.touched(action.operation)) == sorted(rids)[:finished]
        # The same order again does the rest; the undo of the first takes back its own part only.
        again = await started(store, "hold", len(rids))
        for chunk in chunks(rids):
            await store.act(again, chunk)
        assert set(states(crashed).values()) == {State.HELD}
        undo = Action("undo", 0, "ann", undoes=action.operation)
        undone = [rid for chunk in chunks(rids) for rid in (await store.act(undo, chunk)).done]
        assert sorted(undone) == sorted(rids)[:finished]
        check_books(crashed)
    async with opened(crashed, clock) as store:
        assert [o.number for o in store.interrupted_operations] == [again.operation]


async def test_a_crash_within_a_chunk_leaves_that_chunk_untouched(tmp_path: Path) -> None:
    """The files as they are when the chunk is written, but its transaction is not committed."""
    clock = ManualClock()
    copies: list[Path] = []
    async with opened(tmp_path / "state", clock) as store:
        rids = await filled(store)
        action = await started(store, "bounce", len(rids))

        def look(tx: Transaction) -> None:
            copies.append(copy_of(tmp_path / "state", tmp_path / f"crashed{len(copies)}"))

        for chunk in chunks(rids):
            with gate(store):  # both in one transaction
                acting, looking = store.act(action, chunk), store.writer.call(look)
            await asyncio.gather(acting, looking)
    assert len(copies) == CHUNKS
    for number, copy in enumerate(copies):
        async with opened(copy, clock) as store:
            found = states(copy)
            (ended,) = store.interrupted_operations
            leaving = [rid for rid in rids if found[rid] is State.LEAVING]
            assert leaving == rids[: ended.done]
            assert ended.done == number * CHUNK
            assert all(found[rid] is State.QUEUED for rid in rids[ended.done :])
            check_books(copy)


async def test_what_waited_for_an_attempt_when_the_relay_ended_is_told(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock) as store:
        (rid, *_) = await filled(store)
        action = await started(store, "delete", 2)
        await store.act(action, [rid])
        await store.progress(action.operation, pending=1)
        await store.end_operation(action.operation)
    for _ in range(2):  # told once
        async with opened(tmp_path, clock) as store:
            assert store.interrupted_operations == []
            told = rows(tmp_path, "SELECT text FROM journal ORDER BY seq")
            assert told == [
                ("o1: asked 2, done 1, pending 1",),
                ("o1: asked 2, done 1, pending 1; the relay ended before the 1 pending could be done",),
            ]
            assert (await store.operations())[0].interrupted is False

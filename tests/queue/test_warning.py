"""Claims for delay notices: who is found, in what order, in what steps, and what stays untouched."""

import asyncio
from pathlib import Path

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Message, Recipient
from mailtui.queue import warning
from mailtui.queue.store import Store
from mailtui.queue.tables import messages
from mailtui.queue.warning import BEGINNING, Cursor
from tests.queue.stores import accept, accept_spooled, message, opened, rows, to

NOW = 1_700_000_000.0
LIFE = 432_000.0


def everybody(sender: str, trusted: bool, notify: str) -> bool:
    return bool(sender)


async def waiting(store: Store, *addresses: str, age: float = 0.0, **other: object) -> Message:
    """A parked message of that age, in seconds."""
    arrived = store.clock.now() - age
    made = message(store, *[to(a, n, expires=arrived + LIFE) for n, a in enumerate(addresses, 1)], **other)  # type: ignore[arg-type]
    made.envelope.arrived = arrived
    await store.accept(made)
    return made


async def find(
    store: Store, destination: str = "a.example", wanted: warning.Wanted = everybody, before: float = NOW - 3600
) -> list[tuple[str, ...]]:
    """Whom the steps find, one after the other; each is marked."""
    found: list[tuple[str, ...]] = []
    cursor: Cursor = BEGINNING
    more = True
    while more:
        step = await store.claim_unwarned(destination, cursor, before, wanted)
        cursor, more = step.cursor, step.more
        if step.message is not None:
            found.append(tuple(r.address for r in step.message.recipients))
            await mark(store, step.message, step.message.recipients)
    return found


async def mark(store: Store, claimed: Message, warned: list[Recipient], reports: tuple[Message, ...] = ()) -> None:
    done = asyncio.get_running_loop().create_future()
    others = [r for r in claimed.recipients if r not in warned]
    store.warn(claimed, warned, others, reports, lambda: done.set_result(None))
    await asyncio.wait_for(done, 10)


async def test_who_came_first_is_told_first_and_nobody_twice(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await waiting(store, "new@a.example", age=60)
        await waiting(store, "old@a.example", "other@b.example", "old2@a.example", age=9000)
        await waiting(store, "oldest@a.example", age=90_000)
        await waiting(store, "elsewhere@b.example", age=90_000)
        assert await find(store) == [
            ("oldest@a.example",),
            ("old@a.example", "other@b.example", "old2@a.example"),  # one claim for one report
        ]
        assert await find(store) == []
        assert await find(store, "b.example") == [("elsewhere@b.example",)]


async def test_a_notice_changes_nothing_but_its_mark(tmp_path: Path) -> None:
    facts = "SELECT address, claim, state, due, attempts, expires, since FROM recipients ORDER BY message, ordinal"
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await waiting(store, "x@a.example", "y@b.example", age=9000)
        before = rows(tmp_path, facts)
        assert await find(store) == [("x@a.example", "y@b.example")]
        assert rows(tmp_path, facts) == before
        assert rows(tmp_path, "SELECT * FROM attempts") == []
        assert rows(tmp_path, "SELECT warned FROM recipients") == [(1,), (1,)]


async def test_those_whom_it_does_not_concern_are_given_back_unmarked(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await waiting(store, "x@a.example", "y@a.example", age=9000)
        step = await store.claim_unwarned("a.example", BEGINNING, NOW - 3600, everybody)
        assert step.message is not None
        await mark(store, step.message, step.message.recipients[:1])
        assert rows(tmp_path, "SELECT address, claim, warned FROM recipients") == [
            ("x@a.example", 0, 1),
            ("y@a.example", 0, 0),
        ]
        # The cursor is past all of this message: it is not claimed again and again.
        assert await store.claim_unwarned("a.example", step.cursor, NOW - 3600, everybody) == (None, step.cursor, False)


async def test_held_claimed_and_unwanted_recipients_are_left_alone(tmp_path: Path) -> None:
    def asked(sender: str, trusted: bool, notify: str) -> bool:
        return trusted and notify == "DELAY"

    async with opened(tmp_path, ManualClock(NOW)) as store:
        await waiting(store, "untrusted@a.example", age=9000)
        made = message(
            store,
            to("asked@a.example", 1, expires=NOW + LIFE - 9000, notify="DELAY"),
            to("not@a.example", 2, expires=NOW + LIFE - 9000),
            trusted=True,
        )
        made.envelope.arrived = NOW - 9000
        await store.accept(made)
        await waiting(store, "report@a.example", age=9000, sender="")
        assert await find(store, wanted=asked) == [("asked@a.example",)]
        await store.claim_due("a.example", 100, "")
        assert await find(store) == []


async def test_a_step_is_bounded_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        for number in range(warning.PAGE + 5):
            sender = "" if number % 2 else "x@y.example"
            await waiting(store, f"r{number}@a.example", age=9000, sender=sender)
        await waiting(store, "last@a.example", age=8000, trusted=True)

        def trusted_only(sender: str, trusted: bool, notify: str) -> bool:
            return trusted

        first = await store.claim_unwarned("a.example", BEGINNING, NOW - 3600, trusted_only)
        assert (first.message, first.more) == (None, True)
        second = await store.claim_unwarned("a.example", first.cursor, NOW - 3600, trusted_only)
        assert second.message is not None
        assert [r.address for r in second.message.recipients] == ["last@a.example"]


async def test_a_claim_comes_with_the_body_or_knows_its_file(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        small = await accept(store, to("x@a.example"))
        large = await accept_spooled(store, b"X: y\r\n\r\n" + b"z" * 300_000, to("x@b.example"))
        for made, body in ((small, small.body), (large, None)):
            found = await store.claim_waiting(made.id, NOW + 1, everybody)
            assert found is not None and found.body == body
            await mark(store, found, found.recipients)
            assert await store.claim_waiting(made.id, NOW + 1, everybody) is None
        assert await store.claim_waiting(12345, NOW + 1, everybody) is None


async def test_the_notice_and_the_mark_are_one_transaction(tmp_path: Path) -> None:
    void: list[str] = []
    async with opened(tmp_path, ManualClock(NOW)) as store:
        store.on_void = void.append
        await waiting(store, "x@a.example", age=9000)
        step = await store.claim_unwarned("a.example", BEGINNING, NOW - 3600, everybody)
        assert step.message is not None
        await mark(store, step.message, step.message.recipients, (message(store, to("bob@sender.example"), sender=""),))
        assert rows(tmp_path, "SELECT sender FROM messages ORDER BY id")[-1] == ("",)
        store.warn(  # not ours any more: neither the mark nor the report is written
            step.message, step.message.recipients, [], [message(store, to("ann@z.example"), sender="")], lambda: None
        )
        await store.writer.call(lambda tx: None)
        assert rows(tmp_path, "SELECT count(*) FROM messages") == [(2,)]
    assert len(void) == 1


@pytest.mark.parametrize("statement", [messages.UNWARNED, messages.WAITING_OF_MESSAGE])
async def test_looking_for_them_seeks_and_never_sorts(tmp_path: Path, statement: str) -> None:
    async with opened(tmp_path):
        plan = rows(tmp_path, "EXPLAIN QUERY PLAN " + statement.replace("?", "1"))
    [step] = [row[3] for row in plan]
    assert step.startswith("SEARCH recipients USING") and "TEMP B-TREE" not in str(plan)
    if statement is messages.UNWARNED:
        assert "parked_by_expiry (destination=? AND (expires,message,ordinal)>(?,?,?))" in step

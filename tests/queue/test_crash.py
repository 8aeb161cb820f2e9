"""A relay that is killed: what was acknowledged is there, what was in delivery is tried again, nothing is stuck."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from mailtui.clock import ManualClock
from mailtui.model import State
from mailtui.queue import claims

from .stores import (
    BODY,
    accept,
    accept_spooled,
    check_books,
    copy_of,
    deferred,
    delivered,
    opened,
    rows,
    settle,
    states,
    to,
    value,
)

NOW = 1_700_000_000.0
PARKED = "SELECT count(*) FROM recipients INDEXED BY parked_by_due WHERE claim = 0"


async def test_after_a_crash_claims_are_void_and_due_within_five_seconds(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path / "a", clock, claim=True) as store:
        for _ in range(50):
            await accept(store, to("x@a.example", 1, due=NOW), to("y@b.example", 2, due=NOW))
        owner = store.owner
        crashed = copy_of(tmp_path / "a", tmp_path / "b")
    clock.advance(100)
    async with opened(crashed, clock) as store:
        assert store.owner > owner
        assert store.interrupted == 100
        assert value(crashed, PARKED) == 100
        dues = [due for (due,) in rows(crashed, "SELECT due FROM recipients")]
        assert all(NOW + 100 <= due < NOW + 105 for due in dues)
        assert len(set(dues)) > 20  # spread
        assert rows(crashed, "SELECT DISTINCT state, attempts, interruptions FROM recipients") == [(0, 0, 1)]
        assert {name for name, _ in store.heads} == {"a.example", "b.example"}
        check_books(crashed)
        clock.advance(5)
        claimed = await store.claim_due("a.example", 100, "")
        assert len(claimed.messages) == 50
        assert claimed.messages[0].body == BODY


async def test_after_a_crash_each_interrupted_recipient_has_an_attempt_that_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", ManualClock(NOW), claim=True) as store:
        made = await accept(store)
        store.admit = lambda _: False
        await accept(store)  # parked: not interrupted
        crashed = copy_of(tmp_path / "a", tmp_path / "b")
    async with opened(crashed, ManualClock(NOW + 7)):
        columns = "message, ordinal, started, finished, code"
        assert rows(crashed, f"SELECT {columns} FROM attempts") == [(made.id, 1, NOW + 7, NOW + 7, 0)]  # noqa: S608
        assert value(crashed, "SELECT reply FROM attempts").startswith("interrupted:")


async def test_from_the_third_interruption_in_a_row_it_waits(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    delays = []
    async with opened(tmp_path, clock, claim=True, clean=False) as store:
        await accept(store)
    for number in range(1, 5):
        async with opened(tmp_path, clock, clean=False) as store:
            assert value(tmp_path, "SELECT interruptions FROM recipients") == number
            delays.append(value(tmp_path, "SELECT due FROM recipients") - clock.now())
            clock.advance(claims.INTERRUPTED_DELAY)
            assert len((await store.claim_due("a.example", 9, "")).messages) == 1
    assert all(0 <= delay < 5 for delay in delays[:2])
    assert delays[2:] == [claims.INTERRUPTED_DELAY] * 2
    assert value(tmp_path, "SELECT count(*) FROM attempts") == 4


async def test_a_finished_attempt_ends_the_row_of_interruptions(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock, claim=True, clean=False) as store:
        await accept(store)
    for _ in range(3):
        async with opened(tmp_path, clock, clean=False) as store:
            assert value(tmp_path, "SELECT interruptions FROM recipients") == 1
            clock.advance(10)
            [claimed] = (await store.claim_due("a.example", 9, "")).messages
            await settle(store, claimed, deferred(claimed.recipients[0], clock.now()))
            assert (await store.claim_due("a.example", 9, "")).messages


async def test_a_parked_or_held_recipient_is_as_it_was_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", ManualClock(NOW)) as store:
        await accept(store, to("a@a.example", due=NOW + 77))
        held = to("b@a.example", state=State.HELD)
        held.due = None
        await accept(store, held)
        before = rows(tmp_path / "a", "SELECT * FROM recipients ORDER BY message")
        crashed = copy_of(tmp_path / "a", tmp_path / "b")
    async with opened(crashed, ManualClock(NOW + 500)) as store:
        assert rows(crashed, "SELECT * FROM recipients ORDER BY message") == before
        assert store.interrupted == 0


async def test_a_settlement_that_was_told_is_on_disk_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", claim=True) as store:
        gone, spooled, kept = await accept(store), await accept_spooled(store, b"x" * 300_000), await accept(store)
        assert await settle(store, gone, delivered(gone.recipients[0]))
        assert await settle(store, spooled, delivered(spooled.recipients[0]))
        assert await settle(store, kept, deferred(kept.recipients[0], NOW + 300))
        crashed = copy_of(tmp_path / "a", tmp_path / "b")
    async with opened(crashed) as store:
        assert states(crashed) == {(kept.id, 1): State.DEFERRED}
        assert value(crashed, "SELECT due FROM recipients") == NOW + 300
        assert sorted(rows(crashed, "SELECT message FROM history")) == [(gone.id,), (spooled.id,)]
        check_books(crashed)


async def test_a_crash_between_the_commit_and_the_unlink_leaves_no_file(tmp_path: Path) -> None:
    async with opened(tmp_path / "a", claim=True) as store:
        made = await accept_spooled(store, b"x" * 1000)
        store.spool.unlink = lambda number: None  # type: ignore[method-assign]
        await settle(store, made, delivered(made.recipients[0]))
        crashed = copy_of(tmp_path / "a", tmp_path / "b")
    assert len(list((crashed / "spool").iterdir())) == 1
    async with opened(crashed) as store:
        assert list((crashed / "spool").iterdir()) == []
        assert store.missing_bodies == set()


RELAY = """
import asyncio, itertools, sys
from pathlib import Path
from mailtui.clock import SystemClock
from mailtui.queue.store import Store
from tests.queue.stores import accept, accept_spooled, bounced, deferred, delivered, message, to

def say(*words):
    sys.stdout.write(" ".join(str(word) for word in words) + "\\n")
    sys.stdout.flush()

async def client(store, number):
    for n in itertools.count():
        recipients = to("a@a.example", 1), to("b@b.example", 2)
        store.admit = lambda made: made.id % 3 > 0
        if n % 7 == 0:
            made = await accept_spooled(store, b"x" * 300_000, *recipients)
        else:
            made = await accept(store, *recipients)
        say("accepted", made.id)
        if made.claimed:
            first, second = made.recipients
            done = asyncio.Event()
            store.settle(made, [delivered(first), deferred(second, 9e9)], done=done.set)
            await done.wait()
            say("settled", made.id)

async def main():
    store = Store(Path(sys.argv[1]), SystemClock())
    store.open()
    say("open", store.interrupted)
    await asyncio.gather(*(client(store, n) for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.timeout(60)
async def test_nothing_that_was_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    state = tmp_path / "state"
    root = Path(__file__).parents[2]
    accepted: set[int] = set()
    settled: set[int] = set()
    for lines in (40, 150, 300):
        with subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", RELAY, str(state)], cwd=root, stdout=subprocess.PIPE, text=True
        ) as relay:
            assert relay.stdout is not None
            for _ in range(lines):
                word, number = relay.stdout.readline().split()
                {"open": set(), "accepted": accepted, "settled": settled}[word].add(int(number))
            relay.kill()
            for line in relay.stdout:  # said before it died
                if line.endswith("\n"):
                    word, number = line.split()
                    {"accepted": accepted, "settled": settled}[word].add(int(number))
    assert len(accepted) > 100 and settled
    async with opened(state) as store:
        found = states(state)
        out = set(rows(state, "SELECT message, ordinal FROM history"))
        for number in accepted:
            for ordinal in (1, 2):
                assert ((number, ordinal) in found) != ((number, ordinal) in out)
        assert {(number, 1) for number in settled} <= out
        assert all(found[number, 2] is State.DEFERRED for number in settled)
        assert value(state, "SELECT count(*) FROM recipients WHERE claim != 0") == 0
        assert store.missing_bodies == set()
        check_books(state)
        kept = {row[0] for row in rows(state, "SELECT id FROM messages WHERE flags & 16")}
        assert len(list((state / "spool").iterdir())) == len(kept)
        assert kept
        assert store.next_id() > max(accepted)
        await asyncio.sleep(0)

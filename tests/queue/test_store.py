"""Acceptance, ids, refusals, totals, and what is pruned."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from mailtui.clock import ManualClock
from mailtui.model import Attempt, Message, Recipient, Reply, Settled, SmtpError, State
from mailtui.queue.database import path_of
from mailtui.queue.store import Store
from mailtui.queue.tables import attempts, history, messages
from mailtui.queue.upkeep import PRUNE_ROWS

from .stores import (
    BODY,
    accept,
    accept_spooled,
    bounced,
    check_books,
    copy_of,
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
    value,
    written,
)

NOW = 1_700_000_000.0
DAY = 86400.0


# -- acceptance ------------------------------------------------------------------------------------------------------


async def test_what_is_accepted_is_on_disk_for_every_reader(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        made = message(store, to("ann@a.example", 1), to("bob@b.example", 2), subject="x")
        future = store.accept(made)
        assert not future.done()
        await future
        assert rows(tmp_path, "SELECT id, sender, subject, size FROM messages") == [
            (made.id, "bob@sender.example", "x", len(BODY))
        ]
        assert rows(tmp_path, "SELECT body FROM bodies") == [(BODY,)]
        found = "SELECT address, name FROM recipients JOIN domains ON domains.id = destination ORDER BY ordinal"
        assert rows(tmp_path, found) == [("ann@a.example", "a.example"), ("bob@b.example", "b.example")]
        check_books(tmp_path)


async def test_the_answer_comes_after_the_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        order: list[str] = []
        await on_writer(store, lambda conn: conn.set_trace_callback(order.append))
        made = message(store)
        future = store.accept(made)
        store.committed = lambda _: order.append("handed over")
        future.add_done_callback(lambda _: order.append("answered"))
        await future
        await asyncio.sleep(0)
        store.writer._conn.set_trace_callback(None)
    inserted = next(i for i, entry in enumerate(order) if entry.startswith("INSERT INTO messages"))
    assert order[inserted:].index("COMMIT") > 0
    assert order[-3:] == ["COMMIT", "handed over", "answered"]


async def test_a_client_that_does_not_wait_changes_nothing(tmp_path: Path) -> None:
    handed: list[Message] = []
    async with opened(tmp_path, claim=True) as store:
        store.committed = handed.append
        made = message(store)
        store.accept(made).cancel()
        await written(store)
        assert states(tmp_path).keys() == {(made.id, 1)}
        assert handed == [made]


async def test_the_hand_off_is_decided_when_the_message_is_submitted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        room = [True, False, True]
        store.admit = lambda _: room.pop(0)
        made = [await accept(store) for _ in range(3)]
        assert [m.claimed for m in made] == [True, False, True]
        assert rows(tmp_path, "SELECT claim FROM recipients ORDER BY message") == [(store.owner,), (0,), (store.owner,)]


# -- ids -------------------------------------------------------------------------------------------------------------


async def test_ids_always_grow_also_when_the_clock_goes_back(tmp_path: Path) -> None:
    seen: list[int] = []
    for now in (NOW, NOW - 1000, NOW + 5, NOW - 5000):
        clock = ManualClock(now)
        async with opened(tmp_path, clock) as store:
            for step in (0.0, 0.0, -500.0, 1.0):
                clock.advance(step)
                seen.append((await accept(store)).id)
    assert seen == sorted(set(seen))


async def test_an_id_is_not_used_again_when_the_message_has_left(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW), claim=True) as store:
        made = await accept(store)
        await settle(store, made, delivered(made.recipients[0]))
    async with opened(tmp_path, ManualClock(NOW - 9999)) as store:
        assert store.next_id() > made.id


async def test_ids_grow_after_messages_that_were_written_out_of_order(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        early, late = message(store), message(store)
        await store.accept(late)
        await store.accept(early)
    async with opened(tmp_path, ManualClock(NOW - 9999)) as store:
        assert store.next_id() > late.id


# -- the disk --------------------------------------------------------------------------------------------------------


async def test_new_mail_is_refused_while_the_disk_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [10_000]

    class Facts:
        f_frsize = 100

        @property
        def f_bavail(self) -> int:
            return free[0]

    monkeypatch.setattr(os, "statvfs", lambda path: Facts())
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock, free_disk=1_000_000) as store:
        assert store.refusal() is None
        free[0] = 9_999
        assert store.refusal() is None  # asked of the system now and then only
        clock.advance(2)
        refusal = store.refusal()
        assert isinstance(refusal, SmtpError)
        assert (refusal.reply.code, refusal.reply.enhanced) == (452, "4.3.1")
        await accept(store)  # what is in the middle of it is taken all the same
        free[0] = 10_000
        clock.advance(2)
        assert store.refusal() is None


async def test_a_disk_that_cannot_be_asked_counts_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise OSError

    async with opened(tmp_path, free_disk=1) as store:
        monkeypatch.setattr(os, "statvfs", broken)
        assert store.refusal() is not None


# -- refusals at the door --------------------------------------------------------------------------------------------


async def test_a_refusal_is_remembered_and_a_strangers_domain_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        await accept(store, to("ann@known.example"))
        for domain in ("known.example", "stranger.example"):
            store.refused(
                client="192.0.2.66",
                helo="spam.example",
                sender="spam@spam.example",
                recipient=f"x@{domain}",
                destination=domain,
                reply=Reply(554, "5.7.1", "Relay access denied " + "x" * 1000),
                rule="relay",
            )
        await written(store)
        columns = "message, ordinal, result, at, code, sender, recipient, host, enhanced, length(reply), name"
        found = f"SELECT {columns} FROM history JOIN domains ON domains.id = destination ORDER BY seq"  # noqa: S608
        common = (0, 0, history.REFUSED, NOW, 554, "spam@spam.example")
        assert rows(tmp_path, found) == [
            (*common, "x@known.example", "192.0.2.66", "5.7.1", 512, "known.example"),
            (*common, "x@stranger.example", "192.0.2.66", "5.7.1", 512, ""),
        ]
        assert rows(tmp_path, "SELECT 1 FROM domains WHERE name = 'stranger.example'") == []
        check_books(tmp_path)


async def test_the_journal_is_written(tmp_path: Path) -> None:
    async with opened(tmp_path, ManualClock(NOW)) as store:
        store.journal("pause", who="ann", command="mailtui pause all", text="paused", reason="maintenance")
        await written(store)
        columns = "at, event, who, command, query, recipients, reason, text"
        assert rows(tmp_path, f"SELECT {columns} FROM journal") == [  # noqa: S608
            (NOW, "pause", "ann", "mailtui pause all", "", None, "maintenance", "paused")
        ]


# -- pruning ---------------------------------------------------------------------------------------------------------


async def leave(store: Store, count: int) -> None:
    """So many messages delivered, in few transactions."""
    made = [message(store) for _ in range(count)]
    with gate(store):
        for m in made:
            store.accept(m)
    await written(store)
    with gate(store):
        for m in made:
            store.settle(m, [delivered(m.recipients[0])])
    await written(store)


async def tidied(store: Store, *, keep: float = 1e9, rows: int = 10**6, transcripts: float = 1e9) -> None:
    """Pruning to the end: each step asks for the next."""
    store.tidy(keep=keep, rows=rows, transcripts=transcripts)
    for _ in range(20):
        await written(store)


async def test_history_is_pruned_by_age(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock, claim=True) as store:
        await leave(store, 5)
        clock.advance(10 * DAY)
        await leave(store, 2)
        clock.advance(25 * DAY)
        await tidied(store, keep=30 * DAY)
        assert rows(tmp_path, "SELECT at FROM history") == [(NOW + 10 * DAY,)] * 2
        clock.advance(10 * DAY)
        await tidied(store, keep=30 * DAY)
        assert rows(tmp_path, "SELECT at FROM history") == []


async def test_history_is_pruned_by_number_in_as_many_steps_as_it_takes(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True) as store:
        await leave(store, 2 * PRUNE_ROWS + 510)
        last = value(tmp_path, "SELECT max(seq) FROM history")
        await tidied(store, rows=500)
        assert rows(tmp_path, "SELECT count(*), max(seq) FROM history") == [(500, last)]


async def test_transcripts_are_forgotten_before_the_attempts_are(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock) as store:
        made = await accept(store)
        for day in range(4):
            [claimed] = (await store.claim_due("a.example", 1, "")).messages
            now = clock.now()
            attempt = Attempt(now, now, transcript=f"day {day}")
            await settle(store, claimed, deferred(claimed.recipients[0], now, attempt=attempt))
            clock.advance(DAY)
        told = "SELECT transcript FROM attempts ORDER BY seq"
        await tidied(store, keep=30 * DAY, transcripts=2.5 * DAY)
        assert rows(tmp_path, told) == [("",), ("",), ("day 2",), ("day 3",)]
        clock.advance(DAY)
        await tidied(store, keep=30 * DAY, transcripts=2.5 * DAY)
        assert rows(tmp_path, told) == [("",), ("",), ("",), ("day 3",)]
        await tidied(store, keep=3.5 * DAY, transcripts=2.5 * DAY)
        assert rows(tmp_path, told) == [("",), ("day 3",)]
        assert states(tmp_path).keys() == {(made.id, 1)}


async def test_transcripts_are_forgotten_also_after_every_attempt_was_pruned(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with opened(tmp_path, clock, claim=True) as store:
        for _ in range(5):
            made = await accept(store)
            await settle(store, made, bounced(made.recipients[0], attempt=Attempt(clock.now(), clock.now())))
        clock.advance(8 * DAY)
        await tidied(store, keep=30 * DAY, transcripts=7 * DAY)
        clock.advance(40 * DAY)
        await tidied(store, keep=30 * DAY, transcripts=7 * DAY)
        assert value(tmp_path, "SELECT count(*) FROM attempts") <= 1
        made = await accept(store)
        attempt = Attempt(clock.now(), clock.now(), transcript="secret")
        await settle(store, made, bounced(made.recipients[0], attempt=attempt))
        clock.advance(8 * DAY)
        await tidied(store, keep=30 * DAY, transcripts=7 * DAY)
        assert rows(tmp_path, "SELECT DISTINCT transcript FROM attempts") == [("",)]
        assert value(tmp_path, "SELECT value FROM meta WHERE key = ?", attempts.FORGOTTEN) == value(
            tmp_path, "SELECT max(seq) FROM attempts"
        )


# -- closing ---------------------------------------------------------------------------------------------------------


async def test_a_clean_end_leaves_nothing_to_look_for(tmp_path: Path) -> None:
    clean = "SELECT value FROM meta WHERE key = ?"
    async with opened(tmp_path, claim=True) as store:
        assert value(tmp_path, clean, messages.CLEAN) == 0
        made = await accept(store)
        store.park(made, made.recipients)
    assert value(tmp_path, clean, messages.CLEAN) == 1
    async with opened(tmp_path) as store:
        assert store.interrupted == 0
        assert rows(tmp_path, "SELECT * FROM attempts") == []
        assert value(tmp_path, clean, messages.CLEAN) == 0


async def test_an_end_that_only_calls_itself_clean_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path, claim=True, clean=True) as store:
        made = await accept(store)  # claimed, and not given back
    async with opened(tmp_path) as store:
        assert store.interrupted == 1
    async with opened(tmp_path, ManualClock(NOW + 5)) as store:
        [claimed] = (await store.claim_due("a.example", 9, "")).messages
        assert claimed.id == made.id


async def test_a_closed_store_leaves_one_whole_file(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await accept(store)
        await store.read(lambda reader: reader.totals())
        await store.scan(lambda reader: reader.totals())
    assert path_of(tmp_path).name + "-wal" not in os.listdir(tmp_path)


# -- the books -------------------------------------------------------------------------------------------------------


class Script:
    """Random operations on a store, and what must be true after them."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.state = directory / "0"
        self.rng = random.Random(seed)
        self.clock = ManualClock(NOW)
        self.claimed: list[tuple[Message, list[Recipient]]] = []
        self.there: dict[tuple[int, int], State] = {}
        self.left: list[tuple[int, int]] = []
        self.crashes = 0

    async def run(self, length: int) -> None:
        self.store = Store(self.state, self.clock)
        self.store.open()
        self.store.admit = lambda _: self.rng.random() < 0.5
        operations = [self.accept] * 4 + [self.claim] * 4 + [self.settle] * 8 + [self.park, self.wait, self.reopen]
        for number in range(length):
            await self.rng.choice(operations)()
            if number % 10 == 0:
                self.check()
        self.check()
        await self.store.close(clean=False)

    def check(self) -> None:
        assert states(self.state) == self.there
        check_books(self.state)
        left = rows(self.state, "SELECT message, ordinal FROM history")
        assert sorted(left) == sorted(self.left)
        held = {(m.id, r.ordinal) for m, recipients in self.claimed for r in recipients}
        assert set(rows(self.state, "SELECT message, ordinal FROM recipients WHERE claim != 0")) == held

    def _made(self) -> Message:
        domains = ("a.example", "b.example", "c.example")
        recipients = [
            to(f"r{n}@{self.rng.choice(domains)}", n, due=self.clock.now(), submitter=self.rng.choice("xyz"))
            for n in range(1, self.rng.choice((2, 2, 3, 5)))
        ]
        return message(self.store, *recipients, body=b"x" * self.rng.randrange(1, 5000))

    def _on_disk(self, made: Message) -> None:
        for r in made.recipients:
            self.there[made.id, r.ordinal] = State.QUEUED
        if made.claimed:
            made.alone = len(made.recipients) == 1
            self.claimed.append((made, list(made.recipients)))

    async def accept(self) -> None:
        made = [self._made() for _ in range(self.rng.randrange(1, 5))]
        await asyncio.gather(*(self.store.accept(m) for m in made))
        for m in made:
            self._on_disk(m)
        if self.rng.random() < 0.2:
            content = b"y" * 10_000
            spooled = await accept_spooled(self.store, content, *self._made().recipients)
            self._on_disk(spooled)

    async def claim(self) -> None:
        claimed = await self.store.claim_due(
            self.rng.choice(("a.example", "b.example", "c.example")), self.rng.randrange(1, 6), self.rng.choice("xyz")
        )
        self.claimed += [(m, list(m.recipients)) for m in claimed.messages]

    async def settle(self) -> None:
        """Some settlements, in one transaction or several."""
        with gate(self.store):
            for _ in range(min(self.rng.randrange(1, 4), len(self.claimed))):
                made, recipients = self.claimed.pop(self.rng.randrange(len(self.claimed)))
                self.rng.shuffle(recipients)
                cut = self.rng.randrange(1, len(recipients) + 1)
                now, rest = recipients[:cut], recipients[cut:]
                if rest:
                    self.claimed.append((made, rest))
                self._settle(made, now)
        await written(self.store)

    def _settle(self, made: Message, recipients: list[Recipient]) -> None:
        ends: list[Settled] = []
        reports: list[Message] = []
        for r in recipients:
            key = (made.id, r.ordinal)
            end = self.rng.randrange(6)
            if end < 3:
                if end == 0:
                    ends.append(delivered(r))
                elif end == 1:
                    ends.append(delivered(r, deleted=True))
                else:
                    ends.append(bounced(r))
                    reports.append(self._made())
                del self.there[key]
                self.left.append(key)
            elif end == 3:
                ends.append(deferred(r, None, held_by="route"))
                self.there[key] = State.HELD
            else:
                ends.append(deferred(r, self.clock.now() + self.rng.choice((0, 300))))
                self.there[key] = State.DEFERRED
        self.store.settle(made, ends, reports)
        for report in reports:
            self._on_disk(report)

    async def park(self) -> None:
        for made, recipients in self.claimed:
            self.store.park(made, recipients)
        self.claimed.clear()
        await written(self.store)

    async def wait(self) -> None:
        self.clock.advance(self.rng.choice((1, 100, 400)))

    async def reopen(self) -> None:
        """A clean end, or a crash: the rest goes on with what was on disk then."""
        how = self.rng.random()
        if how < 0.3:
            await self.park()
            await self.store.close(clean=True)
        elif how < 0.6:
            await self.store.close(clean=False)
        else:
            self.crashes += 1
            crashed = copy_of(self.state, self.state.parent / str(self.crashes))
            await self.store.close(clean=True)
            self.state = crashed
        self.claimed.clear()
        self.store = Store(self.state, self.clock)
        self.store.open()
        self.store.admit = lambda _: self.rng.random() < 0.5


@pytest.mark.parametrize("seed", range(8))
async def test_counters_and_totals_say_what_the_rows_say_whatever_happens(tmp_path: Path, seed: int) -> None:
    script = Script(tmp_path, seed)
    await script.run(120)
    assert script.left and script.there

"""Accounts on disk, and the mail of a quarantined account: held, said so, and given back exactly."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mailtui.model import Account, State
from mailtui.queue import accounts
from mailtui.queue.database import open_writer
from mailtui.queue.read import Reader
from tests.queue.filled import NOW, Filled, to
from tests.queue.stores import opened

ANN = Account("ann", "SCRAM-SHA-256$4096:c2FsdA==$a:b", NOW)


def states(conn: sqlite3.Connection) -> list[tuple[Any, ...]]:
    select = "SELECT address, state, due, held_by FROM recipients ORDER BY message, ordinal"
    return [(row[0], State(row[1]), row[2], row[3]) for row in conn.execute(select)]


def sums(conn: sqlite3.Connection) -> dict[int, int]:
    """Recipients by state, as they are counted."""
    return dict(conn.execute("SELECT state, sum(recipients) FROM counters GROUP BY state HAVING sum(recipients)"))


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """Mail of ann in every state, of Bob's, and of nobody's."""
    filled = Filled(tmp_path)
    filled.add(to("one@a.test", due=NOW), to("two@b.test", 2, state=State.DEFERRED, due=NOW + 300, attempts=1),
               user="ann", age=30)  # fmt: skip
    filled.add(to("three@a.test", state=State.HELD, due=None, held_by="carl"), user="ann", age=20)
    filled.add(to("four@a.test", due=NOW), user="bob", age=15)
    filled.add(to("five@a.test", due=NOW), age=10)
    filled.add(to("six@a.test", due=NOW), user="ann", age=5, claims=[1])
    return filled


def test_accounts_are_kept_changed_and_removed(tmp_path: Path) -> None:
    conn = open_writer(tmp_path)
    nobody, changed = Account("", "x", NOW), Account("ann", "y", NOW, NOW + 1, "carl", "spam")
    for account in (ANN, nobody):
        accounts.put(conn, account)
    assert accounts.accounts(conn) == [nobody, ANN]
    accounts.put(conn, changed)
    assert accounts.accounts(conn) == [nobody, changed]
    accounts.remove(conn, "ann")
    accounts.remove(conn, "ann")
    assert accounts.accounts(conn) == [nobody]
    conn.close()


def test_an_accounts_mail_is_held_and_exactly_that_is_released(filled: Filled, tmp_path: Path) -> None:
    before = states(filled.connection)
    counted = sums(filled.connection)
    assert accounts.hold_mail(filled.connection, "ann", NOW + 1) == 2
    mark = "quarantine of ann"
    assert states(filled.connection) == [
        ("one@a.test", State.HELD, None, mark),
        ("two@b.test", State.HELD, None, mark),
        ("three@a.test", State.HELD, None, "carl"),
        ("four@a.test", State.QUEUED, NOW, ""),
        ("five@a.test", State.QUEUED, NOW, ""),
        ("six@a.test", State.QUEUED, NOW, ""),  # of a relay that was killed: held when the next one starts
    ]
    assert sums(filled.connection) == {State.QUEUED: 3, State.HELD: 3}
    assert accounts.hold_mail(filled.connection, "ann", NOW + 2) == 0
    assert accounts.release_mail(filled.connection, "bob", NOW + 3) == 0
    assert accounts.release_mail(filled.connection, "ann", NOW + 3) == 2
    assert (states(filled.connection), sums(filled.connection)) == (before, counted)
    reader = Reader(tmp_path, offline=True)
    assert accounts.queued(reader) == {"ann": 4, "bob": 1}
    reader.close()


def test_more_mail_than_a_step_takes_is_all_held_and_released(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "STEP", 3)
    for number in range(5):
        filled.add(*(to(f"r{n}@a.test", n, due=NOW) for n in range(1, 6)), user="dan", age=number)
    assert accounts.hold_mail(filled.connection, "dan", NOW) == 25
    assert accounts.release_mail(filled.connection, "dan", NOW) == 25


async def test_a_relay_that_starts_holds_what_a_quarantine_has_left(filled: Filled, tmp_path: Path) -> None:
    filled.meta("owner", 7)
    accounts.put(filled.connection, Account("ann", "x", NOW, NOW, "carl", "spam"))
    filled.connection.close()
    async with opened(tmp_path) as store:
        assert [account.quarantined for account in store.accounts] == [NOW]
        rows = await store.read(lambda reader: states(reader._connection))
        assert {row[0]: row[3] for row in rows if row[1] is State.HELD} == {
            "one@a.test": "quarantine of ann",
            "two@b.test": "quarantine of ann",
            "three@a.test": "carl",
            "six@a.test": "quarantine of ann",
        }
        await store.set_account(ANN)
        await store.unset_account("nobody")
        assert await store.read(accounts.read_accounts) == [ANN]

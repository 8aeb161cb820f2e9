"""`mailtui user`, of a stopped relay and of a running one: passwords, accounts, quarantine."""

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailtui.cli import user
from mailtui.clock import ManualClock
from mailtui.intake.verifier import Verifier
from mailtui.model import State
from mailtui.queue.database import path_of, take_lock
from tests.cli.conftest import Run, Said
from tests.cli.test_acting import command
from tests.end_to_end.conftest import Live, Start, hop, relay_of, smarthost
from tests.queue.filled import NOW, Filled, to
from tests.support.nexthop import NextHop

__all__ = ["hop", "relay_of"]


def verifier(state: Path, name: str = "ann") -> Verifier:
    with sqlite3.connect(path_of(state)) as conn:
        return Verifier.parse(conn.execute("SELECT verifier FROM accounts WHERE name = ?", (name,)).fetchone()[0])


def everything(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())


# -- a stopped relay -------------------------------------------------------------------------------------------------


def test_an_account_is_made_listed_changed_and_removed(run: Run, state: Path) -> None:
    assert run("user", "list").out == "There is no account; mailtui user add NAME makes one.\n"
    assert run("user", "list", "--json").out == ""
    added = run("user", "add", "Ann@Example.com", "--password-stdin", input=b"se cret\r\n")
    assert (added.status, added.out) == (0, "ann@example.com may log in now\n")
    assert verifier(state, "ann@example.com").matches(b"se cret")
    assert stat.S_IMODE(path_of(state).stat().st_mode) == 0o600
    listed = [json.loads(line) for line in run("user", "list", "--json").out.splitlines()]
    assert listed == [
        {"user": "ann@example.com", "since": "2023-11-14T22:13:20.000Z", "quarantined": None, "reason": "", "queued": 0}
    ]
    changed = run("user", "passwd", "ANN@example.com", "--password-stdin", "--json", input=b"other")
    assert json.loads(changed.out) == {
        "verb": "user.passwd",
        "command": "mailtui user passwd ANN@example.com",
        "text": "the password of ann@example.com is changed",
    }
    assert verifier(state, "ann@example.com").matches(b"other")
    assert run("user", "remove", "ann@example.com").out == "ann@example.com is removed\n"
    assert run("user", "list", "--json").out == ""


def test_the_journal_has_each_order_and_no_secret_is_anywhere(run: Run, state: Path) -> None:
    run("user", "add", "ann", "--password-stdin", input=b"Wrong-Horse\n")
    run("user", "quarantine", "ann", "--reason", "spam")
    run("user", "release", "ann")
    rows = [json.loads(line) for line in run("log", "--json").out.splitlines()]
    assert [(row["event"], row["command"], row.get("reason", "")) for row in rows if row.get("command")] == [
        ("user-add", "mailtui user add ann", ""),
        ("user-quarantine", "mailtui user quarantine ann --reason spam", "spam"),
        ("user-release", "mailtui user release ann", ""),
    ]
    assert b"Wrong-Horse" not in everything(state)


def test_a_state_directory_that_is_not_there_yet_is_made(run: Run, state: Path) -> None:
    state.rmdir()
    assert run("user", "add", "ann", "--password-stdin", input=b"x\n").status == 0
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_password_is_asked_for_twice_on_a_terminal(run: Run, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def prompt(text: str, *, hide_input: bool, confirmation_prompt: str) -> str:
        asked.append(f"{text} {hide_input} {confirmation_prompt}")
        return "typed"

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(user.click, "prompt", prompt)
    monkeypatch.setattr(user, "sys", type("sys", (), {"stdin": Terminal()}))
    assert run("user", "add", "ann").status == 0
    assert asked == ["Password True Again"]
    assert verifier(state).matches(b"typed")


@pytest.mark.parametrize(
    ("args", "given", "status", "says"),
    [
        (["add", "ann"], b"secret\n", 2, "give it with --password-stdin"),
        (["add", "ann", "--password-stdin"], b"", 2, "the password cannot be used: it is empty"),
        (["add", "ann", "--password-stdin"], b"\n", 2, "it is empty"),
        (["add", "ann", "--password-stdin"], b"be\x07ll\n", 2, "SASLprep"),
        (["add", "a b", "--password-stdin"], b"x\n", 2, "is no name for an account"),
        (["add", "x\x1b[2J", "--password-stdin"], b"x\n", 2, "must not have"),
        (["add", "-", "--password-stdin"], b"x\n", 2, "is no name for an account"),
        (["add", "a*", "--password-stdin"], b"x\n", 2, "is no name for an account"),
        (["add", "x" * 255, "--password-stdin"], b"x\n", 2, "longer than"),
        (["add", "bob", "--password-stdin"], b"x\n", 1, "bob exists already"),
        (["passwd", "ann", "--password-stdin"], b"x\n", 1, "there is no account ann"),
        (["remove", "ann"], b"", 1, "there is no account ann"),
        (["quarantine", "ann"], b"", 1, "there is no account ann"),
        (["release", "bob"], b"", 1, "bob is not in quarantine"),
        (["add"], b"", 2, "Missing argument"),
    ],
)
def test_errors_are_one_line_with_the_contracts_status(
    run: Run, args: list[str], given: bytes, status: int, says: str
) -> None:
    run("user", "add", "bob", "--password-stdin", input=b"x\n")
    said = run("user", *args, input=given)
    assert said.status == status and says in said.err
    assert len(said.err.splitlines()) == 1 and said.out == ""
    assert [json.loads(line)["user"] for line in run("user", "list", "--json").out.splitlines()] == ["bob"]


def test_a_quarantine_of_a_stopped_relay_holds_its_mail_at_once(run: Run, state: Path) -> None:
    filled = Filled(state)
    filled.add(to("one@a.test", due=NOW), user="ann", age=30)
    filled.add(to("two@a.test", state=State.HELD, due=None, held_by="carl"), user="ann", age=20)
    filled.add(to("three@a.test", due=NOW), user="bob", age=10)
    filled.meta("clean", 1)
    filled.connection.close()
    run("user", "add", "ann", "--password-stdin", input=b"x\n")

    def held() -> dict[str, str]:
        rows = [json.loads(line) for line in run("queue", "list", "state:held", "--json").out.splitlines()]
        return {row["recipient"]: row["held_by"] for row in rows}

    said = run("user", "quarantine", "ann", "--reason", "spam", "--json")
    assert json.loads(said.out)["recipients"] == 1
    assert held() == {"one@a.test": "quarantine of ann", "two@a.test": "carl"}
    [row] = [json.loads(line) for line in run("user", "list", "--json").out.splitlines()]
    assert (row["quarantined"], row["reason"], row["queued"]) == ("2023-11-14T22:13:20.000Z", "spam", 2)
    assert "2023-11-14 22:13:20" in run("user", "list").out
    assert run("user", "release", "ann").out == "ann may log in again; 1 recipients are released\n"
    assert held() == {"two@a.test": "carl"}


def test_a_name_that_only_a_dovecot_knows_can_be_quarantined(run: Run, state: Path, tmp_path: Path) -> None:
    config = tmp_path / "mailtui.toml"
    config.write_text('[access]\nauth_socket = "/run/dovecot/auth"\n')
    assert run("user", "quarantine", "eve").status == 1
    assert run("user", "quarantine", "eve", "--config", str(config)).status == 0
    assert [json.loads(line)["user"] for line in run("user", "list", "--json").out.splitlines()] == ["eve"]
    assert run("user", "add", "eve", "--password-stdin", input=b"x\n").status == 1
    assert run("user", "release", "eve").status == 0
    assert run("user", "list", "--json").out == ""


def test_an_order_waits_for_no_relay_that_holds_the_lock(run: Run, state: Path) -> None:
    import os

    lock = take_lock(state)
    try:
        said = run("user", "add", "ann", "--password-stdin", input=b"x\n")
        assert said.status == 3 and "a relay runs on" in said.err
        assert not path_of(state).exists()
    finally:
        os.close(lock)


# -- a running one ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop, state: Path) -> AsyncIterator[Live]:
    async with relay_of(smarthost(hop), at=state) as relay:
        yield relay


async def test_a_running_relay_is_told_and_knows_at_once(relay: Live, state: Path) -> None:
    async def run(*args: str, input: str | None = None) -> Said:
        return await asyncio.to_thread(command, state, *args, input=input)

    said = await run("user", "add", "ann", "--password-stdin", input="secret\n")
    assert (said.status, said.out) == (0, "ann may log in now\n"), said.err
    assert relay.relay.intake.accounts.verifier("ann").matches(b"secret")
    assert (await run("user", "add", "ann", "--password-stdin", input="x\n")).status == 1
    quarantined = await run("user", "quarantine", "ann", "--reason", "spam")
    assert quarantined.out == "ann is in quarantine; 0 recipients are held\n"
    listed = await run("user", "list")
    assert listed.out.splitlines()[1].split()[0] == "ann" and "spam" in listed.out
    assert (await run("user", "release", "ann")).status == 0
    assert (await run("user", "remove", "ann")).out == "ann is removed\n"
    assert relay.relay.accounts() == []

"""The commands that act, against a running relay: preview, yes, exit statuses, what is printed."""

import asyncio
import json
import os
import shlex
import tarfile
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mailtui.cli import act
from mailtui.cli.app import mailtui
from mailtui.clock import ManualClock
from tests.cli.conftest import Said
from tests.end_to_end.conftest import Live, Start, hop, relay_of, smarthost, state
from tests.queue.filled import NOW
from tests.support.nexthop import NextHop

__all__ = ["hop", "relay_of", "state"]

Run = Callable[..., Awaitable[Said]]


@pytest.fixture
def clock() -> ManualClock:
    """What the commands take for the time of day."""
    return ManualClock(NOW)


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """Three deferred recipients of two destinations."""
    hop.rcpt = "451 4.7.1 greylisted"
    async with relay_of(smarthost(hop) + '[queue]\ngrace = "10m"\n') as relay:
        await relay.send("ann@a.test", content=b"Subject: \x1b[2Jone\r\n\r\nx\r\n")
        await relay.send(["bob@a.test", "carl@b.test"])
        await relay.told("deferred", 3)
        yield relay


def command(state: Path, *args: str, input: str | None = None) -> Said:
    result = CliRunner().invoke(mailtui, [*args, "--state", str(state)], prog_name="mailtui", input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def run(state: Path) -> Run:
    async def run(*args: str, input: str | None = None) -> Said:
        return await asyncio.to_thread(command, state, *args, input=input)

    return run


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's streams say that they are one."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    monkeypatch.setattr("mailtui.cli.output.columns", lambda: 80)


async def states(relay: Live) -> list[str]:
    return [row["state"] for row in await relay.rows()]


async def test_without_yes_it_shows_what_it_would_do(relay: Live, run: Run) -> None:
    said = await run("queue", "hold", "dest:a.test", "--reason", "is it spam?")
    assert (said.status, said.err) == (4, "")
    assert "Hold: 2 recipients of 2 messages" in said.out
    assert "ann@a.test" in said.out and "\x1b" not in said.out
    assert "$ mailtui queue hold dest:a.test --yes --expect 2 --reason 'is it spam?'" in said.out
    assert said.out.endswith("Nothing was done: this was a preview. With --yes it is done.\n")
    assert max(map(len, said.out.splitlines())) <= 80
    assert await states(relay) == ["deferred"] * 3


async def test_the_preview_as_json_has_its_exit_status_too(relay: Live, run: Run) -> None:
    said = await run("queue", "bounce", "to:*", "--json")
    assert (said.status, json.loads(said.out)["recipients"]) == (4, 3)


async def test_with_yes_it_is_done_and_said(relay: Live, run: Run) -> None:
    said = await run("queue", "delete", "dest:a.test", "--yes", "--expect", "2")
    assert said.status == 0
    assert said.out.splitlines()[0] == "deleted 2 recipients"
    assert said.out.splitlines()[1].endswith(": mailtui queue undo o1")
    assert await relay.count("state:leaving") == 2
    said = await run("queue", "undo", "o1")
    assert (said.status, said.out) == (0, "undone 2 recipients\n")
    assert await states(relay) == ["deferred"] * 3


async def test_the_commands_of_a_preview_and_of_the_journal_do_it(relay: Live, run: Run) -> None:
    preview = json.loads((await run("queue", "hold", "-dest:b.test", "tries<9", "--json")).out)
    words = shlex.split(preview["command"])[1:]
    done = json.loads((await run(*words, "--json")).out)
    assert (done["done"], done["asked"]) == (2, 2)
    rows = map(json.loads, (await run("log", "--json")).out.splitlines())
    [entry] = [row for row in rows if row.get("command")]
    assert shlex.split(entry["command"])[1:] == words
    assert (entry["query"], entry["recipients"]) == ("-dest:b.test tries<9", 2)


async def test_an_expectation_that_differs_exits_1_with_one_line(relay: Live, run: Run) -> None:
    said = await run("queue", "hold", "to:*", "--yes", "--expect", "7")
    assert (said.status, said.out, len(said.err.splitlines())) == (1, "", 1)
    assert await states(relay) == ["deferred"] * 3


async def test_nothing_matched_exits_0(relay: Live, run: Run) -> None:
    said = await run("queue", "hold", "dest:nowhere.test", "--yes")
    assert (said.status, said.out) == (0, "0 recipients: nothing matched.\n")
    assert json.loads((await run("queue", "hold", "dest:nowhere.test", "--yes", "--json")).out)["done"] == 0


async def test_what_was_left_out_is_said(relay: Live, run: Run) -> None:
    await run("queue", "hold", "to:ann@*", "--yes")
    said = await run("queue", "hold", "to:*", "--yes")
    assert said.out.splitlines()[:2] == ["held 2 of 3 recipients", "1 left out: already held"]


@pytest.mark.usefixtures("on_a_terminal")
@pytest.mark.parametrize(("typed", "status", "left"), [("y\n", 0, ["held"] * 3), ("n\n", 4, ["deferred"] * 3)])
async def test_on_a_terminal_it_asks(relay: Live, run: Run, typed: str, status: int, left: list[str]) -> None:
    said = await run("queue", "hold", "to:*", input=typed)
    assert (said.status, "Do it?" in said.out) == (status, True)
    assert await states(relay) == left


@pytest.mark.usefixtures("on_a_terminal")
@pytest.mark.parametrize(("typed", "status", "leaving"), [("3\n", 0, 3), ("y\n", 4, 0), ("\n", 4, 0)])
async def test_what_loses_mail_wants_the_count_typed(
    relay: Live, run: Run, typed: str, status: int, leaving: int
) -> None:
    said = await run("queue", "delete", "to:*", input=typed)
    assert (said.status, "Type 3 to do it" in said.out) == (status, True)
    assert await relay.count("state:leaving") == leaving


@pytest.mark.usefixtures("on_a_terminal")
async def test_what_was_shown_is_what_is_touched(relay: Live, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when mail arrives while somebody thinks."""
    loop = asyncio.get_running_loop()

    def think(*args: Any, **kwargs: Any) -> bool:
        async def arrive() -> None:
            await relay.send("new@a.test")
            await relay.told("deferred", 4)

        asyncio.run_coroutine_threadsafe(arrive(), loop).result(30)
        return True

    monkeypatch.setattr(act.click, "confirm", think)
    said = await run("queue", "hold", "to:*")
    assert said.out.splitlines()[-2] == "held 3 recipients"
    assert await states(relay) == ["held"] * 3 + ["deferred"]


@pytest.mark.usefixtures("on_a_terminal")
@pytest.mark.parametrize("arrives", [False, True])
async def test_after_a_long_thought_it_is_done_only_if_as_many_match(
    relay: Live, run: Run, monkeypatch: pytest.MonkeyPatch, arrives: bool
) -> None:
    loop = asyncio.get_running_loop()

    def think(*args: Any, **kwargs: Any) -> bool:
        async def sleep() -> None:
            relay.clock.advance(120)
            if arrives:
                await relay.send("new@a.test")
                await relay.told("deferred", 4)

        asyncio.run_coroutine_threadsafe(sleep(), loop).result(30)
        return True

    monkeypatch.setattr(act.click, "confirm", think)
    said = await run("queue", "hold", "to:*")
    assert said.status == (1 if arrives else 0)
    assert (await states(relay))[:3] == ["deferred" if arrives else "held"] * 3


async def test_flush_wants_yes_for_everything_only(relay: Live, run: Run, hop: NextHop) -> None:
    assert (await run("flush")).status == 4
    hop.rcpt = []
    said = await run("flush", "b.test")
    assert (said.status, said.out) == (0, "due now 1 recipient\n")
    await hop.received(1)
    said = await run("flush", "--yes", "--all-at-once")
    assert said.out == "due now 2 recipients\n"
    await hop.received(3)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("queue hold", "a QUERY is missing; everything is to:*"),
        ("queue hold nonsense:1 --yes", "unknown term"),
        ("queue hold --nonsense to:* --yes", "--nonsense"),
        ("queue defer to:* --yes", "--for"),
        ("queue defer to:* --for soon --yes", "is not a duration"),
        ("queue hold to:* --yes --now", "--now"),
        ("pause everything", "delivery"),
        ("pause", "WHAT"),
        ("dest limit a.test", "needs --concurrency N"),
        ("route set a.test mx speed=9", "speed=9 is no option of a route"),
        ("flush a..test", "is no domain"),
    ],
)
async def test_a_call_that_is_wrong_exits_2_with_one_line(relay: Live, run: Run, words: str, line: str) -> None:
    said = await run(*words.split())
    assert (said.status, said.out, len(said.err.splitlines())) == (2, "", 1)
    assert line in said.err


@pytest.mark.parametrize(
    "words",
    ["queue retry to:* --yes", "queue hold to:*", "flush", "pause all", "resume", "dest suspend a.test", "reload",
     "stop", "route set a.test mx", "backup x.tar", "queue operations", "queue undo o1", "log --follow",
     "status --follow"],
)  # fmt: skip
async def test_without_a_relay_it_exits_3_with_one_line(run: Run, words: str) -> None:
    said = await run(*words.split())
    assert (said.status, said.out, len(said.err.splitlines())) == (3, "", 1)
    assert "needs a running relay" in said.err


async def test_operations_are_listed_with_what_can_be_undone(relay: Live, run: Run) -> None:
    assert (await run("queue", "operations")).out == "Nobody did anything yet.\n"
    await run("queue", "bounce", "dest:b.test", "--yes", "--reason", "r")
    await run("queue", "restore", "--yes")
    said = await run("queue", "operations")
    assert [line.split()[0] for line in said.out.splitlines()] == ["OP", "o2", "o1"]
    assert "10m" in said.out
    rows = list(map(json.loads, (await run("queue", "operations", "--json")).out.splitlines()))
    assert [(row["verb"], row["done"], row["reason"]) for row in rows] == [
        ("queue.restore", 1, ""),
        ("queue.bounce", 1, "r"),
    ]


async def test_pause_shows_in_the_status_and_resume_ends_it(relay: Live, run: Run) -> None:
    said = await run("pause", "delivery", "--for", "1h", "--reason", "storm")
    assert (said.status, said.out) == (0, "delivery paused for 1h\n")
    assert json.loads((await run("status", "--json")).out)["paused"] == "delivery"
    assert (await run("resume")).out == "delivery resumed\n"
    assert (await run("resume")).out == "nothing was paused\n"


async def test_destinations_are_listed_shown_suspended_and_limited(relay: Live, run: Run, hop: NextHop) -> None:
    assert (
        await run("dest", "suspend", "A.test", "--for", "1h", "--reason", "their MX")
    ).out == "a.test suspended for 1h\n"
    assert (await run("dest", "limit", "b.test", "--rate", "100/1m")).status == 0
    rows = list(map(json.loads, (await run("dest", "list", "--json")).out.splitlines()))
    fields = (
        "destination domains queued active deferred held oldest window connections rate state until reason"
        " last_reply last_success"
    )
    assert set(rows[0]) >= set(fields.split())
    assert [(row["destination"], row["deferred"], row["state"], row["rate"]) for row in rows] == [
        ("a.test", 2, "suspended", None),
        ("b.test", 1, "ok", "100/1m"),
    ]
    said = await run("dest", "list")
    assert "their MX" in said.out and max(map(len, said.out.splitlines())) <= 80
    key = f"[{hop.host}]:{hop.port}"
    [row] = map(json.loads, (await run("dest", "list", "--by", "hop", "--json")).out.splitlines())
    assert (row["next_hop"], row["domains"], row["deferred"], row["last_reply"]) == (key, 2, 3, "greylisted")
    shown = await run("dest", "show", key)
    assert "Domains     a.test, b.test\n" in shown.out
    assert (await run("dest", "show", "nowhere.test")).status == 1
    assert (await run("dest", "resume", "a.test")).status == 0
    assert (await run("dest", "resume", "a.test")).status == 1


async def test_the_shape_of_the_queue(relay: Live, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    relay.clock.advance(1000)
    rows = list(map(json.loads, (await run("queue", "shape", "--json")).out.splitlines()))
    assert [(row["key"], row["total"]) for row in rows] == [("a.test", 2), ("b.test", 1)]
    assert [bucket["older_than"] for bucket in rows[0]["buckets"]] == [300 * 2**n for n in range(9)]
    assert [bucket["recipients"] for bucket in rows[0]["buckets"]] == [2, 2, 0, 0, 0, 0, 0, 0, 0]
    said = await run("queue", "shape", "--by", "reply")
    assert said.out.splitlines()[0].split() == ["REPLY", "TOTAL", ">5m", ">10m", ">20m", ">40m", ">80m", ">160m",
                                                ">320m", ">640m", ">1280m"]  # fmt: skip
    assert "451 4.7.1 greylisted" in said.out


async def test_routes_are_set_listed_tested_exported_and_imported(relay: Live, run: Run, tmp_path: Path) -> None:
    assert (await run("route", "list")).out.startswith("There is no route")
    await run("route", "set", "a.test", "smtp://[192.0.2.1]:25|mx", "tls=encrypt")
    await run("route", "set", "*", 'error:5.7.1 say "no"')
    [row, _] = sorted(
        map(json.loads, (await run("route", "list", "--json")).out.splitlines()), key=lambda row: -len(row["match"])
    )
    assert set(row) >= {"match", "target", "options", "queued"}
    assert (row["target"], row["options"]) == ("smtp://[192.0.2.1]:25|mx", {"tls": "encrypt"})
    said = await run("route", "test", "x@a.test")
    assert "smtp://[192.0.2.1]:25|mx" in said.out and "a live row" in said.out
    exported = (await run("route", "export")).out
    (tmp_path / "routes.toml").write_text(exported)
    assert {row["target"] for row in tomllib.loads(exported)["route"]} == {
        'error:5.7.1 say "no"', "smtp://[192.0.2.1]:25|mx",
    }  # fmt: skip
    for match in ("a.test", "*"):
        assert (await run("route", "unset", match)).status == 0
    assert (await run("route", "import", str(tmp_path / "routes.toml"))).out.endswith("2 set.\n")
    assert (await run("route", "export")).out == exported
    (tmp_path / "rows").write_text((await run("route", "list", "--json")).out)
    assert (await run("route", "import", str(tmp_path / "rows"))).status == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[[route]]\nmatch = "b.test"\ntarget = "mx"\n[[route]]\nmatch = "c.test"\ntarget = "ftp://x"\n',
            "unknown scheme",
        ),
        ('[[route]]\nmatch = "b.test"\ntraget = "mx"\n', "row 1: unknown key traget"),
        ('[[route]]\nmatch = "b.test"\n', "match and target are needed"),
        ("[[route]\n", "neither [[route]] tables nor JSON Lines"),
        ('{"match": 1, "target": "mx"}', "all of them texts"),
    ],
)
async def test_of_an_import_with_an_error_nothing_is_set(
    relay: Live, run: Run, tmp_path: Path, text: str, line: str
) -> None:
    (tmp_path / "routes").write_text(text)
    said = await run("route", "import", str(tmp_path / "routes"))
    assert (said.status, len(said.err.splitlines())) == (2, 1)
    assert line in said.err
    assert (await run("route", "list", "--json")).out == ""


async def test_export_writes_messages_and_envelopes(relay: Live, run: Run, tmp_path: Path) -> None:
    said = await run("queue", "export", "dest:a.test", str(tmp_path / "out"))
    assert (said.status, said.out.split(",")[0]) == (0, "2 messages")
    rows = await relay.rows("to:bob@*")
    envelope = json.loads((tmp_path / "out" / f"{rows[0]['id']}.json").read_text())
    assert envelope["selected"] == [rows[0]["rid"]]
    assert [one["recipient"] for one in envelope["recipients"]] == ["bob@a.test", "carl@b.test"]
    assert (tmp_path / "out" / f"{rows[0]['id']}.eml").read_bytes().endswith(b"..two\r\nend\r\n")
    assert len(list((tmp_path / "out").iterdir())) == 4
    again = await run("queue", "export", "dest:a.test", str(tmp_path / "out"))
    assert (again.status, "File exists" in again.err) == (2, True)


async def test_the_status_can_be_followed(relay: Live, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from mailtui.control.client import Client

    events = Client.events

    def three(self: Client, since: str = "") -> Any:
        found = events(self, since)
        for _ in range(3):
            yield next(found)

    monkeypatch.setattr(Client, "events", three)
    rows = list(map(json.loads, (await run("status", "--follow", "--json")).out.splitlines()))
    assert rows and all(row["running"] and row["queue"]["deferred"] == 3 for row in rows)


async def test_backup_and_restore(relay_of: Start, hop: NextHop, run: Run, state: Path, tmp_path: Path) -> None:
    hop.rcpt = "451 4.7.1 greylisted"
    large = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 30_000
    async with relay_of(smarthost(hop)) as relay:
        await relay.send("ann@a.test", content=large)
        await relay.send("bob@a.test")
        await relay.told("deferred", 2)
        before = await relay.rows()
        said = await run("backup", str(tmp_path / "b.tar"))
        assert (said.status, (tmp_path / "b.tar").stat().st_mode & 0o777) == (0, 0o600)
        assert [name for name in os.listdir(tmp_path) if "part" in name] == []
        said = await run("restore-backup", str(tmp_path / "b.tar"), "--yes")
        assert (said.status, len(said.err.splitlines())) == (2, 1)  # a relay runs
        await run("queue", "delete", "to:*", "--now", "--yes")
        await relay.told("discard", 2)
        assert await relay.rows() == []
    assert [name for name in os.listdir(state) if name.startswith(".backup-")] == []
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert {"queue.db", "spool", f"spool/{before[0]['id']}"} <= set(tar.getnames())
    said = await run("restore-backup", str(tmp_path / "b.tar"))
    assert (said.status, "Nothing was done." in said.out) == (4, True)
    said = await run("restore-backup", str(tmp_path / "b.tar"), "--yes", "--json")
    assert said.status == 0
    assert "queue.db" in os.listdir(json.loads(said.out)["moved_aside"])
    hop.rcpt = []
    async with relay_of(smarthost(hop)) as relay:
        assert relay.relay.paused == "delivery"
        assert [row["recipient"] for row in await relay.rows()] == ["ann@a.test", "bob@a.test"]
        await relay.pass_time(86400)
        assert hop.messages == []
        assert (await run("resume")).status == 0
        got = await hop.received(2)
        assert any(one.data.endswith(large) for one in got)


async def test_a_backup_can_be_restored_where_nothing_was(
    relay: Live, run: Run, tmp_path: Path, relay_of: Start, hop: NextHop
) -> None:
    await run("backup", str(tmp_path / "b.tar"))
    said = await asyncio.to_thread(command, tmp_path / "new", "restore-backup", str(tmp_path / "b.tar"))
    assert (said.status, (tmp_path / "new").stat().st_mode & 0o777) == (0, 0o700)
    said = await asyncio.to_thread(command, tmp_path / "new", "queue", "count", "--json")
    assert json.loads(said.out)["recipients"] == 3


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "spool/../evil", "spool/evil", "queue.db-wal"])
async def test_a_tar_with_anything_else_is_refused(run: Run, tmp_path: Path, state: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(tmp_path / "x", name)
    with tarfile.open(tmp_path / "b.tar") as tar:
        member = tar.getmembers()[0]
        member.name = name
    said = await run("restore-backup", str(tmp_path / "b.tar"))
    assert (said.status, len(said.err.splitlines())) == (1, 1)
    assert "no place in a backup" in said.err
    assert os.listdir(state) == ["lock"]


@pytest.mark.parametrize(("content", "line"), [(b"no tar", "cannot restore"), (None, "there is no such file")])
async def test_what_is_no_backup_is_said(run: Run, tmp_path: Path, content: bytes | None, line: str) -> None:
    if content is not None:
        (tmp_path / "b.tar").write_bytes(content)
    said = await run("restore-backup", str(tmp_path / "b.tar"))
    assert line in said.err and len(said.err.splitlines()) == 1

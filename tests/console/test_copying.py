"""`y` on every place: what is offered, what is sent, and what is said of it."""

import base64
import json
import re
from pathlib import Path

import pytest

from mailtui.console import clipboard, copying
from mailtui.console.app import Console
from mailtui.console.dialogs.menu import Menu
from mailtui.console.dialogs.sheet import Sheet
from mailtui.console.message.screen import MessageScreen
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay, a_row
from tests.console.fake_queue import FakeFrame, FakeLink, rid
from tests.console.test_message_screen import a_link, opened
from tests.console.test_queue_pane import settled

pytestmark = pytest.mark.usefixtures("no_guard", "xterm")


@pytest.fixture
def xterm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A terminal that has no helper but itself."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the terminal was asked to take."""
    texts: list[str] = []

    def write(app: Console, sequence: str) -> None:
        (encoded,) = re.fullmatch("\x1b\\]52;c;(.*)\x07", sequence).groups()  # type: ignore[union-attr]
        texts.append(base64.b64decode(encoded).decode())

    monkeypatch.setattr(Console, "write_terminal", write)
    return texts


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("i", "01HZX3V7N8Q01"),
        ("d", "01HZX3V7N8Q01.0"),
        ("a", "rcpt1@dest1.example"),
        ("l", "451 4.7.1 greylisted, try later"),
        ("c", "mailtui queue show 01HZX3V7N8Q01"),
    ],
)
async def test_what_a_row_of_the_queue_has(
    relay: FakeRelay, console: Opener, sent: list[str], key: str, text: str
) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt1@" in shown(app))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, Menu) and "last reply" in shown(app))
        assert text in shown(app)
        assert sent == []
        await pilot.press(key)
        await until(pilot, lambda: "by OSC 52; if your terminal refuses: y s" in shown(app))
        assert sent == [text]


async def test_a_row_as_json_is_what_the_listing_prints(relay: FakeRelay, console: Opener, sent: list[str]) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt1@" in shown(app))
        await pilot.press("y", "f")
        await until(pilot, lambda: bool(sent))
    (text,) = sent
    assert text.isascii() and "\n" not in text
    row = a_row(1)
    assert json.loads(text).keys() == row.keys() - {"cursor"}


async def test_the_destination_under_the_cursor(relay: FakeRelay, console: Opener, sent: list[str]) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest2.example" in shown(app))
        await pilot.press("j", "y")
        await until(pilot, lambda: isinstance(app.screen, Menu))
        await pilot.press("c")
        await until(pilot, lambda: bool(sent))
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, Menu))
        await pilot.press("l")
        await until(pilot, lambda: len(sent) == 2)
    assert sent == ["mailtui dest show dest2.example", "451 4.7.1 greylisted"]


async def test_a_console_that_only_reads_may_copy(relay: FakeRelay, console: Opener, sent: list[str]) -> None:
    async with console(read_only="started with --read-only") as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("y", "i")
        await until(pilot, lambda: sent == ["dest1.example"])


async def test_marked_rows_are_copied_a_line_each_and_a_whole_list_as_its_query() -> None:
    link = FakeLink(range(1000))
    app = FakeFrame(link)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app)
        await pilot.press("space", "space", "y")
        texts = {copy.key: copy.text for copy in app.copies}
        assert texts["d"] == f"{rid(0)}\n{rid(1)}"
        assert texts["c"] == f"mailtui queue list id:{rid(0)},{rid(1)} --limit 0"
        assert [json.loads(line)["rid"] for line in texts["f"].split("\n")] == [rid(0), rid(1)]
        app.pane.show("to:a*")
        await until(pilot, lambda: app.pane.query_text == "to:a*")
        await pilot.press("asterisk", "y")
        assert [copy.text for copy in app.copies] == ["to:a*", "mailtui queue list 'to:a*' --limit 0"]


async def test_the_trace_tab_gives_the_trace_as_text() -> None:
    app = FakeFrame(a_link())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, app, tab="trace")
        await pilot.press("y")
        (text,) = [copy.text for copy in app.copies if copy.key == "t"]
        lines = text.split("\n")
        assert lines[0] == f"mailtui trace {rid(0)[:13]}"
        assert "DELAY" in lines[1] and any(line.startswith(" 3 ") and "7m" in line for line in lines)
        assert "The slowest is hop 3" in text and all(line == line.rstrip() for line in lines)
        assert any(len(line) > 80 for line in lines)  # not cut to this terminal
        await pilot.press("m")
        await until(pilot, lambda: screen.tab == "headers" and "Received: from a" in text_of(app))
        await pilot.press("y")
        assert "Received: from a by b" in next(copy.text for copy in app.copies if copy.key == "t")
        assert next(copy.text for copy in app.copies if copy.key == "d") == rid(0)


def text_of(app: FakeFrame) -> str:
    screen = app.screen
    assert isinstance(screen, MessageScreen)
    return screen.query_one("#headers").text  # type: ignore[attr-defined, no-any-return]


def files(directory: Path) -> list[Path]:
    return list(directory.glob("mailtui-copy-*.txt"))


async def test_what_cannot_be_copied_stands_on_a_sheet_and_in_a_file(
    relay: FakeRelay, console: Opener, sent: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TERM", "linux")
    mouse: list[bool] = []
    monkeypatch.setattr(Console, "set_mouse", lambda app, taken: mouse.append(taken))
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt1@" in shown(app))
        await pilot.press("y", "c")
        await until(pilot, lambda: isinstance(app.screen, Sheet) and "has no clipboard" in shown(app))
        lines = shown(app).split("\n")
        assert lines[0].rstrip() == "mailtui queue show 01HZX3V7N8Q01"  # at the edge, with nothing beside it
        (path,) = files(tmp_path)
        assert str(path)[:40] in shown(app) and path.read_text() == "mailtui queue show 01HZX3V7N8Q01\n"
        assert mouse == [False]
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Sheet) and mouse == [False, True])
    assert sent == []


async def test_the_sheet_can_be_asked_for_and_has_everything(
    relay: FakeRelay, console: Opener, sent: list[str], tmp_path: Path
) -> None:
    async with console() as (app, pilot):
        await pilot.press("2")
        await until(pilot, lambda: "rcpt1@" in shown(app))
        await pilot.press("y", "s")
        await until(pilot, lambda: isinstance(app.screen, Sheet))
        for text in ("01HZX3V7N8Q01.0", "rcpt1@dest1.example", "greylisted, try later", '{"id": "01HZX3V7N8Q01"'):
            assert text in shown(app)
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, Sheet))
    assert sent == [] and len(files(tmp_path)) == 1


async def test_too_much_for_the_terminal_goes_to_the_sheet(
    relay: FakeRelay, console: Opener, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipboard, "MOST", 10)
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("y", "i")
        await until(pilot, lambda: isinstance(app.screen, Sheet) and "13 octets are more than" in shown(app))
    assert sent == []


async def test_nothing_under_the_cursor_is_nothing_to_copy(relay: FakeRelay, console: Opener) -> None:
    relay.destinations = []
    async with console() as (app, pilot):
        await pilot.press("y")
        await until(pilot, lambda: "there is nothing to copy here" in shown(app))


def test_hostile_fields_stay_one_word_of_the_command_line() -> None:
    import shlex

    for evil in ("a'; reboot #", "$(reboot)", "a b"):
        command = next(copy.text for copy in copying.of_destination({"destination": evil}) if copy.key == "c")
        assert shlex.split(command) == ["mailtui", "dest", "show", evil]

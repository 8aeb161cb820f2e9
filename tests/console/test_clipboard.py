"""The ways to the clipboard, in their order, with tools that note what they were given."""

import base64
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mailtui.console import clipboard
from tests.console.test_hostile import ALLOWED, CORPUS

Tool = Callable[..., None]

SENT = re.compile("\x1b\\]52;c;([A-Za-z0-9+/=]*)\x07")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Of an xterm, with a directory of its own for programs."""
    (tmp_path / "bin").mkdir()
    return {"TERM": "xterm-256color", "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    """`tool(name)`: a program that notes its arguments and its input; `body` is what else it does."""

    def made(name: str, body: str = "") -> None:
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/sh\n{body}\necho "$@" > {tmp_path}/{name}.args\ncat > {tmp_path}/{name}.in\n')
        path.chmod(0o755)

    return made


def copied(text: str, environ: dict[str, str]) -> tuple[clipboard.Copied, list[str]]:
    """How it went, and what was written to the terminal."""
    written: list[str] = []
    return clipboard.copy(text, environ, written.append), written


@pytest.mark.parametrize(
    ("variable", "name", "arguments"),
    [
        ("WAYLAND_DISPLAY", "wl-copy", ""),
        ("DISPLAY", "xclip", "-selection clipboard -in"),
        ("DISPLAY", "xsel", "--clipboard --input"),
    ],
)
def test_a_desktops_own_tool_comes_first(
    tmp_path: Path, environ: dict[str, str], tool: Tool, variable: str, name: str, arguments: str
) -> None:
    tool(name)
    environ |= {variable: ":0", "PATH": f"{tmp_path / 'bin'}:/bin"}
    assert copied("rcpt@ex\u00e4mple", environ) == (clipboard.Copied(name), [])
    assert (tmp_path / f"{name}.args").read_text().strip() == arguments
    assert (tmp_path / f"{name}.in").read_text() == "rcpt@ex\u00e4mple"


def test_a_tool_without_its_display_is_not_asked(environ: dict[str, str], tool: Tool) -> None:
    tool("xclip")
    tool("wl-copy")
    assert copied("x", environ)[0] == clipboard.Copied("OSC 52", sure=False)


def test_a_tool_that_fails_or_hangs_is_passed_over(
    environ: dict[str, str], tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipboard, "PATIENCE", 0.2)
    tool("wl-copy", "exit 1")
    tool("xclip", "exec sleep 60")
    tool("xsel")
    environ |= {"WAYLAND_DISPLAY": "wayland-0", "DISPLAY": "localhost:10"}
    assert copied("x", environ) == (clipboard.Copied("xsel"), [])


def test_tmux_is_given_the_text_and_told_to_hand_it_on(tmp_path: Path, environ: dict[str, str], tool: Tool) -> None:
    tool("tmux")
    assert copied("x", environ | {"TMUX": "/tmp/tmux"}) == (clipboard.Copied("tmux, and its terminal"), [])
    assert (tmp_path / "tmux.args").read_text() == "load-buffer -w -\n"


def test_an_old_tmux_keeps_it_in_its_own_buffer_and_that_is_told(environ: dict[str, str], tool: Tool) -> None:
    tool("tmux", '[ "$2" != -w ] || exit 1')
    done, written = copied("x", environ | {"TMUX": "/tmp/tmux"})
    assert done.how == "tmux's own buffer, prefix ] pastes it" and written == []


def test_else_the_terminal_is_asked_and_nobody_knows_whether_it_did(environ: dict[str, str]) -> None:
    done, written = copied("rcpt@ex\u00e4mple", environ)
    assert done == clipboard.Copied("OSC 52", sure=False)
    assert written == ["\x1b]52;c;" + base64.b64encode("rcpt@ex\u00e4mple".encode()).decode() + "\x07"]


def test_screen_passes_it_on_in_pieces(environ: dict[str, str]) -> None:
    text = "0123456789" * 100
    done, (written,) = copied(text, environ | {"STY": "1.pts"})
    assert done.how == "OSC 52 through screen"
    pieces = re.findall("\x1bP(.*?)\x1b\\\\", written, re.DOTALL)
    assert len(pieces) > 5 and "".join(f"\x1bP{piece}\x1b\\" for piece in pieces) == written
    assert max(map(len, pieces)) <= 256
    (sent,) = SENT.findall("".join(pieces))
    assert base64.b64decode(sent).decode() == text


def test_more_than_a_terminal_takes_is_refused_aloud(environ: dict[str, str]) -> None:
    assert copied("x" * clipboard.MOST, environ)[1]
    with pytest.raises(clipboard.CopyError, match="74,995 octets are more than a terminal takes"):
        copied("x" * (clipboard.MOST + 1), environ)


@pytest.mark.parametrize("term", ["linux", "dumb", ""])
def test_a_terminal_without_a_clipboard_is_sent_nothing(environ: dict[str, str], term: str) -> None:
    written: list[str] = []
    with pytest.raises(clipboard.CopyError, match="has no clipboard"):
        clipboard.copy("x", environ | {"TERM": term}, written.append)
    assert written == []


@pytest.mark.parametrize("evil", CORPUS, ids=range(len(CORPUS)))
def test_what_is_copied_is_cleaned(environ: dict[str, str], evil: str) -> None:
    _, (written,) = copied(evil, environ)
    (sent,) = SENT.fullmatch(written).groups()  # type: ignore[union-attr]
    assert all(ALLOWED.fullmatch(line) for line in base64.b64decode(sent).decode().split("\n"))


def test_the_file_is_new_and_for_nobody_else(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    first, second = (Path(clipboard.keep("a\x1b[2J\nb", environ)) for _ in range(2))
    assert first != second and first.parent == tmp_path
    assert first.read_text() == "a\ufffd[2J\nb\n"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600

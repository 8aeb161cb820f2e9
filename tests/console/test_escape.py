"""Escape sequences that a slow link tore apart: no piece of one is taken for a key."""

import time

import pytest
from textual import constants
from textual._xterm_parser import XTermParser
from textual.events import Key

from mailtui.console.escape import Splice
from tests.console.conftest import Opener, shown, until
from tests.console.fake import FakeRelay

SEQUENCES = {
    "up": "\x1b[A", "left": "\x1b[D", "ss3 left": "\x1bOD", "f3": "\x1bOR", "page up": "\x1b[5~", "delete": "\x1b[3~",
    "ctrl right": "\x1b[1;5C", "f5": "\x1b[15~", "shift tab": "\x1b[Z", "end": "\x1b[F",
}  # fmt: skip


def keys_of(pieces: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """What Textual makes of a sequence whose pieces come too far apart."""
    monkeypatch.setattr(constants, "ESCAPE_DELAY", 0.001)
    parser = XTermParser()
    found: list[Key] = []
    for piece in pieces:
        found += [event for event in parser.feed(piece) if isinstance(event, Key)]
        time.sleep(0.004)
        found += [event for event in parser.tick() if isinstance(event, Key)]
    return found


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_that_is_torn_anywhere_leaves_no_key_but_escape(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = SEQUENCES[name]
    for at in range(1, len(sequence)):
        splice = Splice()
        left = [
            key.key
            for key in keys_of([sequence[:at], sequence[at:]], monkeypatch)
            if not splice.swallow(key.key, key.character, 0.2)
        ]
        assert left in ([], ["escape"]), (sequence[:at], sequence[at:])


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_that_comes_byte_by_byte_leaves_no_key_but_escape(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    splice = Splice()
    found = keys_of(list(SEQUENCES[name]), monkeypatch)
    assert len(found) > 1
    assert [key.key for key in found if not splice.swallow(key.key, key.character, 0.2)] == ["escape"]


def test_keys_after_escape_are_keys() -> None:
    splice = Splice()
    assert [key for key in ("escape", "r", "escape", "escape", "x") if splice.swallow(key, key, 5.0)] == []


def test_a_bracket_that_is_typed_is_a_bracket() -> None:
    splice = Splice()
    assert not splice.swallow("left_square_bracket", "[", 5.0, typing=True)
    assert not splice.swallow("1", "1", 5.1, typing=True)


def test_what_comes_long_after_escape_is_a_key() -> None:
    splice = Splice()
    assert not splice.swallow("escape", "\x1b", 5.0)
    assert not splice.swallow("left_square_bracket", "[", 6.1, typing=True)
    assert not splice.swallow("D", "D", 6.1)


def test_only_one_sequence_is_swallowed() -> None:
    splice = Splice()
    keys = [("escape", "\x1b"), ("left_square_bracket", "["), ("D", "D"), ("D", "D"), ("r", "r")]
    assert [splice.swallow(key, character, 5.0) for key, character in keys] == [False, True, True, False, False]


async def test_a_torn_arrow_does_nothing_in_the_console(relay: FakeRelay, console: Opener) -> None:
    async with console() as (app, pilot):
        await until(pilot, lambda: "dest1.example" in shown(app))
        await pilot.press("escape", "left_square_bracket", "2", "tilde")
        await pilot.press("escape", "O", "2")
        await pilot.pause()
        assert " 1 OVERVIEW " in shown(app)
        await pilot.press("2")
        await until(pilot, lambda: " 2 QUEUE " in shown(app))

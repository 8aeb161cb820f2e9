"""What strangers write cannot drive the terminal of who reads it (standards R11, V06)."""

import re

import pytest

from tests.cli.conftest import Queue, Run

COMMANDS = ["queue list", "queue show {}", "queue show {} --transcript", "queue why {}", "history", "log", "trace {}"]


@pytest.mark.parametrize("command", COMMANDS)
def test_output_for_people_is_clean_and_fits(run: Run, queue: Queue, command: str) -> None:
    said = run(*command.format(queue.hostile).split())
    assert said.status == 0
    for line in said.out.splitlines():
        assert line.isprintable(), ascii(line)
        if not command.startswith("log"):
            assert len(line) <= 80, line
    assert "\u202e" not in said.out


@pytest.mark.parametrize("command", [*COMMANDS, "queue count", "status"])
def test_json_is_ascii_without_control_characters(run: Run, queue: Queue, command: str) -> None:
    said = run(*command.format(queue.hostile).split(), "--json")
    assert said.status == 0
    assert said.out.isascii()
    assert all(line.isprintable() for line in said.out.splitlines())
    assert not re.search(r"\\u(00[01]|007f|00[89]|200b|202e)", said.out)


def test_arguments_come_back_clean_in_errors(run: Run, queue: Queue) -> None:
    for args in (["queue", "list", "x\x1b[2J:1"], ["queue", "show", "\x1b[2J\n"], ["mx", "\x1b@\x07"], ["\x1b[2J"]):
        said = run(*args)
        assert said.status == 2
        assert said.err[:-1].isprintable()


def test_hostile_parts_are_shown_not_hidden(run: Run, queue: Queue) -> None:
    said = run("queue", "show", queue.hostile)
    assert "\ufffd]0;owned\ufffd" in said.out

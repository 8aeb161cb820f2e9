"""The verb registry: names, arguments, and the command that repeats an action."""

import shlex
import subprocess
import sys

import pytest

from mailtui.cli.app import mailtui as root
from mailtui.control.errors import VerbError
from mailtui.control.verbs import LOSSY, VERBS
from mailtui.control.words import arguments, command_line, verb_named


def test_names_are_words_and_every_example_is_its_own_command() -> None:
    for name, verb in VERBS.items():
        assert verb.name == name
        assert shlex.split(verb.example)[: 1 + len(verb.words)] == ["mailtui", *verb.words]
        assert verb.help.endswith(".") and verb.preview.endswith(".")


def test_every_verb_is_a_command_of_the_command_line() -> None:
    for verb in VERBS.values():
        command = root
        for word in verb.words:
            command = command.get_command(None, word)  # type: ignore[attr-defined, arg-type, assignment]
            assert command is not None, verb.name


def test_what_loses_mail_is_named_so() -> None:
    assert {name for name, verb in VERBS.items() if verb.danger == LOSSY} == {"queue.bounce", "queue.delete"}


def test_the_registry_is_light() -> None:
    code = (
        "import sys, mailtui.control.words\n"
        "print([m for m in ('aiohttp', 'sqlite3', 'click', 'pydantic', 'asyncio') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "given", "values"),
    [
        ("queue.defer", {"for": "2h"}, {"for": 7200.0}),
        ("queue.defer", {"for": 90}, {"for": 90.0}),
        ("dest.limit", {"name": "a.test", "rate": "100/1m"}, {"name": "a.test", "rate": (100, 60.0)}),
        ("dest.limit", {"name": "a.test", "concurrency": "2"}, {"name": "a.test", "concurrency": 2}),
        ("queue.bounce", {"now": True}, {"now": True}),
        ("queue.bounce", {"now": False}, {}),
        ("queue.reroute", {"to": ""}, {"to": ""}),
        ("pause", {"what": "all", "for": "1h30m"}, {"what": "all", "for": 5400.0}),
        ("flush", {"destination": None}, {}),
    ],
)
def test_arguments_become_values(name: str, given: dict[str, object], values: dict[str, object]) -> None:
    assert arguments(VERBS[name], given) == values


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("queue.defer", {}, "needs --for DURATION"),
        ("queue.defer", {"for": "soon"}, "is not a duration"),
        ("queue.defer", {"for": 0}, "no time at all"),
        ("queue.hold", {"now": True}, "has no argument now; it has none"),
        ("dest.limit", {"name": "a.test", "concurrency": "0"}, "no whole number above 0"),
        ("dest.limit", {"name": "a.test", "concurrency": "9" * 30}, "no whole number above 0"),
        ("dest.limit", {"name": "a.test", "rate": "many"}, "is not a rate"),
        ("dest.suspend", {}, "needs NAME"),
        ("pause", {"what": "mail"}, "none of delivery, intake, all"),
    ],
)
def test_bad_arguments_are_said_in_a_sentence(name: str, given: dict[str, object], sentence: str) -> None:
    with pytest.raises(VerbError, match=sentence) as caught:
        arguments(VERBS[name], given)
    assert caught.value.exit == 2


def test_an_unknown_verb_names_the_known_ones() -> None:
    with pytest.raises(VerbError, match=r"no verb queue.explode; known: queue.retry, ") as caught:
        verb_named("queue.explode")
    assert caught.value.exit == 2


@pytest.mark.parametrize(
    ("name", "query", "args", "reason", "expect", "words"),
    [
        ("queue.bounce", "from:x@a.test age>1h", {"now": True}, "it's spam", 312,
         "queue bounce 'from:x@a.test age>1h' --now --yes --expect 312 --reason 'it'\"'\"'s spam'"),
        ("queue.defer", "dest:a.test", {"for": "2h"}, "", 1, "queue defer dest:a.test --for 2h --yes --expect 1"),
        ("queue.restore", "", {}, "", None, "queue restore --yes"),
        ("flush", None, {"destination": "a.test"}, "", 9, "flush a.test"),
        ("flush", None, {}, "", 9, "flush --yes --expect 9"),
        ("pause", None, {"what": "all", "for": "1h"}, "storm", None, "pause all --for 1h --reason storm"),
        ("dest.suspend", None, {"name": "[mx.a.test]:25"}, "", None, "dest suspend '[mx.a.test]:25'"),
        ("route.set", None, {"match": "a.test", "target": "error:5.1.2 no", "tls": "verify"}, "", None,
         "route set a.test 'error:5.1.2 no' tls=verify"),
        ("queue.undo", None, {"operation": "o12"}, "", None, "queue undo o12"),
    ],
)  # fmt: skip
def test_the_command_line_repeats_the_action(
    name: str, query: str | None, args: dict[str, object], reason: str, expect: int | None, words: str
) -> None:
    assert command_line(VERBS[name], query, args, reason, expect) == f"mailtui {words}"


def test_no_text_can_end_a_word_of_the_command_line() -> None:
    nasty = "x'; rm -rf / #\n$(reboot)`id`"
    said = command_line(VERBS["queue.hold"], f'subject:"{nasty}"', {}, nasty, 1)
    assert shlex.split(said) == ["mailtui", "queue", "hold", f'subject:"{nasty}"', "--yes", "--expect", "1",
                                 "--reason", nasty]  # fmt: skip

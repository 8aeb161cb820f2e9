"""The `:` line: the commands of the shell, typed in the console.

`:hold from:x@example.org --reason spam` is `mailtui queue hold ...`; the word `queue` may be left out. What only shows
something opens the place that shows it. Promises: nothing is guessed, an unknown word is an error that names the known.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mailtui.control.verbs import VERBS, Verb

# Verbs that are not for here: they write files where the command is called, or have a key and a list of their own.
ELSEWHERE = frozenset({"queue.export", "queue.undo", "backup"})

TYPED: Mapping[str, Verb] = {name: verb for name, verb in VERBS.items() if name not in ELSEWHERE}

# Verbs that act on what is chosen when no QUERY is given.
CHOOSING = frozenset(name for name, verb in TYPED.items() if verb.query)

# Options that every verb takes: flag -> (name, takes a value).
COMMON = {"--reason": ("reason", True), "--expect": ("expect", True), "--yes": ("yes", False)}

# Commands that show: name -> what is said of them.
SHOWN: Mapping[str, str] = {
    "why": "why ID: why a message is still here",
    "show": "show ID: a message",
    "trace": "trace ID: the hops of a message",
    "list": "list [QUERY]: the queue, filtered",
    "overview": "the overview",
    "help": "the keys",
    "operations": "operations of everybody",
    "undo": "undo your last operation",
    "start": "start the relay again that was stopped",
    "quit": "leave the console",
}
_ALIASES = {"q": "quit", "queue list": "list", "queue show": "show", "queue why": "why", "queue": "list"}


class CommandError(ValueError):
    """What was typed cannot be understood; one line for a person."""


@dataclass(frozen=True, slots=True)
class Act:
    """A verb to run; `query` is None where none was given."""

    verb: str
    query: str | None
    args: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Show:
    """A place to go."""

    what: str
    target: str


def described() -> list[tuple[str, str]]:
    """(name, what it does) of all commands."""
    found = [(" ".join(verb.words), verb.help) for verb in TYPED.values()]
    return found + [(name, text.partition(": ")[2] or text) for name, text in SHOWN.items()]


def names() -> list[str]:
    """Everything that a line may begin with, for completion."""
    short = [verb.words[-1] for verb in TYPED.values() if verb.words[0] == "queue"]
    return sorted({*(" ".join(verb.words) for verb in TYPED.values()), *short, *SHOWN})


def complete(text: str) -> list[str]:
    """The commands that begin with `text`."""
    return [name for name in names() if name.startswith(text.lstrip().lower())]


def parse(text: str) -> Act | Show | None:
    """What a line asks for; None for an empty one. CommandError."""
    line = text.strip().removeprefix(":").removeprefix("mailtui ").strip()
    try:
        parts = shlex.split(line)
    except ValueError:
        raise CommandError("a quotation mark is missing its other half") from None
    if not parts:
        return None
    verb, rest = _verb(parts)
    if verb is not None:
        return _act(verb, rest)
    for length in (2, 1):
        name = " ".join(parts[:length]).lower()
        what = _ALIASES.get(name, name)
        if what in SHOWN:
            return _show(what, parts[length:])
    known = ", ".join(sorted({verb.words[0] for verb in TYPED.values()} | set(SHOWN)))
    raise CommandError(f"{parts[0]}: no such command; there are {known}")


def _verb(parts: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a line begins with, and the rest; `queue` may be left out."""
    lowered = tuple(part.lower() for part in parts)
    for verb in TYPED.values():
        for typed in {verb.words, verb.words[1:] if verb.words[0] == "queue" else verb.words}:
            if lowered[: len(typed)] == typed:
                return verb, parts[len(typed) :]
    return None, parts


def _act(verb: Verb, rest: list[str]) -> Act:
    called = " ".join(verb.words)
    options = COMMON | {arg.option: (arg.name, arg.kind != "flag") for arg in verb.args if not arg.operand}
    args: dict[str, Any] = {}
    operands: list[str] = []
    words = iter(rest)
    for word in words:
        flag, joined, value = word.partition("=")
        if verb.name == "route.set" and f"--{flag}" in options and joined:
            args[flag] = value  # `tls=encrypt`, as the contract has it
            continue
        if not flag.startswith("--"):
            operands.append(word)
            continue
        if flag not in options:
            raise CommandError(f"{flag}: {called} has no such option; it has {', '.join(options)}")
        name, takes = options[flag]
        if not takes:
            args[name] = True
            continue
        given = value if joined else next(words, None)
        if given is None:
            raise CommandError(f"{flag} needs a value")
        args[name] = given
    # The dialog asks what --yes answers, and the frozen set is what --expect makes sure of.
    reason = str(args.pop("reason", ""))
    args.pop("yes", None)
    args.pop("expect", None)
    if verb.query:
        return Act(verb.name, _joined(operands) or None, args, reason)
    places = [arg for arg in verb.args if arg.operand]
    if len(operands) > len(places):
        takes_what = " ".join(arg.metavar for arg in places) or "no words"
        raise CommandError(f"{operands[len(places)]}: {called} takes {takes_what}; for example {verb.example}")
    args.update(zip([arg.name for arg in places], operands, strict=False))
    if missing := next((arg for arg in places if arg.required and arg.name not in args), None):
        raise CommandError(f"{called} needs {missing.metavar}; for example {verb.example}")
    return Act(verb.name, None, args, reason)


def _joined(operands: Iterable[str]) -> str:
    """A QUERY as the relay reads it: a value that has blanks in quotes again."""
    said = []
    for word in operands:
        head, colon, value = word.partition(":")
        said.append(f'{head}:"{value}"' if colon and " " in value and not value.startswith('"') else word)
    return " ".join(said)


def _show(what: str, rest: list[str]) -> Show:
    if what in ("why", "show", "trace") and len(rest) != 1:
        raise CommandError(f"{what} needs one id")
    return Show(what, _joined(rest))

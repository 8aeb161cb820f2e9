"""An action in words: the verb of a name, the values of its arguments, and the command line that repeats it.

Promises: `arguments` refuses what a verb does not know with a sentence that names what it does; `command_line` gives
the shell words that repeat an action, and never a secret. No I/O, and nothing heavy to import.
"""

import shlex
from collections.abc import Mapping
from typing import Any

from mailtui.control.errors import WRONG, VerbError
from mailtui.control.verbs import VERBS, Arg, Verb


def verb_named(name: str) -> Verb:
    """The verb, or a VerbError that names what is known."""
    verb = VERBS.get(name)
    if verb is None:
        raise VerbError(f"there is no verb {name[:80]}; known: {', '.join(VERBS)}", WRONG)
    return verb


def arguments(verb: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as values: durations in seconds (float), numbers (int), rates as (count, seconds), flags (bool).

    What is empty counts as not given, but for `to` of reroute. VerbError for what is unknown, missing or bad."""
    known = {arg.name: arg for arg in verb.args}
    command = " ".join(verb.words)
    for name in given:
        if name not in known:
            has = ", ".join(known) or "none"
            raise VerbError(f"{command} has no argument {str(name)[:80]}; it has {has}", WRONG)
    values: dict[str, Any] = {}
    for name, arg in known.items():
        value = given.get(name)
        empty = value is None or (value == "" and name != "to") or value is False
        if not empty:
            values[name] = _value(command, arg, value)
        elif arg.required:
            said = arg.metavar if arg.operand else f"{arg.option} {arg.metavar}".strip()
            raise VerbError(f"{command} needs {said}; for example {verb.example}", WRONG)
    return values


def _value(command: str, arg: Arg, given: Any) -> Any:
    from mailtui.values import parse_duration, parse_rate

    text = given if isinstance(given, str) else str(given)
    if arg.kind == "flag":
        return text.lower() in ("1", "true", "yes")
    if arg.kind == "choice":
        if text not in arg.choices:
            raise VerbError(f'{command}: "{text[:80]}" is none of {", ".join(arg.choices)}', WRONG)
        return text
    if arg.kind == "number":
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise VerbError(f'{command}: {arg.option} "{text[:80]}" is no whole number above 0', WRONG)
        return int(text)
    try:
        if arg.kind == "duration":
            seconds = float(given) if isinstance(given, int | float) else parse_duration(text)
            if seconds <= 0:
                raise ValueError(f'"{text}" is no time at all, expected one such as "2h"')
            return seconds
        if arg.kind == "rate":
            rate = parse_rate(text)
            assert rate is not None  # "" does not come here
            return rate.amount, rate.seconds
    except ValueError as error:
        raise VerbError(f"{command}: {arg.option} {error}", WRONG) from None
    return text


def command_line(
    verb: Verb,
    query: str | None = None,
    args: Mapping[str, Any] | None = None,
    reason: str = "",
    expect: int | None = None,
) -> str:
    """The command that repeats an action: `args` as given, not as values. QUERY stands as one word, in quotes."""
    given = {name: value for name, value in (args or {}).items() if value is not None and value is not False}
    words = ["mailtui", *verb.words]
    if query and verb.query:
        words.append(query)
    words += [str(given[arg.name]) for arg in verb.args if arg.operand and given.get(arg.name)]
    for arg in verb.args:
        if arg.operand or arg.name not in given or arg.kind == "secret":
            continue
        if arg.kind == "flag":
            words.append(arg.option)
        elif verb.name == "route.set":
            words.append(f"{arg.name}={given[arg.name]}")
        else:
            words += [arg.option, str(given[arg.name])]
    if verb.query or (verb.name == "flush" and not given.get("destination")):
        words.append("--yes")
        if expect is not None:
            words += ["--expect", str(expect)]
    if reason:
        words += ["--reason", reason]
    return shlex.join(words)

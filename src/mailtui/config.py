"""Reading mailtui.toml: text -> typed settings, or every error at once, each one line with file, line and key.

Promises: `load` follows the contract's search order; what this version does not carry out yet is refused, never
ignored, since a forgotten safeguard looks like one that holds; `effective` says where each value comes from.
"""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mailtui import paths, toml_lines
from mailtui.config_checks import Key, Problem, dotted, problems_of, problems_of_files
from mailtui.settings import ListenerSettings, RouteSettings, Settings, Table
from mailtui.values import Rate, format_duration, format_size, parse_duration, parse_size

__all__ = [
    "ConfigError",
    "Entry",
    "ListenerSettings",
    "QuickOptions",
    "Rate",
    "RouteSettings",
    "Settings",
    "check_files",
    "effective",
    "format_duration",
    "format_size",
    "load",
    "parse",
    "parse_duration",
    "parse_size",
]

_COMMAND_LINE = "command line"


class ConfigError(Exception):
    """The configuration cannot be used. Each of `errors` is `FILE: line N: key: what is wrong, what was expected`."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class QuickOptions:
    """The quick options of `serve` and `mailtui`; they override the file."""

    listen: tuple[str, ...] = ()
    smarthost: str = ""
    hostname: str = ""


class Entry(NamedTuple):
    """One value of the effective configuration; `origin` is `default`, `FILE:LINE` or `command line`."""

    key: str
    value: Any
    origin: str


def load(path: str | Path | None = None, quick: QuickOptions | None = None, state: Path | None = None) -> Settings:
    """The settings from `path`, or from the first file of the search order, or the defaults; then the quick options.

    ConfigError if a named file cannot be read or anything in it is wrong.
    """
    file = paths.config_file(state if state is not None else paths.state_dir(), str(path) if path else None)
    if file is None:
        return parse("", "", quick)
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read: {error.strerror}; name another file with --config"]) from None
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError([f"{file}: line {line}: is not UTF-8, expected a TOML file in UTF-8"]) from None
    return parse(text, str(file), quick)


def parse(text: str, source: str = "mailtui.toml", quick: QuickOptions | None = None) -> Settings:
    """The settings of a TOML text. `source` names it in errors and in `effective`. ConfigError has all errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_error(str(error), text, source)]) from None
    where = toml_lines.lines(text)
    origins = {key: f"{source}:{line}" for key, line in where.items()}
    _apply(quick or QuickOptions(), raw, origins)
    settings, problems, kept = _validate(raw)
    if settings is not None:
        wrong = {problem.key for problem in problems}
        for problem in (*problems_of(settings), *_check_routes(settings)):
            if problem.key not in wrong or problem.key == "access.networks":
                problems.append(problem._replace(at=_as_written(problem.at, kept)))
    if problems or settings is None:
        problems.sort(key=lambda problem: _line(problem.at, where))
        raise ConfigError(list(dict.fromkeys(_render(problem, source, where, origins) for problem in problems)))
    settings._origins = origins
    settings._source = source
    return settings


def effective(settings: Settings) -> list[Entry]:
    """Every value with its key (`delivery.port`, `listener.mx.address`), as the file would have it, and its origin."""
    entries: list[Entry] = []

    def walk(table: dict[str, Any], at: Key, shown: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                walk(value, (*at, key), f"{shown}{key}.")
            elif value and isinstance(value, list) and isinstance(value[0], dict):
                for index, row in enumerate(value):
                    walk(row, (*at, key, index), f"{shown}{key}.{row.get('name') or index + 1}.")
            else:
                entries.append(Entry(shown + key, value, settings._origins.get((*at, key), "default")))

    walk(settings.model_dump(by_alias=True), (), "")
    return entries


def check_files(settings: Settings) -> list[str]:
    """What the configuration names but cannot be used, one line each; asked at start and by `config check`."""
    problems = []
    for key, file, reason in problems_of_files(settings):
        at = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        origin = settings._origins.get(at, "")
        source, _, line = origin.rpartition(":")
        head = f"{source}: line {line}: " if source else ""
        problems.append(f"{head}{dotted(at)}: {file} {reason}")
    return problems


def _apply(quick: QuickOptions, raw: dict[str, Any], origins: dict[Key, str]) -> None:
    """Put the quick options over the file's values."""

    def drop(prefix: Key) -> None:
        for key in [key for key in origins if key[: len(prefix)] == prefix]:
            del origins[key]

    if quick.listen:
        drop(("listener",))
        raw["listener"] = []
        for index, address in enumerate(quick.listen):
            raw["listener"].append({"name": f"default-{index + 1}" if index else "default", "address": address})
            origins["listener", index] = origins["listener", index, "address"] = _COMMAND_LINE
    if quick.hostname:
        raw["hostname"] = quick.hostname
        origins["hostname",] = _COMMAND_LINE
    if quick.smarthost:
        drop(("delivery", "smarthost"))
        origins["delivery", "smarthost"] = _COMMAND_LINE
        delivery = raw.setdefault("delivery", {})
        if isinstance(delivery, dict):  # else it is an error of the file
            delivery["smarthost"] = quick.smarthost


def _validate(raw: dict[str, Any]) -> tuple[Settings | None, list[Problem], dict[Key, list[int]]]:
    """The settings and what is wrong.

    What is wrong is left out and the rest read again, so that the checks across tables still see the rest; None if
    that cannot be read either. The last value says which rows of each list were kept.
    """
    kept: dict[Key, list[int]] = {}
    try:
        return Settings.model_validate(_without(raw, (), set(), kept)), [], kept
    except ValidationError as error:
        found = error.errors(include_url=False)
    problems = []
    out: set[Key] = set()
    for item in found:
        at = item["loc"]
        missing = item["type"] == "missing"
        problems.append(Problem(at, dotted(at), f"is missing{_example(at)}" if missing else _says(item, at)))
        # A row goes as a whole when it cannot do without the value.
        out.add(at[:-1] if missing or at[-1] in ("address", "match", "target") else at)
    try:
        return Settings.model_validate(_without(raw, (), out, kept)), problems, kept
    except ValidationError:
        return None, problems, kept


def _check_routes(settings: Settings) -> Iterator[Problem]:
    """One row a match, and only targets that this version can deliver to."""
    if not settings.route and not settings.delivery.smarthost:
        return
    from mailtui.routing.routes import parse_match, parse_target, unsupported

    matches = set()
    for index, route in enumerate(settings.route):
        match = parse_match(route.match)
        if match in matches:
            at: Key = ("route", index, "match")
            yield Problem(at, dotted(at), f'"{route.match}" is given twice, expected one [[route]] a match')
        matches.add(match)
        reason = unsupported(parse_target(route.target), auth=route.auth, source=route.source, tls=route.tls)
        if reason:
            at = ("route", index, "target")
            yield Problem(at, dotted(at), f'"{route.target}": {reason}')
    if settings.delivery.smarthost:
        reason = unsupported(parse_target(settings.delivery.smarthost), auth=settings.delivery.smarthost_auth)
        if reason:
            at = ("delivery", "smarthost")
            yield Problem(at, dotted(at), f'"{settings.delivery.smarthost}": {reason}')


def _without(value: Any, at: Key, out: set[Key], kept: dict[Key, list[int]]) -> Any:
    """A copy of the raw value without what stands at `out`; `kept` is told which elements of each list stay."""
    if isinstance(value, dict):
        return {key: _without(item, (*at, key), out, kept) for key, item in value.items() if (*at, key) not in out}
    if isinstance(value, list):
        kept[at] = [index for index in range(len(value)) if (*at, index) not in out]
        return [_without(value[index], (*at, index), out, kept) for index in kept[at]]
    return value


def _as_written(at: Key, kept: dict[Key, list[int]]) -> Key:
    """A place in the settings as a place in the file."""
    written: Key = ()
    for part in at:
        written = (*written, kept[written][part] if isinstance(part, int) and written in kept else part)
    return written


_TYPES = ((bool, "true or false"), (str, "a text"), (int, "a number"), (float, "a number"), (list, "a list"))
_EXPECTED_TYPES = {
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list in [ ]",
    "model_type": "a table",
    "dict_type": "a table",
}


def _says(item: Any, at: Key) -> str:
    """One pydantic error in our words."""
    kind, value, context = item["type"], item["input"], item.get("ctx", {})
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        known = _known(at)
        close = difflib.get_close_matches(str(at[-1]), known, 1)
        return f"is unknown, expected {close[0] + '?' if close else ' | '.join(known)}"
    if kind in ("literal_error", "enum"):
        choice = context["expected"].replace(" or ", " | ").replace(", ", " | ").replace("'", "")
        return f"{shown} is not possible, expected {choice}"
    if kind in _EXPECTED_TYPES:
        given = next((name for type_, name in _TYPES if isinstance(value, type_)), "a table")
        if len(at) == 1 and at[0] in ("listener", "route"):
            return f"is {given}, expected [[{at[0]}]]"
        return f"{shown} is {given}, expected {_EXPECTED_TYPES[kind]}"
    if kind == "greater_than_equal":
        return f"{shown} is too small, expected at least {context['ge']}"
    if kind == "less_than_equal":
        return f"{shown} is too large, expected at most {context['le']}"
    if kind == "too_short":
        return "is empty, expected at least one value"
    return f"{shown}: {item['msg']}"


def _known(at: Key) -> list[str]:
    """The keys of the table that holds `at`."""
    table: type[Table] = Settings
    for part in at[:-1]:
        if isinstance(part, str):
            field = table.model_fields[part]
            inner = getattr(field.annotation, "__args__", (field.annotation,))[0]
            if not (isinstance(inner, type) and issubclass(inner, Table)):
                break
            table = inner
    return [field.alias or name for name, field in table.model_fields.items()]


def _example(at: Key) -> str:
    examples = {
        "address": 'address = "192.0.2.1:25"',
        "match": 'match = "example.com"',
        "target": 'target = "smtp://[host]:25"',
    }
    return f", expected {examples[str(at[-1])]}" if at[-1] in examples else ""


def _line(at: Key, where: dict[Key, int]) -> int:
    """The line of a key, else of the nearest table that holds it; 0 if it stands nowhere."""
    while at:
        if at in where:
            return where[at]
        at = at[:-1]
    return 0


def _render(problem: Problem, source: str, where: dict[Key, int], origins: dict[Key, str]) -> str:
    at = problem.at
    while at and at not in origins:
        at = at[:-1]
    if at and origins[at] == _COMMAND_LINE:
        return f"{_COMMAND_LINE}: {problem.key}: {problem.text}"
    line = _line(problem.at, where)
    head = f"{source}: line {line}: " if line else f"{source}: " if source else ""
    return f"{head}{problem.key}: {problem.text}"


def _syntax_error(message: str, text: str, source: str) -> str:
    """tomllib's sentence with its place put where ours stands."""
    what, _, place = message.rpartition(" (at ")
    if place.startswith("line "):
        line, _, column = place.removesuffix(")").partition(", ")
        return f"{source}: {line}: {what[:1].lower()}{what[1:]} ({column}), expected TOML"
    if place:
        return f"{source}: line {text.count(chr(10)) + 1}: {what[:1].lower()}{what[1:]} (end of file), expected TOML"
    return f"{source}: {message}, expected TOML"

"""Reading mailtui.toml: text -> typed settings, or every error at once, each one line with file, line and key.

Promises: `load` follows the contract's search order; what this version does not carry out yet is refused, never
ignored, since a forgotten safeguard looks like one that holds; `effective` says where each value comes from.
"""

import difflib
import ipaddress
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mailtui import paths, toml_lines
from mailtui.settings import (
    ListenerSettings,
    Network,
    Rate,
    RouteSettings,
    Settings,
    Table,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

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

Key = tuple[str | int, ...]

_COMMAND_LINE = "command line"
# Covers all of what is routed on the Internet: a permission for these is a permission for everybody.
_EVERYBODY = [ipaddress.ip_network(net) for net in ("0.0.0.0/0", "2000::/3", "::ffff:0:0/96")]


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


class _Problem(NamedTuple):
    at: Key  # whose line is shown
    key: str
    text: str


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
        for problem in _cross_checks(settings):
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
    """What the configuration names but cannot be read, one line each; asked at start and by `config check`."""
    named = []
    if settings.access.recipients not in ("", "any", "callout"):
        named.append(("access.recipients", settings.access.recipients))
    problems = []
    for key, file in named:
        try:
            with open(file, "rb"):
                pass
        except OSError as error:
            origin = settings._origins.get(tuple(key.split(".")), "")
            source, _, line = origin.rpartition(":")
            head = f"{source}: line {line}: " if source else ""
            problems.append(f"{head}{key}: {file} cannot be read: {error.strerror}, expected a file of recipients")
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


def _validate(raw: dict[str, Any]) -> tuple[Settings | None, list[_Problem], dict[Key, list[int]]]:
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
        problems.append(_Problem(at, _name(at), f"is missing{_example(at)}" if missing else _says(item, at)))
        # A row goes as a whole when it cannot do without the value.
        out.add(at[:-1] if missing or at[-1] in ("address", "match", "target") else at)
    try:
        return Settings.model_validate(_without(raw, (), out, kept)), problems, kept
    except ValidationError:
        return None, problems, kept


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


def _name(at: Key) -> str:
    return ".".join(part for part in at if isinstance(part, str))


def _line(at: Key, where: dict[Key, int]) -> int:
    """The line of a key, else of the nearest table that holds it; 0 if it stands nowhere."""
    while at:
        if at in where:
            return where[at]
        at = at[:-1]
    return 0


def _render(problem: _Problem, source: str, where: dict[Key, int], origins: dict[Key, str]) -> str:
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


def _cross_checks(settings: Settings) -> Iterator[_Problem]:
    """What each value alone does not show."""
    access = settings.access
    names: set[str] = set()
    for index, listener in enumerate(settings.listener):
        if listener.name in names:
            yield _Problem(
                ("listener", index, "name"), "listener.name", f'"{listener.name}" is used twice, expected unique names'
            )
        names.add(listener.name)
    for domains in ("local_domains", "relay_domains"):
        if getattr(access, domains) and not access.recipients:
            yield _Problem(
                ("access", domains),
                "access.recipients",
                f'is not set, expected a FILE of recipients or "any" since {domains} is not empty',
            )
            break
    yield from _everybody(settings)
    for index, listener in enumerate(settings.listener):
        if not listener.loopback and not settings.mail.postmaster:
            yield _Problem(
                ("listener", index, "address"),
                "mail.postmaster",
                f"is not set, expected a mail address since listener {listener.name} ({listener.address}) is not on"
                " loopback",
            )
            break
    yield from _check_routes(settings)
    yield from _not_supported(settings)


def _everybody(settings: Settings) -> Iterator[_Problem]:
    """P02: networks that hold the whole Internet make an open relay, in one piece or in several."""
    networks = settings.access.networks
    told = False
    for index, network in enumerate(networks):
        if any(_holds(network, everybody) for everybody in _EVERYBODY):
            told = True
            yield _Problem(
                ("access", "networks", index),
                "access.networks",
                f"{network} IS EVERYBODY: it would make an OPEN RELAY, expected only networks whose hosts may send"
                " mail to anywhere",
            )
    merged: list[Network] = [
        *ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv6Network)),
    ]
    if not told and any(_holds(network, everybody) for network in merged for everybody in _EVERYBODY):
        yield _Problem(
            ("access", "networks"),
            "access.networks",
            "ARE TOGETHER EVERYBODY: they would make an OPEN RELAY, expected only networks whose hosts may send mail"
            " to anywhere",
        )


def _holds(network: Network, inner: Network) -> bool:
    return network.version == inner.version and network.supernet_of(inner)  # type: ignore[arg-type]


def _not_supported(settings: Settings) -> Iterator[_Problem]:
    """What the file may say but this version does not carry out: refused, since it would be a promise not kept."""

    for index, listener in enumerate(settings.listener):
        for key, default in (
            ("role", "relay"),
            ("tls", "none"),
            ("client_ca", ""),
            ("auth", "off"),
            ("auth_without_tls", False),
            ("proxy_from", []),
            ("xclient_from", []),
        ):
            value = getattr(listener, key)
            if value != default:
                shown = f'"{value}"' if isinstance(value, str) else "true" if value is True else ""
                yield _unsupported(("listener", index, key), shown, f"{_toml(default)} or no such line")
        if listener.inherited:
            yield _unsupported(
                ("listener", index, "address"), f'"{listener.address}"', "an address such as 192.0.2.1:25"
            )
    access, delivery, limits = settings.access, settings.delivery, settings.limits
    if access.recipients == "callout":
        yield _unsupported(("access", "recipients"), '"callout"', 'a FILE of recipients or "any"')
    for at, values in (
        (("access", "certificates"), access.certificates),
        (("access", "sender_domains"), access.sender_domains),
    ):
        if values:
            yield _unsupported(at, "", "[] or no such line")
    for at, text in (
        (("delivery", "smarthost_auth"), delivery.smarthost_auth),
        (("delivery", "secrets"), delivery.secrets),
        (("tls", "ca_file"), settings.tls.ca_file),
        (("metrics", "listen"), settings.metrics.listen),
        (("limits", "client_rate"), limits.client_rate),
        (("limits", "user_rate"), limits.user_rate),
    ):
        if text:
            yield _unsupported(at, "", '"" or no such line')
    if settings.tls.default not in ("auto", "may", "none"):
        yield _unsupported(("tls", "default"), f'"{settings.tls.default}"', '"auto" | "may" | "none"')


def _check_routes(settings: Settings) -> Iterator[_Problem]:
    """One row a match, and only targets that this version can deliver to."""
    if not settings.route and not settings.delivery.smarthost:
        return
    from mailtui.routing.routes import parse_match, parse_target, unsupported

    matches = set()
    for index, route in enumerate(settings.route):
        match = parse_match(route.match)
        if match in matches:
            at: Key = ("route", index, "match")
            yield _Problem(at, _name(at), f'"{route.match}" is given twice, expected one [[route]] a match')
        matches.add(match)
        reason = unsupported(parse_target(route.target), auth=route.auth, source=route.source)
        if reason:
            at = ("route", index, "target")
            yield _Problem(at, _name(at), f'"{route.target}": {reason}')
        if route.tls not in ("", "auto", "may", "none"):
            yield _unsupported(("route", index, "tls"), f'"{route.tls}"', '"auto" | "may" | "none"')
    if settings.delivery.smarthost:
        reason = unsupported(parse_target(settings.delivery.smarthost))
        if reason:
            at = ("delivery", "smarthost")
            yield _Problem(at, _name(at), f'"{settings.delivery.smarthost}": {reason}')


def _unsupported(at: Key, value: str, instead: str) -> _Problem:
    shown = f"{value} is" if value else "is"
    return _Problem(at, _name(at), f"{shown} not supported by this version, expected {instead}")


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()

"""Printing: JSON for scripts, aligned tables that fit the terminal for people.

Promises: JSON is ASCII; whatever a person sees went through `clean`; a table is never wider than the terminal, or than
80 columns where there is none.
"""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from mailtui.control.clean import clean

# The width of the terminal that everything must fit (console.md), and what pipes and files get.
COLUMNS = 80


def columns() -> int:
    """The width to fit."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns if sys.stdout.isatty() else COLUMNS


def document(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2))


def json_lines(rows: Iterable[Any]) -> None:
    """JSON Lines: each row as it comes."""
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")


def say(text: str = "") -> None:
    """One line for a person."""
    click.echo(clean(text))


def wrapped(text: str, indent: str, hanging: str | None = None) -> None:
    """A long text for a person, on as many lines as it takes; those after the first hang (twice the indent)."""
    rest, lead, limit = clean(text), indent, columns()
    hanging = indent * 2 if hanging is None else hanging
    while cell_width(rest) > limit - len(lead):
        head = _fitting(rest, limit - len(lead))
        at = head.rfind(" ")
        head = head[:at] if at > 0 else head
        click.echo(lead + head)
        rest, lead = rest[len(head) :].lstrip(" "), hanging
    click.echo(lead + rest)


def fields(pairs: Sequence[tuple[str, Any]]) -> None:
    """Name and value a line, values aligned; what has no value is left out."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        if value is not None and value != "":
            say(f"{name:<{width}}  {value}")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `flex`: gives way, in proportion, when the table is too wide."""

    title: str
    right: bool = False
    flex: bool = False


# A flexible column never gets narrower than this, in cells.
_LEAST = 8


def table(heads: Sequence[Column], rows: Sequence[Sequence[Any]], limit: int | None = None) -> None:
    """Print rows under their heads. `limit` is the width in cells; None: the terminal's."""
    limit = columns() if limit is None else limit
    cells = [[clean("" if value is None else str(value)) for value in row] for row in rows]
    widths = [max([cell_width(head.title), *(cell_width(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    gaps = len(heads) - 1
    over = sum(widths) + gaps - limit
    flexible = [i for i, head in enumerate(heads) if head.flex]
    while over > 0:
        # The widest gives way first, so that short values stay whole.
        widest = max(flexible, key=lambda i: widths[i], default=None)
        if widest is None or widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
        over -= 1
    for row in [[head.title for head in heads], *cells]:
        line = " ".join(
            _pad(cut(cell, width), width, head.right) for cell, width, head in zip(row, widths, heads, strict=True)
        )
        click.echo(line.rstrip())


def listing(
    rows: Sequence[dict[str, Any]],
    as_json: bool,
    none: str,
    heads: Sequence[Column],
    cells: Callable[[dict[str, Any]], Sequence[Any]],
) -> None:
    """Print rows as JSON Lines, or as a table whose cells `cells` makes of a row; `none` is said if there is no row."""
    if as_json:
        json_lines(rows)
    elif rows:
        table(heads, [cells(row) for row in rows])
    else:
        say(none)


def cell_width(text: str) -> int:
    """How many cells of a terminal a cleaned text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """`text` in at most `width` cells; what is cut is marked."""
    if cell_width(text) <= width:
        return text
    return _fitting(text, width - 1) + "…" if width > 0 else ""


def _fitting(text: str, width: int) -> str:
    """As much of the start of `text` as fits into `width` cells, one character at least."""
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > width:
            return text[: max(index, 1)]
    return text


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_width(text))
    return space + text if right else text + space


def moment(text: str | None) -> float | None:
    """An RFC 3339 time of the JSON as seconds since the epoch."""
    return None if not text else datetime.fromisoformat(text).timestamp()


def local(text: str | None) -> str:
    """A time of the JSON in the reader's own time zone, to the second."""
    return "" if not text else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """A coarse length of time in at most six cells: 6s, 41m, 3h05m, 4d02h."""
    if seconds is None:
        return "-"
    if seconds < 0:
        return "now"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h" if whole < 100 * 86400 else f"{whole // 86400}d"


def size(octets: float) -> str:
    """Octets in at most five cells: 812, 8.8K, 69K, 1.2M."""
    value = float(octets)
    for unit in ("", "K", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}{unit}" if value >= 10 or not unit else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def reply(row: dict[str, Any], prefix: str = "last_") -> str:
    """A reply on one line: code, enhanced code, text."""
    parts = (row.get(f"{prefix}code"), row.get(f"{prefix}enhanced"), row.get(f"{prefix}reply"))
    return " ".join(str(part) for part in parts if part)

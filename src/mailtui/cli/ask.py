"""How a command asks: the right source for its options, closed when it is done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from mailtui.cli.frame import Place
from mailtui.control.reads import DEFAULT_LIMIT, Reads
from mailtui.control.source import find


@contextmanager
def source(place: Place) -> Iterator[Reads]:
    """The running relay, or the state directory of a stopped one."""
    found = find(place.state, place.socket, place.config)
    try:
        yield found
    finally:
        found.close()


def limit_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--limit N`."""
    return click.option(
        "--limit",
        type=click.IntRange(min=0),
        default=DEFAULT_LIMIT,
        show_default=True,
        metavar="N",
        help="At most N rows; 0 for all.",
    )(function)


def after_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--after CURSOR`."""
    return click.option("--after", default="", metavar="CURSOR", help="Go on after the row with this cursor.")(function)

"""The signs of the console, and a twin in ASCII of each, for terminals and locales that have no others."""

import codecs
import locale
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs. Each takes one cell."""

    dot: str  # the relay is up
    off: str  # the relay is lost
    mark: str  # a marked row
    cursor: str  # the row under the cursor
    up: str  # sorted upwards
    down: str
    rule: str  # a horizontal line
    bar: str  # between parts of a line
    block: str  # a full bar
    ellipsis: str
    arrow: str
    yes: str
    no: str
    warn: str
    enter: str
    spark: str  # eight heights, lowest first


UNICODE = Glyphs("●", "○", "◆", "▌", "▲", "▼", "─", "│", "█", "…", "→", "✓", "✗", "!", "⏎", "▁▂▃▄▅▆▇█")
ASCII = Glyphs("*", "o", "#", ">", "^", "v", "-", "|", "#", "~", ">", "+", "x", "!", "Enter", "_.,-=*oO")


def choose(ascii_only: bool) -> Glyphs:
    """ASCII if asked for, or if the locale cannot write the others."""
    if ascii_only:
        return ASCII
    try:
        utf8 = codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8"
    except LookupError:
        utf8 = False
    return UNICODE if utf8 else ASCII


def sparkline(values: Sequence[float], width: int, glyphs: Glyphs) -> str:
    """The last `width` values as heights, the highest as the full one; shorter when there are fewer values."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    steps = glyphs.spark
    if top <= 0:
        return steps[0] * len(shown)
    return "".join(steps[min(len(steps) - 1, int(value / top * (len(steps) - 1) + 0.5))] for value in shown)

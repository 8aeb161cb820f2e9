"""The line above the queue's table, and what stands below an empty one."""

from dataclasses import dataclass

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Line
from mailtui.console.present.text import shorten

# How many rows of the history are counted for "3 in history".
PAST = 100


@dataclass(frozen=True, slots=True)
class About:
    """What there is to say of a list. `count` is None before it is taken, `total` before the first status."""

    query: str
    by: str  # how it is sorted
    count: int | None
    total: int | None  # recipients in the queue now
    marked: int
    following: bool
    past: int  # rows of the history that match, when nothing in the queue does


def title_line(about: About, width: int, glyphs: Glyphs) -> Line:
    """`QUEUE  by NEXT▲   312 of 1,000,000   from:spammer@x age>1h          marked 3 ◆`."""
    count = "taking the list" if about.count is None else words.count(about.count)
    said = about.total is not None and (about.query or about.count is None)
    of = f" of {words.count(about.total)}" if said else ""
    line: Line = [(" QUEUE ", "title"), (f" {about.by}   ", ""), (count + of, "strong")]
    if about.query:
        line += [("   ", ""), (about.query, "key")]
    right: Line = []
    if about.marked:
        right = [(f"marked {words.count(about.marked)} {glyphs.mark} ", "mark")]
    elif about.following and about.count is not None:
        right = [("follow ", "dim")]
    elif about.total is not None and about.count is not None and not about.query and about.total != about.count:
        right = [(f"{about.total - about.count:+,} since: Ctrl+R ", "dim")]
    room = width - sum(words.cells(text) for text, _ in right) - 1
    left = shorten(line, room, glyphs.ellipsis)
    return [*left, (" " * (1 + room - sum(words.cells(text) for text, _ in left)), ""), *right]


def empty_line(about: About) -> Line:
    """Why the table is empty, and what the history has."""
    if not about.query:
        return [(" The queue is empty.", "")]
    if about.past:
        more = "+" if about.past >= PAST else ""
        return [(f" Nothing in the queue matches. {about.past}{more} in history, Enter shows them; Esc clears", "")]
    return [(" Nothing in the queue matches; Esc clears the filter.", "")]

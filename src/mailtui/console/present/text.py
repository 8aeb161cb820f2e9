"""Fitting names and sentences into cells: addresses keep their domain, sentences keep their words."""

from rich.cells import chop_cells

from mailtui.console import words
from mailtui.console.present import Line


def elide(address: str, width: int, ellipsis: str = "…") -> str:
    """An address in at most `width` cells: the local part gives way first, the end of the domain last.

    The domain tells the operator where it goes wrong, and the end of it whose it is.
    """
    address = clamp(address, width)
    if words.cells(address) <= width:
        return address
    local, at, domain = address.rpartition("@")
    room = width - words.cells(at + domain)
    if at and room > words.cells(ellipsis):
        return words.cut(local, room, ellipsis) + at + domain
    return ellipsis + tail(domain, width - words.cells(ellipsis))


def clamp(text: str, width: int) -> str:
    """At most about what `width` cells need of a very long text, both ends kept, so that measuring it costs nothing."""
    # A character takes a cell or two, and up to four marks without width may follow it.
    most = width * 5 + 8
    return text if len(text) <= 2 * most else text[:most] + text[-most:]


def tail(text: str, width: int) -> str:
    """The end of `text` in at most `width` cells."""
    if width <= 0:
        return ""
    if text.isascii():
        return text[-width:]
    start, used = len(text), 0
    while start and used + words.cells(text[start - 1]) <= width:
        start -= 1
        used += words.cells(text[start])
    return text[start:]


def paragraph(text: str, width: int, role: str = "", *, indent: int = 0, first: Line | None = None) -> list[Line]:
    """`text` wrapped to `width` cells. `first` stands before it; later lines are indented to where it began."""
    lead: Line = list(first or ([(" " * indent, "")] if indent else []))
    hang = sum(words.cells(piece) for piece, _ in lead)
    lines: list[Line] = []
    for piece in words.wrap(text, max(8, width - hang)):
        lines.append([*(lead if not lines else [(" " * hang, "")] if hang else []), (piece, role)])
    return lines or ([lead] if lead else [])


def title(text: str, width: int, rule: str, right: str = "") -> Line:
    """A heading with a rule to the edge."""
    end = f" {right}" if right else ""
    space = width - words.cells(text) - words.cells(end) - 1
    return [(text, "title"), (f" {rule * max(0, space)}", "dim"), (end, "dim")]


def plain(line: Line) -> str:
    """What stands on a line."""
    return "".join(piece for piece, _ in line)


def shorten(line: Line, width: int, ellipsis: str = "…") -> Line:
    """A line in at most `width` cells."""
    short: Line = []
    left = width
    for piece, role in line:
        cell = words.cut(clamp(piece, left), left, ellipsis)
        short.append((cell, role))
        left -= words.cells(cell)
        if cell != piece or left <= 0:
            break
    return short


def fold(text: str, width: int) -> list[str]:
    """A line as it is, blanks included, broken wherever the edge falls; at least one piece."""
    width = max(8, width)
    if text.isascii():
        return [text[at : at + width] for at in range(0, len(text), width)] or [""]
    return chop_cells(text, width) or [""]

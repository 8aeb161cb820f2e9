"""Numbers, times and texts as the console writes them: short, coarse, and measured in cells of the terminal.

Ages are coarse on purpose: a table whose rows all count seconds sends a hundred times the bytes of one that does not.
Texts given here are cleaned already (`link`); nothing here lets a line break or a control character in.
"""

from collections.abc import Iterator
from datetime import datetime

from rich.cells import cell_len, chop_cells, set_cell_size


def age(seconds: float | None) -> str:
    """A length of time in at most six cells: 6s, 41m, 3h05m, 4d02h; seconds below two minutes only."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h" if whole < 100 * 86400 else f"{whole // 86400}d"


def size(octets: float | None) -> str:
    """Octets in at most five cells: 812, 8.8K, 69K, 1.2M."""
    if octets is None:
        return "-"
    value = float(octets)
    for unit in ("", "K", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}{unit}" if value >= 10 or not unit else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError("the last unit takes everything")


def count(number: int | None) -> str:
    """1,000,000."""
    return "-" if number is None else f"{number:,}"


def amount(number: int, one: str, many: str = "") -> str:
    """`1 message`, `1,204 messages`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def moment(text: object) -> float | None:
    """An RFC 3339 time of the JSON in seconds since the epoch; None for null or nonsense."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def since(text: object, now: float) -> str:
    """How long ago (or, of a time to come, how long until) an RFC 3339 time is."""
    at = moment(text)
    return "-" if at is None else age(abs(now - at))


def clock(text: object, now: float | None = None, *, seconds: bool = True) -> str:
    """A time of the JSON on the reader's wall clock; with the date when it is older than today."""
    at = moment(text)
    if at is None:
        return "-"
    local = datetime.fromtimestamp(at).astimezone()
    shape = "%H:%M:%S" if seconds else "%H:%M"
    today = datetime.now().astimezone() if now is None else datetime.fromtimestamp(now).astimezone()
    return local.strftime(shape if local.date() == today.date() else f"%Y-%m-%d {shape}")


def cells(text: str) -> int:
    """How many cells of the terminal a text takes."""
    return len(text) if text.isascii() else cell_len(text)


def cut(text: str, width: int, mark: str = "…") -> str:
    """`text` in at most `width` cells; what is cut is marked."""
    if cells(text) <= width:
        return text
    if width <= len(mark):
        return mark[: max(0, width)]
    return set_cell_size(text, width - len(mark)).rstrip() + mark


def fit(text: str, width: int, *, right: bool = False, mark: str = "…") -> str:
    """`text` in exactly `width` cells."""
    short = cut(text, width, mark)
    space = " " * max(0, width - cells(short))
    return space + short if right else short + space


def wrap(text: str, width: int) -> Iterator[str]:
    """`text` on lines of at most `width` cells, broken at blanks where there are any."""
    line = ""
    for word in text.split():
        if line and cells(line) + 1 + cells(word) <= width:
            line += " " + word
            continue
        if line:
            yield line
        *whole, line = chop_cells(word, max(1, width)) or [""]
        yield from whole
    if line:
        yield line

"""Queue ids: 63-bit integers, written as 13 characters of Crockford base32.

Promises: an id is greater than every id issued before it, whatever the clock does; it is never used twice.
The upper 42 bits are milliseconds since the epoch (enough until 2109), the lower 21 a sequence, so that ids sort
by arrival and 2 million may be issued in one millisecond.
"""

import re
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {c: i for i, c in enumerate(_ALPHABET)} | {c.lower(): i for i, c in enumerate(_ALPHABET)}
_VALUES |= {"o": 0, "O": 0, "i": 1, "I": 1, "l": 1, "L": 1}  # Crockford's reading of what people mistype
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_SEQUENCE_BITS = 21
_LENGTH = 13
_FORM = re.compile(r"([0-9A-Za-z]{13})(?:\.([0-9]{1,6}))?")


class IdSource:
    """Issues ids. `last` is the highest id that may have been issued before (from the store)."""

    def __init__(self, last: int = 0) -> None:
        self.last = last

    def next(self, now: float) -> int:
        """A new id for the wall time `now` (seconds); behind a clock that stepped back it goes on counting."""
        candidate = int(now * 1000) << _SEQUENCE_BITS
        self.last = candidate if candidate > self.last else self.last + 1
        return self.last


@lru_cache(maxsize=4096)  # a message under way is named a few times
def encode(number: int) -> str:
    """The 13 characters of an id."""
    return (
        _ALPHABET[number >> 60]
        + _PAIRS[number >> 50 & 1023]
        + _PAIRS[number >> 40 & 1023]
        + _PAIRS[number >> 30 & 1023]
        + _PAIRS[number >> 20 & 1023]
        + _PAIRS[number >> 10 & 1023]
        + _PAIRS[number & 1023]
    )


def decode(text: str) -> int:
    """The number of an id; ValueError if it is none."""
    if len(text) != _LENGTH:
        raise ValueError(f"not a queue id: {text!r}")
    number = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise ValueError(f"not a queue id: {text!r}")
        number = number << 5 | value
    if number >> 63:
        raise ValueError(f"not a queue id: {text!r}")
    return number


def rid(number: int, ordinal: int) -> str:
    """The id of one recipient: ID.N."""
    return f"{encode(number)}.{ordinal}"


def parse(text: str) -> tuple[int, int | None]:
    """(message, ordinal) of a rid, (message, None) of an id; ValueError if it is neither."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"not a queue id: {text!r}")
    return decode(match[1]), int(match[2]) if match[2] is not None else None

"""Dates as they stand in Received lines, in every form that mail systems have written since the eighties.

Promises: never raises, needs no locale, takes time linear in the text. A date that cannot be true gives None rather
than a wrong moment. Years and zones follow RFC 5322 section 4.3 (obsolete forms).
"""

import calendar
import re
from dataclasses import dataclass
from datetime import date

_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6}
_MONTHS |= {"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}

# RFC 5322 section 4.3; every other name of a zone is -0000 there.
_ZONES = {"ut": 0, "utc": 0, "gmt": 0, "z": 0, "edt": -4, "est": -5, "cdt": -5, "cst": -6, "mdt": -6, "mst": -7}
_ZONES |= {"pdt": -7, "pst": -8}

_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\.?,? ?)?"
_TIME = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}))?(?:\.(?P<fraction>[0-9]{1,9}))?"
_HALF = r"(?: ?(?P<half>[ap]m)\b)?"
_ZONE = r"(?: ?(?P<zone>[a-z]{1,5}\b)?(?: ?(?P<sign>[+-]) ?(?P<offset>[0-9]{1,2}:[0-9]{2}|[0-9]{1,9}))?)"
_FORMS = (
    # Mon, 15 Jan 2024 10:35:00 -0500 (RFC 5322); 7-Sep-86 06:22:34 EDT (RFC 850, UUCP)
    re.compile(
        rf"{_WEEKDAY}(?P<day>[0-9]{{1,2}})[ -](?P<month>[a-z]{{3,9}})[ -](?P<year>[0-9]{{2,4}}),? "
        rf"{_TIME}{_HALF}{_ZONE}",
        re.IGNORECASE | re.ASCII,
    ),
    # Mon Jan 15 10:35:00 2024, Mon Jan 15 10:35:00 EST 2024 (ctime, date)
    re.compile(
        rf"{_WEEKDAY}(?P<month>[a-z]{{3,9}}) (?P<day>[0-9]{{1,2}}) {_TIME}{_ZONE} (?P<year>[0-9]{{4}})\b",
        re.IGNORECASE | re.ASCII,
    ),
    # 2024-01-15T10:35:00.123Z (RFC 3339)
    re.compile(
        rf"(?P<year>[0-9]{{4}})-(?P<month>[0-9]{{2}})-(?P<day>[0-9]{{2}})[T ]{_TIME}{_ZONE}",
        re.IGNORECASE | re.ASCII,
    ),
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A date as found: seconds since the epoch (None if it cannot be true), what is odd about it, where it ends."""

    time: float | None
    warning: str
    end: int


def read_date(text: str) -> Stamp | None:
    """The date at the start of `text` (comments removed, blanks single); None if there is none."""
    for form in _FORMS:
        match = form.match(text)
        if match is not None:
            when, warning = _moment(match)
            return Stamp(when, warning, match.end())
    return None


def _moment(match: re.Match[str]) -> tuple[float | None, str]:
    part = match.groupdict()
    month = int(part["month"]) if part["month"].isdigit() else _MONTHS.get(part["month"][:3].lower(), 0)
    year = int(part["year"])
    if len(part["year"]) < 4:
        year += 2000 if len(part["year"]) == 2 and year < 50 else 1900
    hour, minute, second = int(part["hour"]), int(part["minute"]), int(part["second"] or 0)
    half = (part.get("half") or "").lower()
    if half and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half == "pm" else 0)
    # 1970 and 9998: so that the moment is a number of seconds that any zone leaves printable.
    if hour > 23 or minute > 59 or second > 60 or not 1970 <= year <= 9998:
        return None, "its date cannot be true"
    try:
        day = date(year, month, int(part["day"]))
    except ValueError:
        return None, "its date cannot be true"
    seconds = calendar.timegm((day.year, day.month, day.day, hour, minute, second))
    offset, warning = _offset(part)
    fraction = float(f"0.{part['fraction']}") if part["fraction"] else 0.0
    when = seconds - offset + fraction
    if when < 0:
        return None, "its date cannot be true"
    return when, warning


def _offset(part: dict[str, str | None]) -> tuple[int, str]:
    """Seconds east of UTC, and a warning if the zone had to be guessed."""
    digits = part["offset"]
    if digits is not None:
        hours, minutes = _hours_minutes(digits)
        if hours > 23 or minutes > 59:
            return 0, f"its zone {part['sign']}{digits} is none: read as UTC"
        return (hours * 3600 + minutes * 60) * (-1 if part["sign"] == "-" else 1), ""
    name = (part["zone"] or "").lower()
    if name in _ZONES:
        return _ZONES[name] * 3600, ""
    return 0, f"its zone {part['zone']} is not known: read as UTC" if name else "its date has no zone: read as UTC"


def _hours_minutes(digits: str) -> tuple[int, int]:
    """+05:30, +0530, +530, +05, +5, and the +000 that some write for +0000."""
    if ":" in digits:
        hours, minutes = digits.split(":")
    elif len(digits) <= 2:
        hours, minutes = digits, "0"
    else:
        hours, minutes = digits[:-2], digits[-2:]
    return int(hours), int(minutes)

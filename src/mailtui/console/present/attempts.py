"""Attempts of a message as lines: when, to which host, how safely, how long, what was said; and the dialogue."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Document, Line
from mailtui.console.present.rows import reply
from mailtui.console.present.text import clamp, fold, paragraph, shorten

# Lines of one dialogue that are shown: more than any that the relay keeps (400 pieces).
DIALOGUE = 2000


D = TypeVar("D", bound=Document)


def newest_first(attempts: Iterable[D]) -> list[D]:
    """In the order in which an operator reads them."""
    return sorted(attempts, key=lambda one: words.moment(one.get("started")) or 0.0, reverse=True)


def attempt_lines(attempts: Sequence[Document], width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """A heading and one line an attempt, newest first as given."""
    if not attempts:
        return [[("No attempt is on record: it was not tried yet.", "dim")]]
    time = 8 if all(len(words.clock(one.get("started"), now)) <= 8 for one in attempts) else 19
    host = min(max(len("HOST"), *(words.cells(_host(one)) for one in attempts)), max(16, width // 4))
    level = min(max(3, *(len(_level(one, glyphs)) for one in attempts)), 16)
    names = (("N", 2), ("AT", time), ("HOST", host), ("TLS", level), ("TOOK", 6))
    head: Line = [(words.fit(name, cells) + " ", "title") for name, cells in names]
    lines = [[*head, ("REPLY", "title")]]
    room = max(8, width - sum(cells + 1 for _, cells in names))
    for one in attempts:
        mark = glyphs.ellipsis
        said = reply(one) or "no reply"
        lines.append(
            [
                (words.fit(str(one.get("rid", "")).rpartition(".")[2], 2, right=True, mark=mark) + " ", "dim"),
                (words.fit(words.clock(one.get("started"), now), time, mark=mark) + " ", ""),
                (words.fit(clamp(_host(one), host), host, mark=mark) + " ", ""),
                (words.fit(_level(one, glyphs), level, mark=mark) + " ", ""),
                (words.fit(took(one), 6, right=True, mark=mark) + " ", "dim"),
                (words.cut(clamp(said, room), room, mark), reply_role(one)),
            ]
        )
    return [shorten(line, width, glyphs.ellipsis) for line in lines]


def dialogue_lines(attempt: Document, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """One attempt whole: its facts, its reply verbatim, what was said by whom."""
    lines = [
        *facts_lines(attempt, width, now),
        [],
        *paragraph(reply(attempt) or "no reply", width, reply_role(attempt), first=[("REPLY   ", "title")]),
        [],
        [("DIALOGUE", "title"), ("   seconds since its first line, > ours, < theirs", "dim")],
    ]
    text = str(attempt.get("transcript") or "")
    if not text:
        return [*lines, [("None was kept: dialogues are kept of failed attempts, for [history] transcripts.", "dim")]]
    for line in text.split("\n")[:DIALOGUE]:
        sign = line[9:10]
        role = {">": "key", "<": "", "!": "bad"}.get(sign, "dim")
        lines += [[(piece, role)] for piece in fold(line, width)]
    return lines


def facts_lines(attempt: Document, width: int, now: float) -> list[Line]:
    """Where it went, and the TLS wanted and reached."""
    tls = attempt.get("tls") or {}
    delays = attempt.get("delays") or {}
    reached = " ".join(str(part) for part in (tls.get("reached"), tls.get("protocol"), tls.get("cipher")) if part)
    pairs = [
        ("AT", f"{words.clock(attempt.get('started'), now)}, took {took(attempt)}"),
        ("HOST", f"{attempt.get('host') or '-'} [{attempt.get('address') or '-'}]"
                 + (", on a connection that was open" if attempt.get("reused") else "")),
        ("TLS", f"wanted {tls.get('wanted') or '-'}, reached {reached or 'none'}"
                + (f", verified by {tls['verified_by']}" if tls.get("verified_by") else "")),
        ("", str(tls.get("why") or "")),
        ("SPENT", ", ".join(f"{name.replace('_', ' ')} {float(seconds):.1f}s" for name, seconds in delays.items())),
    ]  # fmt: skip
    lines: list[Line] = []
    for name, value in pairs:
        if value:
            lines += paragraph(value, width, first=[(words.fit(name, 8), "title")])
    return lines


def tls_lines(attempts: Sequence[Document], width: int, now: float) -> list[Line]:
    """Of each attempt what was wanted, what was reached, and why."""
    if not attempts:
        return [[("No attempt is on record, so nothing is known of the TLS of its next hop.", "dim")]]
    lines: list[Line] = []
    for one in attempts:
        lines += [*facts_lines(one, width, now), []]
    return lines[:-1]


def took(attempt: Document) -> str:
    """How long it took: 0.8s, 30.0s, 4m."""
    begun, ended = words.moment(attempt.get("started")), words.moment(attempt.get("finished"))
    if begun is None or ended is None:
        return "-"
    seconds = max(0.0, ended - begun)
    return f"{seconds:.1f}s" if seconds < 100 else words.age(seconds)


def reply_role(attempt: Document) -> str:
    code = str(attempt.get("code") or "")
    return {"2": "good", "4": "warn", "5": "bad"}.get(code[:1], "warn")


def _host(attempt: Document) -> str:
    return str(attempt.get("host") or attempt.get("address") or "-")


def _level(attempt: Document, glyphs: Glyphs) -> str:
    """`1.3 ✓ dane`: the protocol, whether the peer was verified, by what."""
    tls = attempt.get("tls") or {}
    if not tls.get("protocol"):
        return str(tls.get("reached") or "-")
    protocol = str(tls["protocol"]).removeprefix("TLSv")
    return f"{protocol} {glyphs.yes} {tls['verified_by']}" if tls.get("verified_by") else f"{protocol} {tls['reached']}"

"""The overview as lines: pure functions from the relay's JSON.

What came from outside is cleaned already (`link`); everything is cut to the width it is given.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailtui.console import words
from mailtui.console.glyphs import Glyphs, sparkline
from mailtui.console.widgets.lines import Spans

Document = Mapping[str, Any]

# From this width on the events stand beside, in a column of their own.
WIDE = 150

# Events of ordinary mail, which would push what an operator looks for out of four lines.
ORDINARY = frozenset({"accepted", "delivered", "deferred", "queued", "connect", "disconnect"})

# (label, rate, role when it is not nought)
FLOWS = (
    ("in", "accepted_1m", ""),
    ("out", "delivered_1m", ""),
    ("4xx", "deferred_1m", "warn"),
    ("5xx", "bounced_1m", "bad"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the board; `target` is what Enter opens: a query, "" for nothing."""

    spans: Spans
    target: str = ""
    destination: str = ""
    next_hop: str = ""
    suspended: bool = False
    urgent: bool = False

    @property
    def name(self) -> tuple[bool, str]:
        """What the cursor stays on: a destination may need you, and be among the top too."""
        return (self.urgent, self.target)


def flow_lines(
    status: Document, course: Sequence[Sequence[int]], now: float, width: int, glyphs: Glyphs
) -> list[Spans]:
    """Rates with their recent course, and the state of the store."""
    rates, queue, disk = status.get("rates") or {}, status.get("queue") or {}, status.get("disk") or {}
    each = 40 if width >= WIDE else 12
    first: list[tuple[str, str]] = []
    for index, (label, name, role) in enumerate(FLOWS):
        value = int(rates.get(name) or 0)
        line = sparkline([step[index] for step in course], each if index < 2 else 0, glyphs)
        first += [(f" {label} ", "dim"), (f"{words.count(value)}/min ", role if value else ""), (f"{line} ", "good")]
    oldest, free, needed = queue.get("oldest"), disk.get("free"), disk.get("needed")
    short = isinstance(free, int) and isinstance(needed, int) and free < needed
    listeners = status.get("listeners") or ()
    second: list[tuple[str, str]] = [
        (" oldest ", "dim"),
        (words.since(oldest, now) if oldest else "-", ""),
        ("   messages ", "dim"),
        (words.count(int(queue.get("messages") or 0)), ""),
        ("   size ", "dim"),
        (words.size(queue.get("bytes") or 0) + "B", ""),
        ("   disk ", "dim"),
        (f"{words.size(free)}B free" if isinstance(free, int) else "-", "bad" if short else ""),
        ("   listens ", "dim"),
        (", ".join(str(one.get("address", "")) for one in listeners) or "nowhere", "" if listeners else "warn"),
    ]
    return [_cut(first, width), _cut(second, width)]


def needs(status: Document, destinations: Sequence[Document], now: float, width: int, glyphs: Glyphs) -> list[Row]:
    """What needs the operator: paused, warnings, next hops that are down or suspended."""
    rows: list[Row] = []

    def add(text: str, role: str, **target: Any) -> None:
        tail = f" {glyphs.enter}" if target.get("target") else ""
        said = words.fit(f" {glyphs.warn} {text}", width - words.cells(tail), mark=glyphs.ellipsis)
        rows.append(Row([(said, role), (tail, "key")], urgent=True, **target))

    if status.get("paused"):
        add(f"paused: {status['paused']}; :resume goes on", "warn")
    for warning in status.get("warnings") or ():
        at = warning.get("since")
        add(str(warning.get("text", "")) + (f", since {words.clock(at, now, seconds=False)}" if at else ""), "bad")
    for one in destinations:
        state, name = one.get("state"), name_of(one)
        if state not in ("down", "suspended"):
            continue
        why = str(one.get("reason") or one.get("last_reply") or "")
        until = f" until {words.clock(one['until'], now, seconds=False)}" if one.get("until") else ""
        add(f"{name}: {state}{until}, {words.count(waiting(one))} waiting{', ' + why if why else ''}",
            "bad" if state == "down" else "warn", suspended=state == "suspended", **_target(one))  # fmt: skip
    return rows


def destination_rows(
    destinations: Sequence[Document], now: float, width: int, glyphs: Glyphs
) -> tuple[Spans, list[Row]]:
    """The head and a row a destination."""
    wide = width >= 90
    name = max(18, min(36, width - 56 - (32 if wide else 0)))
    head = f" {words.fit('TOP DESTINATIONS', name)} {'WAITING':>9} {'OLDEST':>6}"
    head += f" {'ACTIVE':>6} {'DEFERRED':>9} {'HELD':>7} {'CONNS':>6}" if wide else ""
    head += f" {'STATE':<9} LAST REPLY"
    rows = []
    for one in destinations:
        state = str(one.get("state") or "ok")
        numbers = f" {words.count(waiting(one)):>9} {words.since(one.get('oldest'), now):>6}"
        if wide:
            conns = f"{one.get('connections') or 0}/{one.get('window') or '-'}"
            numbers += f" {words.count(one.get('active') or 0):>6} {words.count(one.get('deferred') or 0):>9}"
            numbers += f" {words.count(one.get('held') or 0):>7} {words.fit(conns, 6, right=True)}"
        role = {"ok": "good", "down": "bad"}.get(state, "warn")
        spans: list[tuple[str, str]] = [
            (f" {words.fit(name_of(one), name, mark=glyphs.ellipsis)}", ""),
            (numbers, ""),
            (f" {words.fit(state, 9)} ", role),
            (str(one.get("last_reply") or ""), "dim"),
        ]
        rows.append(Row(_cut(spans, width), suspended=state == "suspended", **_target(one)))
    return [(words.cut(head, width), "title")], rows


def event_lines(found: Iterable[Document], now: float, width: int) -> list[Spans]:
    """Events, a line each."""
    return [[(words.cut(" " + event_text(event, now), width), _event_role(event))] for event in found]


def event_text(event: Document, now: float) -> str:
    """An event on one line."""
    skip = {"at", "event", "epoch", "seq", "level", "text", "who"}
    who = f"{event['who']}: " if event.get("who") else ""
    fields = " ".join(f"{key}={value}" for key, value in event.items() if key not in skip and value not in ("", None))
    said = " ".join(part for part in (str(event.get("text") or ""), fields) if part)
    return f"{words.clock(event.get('at'), now)} {who}{event.get('event', '')} {said}".rstrip()


def _event_role(event: Document) -> str:
    return {"error": "bad", "warning": "warn"}.get(str(event.get("level")), "" if event.get("who") else "dim")


def name_of(one: Document) -> str:
    return str(one.get("destination") or one.get("next_hop") or "")


def _target(one: Document) -> dict[str, Any]:
    if one.get("destination"):
        return {"target": f"dest:{one['destination']}", "destination": str(one["destination"])}
    return {"target": f"hop:{one.get('next_hop')}", "next_hop": str(one.get("next_hop") or "")}


def waiting(one: Document) -> int:
    counts: list[int] = [int(one.get(name) or 0) for name in ("queued", "active", "deferred", "held")]
    return sum(counts)


def _cut(spans: Sequence[tuple[str, str]], width: int) -> Spans:
    """As much of a line as fits."""
    kept: list[tuple[str, str]] = []
    for text, role in spans:
        left = width - sum(words.cells(piece) for piece, _ in kept)
        if left <= 0:
            break
        kept.append((words.cut(text, left), role))
    return kept

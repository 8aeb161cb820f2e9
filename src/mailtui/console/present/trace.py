"""The hops of a message as lines: who handed it to whom, how long each kept it, whom to believe, and who was slow."""

from mailtui.console import words
from mailtui.console.glyphs import Glyphs
from mailtui.console.present import Document, Line
from mailtui.console.present.text import clamp, paragraph, shorten, title

_BAR = 24


def trace_lines(trace: Document, width: int, now: float, glyphs: Glyphs) -> list[Line]:
    """The whole tab: a line a hop with its delay as a bar, the border of trust, the answer in words, the warnings."""
    hops = list(trace.get("hops") or ())
    if not hops:
        return [[("No Received lines: this message has been through no relay.", "dim")]]
    time = 8 if all(len(words.clock(hop.get("time"), now)) <= 8 for hop in hops) else 19
    bar = max(4, min(_BAR, width // 6))
    way = max(16, width - 3 - 8 - (time + 1) - 8 - (bar + 1))
    names = (("#", 2), ("HOP", way), ("WITH", 7), ("AT", time))
    head: Line = [(words.fit(name, cells) + " ", "title") for name, cells in names]
    lines: list[Line] = [[*head, (" DELAY", "title")]]
    longest = max((float(hop.get("delay") or 0) for hop in hops), default=0.0)
    slowest = trace.get("slowest")
    believed = False
    for at, hop in enumerate(hops):
        if hop.get("trusted") and not believed:
            believed = True
            if at:
                lines.append(_border(width, glyphs))
        slow = hop.get("index") == slowest
        role = "strong" if slow else "" if hop.get("trusted") else "dim"
        seconds = hop.get("delay")
        lines.append(
            [
                (words.fit(str(hop.get("index", "")), 2, right=True) + " ", "dim"),
                (words.fit(clamp(_way(hop, glyphs), way), way, mark=glyphs.ellipsis) + " ", role),
                (words.fit(_protocol(hop), 7, mark=glyphs.ellipsis) + " ", _tls_role(hop)),
                (words.fit(words.clock(hop.get("time"), now), time, mark=glyphs.ellipsis) + " ", ""),
                (words.fit(delay(seconds), 6, right=True) + " ", "warn" if seconds is not None and seconds < 0 else ""),
                (_bar(seconds, longest, bar, glyphs), "warn" if slow else "dim"),
            ]
        )
    if not believed:
        lines.append([("No hop was stamped by us or by a host you trust: all of them can be forged.", "warn")])
    lines = [shorten(line, width, glyphs.ellipsis) for line in lines]
    lines += [[], *paragraph(answer(trace, glyphs), width, "strong")]
    for hop in hops:
        for warning in hop.get("warnings") or ():
            lines += paragraph(f"Hop {hop.get('index')}: {warning}", width, "warn")
    for warning in trace.get("warnings") or ():
        lines += paragraph(str(warning), width, "warn")
    return lines


def answer(trace: Document, glyphs: Glyphs) -> str:
    """Which hop delayed it, in a sentence."""
    hops, slowest = trace.get("hops") or (), trace.get("slowest")
    total = trace.get("total_delay")
    slow = next((hop for hop in hops if hop.get("index") == slowest), None) if slowest is not None else None
    whole = f"In all {delay(total)}" if total is not None else "How long it took in all is not known"
    if slow is None or slow.get("delay") is None:
        return f"{whole}; no hop stands out."
    share = ""
    if total and total > 0:
        share = f", {min(100, round(100 * float(slow['delay']) / float(total)))} % of it"
    return f"{whole}. The slowest is hop {slowest} ({_way(slow, glyphs)}) with {delay(slow['delay'])}{share}."


def delay(seconds: float | None) -> str:
    """`?` if unknown, negative when the clocks differ."""
    if seconds is None:
        return "?"
    return f"-{words.age(-seconds)}" if seconds < 0 else words.age(seconds)


def slow_title(trace: Document, width: int, glyphs: Glyphs) -> Line:
    """A heading with the total, for where the trace stands beside other things."""
    total = trace.get("total_delay")
    return title("TRACE", width, glyphs.rule, f"total {delay(total)}" if total is not None else "")


def _way(hop: Document, glyphs: Glyphs) -> str:
    return f"{hop.get('from') or hop.get('ip') or '?'} {glyphs.arrow} {hop.get('by') or '?'}"


def _protocol(hop: Document) -> str:
    return str(hop.get("protocol") or "-")


def _tls_role(hop: Document) -> str:
    return {True: "good", False: "dim"}.get(hop.get("tls"), "")  # type: ignore[arg-type]


def _border(width: int, glyphs: Glyphs) -> Line:
    text = " above: claimed by the sender's side; below: stamped by us or hosts you trust "
    if words.cells(text) + 4 > width:
        text = " above: claimed; below: stamped by hosts you trust "
    return [(glyphs.rule * 2 + text + glyphs.rule * max(0, width - 2 - words.cells(text)), "dim")]


def _bar(seconds: float | None, longest: float, cells: int, glyphs: Glyphs) -> str:
    if seconds is None or seconds <= 0 or longest <= 0:
        return ""
    return glyphs.block * max(1, round(cells * float(seconds) / longest))

"""Text that strangers wrote, in every column and every tab: nothing of it is carried out, and nothing breaks."""

import itertools
from typing import Any

import pytest
from textual.pilot import Pilot

from mailtui.console import words
from mailtui.console.glyphs import UNICODE
from mailtui.console.message.screen import TABS, MessageScreen
from mailtui.console.panes.queue import QueuePane
from mailtui.console.present import Line
from mailtui.console.present.attempts import attempt_lines, dialogue_lines, tls_lines
from mailtui.console.present.content import header_lines
from mailtui.console.present.past import past_lines
from mailtui.console.present.rows import QueueFace, cursor_lines
from mailtui.console.present.text import plain
from mailtui.console.present.trace import trace_lines
from mailtui.console.present.why import card, why_and_attempts
from mailtui.control.clean import REPLACEMENT, clean_lines, clean_value
from tests.console.conftest import until
from tests.console.fake_queue import NOW, FakeFrame, FakeLink, plain_row, rid, shown
from tests.console.test_present_message import a_trace, an_attempt, hop

CORPUS = [
    "\x1b]52;c;QUJD\x07", "\x1b]0;owned\x1b\\", "\x1b[2J\x1b[H", "\x9b2J", "\x90q\x9c", "\x00\x07\x08\x0b\x0c\x0e\x7f",
    "a\r\nb\tc\u2028d\u2029e\x85f", "\u202eevil\u2066x\u2069", "a\u200bb\u200d\ufeffc\u00ad", "\U000e0041\U000e007f",
    "Re: [/b] invoice [", "[@click=app.quit]hi[/]", "[bold red on blue]x[/bold red on blue]", "[/]", "$background",
    "\\[b]", "{0!r:>1000}", "%s%n", "x" * 10_000, "\u0301" * 500, "e" + "\u0301" * 400, "日本語メール@例え.jp" * 40,
    "👩\u200d👩\u200d👧\u200d👦" * 30, "\ufffd\ufffe", "\udcff\udc1b[31m", "؀۝", "ﷺ" * 50, "𒐫" * 30, "\u3164" * 20,
]  # fmt: skip
TEXTS = ("recipient", "sender", "subject", "message_id", "destination", "next_hop", "last_code", "last_enhanced",
         "last_reply", "last_host", "route", "client", "user", "held_by", "state")  # fmt: skip


def hostile_row(number: int) -> dict[str, Any]:
    """A row in which one text of the corpus is everywhere."""
    text = CORPUS[number % len(CORPUS)]
    row = {**plain_row(number), **dict.fromkeys(TEXTS, text)}
    if number % 3:
        row["state"] = ("held", "deferred")[number % 2]
    row["recipient"] = (text, f"{text}@{text}", f"rcpt@{text}")[number % 3]
    return row


def hostile_link(start: int, step: int = 1) -> FakeLink:
    """A link to one message; each text of it is another of the corpus, `start` the first. `step` 0: the same one."""
    link = FakeLink(range(len(CORPUS)), hostile_row)
    turn = (CORPUS[(start + number * step) % len(CORPUS)] for number in itertools.count())

    def texts(*names: str) -> dict[str, str]:
        return {name: next(turn) for name in names}

    row = {**plain_row(0), **texts(*TEXTS)}
    dialogue = f"   0.000 < 220 {next(turn)}\n   0.100 > {next(turn)}\n{next(turn)}\n         ! {next(turn)}"
    attempt = an_attempt(60, **texts("host", "address", "code", "enhanced", "reply"), transcript=dialogue)
    attempt["tls"] = texts("wanted", "reached", "protocol", "cipher", "verified_by", "why")
    link.message = {**row, **texts("client_name", "helo", "listener", "protocol", "tls")}
    link.message |= {"recipients": [row], "attempts": [attempt]}
    link.message["headers"] = [[next(turn), text] for text in CORPUS]
    why = texts("recipient", "state", "because", "limiter", "releases", "rule")
    link.whys = [{**link._why(plain_row(0)), **why}]
    hops = [
        hop(n, 5.0 * n, trusted=n > 1, **texts("from", "by", "protocol", "id", "for"), warnings=[next(turn)])
        for n in (1, 2)
    ]
    link.trace = a_trace(*hops, slowest=2, warnings=[next(turn)])
    link.content = b"Subject: x\r\n\r\n" + b"\r\n".join(text.encode("utf-8", "surrogatepass") for text in CORPUS)
    link.history = [texts("result", "at", "recipient", "rid", "host", "code", "enhanced", "reply") for _ in CORPUS]
    return link


def harmless(app: FakeFrame) -> None:
    """What stands on the screen is text and nothing else, and every line is as wide as the terminal."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            assert segment.control is None and segment.text.isprintable(), repr(segment.text)
            assert not segment.style or "@click" not in segment.style.meta
        assert words.cells(strip.text) == strip.cell_length == app.size.width


def cleaned(value: Any) -> Any:
    """As the link hands it over."""
    return clean_value(value)


async def settled(pilot: Pilot[None], pane: QueuePane) -> None:
    await until(pilot, lambda: pane.table.row is not None)


@pytest.mark.parametrize("size", [(80, 24), (160, 48), (40, 12)])
async def test_in_every_column_and_on_the_lines_below(size: tuple[int, int]) -> None:
    app = FakeFrame(FakeLink(range(len(CORPUS)), hostile_row))
    async with app.run_test(size=size) as pilot:
        await settled(pilot, app.pane)
        for number in range(0, len(CORPUS), 1 if size == (80, 24) else 5):
            app.pane.table.cursor = number
            await pilot.pause()
            harmless(app)
        assert REPLACEMENT in "\n".join(shown(app)) and app.is_running
        for _ in range(4):
            await pilot.press("l", "l")
            await pilot.pause()
            harmless(app)


async def known(pilot: Pilot[None], screen: MessageScreen, tab: str) -> None:
    """Show a tab, and wait for what stands there."""
    screen.view(tab)
    await until(pilot, lambda: screen.facts is not None and screen.facts.known.issuperset(TABS[tab][1]))
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
@pytest.mark.parametrize("start", [0, 11])
async def test_in_every_tab(size: tuple[int, int], start: int) -> None:
    app = FakeFrame(hostile_link(start))
    async with app.run_test(size=size) as pilot:
        screen = MessageScreen(rid(0))
        await app.push_screen(screen)
        for tab in TABS:
            await known(pilot, screen, tab)
            assert screen.problems == {}
            harmless(app)
            await pilot.press("pagedown")
            await pilot.pause()
            harmless(app)
        screen.view("attempts")
        await pilot.press("enter")
        await until(pilot, lambda: screen.dialogue is not None)
        harmless(app)
        for _ in range(3):
            await pilot.press("B")
            await pilot.pause()
            harmless(app)


async def test_in_a_filter_and_the_history() -> None:
    app = FakeFrame(hostile_link(5))
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, app.pane)
        for text in CORPUS[6:18]:
            query = "nothing:" + "".join(text.split())
            app.pane._typed(query)
            await until(pilot, lambda query=query: app.pane.query_text == query)
            harmless(app)
        await until(pilot, lambda: app.pane.past)
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.pause()
        harmless(app)


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_every_text_in_every_place_fits_and_is_harmless(text: str) -> None:
    """What the functions make of it when one text stands everywhere, as the link hands it over."""
    link = hostile_link(CORPUS.index(text), step=0)
    message, whys, trace, history = (
        clean_value(value) for value in (link.message, link.whys, link.trace, link.history)
    )
    attempts = message["attempts"]
    row = message["recipients"][0]
    dialogue = {**attempts[0], "transcript": clean_lines(link.message["attempts"][0]["transcript"])}
    face = QueueFace(UNICODE)
    for width in (60, 79, 158):
        sheets: list[list[Line]] = [
            why_and_attempts(whys, message, width, NOW, UNICODE),
            card(row, whys, message, width, NOW, UNICODE),
            attempt_lines(attempts, width, NOW, UNICODE),
            dialogue_lines(dialogue, width, NOW, UNICODE),
            tls_lines(attempts, width, NOW),
            header_lines(message["headers"], width),
            trace_lines(trace, width, NOW, UNICODE),
            past_lines(history, width, NOW, UNICODE),
            cursor_lines(row, width, NOW, UNICODE),
            [list(face.cells(row, face.columns(width), NOW))],
        ]
        for sheet in sheets:
            for line in sheet:
                assert all(piece.isprintable() for piece, _ in line)
                assert words.cells(plain(line)) <= width or sheet is sheets[-1]

"""Mail that was made to take over a terminal, through a real relay and the real console on a real terminal.

Whatever strangers can write (subjects, header fields, bodies, encoded words, addresses, the replies of next hops) is
looked at on every screen; every octet that the console writes meanwhile must be one that it draws with.
"""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mailtui.clock import ManualClock
from mailtui.console.copying import as_json, reply_of
from mailtui.console.dialogs.frame import DEAF
from tests.console.pty_screen import Terminal, mailtui
from tests.end_to_end.conftest import Live, Start, hop, relay_of, smarthost, state
from tests.support.nexthop import NextHop

__all__ = ["hop", "relay_of", "state"]

CLIPBOARD = "52;c;SE9TVElMRQ=="

# Each ends in a word, by which it is waited for on the screen where it fits.
CORPUS: list[bytes] = [
    b"\x1b[2J\x1b[999;999H\x1b[5;31mwiped",
    b"\x1b]52;c;SE9TVElMRQ==\x07clipboard",
    b"\x1b]0;HOSTILE\x1b\\\x1b]2;HOSTILE\x07title",
    b"\x1bP+q544e\x1b\\\x1b_G\x1b\\\x1bc\x1b#8\x1b(0devices",
    "\x9b2J\x9d52;c;SE9TVElMRQ==\x9c\x90x\x9cones".encode(),
    b"\x9b31;5m\x9d0;x\x9c\x85raw",
    "\u202egnp.exe\u202c \u2066iso\u2069\u200f\u061cbidi".encode(),
    "zero\u200bwidth\u200d\u2060\ufeff\u00ad\U000e0041\U000e007f\u3164tags".encode(),
    b"Re: [/b] [red]x[/red] [link=file:///etc/passwd]l[/link] [ ]] [markup",
    b"[@click=app.quit]x[/] [@click='app.exit']y[/] [on red]click",
    b"x" * 900 + b" long",
    "\u65e5\u672c\u8a9e\u0915\u093f \U0001f468\u200d\U0001f469 wide".encode() * 10,
    b"\xff\xfe\xc3\x28\xed\xa0\x80\xf4\x90\x80\x80 invalid",
    ("e" + "\u0301" * 60 + " marks").encode(),
    b"\x01\x02\x07\x08\x08\x0b\x0c\x0e\x0f\x7f\tcontrols",
    b"%s %n {0} ${IFS} $(reboot) `reboot` \\x1b[2J '\" formats",
]

# As header fields only: what they are decoded to is hostile.
ENCODED: list[bytes] = [
    b"=?utf-8?Q?=1B]52;c;SE9TVElMRQ=3D=3D=07=9B2J_quoted?=",
    b"=?utf-8?B?" + base64.b64encode(b"\x1b]52;c;SE9TVElMRQ==\x07\r\nX-Forged: y\x1b[2J base") + b"?=",
    b"=?utf-7?Q?+ABsAWwAy-J_seven?=",
    b"=?nonsense\x1b[2J?Q?x?= charset",
]

SENDER = '"[/b][@click=app.quit]s[/]"@evil.test'
FIRST = '"[red][@click=app.quit]x[/]"@dest.test'


MESSAGES = len(CORPUS) + len(ENCODED) + 1  # in the queue; one more was delivered


def hostile_reply(line: str) -> bytes:
    """451 with what the number in the recipient's address says, on two lines."""
    found = re.search(r"<u(\d+)@", line)
    text = CORPUS[int(found.group(1)) % len(CORPUS)] if found else b" ".join(CORPUS)[:1500]
    if "<done@" in line:
        return b"250 2.1.5 " + CORPUS[1] + b"\r\n"
    return b"451-4.7.1 " + text[:400] + b"\r\n451 4.7.1 " + text[:400] + b"\r\n"


def header(subject: bytes) -> bytes:
    return b"Subject: " + subject + b"\r\nMessage-ID: <" + subject[:60].replace(b"\t", b"") + b"@x>\r\n"


def everything() -> bytes:
    """A message that has the corpus in every place of it."""
    fields = [b"Subject: " + b" ".join([*ENCODED, *CORPUS])[:900]]
    fields += [b"X-H%d: " % number + each for number, each in enumerate([*CORPUS, *ENCODED])]
    fields += [
        b"Received: from " + each[:200] + b" (" + each[:200] + b" [192.0.2.1]) by " + each[:200]
        + b" with ESMTP id x; Sun, 22 Nov 2020 06:00:%02d +0000" % number
        for number, each in enumerate(CORPUS)
    ]  # fmt: skip
    fields += [b"X-" + re.sub(rb"[^!-9;-~]", b"", each[:40]) + b": name" for each in CORPUS]
    plain = b"\r\n".join([*CORPUS, b"y" * 990])
    parts = [
        b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n' + plain,
        b"Content-Type: text/plain; charset=utf-7\r\n\r\n+ABs-]52;c;SE9TVElMRQ==+AAc-",
        b'Content-Type: text/html; charset="\x1b[2J"; name="\x1b]0;x\x07[/b]"\r\n'
        b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(b"<p>" + plain).replace(b"\n", b"\r\n"),
        b'Content-Type: application/\x1b[2J\r\nContent-Disposition: attachment; filename="\x1b[2J[/b].exe"\r\n\r\nx',
    ]
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    kind = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    return b"\r\n".join(fields) + b"\r\n" + kind + body


@pytest.fixture
def clock() -> ManualClock:
    """The console reads the wall clock."""
    return ManualClock(time.time())


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """A relay with every kind of hostile message, each tried once and told off by a hostile next hop."""
    hop.rcpt = hostile_reply
    hop.ehlo = b"250-" + CORPUS[1] + b"\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 " + CORPUS[8] + b"\r\n"
    hop.dot = b"250 2.0.0 " + CORPUS[0] + b"\r\n"
    async with relay_of(smarthost(hop)) as relay:
        options = ["BODY=8BITMIME"]
        for number, subject in enumerate([*CORPUS, *ENCODED]):
            await relay.send(f"u{number}@dest.test", SENDER, header(subject) + b"\r\n" + subject + b"\r\n", options)
        await relay.send(FIRST, SENDER, everything(), options)
        await relay.send("done@dest.test", SENDER, header(CORPUS[1]) + b"\r\nx\r\n", options)
        await relay.told("deferred", len(CORPUS) + len(ENCODED) + 1)
        await relay.told("delivered", 1)
        yield relay


def place(relay: Live) -> list[str]:
    return ["--state", str(relay.state)]


@pytest.mark.parametrize("size", [(80, 24), (160, 48)], ids=["80x24", "160x48"])
async def test_the_console_draws_nothing_that_strangers_wrote(
    relay: Live, size: tuple[int, int], tmp_path: Path
) -> None:
    said = await mailtui(
        "queue", "hold", "to:u0@dest.test", "--yes", "--reason", f"\x1b]{CLIPBOARD}\x07[/b]", *place(relay)
    )
    assert said[0] == 0, said
    rows = {row["recipient"]: row for row in await relay.rows()}
    async with Terminal(place(relay), size, {"XDG_RUNTIME_DIR": str(tmp_path)}) as shown:
        await overview(shown)
        await queue(shown)
        await message(shown)
        await neighbours(shown)
        await taken_away(shown, rows[FIRST], tmp_path)
        await dialogs(shown)
        await lines_typed(shown)
        await shown.resize(100, 30)
        await shown.until("QUEUE")
        shown.press("q")
        await shown.until("q again leaves")
        shown.press("q")
        assert await shown.ended() == 0
    assert shown.violations == []
    # It was there to be seen: cleaned, not left out, and as text, not as markup.
    for text in (
        f"\ufffd]{CLIPBOARD}\ufffd",
        "\ufffd[2J\ufffd[999;999H\ufffd[5;31mwiped",
        "[@click=app.quit]x[/]",
        "[/b]",
    ):
        assert text in shown.seen


async def overview(shown: Terminal) -> None:
    """Destinations, what happened, operations, help."""
    await shown.until("dest.test", "TOP DESTINATIONS", "NEEDS YOU")
    shown.press(",")
    await shown.until("Operations", "[/b]")
    shown.press("q")
    await shown.without("Operations")
    shown.press("?")
    await shown.until("Keys")
    shown.press("q")
    await shown.until("TOP DESTINATIONS")


async def queue(shown: Terminal) -> None:
    """Every row under the cursor, so that the cursor line and the card of each is drawn."""
    shown.press("2")
    await shown.until("QUEUE", '"[red][@click=app.quit]x[/]"@dest.test')
    for number in reversed(range(MESSAGES - 1)):
        shown.press("j")
        await shown.until(partial(is_under_cursor, shown, f"u{number}@dest.test"))
    shown.press("lllhhh")
    await type_filter(shown, "from:*@evil.test reply:clipboard")
    await shown.until(f"3 of {MESSAGES}")
    shown.press("q")
    await shown.without("reply:clipboard")
    await type_filter(shown, "to:done@dest.test")
    await shown.until("1 in history")
    shown.press("\r")
    await shown.until("HISTORY", "[999;999H\ufffd[5;31mwiped")
    shown.press("q")
    await shown.until("1 in history")
    shown.press("q")
    await shown.without("in history")


async def message(shown: Terminal) -> None:
    """Every tab of the message that has everything in it, from its top to its end."""
    shown.press("g")
    await shown.until(partial(is_under_cursor, shown, FIRST))
    shown.press("\r")
    await shown.until(" Queue > ", " WHY  trace ", "Limiter")  # the card of the queue has the reason as well
    tabs = [
        ("t", " TRACE ", "DELAY"), ("a", " ATTEMPTS ", "TOOK"), ("\r", " ATTEMPTS ", "SPENT"),
        ("a", " ATTEMPTS ", "TOOK"), ("m", " HEADERS ", "neutralised below"), ("b", " BODY ", "B raw and hex"),
        ("B", " BODY ", "as stored"), ("B", " BODY ", "octets, "), ("L", " TLS ", "SPENT"),
    ]  # fmt: skip
    for key, tab, text in tabs:
        shown.press(key)
        await shown.until(partial(is_tab, shown, tab), text)
        for key in ("\x04", "\x04", "G", "g"):
            shown.press(key)
            await shown.changed(0.1)
    shown.press("w")


async def neighbours(shown: Terminal) -> None:
    """The reason and the headers of each of the others, with J and K."""
    for number in range(2, MESSAGES + 1):
        shown.press("J")
        await shown.until(f" {number} of {MESSAGES} ", "Limiter")
    shown.press("m")
    for number in range(MESSAGES - 1, 1, -1):
        shown.press("K")
        await shown.until(f" {number} of {MESSAGES} ", "Message-ID")
    shown.press("q")
    await shown.until("QUEUE")


async def taken_away(shown: Terminal, row: dict[str, Any], directory: Path) -> None:
    """The clipboard gets the one text that was chosen, cleaned; the sheet and the files have cleaned text too."""
    shown.press("g")
    await shown.until(partial(is_under_cursor, shown, FIRST))
    for key, text in (("a", FIRST), ("l", reply_of(row)), ("f", as_json(row))):
        assert "\x1b" not in text
        shown.press("y")
        await dialog(shown, " Copy ", "last reply", "\ufffd[2J\ufffd[999;999H")
        shown.allow_copy(text)
        shown.press(key)
        await shown.until(lambda text=text: shown.clipboard == text)
        await shown.until("by OSC 52")
        await shown.without(" Copy ")  # else the next one would be taken for open, and the key come too early
    shown.press("y")
    await dialog(shown, " Copy ")
    shown.press("s")
    await shown.until("recipient:", "also in")
    shown.press("\x04G")
    await shown.until("command line:", "mailtui queue show")
    shown.press("\x1b")
    await shown.until("QUEUE", FIRST)
    for key, name in (("j", "rows.jsonl"), ("c", "rows.csv"), ("e", "mail")):
        shown.press("e")
        await dialog(shown, " Export ", f"all {MESSAGES} that match")
        shown.press(f"{key}\t")
        await asyncio.sleep(DEAF)
        shown.press("\x15")
        await shown.until("To         path ")
        shown.press(str(directory / name))
        await shown.until(lambda name=name: re.search(rf"/{name} +│", shown.text))
        shown.press("\r")
        await shown.until("exported ")
        await shown.without(" Export ")
    for path in written(directory):
        if path.suffix != ".eml":
            for line in path.read_text().splitlines():
                assert line.isprintable(), ascii(line)


def written(directory: Path) -> list[Path]:
    """The sheet's file, rows twice, and two files of each message."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    assert len(found) == 3 + 2 * MESSAGES
    return found


async def dialogs(shown: Terminal) -> None:
    """Previews with samples of all, an action with a reason, its undo."""
    for start in range(0, MESSAGES - 1, 5):
        # In one piece, as a paste comes or who types quickly: not a letter of it may reach the table behind.
        shown.press(":bounce to:" + ",".join(f"u{number}@dest.test" for number in range(start, start + 5)) + "\r")
        await shown.until("type 5 to confirm", f"u{start + 4}@dest.test")
        shown.press("\x1b")
        await shown.without("type 5 to confirm")
        await shown.until("nothing was done")
    shown.press("*o")
    await dialog(shown, "Hold or release")
    shown.press("h")
    await dialog(shown, "Y does it", "[red][@click=app.quit]x[/]")
    shown.press("\t")
    await asyncio.sleep(DEAF)
    shown.press("[/b][@click=app.quit]x[/]")
    await shown.until("│ [/b][@click=app.quit]x[/]")
    shown.press("\r")
    await asyncio.sleep(DEAF)
    shown.press("Y")
    await shown.until(f"held {MESSAGES - 1}")
    shown.press("z")
    await dialog(shown, "Undo", "[/b][@click=app.quit]x[/]")
    shown.press("\r")
    await shown.until(f"undone {MESSAGES - 1}")


async def dialog(shown: Terminal, *texts: str) -> None:
    """Wait for a dialog, and until it listens: a key that was on its way must not confirm it."""
    await shown.until(*texts)
    await asyncio.sleep(DEAF)


async def lines_typed(shown: Terminal) -> None:
    """Lines of an operator that are no commands, no queries, and not for a parser of markup."""
    shown.press(":[/b] x\r")
    await shown.until("[/b]: no such command")
    shown.press(":why [@click=app.quit]x[/]\r")
    await shown.until('"[@click=app" is no queue id')
    await type_filter(shown, "[/b]:[red]")
    await shown.until("[/b]")
    shown.press("\x10")
    await shown.until("Search for commands")
    shown.press("[/b]")
    await shown.until("No matches found")
    shown.press("\x1b")
    await shown.without("No matches found")


async def type_filter(shown: Terminal, text: str) -> None:
    shown.press("/")
    await shown.until(lambda: shown.lines[-2].startswith(" /"))
    shown.press(text + "\r")
    await shown.until(lambda: not shown.lines[-2].startswith(" /"))


def is_tab(shown: Terminal, tab: str) -> bool:
    """True if the line of tabs has this one chosen."""
    return tab in shown.lines[2]


def is_under_cursor(shown: Terminal, recipient: str) -> bool:
    """True if this stands in the line of the row under the cursor."""
    return re.search(rf"  try \d+  {re.escape(recipient)}", shown.text) is not None


def test_one_text_only_may_reach_the_clipboard_and_only_once() -> None:
    shown = Terminal([])
    asked, other = (f"\x1b]52;c;{base64.b64encode(text).decode()}\x07" for text in (b"asked for", b"other"))
    for sequences, allowed in ((asked, False), (other, True), (other + asked, True), (asked + asked, True)):
        shown.violations.clear()
        if allowed:
            shown.allow_copy("asked for")
        shown._take(sequences)
        assert shown.violations, sequences
    shown.violations.clear()
    shown.allow_copy("asked for")
    shown._take(asked)
    assert (shown.violations, shown.clipboard) == ([], "asked for")


COMMANDS = ["queue list", "queue show {}", "queue show {} --transcript", "queue why {}", "history", "log", "trace {}",
            "dest list", "status", "queue hold to:*@dest.test"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_commands_print_nothing_that_strangers_wrote(relay: Live, command: str) -> None:
    [row] = [row for row in await relay.rows() if row["recipient"] == FIRST]
    status, said, problems = await mailtui(*command.format(row["id"]).split(), *place(relay))
    assert (status, problems) == (4 if "hold" in command else 0, "")
    for line in said.splitlines():
        assert line.isprintable(), ascii(line)
        assert not re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\u3164\U000e0000-\U000e007f]", line)

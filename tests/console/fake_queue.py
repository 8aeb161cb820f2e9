"""A queue of any size behind the console's link, in this process, and the smallest frame that its panes need."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from textual.app import App, ComposeResult

from mailtui import ids
from mailtui.clock import rfc3339
from mailtui.console.copying import Copy
from mailtui.console.export import Scope
from mailtui.console.glyphs import UNICODE, Glyphs
from mailtui.console.link import AnswerError
from mailtui.console.panes.queue import QueuePane
from mailtui.control.clean import clean_lines, clean_value

# Wall time of the tests, in seconds since the epoch.
NOW = 1_800_000_000.0
FIRST = 1_000_000_000_000


def rid(number: int) -> str:
    """The recipient number `number` of the fake queue."""
    return ids.rid(FIRST + number, 0)


def plain_row(number: int) -> dict[str, Any]:
    """A row that is made when it is asked for."""
    state = ("deferred", "queued", "held", "deferred", "active")[number % 5]
    tried = state != "queued"
    return {
        "id": ids.encode(FIRST + number),
        "rid": rid(number),
        "recipient": f"rcpt{number}@dest{number % 97}.example",
        "sender": f"sender{number % 13}@example.org",
        "subject": f"Subject {number}",
        "message_id": f"<{number}@example.org>",
        "destination": f"dest{number % 97}.example",
        "next_hop": f"dest{number % 97}.example",
        "state": state,
        "size": 1000 + number,
        "arrived": rfc3339(NOW - 7200 - number % 600),
        "next_attempt": rfc3339(NOW + 600) if state in ("deferred", "queued") else None,
        "attempts": 3 if tried else 0,
        "last_code": "451" if tried else None,
        "last_enhanced": "4.7.1" if tried else None,
        "last_reply": "greylisted, try later" if tried else None,
        "last_host": "mx1.dest.example" if tried else None,
        "route": "mx",
        "client": "192.0.2.1",
        "user": "",
        "held_by": "ann" if state == "held" else "",
        "expires": rfc3339(NOW + 86400),
        "cursor": "",
    }


class FakeLink:
    """Answers as `Link` does: documents, lines and octets, cleaned as it cleans. `requests`: every path asked for."""

    def __init__(self, numbers: Sequence[int], row: Callable[[int], dict[str, Any]] = plain_row) -> None:
        self.numbers = numbers  # of the recipients in the queue, in the order in which sets have them
        self.row = row
        self.gone: set[int] = set()
        self.live = True
        self.sets: dict[str, Sequence[int]] = {}
        self.requests: list[str] = []
        self.taken: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []
        self.message: dict[str, Any] = {}
        self.whys: list[dict[str, Any]] = []
        self.trace: dict[str, Any] = {"hops": [], "total_delay": None, "slowest": None, "loop": False, "warnings": []}
        self.content = b""

    @property
    def pages(self) -> list[str]:
        """The requests for rows."""
        return [path for path in self.requests if "/rows" in path]

    async def call(self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False) -> Any:
        self.requests.append(path)
        url = urlsplit(path)
        asked = parse_qs(url.query)
        parts = url.path.split("/")[2:]
        answer: Any = {}
        if method == "POST" and parts == ["sets"]:
            assert body is not None
            answer = self._take(body)
        elif method == "DELETE":
            self.sets.pop(parts[1], None)
        elif parts[0] == "sets":
            numbers = self._set(parts[1])
            number = ids.parse(asked["rid"][0])[0] - FIRST
            answer = {"index": _position(numbers, number)}
        elif parts == ["queue", "count"]:
            answer = {"messages": 0, "recipients": len(self._matching(asked["query"][0])), "bytes": 0}
        elif parts[:2] == ["queue", "messages"]:
            answer = self.message or self._message(parts[2])
        elif parts[0] == "trace":
            answer = self.trace
        return _cleaned(answer, lines)

    async def lines(self, path: str) -> list[Any]:
        self.requests.append(path)
        url = urlsplit(path)
        parts, asked = url.path.split("/")[2:], parse_qs(url.query)
        rows: list[Any] = []
        if parts[0] == "sets":
            numbers, offset = self._set(parts[1]), int(asked["offset"][0])
            for at, number in enumerate(numbers[offset : offset + int(asked["limit"][0])], offset):
                gone = number in self.gone
                rows.append({"index": at, "id": rid(number)[:13], "rid": rid(number), "gone": True} if gone
                            else {**self.row(number), "index": at})  # fmt: skip
        elif parts == ["queue"]:
            rows = [self.row(number) for number in self.numbers[: int(asked["limit"][0])] if number not in self.gone]
        elif parts[0] == "history":
            rows = self.history
        elif parts[:2] == ["queue", "why"]:
            rows = self.whys or [self._why(one) for one in self._message(parts[2])["recipients"]]
        return [_cleaned(row) for row in rows]

    async def raw(self, path: str, limit: int) -> bytes:
        self.requests.append(path)
        return self.content[:limit]

    def _take(self, body: dict[str, Any]) -> dict[str, Any]:
        self.taken.append(body)
        name = f"s{len(self.taken)}"
        self.sets[name] = self._matching(body["query"])
        return {"set": name, "count": len(self.sets[name]), "instant": True}

    def _matching(self, query: str) -> Sequence[int]:
        """`id:` names rows, `nothing:` none; a bare word is an error; any other term matches all."""
        found: Sequence[int] = self.numbers
        for word in query.split():
            if word.startswith("id:"):
                named = {ids.parse(one)[0] - FIRST for one in word[3:].split(",")}
                found = [number for number in found if number in named and number not in self.gone]
            elif word.startswith("nothing:"):
                found = []
            elif ":" not in word and ">" not in word:
                raise AnswerError(f'"{word}" is neither a term nor a queue id; known terms: to:', 2, 400)
        return found

    def _set(self, name: str) -> Sequence[int]:
        if name not in self.sets:
            raise AnswerError("this set is gone; take it again", 1, 410)
        return self.sets[name]

    def _message(self, id: str) -> dict[str, Any]:
        number = ids.parse(id)[0] - FIRST
        if number in self.gone or number not in self.numbers:
            raise AnswerError(f"{id} is not in the queue any more: delivered; see mailtui history {id}", 1, 404)
        row = self.row(number)
        return {**row, "helo": "client.example", "listener": "mx", "protocol": "ESMTP", "tls": None, "headers": [],
                "recipients": [row], "attempts": []}  # fmt: skip

    def _why(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "rid": row["rid"], "recipient": row["recipient"], "state": row["state"],
                "because": "waits for attempt 4 on the retry schedule", "limiter": "retry-clock",
                "since": rfc3339(NOW - 60), "releases": "the retry schedule", "next_attempt": rfc3339(NOW + 600),
                "expires": rfc3339(NOW + 86400), "rule": "[retry] schedule"}  # fmt: skip


def _position(numbers: Sequence[int], number: int) -> int | None:
    try:
        return numbers.index(number)
    except ValueError:
        return None


def _cleaned(value: Any, lines: bool = False) -> Any:
    if lines and isinstance(value, dict):
        return {key: _cleaned(item, True) for key, item in value.items()}
    if lines and isinstance(value, list):
        return [_cleaned(item, True) for item in value]
    return clean_lines(value) if lines and isinstance(value, str) else clean_value(value)


class FakeFrame(App[None]):
    """What a pane needs of the frame; `said` and `verbs` have what it was told."""

    CSS = "Lines { height: auto; width: 1fr; } StatusLine, FooterKeys, BottomLine { height: 1; }"

    def __init__(self, link: FakeLink, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self.link = link
        self.glyphs = glyphs
        self.status: dict[str, Any] = {"queue": {"recipients": len(link.numbers)}}
        self.paused_screen = False
        self.said: list[str] = []
        self.verbs: list[tuple[str, dict[str, Any]]] = []
        self.filter: tuple[Callable[[str], None], Callable[[str | None], None]] | None = None
        self.sorted: Callable[[str, bool], None] | None = None
        self.copies: Sequence[Copy] = ()
        self.scopes: Sequence[Scope] = ()

    def compose(self) -> ComposeResult:
        yield QueuePane(now=lambda: NOW)

    def on_mount(self) -> None:
        self.pane.table.focus()
        self.pane.tick()

    @property
    def pane(self) -> QueuePane:
        return self.screen_stack[0].query_one(QueuePane)

    def flash(self, text: str, *, error: bool = False) -> None:
        self.said.append(text)

    def run_verb(self, verb: str, **selection: Any) -> None:
        self.verbs.append((verb, selection))

    def defer_dialog(self, **selection: Any) -> None:
        self.verbs.append(("defer", selection))

    def dispose_menu(self, **selection: Any) -> None:
        self.verbs.append(("dispose", selection))

    def hold_or_release(self, states: Collection[str], **selection: Any) -> None:
        self.verbs.append((f"hold {sorted(states)}", selection))

    def copy_menu(self, copies: Sequence[Copy]) -> None:
        self.copies = copies

    def export_dialog(self, scopes: Sequence[Scope]) -> None:
        self.scopes = scopes

    def filter_line(self, current: str, changed: Callable[[str], None], done: Callable[[str | None], None]) -> None:
        self.filter = (changed, done)

    def sort_menu(self, current: str, reverse: bool, chosen: Callable[[str, bool], None]) -> None:
        self.sorted = chosen


def shown(app: App[Any]) -> list[str]:
    """What stands on the screen, line by line."""
    return ["".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips()]


def segments(app: App[Any]) -> Iterable[str]:
    """Every piece of text on the screen."""
    return [segment.text for strip in app.screen._compositor.render_strips() for segment in strip]


def answer(done: int = 1) -> Mapping[str, Any]:
    """What a verb answers."""
    return {"verb": "queue.hold", "asked": done, "done": done}

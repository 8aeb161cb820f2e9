"""The console's only way to the relay: the event stream, read in a thread, and requests, made in worker threads.

Promises: every text that comes through here is cleaned, keys too (`raw` excepted, and it says so); what the stream
brings is merged into one snapshot that the console takes when it wants to, so a slow terminal drops frames and never
queues them; a relay that says nothing for `SILENCE` seconds counts as lost; a lost one is tried again for ever.
"""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mailtui.control.clean import clean, clean_lines, clean_value
from mailtui.control.errors import NOT_RUNNING, WRONG, VerbError

Answer = TypeVar("Answer")

# The relay sends a status at least once a second; after this long without a line it is stuck, or the tunnel to it is.
SILENCE = 10.0

# Between attempts to reach a relay that is gone, in seconds: soon at first, for one that restarts takes under a second.
FIRST_RETRY, LAST_RETRY = 0.25, 5.0

# Events kept for the console to take. When it does not, the thread stops reading and the relay counts what it drops.
EVENTS = 500

# To connect to a socket of this machine takes no time; through a tunnel a little.
CONNECT_TIMEOUT = 5.0

# A bulk verb answers after its last commit: 50,000 recipients beside full traffic take minutes at worst.
ANSWER_TIMEOUT = 600.0

# Requests at a time: the page of the table, a message, a verb, and one spare.
_THREADS = 4


class AnswerError(VerbError):
    """The relay answered with an error. `status` is that of HTTP; 0 if it could not be asked."""

    def __init__(self, text: str, exit: int, status: int = 0) -> None:
        super().__init__(clean(text), exit)
        self.status = status

    @property
    def gone(self) -> bool:
        """The set that was named does not exist any more; make it again."""
        return self.status == 410


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is new since the last one was taken."""

    status: dict[str, Any]
    events: tuple[dict[str, Any], ...]
    missed: int  # events that the relay dropped because nobody took them
    live: bool
    problem: str  # why not live
    changed: float  # when it became live or was lost, seconds since the epoch
    heard: float  # when the relay last said anything; 0.0 if it never did


class Link:
    """A relay at `path`. `start` begins to listen; `take` is what the console calls a few times a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.latency: float | None = None  # of the last small request, seconds
        self.received = 0  # octets from the relay, in all
        self._lock = threading.Lock()
        self._taken = threading.Event()
        self._stop = threading.Event()
        self._sock: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="mailtui-link")
        self._new = False
        self._status: dict[str, Any] = {}
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._missed = 0
        self._live = False
        self._problem = "not connected yet"
        self._changed = time.time()
        self._heard = 0.0
        self._epoch: object = None
        self._sequence = 0

    @property
    def live(self) -> bool:
        return self._live

    def start(self) -> None:
        """Listen to the relay, in a thread."""
        self._thread = threading.Thread(target=self._run, name="mailtui-events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hang up. Requests under way end by themselves."""
        self._stop.set()
        self._taken.set()
        with self._lock:
            if self._sock is not None:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self._pool.shutdown(wait=False, cancel_futures=True)

    def take(self) -> Snapshot | None:
        """What is new, or None."""
        with self._lock:
            if not self._new:
                return None
            self._new = False
            events, missed = tuple(self._events), self._missed
            self._events.clear()
            self._missed = 0
            found = Snapshot(self._status, events, missed, self._live, self._problem, self._changed, self._heard)
        self._taken.set()
        return found

    async def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, lines: bool = False, timed: bool = False
    ) -> Any:
        """One JSON document, cleaned. `lines` keeps line breaks inside of texts. AnswerError."""
        started = time.monotonic()
        answer = await self._ask(method, path, body, lambda data: _cleaned(_parsed(data, self.path), lines))
        if timed:
            self.latency = time.monotonic() - started
        return answer

    async def lines(self, path: str) -> list[Any]:
        """JSON Lines, cleaned. AnswerError, also for an error that comes after the first rows."""
        rows = await self._ask("GET", path, None, self._rows)
        if rows and isinstance(rows[-1], dict) and "error" in rows[-1] and "exit" in rows[-1]:
            raise AnswerError(str(rows[-1]["error"]), int(rows[-1]["exit"]), 200)
        return rows

    async def raw(self, path: str, limit: int) -> bytes:
        """The first `limit` octets of an answer, NOT cleaned: for hex views and files. AnswerError."""
        return await self._ask("GET", path, None, bytes, limit)

    async def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[bytes], Answer],
        limit: int | None = None,
    ) -> Answer:
        """What `read` makes of the answer, in a thread: a page of rows takes it as long as a frame."""

        def asked() -> Answer:
            data = self._request(method, path, body, limit)
            with self._lock:
                self.received += len(data)
            return read(data)

        try:
            answer = asyncio.get_running_loop().run_in_executor(self._pool, asked)
        except RuntimeError:  # the pool is shut: the console is on its way out
            raise AnswerError("the console is leaving", NOT_RUNNING) from None
        return await answer

    def _rows(self, data: bytes) -> list[Any]:
        return [_cleaned(_parsed(line, self.path)) for line in data.splitlines()]

    def _request(self, method: str, path: str, body: dict[str, Any] | None, limit: int | None) -> bytes:
        connection = _Connection(self.path, ANSWER_TIMEOUT)
        try:
            answer = connection.ask(method, path, body)
            return answer.read(limit)
        except (OSError, http.client.HTTPException) as error:
            raise AnswerError(_gone(self.path, error), NOT_RUNNING) from None
        finally:
            connection.close()

    def _run(self) -> None:
        delay = FIRST_RETRY
        while not self._stop.is_set():
            try:
                for line in self._stream():
                    self._hear(line)
                    delay = FIRST_RETRY
                problem = "the relay has hung up"
            except VerbError as error:
                problem = error.text
            except (OSError, http.client.HTTPException) as error:
                problem = _gone(self.path, error)
            except Exception as error:  # a fault of ours must show as a lost link, not as a screen that stands still
                problem = f"cannot read what the relay sends: {type(error).__name__}: {error}"
            self._lose(problem)
            if self._stop.wait(delay):
                return
            delay = min(delay * 2, LAST_RETRY)

    def _stream(self) -> Iterator[bytes]:
        connection = _Connection(self.path, SILENCE)
        try:
            since = f"?since={self._sequence}&epoch={self._epoch}" if self._epoch is not None else ""
            connection.connect()
            with self._lock:
                self._sock = connection.sock
            answer = connection.ask("GET", f"/v1/events{since}", None)
            while not self._stop.is_set():
                line = answer.readline()
                if not line:
                    return
                with self._lock:
                    self.received += len(line)
                yield line
        finally:
            with self._lock:
                self._sock = None
            connection.close()

    def _hear(self, line: bytes) -> None:
        found = _cleaned(_parsed(line, self.path))
        if not isinstance(found, dict):
            raise AnswerError(f"what answers on {self.path} is not a mailtui relay", WRONG)
        with self._lock:
            now = time.time()
            if not self._live:
                self._live, self._problem, self._changed = True, "", now
            self._heard, self._new = now, True
            self._epoch, self._sequence = found.get("epoch", self._epoch), found.get("seq", self._sequence)
            match found.get("event"):
                case "status":
                    self._status = found.get("status") or self._status
                case "gap":
                    self._missed += int(found.get("missed") or 0)
                case _:
                    self._events.append(found)
            full = len(self._events) >= EVENTS
            if full:
                self._taken.clear()
        if full:
            self._taken.wait(1.0)

    def _lose(self, problem: str) -> None:
        with self._lock:
            text = clean(problem)
            if self._live or text != self._problem:
                self._new = True
            if self._live or not self._heard:
                self._changed = time.time() if self._live else self._changed
            self._live, self._problem = False, text


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket at `path`."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("mailtui", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect(str(self._path))
            sock.settimeout(self.timeout)
        except OSError:
            sock.close()
            raise
        self.sock = sock

    def ask(self, method: str, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode("ascii")
        self.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
        answer = self.getresponse()
        if answer.status >= 400:
            text = answer.read()
            try:
                problem = json.loads(text)
                raise AnswerError(str(problem["error"]), int(problem["exit"]), answer.status)
            except (ValueError, KeyError, TypeError):
                raise AnswerError(
                    f"the relay answered {answer.status} to {path.partition('?')[0]}; see its log", WRONG, answer.status
                ) from None
        return answer


def _parsed(data: bytes, path: Path) -> Any:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        raise AnswerError(f"what answers on {path} is not a mailtui relay", WRONG) from None


def _cleaned(value: Any, lines: bool = False) -> Any:
    """A JSON value with every text in it cleaned; `lines`: line breaks stay."""
    if not lines:
        return clean_value(value)
    if isinstance(value, str):
        return clean_lines(value)
    if isinstance(value, dict):
        return {clean(str(key)): _cleaned(item, True) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, True) for item in value]
    return value


def _gone(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path}: permission denied; run this as the relay's user, or as a member of its group"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return f"no relay answers on {path}"
    if isinstance(error, TimeoutError):
        return f"the relay at {path} says nothing"
    return f"the relay at {path} went away"

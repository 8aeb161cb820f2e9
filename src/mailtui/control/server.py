"""The relay's side of the control socket: HTTP with JSON and JSON Lines on a Unix socket.

Promises: the socket is open to its owner and group only (0660) from the moment it exists; a stale file of a relay that
was killed is replaced, one that answers never is; who asks is known by the kernel's word (SO_PEERCRED); an error is
`{"error": sentence, "exit": status}`. Listings are read page by page and never hold a database transaction meanwhile.
"""

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aiohttp import web

from mailtui import __version__
from mailtui.clock import Clock
from mailtui.control import answers, views
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.reads import DEFAULT_LIMIT, Document
from mailtui.events import Events
from mailtui.model import Why
from mailtui.queue.read import Reader
from mailtui.queue.rows import Row

T = TypeVar("T")
Handler = Callable[[web.Request], Any]

# Rows of a listing that are read in one call: a fraction of a millisecond each, so other readers hardly wait.
PAGE = 500

# How often `log --follow` looks for new events, in seconds: a person does not see it, and a burst is sent in one piece.
FOLLOW = 0.25

# What still runs on the socket when the relay stops gets this long, in seconds.
SHUTDOWN = 1.0


class Live(Protocol):
    """The running relay as the control room sees it."""

    @property
    def settings(self) -> Any: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def events(self) -> Events: ...
    @property
    def router(self) -> Any: ...
    @property
    def hostname(self) -> str: ...
    @property
    def started(self) -> float: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def paused(self) -> str: ...

    async def read(self, work: Callable[[Reader], T]) -> T: ...
    async def scan(self, work: Callable[[Reader], T]) -> T: ...
    def claimed(self) -> list[tuple[int, int]]: ...
    def active(self) -> frozenset[tuple[int, int]]: ...
    def why(self, row: Row) -> Why: ...
    def listeners(self) -> Sequence[Mapping[str, Any]]: ...
    def warnings(self) -> Sequence[Mapping[str, Any]]: ...
    def disk(self) -> Mapping[str, int | None]: ...
    def access_rules(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks, by the kernel's word."""

    pid: int
    uid: int
    gid: int

    @property
    def name(self) -> str:
        """The user's name, or the number of one that has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"


PEER: web.RequestKey[Peer] = web.RequestKey("peer", Peer)


class SocketInUse(OSError):
    """Another relay answers on the socket."""


class ControlServer:
    """Answers on the socket at `path` from `start` to `stop`."""

    def __init__(self, live: Live, path: Path) -> None:
        self.live = live
        self.path = path
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Listen. SocketInUse if another relay does; OSError if the socket cannot be made."""
        sock = bind(self.path)
        try:
            self._inode = os.stat(self.path).st_ino
            app = web.Application(middlewares=[self._answer])
            app.add_routes(self._routes())
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN, handle_signals=False)
            await self._runner.setup()
            assert self._runner.server is not None
            self._server = await asyncio.get_running_loop().create_unix_server(self._runner.server, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def stop(self) -> None:
        """Stop listening, let short answers end, remove the socket if it is still ours."""
        self._stopping.set()
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                self.path.unlink()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self._status),
            web.get("/v1/queue", self._queue),
            web.get("/v1/queue/count", self._count),
            web.get("/v1/queue/messages/{id}", self._message),
            web.get("/v1/queue/why/{id}", self._why),
            web.get("/v1/plan/{target}", self._plan),
            web.get("/v1/trace/{id}", self._trace),
            web.get("/v1/history", self._history),
            web.get("/v1/log", self._log),
            web.get("/v1/access/test", self._access_test),
            web.get("/v1/config", self._config),
        ]

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note who asks; turn errors into the contract's."""
        request[PEER] = peer_of(request)
        try:
            answer = await handler(request)
        except VerbError as error:
            return web.json_response({"error": error.text, "exit": error.exit}, status=error.http)
        except web.HTTPNotFound:
            text = f"{request.path}: there is no such request; is this command newer than the relay?"
            return web.json_response({"error": text, "exit": WRONG}, status=404)
        except web.HTTPMethodNotAllowed:
            text = f"{request.method} {request.path} is not a request; this one is read with GET"
            return web.json_response({"error": text, "exit": WRONG}, status=405)
        except Exception as error:
            # A fault of ours in one answer must not end the others, nor be silent.
            text = f"{request.path}: {type(error).__name__}: {error}"
            self.live.events.emit("control-error", text=text, level="error")
            return web.json_response({"error": f"the relay failed to answer {text}", "exit": NOT_SO}, status=500)
        assert isinstance(answer, web.StreamResponse)
        return answer

    async def _status(self, request: web.Request) -> web.Response:
        live = self.live
        active = live.active()
        totals = await live.read(lambda reader: answers.totals(reader, active))
        return web.json_response(
            views.status(
                running=True,
                pid=os.getpid(),
                version=__version__,
                since=live.started,
                state_dir=str(live.state_dir),
                hostname=live.hostname,
                paused=live.paused,
                listeners=live.listeners(),
                totals=totals,
                rates={name: live.events.count(name) for name in views.RATES},
                disk=live.disk(),
                warnings=live.warnings(),
            )
        )

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        listing = answers.Listing(
            query=answers.parse_query(request.query.get("query", ""), self.live.clock.now()),
            sort=request.query.get("sort", "arrived"),
            reverse=_flag(request, "reverse"),
            after=request.query.get("after", ""),
        )

        async def page(size: int, after: str) -> list[Document]:
            step = replace(listing, limit=size, after=after)
            run = self.live.read if step.instant else self.live.scan
            claimed, active = self.live.claimed(), self.live.active()
            return await run(lambda reader: answers.page(reader, step, claimed, active))

        return await _lines(request, _pages(page, _limit(request), listing.after))

    async def _count(self, request: web.Request) -> web.Response:
        query = answers.parse_query(request.query.get("query", ""), self.live.clock.now())
        instant = query.everything or query.rows is not None
        run = self.live.read if instant else self.live.scan
        claimed, active = self.live.claimed(), self.live.active()
        return web.json_response(await run(lambda reader: answers.count(reader, query, claimed, active)))

    async def _message(self, request: web.Request) -> web.StreamResponse:
        id, spool = request.match_info["id"], self.live.state_dir / "spool"
        if _flag(request, "raw"):
            return await self._raw(request, id, spool)
        transcript, active = _flag(request, "transcript"), self.live.active()
        return web.json_response(
            await self.live.read(
                lambda reader: answers.message(reader, id, spool, transcript=transcript, active=active)
            )
        )

    async def _raw(self, request: web.Request, id: str, spool: Path) -> web.StreamResponse:
        pieces = await self.live.read(lambda reader: answers.content(reader, id, spool))
        loop = asyncio.get_running_loop()

        def piece() -> bytes:
            return next(pieces, b"")

        first = await loop.run_in_executor(None, piece)
        response = web.StreamResponse(headers={"Content-Type": "message/rfc822"})
        await response.prepare(request)
        while first:
            await response.write(first)
            first = await loop.run_in_executor(None, piece)
        return response

    async def _why(self, request: web.Request) -> web.StreamResponse:
        id, active = request.match_info["id"], self.live.active()
        rows = await self.live.read(lambda reader: answers.recipients(reader, id, active))
        return _json_lines([views.why(row, self.live.why(row)) for row in rows])

    async def _plan(self, request: web.Request) -> web.Response:
        address, destination = answers.plan_target(request.match_info["target"])
        plan = await self.live.router.plan(address, destination, "")
        return web.json_response(views.plan(plan, self.live.settings.tls.default))

    async def _trace(self, request: web.Request) -> web.Response:
        id, spool = request.match_info["id"], self.live.state_dir / "spool"
        header = await self.live.read(lambda reader: answers.header(reader, id, spool))
        return web.json_response(answers.trace(header, self.live.hostname, self.live.settings.trace.trusted))

    async def _history(self, request: web.Request) -> web.StreamResponse:
        query = answers.parse_query(request.query.get("query", ""), self.live.clock.now())
        run = self.live.scan if query.conditions else self.live.read

        async def page(size: int, after: str) -> list[Document]:
            return await run(lambda reader: answers.history(reader, query, size, after))

        return await _lines(request, _pages(page, _limit(request), request.query.get("after", "")))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        if _flag(request, "follow"):
            return await _lines(request, self._follow())
        limit, recent = _limit(request), list(self.live.events.recent)
        return _json_lines(await self.live.read(lambda reader: answers.log(reader, recent, limit)))

    async def _follow(self) -> AsyncIterator[list[Document]]:
        """Events from now on. Whoever reads too slowly misses some, and is told how many."""
        events = self.live.events
        seen = events.sequence
        while not self._stopping.is_set():
            new = events.sequence - seen
            seen = events.sequence
            recent = list(events.recent)[-new:] if new else []
            rows = [views.event(event) for event in recent]
            if new > len(recent):
                rows.insert(0, views.event({"at": recent[0]["at"], "event": "gap", "missed": new - len(recent)}))
            yield rows
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), FOLLOW)

    async def _access_test(self, request: web.Request) -> web.Response:
        probe: Document = dict(request.query)
        probe["tls"] = _flag(request, "tls")
        return web.json_response(answers.access_test(self.live.access_rules(), self.live.settings, probe))

    async def _config(self, request: web.Request) -> web.Response:
        return web.json_response(views.config(self.live.settings))


def peer_of(request: web.Request) -> Peer:
    """The process at the other end."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None:
        return Peer(0, -1, -1)
    return Peer(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))))


def bind(path: Path) -> socket.socket:
    """A Unix socket bound to `path`, open to owner and group. SocketInUse, OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as test:
                test.settimeout(1.0)
                try:
                    test.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)  # left by a relay that was killed
                else:
                    raise SocketInUse(f"another relay answers on {path}; stop it, or give this one its own --socket")
        # The umask is the process's: nothing else may run between these lines, and nothing does on the loop's thread.
        before = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.setblocking(False)
        return sock
    except BaseException:
        sock.close()
        raise


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true", "yes")


def _limit(request: web.Request) -> int:
    """Rows asked for; 0 means all."""
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise VerbError("limit is no whole number; for example limit=50, or 0 for all", WRONG)
    return int(text)


async def _pages(page: Callable[[int, str], Any], limit: int, after: str) -> AsyncIterator[list[Document]]:
    """Page after page until there are `limit` rows, or no more."""
    left = limit or 1 << 62
    while left > 0:
        size = min(left, PAGE)
        rows: list[Document] = await page(size, after)
        yield rows
        if len(rows) < size:
            return
        left -= size
        after = rows[-1]["cursor"]


async def _lines(request: web.Request, pages: AsyncIterator[list[Document]]) -> web.StreamResponse:
    """Stream pages as JSON Lines; what goes wrong after the first page is a last line with `error` and `exit`."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    first: list[Document] = await anext(pages, [])
    await response.prepare(request)
    await _write(response, first)
    try:
        async for rows in pages:
            await _write(response, rows)
    except VerbError as error:
        await _write(response, [{"error": error.text, "exit": error.exit}])
    return response


async def _write(response: web.StreamResponse, rows: list[Document]) -> None:
    if rows:
        await response.write("".join(json.dumps(row) + "\n" for row in rows).encode("ascii"))


def _json_lines(rows: list[Document]) -> web.Response:
    return web.Response(
        body="".join(json.dumps(row) + "\n" for row in rows).encode("ascii"), content_type="application/x-ndjson"
    )

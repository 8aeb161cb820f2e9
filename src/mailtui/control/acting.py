"""The requests that act, and the frozen sets that they act on.

`POST /v1/verbs/NAME` takes {query | set, preview, expect, reason, args}; with `keep`, the set of a preview is kept for
the run (`set` in the answer), so that what was counted is what is touched.
"""

import asyncio
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from mailtui.control import answers, orders, views, wire
from mailtui.control.engine import Engine
from mailtui.control.errors import LOST, NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.orders import Wanted
from mailtui.control.peer import PEER
from mailtui.control.reads import Document
from mailtui.control.words import verb_named
from mailtui.queue.database import StoreError
from mailtui.queue.freezing import FrozenSet
from mailtui.queue.sets import LIFE, LostSet, Sets, SetsFull

# Rows of a set in one answer; a client that wants more asks again.
MOST_ROWS = 1000

# Octets of a backup in one piece.
PIECE = 1 << 18


class Acting:
    """Handlers of what acts. `close` when the relay stops."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.engine = Engine(live)
        self.sets = Sets(live.clock)

    async def close(self) -> None:
        await self.engine.close()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/sets", self._freeze),
            web.get("/v1/sets/{set}/rows", self._rows),
            web.get("/v1/sets/{set}/index", self._index),
            web.delete("/v1/sets/{set}", self._drop),
            web.post("/v1/verbs/{verb}", self._verb),
            web.get("/v1/operations", self._operations),
            web.post("/v1/operations/{operation}/undo", self._undo),
        ]

    async def quarantine(self, name: str, reason: str) -> None:
        """What the relay itself orders; what cannot be done is told to the log."""
        want = orders.wanted(verb_named("user.quarantine"), "mailtui", args={"name": name}, reason=reason)
        try:
            await self.engine.run(want)
        except VerbError as error:
            self.live.events.emit("user-quarantine", text=error.text, user=name, level="error")

    # -- frozen sets -------------------------------------------------------------------------------------------------

    async def _freeze(self, request: web.Request) -> web.Response:
        body = await wire.body_of(request)
        query = answers.parse_query(_text(body, "query"), self.live.clock.now())
        sort = _text(body, "sort") or "arrived"
        frozen = await self.engine.freeze(query, sort, bool(body.get("reverse")))
        name = self._keep(request, frozen)
        return web.json_response({"set": name, "count": len(frozen), "instant": query.instant(sort)})

    def _keep(self, request: web.Request, frozen: FrozenSet) -> str:
        try:
            name = self.sets.create(request[PEER].pid, frozen)
        except SetsFull as error:
            raise VerbError(str(error), NOT_SO, 429) from None
        if len(self.sets) == 1:
            self._let_go_later()
        return name

    def _let_go_later(self) -> None:
        """Sets that nobody asks for any more are let go of in time, though nobody asks for another one either."""
        asyncio.get_running_loop().call_later(LIFE, self._let_go)

    def _let_go(self) -> None:
        self.sets.expire()
        if len(self.sets):
            self._let_go_later()

    def _set(self, name: str) -> FrozenSet:
        try:
            return self.sets.get(name)
        except LostSet as error:
            raise VerbError(str(error), NOT_SO, LOST) from None

    async def _rows(self, request: web.Request) -> web.Response:
        frozen = self._set(request.match_info["set"])
        offset, limit = wire.number(request, "offset", 0), min(wire.limit_of(request) or MOST_ROWS, MOST_ROWS)
        rids, active = frozen.rids(offset, limit), self.live.active()
        found = await self.live.read(lambda reader: reader.rows_of(rids, active))
        rows = []
        for index, (rid, row) in enumerate(zip(rids, found, strict=True), offset):
            shown = views.row(row) if row is not None else {**views.rid(*rid), "gone": True}
            rows.append({"index": index, **shown})
        return wire.json_lines(rows)

    async def _index(self, request: web.Request) -> web.Response:
        frozen = self._set(request.match_info["set"])
        number, ordinal = answers.parse_id(request.query.get("rid", ""))
        work = partial(frozen.position, (number, ordinal or 1))
        return web.json_response({"index": await asyncio.to_thread(work)})

    async def _drop(self, request: web.Request) -> web.Response:
        self.sets.drop(request.match_info["set"])
        return web.json_response({})

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def _verb(self, request: web.Request) -> web.StreamResponse:
        verb = verb_named(request.match_info["verb"])
        body = await wire.body_of(request)
        args = body.get("args")
        if args is not None and not isinstance(args, dict):
            raise VerbError("args is no JSON object", WRONG)
        expect = body.get("expect")
        if expect is not None and (isinstance(expect, bool) or not isinstance(expect, int)):
            raise VerbError("expect is no whole number", WRONG)
        want = orders.wanted(
            verb,
            request[PEER].name,
            query=_text(body, "query"),
            frozen=self._set(_text(body, "set")) if body.get("set") else None,
            args=args,
            reason=_text(body, "reason"),
            expect=expect,
        )
        if body.get("preview"):
            found, frozen = await self.engine.preview(want)
            if body.get("keep") and frozen is not None:
                found["set"] = _text(body, "set") or self._keep(request, frozen)
            return web.json_response(found)
        if verb.name == "backup":
            return await self._backup(request, want)
        return web.json_response(await self.engine.run(want))

    async def _operations(self, request: web.Request) -> web.Response:
        found = await self.live.store.operations(wire.limit_of(request) or 1 << 31)
        return wire.json_lines([orders.operation(one) for one in found])

    async def _undo(self, request: web.Request) -> web.Response:
        body = await wire.body_of(request)
        args = {"operation": request.match_info["operation"]}
        want = orders.wanted(verb_named("queue.undo"), request[PEER].name, args=args, reason=_text(body, "reason"))
        return web.json_response(await self.engine.run(want))

    # -- backup ------------------------------------------------------------------------------------------------------

    async def _backup(self, request: web.Request, want: Wanted) -> web.StreamResponse:
        """Into a file of the relay's, named with its whole path; without one the tar is the answer."""
        named = want.values.get("file")
        if named:
            path = Path(str(named))
            if not path.is_absolute():
                raise VerbError(f"backup: {path} is no absolute path; the relay stands in another directory", WRONG)
            size = await self._write_backup(path)
            text = f"{path}, {size} bytes"
            answer = await self.engine.controls.written(want, text)
            return web.json_response({**answer, "bytes": size})
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=self.live.state_dir) as scratch:
            path = Path(scratch, "backup.tar")
            size = await self._write_backup(path)
            await self.engine.controls.written(want, f"{size} bytes")
            response = web.StreamResponse(headers={"Content-Type": "application/x-tar", "Content-Length": str(size)})
            await response.prepare(request)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while piece := await asyncio.to_thread(os.read, fd, PIECE):
                    await response.write(piece)
            finally:
                os.close(fd)
            return response

    async def _write_backup(self, path: Path) -> int:
        try:
            return await self.live.backup(path)
        except (StoreError, OSError) as error:
            raise VerbError(str(error), NOT_SO) from None


def _text(body: Document, name: str) -> str:
    value: Any = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise VerbError(f"{name} is no text", WRONG)
    return value

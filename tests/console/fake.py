"""A relay that is none: the control socket with answers that a test sets, for the console's frame.

Runs in the test's own loop (`async with FakeRelay(path)`) or as a program that takes the options of `serve`.
"""

import argparse
import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

Document = dict[str, Any]


def at(seconds: float = 0.0) -> str:
    """RFC 3339, `seconds` from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def a_status(**changed: Any) -> Document:
    value: Document = {
        "running": True,
        "pid": 4711,
        "version": "0",
        "since": at(-41 * 86400 - 7200),
        "state_dir": "/nowhere",
        "hostname": "relay1.example.org",
        "paused": None,
        "listeners": [{"name": "default", "address": "127.0.0.1:2525", "role": "relay", "tls": "none"}],
        "queue": {
            "queued": 10,
            "active": 62,
            "deferred": 998410,
            "held": 1528,
            "leaving": 0,
            "messages": 900000,
            "recipients": 1000000,
            "bytes": 3 << 30,
            "oldest": at(-4 * 86400 - 7200),
        },
        "rates": {"accepted_1m": 212, "delivered_1m": 340, "deferred_1m": 31, "bounced_1m": 2, "refused_1m": 1},
        "disk": {"free": 61 << 30, "needed": 1 << 30},
        "warnings": [],
    }
    value.update(changed)
    return value


def a_row(number: int = 1, **changed: Any) -> Document:
    value: Document = {
        "id": f"01HZX3V7N8Q{number:02d}",
        "rid": f"01HZX3V7N8Q{number:02d}.0",
        "recipient": f"rcpt{number}@dest1.example",
        "sender": "spammer@x.example",
        "subject": f"Invoice {number}",
        "message_id": "",
        "destination": "dest1.example",
        "next_hop": "[mx1.dest1.example]:25",
        "state": "deferred",
        "size": 8800,
        "arrived": at(-3600),
        "next_attempt": at(600),
        "attempts": 3,
        "last_code": "451",
        "last_enhanced": "4.7.1",
        "last_reply": "greylisted, try later",
        "last_host": "mx1.dest1.example",
        "route": "",
        "client": "192.0.2.1",
        "user": "",
        "held_by": "",
        "expires": at(86400),
        "cursor": str(number),
    }
    value.update(changed)
    return value


def a_destination(name: str, **changed: Any) -> Document:
    value: Document = {
        "destination": name,
        "domains": 1,
        "queued": 0,
        "active": 2,
        "deferred": 1200,
        "held": 3,
        "oldest": at(-90000),
        "window": 20,
        "connections": 2,
        "rate": None,
        "state": "ok",
        "until": None,
        "reason": "",
        "last_reply": "451 4.7.1 greylisted",
        "last_success": at(-600),
    }
    value.update(changed)
    return value


def a_preview(verb: str, count: int, **changed: Any) -> Document:
    lossy = verb in ("queue.bounce", "queue.delete")
    value: Document = {
        "verb": verb,
        "command": f"mailtui {verb.replace('.', ' ')} 'from:spammer@x.example' --yes --expect {count}",
        "messages": count,
        "recipients": count,
        "bytes": 8800 * count,
        "oldest": at(-360000),
        "destinations": 3,
        "sample": [a_row(number) for number in range(1, min(count, 5) + 1)],
        "left_out": [],
        "effects": [
            f"{count} DSNs go to their senders." if verb == "queue.bounce" else "Attempts and expiry are kept."
        ],
        "danger": "lossy" if lossy else "undoable",
        "undo_seconds": 600,
    }
    value.update(changed)
    return value


class FakeRelay:
    """What it is asked stands in `asked`: (method, path, body). Everything public may be changed while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status = a_status()
        self.destinations = [a_destination("dest1.example"), a_destination("dest2.example", deferred=7)]
        self.operations: list[Document] = []
        self.rows = [a_row(number) for number in range(1, 4)]
        self.count = 3
        self.preview: Callable[[str, Document], Document] = lambda verb, body: a_preview(verb, self.count)
        self.asked: list[tuple[str, str, Document]] = []
        self.epoch, self.sequence = "e1", 0
        self.silent = False
        self.gone_sets: set[str] = set()
        self._sets = 0
        self._waiting: list[asyncio.Queue[Document]] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "FakeRelay":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/events", self._events),
                web.get("/v1/log", self._log),
                web.get("/v1/destinations", self._destinations),
                web.get("/v1/operations", self._operations),
                web.post("/v1/operations/{operation}/undo", self._undo),
                web.post("/v1/sets", self._set),
                web.get("/v1/sets/{set}/rows", self._rows),
                web.get("/v1/sets/{set}/index", self._index),
                web.delete("/v1/sets/{set}", self._drop),
                web.post("/v1/verbs/{verb}", self._verb),
                web.get("/v1/queue/messages/{id}", self._message),
                web.get("/v1/queue/why/{id}", self._why),
                web.get("/v1/trace/{id}", self._trace),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self.path.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        for queue in self._waiting:
            queue.put_nowait({})
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.path.unlink(missing_ok=True)

    def say(self, event: str, **fields: Any) -> None:
        """Send an event."""
        self.sequence += 1
        line = {"epoch": self.epoch, "seq": self.sequence, "at": at(), "event": event, **fields}
        for queue in self._waiting:
            queue.put_nowait(line)

    def verbs(self, *, preview: bool) -> list[tuple[str, Document]]:
        """The verbs that were asked for."""
        found = []
        for method, path, body in self.asked:
            if method == "POST" and path.startswith("/v1/verbs/") and bool(body["preview"]) == preview:
                found.append((path.removeprefix("/v1/verbs/"), body))
        return found

    async def _note(self, request: web.Request) -> Document:
        body = await request.json() if request.can_read_body else {}
        self.asked.append((request.method, request.path, body))
        return body

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.status)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        await self._note(request)
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Document] = asyncio.Queue()
        self._waiting.append(queue)
        try:
            while True:
                if not self.silent:
                    line = {"epoch": self.epoch, "seq": self.sequence, "event": "status", "status": self.status}
                    await response.write((json.dumps(line) + "\n").encode())
                try:
                    line = await asyncio.wait_for(queue.get(), 0.1)
                except TimeoutError:
                    continue
                if not line:
                    return response
                await response.write((json.dumps(line) + "\n").encode())
        finally:
            self._waiting.remove(queue)

    async def _log(self, request: web.Request) -> web.Response:
        return _lines([{"at": at(-60), "event": "started", "text": "listens on 127.0.0.1:2525"}])

    async def _destinations(self, request: web.Request) -> web.Response:
        return _lines(self.destinations)

    async def _operations(self, request: web.Request) -> web.Response:
        return _lines(self.operations)

    async def _undo(self, request: web.Request) -> web.Response:
        await self._note(request)
        number = request.match_info["operation"]
        for one in self.operations:
            if one["operation"] == number:
                one["state"] = "undone"
        return web.json_response({"verb": "queue.restore", "operation": "o99", "asked": 3, "done": 3, "left_out": []})

    async def _set(self, request: web.Request) -> web.Response:
        body = await self._note(request)
        if "bad" in body["query"]:
            return web.json_response({"error": "bad: no such term; there are to:, from:", "exit": 2}, status=400)
        self._sets += 1
        return web.json_response({"set": f"s{self._sets}", "count": self.count, "instant": True})

    async def _rows(self, request: web.Request) -> web.Response:
        if request.match_info["set"] in self.gone_sets:
            return web.json_response({"error": "this set is gone; make it again", "exit": 1}, status=410)
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
        return _lines([{**row, "index": offset + n} for n, row in enumerate(self.rows[offset : offset + limit])])

    async def _index(self, request: web.Request) -> web.Response:
        rids = [row["rid"] for row in self.rows]
        rid = request.query.get("rid")
        return web.json_response({"index": rids.index(rid) if rid in rids else None})

    async def _drop(self, request: web.Request) -> web.Response:
        await self._note(request)
        return web.json_response({})

    async def _verb(self, request: web.Request) -> web.Response:
        body, verb = await self._note(request), request.match_info["verb"]
        preview = self.preview(verb, body)
        if "bad" in (body.get("query") or ""):
            return web.json_response({"error": "bad: no such term; there are to:, from:", "exit": 2}, status=400)
        if body["preview"]:
            if body.get("keep") and (body.get("query") or body.get("set")):
                self._sets += not body.get("set")
                preview["set"] = body.get("set") or f"s{self._sets}"
            return web.json_response(preview)
        count = int(preview.get("recipients") or 0)
        number = f"o{len(self.operations) + 1}"
        undo = preview.get("undo_seconds")
        self.operations.insert(
            0,
            {
                "operation": number,
                "verb": verb,
                "command": preview["command"],
                "who": "somebody",
                "at": at(),
                "asked": count,
                "done": count,
                "state": "done",
                "undo_until": at(undo) if undo else None,
                "reason": body.get("reason", ""),
            },
        )
        return web.json_response(
            {
                "verb": verb,
                "command": preview["command"],
                "operation": number,
                "asked": count,
                "messages": count,
                "recipients": count,
                "bytes": 1,
                "done": count,
                "delivered_before": 0,
                "pending": 0,
                "left_out": [],
            }
        )

    async def _message(self, request: web.Request) -> web.Response:
        row = next((row for row in self.rows if row["id"] == request.match_info["id"]), None)
        if row is None:
            return web.json_response(
                {"error": f"{request.match_info['id']} is not in the queue", "exit": 1}, status=404
            )
        envelope = {
            key: row[key] for key in ("id", "sender", "size", "arrived", "client", "user", "subject", "message_id")
        }
        return web.json_response(
            {
                **envelope,
                "helo": "x",
                "listener": "default",
                "protocol": "ESMTP",
                "tls": None,
                "requiretls": False,
                "headers": [["Subject", row["subject"]]],
                "recipients": [row],
                "attempts": [],
            }
        )

    async def _why(self, request: web.Request) -> web.Response:
        return _lines(
            [
                {
                    "id": row["id"],
                    "rid": row["rid"],
                    "recipient": row["recipient"],
                    "state": row["state"],
                    "because": "It waits for its next attempt.",
                    "limiter": "retry-clock",
                    "since": at(-60),
                    "releases": "time",
                    "next_attempt": at(600),
                    "expires": at(86400),
                    "rule": "",
                }
                for row in self.rows
                if row["id"] == request.match_info["id"]
            ]
        )

    async def _trace(self, request: web.Request) -> web.Response:
        return web.json_response({"hops": [], "total_delay": None, "slowest": None, "loop": False, "warnings": []})


def _lines(rows: list[Document]) -> web.Response:
    return web.Response(text="".join(json.dumps(row) + "\n" for row in rows), content_type="application/x-ndjson")


async def serve(path: Path, *, moving: bool, hostile: bool) -> None:
    """As a program, until SIGTERM."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    print(f"mailtui: the fake relay answers on {path}", flush=True)
    async with FakeRelay(path) as relay:
        if hostile:
            evil = "\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\u202e [@click=app.quit]x[/]"
            relay.status = a_status(hostname=evil, warnings=[{"code": "x", "text": evil, "since": at(-60)}])
            relay.destinations = [a_destination(evil, last_reply=evil), a_destination("good.example")]
            relay.rows = [a_row(1, subject=evil, sender=evil, recipient=evil, last_reply=evil)]
        async for number in _ticks(done):
            if moving:
                relay.status["rates"]["accepted_1m"] = 100 + number * 37 % 200
                relay.status["rates"]["delivered_1m"] = 150 + number * 53 % 300
                relay.say(
                    "delivered", id=f"01HZX3V7N8Q{number % 100:02d}", recipient="a@dest1.example", reply="250 2.0.0 ok"
                )


async def _ticks(done: asyncio.Event) -> AsyncIterator[int]:
    number = 0
    while not done.is_set():
        yield (number := number + 1)
        try:
            await asyncio.wait_for(done.wait(), 0.5)
        except TimeoutError:
            pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--moving", action="store_true")
    parser.add_argument("--hostile", action="store_true")
    options = parser.parse_args()
    asyncio.run(serve(options.socket, moving=options.moving, hostile=options.hostile))


if __name__ == "__main__":
    main()

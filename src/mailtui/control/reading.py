"""The requests that only read. Listings are read page by page and never hold a database transaction meanwhile."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from mailtui import __version__
from mailtui.control import access, answers, places, users, views, wire
from mailtui.control.live import Live
from mailtui.control.reads import SEQUENCE, Document
from mailtui.intake.probes import run


async def status_of(live: Live) -> Document:
    """`status` of a running relay."""
    active = live.active()
    totals = await live.read(lambda reader: answers.totals(reader, active))
    return views.status(
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


class Reading:
    """Handlers of what only reads."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/status", self._status),
            web.get("/v1/queue", self._queue),
            web.get("/v1/queue/count", self._count),
            web.get("/v1/queue/messages/{id}", self._message),
            web.get("/v1/queue/why/{id}", self._why),
            web.get("/v1/shape", self._shape),
            web.get("/v1/destinations", self._destinations),
            web.get("/v1/destinations/{name:.+}", self._destination),
            web.get("/v1/routes", self._routes),
            web.get("/v1/routes/test", self._route_test),
            web.get("/v1/users", self._users),
            web.get("/v1/plan/{target}", self._plan),
            web.get("/v1/trace/{id}", self._trace),
            web.get("/v1/history", self._history),
            web.get("/v1/log", self._log),
            web.get("/v1/access/test", self._access_test),
            web.get("/v1/access/grants", self._grants),
            web.get("/v1/access/probes", self._probes),
            web.get("/v1/access/probes/run", self._run_probes),
            web.get("/v1/config", self._config),
        ]

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(await status_of(self.live))

    async def _queue(self, request: web.Request) -> web.StreamResponse:
        listing = answers.Listing(
            query=answers.parse_query(request.query.get("query", ""), self.live.clock.now()),
            sort=request.query.get("sort", "arrived"),
            reverse=wire.flag(request, "reverse"),
            after=request.query.get("after", ""),
        )

        async def page(size: int, after: str) -> list[Document]:
            step = replace(listing, limit=size, after=after)
            run = self.live.read if step.instant else self.live.scan
            claimed, active = self.live.claimed(), self.live.active()
            return await run(lambda reader: answers.page(reader, step, claimed, active))

        return await wire.stream_lines(request, wire.pages(page, wire.limit_of(request), listing.after))

    async def _count(self, request: web.Request) -> web.Response:
        query = answers.parse_query(request.query.get("query", ""), self.live.clock.now())
        instant = query.everything or query.rows is not None
        run = self.live.read if instant else self.live.scan
        claimed, active = self.live.claimed(), self.live.active()
        return web.json_response(await run(lambda reader: answers.count(reader, query, claimed, active)))

    async def _message(self, request: web.Request) -> web.StreamResponse:
        id, spool = request.match_info["id"], self.live.state_dir / "spool"
        if wire.flag(request, "raw"):
            return await self._raw(request, id, spool)
        transcript, active = wire.flag(request, "transcript"), self.live.active()
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
        return wire.json_lines([views.why(row, self.live.why(row)) for row in rows])

    async def _shape(self, request: web.Request) -> web.StreamResponse:
        by, limit, now = request.query.get("by", "dest"), wire.limit_of(request), self.live.clock.now()
        # Only destinations and domains are counted already, and only a page of them is made at once.
        run = self.live.read if by in ("dest", "domain") and limit else self.live.scan
        return await wire.many_lines(request, await run(lambda reader: places.shape(reader, by, now, limit)))

    async def _destinations(self, request: web.Request) -> web.StreamResponse:
        by, limit = places.by_place(request.query.get("by", "domain")), wire.limit_of(request)
        rate = self.live.settings.delivery.rate
        names: list[str] | None = None
        if by == "domain" and limit:
            names = await self.live.read(lambda reader: places.fullest(reader, limit))
        facts = await self.live.destinations(by, names, limit)
        claimed, active = self.live.claimed(), self.live.active()
        run = self.live.scan if names is None else self.live.read
        rows = await run(lambda reader: places.places(reader, by, facts, limit, claimed, active, rate, names))
        return await wire.many_lines(request, rows)

    async def _destination(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        facts = {by: await self.live.destinations(by) for by in ("domain", "hop")}
        claimed, active, rate = self.live.claimed(), self.live.active(), self.live.settings.delivery.rate
        return web.json_response(
            await self.live.scan(lambda reader: places.place(reader, name, facts, claimed, active, rate))
        )

    async def _routes(self, request: web.Request) -> web.Response:
        rows = self.live.routes()
        return wire.json_lines(await self.live.scan(lambda reader: places.routes(reader, rows)))

    async def _users(self, request: web.Request) -> web.Response:
        known = self.live.accounts()
        return wire.json_lines(await self.live.scan(lambda reader: users.rows(known, reader)))

    async def _route_test(self, request: web.Request) -> web.Response:
        target, sender = request.query.get("target", ""), request.query.get("from", "")
        smarthost = self.live.settings.delivery.smarthost
        return web.json_response(places.route_test(self.live.routes(), smarthost, target, sender))

    async def _plan(self, request: web.Request) -> web.Response:
        address, destination = answers.plan_target(request.match_info["target"])
        plan = await self.live.router.plan(address, destination, "")
        return web.json_response(views.plan(plan, self.live.settings.tls.default))

    async def _trace(self, request: web.Request) -> web.Response:
        id, spool = request.match_info["id"], self.live.state_dir / "spool"
        own, trusted = self.live.hostname, self.live.settings.trace.trusted
        # Hostile headers may take a second to read: not on the loop.
        return web.json_response(
            await self.live.read(lambda reader: answers.trace(answers.header(reader, id, spool), own, trusted))
        )

    async def _history(self, request: web.Request) -> web.StreamResponse:
        query = answers.parse_query(request.query.get("query", ""), self.live.clock.now())
        run = self.live.scan if query.conditions else self.live.read

        async def page(size: int, after: str) -> list[Document]:
            return await run(lambda reader: answers.history(reader, query, size, after))

        found = wire.pages(page, wire.limit_of(request), request.query.get("after", ""))
        return await wire.stream_lines(request, found)

    async def _log(self, request: web.Request) -> web.Response:
        """The header says up to which event this log goes, for whoever wants to follow from there."""
        limit, recent, sequence = wire.limit_of(request), list(self.live.events.recent), self.live.events.sequence
        rows = await self.live.read(lambda reader: answers.log(reader, recent, limit))
        return wire.json_lines(rows, **{SEQUENCE: str(sequence)})

    async def _access_test(self, request: web.Request) -> web.Response:
        probe: Document = dict(request.query)
        probe["tls"] = wire.flag(request, "tls")
        return web.json_response(await access.test(self.live, probe))

    async def _grants(self, request: web.Request) -> web.Response:
        return wire.json_lines(access.grant_rows(self.live.grants))

    async def _probes(self, request: web.Request) -> web.Response:
        return wire.json_lines(access.probe_rows(self.live.probes.controls()))

    async def _run_probes(self, request: web.Request) -> web.Response:
        """Of the rules in force."""
        return wire.json_lines(access.outcome_rows(run(self.live.probes.all(), self.live.access_rules())))

    async def _config(self, request: web.Request) -> web.Response:
        return web.json_response(views.config(self.live.settings))

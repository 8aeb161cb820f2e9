"""`/healthz` on `[metrics] listen`: whether a load balancer should send clients to this relay.

Promises: 200 while new mail would be taken; 503 with the reason, in one line, while it would not (draining, disk short,
intake paused); the answer costs no look at the disk of its own and tells nothing about anybody's mail.
"""

import asyncio
import errno
import os
from collections.abc import Callable

from aiohttp import web

from mailtui.intake import inherited
from mailtui.values import parse_endpoint

# Requests that run when the relay stops get this long, in seconds.
SHUTDOWN = 0.5


class Health:
    """`listen` at start and at each reload, `stop` at the end. `ailing` says why no mail is taken, "" if it is."""

    def __init__(self, ailing: Callable[[], str]) -> None:
        self._ailing = ailing
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._where = ""

    @property
    def port(self) -> int:
        """The port that is listened on; 0 for none."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server is not None else 0

    async def listen(self, where: str) -> None:
        """Listen there and nowhere else any more; "" for nowhere. OSError says what is wrong, and changes nothing."""
        if where == self._where:
            return
        server = await self._open(where) if where else None
        if self._server is not None:
            self._server.close()
        self._server, self._where = server, where

    async def _open(self, where: str) -> asyncio.Server:
        if self._runner is None:
            app = web.Application()
            app.add_routes([web.get("/healthz", self._healthz)])
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN, handle_signals=False)
            await self._runner.setup()
        assert self._runner.server is not None
        loop, handler = asyncio.get_running_loop(), self._runner.server
        if where.startswith("systemd:"):
            first, *others = inherited.sockets(where.partition(":")[2])
            for each in others:
                each.close()
            return await loop.create_server(handler, sock=first)
        host, port = parse_endpoint(where)
        try:
            return await loop.create_server(handler, host, port)
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number in errno.errorcode else str(error)
            raise OSError(
                f"[metrics] cannot listen on {where}: {reason}; change listen, or stop what uses it"
            ) from error

    async def _healthz(self, request: web.Request) -> web.Response:
        why = self._ailing()
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=f"{why or 'ok'}\n", status=503 if why else 200, headers=headers)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._where = ""

"""The relay's side of the control socket: HTTP with JSON and JSON Lines on a Unix socket.

Promises: the socket is open to its owner and group only (0660) from the moment it exists; a stale file of a relay that
was killed is replaced, one that answers never is; who asks is known by the kernel's word (SO_PEERCRED); an error is
`{"error": sentence, "exit": status}`. `reading` has the requests that only read, `acting` those that act, `stream` the
events.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web

from mailtui.control import orders
from mailtui.control.acting import Acting
from mailtui.control.errors import NOT_SO, WRONG, VerbError
from mailtui.control.live import Live
from mailtui.control.peer import PEER, peer_of
from mailtui.control.reading import Reading
from mailtui.control.stream import Stream
from mailtui.control.unixsocket import SocketInUse, bind
from mailtui.control.words import verb_named

__all__ = ["PEER", "ControlServer", "Live", "SocketInUse"]

Handler = Callable[[web.Request], Any]

# What still runs on the socket when the relay stops gets this long, in seconds.
SHUTDOWN = 1.0

# Who gives the orders of the relay itself, in the journal.
OURSELVES = "mailtui"


class ControlServer:
    """Answers on the socket at `path` from `start` to `stop`."""

    def __init__(self, live: Live, path: Path) -> None:
        self.live = live
        self.path = path
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._stopping = asyncio.Event()
        self._acting = Acting(live)
        self._parts = (Reading(live), self._acting, Stream(live, self._stopping))

    async def start(self) -> None:
        """Listen. SocketInUse if another relay does; OSError if the socket cannot be made."""
        sock = bind(self.path)
        try:
            self._inode = os.stat(self.path).st_ino
            app = web.Application(middlewares=[self._answer])
            for part in self._parts:
                app.add_routes(part.routes())
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN, handle_signals=False)
            await self._runner.setup()
            assert self._runner.server is not None
            self._server = await asyncio.get_running_loop().create_unix_server(self._runner.server, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def quarantine(self, name: str, reason: str) -> None:
        """Quarantine an account by the relay's own decision, as `mailtui user quarantine` does."""
        await self._acting.quarantine(name, reason)

    async def stop(self) -> None:
        """Stop listening, let short answers end, remove the socket if it is still ours."""
        self._stopping.set()
        with suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                self.path.unlink()
        if self._server is not None:
            self._server.close()
        await self._acting.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def order(self, verb: str, args: dict[str, Any], reason: str) -> None:
        """The relay's own order: done and journalled as an operator's. One that cannot be done is told to the log."""
        try:
            await self._acting.engine.run(orders.wanted(verb_named(verb), OURSELVES, args=args, reason=reason))
        except Exception as error:  # told as one in an answer would be: it is nothing that ends the relay
            text = error.text if isinstance(error, VerbError) else f"{type(error).__name__}: {error}"
            self.live.events.emit("control-error", text=f"{verb} by the relay itself: {text}", level="error")

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
            text = f"{request.method} {request.path} is not a request of this relay; is this command newer?"
            return web.json_response({"error": text, "exit": WRONG}, status=405)
        except Exception as error:
            # A fault of ours in one answer must not end the others, nor be silent.
            text = f"{request.path}: {type(error).__name__}: {error}"
            self.live.events.emit("control-error", text=text, level="error")
            return web.json_response({"error": f"the relay failed to answer {text}", "exit": NOT_SO}, status=500)
        assert isinstance(answer, web.StreamResponse)
        return answer

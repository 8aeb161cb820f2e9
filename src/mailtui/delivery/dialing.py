"""Connected sockets, and a time limit by the relay's clock for what has no deadline of its own.

Promises: every way to fail ends in a sentence that names the address; an expired limit leaves nothing open.
"""

import asyncio
import math
import os
import socket
from types import TracebackType
from typing import Any, Self

from mailtui.clock import Clock
from mailtui.delivery.replies import SessionLost
from mailtui.delivery.watchdog import Watchdog


class TimeLimit:
    """`with TimeLimit(clock, watchdog, seconds):` raises TimeoutError in the current task when the time is over."""

    def __init__(self, clock: Clock, watchdog: Watchdog, seconds: float) -> None:
        self.deadline = clock.monotonic() + seconds
        self._watchdog = watchdog
        self._expired = False
        self._task: asyncio.Task[Any] | None = None

    def overdue(self) -> None:
        self._expired = True
        self.deadline = math.inf
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watchdog.watched.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.watched.discard(self)
        if self._expired and self._task is not None and self._task.uncancel() == 0 and _cancelled(kind):
            raise TimeoutError from error


def _cancelled(kind: type[BaseException] | None) -> bool:
    return kind is not None and issubclass(kind, asyncio.CancelledError)


async def dial(address: str, port: int, source: str, limit: float, clock: Clock, watchdog: Watchdog) -> socket.socket:
    """A connected socket, from `source` if given; SessionLost with the reason if there is none within `limit`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = f"[{address}]:{port}"
    if source and (":" in source) != (":" in address):
        raise SessionLost(f"cannot connect to {where} from {source}: one is IPv4 and the other IPv6")
    return await _connect(family, (address, port), where, (source, 0) if source else None, limit, clock, watchdog)


async def dial_unix(path: str, limit: float, clock: Clock, watchdog: Watchdog) -> socket.socket:
    """As `dial`, for a Unix socket."""
    return await _connect(socket.AF_UNIX, path, path, None, limit, clock, watchdog)


async def _connect(
    family: socket.AddressFamily, peer: tuple[str, int] | str, where: str, source: tuple[str, int] | None,
    limit: float, clock: Clock, watchdog: Watchdog,
) -> socket.socket:  # fmt: skip
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:  # no descriptor left, or no IPv6 on this machine
        raise SessionLost(f"cannot connect to {where}: {_reason(error)}") from error
    sock.setblocking(False)
    try:
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            try:
                sock.bind(source)
            except OSError as error:
                raise SessionLost(f"cannot connect to {where} from {source[0]}: {_reason(error)}") from error
        with TimeLimit(clock, watchdog, limit):
            await asyncio.get_running_loop().sock_connect(sock, peer)
    except TimeoutError as error:
        sock.close()
        text = _reason(error) if error.errno else f"timed out after {limit:g} s"
        raise SessionLost(f"cannot connect to {where}: {text}") from error
    except OSError as error:
        sock.close()
        raise SessionLost(f"cannot connect to {where}: {_reason(error)}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> str:
    """The system's words: asyncio puts its own in their place."""
    return os.strerror(error.errno) if error.errno else str(error)

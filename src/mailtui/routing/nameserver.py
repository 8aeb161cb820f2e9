"""The name servers that the resolver asks: how they are written, and how one is asked.

Promises: a server whose port is closed is noticed at once, one that is silent is known as suspect for a while.
"""

import asyncio
import ipaddress
import math
from typing import Any, cast

import dns.asyncquery
import dns.exception
import dns.inet
import dns.message
import dns.nameserver
import dns.resolver

from mailtui.clock import Clock

# A server that did not answer is asked after the others for this long.
SUSPECT_TIME = 30.0


def parse_nameserver(text: str) -> tuple[str, int]:
    """`10.0.0.1`, `127.0.0.1:5353`, `::1` or `[::1]:53` as (address, port). ValueError otherwise."""
    host, port = text, "53"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"name server {text!r}: write [ADDRESS]:PORT")
        port = rest[1:] or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(f"name server {text!r}: not an IP address; write ADDRESS or ADDRESS:PORT") from None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"name server {text!r}: the port must be 1 to 65535")
    return address, int(port)


def system_nameservers() -> list[tuple[str, int]]:
    """The system's name servers (resolv.conf); this host's own when there are none, as the C library has it."""
    try:
        found = dns.resolver.Resolver().nameservers
    except (dns.exception.DNSException, OSError, ValueError):
        found = []
    return [(server, 53) for server in found if isinstance(server, str)] or [("127.0.0.1", 53)]


def label(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Server(dns.nameserver.Do53Nameserver):
    """A name server asked over a *connected* UDP socket, so that a closed port refuses instead of being silent."""

    def __init__(self, address: str, port: int, clock: Clock) -> None:
        super().__init__(address, port)
        self.label = label(address, port)
        self._clock = clock
        self._silent_until = -math.inf

    def is_suspect(self) -> bool:
        """It did not answer lately: others first."""
        return self._clock.monotonic() < self._silent_until

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool,
        backend: Any,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        try:
            if max_size:
                response = await super().async_query(request, timeout, source, source_port, max_size, backend)
            else:
                response = await self._ask_udp(request, timeout)
        except (dns.exception.Timeout, OSError):
            self._silent_until = self._clock.monotonic() + SUSPECT_TIME
            raise
        self._silent_until = -math.inf
        return response

    async def _ask_udp(self, request: dns.message.QueryMessage, timeout: float) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        destination = dns.inet.low_level_address_tuple((self.address, self.port))
        transport, socket = await loop.create_datagram_endpoint(
            lambda: _ConnectedSocket(destination), remote_addr=(self.address, self.port)
        )
        socket.transport = transport
        try:
            return await dns.asyncquery.udp(
                request,
                self.address,
                timeout,
                self.port,
                sock=cast(Any, socket),
                ignore_unexpected=True,
                ignore_errors=True,
                raise_on_truncation=True,
            )
        finally:
            transport.close()


class _ConnectedSocket(asyncio.DatagramProtocol):
    """What dnspython wants of a datagram socket, over a connected endpoint: the kernel drops what others send."""

    transport: asyncio.DatagramTransport

    def __init__(self, destination: Any) -> None:
        self.family = dns.inet.af_for_address(destination[0])
        self._destination = destination
        self._received: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        self._received.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._received.put_nowait(exc or EOFError("closed"))

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        self.transport.sendto(what)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        try:
            async with asyncio.timeout(timeout):
                item = await self._received.get()
        except TimeoutError:
            raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
        if isinstance(item, Exception):
            raise item
        return item, self._destination

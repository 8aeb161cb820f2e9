"""One listener as its sessions see it: what it is called, what it offers, and whose word it takes.

Promises: what EHLO offers is what is then taken (RFC 5321 section 4.1.1.1); nobody but the front ends that the listener
names can speak for another client (standards P05, X23).
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailtui.intake.commands import ehlo_reply
from mailtui.intake.question import Address, Network
from mailtui.tls.serving import Certificate

if TYPE_CHECKING:
    from mailtui.settings import ListenerSettings


class Door:
    """One listener: its settings and, once open, its servers and the addresses it is bound to."""

    __slots__ = (
        "_ehlo", "_proxies", "_xclients", "address", "auth", "auth_without_tls", "bound", "certificate",
        "demands_auth", "mechanisms", "name", "role", "servers", "tls",
    )  # fmt: skip

    def __init__(self, address: str) -> None:
        self.address = address
        self.servers: list[asyncio.Server] = []  # several only where several sockets were inherited under one name
        self.bound: list[tuple[str, int]] = []

    def take(
        self,
        settings: "ListenerSettings",
        certificate: Certificate | None,
        hostname: str,
        size: int,
        mechanisms: Sequence[str],
    ) -> None:
        """Be as the configuration says; the address stays, and with it every session."""
        self.name: str = settings.name
        self.role: str = settings.role
        self.tls: str = settings.tls  # none | starttls | implicit
        self.certificate = certificate
        self.auth: str = settings.authentication  # off | optional | required
        self.auth_without_tls: bool = settings.auth_without_tls
        self.mechanisms = mechanisms
        self.demands_auth = self.auth == "required"
        self._proxies: tuple[Network, ...] = tuple(settings.proxy_from)
        self._xclients: tuple[Network, ...] = tuple(settings.xclient_from)
        self._ehlo = {
            (starttls, bool(auth), xclient): ehlo_reply(hostname, size, starttls=starttls, auth=auth, xclient=xclient)
            for starttls in (False, True)
            for auth in ((), mechanisms)
            for xclient in (False, True)
        }

    @property
    def context(self) -> ssl.SSLContext | None:
        """What a handshake needs; None if there can be none."""
        return self.certificate.context if self.certificate is not None else None

    def ehlo(self, *, secure: bool, front: Address | None = None) -> bytes:
        """The reply to EHLO. STARTTLS stands in it only when it can begin (RFC 3207 section 4.2)."""
        starttls = not secure and self.tls == "starttls" and self.context is not None
        return self._ehlo[starttls, self.offers_auth(secure=secure), self.believes(front)]

    def offers_auth(self, *, secure: bool) -> bool:
        """Whether AUTH is taken: where it is switched on, and only under TLS unless allowed without (RFC 4954 s. 4)."""
        return self.auth != "off" and (secure or self.auth_without_tls)

    def announces(self, peer: Address | None) -> bool:
        """Whether a connection from `peer` begins with a PROXY header."""
        return bool(self._proxies) and peer is not None and any(peer in network for network in self._proxies)

    def believes(self, front: Address | None) -> bool:
        """Whether `front` may say by XCLIENT who its client is."""
        return bool(self._xclients) and front is not None and any(front in network for network in self._xclients)

    def close(self) -> None:
        """Listen no more; sessions go on."""
        servers, self.servers = self.servers, []
        for server in servers:
            server.close()

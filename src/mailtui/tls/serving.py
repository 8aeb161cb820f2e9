"""Our side of TLS when we are the server: the certificate that we show, and the layer on a client's connection.

Promises: a certificate is taken whole or not at all, and re-read when its files change; one that cannot be used leaves
the one before in place and is warned about, as is one that ends soon. TLS 1.2 is the least (RFC 8996); nothing of a
session but its keys is resumed, since only those are in a ticket.
"""

import asyncio
import hashlib
import os
import ssl
from asyncio.sslproto import SSLProtocol
from typing import TYPE_CHECKING, Any

from mailtui import pem
from mailtui.clock import rfc3339

if TYPE_CHECKING:
    from cryptography import x509

# Before a certificate ends people are told for this long: time for a renewal that needs a person.
EXPIRY_NOTICE = 21 * 86400.0
# What still does not hold is told again after a day.
TELL_AGAIN = 86400.0

# What the files were like: time of change, size and number of each.
Signature = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate with its key, and what is known of it. `context` is None until it could be read once."""

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        """`client_ca`: PEM certificates of those who issue client certificates; clients are asked for one then."""
        self.file = certificate
        self.key = key
        self.client_ca = client_ca
        self.context: ssl.SSLContext | None = None
        self.error = ""  # why the files as they are now cannot be used
        self.failed_at: float | None = None
        self.not_after = 0.0
        self.names: tuple[str, ...] = ()
        self._signature: Signature | None = None
        self._told = ""
        self._told_at = 0.0

    def refresh(self, now: float) -> bool:
        """Read the files if they have changed; True if there is a new certificate now. May block: files."""
        signature = self._look()
        if signature == self._signature:
            return False
        # Taken before the files are read: what changes meanwhile is read the next time.
        self._signature = signature
        try:
            context = server_context(self.file, self.key, self.client_ca)
            leaf = _leaf(self.file)
        except (pem.PemError, OSError, ValueError) as error:
            self.error = str(error)
            self.failed_at = self.failed_at or now
            return False
        self.not_after = leaf.not_valid_after_utc.timestamp()
        self.names = _names(leaf)
        self.error, self.failed_at = "", None
        self.context = context
        return True

    def warning(self, now: float) -> tuple[str, float] | None:
        """What people should do something about, and since when; None if all is well."""
        if self.error:
            kept = "the one read before is still used" if self.context is not None else "no TLS"
            return f"certificate: {self.error}; {kept}", self.failed_at or now
        if self.context is None or now < self.not_after - EXPIRY_NOTICE:
            return None
        day = (rfc3339(self.not_after) or "")[:10]
        if now >= self.not_after:
            return f"certificate {self.file} has ended on {day}; put a new one in its place", self.not_after
        days = int((self.not_after - now) // 86400)
        text = f"certificate {self.file} ends on {day}, in {days} days; put a new one in its place"
        return text, self.not_after - EXPIRY_NOTICE

    def news(self, now: float) -> str:
        """The warning, if it is time to tell it: when it is another one than before, and once a day."""
        found = self.warning(now)
        # Days are counted down in the text; that alone makes no other warning.
        kind = "" if found is None else self.error or ("ended" if now >= self.not_after else "ends")
        if kind == self._told and (not kind or now < self._told_at + TELL_AGAIN):
            return ""
        self._told, self._told_at = kind, now
        return found[0] if found is not None else ""

    def _look(self) -> Signature:
        found = []
        for file in filter(None, (self.file, self.key, self.client_ca)):
            try:
                status = os.stat(file)
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError as error:
                found.append((0, 0, -(error.errno or 1)))
        return tuple(found)


def server_context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """How we speak TLS as a server. Raises pem.PemError.

    The ciphers are Python's: forward secrecy, no CBC with SHA-1, nothing anonymous; it leaves compression off too.
    With `client_ca` clients are asked for a certificate; one of another authority ends the handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996; RFC 8314 section 4.1
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    pem.load(context, certificate, key)
    if client_ca:
        try:
            context.load_verify_locations(cafile=client_ca)
        except OSError as error:  # SSLError is one
            reason = (
                "holds no PEM certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
            )
            raise pem.PemError(client_ca, reason) from None
        context.verify_mode = ssl.CERT_OPTIONAL
        # A ticket would bring the client's certificate back unverified: who has shown one shows it each time.
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    return context


def _leaf(file: str) -> "x509.Certificate":
    """The first certificate of a chain: that of the server."""
    from cryptography import x509  # late: it takes long to import, and only a listener with TLS needs it

    with open(file, "rb") as stream:
        return x509.load_pem_x509_certificates(stream.read())[0]


def _names(leaf: "x509.Certificate") -> tuple[str, ...]:
    """The host names that a certificate is for (RFC 6125 section 6.4)."""
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.get_values_for_type(x509.DNSName))


class ServerLayer(SSLProtocol):
    """TLS between a connection and its session; made by `secure`.

    It is asyncio's, under uvloop too. Measured with CPython 3.11 and uvloop 0.23: a request and its reply of 1 KiB
    cost 18 us here and 31 us with uvloop's own. More than that, uvloop's buffers cannot be bounded: after 1 MB of mail
    a connection that is kept holds 560 KiB, here 90.
    """

    # The buffer that each connection has at once, and the most that is read from it in one go. An idle connection
    # takes 278 KiB with asyncio's 256 KiB, 55 KiB with these 32, 39 KiB with 16; but 16 is too small for a TLS record
    # of full length with its frame (RFC 8446 section 5.2), which makes bulk data a fifth dearer.
    max_size = 32 << 10

    def end_writing(self) -> None:
        """Say that we say no more (close_notify, RFC 8446 section 6.1) and go on reading, as `write_eof` does in TCP.

        `close` of the transport takes what is still on its way from the client for an error and resets the
        connection, and a client that is reset loses the reply it has not read yet.
        """
        if self._transport is None:
            return
        try:
            self._sslobj.unwrap()  # type: ignore[attr-defined]
        except ssl.SSLError:  # mostly: the client has not said so too
            pass
        self._process_outgoing()  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Say that we say no more, and close without waiting until the client says so too."""
        self.end_writing()
        if self._transport is not None:
            self._loop.call_later(self._ssl_shutdown_timeout, self._transport.abort)  # type: ignore[attr-defined]
            self._transport.close()

    def feed(self, data: bytes) -> None:
        """Octets of the client that were read before the layer was there."""
        while data:
            buffer = self.get_buffer(len(data))
            count = min(len(data), len(buffer))
            buffer[:count] = data[:count]
            self.buffer_updated(count)
            data = data[count:]

    def _fatal_error(self, exc: BaseException, message: str = "") -> None:
        """asyncio's resets the connection, so that the client never reads the alert that says what it did wrong."""
        if self._transport is None or not isinstance(exc, ssl.SSLError):
            super()._fatal_error(exc, message)
            return
        self._process_outgoing()  # type: ignore[attr-defined]
        self._loop.call_later(self._ssl_shutdown_timeout, self._transport.abort)  # type: ignore[attr-defined]
        self._transport.close()


def secure(
    transport: asyncio.Transport,
    session: asyncio.Protocol,
    context: ssl.SSLContext,
    over: "asyncio.Future[None]",
    *,
    handshake: float,
    shutdown: float,
) -> ServerLayer:
    """Begin the handshake on a connection. `session.connection_made` is called with the transport that TLS gives.

    `over` is resolved when the handshake has ended in any way; if it failed `connection_lost` is not called.
    `handshake` and `shutdown` are the seconds that each may take. This is no coroutine as `loop.start_tls` is: that
    one leaves a moment in which the client's first octets come to the session as plain text.
    """
    layer: Any = ServerLayer(
        asyncio.get_running_loop(),
        session,
        context,
        over,
        server_side=True,
        ssl_handshake_timeout=handshake,  # type: ignore[arg-type]
        ssl_shutdown_timeout=shutdown,
    )
    transport.set_protocol(layer)
    layer.connection_made(transport)
    found: ServerLayer = layer
    return found


def fingerprint(transport: asyncio.Transport) -> str:
    """The SHA-256 fingerprint, in hexadecimal digits, of the certificate that a client has shown; "" if there is none.

    One is asked for with `client_ca` only, and one that does not hold has ended the handshake: this one was verified.
    """
    certificate = transport.get_extra_info("ssl_object").getpeercert(True)
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


def facts(transport: asyncio.Transport) -> str:
    """What a handshake has led to, as an envelope keeps it: "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
    cipher = transport.get_extra_info("cipher")
    return f"{transport.get_extra_info('ssl_object').version()} {cipher[0]}"

"""TLS in a session: the command STARTTLS (RFC 3207), and listeners that begin with it (RFC 8314 section 3.3).

Promises: what came in plain text and was not worked off before the handshake never is (CVE-2011-0411); after it the
session is as new, but for its errors; a handshake that fails or takes too long ends the connection, which never goes on
in plain text.
"""

import asyncio
import ssl
from typing import TYPE_CHECKING

from mailtui.tls import serving

if TYPE_CHECKING:
    from mailtui.intake.session import Session

# Replies that the client has not read yet: as much as asyncio lets pile up for a connection without TLS.
UNREAD_LIMIT = 64 << 10
# What the layer takes while the session does not read. OpenSSL's buffer grows with it and never shrinks: with asyncio's
# 256 KiB a connection that is kept holds 387 KiB after 1 MB of mail, with these 32 it holds 105.
UNUSED_LIMIT = 32 << 10


def starttls(session: "Session", argument: bytes) -> None:
    """The command STARTTLS, RFC 3207 section 4."""
    if argument:
        return session.fail(501, "5.5.4", "Syntax: STARTTLS")
    if session.secure:
        return session.fail(503, "5.5.1", "TLS is active already")
    if session.door.tls != "starttls":
        return session.fail(502, "5.5.1", "STARTTLS is not offered here")
    if session.transaction is not None:
        return session.fail(503, "5.5.1", "STARTTLS is not allowed within a transaction")
    context = session.door.context
    session.flush()
    if context is None or session.unread:  # what still waits to be sent would be sent within the handshake
        return session.fail(454, "4.7.0", "TLS is not available now, try again later")
    session.send(b"220 2.0.0 Ready to start TLS\r\n")
    session.flush()
    return begin(session, context)


def begin(session: "Session", context: ssl.SSLContext | None, ahead: bytes = b"") -> None:
    """The handshake: until it is over nothing of the session happens. `ahead`: octets of it that have been read."""
    assert session.transport is not None
    if context is None:
        return session.abort()
    timeouts = session.intake.timeouts
    over: asyncio.Future[None] = session.loop.create_future()
    over.add_done_callback(lambda future: _over(session, future))
    session.busy = session.handshaking = True
    session.forget_input()
    session.expect(timeouts.command)  # the handshake has a shorter one of its own
    session.layer = serving.secure(
        session.transport, session, context, over, handshake=timeouts.handshake, shutdown=timeouts.linger
    )
    if ahead:
        session.layer.feed(ahead)
    return None


def secured(session: "Session", transport: asyncio.Transport) -> None:
    """The handshake has succeeded. What the client said before it is forgotten (RFC 3207 section 4.2)."""
    session.handshaking, session.secure = False, True
    session.tls = serving.facts(transport)
    session.certificate = serving.fingerprint(transport)
    transport.set_write_buffer_limits(UNREAD_LIMIT)
    transport.set_read_buffer_limits(UNUSED_LIMIT)  # type: ignore[attr-defined]
    session.transport = transport
    session.helo = session.protocol = session.user = ""
    session.opening = b""
    session.transaction = None
    session.intake.limits.regard(session)
    session.intake.events.emit("tls", level="debug", client=session.client, listener=session.door.name, tls=session.tls)
    if session.greeted:
        session.resume()
    else:
        session.greet(transport)


def _over(session: "Session", handshake: "asyncio.Future[None]") -> None:
    """The handshake has ended. If it has failed nobody else tells the session that its connection is gone."""
    error = handshake.exception()
    if session.secure:
        return
    session.intake.events.emit(
        "tls-failed", client=session.client, listener=session.door.name, text=f"TLS handshake: {_reason(error)}"
    )
    if not isinstance(error, ssl.SSLError):  # for else the layer has an alert to send, and closes
        session.abort()
    session.handshaking = False
    session.connection_lost(None)


def _reason(error: BaseException | None) -> str:
    """Why a handshake has failed, in words. A client that does not like our certificate says so by an alert."""
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.lower().replace("_", " ")
        _, alert, said = words.partition(" alert ")
        return f"the client says {said}" if alert else words
    if isinstance(error, ConnectionAbortedError):
        return "it took too long"
    return "the connection was closed"

"""Clients that speak before they were greeted (RFC 5321 section 4.3.1: the client waits for the greeting).

Whoever does that does not look at replies: a spam engine, or a web page that makes a browser speak to a mail server.
Promises: what was said too early is never worked off for a stranger (standards M14); one who may relay is only noticed,
for scripts of one's own may be as careless, and what they say is then taken in order.
"""

import fcntl
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mailtui.intake.session import Session


def talks(session: "Session", said: bytes) -> bool:
    """Whether a client that has not been greeted yet is to be refused for what it has said. `said`: what was read."""
    if not said and (session.secure or not _arrived(session)):
        return False
    trusted = session.intake.limits.trusts(session)
    session.intake.events.emit(
        "early-talker",
        client=session.client,
        listener=session.door.name,
        text="spoke before it was greeted" + ("" if trusted else ": refused"),
    )
    return not trusted


def refuse(session: "Session") -> None:
    """The greeting of one that cannot be served (RFC 5321 section 3.1), and the end."""
    session.hang_up(554, "5.5.1", "You spoke before the greeting")


def _arrived(session: "Session") -> bool:
    """Whether the kernel holds octets that nobody has read yet."""
    assert session.transport is not None
    sock = session.transport.get_extra_info("socket")
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4))
    except (AttributeError, OSError):  # closed already
        return False
    return int.from_bytes(answer, sys.byteorder) > 0

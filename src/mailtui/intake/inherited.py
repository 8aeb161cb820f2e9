"""Sockets that the service manager opened for us: `address = "systemd:NAME"` (sd_listen_fds(3)).

Promises: only what was passed to this very process is taken, and only if it is a TCP socket that listens; the socket
itself stays open, so that a listener that a reload takes away can come back with the next one.
"""

import os
import socket
from collections.abc import Mapping

# SD_LISTEN_FDS_START: standard input, output and error come before.
FIRST = 3
# What a socket is called whose unit gives it no name.
UNNAMED = "unknown"


class NotInherited(OSError):
    """There is no usable socket of a name; the text says why and what to do."""


def sockets(name: str, environ: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets that were passed under a name, at least one; the caller closes them. Raises NotInherited."""
    found: list[socket.socket] = []
    numbers = _passed(environ)
    for number, its_name in numbers:
        if its_name == name:
            found.append(_taken(number, name, found))
    if not found:
        names = ", ".join(sorted({its_name for _, its_name in numbers}))
        there = f"there are {names}" if names else "none was passed to this process at all"
        raise NotInherited(
            f"no socket {name} was inherited ({there}); start mailtui by a socket unit with FileDescriptorName={name}"
        )
    return found


def _passed(environ: Mapping[str, str]) -> list[tuple[int, str]]:
    """Descriptors and their names."""
    try:
        if int(environ.get("LISTEN_PID", "")) != os.getpid():
            return []
        count = int(environ.get("LISTEN_FDS", ""))
    except ValueError:
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return [(FIRST + index, (names[index] if index < len(names) else "") or UNNAMED) for index in range(max(0, count))]


def _taken(number: int, name: str, before: list[socket.socket]) -> socket.socket:
    """A socket of our own for what a descriptor refers to."""
    try:
        os.set_inheritable(number, False)
        sock = socket.socket(fileno=os.dup(number))
    except OSError as error:
        _close(before)
        raise NotInherited(f"descriptor {number} ({name}) cannot be used: {error.strerror}") from None
    listening = (
        sock.family in (socket.AF_INET, socket.AF_INET6)
        and sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
    if not listening:
        _close([*before, sock])
        raise NotInherited(
            f"descriptor {number} ({name}) is no TCP socket that listens; the unit needs ListenStream=, Accept=no"
        )
    sock.setblocking(False)
    return sock


def _close(found: list[socket.socket]) -> None:
    for sock in found:
        sock.close()

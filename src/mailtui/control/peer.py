"""Who asks on the control socket, by the kernel's word."""

import pwd
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

# What /proc/PID/loginuid says of a process that nobody logged in for.
_NOBODY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end. `login`: the user who logged in, -1 if nobody did or it is not known."""

    pid: int
    uid: int
    gid: int
    login: int = -1

    @property
    def name(self) -> str:
        """For the journal: the user's name, and behind sudo whose login it is."""
        name = _name(self.uid)
        return name if self.login in (-1, self.uid) else f"{_name(self.login)} as {name}"


PEER: web.RequestKey[Peer] = web.RequestKey("peer", Peer)


def peer_of(request: web.Request) -> Peer:
    """The process that sent this request."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return Peer(0, -1, -1)
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Peer(pid, uid, gid, _login(pid))


def _login(pid: int) -> int:
    with suppress(OSError, ValueError):
        found = int(Path(f"/proc/{pid}/loginuid").read_text())
        return -1 if found == _NOBODY else found
    return -1


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"

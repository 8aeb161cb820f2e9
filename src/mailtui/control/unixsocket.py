"""The control socket's file: made for owner and group, and never taken from a relay that answers on it."""

import os
import socket
from pathlib import Path


class SocketInUse(OSError):
    """Another relay answers on the socket."""


def bind(path: Path) -> socket.socket:
    """A Unix socket bound to `path`, open to owner and group. SocketInUse, OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as test:
                test.settimeout(1.0)
                try:
                    test.connect(str(path))
                except ConnectionRefusedError:
                    path.unlink(missing_ok=True)  # left by a relay that was killed
                else:
                    raise SocketInUse(f"another relay answers on {path}; stop it, or give this one its own --socket")
        # The umask is the process's: nothing else may run between these lines, and nothing does on the loop's thread.
        before = os.umask(0o117)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.setblocking(False)
        return sock
    except SocketInUse:
        sock.close()
        raise
    except OSError as error:
        sock.close()
        why = error.strerror or error
        raise OSError(f"cannot make the control socket {path}: {why}; give another one with --socket") from error
    except BaseException:
        sock.close()
        raise

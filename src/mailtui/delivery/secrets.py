"""The passwords for next hops: a file of `host user password` lines (contract.md `[delivery] secrets`).

Promises: the file is read again when it has changed; one that others than its owner can read is refused; no password
ever stands in an error, a repr or a log.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass


class SecretsError(Exception):
    """The file cannot be used, or does not know the user; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What logs us in. `host`: the name under which the operator wrote the password down."""

    host: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.host!r}, {self.user!r})"


class Secrets:
    """The secrets file at `path`; "" stands for none. For use on the loop: the file is small and rarely read."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._read: tuple[int, ...] = ()  # what the file was when it was read: inode, size, times, mode
        self._known: dict[tuple[str, str], str] = {}

    def find(self, hosts: Sequence[str], user: str) -> Credentials:
        """What logs `user` in at the first of `hosts` that the file names. Raises SecretsError."""
        if not self._path:
            raise SecretsError(
                f"no password for {user} at {hosts[0]}: set [delivery] secrets to a file with the line"
                f" '{hosts[0]} {user} PASSWORD'"
            )
        self._refresh()
        for host in hosts:
            password = self._known.get((host.lower(), user))
            if password is not None:
                return Credentials(host, user, password)
        raise SecretsError(
            f"no password for {user} at {hosts[0]}: add the line '{hosts[0]} {user} PASSWORD' to {self._path}"
        )

    def _refresh(self) -> None:
        try:
            found = os.stat(self._path)
            if _identity(found) == self._read:
                return
            with open(self._path, encoding="utf-8") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise SecretsError(f"[delivery] secrets {self._path} is not a file")
                if found.st_mode & 0o077:
                    mode = stat.S_IMODE(found.st_mode)
                    raise SecretsError(
                        f"[delivery] secrets {self._path} can be read by others (mode {mode:04o}): chmod 0600 it"
                    )
                self._known = _parse(file.read(), self._path)
                self._read = _identity(found)
        except OSError as error:
            raise SecretsError(f"[delivery] secrets {self._path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise SecretsError(f"[delivery] secrets {self._path} is not UTF-8 text") from None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def _parse(text: str, path: str) -> dict[tuple[str, str], str]:
    """The lines of the file; blank ones and those that begin with # say nothing. A password may hold blanks, but not
    end with one."""
    known: dict[tuple[str, str], str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.split(None, 2)
        if len(parts) < 3:
            raise SecretsError(f"[delivery] secrets {path}: line {number} is not 'host user password'")
        host, user, password = parts
        known[host.strip("[]").lower(), user] = password
    return known

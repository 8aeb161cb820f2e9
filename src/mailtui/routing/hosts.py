"""The hosts file (hosts(5)), in which names that an operator wrote in brackets are looked up before the DNS."""

import ipaddress
import os
from pathlib import Path

# hosts(5) as every Unix has it.
HOSTS_FILE = Path("/etc/hosts")
# RFC 6761 section 6.3: localhost never goes to the DNS.
_LOCALHOST = ("127.0.0.1", "::1")


class HostsFile:
    """Addresses by name; read again when the file has changed. A file that cannot be read is an empty one."""

    def __init__(self, path: Path = HOSTS_FILE) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[str, list[str]] = {}

    def find(self, name: str) -> tuple[str, ...]:
        """The addresses of a lower-case name, in the order of the file; () if it is not there."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._names = _parse(self._path.read_text("utf-8", "replace"))
                self._stamp = stamp
        except OSError:
            self._names, self._stamp = {}, None
        found = self._names.get(name)
        if found:
            return tuple(found)
        return _LOCALHOST if name == "localhost" or name.endswith(".localhost") else ()


def _parse(text: str) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = str(ipaddress.ip_address(words[0]))
        except ValueError:
            continue
        for name in words[1:]:
            known = names.setdefault(name.lower().removesuffix("."), [])
            if address not in known:
                known.append(address)
    return names

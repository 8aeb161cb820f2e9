"""The recipients that exist at our domains: from a file, or from the word of their next hop (`callout` asks for it).

Mail for an address that does not exist is refused while its client is connected: bounced later, it would hit whoever
was forged as its sender (standards B01, B02, P18).
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from mailtui.address import AddressError, Mailbox, destination_of, parse_mailbox
from mailtui.model import Reply


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a recipient. `refusal` is None if it exists; a temporary one if that could not be found out."""

    refusal: Reply | None = None
    why: str = ""


EXISTS = Known()


class KnownRecipients:
    """The recipients of our domains, from a file: an address a line, `@domain` for all of a domain, `#` comments.

    Local parts are compared without case. `refresh` reads the file again when it has changed; a file that cannot be
    read leaves the last list in force and `error` says so; if there never was one, nothing is known and mail for our
    domains is deferred.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.error = ""
        self.loaded = False
        self._known: frozenset[str] = frozenset()
        self._stamp: tuple[int, int, int] | None = None

    def refresh(self) -> bool:
        """Read the file if it is another one than last time; True if so. Blocks: not for the event loop."""
        try:
            facts = os.stat(self.path)
            stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if stamp == self._stamp:
                return False
            with open(self.path, encoding="utf-8") as file:
                known, errors = _read_recipients(file)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self.error = f"cannot read the recipients file {self.path}: {reason}"
            self._stamp = None
            return False
        self._known, self._stamp, self.loaded = known, stamp, True
        self.error = f"{self.path}: {errors[0]}" if errors else ""
        return True

    def __contains__(self, mailbox: Mailbox) -> bool:
        return (
            f"{mailbox.local.lower()}@{mailbox.destination}" in self._known or f"@{mailbox.destination}" in self._known
        )

    def __len__(self) -> int:
        return len(self._known)


def _read_recipients(lines: Iterable[str]) -> tuple[frozenset[str], list[str]]:
    known: set[str] = set()
    errors: list[str] = []
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            if entry.startswith("@"):
                known.add("@" + destination_of(entry[1:]))
            else:
                mailbox = parse_mailbox(entry.encode(), utf8=True)
                known.add(f"{mailbox.local.lower()}@{mailbox.destination}")
        except AddressError as error:
            errors.append(f"line {number} is no address: {error}; expected user@example.org or @example.org")
    return frozenset(known), errors

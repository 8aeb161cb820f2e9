"""The reserve: a file kept aside, and given back when the disk is full, so that settlements can still be written.

Promises: while it is not kept, new mail is to be refused; half a reserve is never left to take the last room.
"""

import contextlib
import errno
import os
from pathlib import Path

# Kept aside so that settlements can still be written when the disk is full (architecture.md, "Settle").
RESERVE_BYTES = 16 * 1024 * 1024


class Reserve:
    """`kept`: the file is there, or cannot be, so that new mail does not eat it up. Its calls may block."""

    def __init__(self, state_dir: Path) -> None:
        self.kept = False
        self._path = state_dir / "reserve"

    def keep(self) -> None:
        """Put the room aside, if there is any."""
        try:
            if not self._path.exists() or self._path.stat().st_size < RESERVE_BYTES:
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVE_BYTES)
                finally:
                    os.close(fd)
            self.kept = True
        except OSError as error:
            # Some file systems keep nothing aside: then there is no reserve, but mail.
            self.kept = error.errno not in (errno.ENOSPC, errno.EDQUOT)
            self._remove()  # half a reserve would take the last room from the queue

    def release(self) -> None:
        """Give the room back to the queue."""
        self.kept = False
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

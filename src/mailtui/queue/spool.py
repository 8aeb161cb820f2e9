"""Large bodies: one file a message, `<state>/spool/ID`.

Promises: a file has its final name only when its octets are on disk; its rows are committed after that, and deleted
before it is unlinked. So at start a file without rows is rubbish, and rows without their file are held and reported.
Not thread-safe: a SpoolFile is used by one task at a time; all its calls may block for a write.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from mailtui.ids import decode, encode

# Read and written in pieces of this size: large enough that the calls cost nothing beside the copying.
PIECE = 256 * 1024

_TEMPORARY = ".part"


class SpoolFile:
    """A body on its way to disk."""

    def __init__(self, directory: Path, number: int) -> None:
        self.size = 0
        self._final = directory / encode(number)
        self._path = self._final.with_suffix(_TEMPORARY)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def finish(self) -> None:
        """Synced, renamed, and the directory synced: after this the rows may be committed."""
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        os.rename(self._path, self._final)
        directory = os.open(self._final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def abandon(self) -> None:
        """Remove what was written, whatever its name is by now."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._path.unlink(missing_ok=True)
        self._final.unlink(missing_ok=True)


class Spool:
    """The directory of large bodies."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "spool"
        self.directory.mkdir(mode=0o700, exist_ok=True)

    def create(self, number: int) -> SpoolFile:
        return SpoolFile(self.directory, number)

    def path(self, number: int) -> Path:
        return self.directory / encode(number)

    def unlink(self, number: int) -> None:
        self.path(number).unlink(missing_ok=True)

    def pieces(self, number: int) -> Iterator[bytes]:
        """The octets of a message in pieces; FileNotFoundError if it has no file."""
        with open(self.path(number), "rb", buffering=0) as file:
            while piece := file.read(PIECE):
                yield piece

    def head(self, number: int, size: int) -> bytes:
        """The first `size` octets."""
        with open(self.path(number), "rb") as file:
            return file.read(size)

    def reconcile(self, known: set[int]) -> set[int]:
        """At start: remove the files of no known message; returns the known ones whose file is missing."""
        missing = set(known)
        for entry in list(os.scandir(self.directory)):
            try:
                number = decode(entry.name)
            except ValueError:
                number = 0
            if number in known:
                missing.discard(number)
            elif number or entry.name.endswith(_TEMPORARY):
                os.unlink(entry.path)
        return missing

"""Messages of the queue as files, as `queue export` and the console's export write them.

A message is ID.eml as stored, and ID.json with its envelope beside it, which names the recipients that were chosen in
`selected`. Promises: no file is written over, and nobody but the owner can read one (0600); a message that has left the
queue, or whose reading broke off, leaves no half of it behind.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mailtui.control.errors import NOT_SO, VerbError
from mailtui.control.reads import Reads

# What a message's envelope is in its .json: `queue show` without what stands in the .eml.
_LEFT_OUT = ("headers", "attempts")


class Left(Exception):
    """Whoever asked wants no more of it."""


def create(path: Path) -> int:
    """A new file; its descriptor. FileExistsError and other OSErrors."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_message(
    relay: Reads, directory: Path, id: str, rids: list[str], going: Callable[[], bool] = lambda: True
) -> int:
    """Write the message; its octets, 0 if it is gone. OSError; VerbError; Left when it is no longer `going`."""
    size = 0

    def message(file: IO[bytes]) -> None:
        nonlocal size
        for piece in relay.raw(id):
            if not going():
                raise Left
            size += file.write(piece)

    try:
        envelope = relay.message(id, transcript=False)
        kept = {name: value for name, value in envelope.items() if name not in _LEFT_OUT}
        text = json.dumps({**kept, "selected": rids}, indent=2) + "\n"
        path = directory / f"{id}.eml"
        _write(path, message)
        try:
            _write(directory / f"{id}.json", lambda file: file.write(text.encode("ascii")))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except VerbError as error:
        if error.exit != NOT_SO:
            raise
        return 0
    return size


def _write(path: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """A new file that is whole or not there."""
    file = os.fdopen(create(path), "wb")
    try:
        with file:
            fill(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise

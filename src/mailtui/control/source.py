"""Whom a command asks: the running relay if one answers on the socket, else what a stopped one left."""

from pathlib import Path
from typing import TYPE_CHECKING

from mailtui.control.client import Client, Unreachable
from mailtui.control.errors import NOT_RUNNING, WRONG, VerbError

if TYPE_CHECKING:
    from mailtui.control.offline import Offline


def find(state: Path, socket: Path, config: str | None = None) -> "Client | Offline":
    """Client or Offline; VerbError if neither can be asked."""
    client = attach(socket)
    if client is not None:
        return client
    # Imported only now: a command that asks a running relay should not pay for reading the database.
    from mailtui.control.offline import Locked, Offline

    try:
        return Offline(state, config)
    except Locked:
        # It starts, stops, or was given another --socket: in the first case a moment decides.
        raise VerbError(
            f"a relay runs on {state} but does not answer on {socket}; try again, or name its --socket", NOT_RUNNING
        ) from None


def need(socket: Path, what: str) -> Client:
    """The running relay, for a command that needs one. VerbError if none answers."""
    client = attach(socket)
    if client is None:
        raise VerbError(f"{what} needs a running relay, and none runs; start it with mailtui serve", NOT_RUNNING)
    return client


def attach(socket: Path) -> Client | None:
    """The running relay; None if none answers. VerbError if it may not be asked."""
    try:
        return Client(socket)
    except Unreachable:
        return None
    except PermissionError:
        raise VerbError(
            f"{socket}: permission denied; run this as the relay's user, or as a member of its group", WRONG
        ) from None

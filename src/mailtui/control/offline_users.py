"""`mailtui user` where no relay runs: the state directory itself is changed, under the lock that a relay would hold.

Promises: as `users` has them; what is held or released is so when the command ends, and the journal has its line.
"""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mailtui.clock import Clock
from mailtui.control.errors import NOT_RUNNING, WRONG, VerbError
from mailtui.control.offline import load_settings
from mailtui.control.orders import Wanted
from mailtui.control.reads import Document
from mailtui.control.users import changed, named, told
from mailtui.control.words import command_line
from mailtui.queue import accounts
from mailtui.queue.database import LockHeld, StoreError, open_writer, take_lock
from mailtui.queue.tables import journal

if TYPE_CHECKING:
    from mailtui.config import Settings


def run(state: Path, want: Wanted, clock: Clock, config: str | None = None) -> Document:
    """Carry out an order about an account. `config`: the file named by --config. VerbError."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(state)
    except LockHeld:
        raise VerbError(
            f"a relay runs on {state} but does not answer; try again, or name its --socket", NOT_RUNNING
        ) from None
    except OSError as error:
        raise VerbError(f"{state} cannot be written: {error.strerror}; run this as the relay's user", WRONG) from None
    try:
        conn = open_writer(state)
        try:
            return _change(conn, want, clock.now(), lambda: load_settings(config, state))
        finally:
            conn.close()
    except (StoreError, sqlite3.Error) as error:
        raise VerbError(f"the queue in {state} cannot be written: {error}", WRONG) from None
    finally:
        os.close(lock)


def _change(conn: sqlite3.Connection, want: Wanted, now: float, settings: "Callable[[], Settings]") -> Document:
    known = {account.name: account for account in accounts.accounts(conn)}
    name = named(want)
    # Only a quarantine of a name that is not known here asks the configuration.
    unknown = want.verb.name == "user.quarantine" and name not in known
    new = changed(want, known, now, elsewhere=unknown and bool(settings().access.auth_socket))
    recipients = 0
    if want.verb.name == "user.release":
        recipients = accounts.release_mail(conn, name, now)
    if new is None:
        accounts.remove(conn, name)
    else:
        accounts.put(conn, new)
    if want.verb.name == "user.quarantine":
        recipients = accounts.hold_mail(conn, name, now)
    command = command_line(want.verb, args=want.args, reason=want.reason)
    text = told(want, name, known.get(name), recipients)
    row = (now, want.verb.name.replace(".", "-"), want.who, command, "", None, want.reason, text)
    conn.execute(journal.INSERT, row)
    answer: Document = {"verb": want.verb.name, "command": command, "text": text}
    if want.verb.name in ("user.quarantine", "user.release"):
        answer |= {"recipients": recipients, "pending": 0}
    return answer

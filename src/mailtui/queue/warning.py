"""Claims for delay notices: mail that waits behind a next hop that is down, untried, and whose sender is not told yet.

Promises: a step looks at a bounded number of rows in index order and claims at most one message; the cursor that it
gives back never passes over a recipient whose time has not come, so that nobody is looked at again before the start
over. Used by the writer.
"""

from collections.abc import Callable
from typing import NamedTuple

from mailtui.model import Message, Recipient
from mailtui.queue.claims import recipient_of
from mailtui.queue.tables import messages
from mailtui.queue.transaction import Transaction, message_of

# Rows in one step: one or two milliseconds of the writer's time.
PAGE = 200

Cursor = tuple[float, int, int]  # (expires, message, ordinal) of the last recipient looked at

BEGINNING: Cursor = (0.0, 0, 0)

# Above every ordinal: a message that was looked at is passed over with all its recipients that expire together.
ALL_OF_IT = 1 << 31

# Whether this recipient's sender is to be told of a delay: (sender, trusted, NOTIFY).
Wanted = Callable[[str, bool, str], bool]


class Unwarned(NamedTuple):
    """What a step found. `message`: claimed, with its waiting recipients of every destination. `more`: go on."""

    message: Message | None
    cursor: Cursor
    more: bool


def claim_unwarned(
    tx: Transaction, owner: int, destination: str, cursor: Cursor, before: float, wanted: Wanted
) -> Unwarned:
    """The next message for a destination that arrived before `before` (wall time) and whose sender is to be told."""
    number = tx.domains.id(destination)
    rows = tx.conn.execute(messages.UNWARNED, (number, *cursor, PAGE)).fetchall()
    known: dict[int, tuple[str, float, bool]] = {}
    for expires, message, ordinal, warned, notify in rows:
        if warned:
            cursor = (expires, message, ordinal)
            continue
        if message not in known:
            row = tx.conn.execute(messages.SELECT_MESSAGE, (message,)).fetchone()
            known[message] = (row[1], row[2], bool(row[4] & messages.TRUSTED))
        sender, arrived, trusted = known[message]
        if not sender:  # a report: it is never answered, and expires sooner than the mail around it
            cursor = (expires, message, ordinal)
            continue
        if arrived > before:
            return Unwarned(None, cursor, False)  # and whoever comes after it is younger still
        cursor = (expires, message, ordinal)
        if wanted(sender, trusted, notify):
            claimed = claim_waiting(tx, owner, message, before, wanted)
            if claimed is not None:
                return Unwarned(claimed, (expires, message, ALL_OF_IT), True)
    return Unwarned(None, cursor, len(rows) == PAGE)


def claim_waiting(tx: Transaction, owner: int, number: int, before: float, wanted: Wanted) -> Message | None:
    """Claim those recipients of a message, of any destination, whose sender is to be told; None if there are none.

    One claim for all of them, so that one report can name them all."""
    row = tx.conn.execute(messages.SELECT_MESSAGE, (number,)).fetchone()
    if row is None or row[2] > before:
        return None
    recipients: list[Recipient] = [
        recipient_of(found[1:], tx.domains.names[found[0]])
        for found in tx.conn.execute(messages.WAITING_OF_MESSAGE, (number,)).fetchall()
    ]
    recipients = [r for r in recipients if wanted(row[1], bool(row[4] & messages.TRUSTED), r.notify)]
    if not recipients:
        return None
    tx.conn.executemany(messages.CLAIM_RECIPIENT, [(owner, number, r.ordinal) for r in recipients])
    spooled = bool(row[4] & messages.SPOOLED)
    body = None if spooled else tx.conn.execute(messages.SELECT_BODY, (number,)).fetchone()[0]
    return message_of(row, recipients, body)

"""Claims and settlements: what the writer does with recipients between acceptance and the end.

Promises: a claim is a number of the relay's incarnation, without expiry while it lives; a settlement touches only what
is ours; claiming costs an index seek a submitter and a message, whatever the length of the queue.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from mailtui.model import Delays, Message, Outcome, Recipient, Settled, State, TlsFacts
from mailtui.queue.rows import override
from mailtui.queue.tables import attempts, history, messages
from mailtui.queue.transaction import Transaction, VoidClaim, add_counts, count_leaving, message_of

# A claim looks at this many submitters at most: with more, each claim serves the next ones (the cursor goes on).
MAX_SUBMITTERS = 32

# Octets of bodies that one claim loads; the first message is taken whatever its size.
MAX_CLAIM_BYTES = 8 * 1024 * 1024

# A relay that dies before or during an attempt three times in a row may be dying of that message: it waits this long.
INTERRUPTED_DELAY = 300.0

# History keeps at most this much of a reply; the attempt has it whole.
REPLY_LENGTH = 512

Picked = list[int]


def take_over(conn: sqlite3.Connection, owner: int, now: float) -> int:
    """At start: become the owner; void the claims of earlier incarnations. Returns how many there were."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        interrupted = 0
        clean = conn.execute(messages.GET_META, (messages.CLEAN,)).fetchone()
        if clean is None or not clean[0]:
            conn.execute(messages.INTERRUPTED_ATTEMPTS, (now,))
            interrupted = conn.execute(messages.VOID_CLAIMS, (now, INTERRUPTED_DELAY)).rowcount
        conn.execute(messages.SET_META, (messages.OWNER, owner))
        conn.execute(messages.SET_META, (messages.CLEAN, 0))
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return interrupted


def mark_clean(tx: Transaction) -> None:
    """At the end: if nothing is claimed indeed, the next start need not look for claims."""
    if tx.conn.execute(messages.ANY_CLAIMED).fetchone() is None:
        tx.conn.execute(messages.SET_META, (messages.CLEAN, 1))


def hold_without_body(conn: sqlite3.Connection, missing: set[int]) -> None:
    """At start: recipients of messages whose spool file is gone are held, not lost silently."""
    if not missing:
        return
    conn.execute("BEGIN IMMEDIATE")
    changes: Counter[tuple[int, int, int]] = Counter()
    for number in missing:
        arrived = conn.execute(messages.SELECT_MESSAGE, (number,)).fetchone()[2]
        slot = int(arrived // messages.SLOT)
        for destination, state in conn.execute(messages.STATES_OF_MESSAGE, (number,)).fetchall():
            changes[destination, state, slot] -= 1
            changes[destination, int(State.HELD), slot] += 1
        conn.execute(messages.HOLD_WITHOUT_BODY, (number,))
    add_counts(conn, changes)
    count_leaving(conn, missing)
    conn.execute("COMMIT")


def heads(conn: sqlite3.Connection) -> list[tuple[str, float]]:
    """At start: every destination with parked work and when its first recipient is due; one seek each."""
    found = []
    for number, name in conn.execute(messages.PARKED_DESTINATIONS).fetchall():
        row = conn.execute(messages.NEXT_DUE, (number,)).fetchone()
        if row is not None:
            found.append((name, row[0]))
    return found


def claim_due(
    tx: Transaction, owner: int, destination: str, count: int, now: float, cursor: str
) -> tuple[list[Message], float | None, str]:
    """Claim up to `count` messages that are due, fresh before retried, round-robin over submitters after `cursor`.

    Where the submitters whose turn it is leave room, it goes to what has been due longest: no claim is in vain, and
    with any number of submitters nobody waits for ever."""
    number = tx.domains.id(destination)
    picked: Picked = []
    for state in (State.QUEUED, State.DEFERRED):
        if len(picked) < count:
            cursor = _pick(tx.conn, number, state, count, now, cursor, picked)
    if len(picked) < count:
        first = (row[0] for row in tx.conn.execute(messages.DUE_FIRST, (number, now, count)).fetchall())
        picked = list(dict.fromkeys((*picked, *first)))[:count]
    claimed = _claim(tx, owner, number, destination, picked, now)
    if len(claimed) < len(picked):
        cursor = claimed[-1].recipients[0].submitter  # who did not fit is next
    row = tx.conn.execute(messages.NEXT_DUE, (number,)).fetchone()
    return claimed, row[0] if row else None, cursor


def claim_expired(tx: Transaction, owner: int, destination: str, count: int, now: float) -> list[Message]:
    """Claim up to `count` messages with recipients that are due and past their expiry."""
    number = tx.domains.id(destination)
    rows = tx.conn.execute(messages.OVERDUE, (number, now, now, count)).fetchall()
    return _claim(tx, owner, number, destination, [row[0] for row in dict.fromkeys(rows)], now)


def _pick(
    conn: sqlite3.Connection, destination: int, state: State, count: int, now: float, cursor: str, picked: Picked
) -> str:
    """Due messages of one state: equal shares of the next submitters, then what the first ones have more."""
    submitters: list[str] = []
    after, wrapped = cursor, False
    while len(submitters) < min(MAX_SUBMITTERS, count):
        row = conn.execute(messages.NEXT_SUBMITTER, (destination, int(state), after)).fetchone()
        if row is None or (wrapped and row[0] > cursor):
            if wrapped or not cursor:
                break
            after, wrapped = "", True
        else:
            submitters.append(after := row[0])
    if not submitters:
        return cursor
    room = count - len(picked)
    due = {
        s: [r[0] for r in conn.execute(messages.DUE_OF_SUBMITTER, (destination, int(state), s, now, room))]
        for s in submitters
    }
    seen = set(picked)
    served = cursor
    turn = 0
    while len(picked) < count and any(turn < len(found) for found in due.values()):
        for submitter, found in due.items():
            if turn < len(found) and len(picked) < count and found[turn] not in seen:
                seen.add(found[turn])
                picked.append(found[turn])
                served = submitter
        turn += 1
    # With nothing due among these submitters, the next claim looks at the ones after them.
    return served if picked else submitters[-1]


def _claim(tx: Transaction, owner: int, number: int, destination: str, picked: Picked, now: float) -> list[Message]:
    claimed: list[Message] = []
    size = 0
    for message in picked:
        row = tx.conn.execute(messages.SELECT_MESSAGE, (message,)).fetchone()
        spooled = bool(row[4] & messages.SPOOLED)
        if claimed and not spooled and size + row[3] > MAX_CLAIM_BYTES:
            break
        body = None if spooled else tx.conn.execute(messages.SELECT_BODY, (message,)).fetchone()[0]
        size += 0 if spooled else row[3]
        recipients = [
            recipient_of(found, destination)
            for found in tx.conn.execute(messages.DUE_OF_MESSAGE, (message, number, now)).fetchall()
        ]
        tx.conn.executemany(messages.CLAIM_RECIPIENT, [(owner, message, r.ordinal) for r in recipients])
        whole = message_of(row, recipients, body)
        if len(recipients) == 1:
            whole.alone = tx.conn.execute(messages.COUNT_RECIPIENTS, (message,)).fetchone()[0] == 1
        claimed.append(whole)
    return claimed


def recipient_of(row: tuple[object, ...], destination: str) -> Recipient:
    """A recipient as read back from its row (the columns of DUE_OF_MESSAGE)."""
    (ordinal, state, due, expires, attempted, interruptions, warned, code, address, submitter, notify, orcpt, held_by,
     enhanced, reply, host, route) = row  # fmt: skip
    return Recipient(
        ordinal, address, destination, submitter, notify, orcpt, State(state), due, expires, attempted, interruptions,  # type: ignore[arg-type]
        code, enhanced, reply, host, bool(warned), held_by, override(route),  # type: ignore[arg-type]
    )  # fmt: skip


# -- settling --------------------------------------------------------------------------------------------------------


def settle(
    tx: Transaction,
    message: Message,
    settled: Sequence[Settled],
    owner: int,
    now: float,
    *,
    whole: bool,
    unlink: Callable[[], None] | None,
) -> None:
    """Write the end of an attempt for some recipients of a message; with the last one, the message goes too."""
    envelope = message.envelope
    left = False
    for s in settled:
        r, verdict, attempt = s.recipient, s.verdict, s.attempt
        destination = tx.domains.id(r.destination)
        tried = attempt.finished > 0  # else an operator gave it up: that was no attempt
        if verdict.outcome is not Outcome.DELIVERED and tried:
            tx.add_attempt(
                (
                    message.id, r.ordinal, attempt.started, attempt.finished, attempt.reused, verdict.code,
                    attempt.host, attempt.address, verdict.enhanced, verdict.reply, tls_json(attempt.tls),
                    _delays_json(attempt.delays), attempt.transcript,
                )
            )  # fmt: skip
        if verdict.outcome is Outcome.DEFERRED:
            _keep(tx, message, s, owner, now, destination)
            continue
        left = True
        result = history.DELIVERED if verdict.outcome is Outcome.DELIVERED else history.BOUNCED
        if s.deleted:
            result = history.DELETED
        tx.add_history(
            (
                message.id, r.ordinal, destination, result, now, envelope.arrived, verdict.code, r.attempts + tried,
                envelope.sender, r.address, envelope.subject, envelope.message_id, attempt.host, verdict.enhanced,
                verdict.reply[:REPLY_LENGTH], s.remote_id, tls_json(attempt.tls),
            )
        )  # fmt: skip
        tx.remove(message.id, r, owner, envelope.arrived)
    if left:
        tx.remove_message(message.id, envelope.size, whole=whole, unlink=unlink)


def _keep(tx: Transaction, message: Message, s: Settled, owner: int, now: float, destination: int) -> None:
    """A deferral, or a hold: back into the parking."""
    r, verdict = s.recipient, s.verdict
    arrived = message.envelope.arrived
    if s.due is None:
        changed = tx.conn.execute(
            messages.HOLD_RECIPIENT, (now, s.held_by, verdict.reply, message.id, r.ordinal, owner)
        ).rowcount
        state = State.HELD
    else:
        hop = tx.domains.id(s.hop) if s.hop else 0
        changed = tx.conn.execute(
            messages.DEFER_RECIPIENT,
            (s.due, r.attempts + 1, verdict.code, now, hop, s.route, verdict.enhanced, verdict.reply,
             s.attempt.host, s.warned, message.id, r.ordinal, owner),
        ).rowcount  # fmt: skip
        state = State.DEFERRED
    if not changed:
        raise VoidClaim(f"a settlement of {r.address} names a claim that is not its own")
    if state is not r.state:
        tx.count(destination, r.state, arrived, -1)
        tx.count(destination, state, arrived, 1)


@lru_cache(maxsize=256)
def tls_json(facts: TlsFacts) -> str:
    """The contract's `tls` object of an attempt; the same few facts come again and again."""
    return json.dumps(
        {
            "wanted": facts.wanted,
            "reached": facts.reached,
            "protocol": facts.protocol,
            "cipher": facts.cipher,
            "verified_by": facts.verified_by,
            "why": facts.why,
        }
    )


def _delays_json(delays: Delays) -> str:
    return json.dumps(
        {
            "before_queue": round(delays.before_queue, 3),
            "queued": round(delays.queued, 3),
            "connect": round(delays.connect, 3),
            "transmit": round(delays.transmit, 3),
        }
    )


# -- pruning ---------------------------------------------------------------------------------------------------------


def prune(tx: Transaction, *, now: float, keep: float, rows: int, transcripts: float, step: int) -> bool:
    """One step: history past its age or number, attempts past the same age, transcripts past theirs.

    Returns whether there is more to do. The newest attempt stays: its number must not be given again, for FORGOTTEN
    counts by them."""
    conn = tx.conn
    more = False
    newest = conn.execute(history.NEWEST).fetchone()[0] or 0
    cut = 0
    found = conn.execute(history.OLDEST, (step,)).fetchall()
    for seq, at in found:
        if at < now - keep or seq <= newest - rows:
            cut = seq
    if cut:
        conn.execute(history.PRUNE, (cut,))
        more = len(found) == step and cut == found[-1][0]
    newest = conn.execute(attempts.NEWEST).fetchone()[0] or 0
    found = conn.execute(attempts.OLDEST, (0, step)).fetchall()
    cut = max((seq for seq, at in found if at < now - keep and seq < newest), default=0)
    if cut:
        conn.execute(attempts.PRUNE, (cut,))
        more = more or (len(found) == step and cut == found[-1][0])
    row = conn.execute(messages.GET_META, (attempts.FORGOTTEN,)).fetchone()
    done = row[0] if row else 0
    found = conn.execute(attempts.OLDEST, (done, step)).fetchall()
    cut = max((seq for seq, at in found if at < now - transcripts), default=0)
    if cut:
        conn.execute(attempts.FORGET_TRANSCRIPTS, (done, cut))
        conn.execute(messages.SET_META, (attempts.FORGOTTEN, cut))
        more = more or (len(found) == step and cut == found[-1][0])
    return more

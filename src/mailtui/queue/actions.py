"""What operators do to recipients: hold, release, retry, defer, bounce, delete, reroute, restore, and undo.

An operation (operations.py) is carried out in calls of `act`, each for at most 1,000 recipients and in one
transaction: recipients, counters and the operation's own count are committed together, so that after a crash every
recipient is finished or untouched. Promises: only parked recipients are changed (a claimed one is named, for the
caller to withdraw it); whatever a verb does not name stays as it was; nothing here walks the queue.

contract.md "Words": bounce and delete leave at the end of the grace, until then `restore` gives back state and clock;
release gives them back as before the hold; retry and defer touch no count and no expiry.
"""

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from mailtui.model import Message, Recipient, State
from mailtui.queue.claims import MAX_CLAIM_BYTES
from mailtui.queue.operations import UNDOABLE, Operation, Rid, operation
from mailtui.queue.tables import actions as sql
from mailtui.queue.tables import messages
from mailtui.queue.transaction import Transaction, message_of

# Recipients in one call, at most. A bulk operation takes CHUNK of them at a time: an acceptance waits for the whole
# chunk before it, and of a million 25 are written and synced in 8 to 15 ms (100 in 15 to 35): nobody should notice.
MOST = 1000
CHUNK = 25

HOW = {"bounce": messages.LEAVE_BOUNCE, "delete": messages.LEAVE_DELETE}

# Reasons for leaving a recipient out, in the operator's words.
HELD, LEAVING, ALREADY_HELD, ALREADY_LEAVING = "held", "leaving", "already held", "already leaving"
NOT_HELD, NOT_LEAVING, GRACE_OVER = "not held", "not leaving", "its grace has ended"
CHANGED, NOT_UNDOABLE = "changed since", "cannot be undone"


@dataclass(frozen=True, slots=True)
class Action:
    """What to do to recipients. Times are seconds since the epoch."""

    verb: str  # hold | release | retry | defer | bounce | delete | reroute | restore | undo
    operation: int = 0  # its number; 0: nobody's, nothing is counted
    who: str = ""  # held_by of what is held
    reason: str = ""  # for the caller; the store has the operation's
    until: float | None = None  # defer: the next attempt
    route: str = ""  # reroute: the ROUTE target; "" gives the route table its say again
    leaves: float | None = None  # bounce, delete: the end of the grace; None: at once
    undoes: int = 0  # undo: the number of the operation to take back


@dataclass(slots=True)
class Acted:
    """What became of each recipient asked for, and what the scheduler must know."""

    done: list[Rid] = field(default_factory=list)
    gone: list[Rid] = field(default_factory=list)  # not in the queue any more
    claimed: list[Rid] = field(default_factory=list)  # in the memory of the scheduler: untouched
    left_out: dict[str, list[Rid]] = field(default_factory=dict)  # by reason
    due: dict[str, float] = field(default_factory=dict)  # destination -> the earliest attempt that was given here


@dataclass(frozen=True, slots=True)
class Leaving:
    """Recipients of one message whose grace is over, claimed; all given up by the same operation.

    `message.body` is there for a bounce; for a delete it is empty, or None if it is in the spool."""

    message: Message
    verb: str  # bounce | delete
    operation: int
    who: str
    reason: str


class Row(NamedTuple):
    """A recipient as tables.actions.NAMED selects it: state and clock, and what they would be given back as."""

    message: int
    ordinal: int
    claimed: int
    state: int
    destination: int
    slot: int  # of its arrival, for the counters
    released: int
    released_due: float
    restored: int
    restored_due: float | None
    over: int  # a leaving one: its grace has ended
    operation: int
    due_as_set: int  # due is :until, as a deferral set it
    route_as_set: int  # route is :route
    kept_due: float | None


class Change(NamedTuple):
    """The statement that makes it, and state and clock after it."""

    statement: str
    state: int
    due: float | None = None


Decide = Callable[[Row, Action, float], "Change | str"]


def act(tx: Transaction, action: Action, rids: Sequence[Rid], now: float) -> Acted:
    """Do it to parked recipients, at most 1,000 a call. ValueError for an action that lacks something."""
    if len(rids) > MOST:
        raise ValueError(f"at most {MOST} recipients a call, not {len(rids)}")
    past = operation(tx.conn, action.undoes) if action.verb == "undo" else None
    decide = _undo(past) if action.verb == "undo" else _VERBS.get(action.verb)
    if decide is None or (action.verb == "defer" and action.until is None):
        raise ValueError(f"no such action: {action}")
    wanted = dict.fromkeys((int(message), int(ordinal)) for message, ordinal in rids)
    until, route = (past.until, past.route) if past else (action.until, action.route)
    facts: dict[str, object] = {"now": now, "until": until, "route": route}
    acted = Acted()
    changes: dict[str, list[Rid]] = {}
    found = tx.conn.execute(sql.NAMED, {**facts, "rids": json.dumps(list(wanted))}).fetchone()[0]
    for row in map(Row._make, json.loads(found)):
        rid = (row.message, row.ordinal)
        del wanted[rid]
        if row.claimed:
            acted.claimed.append(rid)
            continue
        change = decide(row, action, now)
        if isinstance(change, str):
            acted.left_out.setdefault(change, []).append(rid)
            continue
        acted.done.append(rid)
        changes.setdefault(change.statement, []).append(rid)
        if change.state != row.state:
            tx.count(row.destination, State(row.state), row.slot * messages.SLOT, -1)
            tx.count(row.destination, State(change.state), row.slot * messages.SLOT, 1)
            if State.LEAVING in (row.state, change.state):
                tx.note_leaving(row.message)
        if change.due is not None:
            name = tx.domains.names[row.destination]
            acted.due[name] = min(change.due, acted.due.get(name, change.due))
    acted.gone.extend(wanted)
    facts |= {
        "who": action.who,
        "operation": action.operation or None,
        "undoes": action.undoes,
        "leaves": now if action.leaves is None else action.leaves,
        "leave_as": HOW.get(action.verb),
    }
    for statement, changed in changes.items():
        values = {**facts, "rids": json.dumps(changed)}
        if statement is sql.REROUTE and action.operation:
            tx.conn.execute(sql.KEEP_ROUTES, values)
        tx.conn.execute(statement, values)
    if acted.done and action.operation:
        tx.conn.execute(sql.ADD_DONE, (len(acted.done), action.operation))
    if acted.done and past is not None:
        tx.conn.execute(sql.ADD_UNDONE, (len(acted.done), past.number))
    return acted


# -- the verbs: what becomes of one recipient, or why it is left out -------------------------------------------------


def _hold(row: Row, action: Action, now: float) -> Change | str:
    if row.state >= State.HELD:
        return ALREADY_HELD if row.state == State.HELD else LEAVING
    return Change(sql.HOLD, State.HELD)


def _release(row: Row, action: Action, now: float) -> Change | str:
    """As before the hold; a hold of the relay's own (a route, a missing body) kept nothing: then due at once."""
    if row.state != State.HELD:
        return LEAVING if row.state == State.LEAVING else NOT_HELD
    return Change(sql.RELEASE, row.released, row.released_due)


def _retry(row: Row, action: Action, now: float) -> Change | str:
    return _waits(row) or Change(sql.RETRY, row.state, now)


def _defer(row: Row, action: Action, now: float) -> Change | str:
    return _waits(row) or Change(sql.DEFER, row.state, action.until)


def _waits(row: Row) -> str:
    """Why a recipient has no clock; "" if it has."""
    return {int(State.HELD): HELD, int(State.LEAVING): LEAVING}.get(row.state, "")


def _leave(row: Row, action: Action, now: float) -> Change | str:
    return ALREADY_LEAVING if row.state == State.LEAVING else Change(sql.LEAVE, State.LEAVING)


def _restore(row: Row, action: Action, now: float) -> Change | str:
    if row.state != State.LEAVING:
        return NOT_LEAVING
    return GRACE_OVER if row.over else Change(sql.RESTORE, row.restored, row.restored_due)


def _reroute(row: Row, action: Action, now: float) -> Change | str:
    return LEAVING if row.state == State.LEAVING else Change(sql.REROUTE, row.state)


_VERBS: dict[str, Decide] = {
    "hold": _hold,
    "release": _release,
    "retry": _retry,
    "defer": _defer,
    "bounce": _leave,
    "delete": _leave,
    "reroute": _reroute,
    "restore": _restore,
}


def _undo(past: Operation | None) -> Decide:
    """Take an operation back where a recipient is still as that operation left it."""

    def undo(row: Row, action: Action, now: float) -> Change | str:
        if past is None or past.verb not in UNDOABLE:
            return NOT_UNDOABLE
        if row.operation != past.number:
            return CHANGED
        if past.verb in HOW:
            return _restore(row, action, now) if row.state == State.LEAVING else CHANGED
        if past.undo_until is None or past.undo_until <= now:
            return NOT_UNDOABLE
        if past.verb == "hold" and row.state == State.HELD:
            return _release(row, action, now)
        if past.verb == "defer" and row.due_as_set and row.kept_due is not None:
            return Change(sql.UNDO_DEFER, row.state, row.kept_due)
        if past.verb == "reroute" and row.state != State.LEAVING and row.route_as_set:
            return Change(sql.UNDO_REROUTE, row.state)
        return CHANGED

    return undo


# -- the end of the grace --------------------------------------------------------------------------------------------


def next_leaving(conn: sqlite3.Connection) -> float | None:
    """When the next grace ends (maybe long ago); None if nothing is leaving."""
    row = conn.execute(sql.NEXT_LEAVING).fetchone()
    return row[0] if row else None


def claim_leaving(tx: Transaction, owner: int, now: float, count: int) -> list[Leaving]:
    """Claim about `count` recipients whose grace is over, the longest over first; all of a message together.

    At most 8 MiB of bodies, but at least one message. `claims.settle` ends them."""
    found = tx.conn.execute(sql.OVER, (now, count)).fetchall()
    claimed: list[Leaving] = []
    size = 0
    for (number,) in dict.fromkeys(found):
        row = tx.conn.execute(messages.SELECT_MESSAGE, (number,)).fetchone()
        over = tx.conn.execute(sql.OVER_OF_MESSAGE, (number, now)).fetchall()
        spooled = bool(row[4] & messages.SPOOLED)
        wants_body = not spooled and any(r[0] == messages.LEAVE_BOUNCE for r in over)
        if wants_body:
            if claimed and size + row[3] > MAX_CLAIM_BYTES:
                break
            size += row[3]
        body = tx.conn.execute(messages.SELECT_BODY, (number,)).fetchone()[0] if wants_body else b""
        alone = len(over) == 1 and tx.conn.execute(messages.COUNT_RECIPIENTS, (number,)).fetchone()[0] == 1
        tx.conn.executemany(messages.CLAIM_RECIPIENT, [(owner, number, r[4]) for r in over])
        for (how, operated, who, reason), rows in groupby(sorted(over, key=lambda r: r[:2]), key=lambda r: r[:4]):
            message = message_of(row, [_recipient(r[4:]) for r in rows], None if spooled else body)
            message.alone = alone
            verb = "bounce" if how == messages.LEAVE_BOUNCE else "delete"
            claimed.append(Leaving(message, verb, operated, who, reason))
    return claimed


def _recipient(row: tuple[object, ...]) -> Recipient:
    """The rest of a row of OVER_OF_MESSAGE."""
    made = Recipient(*row)  # type: ignore[arg-type]
    made.state, made.warned = State(made.state), bool(made.warned)
    return made

"""What operators did to recipients: a row an operation, and what is needed to take it back.

`recipients.operation` names the latest operation that changed a recipient; `until`, `route` and `leaves` are what the
operation set there, so that an undo can tell its own work from what came after. `rerouted` has the route that a
recipient had before (left out where it had none). `ended` is NULL while an operation runs; `done` and `undone` are
counted in the transactions that change the recipients. `undo_until` is NULL for what cannot be undone.
"""

SCHEMA = """
CREATE TABLE operations (
    number INTEGER PRIMARY KEY,
    verb TEXT NOT NULL,
    command TEXT NOT NULL,
    query TEXT NOT NULL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    begun REAL NOT NULL,
    ended REAL,
    interrupted INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    done INTEGER NOT NULL,
    delivered_before INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    undone INTEGER NOT NULL,
    undo_until REAL,
    undoes INTEGER NOT NULL,
    until REAL,
    route TEXT NOT NULL,
    leaves REAL
) STRICT;

CREATE INDEX open_operations ON operations (number) WHERE ended IS NULL OR pending > 0;

CREATE TABLE rerouted (
    operation INTEGER NOT NULL,
    message INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    route TEXT NOT NULL,
    PRIMARY KEY (operation, message, ordinal)
) STRICT, WITHOUT ROWID;

CREATE INDEX parked_by_operation ON recipients (operation) WHERE claim = 0 AND operation IS NOT NULL;
"""

# --- recipients ---------------------------------------------------------------------------------------------------
#
# One statement a chunk, whatever its size: stepping through rows hands the interpreter to and fro, and under load each
# hand-over may take milliseconds. What passes through JSON are integers (and times for the scheduler's timers only:
# JSON keeps 15 digits); clocks are copied from column to column. `:rids` is [[message, ordinal], ...].

# recipients.kept_state of a leaving recipient that was held: this bit (4), and below it what the hold kept (2: the
# hold was the relay's own and kept nothing). So restore gives back a hold that can still be released.
_KEPT = "kept_state < 2 AND kept_due IS NOT NULL"
_RELEASED = f"CASE WHEN {_KEPT} THEN kept_state ELSE attempts > 0 END"
_RELEASED_DUE = f"CASE WHEN {_KEPT} THEN kept_due ELSE :now END"
_RESTORED = "CASE WHEN kept_state & 4 THEN 2 ELSE COALESCE(kept_state, attempts > 0) END"
_RESTORED_DUE = "CASE WHEN kept_state & 4 THEN NULL ELSE COALESCE(kept_due, :now) END"

# The recipients as an action sees them: a JSON array with a row each, in the order of actions.Row.
NAMED = f"""
SELECT json_group_array(json_array(message, ordinal, claim != 0, state, destination,
  CAST(arrived AS INTEGER) / 300, {_RELEASED}, {_RELEASED_DUE}, {_RESTORED}, {_RESTORED_DUE},
  COALESCE(leaves, 0) <= :now, COALESCE(operation, 0), COALESCE(due = :until, 0), route = :route, kept_due))
FROM json_each(:rids) AS wanted
CROSS JOIN recipients ON message = wanted.value ->> 0 AND ordinal = wanted.value ->> 1
CROSS JOIN messages ON messages.id = message
"""  # noqa: S608 - the pieces stand above

# Each names no more columns than it changes: an index is rewritten for every column named, changed or not.
_THESE = "WHERE (message, ordinal) IN (SELECT value ->> 0, value ->> 1 FROM json_each(:rids))"
HOLD = f"""
UPDATE recipients SET state = 2, due = NULL, kept_state = state, kept_due = due, held_by = :who, since = :now,
  operation = :operation {_THESE}
"""  # noqa: S608
RELEASE = f"""
UPDATE recipients SET state = {_RELEASED}, due = {_RELEASED_DUE}, kept_state = NULL, kept_due = NULL, held_by = '',
  since = :now, operation = :operation {_THESE}
"""  # noqa: S608
RETRY = f"UPDATE recipients SET due = :now, kept_due = NULL, operation = :operation {_THESE}"  # noqa: S608
DEFER = f"UPDATE recipients SET due = :until, kept_due = due, operation = :operation {_THESE}"  # noqa: S608
UNDO_DEFER = f"UPDATE recipients SET due = kept_due, kept_due = NULL, operation = :operation {_THESE}"  # noqa: S608
LEAVE = f"""
UPDATE recipients SET state = 3, due = NULL, leaves = :leaves, leave_as = :leave_as,
  kept_state = CASE state WHEN 2 THEN 4 | (COALESCE(kept_state, 2) & 3) ELSE state END,
  kept_due = CASE state WHEN 2 THEN kept_due ELSE due END,
  since = :now, operation = :operation {_THESE}
"""  # noqa: S608
RESTORE = f"""
UPDATE recipients SET state = {_RESTORED}, due = {_RESTORED_DUE},
  kept_state = CASE WHEN kept_state & 4 THEN NULLIF(kept_state & 3, 2) END,
  kept_due = CASE WHEN kept_state & 4 THEN kept_due END,
  since = :now, operation = :operation {_THESE}
"""  # noqa: S608
# Where it will go is not known before it is planned again: hop 0.
REROUTE = f"UPDATE recipients SET route = :route, hop = 0, operation = :operation {_THESE}"  # noqa: S608
KEEP_ROUTES = f"""
INSERT OR REPLACE INTO rerouted SELECT :operation, message, ordinal, route FROM recipients {_THESE} AND route != ''
"""  # noqa: S608
UNDO_REROUTE = f"""
UPDATE recipients SET hop = 0, operation = :operation, route = COALESCE((
  SELECT kept.route FROM rerouted AS kept
  WHERE kept.operation = :undoes AND kept.message = recipients.message AND kept.ordinal = recipients.ordinal), '')
{_THESE}
"""  # noqa: S608

OLDEST_KEPT_ROUTE = """
SELECT operation, COALESCE((SELECT undo_until FROM operations WHERE number = operation), 0) FROM rerouted
ORDER BY operation LIMIT 1
"""
FORGET_ROUTES = """
DELETE FROM rerouted WHERE operation = ?1 AND (message, ordinal) IN (
  SELECT message, ordinal FROM rerouted WHERE operation = ?1 LIMIT ?2)
"""

TOUCHED = """
SELECT message, ordinal FROM recipients INDEXED BY parked_by_operation
WHERE claim = 0 AND operation = ? AND (message, ordinal) > (?, ?) ORDER BY message, ordinal LIMIT ?
"""

# --- the end of the grace -----------------------------------------------------------------------------------------

NEXT_LEAVING = """
SELECT leaves FROM recipients INDEXED BY leaving_by_end WHERE claim = 0 AND state = 3 ORDER BY leaves LIMIT 1
"""
OVER = """
SELECT message FROM recipients INDEXED BY leaving_by_end
WHERE claim = 0 AND state = 3 AND leaves <= ? ORDER BY leaves LIMIT ?
"""
OVER_OF_MESSAGE = """
SELECT r.leave_as, COALESCE(r.operation, 0), COALESCE(o.who, ''), COALESCE(o.reason, ''),
  r.ordinal, r.address, d.name, r.submitter, r.notify, r.orcpt, r.state, r.due, r.expires, r.attempts,
  r.interruptions, r.last_code, r.last_enhanced, r.last_reply, r.last_host, r.warned, r.held_by
FROM recipients AS r
CROSS JOIN domains AS d ON d.id = r.destination
LEFT JOIN operations AS o ON o.number = r.operation
WHERE r.message = ? AND r.claim = 0 AND r.state = 3 AND r.leaves <= ? ORDER BY r.ordinal
"""

# --- operations ---------------------------------------------------------------------------------------------------

BEGIN = """
INSERT INTO operations (verb, command, query, who, reason, begun, ended, interrupted, asked, done, delivered_before,
  pending, undone, undo_until, undoes, until, route, leaves)
VALUES (?, ?, ?, ?, ?, ?, NULL, 0, ?, 0, 0, 0, 0, ?, ?, ?, ?, ?)
"""
ADD_DONE = "UPDATE operations SET done = done + ? WHERE number = ?"
ADD_UNDONE = "UPDATE operations SET undone = undone + ? WHERE number = ?"
ADD_REST = """
UPDATE operations SET delivered_before = delivered_before + ?, pending = max(0, pending + ?) WHERE number = ?
"""
END = "UPDATE operations SET ended = ?, interrupted = ? WHERE number = ? AND ended IS NULL"
NO_LONGER_PENDING = "UPDATE operations SET pending = 0 WHERE number = ?"
COLUMNS = """
SELECT number, verb, command, query, who, reason, begun, ended, interrupted, asked, done, delivered_before, pending,
  undone, undo_until, undoes, until, route, leaves
FROM operations
"""
ONE = COLUMNS + " WHERE number = ?"
LATEST = COLUMNS + " ORDER BY number DESC LIMIT ?"
OPEN = COLUMNS + " INDEXED BY open_operations WHERE ended IS NULL OR pending > 0 ORDER BY number"

"""Accounts for SMTP AUTH. `verifier` is the text form of a SCRAM-SHA-256 verifier, never a password; `quarantined` is
since when (NULL: not), `who` and `reason` are those of the quarantine.

The row with the empty name is no account: its verifier stands for all names that are none (intake/accounts.py).
"""

SCHEMA = """
CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    verifier TEXT NOT NULL,
    since REAL NOT NULL,
    quarantined REAL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

ALL = "SELECT name, verifier, since, quarantined, who, reason FROM accounts ORDER BY name"
SET = """
INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET verifier = excluded.verifier, since = excluded.since, quarantined = excluded.quarantined,
  who = excluded.who, reason = excluded.reason
"""
UNSET = "DELETE FROM accounts WHERE name = ?"

# Recipients that wait, by account: a walk over the messages. What is leaving does not count.
QUEUED = """
SELECT m.user, count(*) FROM messages AS m CROSS JOIN recipients AS r ON r.message = m.id
WHERE m.user != '' AND r.state != 3 GROUP BY m.user
"""

# A page of the parked recipients of an account's mail that are not held (or leaving); and of those held by somebody.
WAITING = """
SELECT r.message, r.ordinal FROM messages AS m CROSS JOIN recipients AS r ON r.message = m.id
WHERE m.id >= ?2 AND m.user = ?1 AND r.claim = 0 AND r.state < 2 AND (r.message, r.ordinal) > (?2, ?3)
ORDER BY r.message, r.ordinal LIMIT ?4
"""
HELD = """
SELECT r.message, r.ordinal FROM messages AS m CROSS JOIN recipients AS r ON r.message = m.id
WHERE m.id >= ?2 AND m.user = ?1 AND r.claim = 0 AND r.state = 2 AND r.held_by = ?5
  AND (r.message, r.ordinal) > (?2, ?3)
ORDER BY r.message, r.ordinal LIMIT ?4
"""

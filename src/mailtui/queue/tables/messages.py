"""Messages, their bodies and their recipients; interned domains; counters; the few facts kept about the store itself.

A recipient is *parked* (claim = 0) or *claimed* by an incarnation of the relay (claim = its number). Every secondary
index of `recipients` is partial over parked rows: mail that is delivered at once touches none of them.
`due` is NULL for held and leaving rows. States are those of `model.State`. `destination` and `hop` (0: never planned)
are names interned in `domains`; `sender_domain` is a key of its own (see there). The hashes are `fingerprint` of the
text: narrow keys for exact look-ups, always compared with the text again. `kept_state` and `kept_due` are state and
clock as before a hold or a farewell by an operator (4 and more: it was held when it was given up), `operation` is the
number of that action; `leaves` is when the grace of a leaving row ends, and `leave_as` how (LEAVE_*).

The indexes that queries go along name, after the key, what such a query looks at (`claim`, because SQLite looks at it
again though the index is partial): a row found there needs no look into the table, which costs ten times as much.

`counters` has recipients by destination, state and five minutes of arrival; `sums` the same without the time, and for
the whole queue. `leaving_whole` has the messages all of whose recipients are leaving.
"""

import hashlib
import zlib
from functools import lru_cache

SCHEMA = """
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE domains (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    sender TEXT NOT NULL,
    arrived REAL NOT NULL,
    size INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    client TEXT NOT NULL,
    client_name TEXT NOT NULL,
    helo TEXT NOT NULL,
    user TEXT NOT NULL,
    listener TEXT NOT NULL,
    protocol TEXT NOT NULL,
    tls TEXT NOT NULL,
    subject TEXT NOT NULL,
    message_id TEXT NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL
) STRICT;

CREATE INDEX spooled_messages ON messages (id) WHERE flags & 16;

CREATE TABLE bodies (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE recipients (
    message INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    claim INTEGER NOT NULL,
    state INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    due REAL,
    expires REAL NOT NULL,
    attempts INTEGER NOT NULL,
    interruptions INTEGER NOT NULL,
    warned INTEGER NOT NULL,
    last_code INTEGER NOT NULL,
    since REAL NOT NULL,
    address TEXT NOT NULL,
    submitter TEXT NOT NULL,
    notify TEXT NOT NULL,
    orcpt TEXT NOT NULL,
    hop INTEGER NOT NULL,
    route TEXT NOT NULL,
    held_by TEXT NOT NULL,
    last_enhanced TEXT NOT NULL,
    last_reply TEXT NOT NULL,
    last_host TEXT NOT NULL,
    sender_domain INTEGER NOT NULL,
    sender_hash INTEGER NOT NULL,
    address_hash INTEGER NOT NULL,
    msgid_hash INTEGER NOT NULL,
    kept_state INTEGER,
    kept_due REAL,
    leaves REAL,
    leave_as INTEGER,
    operation INTEGER,
    PRIMARY KEY (message, ordinal)
) STRICT, WITHOUT ROWID;

CREATE INDEX parked_by_destination ON recipients (destination, due) WHERE claim = 0;
CREATE INDEX parked_by_submitter ON recipients (destination, state, submitter, due) WHERE claim = 0 AND state < 2;
CREATE INDEX parked_by_due ON recipients (due, message, ordinal, claim, state, destination, hop, sender_domain)
  WHERE claim = 0;
CREATE INDEX parked_by_hop ON recipients (hop, message, ordinal, claim, state) WHERE claim = 0 AND hop != 0;
CREATE INDEX parked_by_sender ON recipients (sender_domain, sender_hash, message, ordinal, claim, state)
  WHERE claim = 0;
CREATE INDEX parked_by_address ON recipients (address_hash, message, ordinal, claim) WHERE claim = 0;
CREATE INDEX parked_by_msgid ON recipients (msgid_hash, message, ordinal, claim) WHERE claim = 0 AND msgid_hash != 0;
CREATE INDEX leaving_by_end ON recipients (leaves) WHERE claim = 0 AND state = 3;
CREATE INDEX parked_by_expiry ON recipients (destination, expires) WHERE claim = 0 AND state < 2;

CREATE TABLE counters (
    destination INTEGER NOT NULL,
    state INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (destination, state, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE sums (
    destination INTEGER NOT NULL,
    state INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (destination, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE leaving_whole (
    message INTEGER PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT;
"""


def fingerprint(text: str) -> int:
    """A 32-bit key for exact look-ups, ignoring case; 0 for the empty text. Others may have the same."""
    return zlib.crc32(text.lower().encode("utf-8", "surrogateescape")) if text else 0


@lru_cache(maxsize=4096)
def sender_domain(sender: str) -> int:
    """A 63-bit key of the domain of a sender, 0 for <>. Senders' domains are strangers' choice: interned, they would
    make our tables and memory grow; nobody can make up one that has the key of another."""
    domain = sender.rpartition("@")[2].lower()
    if not domain:
        return 0
    digest = hashlib.blake2b(domain.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


# Bits of messages.flags.
EIGHT_BIT, SMTPUTF8, REQUIRETLS, TRUSTED, SPOOLED, UTF8_HEADER = 1, 2, 4, 8, 16, 32

# recipients.leave_as
LEAVE_BOUNCE, LEAVE_DELETE = 1, 2

# Keys of meta. LAST_ID: no id above it was ever committed; OWNER: number of the latest incarnation of the relay;
# MESSAGES and BYTES: totals over `messages`; LEAVING_MESSAGES and LEAVING_BYTES: over `leaving_whole`; CLEAN: 1 when
# the last relay stopped with nothing claimed.
LAST_ID, OWNER, MESSAGES, BYTES, CLEAN = "last_id", "owner", "messages", "bytes", "clean"
LEAVING_MESSAGES, LEAVING_BYTES = "leaving_messages", "leaving_bytes"

# The destination under which the sums of the whole queue stand.
ALL = 0

# Counters are kept per five minutes of arrival, so that `queue shape` is true to five minutes.
SLOT = 300

# --- statements of the writer -------------------------------------------------------------------------------------

INSERT_MESSAGE = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_BODY = "INSERT INTO bodies VALUES (?, ?)"
INSERT_RECIPIENT = """
INSERT INTO recipients VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL,
  NULL, NULL, NULL)
"""
DELETE_MESSAGE = "DELETE FROM messages WHERE id = ?"
DELETE_BODY = "DELETE FROM bodies WHERE id = ?"
# Many at once, as JSON: [id, ...], and [[message, ordinal], ...] of one claim.
DELETE_MESSAGES = "DELETE FROM messages WHERE id IN (SELECT value FROM json_each(?))"
DELETE_BODIES = "DELETE FROM bodies WHERE id IN (SELECT value FROM json_each(?))"
DELETE_RECIPIENTS = """
DELETE FROM recipients WHERE claim = ? AND (message, ordinal) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))
"""
STATE_LEFT = "SELECT state FROM recipients WHERE message = ? LIMIT 1"
COUNT_RECIPIENTS = "SELECT count(*) FROM (SELECT 1 FROM recipients WHERE message = ? LIMIT 2)"

# A failed attempt: back into the parking, with the reply and the next moment.
DEFER_RECIPIENT = """
UPDATE recipients SET claim = 0, state = 1, due = ?, attempts = ?, interruptions = 0, last_code = ?, since = ?, hop = ?,
  route = ?, last_enhanced = ?, last_reply = ?, last_host = ?, warned = max(warned, ?)
WHERE message = ? AND ordinal = ? AND claim = ?
"""
# Held by a route, or because its body is gone.
HOLD_RECIPIENT = """
UPDATE recipients SET claim = 0, state = 2, due = NULL, since = ?, held_by = ?, last_reply = ?
WHERE message = ? AND ordinal = ? AND claim = ?
"""
# Given back untried: nothing happened to it.
PARK_RECIPIENT = "UPDATE recipients SET claim = 0, due = ? WHERE message = ? AND ordinal = ? AND claim = ?"
# The same, and the sender was told that it is late (or is not to be told).
PARK_WARNED = "UPDATE recipients SET claim = 0, due = ?, warned = 1 WHERE message = ? AND ordinal = ? AND claim = ?"
CLAIM_RECIPIENT = "UPDATE recipients SET claim = ? WHERE message = ? AND ordinal = ?"

# Claiming: one index seek a submitter and a row (`parked_by_submitter`), never a walk over what is not taken.
# `likely` keeps the planner from seeking by the range `state < 2`, which is for the partial index's sake: it would
# sort all rows of the destination.
NEXT_SUBMITTER = """
SELECT submitter FROM recipients INDEXED BY parked_by_submitter
WHERE claim = 0 AND likely(state < 2) AND destination = ? AND state = ? AND submitter > ? ORDER BY submitter LIMIT 1
"""
DUE_OF_SUBMITTER = """
SELECT message FROM recipients INDEXED BY parked_by_submitter
WHERE claim = 0 AND likely(state < 2) AND destination = ? AND state = ? AND submitter = ? AND due <= ?
ORDER BY due LIMIT ?
"""
DUE_FIRST = """
SELECT message FROM recipients INDEXED BY parked_by_destination
WHERE claim = 0 AND destination = ? AND due <= ? ORDER BY due LIMIT ?
"""
DUE_OF_MESSAGE = """
SELECT ordinal, state, due, expires, attempts, interruptions, warned, last_code, address, submitter, notify, orcpt,
  held_by, last_enhanced, last_reply, last_host, route
FROM recipients WHERE message = ? AND claim = 0 AND state < 2 AND destination = ? AND due <= ? ORDER BY ordinal
"""
OVERDUE = """
SELECT message FROM recipients INDEXED BY parked_by_expiry
WHERE claim = 0 AND state < 2 AND destination = ? AND expires <= ? AND due <= ? ORDER BY expires LIMIT ?
"""
# Who waits for a destination, in the order in which they expire: as a rule, that in which they came.
UNWARNED = """
SELECT expires, message, ordinal, warned, notify FROM recipients INDEXED BY parked_by_expiry
WHERE claim = 0 AND state < 2 AND destination = ? AND (expires, message, ordinal) > (?, ?, ?)
ORDER BY expires, message, ordinal LIMIT ?
"""
WAITING_OF_MESSAGE = """
SELECT destination, ordinal, state, due, expires, attempts, interruptions, warned, last_code, address, submitter,
  notify, orcpt, held_by, last_enhanced, last_reply, last_host, route
FROM recipients WHERE message = ? AND claim = 0 AND state < 2 AND warned = 0 ORDER BY ordinal
"""
NEXT_DUE = """
SELECT due FROM recipients INDEXED BY parked_by_destination
WHERE claim = 0 AND destination = ? AND due > -1 ORDER BY due LIMIT 1
"""
SELECT_MESSAGE = "SELECT * FROM messages WHERE id = ?"
SELECT_BODY = "SELECT body FROM bodies WHERE id = ?"

# At start: one seek a destination that has parked rows, then NEXT_DUE for each.
PARKED_DESTINATIONS = """
WITH RECURSIVE live(id) AS (
  SELECT min(destination) FROM recipients INDEXED BY parked_by_destination WHERE claim = 0
  UNION ALL
  SELECT (SELECT min(destination) FROM recipients INDEXED BY parked_by_destination
          WHERE claim = 0 AND destination > live.id)
  FROM live WHERE live.id IS NOT NULL
)
SELECT live.id, domains.name FROM live JOIN domains ON domains.id = live.id
"""
# At start after a crash: claims of earlier incarnations. `spread` staggers them over five seconds; from the third
# interruption in a row a recipient waits for the first step of the retry schedule instead (parameter 3).
INTERRUPTED_ATTEMPTS = """
INSERT INTO attempts (message, ordinal, started, finished, reused, code, host, address, enhanced, reply, tls, delays,
  transcript)
SELECT message, ordinal, ?1, ?1, 0, 0, last_host, '', '',
  'interrupted: the relay was stopped during or before this attempt', '{}', '{}', ''
FROM recipients WHERE claim != 0
"""
VOID_CLAIMS = """
UPDATE recipients SET claim = 0, interruptions = interruptions + 1,
  due = CASE WHEN state > 1 THEN NULL WHEN interruptions >= 2 THEN ?1 + ?2 ELSE ?1 + abs(random() % 5000) / 1000.0 END
WHERE claim != 0
"""

SELECT_DOMAINS = "SELECT name, id FROM domains"
INSERT_DOMAIN = "INSERT INTO domains (name) VALUES (?)"
# Writes a page and changes nothing: is there room on the disk again?
PROBE = "UPDATE meta SET value = value WHERE key = 'owner'"
# Many at once, as JSON: [[destination, state, slot, change], ...].
ADD_COUNTERS = """
INSERT INTO counters SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?) WHERE TRUE
ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients
"""
# The same without the time: [[destination, state, change], ...].
ADD_SUMS = """
INSERT INTO sums SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE TRUE
ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients
"""
# Which of these messages (JSON: [id, ...]) leave as a whole, now. Both give the sizes of those that changed.
DROP_LEAVING_WHOLE = """
DELETE FROM leaving_whole WHERE message IN (SELECT value FROM json_each(?))
  AND COALESCE((SELECT min(state) FROM recipients WHERE message = leaving_whole.message), 0) < 3
RETURNING size
"""
ADD_LEAVING_WHOLE = """
INSERT OR IGNORE INTO leaving_whole
SELECT messages.id, size FROM json_each(?) CROSS JOIN messages ON messages.id = value
WHERE (SELECT min(state) FROM recipients WHERE message = messages.id) = 3
RETURNING size
"""
# Zero counters are dropped destination by destination: where so many counters further on begins the next step.
NEXT_COUNTERS = "SELECT destination FROM counters WHERE destination > ? ORDER BY destination LIMIT 1 OFFSET ?"
DROP_ZERO_COUNTERS = "DELETE FROM counters WHERE destination > ? AND destination <= ? AND recipients = 0"
DROP_ZERO_SUMS = "DELETE FROM sums WHERE destination > ? AND destination <= ? AND recipients = 0"
GET_META = "SELECT value FROM meta WHERE key = ?"
SET_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
ADD_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value"
# The end of every batch: the highest id, and how the totals change.
COUNT_BATCH = """
INSERT INTO meta VALUES ('last_id', ?), ('messages', ?), ('bytes', ?) ON CONFLICT DO UPDATE SET
  value = CASE key WHEN 'last_id' THEN max(value, excluded.value) ELSE value + excluded.value END
"""

# At the end: is anything claimed still? (A walk over the table, so that the next start needs none.)
ANY_CLAIMED = "SELECT 1 FROM recipients WHERE claim != 0 LIMIT 1"

SPOOLED_IDS = "SELECT id FROM messages WHERE flags & 16"
HOLD_WITHOUT_BODY = """
UPDATE recipients SET state = 2, due = NULL, held_by = 'mailtui',
  last_reply = 'the spool file of this message is missing'
WHERE message = ?
"""
STATES_OF_MESSAGE = "SELECT destination, state FROM recipients WHERE message = ?"

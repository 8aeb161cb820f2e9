"""What left the queue or was refused at the door; one row a recipient, oldest first. Two narrow indexes."""

SCHEMA = """
CREATE TABLE history (
    seq INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    result INTEGER NOT NULL,
    at REAL NOT NULL,
    arrived REAL NOT NULL,
    code INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    message_id TEXT NOT NULL,
    host TEXT NOT NULL,
    enhanced TEXT NOT NULL,
    reply TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    tls TEXT NOT NULL
) STRICT;

CREATE INDEX history_by_message ON history (message);
CREATE INDEX history_by_destination ON history (destination);
"""

# history.result
RESULTS = ("delivered", "bounced", "deleted", "refused")
DELIVERED, BOUNCED, DELETED, REFUSED = range(4)

INSERT = """
INSERT INTO history (message, ordinal, destination, result, at, arrived, code, attempts, sender, recipient, subject,
  message_id, host, enhanced, reply, remote_id, tls)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Pruning, in small steps: `seq` is the order of leaving, so the oldest rows are the first ones.
OLDEST = "SELECT seq, at FROM history ORDER BY seq LIMIT ?"
NEWEST = "SELECT max(seq) FROM history"
PRUNE = "DELETE FROM history WHERE seq <= ?"

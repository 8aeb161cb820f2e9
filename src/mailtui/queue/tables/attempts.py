"""Attempts that did not deliver, with their dialogue; one row a recipient. They go with their message's history."""

SCHEMA = """
CREATE TABLE attempts (
    seq INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    started REAL NOT NULL,
    finished REAL NOT NULL,
    reused INTEGER NOT NULL,
    code INTEGER NOT NULL,
    host TEXT NOT NULL,
    address TEXT NOT NULL,
    enhanced TEXT NOT NULL,
    reply TEXT NOT NULL,
    tls TEXT NOT NULL,
    delays TEXT NOT NULL,
    transcript TEXT NOT NULL
) STRICT;

CREATE INDEX attempts_by_message ON attempts (message);
"""
# `tls` and `delays` are JSON objects, as contract.md names their fields.

INSERT = """
INSERT INTO attempts (message, ordinal, started, finished, reused, code, host, address, enhanced, reply, tls, delays,
  transcript)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Pruned by age in small steps: `seq` is the order of ending. Transcripts go earlier; FORGOTTEN (a key of meta) is how
# far that has come.
OLDEST = "SELECT seq, finished FROM attempts WHERE seq > ? ORDER BY seq LIMIT ?"
NEWEST = "SELECT max(seq) FROM attempts"
PRUNE = "DELETE FROM attempts WHERE seq <= ?"
FORGET_TRANSCRIPTS = "UPDATE attempts SET transcript = '' WHERE seq > ? AND seq <= ? AND transcript != ''"
FORGOTTEN = "forgotten"

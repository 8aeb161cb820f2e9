"""The journal: operator actions and changes of the relay's own state. Never pruned before history."""

SCHEMA = """
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    event TEXT NOT NULL,
    who TEXT NOT NULL,
    command TEXT NOT NULL,
    query TEXT NOT NULL,
    recipients INTEGER,
    reason TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
"""

INSERT = """
INSERT INTO journal (at, event, who, command, query, recipients, reason, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

"""What operators have set and the relay must remember: pauses, suspensions, limits, routes, grants, probes. One row a
name and kind.

`value` is a JSON object whose fields belong to the kind; `until` is when the row ends by itself (NULL: never);
`version` counts the changes of a row, so that saving over a newer one can be refused.
"""

SCHEMA = """
CREATE TABLE controls (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
"""

# Kinds.
PAUSE, SUSPEND, LIMIT, ROUTE = "pause", "suspend", "limit", "route"
GRANT, PROBE = "grant", "probe"  # temporary permission of a client address; a saved question to the access rules

SET = """
INSERT INTO controls VALUES (?, ?, ?, ?, ?, ?, ?, 1)
ON CONFLICT DO UPDATE SET value = excluded.value, since = excluded.since, until = excluded.until, who = excluded.who,
  reason = excluded.reason, version = version + 1
"""
UNSET = "DELETE FROM controls WHERE kind = ? AND name = ?"
OF_KIND = "SELECT name, value, since, until, who, reason, version FROM controls WHERE kind = ? ORDER BY name"
ALL = "SELECT kind, name, value, since, until, who, reason, version FROM controls ORDER BY kind, name"

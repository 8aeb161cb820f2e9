"""One module a table group: its schema and the SQL that touches it, as constants."""

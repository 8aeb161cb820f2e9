"""Indexes that only listings need: pages newest first by state, and by destination and state.

Both end in the primary key (WITHOUT ROWID), so that rows of one state, or of one destination and state, stand in the
order of arrival. Like every index of `recipients` they hold parked rows only.
"""

SCHEMA = """
CREATE INDEX parked_by_state ON recipients (state) WHERE claim = 0;
CREATE INDEX parked_by_destination_state ON recipients (destination, state) WHERE claim = 0;
"""

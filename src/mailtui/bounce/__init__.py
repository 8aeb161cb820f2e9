"""Telling the sender: what failed, what is late, what was delivered or handed on (RFC 3461-3464, 6522, 6533).

Others use `bounce.report.compose`, one report for all that became of a message in one go, or None if nobody is due one,
and the rules of `bounce.due`.
"""

"""Telling the sender: reports of failed delivery (RFC 3461-3464), and when none may be sent.

Others use `bounce.report.failure_report`: one report for all failures of one go, or None if nobody is due one.
"""

"""Sending it: scheduler, next hops, the SMTP client, verdicts, retries and what is written of them.

Others use `Scheduler` (through the relay), `why.explain`, and nothing else.
"""

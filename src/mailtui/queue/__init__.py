"""Keeping it: durable acceptance, claims, settlements, and reading what is there.

Others use `store.Store` (the relay), `read.Reader` and `query.parse` (control), and the plain data of `rows`.
"""

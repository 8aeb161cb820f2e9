"""The relay among programs that others wrote: clients, next hops, a smarthost and an LMTP server, all on loopback.

Every test that needs a program which is not installed is skipped with the name of its package.
"""

"""Peers for tests: a next hop, a client and a name server that do exactly what the test says."""

"""Whole relays for the tests of verbs: those of the end-to-end tests."""

from tests.end_to_end.conftest import clock, hop, relay_of, state

__all__ = ["clock", "hop", "relay_of", "state"]

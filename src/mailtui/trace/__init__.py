"""What happened to a message on its way: its Received lines read as hops, with delays and the border of trust.

Others use `trace.hops.trace` (a header -> a `Trace`) and, for a single line, `trace.received.parse_received`.
"""

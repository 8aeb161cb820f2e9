"""Routing: from a recipient to a plan, that is the ordered hosts of its next hop, with the reasons.

Route table, then smarthost, then MX. The one DNS resolver of the relay lives here too.
"""

"""How safely: the level that an attempt must reach, what a handshake came to, and TLS on our own listeners.

Others may use `policy` (level_for, shortfall, same, may_log_in, plaintext), `connecting` (towards next hops) and
`serving` (on listeners). DANE and MTA-STS get their place here.
"""

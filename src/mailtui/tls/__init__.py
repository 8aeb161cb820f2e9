"""How safely: the level that an attempt must reach, and why.

Others may use `policy.level_for` and `policy.shortfall`. STARTTLS, DANE and MTA-STS get their place here.
"""

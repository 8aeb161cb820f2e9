"""The policy that every attempt asks for its level.

Promises: the answer names its source; a level that cannot be reached stops the attempt: mail never leaves in a weaker
way than its policy asks, and a password never but over TLS that was verified.
"""

import ipaddress
from dataclasses import replace

from mailtui.model import PlannedHost, TlsFacts, TlsPolicy

# Levels that end in "else as may" (contract.md "TLS levels"). Nothing published is looked up yet.
_ELSE_MAY = {"auto", "dane", "mta-sts"}
_NOT_LOOKED_UP = "nothing that the domain publishes is looked up by this version"

# Levels below `encrypt`: plaintext may do.
_WEAK = {"none", "may"}


def level_for(host: PlannedHost, default: str) -> TlsPolicy:
    """The level for one host of a plan: that of its route, else `[tls] default`; raised where a password is sent or
    where the scheme is TLS from the first octet. One of none, may, encrypt, verify, dane-only."""
    policy = host.tls or TlsPolicy(default, "default" if default == "auto" else "config", f"[tls] default {default}")
    if policy.level in _ELSE_MAY:
        policy = replace(policy, level="may", why=f"{policy.why}: {_NOT_LOOKED_UP}")
    if host.auth:
        least = "encrypt" if host.addresses and all(map(loopback, host.addresses)) else "verify"
        if policy.level in _WEAK or (policy.level == "encrypt" and least == "verify"):
            return replace(policy, level=least, source="auth", why=f"auth={host.auth} needs {least} ({policy.why})")
    if host.scheme == "smtps" and policy.level in _WEAK:
        return replace(policy, level="encrypt", source="smtps", why=f"smtps is TLS throughout ({policy.why})")
    return policy


def shortfall(policy: TlsPolicy) -> str | None:
    """Why this policy cannot be met whatever the host offers; None if it can."""
    if policy.level != "dane-only":
        return None
    return f"TLS level dane-only is asked for ({policy.why}) and this version looks up no TLSA records"


def same(policy: TlsPolicy, other: TlsPolicy) -> bool:
    """Whether a session that was opened under one of them serves the other as well."""
    return policy is other or (policy.level == other.level and policy.match == other.match)


def may_log_in(facts: TlsFacts, address: str) -> bool:
    """Whether a password may leave over such a session (contract.md "ROUTE"); `address` is "" for a Unix socket."""
    return facts.reached == "verified" or (facts.reached == "encrypted" and loopback(address))


def loopback(address: str) -> bool:
    """True for an address that leads to this machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def plaintext(policy: TlsPolicy, why: str = "") -> TlsFacts:
    """What an attempt wanted that reached no TLS; `why` says more than the policy's own reason."""
    return TlsFacts(wanted=policy.level, reached="none", why=f"{policy.why}; {why}" if why else policy.why)

"""The policy that every attempt asks for its level.

Promises: the answer names its source; a level that cannot be reached stops the attempt: mail never leaves in a weaker
way than its policy asks.
"""

from mailtui.model import PlannedHost, TlsFacts, TlsPolicy

# Levels that allow plaintext. Nothing published is looked up yet, so `auto`, `dane` and `mta-sts` come to `may`
# (contract.md "TLS levels": "else as may").
_PLAINTEXT = {"none", "may", "auto", "dane", "mta-sts"}


def level_for(host: PlannedHost, default: str) -> TlsPolicy:
    """The level for one host of a plan: that of its route, else `[tls] default`."""
    if host.tls is not None:
        return host.tls
    if default == "auto":
        return TlsPolicy("may", "default", "auto: nothing that the domain publishes is looked up by this version")
    return TlsPolicy(default, "config", "[tls] default")


def shortfall(policy: TlsPolicy) -> str | None:
    """Why a plaintext session is not enough for this policy; None if it is."""
    if policy.level in _PLAINTEXT:
        return None
    return f"TLS level {policy.level} is asked for ({policy.why}) and this version speaks plaintext only"


def plaintext(policy: TlsPolicy) -> TlsFacts:
    """What an attempt over plaintext wanted and reached."""
    return TlsFacts(wanted=policy.level, reached="none", why=policy.why)

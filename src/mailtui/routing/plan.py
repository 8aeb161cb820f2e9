"""Plans: how they are ordered for an attempt, named, made when there is nothing to deliver to, and shown.

Nothing here asks the DNS or anybody else.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from mailtui.model import Plan, PlannedHost, TlsPolicy

# A next hop is stored with every recipient. 20 names of 255 octets could be 5 KiB a row; the largest honest site
# found (five names at one provider) has 130 characters.
NEXT_HOP_LIMIT = 255


def order(hosts: Sequence[PlannedHost], rng: random.Random) -> list[PlannedHost]:
    """The hosts as one attempt tries them: by preference, equal ones shuffled (RFC 5321 section 5.1)."""
    ordered: list[PlannedHost] = []
    for _, group in groupby(sorted(hosts, key=_preference), _preference):
        equal = list(group)
        rng.shuffle(equal)
        ordered += equal
    return ordered


def _preference(host: PlannedHost) -> int:
    return host.preference


def endpoint(host: str, port: int, scheme: str = "smtp") -> str:
    """`[host]:port`: the next hop that is one given host; with the scheme in front if it is not SMTP."""
    return f"[{host}]:{port}" if scheme == "smtp" else f"{scheme}://[{host}]:{port}"


def site(names: Iterable[str], port: int, usual_port: int) -> str:
    """The next hop that is a set of MX hosts, the same for every domain that names the same hosts.

    The sorted names joined by commas, and the port if it is not `[delivery] port`. Sets too long for a row are
    abbreviated to the first name, their number and a digest.
    """
    ordered = sorted(set(names))
    text = ",".join(ordered)
    if len(text) > NEXT_HOP_LIMIT - 6:
        text = f"{ordered[0][:200]},+{len(ordered) - 1}#{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return text if port == usual_port else f"{text}:{port}"


def plan_json(plan: Plan, default: TlsPolicy | None = None) -> dict[str, Any]:
    """The plan as `mailtui mx --json` prints it (contract.md `mx`), and `route`; each host's `port`, `scheme`, `auth`,
    `source` and `error`.

    `default`: the TLS policy of hosts that have none of their own. `tlsa` and `sts` are null: nothing of the kind is
    looked up.
    """
    return {
        "domain": plan.domain,
        "next_hop": plan.next_hop,
        "outcome": plan.outcome,
        "via": plan.via,
        "code": plan.code or None,
        "enhanced": plan.enhanced,
        "reason": plan.reason,
        "dnssec": plan.dnssec,
        "route": plan.route,
        "hosts": [_host_json(host, host.tls or default) for host in plan.hosts],
        "sts": None,
        "dropped": [{"name": name, "why": why} for name, why in plan.dropped],
    }


def _host_json(host: PlannedHost, tls: TlsPolicy | None) -> dict[str, Any]:
    return {
        "preference": host.preference,
        "name": host.name,
        "addresses": list(host.addresses),
        "port": host.port,
        "scheme": host.scheme,
        "auth": host.auth or None,
        "source": host.source or None,
        "tls": {"level": tls.level, "source": tls.source, "why": tls.why} if tls else None,
        "tlsa": None,
        "error": host.error or None,
    }

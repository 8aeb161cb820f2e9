"""The Received lines of a header as hops, oldest first: who handed over to whom, when, and what to believe.

Promises: never raises; every Received line is one hop, junk too; only CRLF and LF end a line (never what Python's
splitlines takes for one); a missing time gives no delay rather than a wrong one, a clock that runs behind gives a
negative one. Only what we or a trusted host stamped is called trusted: everything below can be forged.
"""

import ipaddress
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mailtui.clock import rfc3339
from mailtui.trace.received import Received, parse_received

# A header beyond it was not made to be read; honest ones stay under 64 KiB.
HEADER_LIMIT = 1 << 20

# Relays refuse mail at 100 hops or earlier; five times that is enough to show any loop.
HOPS_LIMIT = 500

# Exchange writes its version as the id: the same on every hop of an organisation, so it tells nothing of a loop.
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Hop:
    """One Received line. `delay` is in seconds since the hop before it (None if unknown, negative under clock skew)."""

    index: int  # from 1, the oldest
    received: Received
    delay: float | None
    trusted: bool
    skew: float | None  # seconds by which its clock stands behind that of the hop before it, None if it does not

    def warnings(self) -> list[str]:
        """What is odd about this hop, each in one sentence."""
        found = list(self.received.warnings)
        if self.skew is not None:
            found.append(f"stamped {_seconds(self.skew)} s before the hop before it: one of the two clocks is wrong")
        return found


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of a message. `slowest` is a hop's index; `total_delay` is None unless both ends are dated (seconds)."""

    hops: tuple[Hop, ...]
    total_delay: float | None
    slowest: int | None
    loop: bool
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `mailtui trace --json` (contract.md `trace`)."""
        return {
            "hops": [_hop_json(hop) for hop in self.hops],
            "total_delay": _seconds(self.total_delay),
            "slowest": self.slowest,
            "loop": self.loop,
            "warnings": list(self.warnings),
        }


def trace(header: bytes, *, own: str = "", trusted: Sequence[str] = ()) -> Trace:
    """Read the hops of a message.

    `header` is the message or its header section as stored. `own` is our host name as our Received lines give it;
    `trusted` are more hosts (by name) and networks (or addresses) whose lines are believed.
    """
    values, warnings = received_values(header)
    newest_first = [parse_received(value) for value in values]
    believed, doubt = _believed(newest_first, own, trusted)
    lines = newest_first[::-1]
    border = len(lines) - believed
    delays = _delays([line.time for line in lines])
    hops = tuple(
        Hop(i + 1, line, delay, i >= border, -delay if delay is not None and delay < 0 else None)
        for i, (line, delay) in enumerate(zip(lines, delays, strict=True))
    )
    loop, again = _loop(lines, own)
    warnings += again
    if border and believed:
        which = "hop 1 stands" if border == 1 else f"hops 1 to {border} stand"
        warnings.append(f"{which} below the border of trust and can be forged")
    elif border:
        warnings.append("no hop was stamped by us or by a trusted host: all of them can be forged")
    warnings += doubt
    if any(hop.skew is not None for hop in hops):
        warnings.append("the clocks of some hops differ: their delays are not what they seem")
    undated = sum(line.time is None for line in lines)
    if undated:
        warnings.append(f"{undated} of {len(lines)} hops have no date that can be read: delays around them are unknown")
    return Trace(hops, _total(lines), _slowest(lines, delays), loop, tuple(warnings))


def received_values(header: bytes) -> tuple[list[bytes], list[str]]:
    """The values of the Received fields, unfolded, newest first, up to the first empty line; and what was left out."""
    warnings = []
    if len(header) > HEADER_LIMIT and not re.search(rb"\n\r?\n", header[:HEADER_LIMIT]):
        warnings.append(f"only the first {HEADER_LIMIT} octets of the header are read")
    values: list[list[bytes]] = []
    collecting = False
    for line in header[:HEADER_LIMIT].split(b"\n"):
        line = line.removesuffix(b"\r")
        if not line:
            break
        if line[0] in b" \t":
            if collecting:
                values[-1].append(line)
            continue
        name, colon, value = line.partition(b":")
        collecting = bool(colon) and name.rstrip(b" \t").lower() == b"received"
        if collecting:
            if len(values) == HOPS_LIMIT:
                warnings.append(f"only the newest {HOPS_LIMIT} hops are read")
                break
            values.append([value])
    return [b"".join(parts) for parts in values], warnings


def _believed(newest_first: list[Received], own: str, trusted: Sequence[str]) -> tuple[int, list[str]]:
    """How many hops, from the newest, we or trusted hosts stamped without a break; and why the run ended, if odd.

    Below the newest line, a name alone proves nothing, as whoever hands a message over writes all of its lines. So a
    line is believed if the line above it (believed already) saw the message come from a trusted network, or from the
    host that the line names: by its reverse name, or from its own machine.
    """
    names, networks = {_fold(own)} - {""}, []
    for entry in trusted:
        try:
            networks.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            names.add(_fold(entry))
    for i, line in enumerate(newest_first):
        known = _fold(line.by) in names
        if i == 0:
            if not known and not _within(line.by, networks):
                return 0, []
            continue
        above = newest_first[i - 1]
        if _within(above.ip, networks) or (known and (_local(above.ip) or _fold(above.reverse) == _fold(line.by))):
            continue
        doubt = (
            f"hop {len(newest_first) - i} claims to be of {line.by}, but it came from {above.ip}, which does not have "
            "that name: if it is that host's, list the address in [trace] trusted"
        )
        return i, [doubt] if known else []
    return len(newest_first), []


def _within(address: str, networks: list[_Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed.version == network.version and parsed in network for network in networks)


def _local(address: str) -> bool:
    """Handed over on the machine itself: no address at all, or a loopback one."""
    return not address or ipaddress.ip_address(address).is_loopback


def _fold(name: str) -> str:
    return name.rstrip(".").lower()


def _delays(times: list[float | None]) -> list[float | None]:
    delays: list[float | None] = []
    before: float | None = None
    for time in times:
        delays.append(None if time is None or before is None else time - before)
        before = time
    return delays


def _total(lines: list[Received]) -> float | None:
    if len(lines) < 2:
        return None
    first, last = lines[0].time, lines[-1].time
    return None if first is None or last is None else last - first


def _slowest(lines: list[Received], delays: list[float | None]) -> int | None:
    """The index of the hop where the most time went, None if none took any.

    A clock that is ahead makes its own hop look slow, one that is behind the next: so only the times count that agree.
    """
    agreeing = _agreeing([(line.time, i) for i, line in enumerate(lines) if line.time is not None])
    slowest, most = None, 0.0
    for (before, _), (time, i) in itertools.pairwise(agreeing):
        if delays[i] is not None and time - before > most:
            slowest, most = i + 1, time - before
    return slowest


def _agreeing(times: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The times that are left when as few clocks as possible are called wrong, so that time never goes back.

    That is the longest non-decreasing subsequence; of several, the one that spans the least time. Square in the hops.
    """
    best: list[
        tuple[int, float, int]
    ] = []  # of the run that ends here: its length, its first time, where it comes from
    for n, (time, _) in enumerate(times):
        before = ((best[m][0] + 1, best[m][1], m) for m in range(n) if times[m][0] <= time)
        best.append(max(before, default=(1, time, -1)))
    if not best:
        return []
    at = max(range(len(best)), key=lambda n: (best[n][0], best[n][1] - times[n][0]))
    run = []
    while at >= 0:
        run.append(times[at])
        at = best[at][2]
    return run[::-1]


def _loop(lines: list[Received], own: str) -> tuple[bool, list[str]]:
    """Whether the message went round, and in what words.

    Coming back once is no loop: a content filter or a mailing list does that. Going the same way between two hosts
    twice is one, and so is a third visit. Hops inside of one machine count as one visit.
    """
    seen: set[tuple[str, str]] = set()
    visits: list[str] = []
    for line in lines:
        host = _fold(line.by)
        if line.id and host and _VERSION.fullmatch(line.id) is None:
            if (host, line.id) in seen:
                return True, [f"a loop: {line.by} stamped the id {line.id} twice"]
            seen.add((host, line.id))
        inside = host in ("", "localhost", "localhost.localdomain") or _is_loopback(host)
        if not inside and (not visits or visits[-1] != host):
            visits.append(host)
    ways: set[tuple[str, str]] = set()
    for way in itertools.pairwise(visits):
        if way in ways:
            return True, [f"a loop: it went from {way[0]} to {way[1]} more than once"]
        ways.add(way)
    counts: dict[str, int] = {}
    for host in visits:
        counts[host] = counts.get(host, 0) + 1
    for host, count in counts.items():
        if count > 2:
            return True, [f"a loop: it came to {host} {count} times"]
    if counts.get(_fold(own), 0) == 2:
        return False, [f"it came to {_fold(own)} twice: a filter or a mailing list, or the start of a loop"]
    return False, []


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(value: float | None) -> float | int | None:
    if value is None:
        return None
    value = round(value, 3)
    return int(value) if value == int(value) else value


def _hop_json(hop: Hop) -> dict[str, Any]:
    line = hop.received
    return {
        "index": hop.index,
        "from": line.from_,
        "by": line.by,
        "protocol": line.protocol,
        "ip": line.ip,
        "tls": line.tls,
        "id": line.id,
        "for": line.for_,
        "time": rfc3339(line.time),
        "delay": _seconds(hop.delay),
        "trusted": hop.trusted,
        "skew": _seconds(hop.skew),
        "warnings": hop.warnings(),
    }

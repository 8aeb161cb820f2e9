"""The texts of mailtui.toml as values: durations, sizes, rates, networks, endpoints, names.

Promises: nothing is converted silently; what is wrong with a text is a ValueError in one line that says what was
expected.
"""

import functools
import ipaddress
import re
import socket
from typing import Any, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OCTETS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?[smhdw])+")
_DURATION_PART = re.compile(r"([\d.]+)([smhdw])")
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)B?", re.IGNORECASE)
_RATE = re.compile(r"(\d{1,9})/(.+)")
# RFC 5321 section 2.3.5 and RFC 1123 section 2.1: labels of letters, digits and inner hyphens.
_HOSTNAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)


class Rate(NamedTuple):
    """At most `amount` in any `seconds`."""

    amount: int
    seconds: float


def parse_duration(value: Any) -> float:
    """Seconds of "5m", "1h30m", "10d"; units s m h d w."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(f'{_shown(value)} is not a duration, expected one such as "30s", "5m", "4h" or "5d"')
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as the same."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{seconds:g}s"


def parse_size(value: Any) -> int:
    """Octets of "50M" (powers of 1024) or of a whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{_shown(value)} is not a size, expected one such as "50K", "50M" or "1G"')
    return int(match[1]) * _OCTETS[match[2].upper()]


def format_size(octets: int) -> str | int:
    """The text that `parse_size` reads as the same, or the number where no unit fits."""
    for unit in ("G", "M", "K"):
        if octets and octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return octets


def parse_rate(value: Any) -> Rate | None:
    """ "100/1m" -> Rate(100, 60.0); "" -> None."""
    if value == "":
        return None
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    try:
        rate = Rate(int(match[1]), parse_duration(match[2])) if match else None
    except ValueError:
        rate = None
    if rate is None or not rate.amount or not rate.seconds:
        raise ValueError(f'{_shown(value)} is not a rate, expected one such as "100/1m", or "" for none')
    return rate


def parse_network(value: Any) -> Network:
    """A network or a single address; host bits that are set are an error, not a guess."""
    value = require_text(value)
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(
            f'{_shown(value)} is not a network, expected one such as "192.0.2.0/24" or "2001:db8::/32"'
        ) from None
    raise ValueError(f'{_shown(value)} is an address in a network, expected the network "{meant}"')


def parse_endpoint(value: str) -> tuple[str, int]:
    """(host, port) of "192.0.2.1:25", "[::1]:25" or "localhost:25"; the host without brackets."""
    host, colon, port = value.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535:
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host[1:-1] if bracketed else host)
        except ValueError:
            pass
        else:
            if bracketed == (address.version == 6):
                return str(address), int(port)
    raise ValueError(f'{_shown(value)} is not an address with a port, expected "192.0.2.1:25" or "[2001:db8::1]:25"')


def parse_domain(value: Any) -> str:
    """A domain as a lower-case A-label without trailing dot."""
    from mailtui.address import AddressError, destination_of

    text = require_text(value)
    try:
        domain = destination_of(text)
    except AddressError as error:
        raise ValueError(f"{_shown(value)} is not a domain name ({error}), expected one such as example.com") from None
    if domain.startswith("["):
        raise ValueError(f"{_shown(value)} is an address literal, expected a domain name such as example.com")
    return domain


def parse_hostname(value: Any) -> str:
    """A host name as we say it in EHLO and Received lines (RFC 5321 section 2.3.5)."""
    text = require_text(value).removesuffix(".")
    if not _HOSTNAME.fullmatch(text) or len(text) > 255:
        raise ValueError(f"{_shown(value)} is not a host name, expected one such as relay.example.org")
    return text.lower()


@functools.cache
def machine_name() -> str:
    """The machine's fully qualified name; asked once, since it may take a look-up in the DNS.

    A machine that knows no domain of its own gets `.localdomain`, for a name without a dot is refused by many hosts.
    """
    for name in (socket.getfqdn(), socket.gethostname()):
        name = name.rstrip(".").lower()
        if "." in name and _HOSTNAME.fullmatch(name) and not name.endswith(".arpa"):
            return name
    short = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower()).strip("-") or "localhost"
    return f"{short[:63]}.localdomain"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def require_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text, expected one in quotes")
    return value


def parse_address(version: int, value: Any) -> str:
    if require_text(value) == "":
        return ""
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        pass
    if address is None or version not in (0, address.version):
        kind = {0: "address", 4: "IPv4 address", 6: "IPv6 address"}[version]
        raise ValueError(f"{_shown(value)} is not an {kind}, expected one without a port")
    return str(address)


def check_endpoint(value: Any) -> str:
    text = require_text(value)
    if not re.fullmatch(r"systemd:[A-Za-z0-9_.-]+", text):
        parse_endpoint(text)
    return text


def check_nameserver(value: Any) -> str:
    text = require_text(value)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        try:
            parse_endpoint(text)
        except ValueError:
            raise ValueError(
                f'{_shown(value)} is not a name server, expected an address such as "127.0.0.1" or "127.0.0.1:5353"'
            ) from None
    return text


def parse_trusted(value: Any) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        return parse_hostname(value)


def check_mailbox(value: Any) -> str:
    from mailtui.address import AddressError, parse_mailbox

    text = require_text(value)
    if text:
        try:
            parse_mailbox(text.encode())
        except AddressError as error:
            raise ValueError(f"{_shown(value)} is not a mail address ({error}), expected user@example.org") from None
    return text


def parse_fingerprint(value: Any) -> str:
    text = require_text(value).replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{_shown(value)} is not a SHA-256 fingerprint, expected 64 hexadecimal digits")
    return text


def not_empty(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def positive(value: float) -> float:
    if value <= 0:
        raise ValueError("is 0, expected more")
    return value

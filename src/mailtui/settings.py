"""mailtui.toml as typed settings: the tables of the contract, attribute for attribute.

Promises: durations are float seconds, sizes are octets, networks are `ipaddress` networks, names are lower-case
A-labels; nothing unknown is taken and nothing is converted silently (`extra="forbid"`, strict). What is wrong with a
value is a ValueError that says what was expected. Reading files and checks across tables are `config`'s.
"""

import functools
import ipaddress
import re
import socket
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
)

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
    value = _text(value)
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

    text = _text(value)
    try:
        domain = destination_of(text)
    except AddressError as error:
        raise ValueError(f"{_shown(value)} is not a domain name ({error}), expected one such as example.com") from None
    if domain.startswith("["):
        raise ValueError(f"{_shown(value)} is an address literal, expected a domain name such as example.com")
    return domain


def parse_hostname(value: Any) -> str:
    """A host name as we say it in EHLO and Received lines (RFC 5321 section 2.3.5)."""
    text = _text(value).removesuffix(".")
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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text, expected one in quotes")
    return value


def _address(version: int, value: Any) -> str:
    if _text(value) == "":
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


def _endpoint(value: Any) -> str:
    text = _text(value)
    if not re.fullmatch(r"systemd:[A-Za-z0-9_.-]+", text):
        parse_endpoint(text)
    return text


def _nameserver(value: Any) -> str:
    text = _text(value)
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


def _trusted(value: Any) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        return parse_hostname(value)


def _mailbox(value: Any) -> str:
    from mailtui.address import AddressError, parse_mailbox

    text = _text(value)
    if text:
        try:
            parse_mailbox(text.encode())
        except AddressError as error:
            raise ValueError(f"{_shown(value)} is not a mail address ({error}), expected user@example.org") from None
    return text


def _fingerprint(value: Any) -> str:
    text = _text(value).replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"{_shown(value)} is not a SHA-256 fingerprint, expected 64 hexadecimal digits")
    return text


def _route_match(value: Any) -> str:
    from mailtui.routing.routes import parse_match

    parse_match(_text(value))
    return str(value)


def _route_target(value: Any) -> str:
    from mailtui.routing.routes import parse_target

    if _text(value):
        parse_target(value)
    return str(value)


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("is 0, expected more")
    return value


def _serialize(function: Any) -> PlainSerializer:
    return PlainSerializer(lambda value: "" if value is None else function(value))


Duration = Annotated[float, BeforeValidator(parse_duration), _serialize(format_duration)]
Interval = Annotated[Duration, AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(parse_size), _serialize(format_size)]
Limit = Annotated[
    Rate | None,
    BeforeValidator(parse_rate),
    _serialize(lambda rate: f"{rate.amount}/{format_duration(rate.seconds)}"),
]
Net = Annotated[Network, BeforeValidator(parse_network), _serialize(str)]
Domain = Annotated[str, BeforeValidator(parse_domain)]
Hostname = Annotated[str, BeforeValidator(parse_hostname)]
Address = Annotated[str, BeforeValidator(functools.partial(_address, 0))]
Address4 = Annotated[str, BeforeValidator(functools.partial(_address, 4))]
Address6 = Annotated[str, BeforeValidator(functools.partial(_address, 6))]
Endpoint = Annotated[str, BeforeValidator(_endpoint)]
Nameserver = Annotated[str, BeforeValidator(_nameserver)]
Trusted = Annotated[str, BeforeValidator(_trusted)]
Mailbox = Annotated[str, BeforeValidator(_mailbox)]
Fingerprint = Annotated[str, BeforeValidator(_fingerprint)]
Target = Annotated[str, BeforeValidator(_route_target)]
Level = Literal["", "none", "may", "encrypt", "verify", "dane", "dane-only", "mta-sts", "auto"]
Count = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of the file: strict, closed, never changed after it was read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, validate_default=False)


class ListenerSettings(Table):
    name: Annotated[str, AfterValidator(_not_empty)] = "default"
    address: Endpoint
    role: Literal["relay", "submission"] = "relay"
    tls: Literal["none", "starttls", "implicit"] = "none"
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    auth: Literal["off", "optional", "required"] = "off"
    auth_without_tls: bool = False
    proxy_from: list[Net] = []
    xclient_from: list[Net] = []

    @property
    def host(self) -> str:
        """The address to listen on, without brackets; "" for an inherited socket."""
        return "" if self.inherited else parse_endpoint(self.address)[0]

    @property
    def port(self) -> int:
        """The port; 0 lets the kernel choose."""
        return 0 if self.inherited else parse_endpoint(self.address)[1]

    @property
    def inherited(self) -> str:
        """NAME of "systemd:NAME", else ""."""
        return self.address.partition(":")[2] if self.address.startswith("systemd:") else ""

    @property
    def loopback(self) -> bool:
        """True if nobody but this machine can reach it."""
        return not self.inherited and ipaddress.ip_address(self.host).is_loopback


class AccessSettings(Table):
    networks: list[Net] = [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")]
    local_domains: list[Domain] = []
    relay_domains: list[Domain] = []
    recipients: str = ""
    sender_domains: list[Domain] = []
    certificates: list[Fingerprint] = []
    bare_newline: Literal["reject", "normalize"] = "reject"
    address_literals: bool = True


class RouteSettings(Table):
    match: Annotated[str, BeforeValidator(_route_match)]
    target: Annotated[Target, AfterValidator(_not_empty)]
    auth: str = ""
    tls: Level = ""
    source: Address = ""


class MailSettings(Table):
    postmaster: Mailbox = ""


class DeliverySettings(Table):
    port: Annotated[int, Field(ge=1, le=65535)] = 25
    smarthost: Target = ""
    smarthost_auth: str = ""
    secrets: str = ""
    source_ipv4: Address4 = ""
    source_ipv6: Address6 = ""
    prefer: Literal["any", "ipv4", "ipv6"] = "any"
    own_names: list[Domain] = []
    own_addresses: list[Address] = []
    allow_networks: list[Net] = []
    connect_timeout: Interval = 30.0
    connections: Count = 1000
    concurrency: Count = 20
    rate: Limit = None


class QueueSettings(Table):
    grace: Duration = 600.0


class RetrySettings(Table):
    schedule: Annotated[list[Interval], Field(min_length=1)] = [300.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0]
    expire: Interval = 432000.0
    bounce_expire: Interval = 86400.0
    warn: Annotated[
        float | None,
        BeforeValidator(lambda value: None if value == "" else parse_duration(value)),
        _serialize(format_duration),
    ] = 14400.0


class BounceSettings(Table):
    delay_to: Literal["trusted", "all", "none"] = "trusted"
    return_: Size = Field(default=50 << 10, alias="return")


class TlsSettings(Table):
    default: Annotated[Level, AfterValidator(_not_empty)] = "auto"
    ca_file: str = ""


class DnsSettings(Table):
    nameservers: list[Nameserver] = []
    timeout: Interval = 10.0
    dnssec: Literal["trust-ad", "off", "auto"] = "auto"


class LimitsSettings(Table):
    message_size: Annotated[Size, AfterValidator(_positive)] = 50 << 20
    recipients: Count = 1000
    hops: Count = 100
    connections: Count = 1000
    connections_per_client: Count = 50
    client_rate: Limit = None
    user_rate: Limit = None
    drain: Duration = 15.0
    free_disk: Size = 1 << 30


class TraceSettings(Table):
    trusted: list[Trusted] = []


class HistorySettings(Table):
    keep: Duration = 2592000.0
    rows: Annotated[int, Field(ge=0)] = 1_000_000
    transcripts: Duration = 604800.0


class LogSettings(Table):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsSettings(Table):
    listen: Annotated[str, BeforeValidator(lambda value: value if value == "" else _endpoint(value))] = ""


class Settings(Table):
    """The whole configuration. `Settings()` is what a relay without a file does."""

    hostname: Hostname = Field(default_factory=machine_name)
    listener: list[ListenerSettings] = [ListenerSettings(address="127.0.0.1:2525")]
    access: AccessSettings = AccessSettings()
    route: list[RouteSettings] = []
    mail: MailSettings = MailSettings()
    delivery: DeliverySettings = DeliverySettings()
    queue: QueueSettings = QueueSettings()
    retry: RetrySettings = RetrySettings()
    bounce: BounceSettings = BounceSettings()
    tls: TlsSettings = TlsSettings()
    dns: DnsSettings = DnsSettings()
    limits: LimitsSettings = LimitsSettings()
    trace: TraceSettings = TraceSettings()
    history: HistorySettings = HistorySettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()

    # Where values that are not defaults come from: {("delivery", "port"): "mailtui.toml:7"}; and the file, "" for none.
    _origins: dict[tuple[str | int, ...], str] = PrivateAttr(default_factory=dict)
    _source: str = PrivateAttr(default="")

    @property
    def source(self) -> str:
        """The file that this was read from; "" for none."""
        return self._source

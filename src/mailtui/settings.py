"""mailtui.toml as typed settings: the tables of the contract, attribute for attribute.

Promises: durations are float seconds, sizes are octets, networks are `ipaddress` networks, names are lower-case
A-labels; nothing unknown is taken and nothing is converted silently (`extra="forbid"`, strict). What is wrong with a
value is a ValueError that says what was expected. Reading files and checks across tables are `config`'s.
"""

import functools
import ipaddress
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
)

from mailtui.values import (
    Network,
    Rate,
    check_endpoint,
    check_mailbox,
    check_nameserver,
    format_duration,
    format_size,
    machine_name,
    not_empty,
    parse_address,
    parse_domain,
    parse_duration,
    parse_endpoint,
    parse_fingerprint,
    parse_hostname,
    parse_network,
    parse_rate,
    parse_size,
    parse_trusted,
    positive,
    require_text,
)


def _route_match(value: Any) -> str:
    from mailtui.routing.routes import parse_match

    parse_match(require_text(value))
    return str(value)


def _route_target(value: Any) -> str:
    from mailtui.routing.routes import parse_target

    if require_text(value):
        parse_target(value)
    return str(value)


def _serialize(function: Any) -> PlainSerializer:
    return PlainSerializer(lambda value: "" if value is None else function(value))


Duration = Annotated[float, BeforeValidator(parse_duration), _serialize(format_duration)]
Interval = Annotated[Duration, AfterValidator(positive)]
Size = Annotated[int, BeforeValidator(parse_size), _serialize(format_size)]
Limit = Annotated[
    Rate | None,
    BeforeValidator(parse_rate),
    _serialize(lambda rate: f"{rate.amount}/{format_duration(rate.seconds)}"),
]
Net = Annotated[Network, BeforeValidator(parse_network), _serialize(str)]
Domain = Annotated[str, BeforeValidator(parse_domain)]
Hostname = Annotated[str, BeforeValidator(parse_hostname)]
Address = Annotated[str, BeforeValidator(functools.partial(parse_address, 0))]
Address4 = Annotated[str, BeforeValidator(functools.partial(parse_address, 4))]
Address6 = Annotated[str, BeforeValidator(functools.partial(parse_address, 6))]
Endpoint = Annotated[str, BeforeValidator(check_endpoint)]
Nameserver = Annotated[str, BeforeValidator(check_nameserver)]
Trusted = Annotated[str, BeforeValidator(parse_trusted)]
Mailbox = Annotated[str, BeforeValidator(check_mailbox)]
Fingerprint = Annotated[str, BeforeValidator(parse_fingerprint)]
Target = Annotated[str, BeforeValidator(_route_target)]
Level = Literal["", "none", "may", "encrypt", "verify", "dane", "dane-only", "mta-sts", "auto"]
Count = Annotated[int, Field(ge=1)]


class Table(BaseModel):
    """A table of the file: strict, closed, never changed after it was read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True, validate_default=False)


class ListenerSettings(Table):
    name: Annotated[str, AfterValidator(not_empty)] = "default"
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
    def authentication(self) -> str:
        """off | optional | required: a submission listener requires AUTH whatever `auth` says (RFC 6409 s. 4.3)."""
        return "required" if self.role == "submission" else self.auth

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
    auth_socket: str = ""


class RouteSettings(Table):
    match: Annotated[str, BeforeValidator(_route_match)]
    target: Annotated[Target, AfterValidator(not_empty)]
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
    default: Annotated[Level, AfterValidator(not_empty)] = "auto"
    ca_file: str = ""


class DnsSettings(Table):
    nameservers: list[Nameserver] = []
    timeout: Interval = 10.0
    dnssec: Literal["trust-ad", "off", "auto"] = "auto"


class LimitsSettings(Table):
    message_size: Annotated[Size, AfterValidator(positive)] = 50 << 20
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
    listen: Annotated[str, BeforeValidator(lambda value: value if value == "" else check_endpoint(value))] = ""


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

"""The route table: the grammar of MATCH and TARGET (contract.md "ROUTE and its table"), and which row wins.

Pure and light: no I/O and no DNS, so that the configuration can be checked with it. What is wrong with a text is a
ValueError in one line that says what was expected.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mailtui.address import AddressError, Mailbox, destination_of, parse_mailbox

# The port of a next hop that names none; 0 stands for `[delivery] port`. RFC 8314 section 7.3 and RFC 2033 section 5
# (which forbids 25 for LMTP; 24 is the registered private mail port).
_DEFAULT_PORTS = {"smtp": 0, "smtps": 465, "lmtp": 24}
# RFC 5321 section 4.5.3.1.5: a reply line has 512 octets; the rest is for codes and address.
_ERROR_TEXT_LIMIT = 400

_LITERAL = re.compile(r"\[([^\[\]]*)\](?::(.*))?")
# Host names as they occur inside: labels may hold underscores, unlike mail domains.
_HOST = re.compile(
    r"(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_ERROR = re.compile(r"([45]\.\d{1,3}\.\d{1,3})(?:\s+(.*))?")
_KNOWN = "mx, smtp://[host]:port, smtp://domain:port, smtps://, lmtp://, lmtp:unix:PATH, error:, defer, hold or discard"


@dataclass(frozen=True, slots=True)
class Hop:
    """One next hop of a target. `mx`: the MX of `host` is asked; else `host` is a name or an IP address.

    An empty `host` with `mx` means the MX of the recipient's own domain. `port` 0: the default.
    """

    scheme: str  # smtp | smtps | lmtp
    host: str
    port: int = 0
    mx: bool = False
    path: str = ""  # of lmtp:unix:PATH

    @property
    def loopback(self) -> bool:
        """It cannot be but on this machine, by its name alone: what the DNS says of a name is no proof."""
        if self.path or self.host == "localhost" or self.host.endswith(".localhost"):
            return not self.mx
        return not self.mx and is_address(self.host) and ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"lmtp:unix:{self.path}"
        if not self.host:
            return "mx"
        host = self.host if self.mx else f"[{self.host}]"
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class Target:
    """Where mail goes: `groups` of next hops, tried in order, those of one group being equal; or what else is done."""

    action: str  # relay | error | defer | hold | discard
    groups: tuple[tuple[Hop, ...], ...] = ()
    enhanced: str = ""  # of error
    text: str = ""  # of error

    @property
    def hops(self) -> tuple[Hop, ...]:
        return tuple(hop for group in self.groups for hop in group)

    def __str__(self) -> str:
        if self.action == "relay":
            return "|".join(",".join(map(str, group)) for group in self.groups)
        return f"error:{self.enhanced} {self.text}".rstrip() if self.action == "error" else self.action


@dataclass(frozen=True, slots=True)
class Match:
    """What a row is for. `key`: "local@destination" as `_key` has it, a destination, or "" for any."""

    sender: bool
    kind: str  # address | domain | subdomains | any
    key: str = ""

    def __str__(self) -> str:
        key = {"any": "*", "subdomains": f".{self.key}"}.get(self.kind, self.key)
        return f"from:{key}" if self.sender else key


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A row of the table, or the smarthost (`match` is "", `via` "smarthost"). Compared by identity, so it is a key."""

    match: str
    target: Target
    via: str = "route"
    auth: str = ""
    tls: str = ""
    source: str = ""

    @property
    def options(self) -> str:
        """What tells its next hop from one to the same hosts without options: ";auth=ann;tls=verify", or ""."""
        named = (("auth", self.auth), ("tls", "" if self.tls == "auto" else self.tls), ("source", self.source))
        return "".join(f";{name}={value}" for name, value in named if value)

    @property
    def label(self) -> str:
        """For reasons: which row this is and where it leads."""
        return f"route {self.match} -> {self.target}" if self.match else f"smarthost {self.target}"


class RouteRow(Protocol):
    """A row as the configuration has it (`settings.RouteSettings`)."""

    @property
    def match(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def auth(self) -> str: ...
    @property
    def tls(self) -> str: ...
    @property
    def source(self) -> str: ...


def route_of(row: RouteRow) -> Route:
    """A row with its target parsed. ValueError as `parse_target`."""
    return Route(row.match.strip(), parse_target(row.target), "route", row.auth, row.tls, row.source)


# Targets


def parse_target(text: str) -> Target:
    """A TARGET of the contract; `HOST:PORT` alone means smtp://[HOST]:PORT. ValueError."""
    text = text.strip()
    word = text.lower()
    if word.startswith("error:"):
        return _parse_error(text)
    if word in ("defer", "hold", "discard"):
        return Target(word)
    groups = []
    for group in text.split("|"):
        groups.append(tuple(_parse_hop(hop.strip(), text) for hop in group.split(",")))
    return Target("relay", tuple(groups))


def _parse_error(text: str) -> Target:
    match = _ERROR.fullmatch(text[len("error:") :].strip())
    if match is None:
        raise ValueError(f'"{_shown(text)}": error: needs an enhanced status code, expected error:5.1.2 text')
    reason = match[2] or ""
    if len(reason) > _ERROR_TEXT_LIMIT or not all(" " <= c <= "~" for c in reason):
        raise ValueError(
            f'"{_shown(text)}": the text of error: is not one line of printable ASCII,'
            f" expected at most {_ERROR_TEXT_LIMIT} characters"
        )
    return Target("error", enhanced=match[1], text=reason)


def _parse_hop(text: str, whole: str) -> Hop:
    def wrong(what: str) -> ValueError:
        at = "" if text == whole else f' in "{_shown(whole)}"'
        return ValueError(f'"{_shown(text)}"{at} {what}')

    word = text.lower()
    if not text:
        raise ValueError(f'"{_shown(whole)}": a target is missing, expected {_KNOWN}')
    if word == "mx":
        return Hop("smtp", "", 0, mx=True)
    if word in ("defer", "hold", "discard") or word.startswith("error:"):
        raise wrong("stands alone, expected next hops only in a list with , or |")
    if word.startswith("lmtp:unix:"):
        path = text[len("lmtp:unix:") :]
        if not path.startswith("/") or not path.isprintable():
            raise wrong("has no absolute path, expected lmtp:unix:/run/lmtp.sock")
        return Hop("lmtp", "", path=path)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _parse_bare(text, wrong)
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise wrong(f"has an unknown scheme, expected {_KNOWN}")
    if "@" in rest:
        raise wrong("holds an @: a user is given with auth=USER, its secret in the secrets file")
    if rest.endswith("/"):
        raise wrong("ends in /, expected nothing behind the port")
    literal = _LITERAL.fullmatch(rest)
    if literal is not None:
        return Hop(scheme, _host(literal[1], wrong), _port(literal[2], scheme, wrong))
    if "[" in rest or "]" in rest:
        raise wrong(f"has a broken bracket, expected {scheme}://[host]:port")
    if scheme == "lmtp":
        raise wrong("has no brackets, expected lmtp://[host]:port")
    domain, colon, port = rest.partition(":")
    if is_address(domain) or ":" in port:
        raise wrong(f"has an address without brackets, expected {scheme}://[address]:port")
    try:
        domain = destination_of(domain)
    except AddressError as error:
        raise wrong(f"names no domain ({error}), expected {scheme}://domain:port or {scheme}://[host]:port") from None
    return Hop(scheme, domain, _port(port if colon else None, scheme, wrong), mx=True)


def _parse_bare(text: str, wrong: "_Wrong") -> Hop:
    """`HOST:PORT` or `[HOST]:PORT`, as in --smarthost."""
    literal = _LITERAL.fullmatch(text)
    if literal is not None and literal[2] is not None:
        return Hop("smtp", _host(literal[1], wrong), _port(literal[2], "smtp", wrong))
    host, colon, port = text.partition(":")
    if literal is not None or not colon:
        raise wrong(f"is not a route target, expected HOST:PORT, {_KNOWN}")
    if ":" in port:
        raise wrong("has an IPv6 address without brackets or an unknown scheme, expected [2001:db8::1]:PORT")
    return Hop("smtp", _host(host, wrong), _port(port, "smtp", wrong))


class _Wrong(Protocol):
    def __call__(self, what: str) -> ValueError: ...


def _host(text: str, wrong: _Wrong) -> str:
    """A host name (lower-case A-label) or an address in canonical form, from within brackets."""
    address = text[5:] if text.lower().startswith("ipv6:") else text
    if "%" not in address and is_address(address):
        return str(ipaddress.ip_address(address))
    name = text.removesuffix(".").lower()
    if not name.isascii():
        try:
            name = destination_of(name)
        except AddressError:
            name = ""
    if not _HOST.fullmatch(name) or not re.search("[a-z_]", name):
        raise wrong("names no host, expected a host name or an IP address")
    return name


def _port(text: str | None, scheme: str, wrong: _Wrong) -> int:
    if text is None:
        return _DEFAULT_PORTS[scheme]
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise wrong("has no port, expected 1 to 65535 behind the colon")
    return int(text)


def is_address(text: str) -> bool:
    """Whether it is an IP address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else text[:77] + "..."


# Levels that this version carries out, weakest first (contract.md "TLS levels"); "auto" leaves it to the default.
_STRENGTH = {"none": 0, "may": 1, "encrypt": 2, "verify": 3}
PUBLISHED_LEVELS = ("dane", "dane-only", "mta-sts")


def unsupported(target: Target, *, auth: str = "", source: str = "", tls: str = "") -> str | None:
    """Why mail cannot go by `target` with these options; None if it can. One sentence, for people."""
    if tls in PUBLISHED_LEVELS:
        return f"tls={tls} is not supported by this version, expected none, may, encrypt, verify or auto"
    if source and not is_address(source):
        return f"source={_shown(source)} is no IP address, expected one such as 192.0.2.1"
    for hop in target.hops:
        if hop.path and (tls in ("encrypt", "verify") or auth or source):
            option = f"auth={_shown(auth)}" if auth else f"source={source}" if source else f"tls={tls}"
            return f"{option} means nothing on a Unix socket, expected {hop} without it"
        if hop.scheme == "smtps" and tls == "none":
            return f"{hop} is TLS from the start and tls=none forbids it, expected smtp:// or another level"
        if auth and not hop.host:
            return (
                f"auth={_shown(auth)} would give the password to whatever hosts the DNS names, expected smtp://[host]"
            )
        if auth and tls in _STRENGTH and _STRENGTH[tls] < _STRENGTH[least_level(hop, auth)]:
            least = least_level(hop, auth)
            return f"tls={tls} is too weak for auth={_shown(auth)}: a password goes to {hop} only with tls={least}"
        if source and is_address(hop.host) and (":" in hop.host) != (":" in source):
            return f"source={source} and {hop} are not of the same IP version"
    if auth and not re.fullmatch(r"[^\s\x00-\x20\x7f]{1,255}", auth):
        return f'auth="{_shown(auth)}" is no user name of the secrets file, expected 1 to 255 characters without blanks'
    return None


def least_level(hop: Hop, auth: str) -> str:
    """The weakest TLS level of mail to a next hop: a password needs a verified host (on loopback, where there is no
    name to verify, an encrypted one); implicit TLS is always encrypted."""
    if auth:
        return "encrypt" if hop.loopback else "verify"
    return "encrypt" if hop.scheme == "smtps" else "none"


def stronger(one: str, other: str) -> str:
    """The stronger of two levels; one that only what is published can tell counts as `may`."""
    return max(one, other, key=lambda level: _STRENGTH.get(level, 1))


# Matches


def parse_match(text: str) -> Match:
    """A MATCH of the contract: address, `domain`, `.domain`, `*`, or `from:` one of these. ValueError."""
    text = text.strip()
    sender = text.lower().startswith("from:")
    what = text[len("from:") :].strip() if sender else text
    if what == "*":
        return Match(sender, "any")
    try:
        if what.startswith("."):
            domain = destination_of(what[1:])
            if domain.startswith("["):
                raise AddressError("an address literal has no subdomains")
            return Match(sender, "subdomains", domain)
        if "@" not in what:
            return Match(sender, "domain", destination_of(what))
        if what.startswith("*@"):  # an address by the grammar, but nobody means one
            raise AddressError("there are no wildcards in addresses")
        return Match(sender, "address", _key(parse_mailbox(what.encode(), utf8=True)))
    except AddressError as error:
        hint = ""
        if what.startswith(("*.", "@", "*@")):
            rest = _shown(what.lstrip("*@."))
            hint = f"; write .{rest} for its subdomains" if what.startswith("*.") else f"; write {rest} for a domain"
        raise ValueError(
            f'"{_shown(text)}" is not a route match ({error}{hint}),'
            " expected an address, domain, .domain, * or from: one of these"
        ) from None


def _key(mailbox: Mailbox) -> str:
    """How addresses are compared: without case, which counts only for the destination (RFC 5321 section 2.4)."""
    return f"{mailbox.text.rpartition('@')[0].lower()}@{mailbox.destination}"


class RouteTable:
    """The rows, by what they match.

    The most specific row wins: address before domain before the longest `.domain`. A recipient's row beats a
    sender's (mail to our own domains goes home whoever sends it), except `*`, which is less specific than any
    `from:` row but `from:*`. ValueError if a match is given twice.
    """

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._rows: dict[tuple[bool, str, str], Route] = {}
        for route in self.routes:
            match = parse_match(route.match)
            key = (match.sender, match.kind, match.key)
            if key in self._rows:
                raise ValueError(f'route "{route.match}" is given twice, expected one row a match')
            self._rows[key] = route
        self._sides = tuple(side for side in (False, True) if any(key[0] is side for key in self._rows))
        self._kinds = {(key[0], key[1]) for key in self._rows}

    def find(self, address: str, destination: str, sender: str) -> Route | None:
        """The row for a recipient (`address` may be "": a domain alone) and sender ("" for <>), or None. No I/O."""
        for side in self._sides:
            row = self._find_side(True, sender, None) if side else self._find_side(False, address, destination)
            if row is not None:
                return row
        return self._rows.get((False, "any", "")) or self._rows.get((True, "any", ""))

    def _find_side(self, side: bool, address: str, destination: str | None) -> Route | None:
        """The row of an address that names it or its domain. `destination` None: taken from the address."""
        if destination is None or (address and (side, "address") in self._kinds):
            if not address:
                return None
            try:
                mailbox = parse_mailbox(address.encode(), utf8=True)
            except AddressError:
                return None if destination is None else self._find_domain(side, destination)
            destination = mailbox.destination if destination is None else destination
            row = self._rows.get((side, "address", _key(mailbox)))
            if row is not None:
                return row
        return self._find_domain(side, destination)

    def _find_domain(self, side: bool, destination: str) -> Route | None:
        row = self._rows.get((side, "domain", destination))
        if row is not None or (side, "subdomains") not in self._kinds:
            return row
        rest = destination
        while (dot := rest.find(".")) >= 0 and not destination.startswith("["):
            rest = rest[dot + 1 :]
            if (row := self._rows.get((side, "subdomains", rest))) is not None:
                return row
        return None

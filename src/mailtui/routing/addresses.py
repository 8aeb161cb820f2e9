"""What an address or a name means to us: ourselves, a place DNS must not send us to, or the order to try them in."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from pathlib import Path

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where mail must not go because somebody's DNS says so: it would let strangers reach what only we can reach. Not in
# the list are the networks for documentation (RFC 5737, RFC 3849): nobody is there to be reached.
_REFUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("loopback", ("127.0.0.0/8", "::1/128")),
    ("private", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")),
    ("link-local", ("169.254.0.0/16", "fe80::/10")),
    ("unspecified", ("0.0.0.0/8", "::/128")),
    ("multicast", ("224.0.0.0/4", "ff00::/8")),
    ("reserved", ("240.0.0.0/4",)),
)
_REFUSED_NETWORKS = [(kind, ipaddress.ip_network(text)) for kind, texts in _REFUSED for text in texts]
# IPv6 that carries an IPv4 address: NAT64 (RFC 6052), in its last 32 bits; 6to4 (RFC 3056) after its first 16.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


def refusal(address: str, allowed: Iterable[Network]) -> str:
    """Why mail must not go to `address` on the word of the DNS, "" if it may.

    `allowed`: `[delivery] allow_networks`.
    """
    ip = ipaddress.ip_address(address)
    for carried in dict.fromkeys((ip, _embedded(ip))):
        if any(carried.version == network.version and carried in network for network in allowed):
            return ""
    for carried in dict.fromkeys((ip, _embedded(ip))):
        for kind, network in _REFUSED_NETWORKS:
            if carried.version == network.version and carried in network:
                return f"{address} is a {kind} address and in none of allow_networks"
    return ""


def _unmapped(address: str) -> Address:
    """The address; an IPv4-mapped one is the IPv4 address. ValueError if it is none."""
    ip = ipaddress.ip_address(address)
    return (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip


def _embedded(ip: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, else itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if ip in _6TO4:
        return ipaddress.IPv4Address(int(ip) >> 80 & 0xFFFFFFFF)
    return ip


def arrange(addresses: Iterable[str], prefer: str) -> tuple[str, ...]:
    """In the order to try: the preferred family first; with "any" in turns, IPv6 (RFC 6724) and IPv4.

    In turns, so that a host with many addresses in a family that does not work here is still reached within the few
    addresses of one attempt.
    """
    unique = list(dict.fromkeys(addresses))
    v4 = [address for address in unique if ":" not in address]
    v6 = [address for address in unique if ":" in address]
    if prefer == "ipv4":
        return (*v4, *v6)
    if prefer == "ipv6":
        return (*v6, *v4)
    return tuple(address for address in chain.from_iterable(zip_longest(v6, v4)) if address is not None)


class Ourselves:
    """Is it us? By hostname, `own_names`, `own_addresses`, or an address and port of one of our listeners.

    `listeners` is asked each time, for they may change: (address, port), "0.0.0.0" and "::" meaning every address of
    this machine.
    """

    def __init__(
        self, names: Iterable[str], addresses: Iterable[str], listeners: Callable[[], Sequence[tuple[str, int]]]
    ) -> None:
        self._names = frozenset(name.lower().removesuffix(".") for name in names if name)
        self._addresses = frozenset(_unmapped(address) for address in addresses)
        self._listeners = listeners

    def is_name(self, name: str) -> bool:
        """One of our names; `name` is lower-case."""
        return name in self._names

    def is_address(self, address: str, port: int) -> bool:
        """One of our addresses, or one that we listen on at that port."""
        return _unmapped(address) in self._addresses or self.is_listener(address, port)

    def is_listener(self, address: str, port: int) -> bool:
        """A connection to `address` and `port` would come to ourselves."""
        wanted = _unmapped(address)
        for host, listening in self._listeners():
            if listening != port:
                continue
            try:
                ours = _unmapped(host)
            except ValueError:
                continue  # a socket without an address (Unix, inherited): nothing to compare
            if ours.is_unspecified:
                # "::" may take IPv4 too, depending on the socket: a loop is worse than a host too many dropped.
                if is_local(wanted):
                    return True
            elif ours == wanted:
                return True
        return False


def is_local(address: Address) -> bool:
    """This machine has the address (0.0.0.0 and :: reach it as well)."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if _binds_foreign(address.version):
                probe.connect((str(address), 9))  # sends nothing; the kernel takes the address itself as source
                return bool(probe.getsockname()[0] == str(address))
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _binds_foreign(version: int) -> bool:
    """The kernel lets us bind to addresses that this machine does not have (as load balancers set it)."""
    family = "ipv4" if version == 4 else "ipv6"
    try:
        return Path(f"/proc/sys/net/{family}/ip_nonlocal_bind").read_text().strip() == "1"
    except OSError:
        return False

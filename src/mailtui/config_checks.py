"""What each value of mailtui.toml alone does not show: values that need each other, permissions that are too wide, and
what this version does not carry out.

Promises: a network that is everybody is refused (standards P02); what may be said but would not be done is refused
too, since a forgotten safeguard looks like one that holds.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any, NamedTuple

from mailtui.settings import Settings
from mailtui.values import Network

Key = tuple[str | int, ...]

# Covers all of what is routed on the Internet: a permission for these is a permission for everybody.
_EVERYBODY = [ipaddress.ip_network(net) for net in ("0.0.0.0/0", "2000::/3", "::ffff:0:0/96")]


class Problem(NamedTuple):
    """Something wrong: the place whose line is shown, the key as people read it, and the sentence."""

    at: Key
    key: str
    text: str


def dotted(at: Key) -> str:
    """A place as people read it: `listener.address`."""
    return ".".join(part for part in at if isinstance(part, str))


def problems_of(settings: Settings) -> Iterator[Problem]:
    """What each value alone does not show."""
    access = settings.access
    names: set[str] = set()
    for index, listener in enumerate(settings.listener):
        if listener.name in names:
            yield Problem(
                ("listener", index, "name"), "listener.name", f'"{listener.name}" is used twice, expected unique names'
            )
        names.add(listener.name)
    for domains in ("local_domains", "relay_domains"):
        if getattr(access, domains) and not access.recipients:
            yield Problem(
                ("access", domains),
                "access.recipients",
                f'is not set, expected a FILE of recipients or "any" since {domains} is not empty',
            )
            break
    yield from _everybody(settings)
    for index, listener in enumerate(settings.listener):
        if not listener.loopback and not settings.mail.postmaster:
            yield Problem(
                ("listener", index, "address"),
                "mail.postmaster",
                f"is not set, expected a mail address since listener {listener.name} ({listener.address}) is not on"
                " loopback",
            )
            break
    yield from _not_supported(settings)


def _everybody(settings: Settings) -> Iterator[Problem]:
    """P02: networks that hold the whole Internet make an open relay, in one piece or in several."""
    networks = settings.access.networks
    told = False
    for index, network in enumerate(networks):
        if any(_holds(network, everybody) for everybody in _EVERYBODY):
            told = True
            yield Problem(
                ("access", "networks", index),
                "access.networks",
                f"{network} IS EVERYBODY: it would make an OPEN RELAY, expected only networks whose hosts may send"
                " mail to anywhere",
            )
    merged: list[Network] = [
        *ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(net for net in networks if isinstance(net, ipaddress.IPv6Network)),
    ]
    if not told and any(_holds(network, everybody) for network in merged for everybody in _EVERYBODY):
        yield Problem(
            ("access", "networks"),
            "access.networks",
            "ARE TOGETHER EVERYBODY: they would make an OPEN RELAY, expected only networks whose hosts may send mail"
            " to anywhere",
        )


def _holds(network: Network, inner: Network) -> bool:
    return network.version == inner.version and network.supernet_of(inner)  # type: ignore[arg-type]


def _not_supported(settings: Settings) -> Iterator[Problem]:
    """What the file may say but this version does not carry out: refused, since it would be a promise not kept."""

    for index, listener in enumerate(settings.listener):
        for key, default in (
            ("role", "relay"),
            ("tls", "none"),
            ("client_ca", ""),
            ("auth", "off"),
            ("auth_without_tls", False),
            ("proxy_from", []),
            ("xclient_from", []),
        ):
            value = getattr(listener, key)
            if value != default:
                shown = f'"{value}"' if isinstance(value, str) else "true" if value is True else ""
                yield unsupported(("listener", index, key), shown, f"{_toml(default)} or no such line")
        if listener.inherited:
            yield unsupported(
                ("listener", index, "address"), f'"{listener.address}"', "an address such as 192.0.2.1:25"
            )
    access, delivery, limits = settings.access, settings.delivery, settings.limits
    if access.recipients == "callout":
        yield unsupported(("access", "recipients"), '"callout"', 'a FILE of recipients or "any"')
    for at, values in (
        (("access", "certificates"), access.certificates),
        (("access", "sender_domains"), access.sender_domains),
    ):
        if values:
            yield unsupported(at, "", "[] or no such line")
    for at, text in (
        (("delivery", "smarthost_auth"), delivery.smarthost_auth),
        (("delivery", "secrets"), delivery.secrets),
        (("tls", "ca_file"), settings.tls.ca_file),
        (("metrics", "listen"), settings.metrics.listen),
        (("limits", "client_rate"), limits.client_rate),
        (("limits", "user_rate"), limits.user_rate),
    ):
        if text:
            yield unsupported(at, "", '"" or no such line')
    if settings.tls.default not in ("auto", "may", "none"):
        yield unsupported(("tls", "default"), f'"{settings.tls.default}"', '"auto" | "may" | "none"')


def unsupported(at: Key, value: str, instead: str) -> Problem:
    """This version does not carry out what stands at `at`."""
    shown = f"{value} is" if value else "is"
    return Problem(at, dotted(at), f"{shown} not supported by this version, expected {instead}")


def _toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()

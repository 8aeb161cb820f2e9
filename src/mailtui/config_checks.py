"""What each value of mailtui.toml alone does not show: values that need each other, permissions that are too wide, and
what this version does not carry out.

Promises: a network that is everybody is refused (standards P02); what may be said but would not be done is refused
too, since a forgotten safeguard looks like one that holds.
"""

import ipaddress
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from mailtui.settings import Settings
from mailtui.values import Network

Key = tuple[str | int, ...]

# Covers all of what is routed on the Internet: a permission for these is a permission for everybody.
_EVERYBODY = [ipaddress.ip_network(net) for net in ("0.0.0.0/0", "2000::/3", "::ffff:0:0/96")]

_SECRETS = "a file of 'host user password' lines, mode 0600"


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
                f'is not set, expected a FILE of recipients, "callout" or "any" since {domains} is not empty',
            )
            break
    yield from _everybody(settings)
    yield from _passwords(settings)
    for index, listener in enumerate(settings.listener):
        if not listener.loopback and not settings.mail.postmaster:
            yield Problem(
                ("listener", index, "address"),
                "mail.postmaster",
                f"is not set, expected a mail address since listener {listener.name} ({listener.address}) is not on"
                " loopback",
            )
            break
    yield from _certificates(settings)
    yield from _authentication(settings)
    yield from _not_supported(settings)


def _certificates(settings: Settings) -> Iterator[Problem]:
    """A listener with TLS and nothing to show, or one without that looks as if it had TLS."""
    for index, listener in enumerate(settings.listener):
        for name in ("certificate", "key", "client_ca"):
            at: Key = ("listener", index, name)
            if listener.tls != "none" and not getattr(listener, name) and name != "client_ca":
                where: Key = ("listener", index, "tls")
                yield Problem(
                    where, dotted(at), f'is not set, expected a PEM file since listener.tls is "{listener.tls}"'
                )
            elif listener.tls == "none" and getattr(listener, name):
                yield Problem(at, dotted(at), 'is for no TLS, expected tls = "starttls" or "implicit" beside it')
    if settings.access.certificates and not any(listener.client_ca for listener in settings.listener):
        yield Problem(
            ("access", "certificates"),
            "access.certificates",
            "are asked for by no listener, expected client_ca beside the tls of one",
        )


def _authentication(settings: Settings) -> Iterator[Problem]:
    """A listener whose clients cannot log in without saying their password to everybody on the way."""
    for index, listener in enumerate(settings.listener):
        at: Key = ("listener", index, "auth")
        if listener.authentication == "off":
            if listener.auth_without_tls:
                at = ("listener", index, "auth_without_tls")
                yield Problem(at, dotted(at), 'is for no AUTH, expected auth = "optional" or "required" beside it')
        elif listener.tls == "none" and not listener.auth_without_tls:
            what = f'auth = "{listener.auth}"' if listener.auth != "off" else 'role = "submission"'
            yield Problem(
                at if listener.auth != "off" else ("listener", index, "role"),
                "listener.tls",
                f'is "none", expected "starttls" or "implicit" (or auth_without_tls = true) since {what} asks for'
                " passwords",
            )


def _passwords(settings: Settings) -> Iterator[Problem]:
    """A user without the file of passwords, or without the smarthost that asks for one."""
    delivery = settings.delivery
    if delivery.smarthost_auth and not delivery.smarthost:
        at: Key = ("delivery", "smarthost_auth")
        yield Problem(at, dotted(at), f'"{delivery.smarthost_auth}" is for no smarthost, expected smarthost to be set')
    users: list[tuple[Key, str]] = [
        (("route", index, "auth"), f'[[route]] {row.match} has auth = "{row.auth}"')
        for index, row in enumerate(settings.route)
        if row.auth
    ]
    if delivery.smarthost_auth:
        users.append((("delivery", "smarthost_auth"), f'smarthost_auth is "{delivery.smarthost_auth}"'))
    if users and not delivery.secrets:
        where, who = users[0]
        yield Problem(where, "delivery.secrets", f"is not set, expected {_SECRETS}, since {who}")


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
    for index, listener in enumerate(settings.listener):
        for key in ("proxy_from", "xclient_from"):
            for network in getattr(listener, key):
                if any(_holds(network, everybody) for everybody in _EVERYBODY):
                    yield Problem(
                        ("listener", index, key),
                        f"listener.{key}",
                        f"{network} IS EVERYBODY: anybody could say to be a client of access.networks, which makes an"
                        " OPEN RELAY, expected only the addresses of front ends",
                    )


def _holds(network: Network, inner: Network) -> bool:
    return network.version == inner.version and network.supernet_of(inner)  # type: ignore[arg-type]


def _not_supported(settings: Settings) -> Iterator[Problem]:
    """What the file may say but this version does not carry out: refused, since it would be a promise not kept."""

    if settings.tls.default in ("dane", "dane-only", "mta-sts"):
        levels = '"auto" | "none" | "may" | "encrypt" | "verify"'
        yield unsupported(("tls", "default"), f'"{settings.tls.default}"', levels)


def unsupported(at: Key, value: str, instead: str) -> Problem:
    """This version does not carry out what stands at `at`."""
    shown = f"{value} is" if value else "is"
    return Problem(at, dotted(at), f"{shown} not supported by this version, expected {instead}")


# -- files -----------------------------------------------------------------------------------------------------------


def problems_of_files(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """(key, file, what is wrong with it) of the files that must be usable when the relay starts."""
    if settings.access.recipients not in ("", "any", "callout"):
        yield from _readable("access.recipients", settings.access.recipients, "a file of recipients")
    for index, listener in enumerate(settings.listener):
        if listener.tls != "none":
            yield from _certificate(f"listener.{index}.certificate", listener.certificate, listener.key)
        if listener.client_ca:
            yield from _anchors(f"listener.{index}.client_ca", listener.client_ca)
    if settings.delivery.secrets:
        yield from _secret(settings.delivery.secrets)
    if settings.tls.ca_file:
        yield from _anchors("tls.ca_file", settings.tls.ca_file)


def _readable(key: str, file: str, expected: str) -> Iterator[tuple[str, str, str]]:
    try:
        with open(file, "rb"):
            pass
    except OSError as error:
        yield key, file, f"cannot be read: {error.strerror}, expected {expected}"


def _certificate(key: str, certificate: str, private: str) -> Iterator[tuple[str, str, str]]:
    import ssl

    from mailtui import pem

    try:
        pem.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, private)
    except pem.PemError as error:
        yield key, error.file, f"{error.reason}, expected PEM files of a certificate and of its key"


def _secret(file: str) -> Iterator[tuple[str, str, str]]:
    """The passwords: for the relay's user alone."""
    key = "delivery.secrets"
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        yield key, file, f"cannot be read: {error.strerror}, expected {_SECRETS}"
        return
    if not stat.S_ISREG(mode):
        yield key, file, f"is not a file, expected {_SECRETS}"
    elif mode & 0o077:
        yield key, file, f"can be read by others (mode {stat.S_IMODE(mode):04o}), expected mode 0600"
    else:
        yield from _readable(key, file, _SECRETS)


def _anchors(key: str, file: str) -> Iterator[tuple[str, str, str]]:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except OSError as error:  # SSLError is one
        reason = "holds no PEM certificate" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        yield key, file, f"{reason}, expected PEM certificates"

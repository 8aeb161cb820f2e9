"""TLS towards next hops: the contexts, whether a certificate belongs to the host, and what a session has reached.

Promises: one SSLContext a kind, built once and shared; `verify` means a path to an anchor and a name (RFC 6125 section
6.4), checked before anything but the handshake was said; what could not be verified is told in words that name it.
"""

import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from mailtui.model import PlannedHost, TlsFacts, TlsPolicy

# Names of a certificate that are shown when none of them fits.
MAX_SHOWN = 5


class Contexts:
    """The SSLContexts of a configuration. `ca_file`: PEM anchors for `verify`, "" for the system's."""

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._built: dict[str, ssl.SSLContext] = {}

    def of(self, level: str) -> ssl.SSLContext:
        """The context for `may`, `encrypt` or `verify`. Raises ValueError with the reason if `ca_file` is unusable."""
        context = self._built.get(level)
        if context is None:
            context = self._built[level] = _build(level, self._ca_file)
        return context


def _build(level: str, ca_file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # OpenSSL checks one name, a policy may have several: `misnamed` does it
    if level == "verify":
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST  # the same under every Python: 3.13 adds flags
        _load(context, ca_file)
    else:
        context.verify_mode = ssl.CERT_NONE
    if level == "may":
        # The alternative is plaintext, so old TLS is better than none. SSLv3 stays off by the options.
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996, 8314 section 4.1
    return context


def _load(context: ssl.SSLContext, ca_file: str) -> None:
    if not ca_file:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # SSLError is one
        reason = said(error) if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"[tls] ca_file {ca_file} cannot be used: {reason}, expected PEM certificates") from error


def server_name(host: PlannedHost) -> str:
    """What the handshake asks for (SNI); an address is not sent."""
    return host.name.rstrip(".") or "localhost"


def misnamed(certificate: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Why the certificate (as `getpeercert` gives it) belongs to none of these names and addresses; None if it does.

    RFC 6125 section 6.4: DNS names of the subjectAltName, a wildcard only as the whole left label; the common name only
    if there is no subjectAltName at all."""
    alternatives = certificate.get("subjectAltName", ())
    presented = [value for kind, value in alternatives if kind == "DNS"]
    addresses = [value for kind, value in alternatives if kind == "IP Address"]
    if not alternatives:
        presented = [v for part in certificate.get("subject", ()) for key, v in part if key == "commonName"]
    for name in names:
        wanted = name.lower().rstrip(".")
        address = _address(wanted)
        if address is not None:
            if any(_address(each) == address for each in addresses):
                return None
        elif any(_fits(each.lower().rstrip("."), wanted) for each in presented):
            return None
    shown = ", ".join(ascii(each)[1:-1][:80] for each in [*presented, *addresses][:MAX_SHOWN]) or "no name at all"
    more = ", ..." if len(presented) + len(addresses) > MAX_SHOWN else ""
    return f"the certificate is for {shown}{more} and not for {' or '.join(names)}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _fits(presented: str, wanted: str) -> bool:
    if not presented.startswith("*."):
        return presented == wanted
    label, _, rest = wanted.partition(".")
    return bool(label) and "." in rest and "*" not in rest and rest == presented[2:]


def secured(policy: TlsPolicy, connection: ssl.SSLObject, names: Sequence[str]) -> TlsFacts:
    """What a session has reached by this handshake; `names` are for `verify`. Raises ValueError with the sentence if
    the certificate is another's."""
    cipher = connection.cipher()
    verified_by = None
    if policy.level == "verify":
        why = misnamed(connection.getpeercert() or {}, names)
        if why is not None:
            raise ValueError(why)
        verified_by = "pkix"
    return TlsFacts(
        wanted=policy.level,
        reached="verified" if verified_by else "encrypted",
        protocol=connection.version(),
        cipher=cipher[0] if cipher else None,
        verified_by=verified_by,
        why=policy.why,
    )


def said(error: Exception) -> str:
    """What went wrong in a handshake, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, ConnectionError) and not error.args:
        return "the host closed the connection"
    return str(error) or type(error).__name__

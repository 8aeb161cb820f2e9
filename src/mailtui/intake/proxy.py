"""The PROXY protocol of front ends, versions 1 and 2 (haproxy's proxy-protocol.txt): who the client really is.

Promises: only a connection from `proxy_from` begins with a header, and then it must: one without, or with one that is
malformed, is closed unanswered; trust goes by the address that is announced, and where none is (LOCAL, UNKNOWN, a Unix
socket) there is none, for then the front end speaks for itself or for somebody it does not know. The header comes
before TLS, and what stands behind it is the client's first octets.
"""

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from mailtui.intake.question import Address, parse_client

if TYPE_CHECKING:
    import asyncio

    from mailtui.intake.session import Session

# Section 2.1: a line of version 1 in the worst case, with CRLF.
LINE_LIMIT = 107
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))\r\n"
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
# Addresses and what else a front end tells (names, certificates): haproxy sends a few hundred octets at most.
HEADER_LIMIT = 4096
_LOCAL, _PROXY = 0x20, 0x21
# Address family and transport: length of the addresses, and of one of them. Only streams carry SMTP.
_INET, _INET6, _UNIX, _UNSPECIFIED = 0x11, 0x21, 0x31, 0x00


class Malformed(ValueError):
    """No header, or none that can be right; the text says what is wrong."""


class Announced(NamedTuple):
    """A header: who is connected to which address of the front end, if it says so, and how many octets it took."""

    client: Address | None
    local: Address | None
    length: int


def expect_header(session: "Session", transport: "asyncio.Transport") -> None:
    """A front end has connected. Until its header has come it is neither greeted nor counted as anybody."""
    session.transport = transport
    session.announcing = session.handshaking = True
    session.intake.sessions.add(session)
    session.intake.limits.regard(session)
    session.expect(session.intake.timeouts.handshake)


def receive(session: "Session", data: bytes) -> None:
    """All octets that have come so far."""
    transport, client = session.transport, session.client
    assert transport is not None
    try:
        header = parse(data)
    except Malformed as error:
        session.intake.events.emit(
            "proxy-failed", level="warning", client=client, listener=session.door.name, text=f"PROXY header: {error}"
        )
        return session.abort()
    if header is None:
        return None
    session.announcing = session.handshaking = False
    session.forget_input()
    # Trust needs an address that was announced; for the log and the trace the front end's own is better than none.
    session.address, session.local = header.client, header.local
    if header.client is not None:
        session.client = str(header.client)
    return session.enter(transport, data[header.length :])


def parse(data: bytes) -> Announced | None:
    """The header that `data` begins with; None if there must come more. Raises Malformed."""
    if data[:1] == b"P":
        return _version_1(data)
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _version_2(data)
    raise Malformed("there is none")


def _version_1(data: bytes) -> Announced | None:
    end = data.find(b"\r\n", 0, LINE_LIMIT)
    if end < 0:
        start = data[:6]
        if start != b"PROXY "[: len(start)]:
            raise Malformed("there is none")
        if len(data) >= LINE_LIMIT:
            raise Malformed(f"its line is longer than {LINE_LIMIT} octets")
        return None
    match = _LINE.fullmatch(data, 0, end + 2)
    if match is None:
        raise Malformed("its line cannot be read")
    family, source, destination, *ports = match.groups()
    if family is None:
        return Announced(None, None, end + 2)
    if any(int(port) > 65535 for port in ports):
        raise Malformed("a port is above 65535")
    try:
        kind = ipaddress.IPv4Address if family == b"4" else ipaddress.IPv6Address
        client, local = (str(kind(text.decode("ascii"))) for text in (source, destination))
    except ValueError:
        raise Malformed("an address cannot be read") from None
    return Announced(parse_client(client), parse_client(local), end + 2)


def _version_2(data: bytes) -> Announced | None:
    if len(data) < _FIXED:
        return None
    command, family, length = data[12], data[13], int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY):
        raise Malformed(f"version and command 0x{command:02x} are not known")
    end = _FIXED + length
    if end > HEADER_LIMIT:
        raise Malformed(f"it is longer than {HEADER_LIMIT} octets")
    if len(data) < end:
        return None
    if command == _LOCAL or family in (_UNIX, _UNSPECIFIED):
        return Announced(None, None, end)
    size = {_INET: 4, _INET6: 16}.get(family)
    if size is None:
        raise Malformed(f"family and protocol 0x{family:02x} are no TCP")
    if length < 2 * size + 4:  # and two ports
        raise Malformed("it is too short for its addresses")
    client, local = (str(ipaddress.ip_address(data[start : start + size])) for start in (_FIXED, _FIXED + size))
    return Announced(parse_client(client), parse_client(local), end)

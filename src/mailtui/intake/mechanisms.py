"""The mechanisms by which clients log in here: PLAIN, LOGIN and SCRAM-SHA-256, as dialogues of octets.

A dialogue is a generator: it gives challenges, is sent the client's responses, and returns who wants to log in and by
what. Promises: nothing here knows a connection or waits for anything; a dialogue goes on alike for a name that exists
and one that does not; nothing here shows a password.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from mailtui.intake.accounts import Accounts, folded
from mailtui.saslprep import prepared


@dataclass(frozen=True, slots=True)
class Password:
    """A name, and a password that is still to be checked: as `saslprep.prepared` has it, b"" for one that cannot be."""

    said: str  # the name as the client said it, for the log
    name: str  # as accounts have it; "" if no account can
    password: bytes = field(repr=False)
    other: bool = False  # the client wants to act for somebody else (authzid), which nobody may


@dataclass(frozen=True, slots=True)
class Proof:
    """A name, and whether the client has shown that it knows the password."""

    said: str
    name: str
    right: bool
    other: bool = False


Login = Password | Proof
Dialogue = Generator[bytes, bytes, Login]


class SaslError(Exception):
    """The client's response is none of this mechanism."""


def plain(accounts: Accounts) -> Dialogue:
    """RFC 4616: [authzid] NUL authcid NUL password."""
    parts = (yield b"").split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise SaslError("PLAIN wants [authzid] NUL user NUL password")
    return _password(parts[1], parts[2], parts[0])


def login(accounts: Accounts) -> Dialogue:
    """LOGIN, which no RFC defines: the user, then the password."""
    user = yield b"Username:"
    password = yield b"Password:"
    if not user or not password:
        raise SaslError("LOGIN wants a user and a password")
    return _password(user, password, b"")


def _password(user: bytes, password: bytes, other: bytes) -> Password:
    said, name = _name(user)
    try:
        octets = prepared(password.decode("utf-8"))
    except ValueError:  # UnicodeDecodeError is one
        octets = b""
    return Password(said, name, octets, other not in (b"", user))


# RFC 5802 section 7. Channel binding is not offered (no -PLUS), so "p=" is refused; so is a mandatory extension, "m=".
_FIRST = re.compile(rb"((?:n|y),(?:a=([^,]+))?,)(n=([^,\x00]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,]*)*)")
_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,[A-Za-z]=[^,]*)*),p=([A-Za-z0-9+/=]+)")


def scram_sha_256(accounts: Accounts, nonce: bytes = b"") -> Dialogue:
    """RFC 5802 section 3 with SHA-256 (RFC 7677), without channel binding. `nonce` is for tests."""
    first = _FIRST.fullmatch((yield b""))
    if first is None:
        raise SaslError("the first message of SCRAM is not one of RFC 5802 (channel binding is not offered)")
    header, other, bare, user, theirs = (first[i] for i in (1, 2, 3, 4, 5))
    said, name = _name(_unescaped(user))
    verifier = accounts.verifier(name)
    whole = theirs + (nonce or base64.b64encode(os.urandom(18)))
    challenge = b"r=%b,s=%b,i=%d" % (whole, base64.b64encode(verifier.salt), verifier.iterations)
    final = _FINAL.fullmatch((yield challenge))
    if final is None:
        raise SaslError("the final message of SCRAM is not one of RFC 5802")
    signed = b",".join((bare, challenge, final[1]))
    proof = decoded(final[4])
    right = final[3] == whole and decoded(final[2]) == header and verifier.proven(proof, signed)
    if right and accounts.get(name) is not None:
        said_more = yield b"v=" + base64.b64encode(verifier.signature(signed))
        if said_more:
            raise SaslError("SCRAM is over, there is nothing more to say")
    return Proof(said, name, right, other is not None and _unescaped(other) != _unescaped(user))


def _unescaped(name: bytes) -> bytes:
    """A saslname (RFC 5802 section 5.1): `,` and `=` stand as =2C and =3D."""
    if re.search(rb"=(?!2C|3D)", name):
        raise SaslError("a name of SCRAM holds '=' that stands for nothing")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def _name(octets: bytes) -> tuple[str, str]:
    """A name as it was said, and as accounts have it; "" if no account can have it."""
    said = octets.decode("utf-8", "replace")
    try:
        return said, folded(octets.decode("utf-8"))
    except ValueError:
        return said, ""


def decoded(text: bytes) -> bytes:
    """From base64 (RFC 4648 section 4, nothing else in it). SaslError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SaslError("this is not base64") from None


# Those in which the client says its password.
BY_PASSWORD = ("PLAIN", "LOGIN")

# As EHLO shows them; a client takes the strongest that it knows.
MECHANISMS: dict[str, Callable[[Accounts], Dialogue]] = {
    "SCRAM-SHA-256": scram_sha_256, "PLAIN": plain, "LOGIN": login,
}  # fmt: skip

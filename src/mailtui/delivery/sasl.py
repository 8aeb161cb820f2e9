"""The mechanisms by which we log in at a next hop: PLAIN, LOGIN and SCRAM-SHA-256, as dialogues of octets.

A dialogue is a generator: it gives what the client says (None: the server speaks first) and is sent what the server
said. Promises: nothing here knows a connection; the strongest mechanism that both sides know is chosen; with SCRAM the
server must prove that it knows the password too, and the password itself never leaves (RFC 5802, 7677).
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable, Generator

from mailtui import saslprep

Dialogue = Generator[bytes | None, bytes, None]

# Rounds of PBKDF2 that a server may ask for: RFC 7677 section 4 wants 4096 at least; a million takes half a second.
MIN_ROUNDS, MAX_ROUNDS = 4096, 1_000_000

_FIRST = re.compile(rb"r=([!-+\--~]+),s=([A-Za-z0-9/+]+=*),i=([1-9][0-9]{0,8})(?:,.*)?")


class SaslError(Exception):
    """The dialogue cannot go on; the text is for people and holds no secret."""


def plain(user: str, password: str) -> Dialogue:
    """RFC 4616."""
    yield b"\0" + prepared(user) + b"\0" + prepared(password)


def login(user: str, password: str) -> Dialogue:
    """LOGIN, which no RFC defines: the server asks for the user, then for the password."""
    yield None
    yield prepared(user)
    yield prepared(password)


def scram_sha_256(user: str, password: str, nonce: str = "") -> Dialogue:
    """RFC 5802 section 3 with SHA-256 (RFC 7677), without channel binding. `nonce` is for tests."""
    name = prepared(user).replace(b"=", b"=3D").replace(b",", b"=2C")
    ours = nonce.encode() or base64.b64encode(os.urandom(24))
    first = b"n=" + name + b",r=" + ours
    said = yield b"n,," + first
    match = _FIRST.fullmatch(said)
    if match is None:
        raise SaslError("the server's SCRAM challenge is not one of RFC 5802")
    theirs, salt, rounds = match[1], match[2], int(match[3])
    if not theirs.startswith(ours) or len(theirs) == len(ours):
        raise SaslError("the server's SCRAM challenge does not go on from our nonce")
    if not MIN_ROUNDS <= rounds <= MAX_ROUNDS:
        raise SaslError(f"the server asks for {rounds} SCRAM iterations, expected {MIN_ROUNDS} to {MAX_ROUNDS}")
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password), decoded(salt), rounds)
    final = b"c=biws,r=" + theirs
    signed = first + b"," + said + b"," + final
    client_key = _hmac(salted, b"Client Key")
    signature = _hmac(hashlib.sha256(client_key).digest(), signed)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    said = yield final + b",p=" + base64.b64encode(proof)
    expected = b"v=" + base64.b64encode(_hmac(_hmac(salted, b"Server Key"), signed))
    if not hmac.compare_digest(said.split(b",")[0], expected):
        raise SaslError("the server could not prove by SCRAM that it knows the password")
    yield b""


# The strongest first.
MECHANISMS: dict[str, Callable[[str, str], Dialogue]] = {
    "SCRAM-SHA-256": scram_sha_256, "PLAIN": plain, "LOGIN": login,
}  # fmt: skip

# Those in which only the dialogue's end, not the server's 235, says that all is well.
MUTUAL = {"SCRAM-SHA-256"}


def usable(offered: str) -> list[str]:
    """The mechanisms of EHLO's AUTH line that we know, the strongest first."""
    words = set(offered.upper().split())
    return [name for name in MECHANISMS if name in words]


def decoded(text: bytes) -> bytes:
    """From base64. Raises SaslError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SaslError("the server's challenge is not base64") from None


def prepared(text: str) -> bytes:
    """A user name or password as octets, by SASLprep (RFC 4013). Raises SaslError for what it forbids."""
    try:
        return saslprep.prepared(text)
    except ValueError:
        raise SaslError("the user name or the password holds a character that SASLprep forbids") from None


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")

"""What is kept of a password: a SCRAM-SHA-256 verifier (RFC 5802 section 3, RFC 7677).

Promises: the password cannot be got back from it but by guessing, each guess at the cost of ITERATIONS rounds; whoever
steals it cannot log in with it by PLAIN, and not by SCRAM without having heard a login too; it shows itself nowhere
(no repr). The text form is that of RFC 5803, as PostgreSQL has it: SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from typing import Self

from mailtui.saslprep import prepared

# Rounds of PBKDF2. RFC 7677 section 4 wants 4096 at least, which a graphics card guesses through a million times a
# second. This many take 10 to 20 ms of a core: two threads check 100 to 200 passwords a second, more than clients that
# are remembered (logins.py) ever ask for, and a telephone that logs in by SCRAM takes no tenth of a second.
ITERATIONS = 32_768

# What is taken from elsewhere: less than the RFC's is no protection; more than these a client may refuse.
LEAST_ITERATIONS, MOST_ITERATIONS = 4096, 1_000_000

SALT_LENGTH = 16

_TEXT = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks a password, or the proof of a client that knows it."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def make(cls, password: str, *, salt: bytes = b"", iterations: int = ITERATIONS) -> Self:
        """The verifier of a password. ValueError if SASLprep forbids it or it is empty. Takes some 20 ms."""
        octets = prepared(password)
        if not octets:
            raise ValueError("it is empty")
        salt = salt or os.urandom(SALT_LENGTH)
        salted = derive(octets, salt, iterations)
        return cls(salt, iterations, _stored_key(salted), _hmac(salted, b"Server Key"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From its text form. ValueError."""
        match = _TEXT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            salt, stored, server = (base64.b64decode(match[i], validate=True) for i in (2, 3, 4))
        except (ValueError, binascii.Error):
            raise ValueError("it is no verifier: SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER") from None
        iterations = int(match[1])
        if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
            raise ValueError(f"it has {iterations} iterations, expected {LEAST_ITERATIONS} to {MOST_ITERATIONS}")
        if len(stored) != 32 or len(server) != 32 or len(salt) < 8:
            raise ValueError("its keys are not those of SCRAM-SHA-256")
        return cls(salt, iterations, stored, server)

    @property
    def text(self) -> str:
        """The text form."""
        salt, stored, server = (_text(each) for each in (self.salt, self.stored_key, self.server_key))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def matches(self, password: bytes) -> bool:
        """Whether it is this password's, given as `saslprep.prepared` has it. Takes some 20 ms, without the GIL."""
        return hmac.compare_digest(_stored_key(derive(password, self.salt, self.iterations)), self.stored_key)

    def proven(self, proof: bytes, signed: bytes) -> bool:
        """Whether a client's proof over `signed` (RFC 5802: AuthMessage) shows that it knows the password."""
        signature = _hmac(self.stored_key, signed)
        if len(proof) != len(signature):
            return False
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)

    def signature(self, signed: bytes) -> bytes:
        """What shows the client that we know the verifier."""
        return _hmac(self.server_key, signed)


def derive(password: bytes, salt: bytes, iterations: int) -> bytes:
    """The one costly function: PBKDF2 with HMAC-SHA-256. Tests count its calls."""
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def _stored_key(salted: bytes) -> bytes:
    return hashlib.sha256(_hmac(salted, b"Client Key")).digest()


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _text(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")

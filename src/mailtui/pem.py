"""A certificate chain and its key, from two PEM files, as the TLS library takes them.

Promises: both files and that they belong together are judged before anything is changed; nobody is asked for a
passphrase; what is wrong is one sentence that names the file.
"""

import ssl
from pathlib import Path


class PemError(Exception):
    """A certificate or a key cannot be used: `file`, and `reason` as it goes on behind the file's name."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file} {reason}")
        self.file = file
        self.reason = reason


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Put the chain in `certificate` and the key in `key` (which may be the same file) into a context.

    Raises PemError, and then the context is not to be used. May block: files.
    """
    for file in (certificate, key):
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise PemError(file, f"cannot be read: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except _Encrypted:
        raise PemError(key, "needs a passphrase; the relay takes a key without one") from None
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason == "KEY_VALUES_MISMATCH":
            raise PemError(key, f"is not the key of the certificate in {certificate}") from None
        said = reason.lower().replace("_", " ") or "no PEM certificate and key"
        raise PemError(certificate, f"and {key} cannot be used: {said}") from None


class _Encrypted(Exception):
    """The key is encrypted."""


def _no_passphrase() -> str:
    # Without this function OpenSSL asks the terminal, and waits.
    raise _Encrypted

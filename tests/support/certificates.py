"""Certificates for tests of TLS: one authority a run, and whatever it is to issue."""

import datetime
import functools
import hashlib
import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Files(NamedTuple):
    """The paths of a PEM chain and of its key."""

    certificate: Path
    key: Path

    @property
    def toml(self) -> str:
        """The lines of a listener that name them."""
        return f'certificate = "{self.certificate}"\nkey = "{self.key}"\n'


@functools.cache
def authority() -> trustme.CA:
    """The authority that `client_context` believes."""
    return trustme.CA()


def issue(folder: Path, *names: str, not_after: float | None = None) -> Files:
    """Write a certificate for host names and its key into `folder`; `not_after` in seconds since the epoch.

    A second one takes the place of the first.
    """
    end = datetime.datetime.fromtimestamp(not_after, datetime.UTC) if not_after is not None else None
    begin = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    made = authority().issue_cert(*names, not_before=begin, not_after=end)
    folder.mkdir(exist_ok=True)
    files = Files(folder / "tls.crt", folder / "tls.key")
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    # Renamed into place, as what renews certificates does: no reader sees half a file.
    for path, octets in ((files.key, made.private_key_pem.bytes()), (files.certificate, chain)):
        new = path.with_suffix(".new")
        new.write_bytes(octets)
        new.rename(path)
    return files


def anchors(file: Path) -> Path:
    """Write the certificate of `authority` into a file."""
    file.write_bytes(authority().cert_pem.bytes())
    return file


def fingerprint(files: Files) -> str:
    """The SHA-256 fingerprint of the first certificate in a file, as `[access] certificates` has it."""
    pem = files.certificate.read_text()
    end = pem.index("-----END CERTIFICATE-----") + len("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[:end])).hexdigest()


def client_context(*, verify: bool = True, shows: Files | None = None) -> ssl.SSLContext:
    """A client's side: it believes `authority` and checks the name, or takes any certificate; it `shows` one of its
    own if asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key)
    if verify:
        authority().configure_trust(context)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""A certification authority and the certificate of every server on loopback, as files that programs read."""

from pathlib import Path

import trustme

NAMES = ("localhost", "127.0.0.1", "relay.test", "next.test")


class Certificates:
    """`authority`: what a client trusts; `chain` and `key`: what a server shows for any of NAMES."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert(*NAMES)
        self.authority, self.chain, self.key = (directory / name for name in ("ca.pem", "chain.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(self.authority))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(self.chain), append=True)
        issued.private_key_pem.write_to_path(str(self.key))
        self.key.chmod(0o600)

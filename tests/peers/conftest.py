"""Peers that start once for all tests of a process, and the relay between them; it runs on uvloop, as it is shipped."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from tests.end_to_end.conftest import Live, Start, clock, hop, relay_of, smarthost, state
from tests.peers.certificates import Certificates
from tests.peers.dovecot import Dovecot
from tests.peers.postfix import Postfix
from tests.support.nexthop import NextHop

__all__ = ["clock", "hop", "relay_of", "state"]  # fixtures that are shared with the end-to-end tests


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def dovecot() -> Iterator[Dovecot]:
    peer = Dovecot()
    yield peer
    peer.stop()


@pytest.fixture(scope="session")
def postfix(certificates: Certificates, dovecot: Dovecot) -> Iterator[Postfix]:
    peer = Postfix(certificates, dovecot.auth)
    yield peer
    peer.stop()


@pytest.fixture
async def relay(relay_of: Start, hop: NextHop) -> AsyncIterator[Live]:
    """A relay that takes plain SMTP and sends everything to `hop`."""
    async with relay_of(smarthost(hop)) as relay:
        yield relay


@pytest.fixture
def secrets(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the file of secrets."""

    def write(text: str) -> Path:
        path = tmp_path / "secrets"
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    return write


def listener(name: str, tls: str, certificates: Certificates, port: int = 0) -> str:
    """A further listener, with the certificate of every server here."""
    lines = ["[[listener]]", f'name = "{name}"', f'address = "127.0.0.1:{port}"', f'tls = "{tls}"']
    if tls != "none":
        lines += [f'certificate = "{certificates.chain}"', f'key = "{certificates.key}"']
    return "\n".join(lines) + "\n"


def port_of(relay: Live, name: str) -> int:
    """The port of a listener."""
    [address] = [each["address"] for each in relay.relay.listeners() if each["name"] == name]
    return int(address.rpartition(":")[2])

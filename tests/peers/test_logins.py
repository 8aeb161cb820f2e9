"""Users that a real Dovecot knows log in here, over its authentication socket."""

import base64

import pytest

from tests.end_to_end.conftest import Start, smarthost
from tests.peers.certificates import Certificates
from tests.peers.conftest import port_of
from tests.peers.dovecot import PASSWORD, USER, Dovecot
from tests.peers.programs import need, run
from tests.support.client import Client
from tests.support.nexthop import NextHop


def submission(certificates: Certificates, dovecot: Dovecot) -> str:
    return (
        '[[listener]]\nname = "submission"\naddress = "127.0.0.1:0"\nrole = "submission"\ntls = "starttls"\n'
        f'certificate = "{certificates.chain}"\nkey = "{certificates.key}"\n'
        '[[listener]]\nname = "plain"\naddress = "127.0.0.1:0"\nrole = "submission"\nauth_without_tls = true\n'
        f'[access]\nauth_socket = "{dovecot.auth}"\n'
    )


@pytest.mark.parametrize("method", ["PLAIN", "LOGIN"])
async def test_swaks_logs_in_as_a_user_of_dovecot(
    relay_of: Start, hop: NextHop, certificates: Certificates, dovecot: Dovecot, method: str
) -> None:
    need("swaks")
    async with relay_of(submission(certificates, dovecot) + smarthost(hop)) as relay:
        done = await run(
            "swaks", "--server", "localhost", "--port", str(port_of(relay, "submission")), "-tls",
            "--tls-verify", "--tls-ca-path", str(certificates.authority),
            "--auth", method, "--auth-user", USER, "--auth-password", PASSWORD,
            "--from", "ann@sender.test", "--to", "bob@dest.test", "--data", "Subject: x\n\nx\n",
        )  # fmt: skip
        assert done.status == 0, done.output
        await hop.received(1)
        assert [e["user"] for e in relay.events.recent if e["event"] == "authenticated"] == [USER]


async def test_dovecot_says_no_and_knows_several_at_once(
    relay_of: Start, certificates: Certificates, dovecot: Dovecot
) -> None:
    import asyncio

    async with relay_of(submission(certificates, dovecot)) as relay:

        async def log_in(name: str, password: str) -> int:
            async with await Client.connect(port_of(relay, "plain")) as client:
                await client.command("EHLO client.test")
                said = base64.b64encode(f"\0{name}\0{password}".encode()).decode()
                return (await client.command(f"AUTH PLAIN {said}")).code

        assert await asyncio.gather(*(log_in(USER, PASSWORD) for _ in range(20))) == [235] * 20
        assert await log_in(USER, "wrong") == 535
        assert await log_in("nobody-at-all", PASSWORD) == 535
        assert not [e for e in relay.events.recent if e["event"] == "auth-unavailable"]
